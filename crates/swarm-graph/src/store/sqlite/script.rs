//! Several statements as one call.
//!
//! sqlx runs SQLite on a thread of its own, and each call to it costs two changes of thread: more
//! than most statements. So a commit collects its writes and sends them together.

use std::fmt::Display;

use sqlx::query_builder::Separated;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Encode, QueryBuilder, Sqlite, Type};

use super::Done;

/// Statements to be run in their order.
pub(super) struct Script(QueryBuilder<Sqlite>);

impl Script {
    pub(super) fn new() -> Self {
        Self(QueryBuilder::new(""))
    }

    /// Begins a statement; `sql` is never made of data.
    pub(super) fn statement(&mut self, sql: impl Display) -> &mut Self {
        if !self.is_empty() {
            self.0.push("; ");
        }
        self.sql(sql)
    }

    /// Goes on with the statement.
    pub(super) fn sql(&mut self, sql: impl Display) -> &mut Self {
        self.0.push(sql);
        self
    }

    /// A value in the statement.
    pub(super) fn bind<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'t, Sqlite> + Type<Sqlite>,
    {
        self.0.push_bind(value);
        self
    }

    /// `VALUES`, a row for each item.
    pub(super) fn values<I, F>(&mut self, items: I, row: F) -> &mut Self
    where
        I: IntoIterator,
        F: FnMut(Separated<'_, Sqlite, &'static str>, I::Item),
    {
        self.0.push_values(items, row);
        self
    }

    fn is_empty(&self) -> bool {
        self.0.sql().as_str().is_empty()
    }

    /// Runs all of it.
    pub(super) async fn run(mut self, tx: &mut SqliteConnection) -> Done<()> {
        if !self.is_empty() {
            self.0.build().execute(tx).await?;
        }
        Ok(())
    }
}

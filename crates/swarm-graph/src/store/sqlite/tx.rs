//! What a request does in SQLite: constant statements, prepared once and kept.
//!
//! All statements of requests go through [`Tx::prepare`]: that is the one place where a test can
//! let any of them fail, or let the process die between two.

use rusqlite::types::{FromSql, Value};
use rusqlite::{CachedStatement, Connection, Params, Row, params_from_iter};

use super::Done;

/// A transaction of a connection; who began it ends it.
pub(super) struct Tx<'c> {
    connection: &'c Connection,
    #[cfg(feature = "testkit")]
    faults: Option<&'c super::fault::Faults>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            #[cfg(feature = "testkit")]
            faults: None,
        }
    }

    /// One that fails and dies where it is told to.
    #[cfg(feature = "testkit")]
    pub(super) fn faulty(connection: &'c Connection, faults: &'c super::fault::Faults) -> Self {
        Self { connection, faults: Some(faults) }
    }

    fn prepare(&self, sql: &str) -> Done<CachedStatement<'c>> {
        #[cfg(feature = "testkit")]
        if let Some(faults) = self.faults {
            faults.at_statement()?;
        }
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Done<usize> {
        Ok(self.prepare(sql)?.execute(params)?)
    }

    /// The number of the row that was inserted last.
    pub(super) fn last_row(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// The only row.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Done<T>,
    ) -> Done<T> {
        let found = self.find(sql, params, read)?;
        Ok(found.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
    }

    /// The first row, if there is one.
    pub(super) fn find<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Done<T>,
    ) -> Done<Option<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params)?;
        let found = rows.next()?.map(read).transpose()?;
        // A statement that writes and returns rows has done its work only at its end.
        while rows.next()?.is_some() {}
        Ok(found)
    }

    /// All rows.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> Done<T>,
    ) -> Done<Vec<T>> {
        self.all_while(sql, params, |_| Ok(true), read)
    }

    /// The rows up to the first that does not hold.
    pub(super) fn all_while<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut holds: impl FnMut(&Row<'_>) -> Done<bool>,
        mut read: impl FnMut(&Row<'_>) -> Done<T>,
    ) -> Done<Vec<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            if !holds(row)? {
                break;
            }
            all.push(read(row)?);
        }
        Ok(all)
    }
}

/// A statement that is put together: for lists with filters, never for writes.
pub(super) struct Query {
    sql: String,
    params: Vec<Value>,
}

impl Query {
    /// Begins with what every variant begins with.
    pub(super) fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), params: Vec::new() }
    }

    /// Goes on; `sql` is never made of data.
    pub(super) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// A value.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.params.push(value.into());
        self.push("?")
    }

    /// All rows.
    pub(super) fn all<T>(
        &self,
        tx: &Tx<'_>,
        read: impl FnMut(&Row<'_>) -> Done<T>,
    ) -> Done<Vec<T>> {
        tx.all(&self.sql, params_from_iter(&self.params), read)
    }
}

/// Reads the only column.
pub(super) fn scalar<T: FromSql>(row: &Row<'_>) -> Done<T> {
    Ok(row.get(0)?)
}

/// Reads the columns in their order.
pub(super) fn tuple<T>(row: &Row<'_>) -> Done<T>
where
    T: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error>,
{
    Ok(T::try_from(row)?)
}

//! A store as a dump, and back, on a connection of its own and without a bound of time.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use swarm_core::port::store::{Error, Result};
use swarm_core::time::Timestamp;
use tokio::sync::mpsc;

use super::call::Again;
use super::row::{self, uint};
use super::{Done, Fault, PostgresStore, args};
use crate::store::dump::{self, Dump, Kind, Next, Reader, TABLES, Table};

/// How many rows are read or written at once.
const BATCH: usize = 500;

#[async_trait]
impl Dump for PostgresStore {
    async fn at_work(&self, now: Timestamp) -> Result<u64> {
        let sql = "SELECT count(*) FROM runs WHERE status = 'running' AND lease_until > $1";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(now.as_millis())).await?;
        Ok(row::scalar(&rows)?.map_or(0, uint))
    }

    async fn export(&self, lines: mpsc::Sender<String>) -> Result<u64> {
        let mut connection = self.alone().await?;
        let rows = done(export(&mut connection, &lines).await)?;
        // A server that closes first has closed as well.
        let _ = connection.close().await;
        Ok(rows)
    }

    async fn import(&self, lines: mpsc::Receiver<String>) -> Result<u64> {
        let mut connection = self.alone().await?;
        // Without its commit, nothing of the transaction is there.
        let rows = done(import(&mut connection, lines).await)?;
        let committed = connection.execute("COMMIT").await;
        committed.map_err(|error| Error::Unknown(Box::new(error)))?;
        // A server that closes first has closed as well.
        let _ = connection.close().await;
        self.0.bell.ring();
        Ok(rows)
    }
}

fn done<T>(done: Done<T>) -> Result<T> {
    done.map_err(|fault| match fault {
        Fault::Store(error) => error,
        Fault::Sql(error) => Error::Backend(Box::new(error)),
    })
}

impl PostgresStore {
    async fn alone(&self) -> Result<PgConnection> {
        let connected = async {
            let mut connection = self.pool().open().await?;
            connection
                .execute(
                    "SET statement_timeout = 0; SET lock_timeout = 0; \
                     SET idle_in_transaction_session_timeout = 0",
                )
                .await?;
            Ok::<_, sqlx::Error>(connection)
        };
        connected.await.map_err(|error| Error::Backend(Box::new(error)))
    }
}

async fn export(connection: &mut PgConnection, lines: &mpsc::Sender<String>) -> Done<u64> {
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    send(lines, dump::head()?).await?;
    let mut count = 0;
    for table in TABLES {
        send(lines, dump::begins(table)?).await?;
        // Made of constants.
        let cursor = AssertSqlSafe(format!(
            "DECLARE rows NO SCROLL CURSOR FOR SELECT {} FROM {} ORDER BY {}",
            columns(table),
            table.name,
            table.order
        ));
        sqlx::query(cursor).execute(&mut *connection).await?;
        let fetch = format!("FETCH {BATCH} FROM rows");
        loop {
            // What is fetched differs by the cursor, so the statement is not kept.
            let fetched = sqlx::query(AssertSqlSafe(fetch.clone())).persistent(false);
            let rows = fetched.fetch_all(&mut *connection).await?;
            for row in &rows {
                send(lines, dump::row(&cells(table, row)?)?).await?;
                count += 1;
            }
            if rows.len() < BATCH {
                break;
            }
        }
        connection.execute("CLOSE rows").await?;
    }
    connection.execute("COMMIT").await?;
    send(lines, dump::end(count)?).await?;
    Ok(count)
}

async fn send(lines: &mpsc::Sender<String>, line: String) -> Done<()> {
    Ok(lines.send(line).await.map_err(|_| dump::nobody_reads())?)
}

/// Columns as they are read.
fn columns(table: &Table) -> String {
    let columns = table.columns.iter().map(|(name, kind)| match kind {
        Kind::Int => format!("{name}::bigint"),
        Kind::Text | Kind::Flag | Kind::Labels => (*name).to_owned(),
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn cells(table: &Table, row: &PgRow) -> Done<Vec<Value>> {
    let cells = table.columns.iter().enumerate().map(|(n, (_, kind))| {
        Ok(match kind {
            Kind::Int => row.try_get::<Option<i64>, _>(n)?.into(),
            Kind::Text => row.try_get::<Option<String>, _>(n)?.into(),
            Kind::Flag => row.try_get::<Option<bool>, _>(n)?.into(),
            Kind::Labels => {
                let mut labels = serde_json::Map::new();
                for label in row.try_get::<Vec<String>, _>(n)? {
                    let (key, value): (String, Value) = row::json("labels", table.name, &label)?;
                    labels.insert(key, value);
                }
                Value::Object(labels)
            }
        })
    });
    cells.collect()
}

async fn import(connection: &mut PgConnection, mut lines: mpsc::Receiver<String>) -> Done<u64> {
    connection.execute("BEGIN").await?;
    for table in TABLES {
        let lock = AssertSqlSafe(format!("LOCK TABLE {} IN EXCLUSIVE MODE", table.name));
        sqlx::query(lock).execute(&mut *connection).await?;
        let any = AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM {})", table.name));
        if sqlx::query_scalar(any).fetch_one(&mut *connection).await? {
            return Err(dump::not_empty(table.name).into());
        }
    }
    let mut reader = Reader::default();
    let mut batch: Option<Batch> = None;
    while let Some(line) = lines.recv().await {
        let Next::Row(table, cells) = reader.read(&line)? else { continue };
        if batch.as_ref().is_some_and(|batch| batch.is_full() || batch.table.name != table.name)
            && let Some(full) = batch.take()
        {
            full.write(connection).await?;
        }
        batch.get_or_insert_with(|| Batch::of(table)).push(cells)?;
    }
    let rows = reader.finish()?;
    if let Some(last) = batch {
        last.write(connection).await?;
    }
    for table in TABLES {
        let Some(number) = table.number else { continue };
        let set = AssertSqlSafe(format!(
            "SELECT setval(pg_get_serial_sequence('{0}', '{number}'), max({number})) FROM {0} \
             HAVING max({number}) IS NOT NULL",
            table.name
        ));
        sqlx::query(set).execute(&mut *connection).await?;
    }
    Ok(rows)
}

/// Rows of one table, column by column, as text.
struct Batch {
    table: &'static Table,
    columns: Vec<Vec<Option<String>>>,
}

impl Batch {
    fn of(table: &'static Table) -> Self {
        Self { table, columns: table.columns.iter().map(|_| Vec::new()).collect() }
    }

    fn is_full(&self) -> bool {
        self.columns.first().is_some_and(|column| column.len() >= BATCH)
    }

    fn push(&mut self, cells: Vec<Value>) -> Result<()> {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(match cell {
                Value::Null => None,
                Value::String(text) => Some(text),
                Value::Object(labels) => {
                    let labels = labels
                        .iter()
                        .map(|(key, value)| row::label(key, value.as_str().unwrap_or_default()));
                    Some(row::text(&labels.collect::<Result<Vec<_>>>()?)?)
                }
                other => Some(other.to_string()),
            });
        }
        Ok(())
    }

    async fn write(self, connection: &mut PgConnection) -> Done<()> {
        let each = |make: fn(usize, Kind) -> String| {
            let columns = self.table.columns.iter().enumerate();
            columns.map(|(n, (_, kind))| make(n + 1, *kind)).collect::<Vec<_>>().join(", ")
        };
        let values = each(|n, kind| match kind {
            Kind::Int => format!("u.c{n}::bigint"),
            Kind::Text => format!("u.c{n}"),
            Kind::Flag => format!("u.c{n}::boolean"),
            Kind::Labels => format!("ARRAY(SELECT json_array_elements_text(u.c{n}::json))"),
        });
        // Made of constants.
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {values} FROM unnest({}) WITH ORDINALITY AS u ({}, o) \
             ORDER BY u.o",
            self.table.name,
            self.table.column_list(),
            each(|n, _| format!("${n}::text[]")),
            each(|n, _| format!("c{n}")),
        );
        let mut insert = sqlx::query(AssertSqlSafe(sql));
        for column in self.columns {
            insert = insert.bind(column);
        }
        insert.execute(connection).await?;
        Ok(())
    }
}

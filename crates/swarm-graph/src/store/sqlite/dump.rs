//! A store as a dump, and back: one read, or one write, of the whole file.

use async_trait::async_trait;
use rusqlite::types::Value as Cell;
use rusqlite::{Row, params_from_iter};
use serde_json::Value;
use swarm_core::port::store::Result;
use swarm_core::time::Timestamp;
use tokio::sync::mpsc;

use super::row::{self, uint};
use super::tx::{Tx, scalar};
use super::{Done, SqliteStore};
use crate::store::dump::{self, Dump, Kind, Next, Reader, TABLES, Table};

#[async_trait]
impl Dump for SqliteStore {
    async fn at_work(&self, now: Timestamp) -> Result<u64> {
        self.read(move |tx| {
            let sql = "SELECT count(*) FROM runs WHERE status = 'running' AND lease_until > ?1";
            Ok(uint(tx.one(sql, [now.as_millis()], scalar)?))
        })
        .await
    }

    async fn export(&self, lines: mpsc::Sender<String>) -> Result<u64> {
        self.read(move |tx| export(tx, &lines)).await
    }

    async fn import(&self, lines: mpsc::Receiver<String>) -> Result<u64> {
        self.write(move |tx| import(tx, lines)).await
    }
}

fn export(tx: &Tx<'_>, lines: &mpsc::Sender<String>) -> Done<u64> {
    let send = |line| lines.blocking_send(line).map_err(|_| dump::nobody_reads());
    send(dump::head()?)?;
    let mut count = 0;
    for table in TABLES {
        send(dump::begins(table)?)?;
        let columns = table.column_list();
        let sql = format!("SELECT {columns} FROM {} ORDER BY {}", table.name, table.order);
        // Each row is sent as it is read; what is collected is nothing.
        let _: Vec<()> = tx.all(&sql, [], |row| {
            count += 1;
            Ok(send(dump::row(&cells(table, row)?)?)?)
        })?;
    }
    send(dump::end(count)?)?;
    Ok(count)
}

fn cells(table: &Table, row: &Row<'_>) -> Done<Vec<Value>> {
    let cells = table.columns.iter().enumerate().map(|(n, (_, kind))| {
        Ok(match kind {
            Kind::Int => row.get::<_, Option<i64>>(n)?.into(),
            Kind::Text => row.get::<_, Option<String>>(n)?.into(),
            Kind::Flag => row.get::<_, Option<bool>>(n)?.into(),
            Kind::Labels => row::json("labels", table.name, &row.get::<_, String>(n)?)?,
        })
    });
    cells.collect()
}

fn import(tx: &Tx<'_>, mut lines: mpsc::Receiver<String>) -> Done<u64> {
    for table in TABLES {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
        if tx.one(&sql, [], scalar)? {
            return Err(dump::not_empty(table.name).into());
        }
    }
    let inserts = TABLES.iter().map(|table| {
        let places = vec!["?"; table.columns.len()].join(", ");
        format!("INSERT INTO {} ({}) VALUES ({places})", table.name, table.column_list())
    });
    let inserts: Vec<String> = inserts.collect();
    let mut reader = Reader::default();
    while let Some(line) = lines.blocking_recv() {
        let Next::Row(table, cells) = reader.read(&line)? else { continue };
        let named = |(known, _): &(&Table, &String)| known.name == table.name;
        if let Some((_, insert)) = TABLES.iter().zip(&inserts).find(named) {
            tx.execute(insert, params_from_iter(cells.into_iter().map(cell)))?;
        }
    }
    Ok(reader.finish()?)
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(flag) => Cell::Integer(i64::from(flag)),
        Value::Number(number) => Cell::Integer(number.as_i64().unwrap_or_default()),
        Value::String(text) => Cell::Text(text),
        value @ (Value::Array(_) | Value::Object(_)) => Cell::Text(value.to_string()),
    }
}

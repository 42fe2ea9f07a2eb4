//! Small documents under a key.

use async_trait::async_trait;
use rusqlite::params;
use serde_json::Value;
use swarm_core::port::records::{Error, Record, Records};
use swarm_core::port::store;

use super::row::{self, int, uint};
use super::tx::{Tx, scalar};
use super::{Done, SqliteStore};

#[async_trait]
impl Records for SqliteStore {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Record>, Error> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let read = self.read(move |tx| {
            tx.find(
                "SELECT version, value FROM records WHERE namespace = ?1 AND key = ?2",
                [&namespace, &key],
                |row| record(key.clone(), row.get(0)?, row::word(row, 1)?),
            )
        });
        read.await.map_err(failed)
    }

    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> Result<u64, Error> {
        let (namespace, name) = (namespace.to_owned(), key.to_owned());
        let value = row::text(&value).map_err(failed)?;
        let found = self
            .write(move |tx| put(tx, &namespace, &name, expected, &value))
            .await
            .map_err(failed)?;
        if found != expected {
            return Err(Error::Conflict { key: key.to_owned(), expected, found });
        }
        Ok(expected + 1)
    }

    async fn list(&self, namespace: &str, prefix: &str) -> Result<Vec<Record>, Error> {
        let (namespace, prefix) = (namespace.to_owned(), prefix.to_owned());
        // Keys of one prefix stand together, from the prefix itself on.
        let read = self.read(move |tx| {
            tx.all_while(
                "SELECT key, version, value FROM records WHERE namespace = ?1 AND key >= ?2 \
                 ORDER BY key",
                [&namespace, &prefix],
                |row| Ok(row::word(row, 0)?.starts_with(&prefix)),
                |row| record(row.get(0)?, row.get(1)?, row::word(row, 2)?),
            )
        });
        read.await.map_err(failed)
    }
}

/// Writes a document whose version is `expected`; returns the version found, 0 for none.
fn put(tx: &Tx<'_>, namespace: &str, key: &str, expected: u64, value: &str) -> Done<u64> {
    let found: Option<i64> = tx.find(
        "SELECT version FROM records WHERE namespace = ?1 AND key = ?2",
        params![namespace, key],
        scalar,
    )?;
    let found = found.map_or(0, uint);
    if found != expected {
        return Ok(found);
    }
    tx.execute(
        "INSERT INTO records (namespace, key, version, value) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (namespace, key) DO UPDATE SET version = ?3, value = ?4",
        params![namespace, key, int(expected + 1), value],
    )?;
    Ok(found)
}

fn record(key: String, version: i64, value: &str) -> Done<Record> {
    let value = row::json("record", &key, value)?;
    Ok(Record { key, version: uint(version), value })
}

fn failed(error: store::Error) -> Error {
    Error::Store(Box::new(error))
}

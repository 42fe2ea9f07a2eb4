//! Small documents under a key.

use async_trait::async_trait;
use futures::TryStreamExt as _;
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use swarm_core::port::records::{Error, Record, Records};
use swarm_core::port::store;

use super::row::{self, backend, int, uint};
use super::{Done, SqliteStore};

#[async_trait]
impl Records for SqliteStore {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Record>, Error> {
        let found: Option<(i64, String)> =
            sqlx::query_as("SELECT version, value FROM records WHERE namespace = ?1 AND key = ?2")
                .bind(namespace)
                .bind(key)
                .fetch_optional(&self.readers)
                .await
                .map_err(|error| failed(backend(error)))?;
        found.map(|(version, value)| record(key.to_owned(), version, &value)).transpose()
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
            .write(move |tx| {
                Box::pin(async move { put(tx, &namespace, &name, expected, &value).await })
            })
            .await
            .map_err(failed)?;
        if found != expected {
            return Err(Error::Conflict { key: key.to_owned(), expected, found });
        }
        Ok(expected + 1)
    }

    async fn list(&self, namespace: &str, prefix: &str) -> Result<Vec<Record>, Error> {
        let mut rows = sqlx::query_as::<_, (String, i64, String)>(
            "SELECT key, version, value FROM records WHERE namespace = ?1 AND key >= ?2 \
             ORDER BY key",
        )
        .bind(namespace)
        .bind(prefix)
        .fetch(&self.readers);
        let mut records = Vec::new();
        while let Some((key, version, value)) =
            rows.try_next().await.map_err(|error| failed(backend(error)))?
        {
            // Keys of one prefix stand together, from the prefix itself on.
            if !key.starts_with(prefix) {
                break;
            }
            records.push(record(key, version, &value)?);
        }
        Ok(records)
    }
}

/// Writes a document whose version is `expected`; returns the version found, 0 for none.
async fn put(
    tx: &mut SqliteConnection,
    namespace: &str,
    key: &str,
    expected: u64,
    value: &str,
) -> Done<u64> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM records WHERE namespace = ?1 AND key = ?2")
            .bind(namespace)
            .bind(key)
            .fetch_optional(&mut *tx)
            .await?;
    let found = found.map_or(0, uint);
    if found != expected {
        return Ok(found);
    }
    sqlx::query(
        "INSERT INTO records (namespace, key, version, value) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (namespace, key) DO UPDATE SET version = ?3, value = ?4",
    )
    .bind(namespace)
    .bind(key)
    .bind(int(expected + 1))
    .bind(value)
    .execute(tx)
    .await?;
    Ok(found)
}

fn record(key: String, version: i64, value: &str) -> Result<Record, Error> {
    let value = row::json("record", &key, value).map_err(failed)?;
    Ok(Record { key, version: uint(version), value })
}

fn failed(error: store::Error) -> Error {
    Error::Store(Box::new(error))
}

//! Small documents under a key.

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::port::records::{Error, Record, Records};
use swarm_core::port::store;

use super::call::Again;
use super::row::{self, column, int, uint};
use super::{PostgresStore, args};

#[async_trait]
impl Records for PostgresStore {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Record>, Error> {
        let sql = "SELECT key, version, value FROM records WHERE namespace = $1 AND key = $2";
        let rows =
            self.pool().rows(Again::Read, sql, |_| args!(namespace, key)).await.map_err(failed)?;
        rows.first().map(record).transpose().map_err(failed)
    }

    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> Result<u64, Error> {
        let text = row::text(&value).map_err(failed)?;
        let second = std::sync::atomic::AtomicBool::new(false);
        let call = self.pool().rows(Again::Same, "SELECT put_record($1, $2, $3, $4)", |again| {
            second.store(again, std::sync::atomic::Ordering::Relaxed);
            args!(namespace, key, int(expected), text.as_str())
        });
        let rows = call.await.map_err(failed)?;
        let found = row::scalar::<i64>(&rows).map_err(failed)?.map_or(0, uint);
        if found == expected {
            return Ok(expected + 1);
        }
        // After a lost answer, the record that is there may be ours.
        if second.into_inner() && found == expected + 1 {
            let there = self.get(namespace, key).await?;
            if there.is_some_and(|there| there.version == found && there.value == value) {
                return Ok(found);
            }
        }
        Err(Error::Conflict { key: key.to_owned(), expected, found })
    }

    async fn list(&self, namespace: &str, prefix: &str) -> Result<Vec<Record>, Error> {
        let end = after(prefix);
        let sql = "SELECT key, version, value FROM records \
                   WHERE namespace = $1 AND key >= $2 AND ($3::text IS NULL OR key < $3) \
                   ORDER BY key";
        let rows = self
            .pool()
            .rows(Again::Read, sql, |_| args!(namespace, prefix, end.as_deref()))
            .await
            .map_err(failed)?;
        rows.iter().map(|row| record(row).map_err(failed)).collect()
    }
}

/// The first key in the order of bytes that no longer begins with `prefix`; `None` if all that
/// follow do.
fn after(prefix: &str) -> Option<String> {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        // The next character that is one: between the two lie the surrogates.
        let next = u32::from(last) + 1;
        if let Some(next) = char::from_u32(if next == 0xD800 { 0xE000 } else { next }) {
            end.push(next);
            return Some(end.into_iter().collect());
        }
    }
    None
}

fn record(row: &sqlx::postgres::PgRow) -> store::Result<Record> {
    let key: String = column(row, "key")?;
    let value = row::json("record", &key, column(row, "value")?)?;
    Ok(Record { version: uint(column(row, "version")?), key, value })
}

fn failed(error: store::Error) -> Error {
    Error::Store(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn keys_of_a_prefix_end_before_the_next_character() {
        assert_eq!(after("issue/").as_deref(), Some("issue0"));
        assert_eq!(after("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
        assert_eq!(after("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!((after(""), after("\u{10FFFF}")), (None, None));
    }
}

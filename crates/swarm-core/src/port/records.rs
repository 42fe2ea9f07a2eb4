//! Small documents under a key, for adapters that must remember something durable.
//!
//! The local forge keeps its issues and pull requests here. One record is the unit of
//! atomicity: a writer names the version that it read, and loses if another was faster.

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;

/// A stored document.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its key inside the namespace.
    pub key: String,
    /// Its version: 1 when created, one more with each write.
    pub version: u64,
    /// The document.
    pub value: Value,
}

/// Why a record was not written or read.
#[derive(Debug, Error)]
pub enum Error {
    /// Another writer was faster; read again and decide again.
    #[error("record `{key}` is at version {found}, not {expected}")]
    Conflict {
        /// The record.
        key: String,
        /// The version the writer had read; 0 for a record that must not exist.
        expected: u64,
        /// The version there is; 0 for none.
        found: u64,
    },
    /// The store failed.
    #[error("record store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Durable documents.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Reads one document.
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Record>, Error>;

    /// Writes a document whose version is still `expected` (0: it does not exist yet) and
    /// returns the new version. After this it will be found on restart.
    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> Result<u64, Error>;

    /// All documents whose key starts with `prefix`, ordered by key.
    async fn list(&self, namespace: &str, prefix: &str) -> Result<Vec<Record>, Error>;
}

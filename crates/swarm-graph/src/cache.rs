//! Outputs of nodes, kept for later runs.
//!
//! What a newcomer gets wrong: the cache is no part of a run's history. An output that was taken
//! from it is a step of its run like any other, and stays when the cache forgets it. A cache that
//! cannot be read or written costs time, never a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use swarm_core::id::{RunId, StepId};
use swarm_core::port::records;
use swarm_core::port::store::Store;
use swarm_core::time::Timestamp;

use crate::graph::Cache;

/// The namespace of its records.
pub const NAMESPACE: &str = "swarm-graph.cache";

/// A kept output.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Kept {
    /// The first moment at which it is no longer used.
    pub(crate) expires_at: Timestamp,
    /// The run that it comes from.
    pub(crate) run: RunId,
    /// The step that it comes from.
    pub(crate) step: StepId,
    /// The output.
    pub(crate) output: Value,
}

/// Where an output is kept: under all that it depends on.
pub(crate) fn key(cache: &Cache, value: &Value) -> String {
    let mut digest = Sha256::new();
    for part in [cache.scope.as_str(), &sorted(value).to_string()] {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

/// The order of an object's keys does not count.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(entries.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// What is kept under a key and not too old.
pub(crate) async fn find(store: &dyn Store, key: &str, now: Timestamp) -> Option<Kept> {
    match store.get(NAMESPACE, key).await {
        Ok(record) => {
            let kept: Kept = serde_json::from_value(record?.value).ok()?;
            (now < kept.expires_at).then_some(kept)
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "The cache cannot be read.");
            None
        }
    }
}

/// Keeps an output. Of two that come at once one is kept.
pub(crate) async fn keep(store: &dyn Store, key: &str, kept: Kept) {
    let written = async {
        let version = store.get(NAMESPACE, key).await?.map_or(0, |record| record.version);
        let value = serde_json::to_value(kept).unwrap_or_default();
        store.put(NAMESPACE, key, version, value).await
    };
    match written.await {
        Ok(_) | Err(records::Error::Conflict { .. }) => {}
        Err(error @ records::Error::Store(_)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "An output was not kept.");
        }
    }
}

/// The first moment at which something kept now is too old.
pub(crate) fn expires_at(cache: &Cache, now: Timestamp) -> Timestamp {
    now + cache.ttl.max(Duration::from_millis(1))
}

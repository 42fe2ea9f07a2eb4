//! The self-contained text of a graph, and its hash.
//!
//! The bundle is JSON, which is YAML: the data of the file with its imports resolved. The hash is
//! over the same data with sorted keys, except that the order of nodes and channels counts:
//! updates are applied in the order of the nodes. A graph that runs inside is in the bundle as its
//! own bundle, and in the hash by its own hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use swarm_core::id::GraphHash;

use super::policies::Policies;
use crate::graph::Graph;
use crate::spec::yaml::Yaml;

/// A graph as it is kept and named.
pub(super) struct Bundle {
    pub(super) text: String,
    pub(super) hash: GraphHash,
}

/// Makes the bundle of a graph file.
pub(super) fn bundle(
    tree: &Yaml,
    policies: &Policies,
    inside: &BTreeMap<&str, &Arc<Graph>>,
) -> Bundle {
    let mut data = tree.to_json();
    if let Value::Object(top) = &mut data {
        // Imported policies that nothing uses do not make another graph.
        top.shift_remove("imports");
        // Neither do graphs that nothing runs.
        top.shift_remove("graphs");
        for (group, name, policy) in policies.imported_and_used() {
            let groups = top.entry("policies").or_insert_with(|| json!({}));
            let Value::Object(groups) = groups else { continue };
            let named = groups.entry(group).or_insert_with(|| json!({}));
            if let Value::Object(named) = named {
                named.insert(name.to_owned(), policy.clone());
            }
        }
    }
    let mut named = canonical(&data);
    if !inside.is_empty() {
        named["inside"] = inside.values().map(|graph| json!(graph.hash)).collect();
        let text = |graph: &Arc<Graph>| -> Value {
            serde_json::from_str(&graph.text).expect("a bundle is JSON")
        };
        data["graphs"] = inside.values().map(|graph| text(graph)).collect();
    }
    let hash = hex::encode(Sha256::digest(named.to_string()));
    let text = serde_json::to_string_pretty(&data).expect("JSON prints") + "\n";
    Bundle { text, hash: GraphHash(hash.into()) }
}

fn canonical(data: &Value) -> Value {
    let Value::Object(top) = sorted(data) else { return sorted(data) };
    let order = |path: &str| -> Vec<Value> {
        data.pointer(path)
            .and_then(Value::as_object)
            .map(|entries| entries.keys().map(|name| name.as_str().into()).collect())
            .unwrap_or_default()
    };
    json!({ "graph": top, "nodes": order("/nodes"), "channels": order("/state/channels") })
}

fn sorted(data: &Value) -> Value {
    match data {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => data.clone(),
    }
}

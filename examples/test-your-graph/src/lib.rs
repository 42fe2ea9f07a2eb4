//! A shop whose orders are graph runs: one node kind, one graph, one port to the world outside.
//!
//! `tests/it/main.rs` is the point of this example: it crashes the graph everywhere. What makes
//! that possible is ordinary: the node reaches the world through a port, so that a test can give
//! it one that counts.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_graph::check::{self, Memory};
use swarm_graph::defect::Defects;
use swarm_graph::library::Library;
use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
use swarm_graph::registry::Registry;

/// The world outside: a bank, a warehouse.
#[async_trait]
pub trait Outside: Send + Sync {
    /// Does it. The key is the other side's, who keeps it with what was done.
    async fn act(&self, key: &str, what: &str) -> Result<(), String>;

    /// Whether something was done under this key.
    async fn was_done(&self, key: &str) -> Result<bool, String>;
}

/// `shop/do`: does one thing in the world, once.
pub struct Do {
    outside: Arc<dyn Outside>,
}

impl std::fmt::Debug for Do {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Do")
    }
}

/// What `with:` gives.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct What {
    what: String,
}

/// What it returns: a line for the channel `done`.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Done {
    done: Vec<String>,
}

#[async_trait]
impl Node for Do {
    const KIND: &'static str = "shop/do";
    type Config = ();
    type Input = What;
    type Output = Done;

    async fn run(&self, ctx: &NodeContext, What { what }: What) -> Result<Done, NodeError> {
        // Run and step are the same in every attempt: a key that the other side knows it by.
        let key = format!("{}/{}", ctx.run_id(), ctx.step());
        let probe = || async {
            let was_done = self.outside.was_done(&key).await.map_err(unreachable)?;
            Ok(if was_done { Probe::Landed(()) } else { Probe::DidNotHappen })
        };
        let act = || async { Ok(self.outside.act(&key, &what).await.map_err(unreachable)?) };
        ctx.effect("act", json!({ "what": what }), probe, act).await?;
        Ok(Done { done: vec![what] })
    }
}

fn unreachable(why: String) -> Failure {
    Failure::retryable("io", why)
}

/// What a process of the shop is built of.
///
/// # Errors
/// All that is wrong in `order.yaml`.
pub fn library(outside: Arc<dyn Outside>) -> Result<Library, Defects> {
    let registry = Registry::new().node::<Do>(move |()| Ok(Do { outside: outside.clone() }));
    let text = Memory::one("order.yaml", include_str!("../order.yaml"));
    let graph = check::load(&text, "order.yaml", &registry)?;
    Ok(Library::new(registry).with(graph))
}

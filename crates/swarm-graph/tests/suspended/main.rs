//! The engine's tests once more, with every run handed back after every superstep: a new engine
//! claims it and goes on from what is stored. What a run comes to must not depend on it.
//!
//! What a newcomer gets wrong: these are the very files of `tests/it`. Their rig asks in which
//! of the two programs it is.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../it/archive.rs"]
mod archive;
#[path = "../it/engine.rs"]
mod engine;
#[path = "../it/migrate.rs"]
mod migrate;
#[path = "../it/patience.rs"]
mod patience;
#[path = "../it/race.rs"]
mod race;
#[path = "../it/rig.rs"]
mod rig;
#[expect(dead_code, reason = "other tests of `it` use the rest")]
#[path = "../it/shop.rs"]
mod shop;
#[path = "../it/signals.rs"]
mod signals;
#[path = "../it/store_upgrade.rs"]
mod store_upgrade;

use std::sync::Arc;

use serde_json::json;
use swarm_graph::store::memory::MemoryStore;

use crate::rig::{Rig, World, graph, output, registry};

#[tokio::test(start_paused = true)]
async fn every_superstep_is_followed_by_another_claim() {
    let registry = registry(&World::default());
    let main = graph(
        r#"
entry: a
nodes:
  a: { uses: test/put, with: { n: 1 }, next: b }
  b: { uses: test/put, with: { n: 2 }, next: c }
  c: { uses: test/put, with: { n: 3 }, next: $end }
"#,
        &registry,
    );
    let rig = Rig::new(Arc::new(MemoryStore::new()), vec![main], registry);
    let run = rig.finish(json!({})).await;
    assert_eq!(output(&run)["n"], 6);
    assert_eq!(run.epoch.0, 3, "claims");
}

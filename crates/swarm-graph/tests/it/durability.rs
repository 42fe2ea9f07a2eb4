//! `durability: exit`: fewer checkpoints, the same answers, and no effect twice.

use std::sync::Arc;

use serde_json::json;
use swarm_core::port::store::CheckpointFilter;
use swarm_core::run::RunStatus;
use swarm_graph::store::memory::MemoryStore;

use crate::rig::{Rig, World, graph, id, output, registry};

/// Plain steps, a loop, a question, an effect.
const STEPS: &str = r#"
entry: a
nodes:
  a: { uses: test/put, with: { log: ["a"] }, next: b }
  b: { uses: test/put, with: { log: ["b"] }, routes: [ { to: a, max: 2 }, { to: ask } ] }
  ask: { gate: { ask: "Go on?", answer: Choice }, set: { log: "${{ [answer.choice] }}" }, next: c }
  c: { uses: test/put, with: { log: ["c"] }, next: d }
  d: { uses: test/deed, with: { name: d }, next: e }
  e: { uses: test/put, with: { log: ["e"] }, next: $end }
"#;

/// What a run of it gave, and how many checkpoints and events it left.
async fn done(head: &str) -> (serde_json::Value, usize, Vec<String>) {
    let world = World::default();
    let registry = registry(&world);
    let graph = graph(&format!("{head}{STEPS}"), &registry);
    let rig = Rig::new(Arc::new(MemoryStore::new()), vec![graph], registry);
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "on" })).await;
    rig.work().await.unwrap();
    assert_eq!(rig.run("r").await.status, RunStatus::Succeeded);
    let checkpoints = rig.store.checkpoints(&id("r"), &CheckpointFilter::default()).await.unwrap();
    let events = rig.store.events(&id("r"), 0, 0).await.unwrap();
    let told = events.iter().map(|event| format!("{} {:?}", event.kind, event.step)).collect();
    assert_eq!(world.effects().into_values().collect::<Vec<_>>(), [1]);
    (output(&rig.run("r").await), checkpoints.len(), told)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_stored_only_when_it_must_be_gives_and_tells_the_same() {
    let (given, checkpoints, told) = done("").await;
    let (held, fewer, told_late) = done("durability: exit\n").await;
    assert_eq!(held, given);
    assert_eq!(told_late, told);
    // The start, the question, its answer, what came before the effect, and the end.
    assert_eq!((checkpoints, fewer), (12, 5));
}

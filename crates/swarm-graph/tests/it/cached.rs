//! Kept outputs: a pure node runs once for an input, across runs, until what is kept is too old.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::port::store::Store;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::store::sqlite::{Options, SqliteStore};

use crate::rig::{Rig, World, graph, id, output, registry};

const TEXT: &str = r#"
entry: work
nodes:
  work:
    uses: test/work
    with: { name: "${{ input.name }}", ms: 5 }
    cache: { ttl: 1h }
    next: $end
"#;

fn rig_on(store: Arc<dyn Store>, text: &str) -> (Rig, World) {
    let world = World::default();
    let registry = registry(&world);
    let main = graph(text, &registry);
    (Rig::new(store, vec![main], registry), world)
}

/// How many things of this kind happened.
fn all(world: &World, prefix: &str) -> usize {
    let (calls, effects) = (world.calls(), world.effects());
    calls.keys().chain(effects.keys()).filter(|what| what.starts_with(prefix)).count()
}

async fn run(rig: &Rig, name: &str, input: Value) -> Value {
    rig.start(name, "main", input).await.unwrap();
    rig.work().await.unwrap();
    output(&rig.run(name).await)["log"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_output_is_taken_by_later_runs_until_it_is_too_old() {
    let (rig, world) = rig_on(Arc::new(MemoryStore::new()), TEXT);
    let input = |name: &str| json!({ "name": name });
    assert_eq!(run(&rig, "a", input("x")).await, json!(["x"]));
    assert_eq!(run(&rig, "b", input("x")).await, json!(["x"]));
    assert_eq!(run(&rig, "c", input("y")).await, json!(["y"]));
    assert_eq!((world.count("worked x"), world.count("worked y")), (1, 1));
    let events = rig.events("b").await;
    assert!(events.contains(&"node.cached work#1".to_owned()), "{events:?}");
    let step = rig.store.steps(&id("b")).await.unwrap().remove(0);
    assert_eq!(step.ended_at, step.started_at);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    run(&rig, "d", input("x")).await;
    assert_eq!(world.count("worked x"), 2);
}

#[tokio::test]
async fn what_is_kept_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.db");
    for (name, expected) in [("a", 1), ("b", 0)] {
        let store = SqliteStore::open(&path, Options::default()).await.unwrap();
        let (rig, world) = rig_on(Arc::new(store), TEXT);
        run(&rig, name, json!({ "name": "x" })).await;
        assert_eq!(world.count("worked x"), expected, "run {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_says_what_counts_and_another_config_counts_too() {
    let keyed = TEXT.replace("ttl: 1h", "ttl: 1h, key: \"${{ input.name.startsWith('x') }}\"");
    let (rig, world) = rig_on(Arc::new(MemoryStore::new()), &keyed);
    assert_eq!(run(&rig, "a", json!({ "name": "x1" })).await, json!(["x1"]));
    assert_eq!(run(&rig, "b", json!({ "name": "x2" })).await, json!(["x1"]));
    assert_eq!(run(&rig, "c", json!({ "name": "y" })).await, json!(["y"]));
    assert_eq!(all(&world, "worked "), 2);
    let flaky = |times: u32| {
        format!(
            "entry: f\nnodes:\n  f: {{ uses: test/fail, config: {{ times: {times} }}, with: {{ name: f }}, cache: {{ ttl: 1h }}, next: $end }}\n"
        )
    };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for (name, times, calls) in [("a", 0, 1), ("b", 0, 0)] {
        let (rig, world) = rig_on(store.clone(), &flaky(times));
        run(&rig, name, json!({})).await;
        assert_eq!(all(&world, "calls "), calls, "run {name}");
    }
    let (rig, world) = rig_on(store, &flaky(1));
    rig.start("c", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(all(&world, "calls "), 1);
}

#[tokio::test(start_paused = true)]
async fn what_made_an_effect_or_asked_is_never_kept() {
    for (kind, with) in [("test/deed", "with: { name: \"${{ 'x' }}\" }, "), ("test/ask_twice", "")]
    {
        let text = format!(
            "entry: one\nnodes:\n  one: {{ uses: {kind}, {with}cache: {{ ttl: 1h }}, next: $end }}\n"
        );
        let (rig, world) = rig_on(Arc::new(MemoryStore::new()), &text);
        for name in ["a", "b"] {
            rig.start(name, "main", json!({})).await.unwrap();
            for _ in 0..3 {
                rig.work().await.unwrap();
                for block in rig.open_blocks().await {
                    rig.answer(&block.id, json!({ "choice": "a" })).await;
                }
            }
            output(&rig.run(name).await);
        }
        assert!(rig.events("b").await.iter().all(|event| !event.starts_with("node.cached")));
        let effects = all(&world, "effect ");
        assert_eq!(effects, if kind == "test/deed" { 2 } else { 0 });
    }
}

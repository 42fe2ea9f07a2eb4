//! A file of an older schema opens, and its runs go on.
//!
//! The files under `tests/fixtures` were each written by the program that had that schema as its
//! newest; they cannot be made again. Before you write the next migration, make one of the schema
//! that you are about to leave: `SWARM_FIXTURE=FILE cargo nextest run --workspace --all-features
//! -E 'test(=store_upgrade::makes_a_file_of_the_present_schema)'`.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use swarm_core::port::store::{CheckpointFilter, History as _, Store};
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;
use swarm_graph::registry::Registry;
use swarm_graph::store::sqlite::{Options, SqliteStore};
use swarm_graph::testkit::{Death, MortalStore, VirtualClock};

use crate::rig::{Rig, World, all, graph_named, id, output, registry};

fn graphs(registry: &Registry) -> Vec<swarm_graph::graph::Graph> {
    vec![
        graph_named(
            "asks",
            r#"
entry: deed
nodes:
  deed: { uses: test/deed, with: { name: "${{ run.id }}" }, next: ask }
  ask: { uses: test/ask_twice, next: last }
  last: { uses: test/put, with: { log: ["last"], n: 1 }, next: $end }
"#,
            registry,
        ),
        graph_named(
            "waits",
            r#"
entry: wait
nodes:
  wait: { wait: { signal: go }, set: { log: "${{ [signal.payload.word] }}" }, next: $end }
"#,
            registry,
        ),
        graph_named(
            "parent",
            r#"
entry: below
nodes:
  below: { run: { graph: asks, input: {} }, next: $end }
"#,
            registry,
        ),
    ]
}

async fn open(file: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(file, Options::default()).await.unwrap())
}

fn rig(store: Arc<dyn Store>, world: &World) -> Rig {
    let registry = registry(world);
    Rig::new(store, graphs(&registry), registry)
}

#[tokio::test]
async fn makes_a_file_of_the_present_schema() {
    let directory = tempfile::TempDir::new().unwrap();
    let wanted = std::env::var_os("SWARM_FIXTURE");
    let file = wanted.map_or_else(|| directory.path().join("swarm.db"), Into::into);
    let store = open(&file).await;
    let world = World::default();
    let rig = rig(store.clone(), &world);
    rig.start("done", "asks", json!({})).await.unwrap();
    rig.work().await.unwrap();
    for _ in 0..2 {
        let open = rig.open_blocks().await;
        rig.answer(&open[0].id, json!({ "choice": "a" })).await;
        rig.work().await.unwrap();
    }
    for (run, graph) in [("asks", "asks"), ("half", "asks"), ("waits", "waits"), ("up", "parent")] {
        rig.start(run, graph, json!({})).await.unwrap();
    }
    rig.work().await.unwrap();
    let open = rig.open_blocks().await;
    let half = open.iter().find(|block| block.run.as_str() == "half").unwrap();
    rig.answer(&half.id, json!({ "choice": "b" })).await;
    rig.work().await.unwrap();
    // Dies between the effect and the word of it.
    let mortal = Arc::new(MortalStore::new(store.clone(), Death::Before(9)));
    let dying = self::rig(mortal.clone(), &world);
    dying.start("died", "asks", json!({})).await.unwrap();
    dying.work().await.unwrap_err();
    assert!(mortal.is_dead() && world.count("effect died died") == 1, "{:?}", all(&world, ""));
    rig.start("fresh", "asks", json!({})).await.unwrap();
    store.close().await;
    assert!(file.exists());
}

#[tokio::test]
async fn runs_of_schema_1_go_on() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-1.db");
    std::fs::copy(fixture, &file).unwrap();
    let store = open(&file).await;
    let world = World::default();
    // The world outside has not forgotten what the dead process did.
    world.effect("effect died died");
    let registry = registry(&world);
    let later = VirtualClock::at(Timestamp(1_800_000_060_000));
    let rig = Rig::on_clock(store.clone(), graphs(&registry), registry, later);
    insta::assert_snapshot!(format!("{:?}", rig.statuses().await), @r#"[("asks", Waiting), ("died", Running), ("done", Succeeded), ("fresh", Ready), ("half", Waiting), ("up", Waiting), ("up.below#1", Waiting), ("waits", Waiting)]"#);
    let listed = store.checkpoints(&id("half"), &CheckpointFilter::default()).await.unwrap();
    let changed: Vec<_> = listed.iter().map(|checkpoint| checkpoint.changed.len()).collect();
    assert_eq!(changed.last(), Some(&2), "the first sets both channels: {changed:?}");

    rig.work().await.unwrap();
    rig.engine.signal(&id("waits"), None, "go", json!({ "word": "hi" })).await.unwrap();
    rig.work().await.unwrap();
    for _ in 0..20 {
        for block in rig.open_blocks().await {
            rig.answer(&block.id, json!({ "choice": "a" })).await;
        }
        rig.work().await.unwrap();
    }
    for (run, status) in rig.statuses().await {
        assert_eq!(status, RunStatus::Succeeded, "{run}");
    }
    // What the old program had done and journaled is not done again.
    insta::assert_snapshot!(format!("{:?}", all(&world, "effect")), @r#"{"effect died died": 1, "effect fresh fresh": 1}"#);
    insta::assert_snapshot!(format!("{:?}", all(&world, "paid")), @r#"{"paid fresh fresh": 1}"#);
    assert_eq!(output(&rig.run("half").await)["log"], json!(["half 42 true", "b", "a", "last"]));
}

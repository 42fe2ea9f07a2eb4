//! Histories through the engine: what a fork, an edit, a copy and a deletion mean to a run.

use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::escalation::BlockStatus;
use swarm_core::id::WorkerId;
use swarm_core::port::store::{CheckpointFilter, DeleteError, EditError, Keep, Retention, Store};
use swarm_core::run::{Origin, RunRecord, RunStatus};
use swarm_graph::archive::{EditRefused, ForkOptions};
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::store::sqlite::{Options, SqliteStore};

use crate::rig::{Rig, World, all, graph, graph_named, id, output, registry};

const NODES: &str = r#"
entry: deed
output: { schema: { type: object }, value: { log: "${{ state.log }}", n: "${{ state.n }}" } }
nodes:
  deed: { uses: test/deed, with: { name: "${{ run.id }}" }, next: [ask, wait, below] }
  ask: { uses: test/ask_twice, next: join }
  wait: { wait: { signal: go }, set: { log: "${{ [signal.payload] }}" }, next: join }
  below: { run: { graph: child, input: {} }, next: join }
  join: { uses: test/put, when_all: [ask, wait, below], with: { n: 1 }, next: $end }
"#;

const CHILD: &str = r#"
entry: gate
nodes:
  gate:
    gate: { ask: "Go on?", answer: Choice }
    set: { log: "${{ ['child ' + answer.choice] }}" }
    next: $end
"#;

async fn rig(store: Arc<dyn Store>) -> (Rig, World) {
    let world = World::default();
    let registry = registry(&world);
    let graphs = vec![graph(NODES, &registry), graph_named("child", CHILD, &registry)];
    (Rig::new(store, graphs, registry), world)
}

/// Each store, fresh.
async fn stores() -> (Vec<Arc<dyn Store>>, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let sqlite = SqliteStore::open(file, Options::default()).await.unwrap();
    (vec![Arc::new(MemoryStore::new()), Arc::new(sqlite)], directory)
}

async fn last(rig: &Rig, run: &str) -> u64 {
    let filter = CheckpointFilter { limit: 1, ..CheckpointFilter::default() };
    rig.engine.checkpoints(&id(run), &filter).await.unwrap()[0].seq
}

/// What the steps of a run itself have said, in their order; the child's word may come anywhere.
fn log(of: &RunRecord) -> Value {
    let mut log = output(of)["log"].clone();
    log.as_array_mut().unwrap().retain(|word| !word.as_str().unwrap().starts_with("child "));
    log
}

/// The open questions of a run and those below it.
async fn asked(rig: &Rig, of: &str) -> Vec<String> {
    let blocks = rig.open_blocks().await;
    let ids = blocks.iter().map(|block| block.id.to_string());
    let mut ids: Vec<String> = ids.filter(|id| id.starts_with(&format!("{of}."))).collect();
    ids.sort();
    ids
}

async fn answer_all(rig: &Rig, of: &str, choice: &str) {
    loop {
        rig.work().await.unwrap();
        let open = asked(rig, of).await;
        if open.is_empty() {
            return;
        }
        for block in open {
            let block = swarm_core::id::BlockId::new(block).unwrap();
            rig.answer(&block, json!({ "choice": choice })).await;
        }
    }
}

#[tokio::test]
async fn a_fork_asks_waits_and_starts_for_itself_and_repeats_nothing_done_before() {
    for store in stores().await.0 {
        let (rig, world) = rig(store).await;
        rig.start("r", "main", json!({})).await.unwrap();
        rig.work().await.unwrap();
        assert_eq!(asked(&rig, "r").await, ["r.ask#1:one", "r.below#1.gate#1"]);
        let one = swarm_core::id::BlockId::new("r.ask#1:one").unwrap();
        rig.answer(&one, json!({ "choice": "a" })).await;
        rig.work().await.unwrap();
        assert_eq!(asked(&rig, "r").await, ["r.ask#1:two", "r.below#1.gate#1"]);

        let seq = last(&rig, "r").await;
        assert!(rig.engine.fork(&id("r"), seq, id("f"), ForkOptions::default()).await.unwrap());
        rig.work().await.unwrap();
        let fork = rig.run("f").await;
        assert_eq!(fork.forked_from, Some(Origin { run: id("r"), seq }));
        assert_eq!(fork.status, RunStatus::Waiting);
        // The answer to the first question was given to the other run.
        assert_eq!(asked(&rig, "f").await, ["f.ask#1:one", "f.below#1.gate#1"]);
        rig.engine.signal(&id("r"), None, "go", json!("for r")).await.unwrap();
        answer_all(&rig, "r", "a").await;
        let first = json!("r 42 true");
        assert_eq!(log(&rig.run("r").await), json!([first, "for r", "a", "a"]));
        assert_eq!(rig.run("f").await.status, RunStatus::Waiting, "nothing of that was for it");

        rig.engine.signal(&id("f"), None, "go", json!("for f")).await.unwrap();
        answer_all(&rig, "f", "b").await;
        assert_eq!(log(&rig.run("f").await), json!([first, "for f", "b", "b"]));
        // One of each: what was over or journaled before the checkpoint is not done again.
        assert_eq!((world.count("between"), world.count("effect r r")), (1, 1));
        assert_eq!(all(&world, "effect f").len() + all(&world, "paid f").len(), 0);

        // Before the deed, the fork does it itself.
        rig.engine.fork(&id("r"), 0, id("g"), ForkOptions::default()).await.unwrap();
        rig.work().await.unwrap();
        assert_eq!((world.count("effect g g"), world.count("effect r r")), (1, 1));
    }
}

#[tokio::test]
async fn an_edit_goes_through_reducers_and_schemas_and_its_run_goes_on_with_it() {
    for store in stores().await.0 {
        let (rig, _) = rig(store).await;
        rig.start("r", "main", json!({})).await.unwrap();
        rig.work().await.unwrap();
        let seq = last(&rig, "r").await;
        let edit = async |seq: u64, updates: Value| {
            let updates = updates.as_object().unwrap().clone();
            rig.engine.edit_state(&id("r"), seq, updates, "ann").await
        };
        for (updates, why) in [
            (json!({ "nope": 1 }), "graph `main` has no channel `nope`; it has log, n"),
            (
                json!({ "n": "x" }),
                "channel `n` does not take the update: reducer `sum` takes a number, found a string",
            ),
            (
                json!({ "log": [7] }),
                "channel `log` does not take the update: /1: 7 is not of type \"string\"",
            ),
            (
                json!({ "n": 0.5 }),
                "channel `n` does not take the update: 0.5 is not of type \"integer\"",
            ),
        ] {
            assert_eq!(edit(seq, updates).await.unwrap_err().to_string(), why);
        }
        let moved = edit(seq + 1, json!({ "n": 1 })).await.unwrap_err();
        assert!(
            matches!(&moved, EditRefused::Run(EditError::Moved { found: Some(found), .. }) if *found == seq),
            "{moved:?}"
        );
        assert_eq!(edit(seq, json!({ "n": 5, "log": ["by ann"] })).await.unwrap(), seq + 1);
        assert_eq!(rig.events("r").await.last().map(String::as_str), Some("state.edited"));
        rig.engine.signal(&id("r"), None, "go", json!("now")).await.unwrap();
        let worker = WorkerId::new("other").unwrap();
        let claim = rig.engine.claim(&id("r"), &worker).await.unwrap().unwrap();
        let claimed = edit(seq + 1, json!({ "n": 1 })).await.unwrap_err();
        assert!(matches!(claimed, EditRefused::Run(EditError::Claimed { .. })), "{claimed:?}");
        rig.engine.drive(claim, Default::default()).await.unwrap();
        answer_all(&rig, "r", "a").await;
        let done = output(&rig.run("r").await);
        assert_eq!(done["n"], 6);
        assert_eq!(done["log"][1], "by ann");
    }
}

#[tokio::test]
async fn a_pruned_run_goes_on_and_a_deleted_one_is_cancelled_first() {
    for store in stores().await.0 {
        let (rig, world) = rig(store).await;
        rig.start("r", "main", json!({})).await.unwrap();
        rig.start("s", "main", json!({})).await.unwrap();
        rig.work().await.unwrap();
        let keep = Keep { last: Some(1), max_age: None };
        let pruned = rig.engine.prune(&Retention { live: keep, ..Retention::default() }).await;
        assert!(pruned.unwrap().checkpoints > 0);
        rig.engine.signal(&id("r"), None, "go", json!("on")).await.unwrap();
        answer_all(&rig, "r", "a").await;
        assert_eq!(log(&rig.run("r").await), json!(["r 42 true", "on", "a", "a"]));
        assert_eq!(world.count("effect r r"), 1);

        rig.engine.copy_run(&id("s"), id("kept"), false).await.unwrap();
        let live = rig.engine.delete_run(&id("s")).await.unwrap_err();
        assert!(matches!(live, DeleteError::Live { .. }), "{live:?}");
        let worker = WorkerId::new("deleter").unwrap();
        let deleted = rig.engine.cancel_and_delete_run(&id("s"), "ann", &worker).await.unwrap();
        assert_eq!(deleted, 2, "with the run below it");
        let left: Vec<String> = rig.statuses().await.into_iter().map(|(run, _)| run).collect();
        assert_eq!(left, ["kept", "r", "r.below#1"]);
        assert!(rig.store.blocks(None, Some(BlockStatus::Open)).await.unwrap().is_empty());
        assert!(rig.store.checkpoint(&id("kept"), None).await.unwrap().is_some());
    }
}

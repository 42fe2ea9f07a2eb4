//! Whose turn it is: `concurrency` of a node, pools of a process, deferred nodes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::id::WorkerId;
use swarm_core::run::RunStatus;
use swarm_graph::engine::{Control, Driven};
use swarm_graph::explain;
use swarm_graph::store::memory::MemoryStore;

use crate::rig::{Rig, World, graph, graph_named, id, most_at_once, output, registry};

fn rig(rest: &str) -> Rig {
    let registry = registry(&World::default());
    let child = graph_named(
        "child",
        "entry: idle\nnodes:\n  idle: { wait: { signal: go }, next: $end }\n",
        &registry,
    );
    let main = graph(rest, &registry);
    Rig::new(Arc::new(MemoryStore::new()), vec![main, child], registry)
}

#[tokio::test(start_paused = true)]
async fn no_more_items_of_a_node_are_at_work_than_it_allows() {
    let rig = rig(r#"
limits: { concurrency: 10 }
entry: each
nodes:
  each:
    foreach: { in: "${{ [1, 2, 3, 4, 5, 6, 7] }}", as: n }
    uses: test/work
    with: { name: "${{ string(n) }}", ms: 10 }
    concurrency: 3
    next: $end
"#);
    rig.start("turns-items", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let log = output(&rig.run("turns-items").await)["log"].clone();
    assert_eq!(log, json!(["1", "2", "3", "4", "5", "6", "7"]));
    assert_eq!(most_at_once("turns-items"), 3);
}

#[tokio::test(start_paused = true)]
async fn children_that_run_count_and_the_run_rests_meanwhile() {
    let rig = rig(r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ [1, 2, 3] }}", as: n }
    run: { graph: child }
    concurrency: 2
    set: {}
    next: $end
"#);
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let children = |rig: &Rig| {
        let store = rig.store.clone();
        async move {
            store.runs(&swarm_core::port::store::RunFilter::default()).await.unwrap().len() - 1
        }
    };
    assert_eq!(children(&rig).await, 2);
    rig.engine.signal(&id("r.each#1/0"), None, "go", Value::Null).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(children(&rig).await, 3);
    for child in ["r.each#1/1", "r.each#1/2"] {
        rig.engine.signal(&id(child), None, "go", Value::Null).await.unwrap();
        rig.work().await.unwrap();
    }
    assert_eq!(rig.run("r").await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_shared_by_all_runs_of_a_process() {
    let rig = rig(r#"
limits: { pools: { press: 2 } }
entry: each
nodes:
  each:
    foreach: { in: "${{ [1, 2, 3, 4] }}", as: n }
    uses: test/work
    with: { name: "${{ string(n) }}", ms: 1000 }
    timeout: { run: 1500ms }
    pool: press
    next: $end
"#);
    let names = ["pool-a", "pool-b"];
    for name in names {
        rig.start(name, "main", json!({})).await.unwrap();
    }
    let began = tokio::time::Instant::now();
    let worker = WorkerId::new("tester").unwrap();
    let (runs, control) = (names.map(id), Control::default());
    let (one, two) = tokio::join!(
        rig.engine.work_on(&runs[0], &worker, &control),
        rig.engine.work_on(&runs[1], &worker, &control),
    );
    // Eight pieces of a second each, two at once; a timeout does not count the wait for a place.
    for driven in [one, two] {
        assert_eq!(driven.unwrap(), Driven::Ended(RunStatus::Succeeded));
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

const DEFERRED: &str = r#"
entry: start
nodes:
  start: { uses: test/put, next: [short, long, asks] }
  short: { uses: test/put, with: { log: ["short"] }, next: report }
  long:
    uses: test/put
    with: { n: 1 }
    routes: [ { when: "${{ state.n < 4 }}", to: long, max: 9 }, { to: report } ]
  asks: { gate: { ask: "Well?", choices: [a] }, next: report }
  report: { uses: test/put, defer: true, with: { log: ["${{ state.n }} rounds"] }, next: $end }
"#;

#[tokio::test(start_paused = true)]
async fn a_deferred_node_begins_once_when_loops_and_questions_are_over() {
    let rig = rig(DEFERRED);
    rig.start("r", "main", json!({})).await.unwrap();
    assert_eq!(rig.work().await.unwrap(), Some(Driven::Waiting { wake_at: None }));
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "a" })).await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await), json!({ "log": ["short", "4 rounds"], "n": 4 }));
}

#[tokio::test(start_paused = true)]
async fn deferred_nodes_do_not_wait_for_each_other() {
    let rig = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [one, two, slow] }
  slow: { uses: test/work, with: { name: slow, ms: 500 }, next: $end }
  one: { gate: { ask: "One?", choices: [a] }, defer: true, set: { log: ["one"] }, next: $end }
  two: { gate: { ask: "Two?", choices: [a] }, defer: true, set: { log: ["two"] }, next: $end }
"#);
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let blocks = rig.open_blocks().await;
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        rig.answer(&block.id, json!({ "choice": "a" })).await;
        rig.work().await.unwrap();
    }
    assert_eq!(output(&rig.run("r").await)["log"], json!(["slow", "one", "two"]));
}

#[test]
fn turns_are_told_in_words() {
    let registry = registry(&World::default());
    let graph = graph(
        r#"
limits: { pools: { press: 2 } }
entry: start
nodes:
  start: { uses: test/put, concurrency: 3, pool: press, next: last }
  last: { uses: test/put, defer: true, next: $end }
"#,
        &registry,
    );
    let told = explain::in_words(&graph);
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("At most") || line.contains("begins only"))
        .map(str::trim)
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
At most 3 of it have begun at once.
At most 2 are at work in pool `press` of the process.
It begins only when nothing else is left to do.
");
}

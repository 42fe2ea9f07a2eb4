//! A recorded run is planned again: it comes out the same, and what changed is named.

use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::StepEnding;
use swarm_core::escalation::BlockStatus;
use swarm_core::failure::Failure;
use swarm_core::id::StepId;
use swarm_graph::graph::Graph;
use swarm_graph::registry::Registry;
use swarm_graph::replay::{Recording, WhatIf, replay, what_if};
use swarm_graph::store::memory::MemoryStore;

use crate::rig::{Rig, World, graph, graph_named, id, person, registry};

const MAIN: &str = r#"
policies:
  retry: { twice: { max_attempts: 3, backoff: { initial: 1s, jitter: false } } }
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [left, flaky, twice] }
  left: { uses: test/deed, with: { name: left }, next: join }
  flaky: { uses: test/fail, config: { times: 1 }, retry: twice, next: join }
  twice: { uses: test/ask_twice, with: {}, next: join }
  join: { uses: test/put, when_all: [left, flaky, twice], with: { log: ["joined"] }, next: each }
  each:
    foreach: { in: "${{ ['x', 'y', 'z'] }}", as: item, max_parallel: 2, on_error: collect }
    run: { graph: child, input: { name: "${{ item }}" } }
    next: plain
  plain:
    foreach: { in: "${{ ['p', 'q', 'r'] }}", as: item, max_parallel: 2 }
    uses: test/work
    with: { name: "${{ item }}", ms: 5 }
    next: away
  away:
    foreach: { in: "${{ ['u', 'v'] }}", as: item }
    run: { graph: child, input: { name: "${{ item }}" }, detach: true }
    set: { log: "${{ ['away ' + item] }}" }
    next: none
  none:
    foreach: { in: "${{ [] }}", as: item }
    uses: test/work
    with: { name: "${{ item }}", ms: 5 }
    next: ask
  ask:
    gate: { ask: "Go on?", answer: Choice }
    set: { log: "${{ [answer.choice] }}" }
    next: broken
  broken:
    uses: test/fail
    config: { times: 9, fatal: true, class: odd }
    catch: [ { when: "${{ error.class == 'odd' }}", to: aside } ]
    next: $end
  aside: { run: { graph: child, input: { name: aside }, detach: true }, next: wait }
  wait: { wait: { signal: go }, set: { log: "${{ [signal.payload] }}" }, next: nap }
  nap: { wait: { timeout: 2h }, next: again }
  again:
    uses: test/put
    with: { n: 1 }
    routes: [ { when: "${{ state.n < 3 }}", to: again, max: 5 }, { to: first } ]
  first: { uses: test/put, next: [slow, fast] }
  slow: { wait: { signal: never }, next: won }
  fast: { uses: test/work, with: { name: fast, ms: 5 }, next: won }
  won: { uses: test/put, when_any: [slow, fast], with: { log: [won] }, next: $end }
"#;

const CHILD: &str = r#"
entry: deed
output: { schema: { type: object }, value: { log: "${{ state.log }}" } }
nodes:
  deed:
    uses: test/deed
    with: { name: "${{ input.name }}" }
    routes: [ { when: "${{ input.name == 'y' }}", to: bad }, { to: $end } ]
  bad: { uses: test/fail, config: { times: 9, fatal: true }, next: $end }
"#;

fn main_graph(text: &str, registry: &Registry) -> Graph {
    graph(text, registry)
}

/// A run with all kinds of steps, recorded.
async fn recorded() -> (Recording, Registry) {
    let registry = registry(&World::default());
    let graphs = vec![main_graph(MAIN, &registry), graph_named("child", CHILD, &registry)];
    let rig = Rig::new(Arc::new(MemoryStore::new()), graphs, registry.clone());
    rig.start("r", "main", json!({})).await.unwrap();
    for _ in 0..50 {
        rig.work().await.unwrap();
        if rig.run("r").await.status.is_final() {
            break;
        }
        for block in rig.store.blocks(None, Some(BlockStatus::Open)).await.unwrap() {
            let choice = if block.id.as_str().contains(':') { "a" } else { "on" };
            rig.engine.answer(&block.id, json!({ "choice": choice }), person("ada")).await.unwrap();
        }
        rig.engine.signal(&id("r"), Some("go"), "go", json!("went")).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    }
    let recording = Recording::read(&*rig.store, &id("r")).await.unwrap().unwrap();
    assert_eq!(recording.run.failure, None);
    (recording, registry)
}

#[tokio::test(start_paused = true)]
async fn a_recorded_run_comes_out_as_it_did_even_after_a_round_trip_through_json() {
    let (recording, registry) = recorded().await;
    let replayed = replay(&main_graph(MAIN, &registry), &recording).unwrap();
    assert_eq!(replayed.supersteps + 1, recording.checkpoints.len());
    assert_eq!(replayed.skipped, 0);
    let text = serde_json::to_string(&recording).unwrap();
    let read: Recording = serde_json::from_str(&text).unwrap();
    assert_eq!(read, recording);
    assert_eq!(replay(&main_graph(MAIN, &registry), &read), Ok(replayed));
}

#[tokio::test(start_paused = true)]
async fn a_graph_that_leads_another_way_is_named_at_the_first_checkpoint_that_differs() {
    let (recording, registry) = recorded().await;
    let differ = |from: &str, to: &str| {
        assert!(MAIN.contains(from));
        replay(&main_graph(&MAIN.replace(from, to), &registry), &recording).unwrap_err().to_string()
    };
    insta::assert_snapshot!(differ("state.n < 3", "state.n < 2"), @r#"checkpoint 23: visits: recorded {"again":3,"aside":1,"ask":1,"away":1,"broken":1,"each":1,"flaky":1,"join":1,"left":1,"nap":1,"none":1,"plain":1,"start":1,"twice":1,"wait":1}, now {"again":2,"aside":1,"ask":1,"away":1,"broken":1,"each":1,"first":1,"flaky":1,"join":1,"left":1,"nap":1,"none":1,"plain":1,"start":1,"twice":1,"wait":1}"#);
    insta::assert_snapshot!(differ("[answer.choice]", "['told: ' + answer.choice]"), @r#"checkpoint 15: channel `log`: recorded ["start 42 true","left 42 true","flaky#1 done","a","a","joined","x 42 true","z 42 true","p","q","r","away u","away v","on"], now ["start 42 true","left 42 true","flaky#1 done","a","a","joined","x 42 true","z 42 true","p","q","r","away u","away v","told: on"]"#);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_ends_otherwise_leads_elsewhere() {
    let (recording, registry) = recorded().await;
    let graph = main_graph(MAIN, &registry);
    let step = |text: &str| StepId::new(text).unwrap();
    let failed = StepEnding::Failed(Failure::fatal("odd", "as told"));
    let left = what_if(&graph, &recording, &step("left#1"), &failed).unwrap();
    assert!(matches!(&left, Some(WhatIf::Fails(failure)) if failure.class == "odd"), "{left:?}");
    let caught =
        what_if(&graph, &recording, &step("broken#1"), &StepEnding::Output(Arc::default()));
    assert!(matches!(caught.unwrap(), Some(WhatIf::Succeeds(_))), "its next is `$end`");
    let more = StepEnding::Output(Arc::new(json!({ "log": [], "n": 7 })));
    let Some(WhatIf::GoesOn(checkpoint)) =
        what_if(&graph, &recording, &step("again#1"), &more).unwrap()
    else {
        panic!("it goes on")
    };
    let due: Vec<_> = checkpoint.cursor.active.iter().map(|other| other.step.as_str()).collect();
    assert_eq!((due, &**checkpoint.state.get("n").unwrap()), (vec!["first#1"], &Value::from(7)));
    assert_eq!(what_if(&graph, &recording, &step("nobody#1"), &more), Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_tampered_history_is_found() {
    let (mut recording, registry) = recorded().await;
    let last = recording.checkpoints.len() - 1;
    recording.checkpoints[last].cursor.supersteps += 1;
    let found = replay(&main_graph(MAIN, &registry), &recording).unwrap_err();
    assert_eq!((found.what.as_str(), found.seq as usize), ("supersteps", last));
}

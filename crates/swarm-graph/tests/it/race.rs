//! Races: the first line to arrive goes on, the others are called off in the same commit.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::escalation::BlockStatus;
use swarm_core::port::store::{AnswerError, Store};
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;
use swarm_graph::check;
use swarm_graph::engine::{AnswerRefused, Driven};
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{Death, MortalStore, VirtualClock};

use crate::rig::{Rig, World, graph, graph_named, id, output, person, registry};
use crate::shop::{defects, graph as shop};

async fn rig(rest: &str) -> (Rig, World) {
    let world = World::default();
    let registry = registry(&world);
    let child = graph_named(
        "child",
        "entry: idle\nnodes:\n  idle: { wait: { signal: go }, next: $end }\n",
        &registry,
    );
    let main = graph(rest, &registry);
    (Rig::new(Arc::new(MemoryStore::new()), vec![main, child], registry), world)
}

#[tokio::test(start_paused = true)]
async fn the_first_to_arrive_stops_the_others_at_work() {
    let (rig, world) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [slow, fast, failing] }
  slow: { uses: test/work, with: { name: slow, ms: 3600000 }, next: first }
  fast: { uses: test/work, with: { name: fast, ms: 20 }, next: first }
  failing: { uses: test/fail, config: { times: 9, fatal: true }, next: first }
  first: { uses: test/put, when_any: [slow, fast, failing], with: { log: ["${{ state.log[0] }} won"] }, next: $end }
"#)
    .await;
    let started = tokio::time::Instant::now();
    let run = rig.finish(json!({})).await;
    assert_eq!(output(&run)["log"], json!(["fast", "fast won"]));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(world.count("worked slow"), 0);
    insta::assert_snapshot!(rig.events("r").await.join("\n"), @r"
    run.claimed
    node.started start#1
    node.finished start#1
    node.started slow#1
    node.started fast#1
    node.started failing#1
    node.failed failing#1
    node.finished fast#1
    node.cancelled slow#1
    node.started first#1
    node.finished first#1
    run.succeeded
    ");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_work_that_takes_too_long() {
    let (rig, world) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [work, deadline] }
  work: { uses: test/work, with: { name: work, ms: 86400000 }, next: first }
  deadline: { wait: { timeout: 1h }, set: { log: ["too late"] }, next: first }
  first: { uses: test/put, when_any: [work, deadline], next: $end }
"#)
    .await;
    let started = tokio::time::Instant::now();
    assert_eq!(output(&rig.finish(json!({})).await)["log"], json!(["too late"]));
    assert!(started.elapsed() < Duration::from_secs(3604), "{:?}", started.elapsed());
    assert_eq!(world.count("worked work"), 0);
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_in_time_leaves_no_timer() {
    let (rig, _) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [work, deadline] }
  work: { uses: test/work, with: { name: work, ms: 50 }, next: first }
  deadline: { wait: { timeout: 1h }, set: { log: ["too late"] }, next: first }
  first: { wait: { signal: go }, when_any: [work, deadline], next: $end }
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    assert_eq!(rig.work().await.unwrap(), Some(Driven::Waiting { wake_at: None }));
}

#[tokio::test(start_paused = true)]
async fn a_signal_wins_while_a_rival_is_at_work_and_is_taken_once() {
    let (rig, _) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [work, hear, other] }
  work: { uses: test/work, with: { name: work, ms: 86400000 }, next: first }
  hear: { wait: { signal: go }, set: { log: ["heard ${{ signal.payload }}"] }, next: first }
  other: { wait: { signal: go }, set: { log: ["other ${{ signal.payload }}"] }, next: join }
  first: { uses: test/put, when_any: [work, hear], next: join }
  join: { uses: test/put, when_all: [first, other], next: $end }
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    let (worked, ()) = tokio::join!(rig.work(), async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        rig.engine.signal(&id("r"), None, "go", json!("one")).await.unwrap();
    });
    assert!(matches!(worked.unwrap(), Some(Driven::Waiting { .. })));
    rig.engine.signal(&id("r"), None, "go", json!("two")).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["heard one", "other two"]));
}

#[tokio::test(start_paused = true)]
async fn questions_of_the_losers_are_withdrawn_and_their_children_cancelled() {
    let (rig, _) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [ask, child, each, node, hear] }
  ask: { gate: { ask: "Well?", answer: Choice }, set: { log: [asked] }, next: first }
  child: { run: { graph: child }, next: first }
  each: { foreach: { in: "${{ ['x', 'y'] }}", as: item }, run: { graph: child }, next: first }
  node: { uses: test/ask_twice, next: first }
  hear: { wait: { signal: go }, set: { log: [heard] }, next: first }
  first: { uses: test/put, when_any: [ask, child, each, node, hear], next: $end }
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let blocks = rig.open_blocks().await;
    assert_eq!(blocks.len(), 2);
    rig.engine.signal(&id("r"), None, "go", json!(null)).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["heard"]));
    assert!(rig.open_blocks().await.is_empty());
    for block in blocks {
        let late = rig.engine.answer(&block.id, json!({ "choice": "a" }), person("ada")).await;
        let late = late.unwrap_err();
        assert!(matches!(late, AnswerRefused::Block(AnswerError::Withdrawn(_))), "{late}");
    }
    let statuses = rig.statuses().await;
    assert_eq!(
        statuses,
        [
            ("r".to_owned(), RunStatus::Succeeded),
            ("r.child#1".to_owned(), RunStatus::Cancelled),
            ("r.each#1/0".to_owned(), RunStatus::Cancelled),
            ("r.each#1/1".to_owned(), RunStatus::Cancelled),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_that_arrive_at_once_the_first_counts_alone() {
    let (rig, _) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [a, b] }
  a: { wait: { signal: a }, set: { log: ["a"] }, next: first }
  b: { wait: { signal: b }, set: { log: ["b"] }, next: first }
  first: { uses: test/put, when_any: [a, b], with: { log: ["first"] }, next: $end }
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    rig.engine.signal(&id("r"), None, "b", json!(null)).await.unwrap();
    rig.engine.signal(&id("r"), None, "a", json!(null)).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["b", "first"]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_line_of_several_nodes_leaves_nothing_for_the_next_race() {
    let (rig, _) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, with: { n: 1 }, next: [go, left, right] }
  go: { wait: { signal: go }, next: first }
  left: { uses: test/put, with: { log: ["left"] }, next: both }
  right: { wait: { signal: right }, next: both }
  both: { uses: test/put, when_all: [left, right], with: { log: ["both"] }, next: first }
  first:
    uses: test/put
    when_any: [go, both]
    routes: [ { when: "${{ state.n < 2 }}", to: start, max: 3 }, { to: $end } ]
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    // The first race is lost by a line whose join was half met.
    rig.engine.signal(&id("r"), None, "go", json!(null)).await.unwrap();
    rig.work().await.unwrap();
    let again = rig.run("r").await;
    assert_eq!(again.status, RunStatus::Waiting);
    rig.engine.signal(&id("r"), None, "right", json!(null)).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["left", "left", "both"]));
}

#[tokio::test(start_paused = true)]
async fn a_run_is_cancelled_in_the_middle_of_a_race() {
    let (rig, world) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [work, hear] }
  work: { uses: test/work, with: { name: work, ms: 86400000 }, next: first }
  hear: { wait: { signal: go }, next: first }
  first: { uses: test/put, when_any: [work, hear], next: $end }
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    let (worked, ()) = tokio::join!(rig.work(), async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        rig.engine.cancel(&id("r"), "ada").await.unwrap();
    });
    assert_eq!(worked.unwrap(), Some(Driven::Ended(RunStatus::Cancelled)));
    assert_eq!(world.count("worked work"), 0);
}

/// A channel that keeps one value, written by the last node of each line.
const ONE_CHANNEL: &str = r#"
dsl: 1
graph: { name: main, version: 1.0.0 }
state: { channels: { who: { schema: { type: string }, default: "" } } }
entry: start
nodes:
  start: { wait: { timeout: 1ms }, next: [a, b] }
  a: { wait: { signal: a }, set: { who: a }, next: first }
  b: { wait: { timeout: 2s }, set: { who: b }, next: first }
  first: { wait: { timeout: 1ms }, when_any: [a, b], next: $end }
"#;

#[tokio::test(start_paused = true)]
async fn the_lines_of_a_race_may_write_one_channel_because_one_of_them_counts() {
    let registry = registry(&World::default());
    let graph = check::load_text(ONE_CHANNEL, &registry).unwrap();
    let rig = Rig::new(Arc::new(MemoryStore::new()), vec![graph], registry);
    rig.start("r", "main", json!({})).await.unwrap();
    for _ in 0..4 {
        rig.work().await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(output(&rig.run("r").await), json!({ "who": "b" }));
}

const MORTAL: &str = r#"
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [quick, slow, ask, child, aside] }
  quick: { uses: test/deed, with: { name: quick }, next: wait }
  wait: { wait: { signal: go }, set: { log: ["${{ signal.payload }}"] }, next: first }
  slow: { uses: test/deed, with: { name: slow }, next: idle }
  idle: { wait: { signal: never }, next: first }
  ask: { gate: { ask: "Well?", answer: Choice }, set: { log: [asked] }, next: first }
  child: { run: { graph: child }, next: first }
  aside: { uses: test/deed, with: { name: aside }, next: $end }
  first: { uses: test/deed, when_any: [wait, idle, ask, child], with: { name: first }, next: last }
  last: { uses: test/deed, with: { name: last }, next: $end }
"#;

const WORKING: &str = r#"
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [quick, slow, ask, child] }
  slow: { uses: test/work, with: { name: slow, ms: 4000 }, next: first }
  quick: { uses: test/deed, with: { name: quick }, next: first }
  ask: { gate: { ask: "Well?", answer: Choice }, set: { log: [asked] }, next: first }
  child: { run: { graph: child }, next: first }
  first: { uses: test/deed, when_any: [quick, slow, ask, child], with: { name: first }, next: $end }
"#;

/// Works until the run and its children rest for good, or the store dies.
async fn play(rig: &Rig) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    rig.start("r", "main", json!({})).await.map_err(|error| text(&error))?;
    for _ in 0..20 {
        rig.work().await.map_err(|error| text(&error))?;
        let run = rig.store.run(&id("r")).await.map_err(|error| text(&error))?.ok_or("no run")?;
        if run.status.is_final() {
            return Ok(());
        }
        let sent = rig.engine.signal(&id("r"), Some("go"), "go", json!("went")).await;
        sent.map_err(|error| text(&error))?;
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    Err("the run does not end".to_owned())
}

/// What must be the same however often the process died.
async fn facts(rig: &Rig, world: &World) -> Value {
    let blocks = rig.store.blocks(None, None).await.unwrap();
    let open = blocks.iter().filter(|block| block.status == BlockStatus::Open).count();
    json!({
        "output": output(&rig.run("r").await),
        "effects": world.effects(),
        "slow": world.count("worked slow"),
        "open": open,
        "runs": rig.statuses().await.iter().map(|(run, status)| format!("{run} {}", status.as_str())).collect::<Vec<_>>(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_of_a_race_leaves_one_winner_and_nothing_of_the_losers() {
    for text in [MORTAL, WORKING] {
        let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
        let on = |store: Arc<dyn Store>, world: &World| {
            let registry = registry(world);
            let child = graph_named(
                "child",
                "entry: idle\nnodes:\n  idle: { wait: { signal: go }, next: $end }\n",
                &registry,
            );
            Rig::on_clock(store, vec![graph(text, &registry), child], registry, clock)
        };
        let world = World::default();
        let undisturbed = Arc::new(MortalStore::new(Arc::new(MemoryStore::new()), Death::Never));
        let first = on(undisturbed.clone(), &world);
        play(&first).await.unwrap();
        first.work().await.unwrap();
        let expected = facts(&first, &world).await;
        assert_eq!((&expected["open"], &expected["slow"]), (&json!(0), &json!(0)), "{expected}");
        assert_eq!(expected["runs"], json!(["r succeeded", "r.child#1 cancelled"]));

        let writes = undisturbed.writes();
        assert!(writes > 20, "only {writes} writes");
        for number in 1..=writes {
            for death in [Death::Before(number), Death::After(number)] {
                let world = World::default();
                let beneath: Arc<dyn Store> = Arc::new(MemoryStore::new());
                let mortal = Arc::new(MortalStore::new(beneath.clone(), death));
                let doomed = on(mortal.clone(), &world);
                let _ = play(&doomed).await;
                let _ = doomed.work().await;
                assert!(mortal.is_dead(), "{death:?}");
                tokio::time::sleep(Duration::from_secs(11)).await;
                let heir = on(beneath, &world);
                play(&heir).await.unwrap_or_else(|error| panic!("{death:?}: {error}"));
                heir.work().await.unwrap();
                assert_eq!(facts(&heir, &world).await, expected, "{death:?}");
            }
        }
    }
}

#[test]
fn a_race_without_rivals_or_with_wrong_ways_is_a_defect() {
    let text = r#"
  start: { uses: shop/judge, set: {}, next: [ a, b, c ] }
  a: { uses: shop/judge, set: {}, next: [ first, late ] }
  b: { uses: shop/judge, set: {}, routes: [ { when: "${{ state.spent > 1.0 }}", to: first }, { to: $end } ] }
  c: { uses: shop/judge, set: {}, next: first, catch: [ { to: first } ] }
  late: { uses: shop/judge, set: {}, next: first }
  first: { uses: shop/report, when_any: [ a, b, c, c, d ], next: either }
  either: { uses: shop/judge, set: {}, routes: [ { when: "${{ state.spent > 1.0 }}", to: x }, { to: y } ] }
  x: { uses: shop/judge, set: {}, next: none }
  y: { uses: shop/judge, set: {}, next: none }
  none: { uses: shop/report, when_any: [ x, y ], when_all: [ x, y ], next: one }
  one: { uses: shop/report, when_any: [ none ], next: $end }
"#;
    insta::assert_snapshot!(defects(&shop(text.trim_start_matches('\n'))).join("\n"), @r"
    bad-race 16:63 a failure of `c` does not win `first` (lead it to `$end`, or to a node of its own)
    bad-race 17:44 `late` leads to the race `first`, but is none of its lines (add `late` to its `when_any`)
    bad-race 18:43 `a` does not always lead to the race `first` (write `next: first` there; what depends on a condition goes behind the race)
    bad-race 18:46 `b` does not always lead to the race `first` (write `next: first` there; what depends on a condition goes behind the race)
    duplicate-name 18:52 `c` is there twice
    unknown-node 18:55 no node named `d` (perhaps `a`; known: a, b, c, either, first, late, none, one, start, x, y)
    bad-race 22:3 the race `none` may be run twice at the same time: `either` may run again before it is won (put the race in a graph of its own, started with `run`)
    key-clash 22:30 node `none` has both `when_all` and `when_any` (a join waits for all, a race for the first: use two nodes)
    bad-race 23:41 the race `one` has only one line (leave `when_any` out: any arrival runs a node)
    ");
}

#[test]
fn a_race_whose_lines_never_run_at_once_is_a_defect() {
    let text = r#"
  start: { uses: shop/judge, set: {}, routes: [ { when: "${{ state.spent > 1.0 }}", to: x }, { to: y } ] }
  x: { uses: shop/judge, set: {}, next: none }
  y: { uses: shop/judge, set: {}, next: none }
  none: { uses: shop/report, when_any: [ x, y ], next: fan }
  fan: { uses: shop/judge, set: {}, next: [ before, after ] }
  before: { uses: shop/judge, set: {}, next: after }
  after: { uses: shop/judge, set: {}, next: [ m, n ] }
  m: { uses: shop/judge, set: {}, next: twice }
  n: { uses: shop/judge, set: {}, next: twice }
  twice: { uses: shop/report, when_any: [ m, n ], next: $end }
"#;
    insta::assert_snapshot!(defects(&shop(text.trim_start_matches('\n'))).join("\n"), @r"
    bad-race 16:3 nothing races for `none`: a run goes to `x` or to `y`, never to both (leave `when_any` out, or fan out with several targets)
    bad-race 22:3 the race `twice` may be run twice at the same time: `after` may run again before it is won (put the race in a graph of its own, started with `run`)
    ");
}

#[test]
fn parallel_writers_inside_the_lines_of_a_race_are_a_defect() {
    let text = r#"
  start: { uses: shop/judge, set: {}, next: [ a, b ] }
  a: { uses: shop/judge, next: a2 }
  b: { uses: shop/judge, next: b2 }
  a2: { uses: shop/judge, next: first }
  b2: { uses: shop/judge, next: first }
  first: { uses: shop/judge, when_any: [ a2, b2 ], next: $end }
"#;
    insta::assert_snapshot!(defects(&shop(text.trim_start_matches('\n'))).join("\n"), @r"parallel-writers 14:14 `a` and `b` may write channel `verdict` at the same time (give the channel a reducer that takes several, such as `append`, or join the ways first)");
}

//! Graphs that run inside a run: everything works there as it does at the top.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::checkpoint::Phase;
use swarm_core::escalation::BlockStatus;
use swarm_core::port::store::Store;
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;
use swarm_graph::check::{self, Memory};
use swarm_graph::engine::Driven;
use swarm_graph::graph::Graph;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{Death, MortalStore, VirtualClock};
use swarm_graph::{dot, explain};

use crate::rig::{CHANNELS, Rig, World, graph, id, output, person, registry};

/// A graph inside `main`, from its nodes and whatever else.
fn inside(name: &str, rest: &str) -> String {
    let text = format!("dsl: 1\ngraph: {{ name: {name}, version: 1.0.0 }}\n{CHANNELS}{rest}");
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}\n")).collect();
    format!("  - {}", lines.concat().trim_start())
}

fn rig(rest: &str, graphs: &[String]) -> (Rig, World) {
    let world = World::default();
    let registry = registry(&world);
    let main = graph(&format!("{rest}graphs:\n{}", graphs.concat()), &registry);
    (Rig::new(Arc::new(MemoryStore::new()), vec![main], registry), world)
}

/// Counts to `n`, at most three times; gives what it has logged.
fn counter() -> String {
    inside(
        "counter",
        r#"
input: { schema: { type: object, properties: { n: { type: integer } }, required: [n] } }
output: { schema: { type: array, items: { type: string } }, value: "${{ state.log }}" }
entry: one
nodes:
  one:
    uses: test/put
    with: { log: ["${{ state.n + 1 }} of ${{ input.n }}"], n: 1 }
    routes: [ { when: "${{ state.n < input.n }}", to: one, max: 3 }, { to: $end } ]
"#,
    )
}

#[tokio::test]
async fn a_graph_inside_has_its_own_input_state_and_counts_each_time() {
    let (rig, _) = rig(
        r#"
entry: count
nodes:
  count:
    run: { graph: counter, inline: true, input: { n: "${{ state.n + 2 }}" } }
    set: { log: "${{ output }}", n: 1 }
    routes: [ { when: "${{ state.n < 2 }}", to: count, max: 3 }, { to: $end } ]
"#,
        &[counter()],
    );
    let run = rig.finish(json!({})).await;
    let log = json!(["1 of 2", "2 of 2", "1 of 3", "2 of 3", "3 of 3"]);
    assert_eq!(output(&run), json!({ "log": log, "n": 2 }));
    let ended = rig.store.steps(&id("r")).await.unwrap();
    let ended: Vec<&str> = ended.iter().map(|record| record.step.as_str()).collect();
    let steps =
        ["count#1/one#1", "count#1/one#2", "count#2/one#1", "count#2/one#2", "count#2/one#3"];
    assert_eq!(ended, steps);
    assert_eq!(rig.statuses().await.len(), 1, "no child run");
    let stored = rig.store.checkpoint(&id("r"), None).await.unwrap().unwrap();
    assert!(stored.state.0.iter().all(|(name, value)| name.frame().is_none() || value.is_null()));
}

#[tokio::test]
async fn the_items_of_a_loop_are_each_a_graph_inside() {
    let (rig, _) = rig(
        r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ [1, 2, 9] }}", as: n, max_parallel: 2 }
    run: { graph: counter, inline: true, input: { n: "${{ n }}" } }
    set: { log: ["${{ n }}: ${{ output.size() }}"] }
    next: $end
"#,
        &[counter()],
    );
    // A route's bound holds in each of them: after three times round, the last route is taken.
    assert_eq!(output(&rig.finish(json!({})).await)["log"], json!(["1: 1", "2: 2", "9: 4"]));
}

#[tokio::test]
async fn a_failed_item_takes_what_the_others_asked_with_it() {
    let (rig, _) = rig(
        r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ ['ask', 'break'] }}", as: what }
    run: { graph: either, inline: true, input: { what: "${{ what }}" } }
    set: {}
    catch: [ { to: after, set: { log: ["${{ error.message }}"] } } ]
    next: after
  after: { uses: test/put, next: $end }
"#,
        &[inside(
            "either",
            r#"
input: { schema: { type: object, properties: { what: { type: string } }, required: [what] } }
entry: which
nodes:
  which:
    uses: test/put
    routes: [ { when: "${{ input.what == 'ask' }}", to: ask }, { to: wait } ]
  ask: { gate: { ask: "Well?", choices: [a] }, next: $end }
  wait: { wait: { signal: go }, next: fail }
  fail: { uses: test/fail, config: { times: 9, fatal: true }, set: {}, next: $end }
"#,
        )],
    );
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(rig.open_blocks().await.len(), 1);
    rig.engine.signal(&id("r"), None, "go", Value::Null).await.unwrap();
    rig.work().await.unwrap();
    assert_eq!(rig.open_blocks().await, []);
    let log = &output(&rig.run("r").await)["log"];
    assert_eq!(*log, json!(["each#1/1/fail#1 broke"]));
}

const DEEP: &str = r#"
entry: outer
nodes:
  outer:
    run: { graph: middle, inline: true }
    set: { log: "${{ output.log }}" }
    next: last
  last: { uses: test/put, with: { log: ["last"] }, next: $end }
"#;

fn deep() -> Vec<String> {
    vec![
        inside(
            "middle",
            r#"
entry: inner
nodes:
  inner: { run: { graph: core, inline: true }, set: { log: "${{ output.log }}" }, next: [left, right] }
  left: { uses: test/deed, with: { name: left }, next: both }
  right: { uses: test/deed, with: { name: right }, next: both }
  both: { uses: test/put, when_all: [left, right], with: { log: ["both"] }, next: $end }
"#,
        ),
        inside(
            "core",
            r#"
policies: { retry: { twice: { max_attempts: 3, backoff: { initial: 1ms, jitter: false } } } }
entry: ask
nodes:
  ask: { uses: test/ask_twice, next: flaky }
  flaky: { uses: test/fail, config: { times: 2 }, retry: twice, next: broken }
  broken:
    uses: test/fail
    config: { times: 9, fatal: true }
    set: {}
    next: $end
    catch: [ { to: deed, set: { log: ["caught ${{ error.class }}"] } } ]
  deed: { uses: test/deed, with: { name: deep }, next: $end }
"#,
        ),
    ]
}

async fn answer_all(rig: &Rig) {
    for _ in 0..4 {
        rig.work().await.unwrap();
        for block in rig.open_blocks().await {
            rig.answer(&block.id, json!({ "choice": "a" })).await;
        }
    }
}

fn deep_log() -> Value {
    let step = "outer#1/inner#1/flaky#1";
    json!([
        "a",
        "a",
        format!("{step} done"),
        "caught io",
        "deep 42 true",
        "left 42 true",
        "right 42 true",
        "both",
        "last",
    ])
}

#[tokio::test]
async fn three_levels_deep_questions_retries_catches_memos_and_effects_work() {
    let (rig, world) = rig(DEEP, &deep());
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let ids: Vec<String> =
        rig.open_blocks().await.iter().map(|block| block.id.to_string()).collect();
    assert_eq!(ids, ["r.outer#1/inner#1/ask#1:one"]);
    let stored = rig.store.checkpoint(&id("r"), None).await.unwrap().unwrap();
    let nodes: Vec<(&str, bool)> = stored
        .cursor
        .active
        .iter()
        .map(|one| (one.node.as_str(), matches!(one.phase, Phase::Inline(_))))
        .collect();
    assert_eq!(nodes, [("outer", true), ("outer/inner", true), ("outer/inner/ask", false)]);
    answer_all(&rig).await;
    assert_eq!(output(&rig.run("r").await)["log"], deep_log());
    assert_eq!(world.count("effect r deep"), 1);
    assert_eq!(world.count("between"), 1);
}

fn deep_rig(store: Arc<dyn Store>, world: &World, clock: VirtualClock) -> Rig {
    let registry = registry(world);
    let main = graph(&format!("{DEEP}graphs:\n{}", deep().concat()), &registry);
    Rig::on_clock(store, vec![main], registry, clock)
}

async fn play(rig: &Rig) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    rig.start("r", "main", json!({})).await.map_err(|error| failed(&error))?;
    for _ in 0..20 {
        rig.work().await.map_err(|error| failed(&error))?;
        let run = rig.store.run(&id("r")).await.map_err(|error| failed(&error))?.ok_or("no run")?;
        if run.status.is_final() {
            return Ok(());
        }
        let blocks = rig.store.blocks(None, Some(BlockStatus::Open)).await;
        for block in blocks.map_err(|error| failed(&error))? {
            let answered = rig.engine.answer(&block.id, json!({ "choice": "a" }), person("ada"));
            answered.await.map_err(|error| failed(&error))?;
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    Err("the run does not end".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_repeats_no_effect_inside() {
    let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
    let world = World::default();
    let undisturbed = Arc::new(MortalStore::new(Arc::new(MemoryStore::new()), Death::Never));
    play(&deep_rig(undisturbed.clone(), &world, clock)).await.unwrap();
    let writes = undisturbed.writes();
    assert!(writes > 20, "only {writes} writes");
    for number in 1..=writes {
        for death in [Death::Before(number), Death::After(number)] {
            let world = World::default();
            let beneath: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let mortal = Arc::new(MortalStore::new(beneath.clone(), death));
            let _ = play(&deep_rig(mortal, &world, clock)).await;
            let heir = deep_rig(beneath, &world, clock);
            tokio::time::sleep(Duration::from_secs(11)).await;
            play(&heir).await.unwrap();
            let run = heir.run("r").await;
            assert_eq!(output(&run)["log"], deep_log(), "{death:?}");
            for name in ["deep", "left", "right"] {
                assert_eq!(world.count(&format!("effect r {name}")), 1, "{death:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_uncaught_failure_inside_is_the_node_s_own() {
    let broken = inside(
        "broken",
        "entry: fail\nnodes:\n  fail: { uses: test/fail, config: { times: 9, class: bad }, next: $end }\n",
    );
    let (caught, _) = rig(
        r#"
entry: outer
nodes:
  outer:
    run: { graph: broken, inline: true }
    next: $end
    catch: [ { when: "${{ error.class == 'bad' }}", to: after, set: { log: ["caught"] } } ]
  after: { uses: test/put, with: { log: ["after"] }, next: $end }
"#,
        std::slice::from_ref(&broken),
    );
    assert_eq!(output(&caught.finish(json!({})).await)["log"], json!(["caught", "after"]));
    let (failed, _) = rig(
        "entry: outer\nnodes:\n  outer: { run: { graph: broken, inline: true }, next: $end }\n",
        &[broken],
    );
    let run = failed.finish(json!({})).await;
    assert_eq!(run.status, RunStatus::Failed);
    assert_eq!(run.failure.unwrap().class, "bad");
}

#[tokio::test(start_paused = true)]
async fn a_graph_inside_is_a_line_of_a_race_and_may_have_one() {
    let (rig, _) = rig(
        r#"
entry: start
nodes:
  start: { uses: test/put, next: [line, deadline] }
  line: { run: { graph: racer, inline: true }, set: { log: "${{ output.log }}" }, next: first }
  deadline: { wait: { timeout: 1h }, set: { log: ["too late"] }, next: first }
  first: { uses: test/put, when_any: [line, deadline], with: { log: ["first"] }, next: $end }
"#,
        &[inside(
            "racer",
            r#"
entry: start
nodes:
  start: { uses: test/put, next: [ask, timer] }
  ask: { gate: { ask: "Well?", choices: [a] }, set: { log: ["asked"] }, next: end }
  timer: { wait: { timeout: 10s }, set: { log: ["timer"] }, next: end }
  end: { uses: test/put, when_any: [ask, timer], next: $end }
"#,
        )],
    );
    rig.start("r", "main", json!({})).await.unwrap();
    assert!(matches!(rig.work().await.unwrap(), Some(Driven::Waiting { .. })));
    assert_eq!(rig.open_blocks().await.len(), 1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["timer", "first"]));
    assert_eq!(rig.open_blocks().await, []);
}

const OUTER: &str = "dsl: 1
graph: { name: outer, version: 1.0.0 }
entry: child
nodes:
  child: { run: { graph: inner, inline: true, input: { n: 1 } }, next: $end }
";

const INNER: &str = "dsl: 1
graph: { name: inner, version: 1.0.0 }
input: { schema: { type: object, properties: { n: { type: integer } }, required: [n] } }
entry: nap
nodes:
  nap: { wait: { signal: go }, next: $end }
";

fn load_two(outer: &str, inner: &str) -> Vec<Result<Graph, String>> {
    let sources = Memory::one("outer.yaml", outer).with("inner.yaml", inner);
    let loaded =
        check::load_all(&sources, &["outer.yaml", "inner.yaml"], &registry(&World::default()));
    loaded.into_iter().map(|one| one.map_err(|defects| defects.to_string())).collect()
}

#[test]
fn the_kept_text_of_a_graph_holds_what_runs_inside_and_its_hash_follows_it() {
    let one = load_two(OUTER, INNER).swap_remove(0).unwrap();
    let again = check::load_text(one.text(), &registry(&World::default())).unwrap();
    assert_eq!(again.hash(), one.hash());
    let other = load_two(OUTER, &INNER.replace("signal: go", "signal: begin")).swap_remove(0);
    assert_ne!(other.unwrap().hash(), one.hash());
}

#[test]
fn what_does_not_fit_inside_is_refused() {
    let bad_input = load_two(&OUTER.replace("{ n: 1 }", "{ n: one }"), INNER).swap_remove(0);
    let broken = load_two(OUTER, &INNER.replace("wait:", "wat:")).swap_remove(0);
    let misspelt = load_two(&OUTER.replace("graph: inner", "graph: iner"), INNER).swap_remove(0);
    let keys = OUTER.replace("inline: true", "inline: true, queue: dev, detach: true");
    let keys = load_two(&keys.replace(", next", ", timeout: { run: 1m }, next"), INNER);
    let round = INNER.replace("wait: { signal: go }", "run: { graph: outer, inline: true }");
    let round = load_two(OUTER, &round);
    let signals = OUTER.replace("entry", "signals: { stop: { schema: {} } }\nentry");
    let signals = load_two(&signals, INNER).swap_remove(0);
    let all = [bad_input, broken, misspelt]
        .into_iter()
        .chain(keys.into_iter().take(1))
        .chain(round)
        .chain([signals]);
    let said: Vec<String> = all.map(Result::unwrap_err).collect();
    insta::assert_snapshot!(said.join("\n\n"), @r"
error[type-mismatch]: `input.n`: expected a whole number, found the string 'one'
 --> outer.yaml:5:59
  |
5 |   child: { run: { graph: inner, inline: true, input: { n: one } }, next: $end }
  |                                                           ^^^

`outer.yaml` has 1 defect

error[bad-inline]: graph `inner` has defects of its own
 --> outer.yaml:5:26
  |
5 |   child: { run: { graph: inner, inline: true, input: { n: 1 } }, next: $end }
  |                          ^^^^^

`outer.yaml` has 1 defect

error[unknown-graph]: no graph named `iner` is at hand
 --> outer.yaml:5:26
  |
5 |   child: { run: { graph: iner, inline: true, input: { n: 1 } }, next: $end }
  |                          ^^^^
  = help: perhaps `inner`; known: inner, outer

`outer.yaml` has 1 defect

error[key-clash]: `queue` means nothing for a graph that runs inline
 --> outer.yaml:5:47
  |
5 |   child: { run: { graph: inner, inline: true, queue: dev, detach: true, input: { n: 1 } }, timeout: { run: 1m }, next: $
  |                                               ^^^^^
  = help: leave it out, or `inline`

error[key-clash]: `detach` means nothing for a graph that runs inline
 --> outer.yaml:5:59
  |
5 |   child: { run: { graph: inner, inline: true, queue: dev, detach: true, input: { n: 1 } }, timeout: { run: 1m }, next: $
  |                                                           ^^^^^^
  = help: leave it out, or `inline`

error[key-clash]: `timeout` means nothing for a graph that runs inline
 --> outer.yaml:5:92
  |
5 |  inline: true, queue: dev, detach: true, input: { n: 1 } }, timeout: { run: 1m }, next: $end }
  |                                                             ^^^^^^^
  = help: give its nodes a `timeout`

`outer.yaml` has 3 defects

error[bad-inline]: graph `inner` has defects of its own
 --> outer.yaml:5:26
  |
5 |   child: { run: { graph: inner, inline: true, input: { n: 1 } }, next: $end }
  |                          ^^^^^

`outer.yaml` has 1 defect

error[inline-cycle]: graph `outer` would run inside itself
 --> inner.yaml:6:24
  |
6 |   nap: { run: { graph: outer, inline: true }, next: $end }
  |                        ^^^^^
  = help: leave `inline` out here: then each is a run of its own, and the runs are bounded

`inner.yaml` has 1 defect

error[unknown-signal]: graph `inner` waits for `go`, which is not declared
 --> outer.yaml:6:26
  |
6 |   child: { run: { graph: inner, inline: true, input: { n: 1 } }, next: $end }
  |                          ^^^^^
  = help: known: stop, worker.answered, worker.blocked, worker.finished

`outer.yaml` has 1 defect
");
}

#[test]
fn a_graph_inside_is_drawn_and_told() {
    let main = load_two(OUTER, INNER).swap_remove(0).unwrap();
    insta::assert_snapshot!(dot::mermaid(&main), @r#"
flowchart TD
  begin(( )) --> n0
  n0[["child<br/>runs inner inside"]]
  n1((("end")))
  n0 --> n1
"#);
    insta::assert_snapshot!(explain::in_words(&main), @r"
Graph `outer`, version 1.0.0

It is given nothing in particular, and begins with `child`.
When nothing of it is left to do, it returns its whole state.

What it does:

1. `child` runs graph `inner` inside this run.
   - Then the end.

Who is asked, and when:

- The graph itself asks nobody.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- Nothing: one step after the other.

What it may cost:

- It has no budget of its own; that of the run that started it holds.
- It fails after 500 supersteps, or when a node is to run for more than the 25th time.

Graph `inner`, version 1.0.0

It is given `n`, and begins with `nap`.
When nothing of it is left to do, it returns its whole state.

What it does:

1. `nap` waits for the signal `go`.
   - Then the end.

Who is asked, and when:

- The graph itself asks nobody.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- Nothing: one step after the other.

What it may cost:

- It has no budget of its own; that of the run that started it holds.
- It fails after 500 supersteps, or when a node is to run for more than the 25th time.
");
}

//! What a run does: flow, state, questions, retries, loops, children, budgets, ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::id::{QueueName, WorkerId};
use swarm_core::port::store::{self, AnswerError};
use swarm_core::run::{Limit, RunStatus};
use swarm_core::spend::UsdMicros;
use swarm_graph::engine::{AnswerRefused, Control, Driven, Engine, Error, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::registry::Registry;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::SeededEntropy;

use crate::rig::{Rig, World, all, graph, graph_named, id, most_at_once, output, person, registry};

/// Runs `main` with these nodes on a fresh memory store until all rests.
async fn rig(rest: &str) -> (Rig, World) {
    let world = World::default();
    let registry = registry(&world);
    let main = graph(rest, &registry);
    (Rig::new(Arc::new(MemoryStore::new()), vec![main], registry), world)
}

#[tokio::test(start_paused = true)]
async fn outputs_go_to_the_channels_they_name_by_their_reducers() {
    let (rig, _) = rig(r#"
entry: a
output: { schema: { type: object }, value: { log: "${{ state.log }}", n: "${{ state.n + 100 }}" } }
nodes:
  a: { uses: test/put, with: { log: ["a"], n: 1 }, next: b }
  b: { uses: test/put, with: { log: ["b ${{ state.n }}"], n: 2 }, next: $end }
"#)
    .await;
    assert_eq!(output(&rig.finish(json!({})).await), json!({ "log": ["a", "b 1"], "n": 103 }));
    let events = rig.events("r").await;
    insta::assert_snapshot!(events.join("\n"), @r"
    run.claimed
    node.started a#1
    node.finished a#1
    node.started b#1
    node.finished b#1
    run.succeeded
    ");
}

#[tokio::test(start_paused = true)]
async fn a_route_is_taken_max_times_and_then_does_not_hold() {
    let (rig, _) = rig(r#"
entry: a
nodes:
  a:
    uses: test/put
    with: { n: 1 }
    routes:
      - { when: "${{ state.n < 100 }}", to: a, max: 3 }
      - { to: $end }
"#)
    .await;
    assert_eq!(output(&rig.finish(json!({})).await)["n"], 4);
}

#[tokio::test(start_paused = true)]
async fn updates_apply_in_the_order_of_the_graph_and_a_join_waits_for_all() {
    let (rig, _) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [slow, fast] }
  slow: { uses: test/work, with: { name: slow, ms: 500 }, next: join }
  fast: { uses: test/work, with: { name: fast, ms: 5 }, next: detour }
  detour: { uses: test/work, with: { name: detour, ms: 5 }, next: join }
  join: { uses: test/put, when_all: [slow, detour], with: { log: ["joined"] }, next: $end }
"#)
    .await;
    let log = output(&rig.finish(json!({})).await)["log"].clone();
    assert_eq!(log, json!(["slow", "fast", "detour", "joined"]));
}

#[tokio::test(start_paused = true)]
async fn a_loop_keeps_the_order_of_items_and_its_bound() {
    let (rig, _) = rig(r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ input.items }}", as: item, max_parallel: 3 }
    uses: test/work
    with: { name: "${{ item.name }}", ms: "${{ item.ms }}" }
    next: $end
"#)
    .await;
    let items: Vec<Value> =
        (0..7).map(|n| json!({ "name": format!("i{n}"), "ms": (7 - n) * 10 })).collect();
    rig.start("loop", "main", json!({ "items": items })).await.unwrap();
    rig.work().await.unwrap();
    let log = output(&rig.run("loop").await)["log"].clone();
    assert_eq!(log, json!(["i0", "i1", "i2", "i3", "i4", "i5", "i6"]));
    assert_eq!(most_at_once("loop"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_nothing_goes_on() {
    let (rig, _) = rig(r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ input.items }}", as: item }
    uses: test/work
    with: { name: "${{ item }}", ms: 1 }
    next: after
  after: { uses: test/put, with: { log: ["after"] }, next: $end }
"#)
    .await;
    assert_eq!(output(&rig.finish(json!({ "items": [] })).await)["log"], json!(["after"]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_item_is_collected_or_ignored() {
    for (on_error, expected) in [
        ("collect", json!(["ok done", "bad: io: bad broke", "fine done"])),
        ("ignore", json!(["ok done", "fine done"])),
    ] {
        let (rig, _) = rig(&format!(
            r#"
entry: each
nodes:
  each:
    foreach: {{ in: "${{{{ ['ok', 'bad', 'fine'] }}}}", as: item, on_error: {on_error} }}
    run: {{ graph: child, input: {{ name: "${{{{ item }}}}" }} }}
    set: {{ log: "${{{{ error == null ? output.log : [item + ': ' + error.class + ': ' + input.why] }}}}" }}
    next: $end
"#
        ))
        .await;
        let registry = registry(&World::default());
        rig.engine.library().add(graph_named(
            "child",
            r#"
entry: pick
nodes:
  pick:
    uses: test/put
    routes: [ { when: "${{ input.name == 'bad' }}", to: bad }, { to: good } ]
  good: { uses: test/put, with: { log: ["${{ input.name }} done"] }, next: $end }
  bad: { uses: test/fail, config: { times: 9, fatal: true }, with: { name: "${{ input.name }}" }, next: $end }
"#,
            &registry,
        ));
        assert_eq!(
            output(&rig.finish(json!({ "why": "bad broke" })).await)["log"],
            expected,
            "on_error: {on_error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_item_stops_its_siblings_unless_told_otherwise() {
    let (rig, world) = rig(r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ input.items }}", as: item }
    uses: test/work
    with: { name: "${{ item }}", ms: 60000 }
    next: $end
"#)
    .await;
    // The second item's name is a number, which the kind refuses at once.
    let run = rig.finish(json!({ "items": ["slow", 1] })).await;
    assert_eq!(run.status, RunStatus::Failed);
    assert_eq!(run.failure.unwrap().class, "bad_input");
    assert_eq!(world.count("worked slow"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gate_parks_the_run_without_a_lease_and_its_answer_resumes_it() {
    let (rig, _) = rig(r#"
entry: ask
nodes:
  ask:
    gate: { ask: "Go on with ${{ input.what }}?", answer: Choice }
    set: { log: "${{ [answer.choice] }}" }
    routes: [ { when: "${{ answer.choice == 'yes' }}", to: work }, { to: $end } ]
  work: { uses: test/put, with: { log: ["worked"] }, next: $end }
"#)
    .await;
    let run = rig.finish(json!({ "what": "it" })).await;
    assert_eq!((run.status, run.lease_owner), (RunStatus::Waiting, None));
    let block = rig.open_blocks().await.remove(0);
    assert_eq!(block.ask.question, "Go on with it?");

    let misfit =
        rig.engine.answer(&block.id, json!({ "choice": 5 }), person("ada")).await.unwrap_err();
    assert!(matches!(misfit, AnswerRefused::Misfit(_)), "{misfit}");
    rig.answer(&block.id, json!({ "choice": "yes" })).await;
    rig.answer(&block.id, json!({ "choice": "yes" })).await;
    let late =
        rig.engine.answer(&block.id, json!({ "choice": "no" }), person("bob")).await.unwrap_err();
    let AnswerRefused::Block(AnswerError::AlreadyAnswered(winner)) = late else { panic!("{late}") };
    assert_eq!(winner.answered_by.unwrap().login, "ada");

    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["yes", "worked"]));
}

#[tokio::test(start_paused = true)]
async fn a_node_may_ask_twice_and_repeats_nothing_before_an_answer() {
    let (rig, world) =
        rig("entry: ask\nnodes:\n  ask: { uses: test/ask_twice, next: $end }\n").await;
    rig.finish(json!({})).await;
    let one = rig.open_blocks().await.remove(0);
    assert_eq!(one.ask.question, "One?");
    rig.answer(&one.id, json!({ "choice": "a" })).await;
    rig.work().await.unwrap();
    let two = rig.open_blocks().await.remove(0);
    assert_eq!(two.ask.question, "Two?");
    rig.answer(&two.id, json!({ "choice": "b" })).await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["a", "b"]));
    assert_eq!(world.count("between"), 1);
}

const DOUBT: &str = "
policies:
  retry: { again: { max_attempts: 9, backoff: { initial: 1ms, factor: 1, max: 1ms, jitter: false } } }
entry: a
nodes:
  a: { uses: test/doubt, config: { lost: 2 }, retry: again, next: $end }
";

#[tokio::test(start_paused = true)]
async fn an_effect_in_doubt_is_repeated_once_for_each_time_that_a_person_says_so() {
    let (rig, world) = rig(DOUBT).await;
    rig.finish(json!({})).await;
    let mut asked = Vec::new();
    for letters in [1, 2] {
        assert_eq!(world.count("letters"), letters, "nothing is repeated unasked");
        let block = rig.open_blocks().await.remove(0);
        asked.push(format!("{} {}", block.id, block.ask.reason.title()));
        rig.answer(&block.id, json!({ "choice": "repeat" })).await;
        rig.work().await.unwrap();
    }
    assert_eq!(
        asked,
        ["r.a#1:in-doubt/letter/1 Effect in doubt", "r.a#1:in-doubt/letter/2 Effect in doubt"]
    );
    assert_eq!(output(&rig.run("r").await)["log"], json!(["3 letters"]));
}

#[tokio::test(start_paused = true)]
async fn an_effect_in_doubt_that_a_person_stops_fails_its_step_and_is_not_repeated() {
    let (rig, world) = rig(DOUBT).await;
    rig.finish(json!({})).await;
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "stop" })).await;
    rig.work().await.unwrap();
    let failure = rig.run("r").await.failure.unwrap();
    assert_eq!(failure.to_string(), "in_doubt: effect `letter` stopped by a person");
    assert_eq!(world.count("letters"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_longer_each_time_and_a_fatal_failure_is_not_tried_again() {
    let retry = r#"
policies:
  retry: { patient: { max_attempts: 4, backoff: { initial: 10s, factor: 3, max: 1m, jitter: false } } }
entry: a
nodes:
"#;
    let (rig, world) = rig(&format!(
        "{retry}  a: {{ uses: test/fail, config: {{ times: 3 }}, retry: patient, next: $end }}\n"
    ))
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    for (tries, wait) in [(1, 10), (2, 30), (3, 60)] {
        assert!(matches!(rig.work().await.unwrap(), Some(Driven::Waiting { wake_at: Some(_) })));
        assert_eq!(world.count("tries a#1"), tries);
        tokio::time::sleep(Duration::from_secs(wait) - Duration::from_millis(1)).await;
        assert_eq!(rig.work().await.unwrap(), None, "{tries}: not yet");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["a#1 done"]));

    let (rig, world) = crate::engine::rig(&format!(
        "{retry}  a: {{ uses: test/fail, config: {{ times: 1, fatal: true }}, retry: patient, next: $end }}\n"
    ))
    .await;
    let run = rig.finish(json!({})).await;
    assert_eq!(run.failure.unwrap().to_string(), "io: a#1 broke");
    assert_eq!(world.count("tries a#1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caught_failure_is_routed_by_its_class_until_its_bound() {
    let (rig, world) = rig(r#"
entry: a
nodes:
  a:
    uses: test/fail
    config: { times: 99, fatal: true, class: odd }
    catch:
      - { when: "${{ error.class == 'io' }}", to: $end }
      - { when: "${{ error.class == 'odd' }}", to: a, max: 2, set: { n: 1 } }
      - { to: rescue }
    next: $end
  rescue: { uses: test/put, with: { log: ["rescued: ${{ error.message }}"] }, next: $end }
"#)
    .await;
    let out = output(&rig.finish(json!({})).await);
    assert_eq!(out, json!({ "log": ["rescued: a#3 broke"], "n": 2 }));
    assert_eq!(all(&world, "tries ").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_too_long_fails_with_a_timeout() {
    let (rig, world) = rig(r#"
entry: a
nodes:
  a: { uses: test/work, with: { name: a, ms: 60000 }, timeout: { run: 10s }, next: $end }
"#)
    .await;
    let failure = rig.finish(json!({})).await.failure.unwrap();
    assert_eq!(failure.to_string(), "timeout: not done after 10s");
    assert_eq!(world.count("worked a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_of_the_node() {
    let (rig, _) = rig("entry: a\nnodes:\n  a: { uses: test/panic, with: {}, next: $end }\n").await;
    let failure = rig.finish(json!({})).await.failure.unwrap();
    assert_eq!(failure.to_string(), "panic: the node panicked: a has no idea");
}

#[tokio::test(start_paused = true)]
async fn a_wait_takes_a_signal_that_came_before_it_and_ends_at_its_timeout() {
    let (rig, _) = rig(r#"
entry: first
nodes:
  first:
    wait: { signal: news.*, timeout: 1h }
    set: { log: "${{ [signal == null ? 'nothing' : signal.name + '=' + string(signal.payload)] }}" }
    next: second
  second:
    wait: { signal: news.*, timeout: 1h }
    set: { log: "${{ [signal == null ? 'nothing' : signal.name + '=' + string(signal.payload)] }}" }
    next: $end
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    assert!(rig.engine.signal(&id("r"), Some("k"), "news.good", json!(1)).await.unwrap());
    assert!(!rig.engine.signal(&id("r"), Some("k"), "news.good", json!(1)).await.unwrap());
    rig.engine.signal(&id("r"), None, "other", json!(2)).await.unwrap();
    assert!(matches!(rig.work().await.unwrap(), Some(Driven::Waiting { wake_at: Some(_) })));
    assert_eq!(
        rig.work().await.unwrap(),
        None,
        "a signal that nobody waits for does not wake the run"
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["news.good=1", "nothing"]));
}

#[tokio::test(start_paused = true)]
async fn a_detached_child_reports_to_its_ancestors_and_an_awaited_one_returns() {
    let world = World::default();
    let registry = registry(&world);
    let main = graph(
        r#"
entry: assign
nodes:
  assign:
    foreach: { in: "${{ input.tasks }}", as: task }
    run: { graph: middle, input: { task: "${{ task }}" }, detach: true, labels: { task: "${{ task }}" } }
    next: monitor
  monitor:
    wait: { signal: worker.* }
    set: { log: "${{ [signal.name + ' ' + signal.payload.graph + ' ' + signal.payload.labels.task] }}", n: "${{ signal.name == 'worker.finished' && signal.payload.graph == 'middle' ? 1 : 0 }}" }
    routes: [ { when: "${{ state.n < 2 }}", to: monitor, max: 50 }, { to: $end } ]
"#,
        &registry,
    );
    let middle = graph_named(
        "middle",
        r#"
entry: inner
output: { schema: { type: object }, value: { said: "${{ state.log }}" } }
nodes:
  inner: { run: { graph: leaf, input: { task: "${{ input.task }}" } }, next: $end }
"#,
        &registry,
    );
    let leaf = graph_named(
        "leaf",
        r#"
entry: ask
nodes:
  ask: { gate: { ask: "Do ${{ input.task }}?", answer: Choice }, set: { log: "${{ [answer.choice] }}" }, next: $end }
"#,
        &registry,
    );
    let rig = Rig::new(Arc::new(MemoryStore::new()), vec![main, middle, leaf], registry);
    rig.finish(json!({ "tasks": ["x", "y"] })).await;
    for block in rig.open_blocks().await {
        rig.answer(&block.id, json!({ "choice": "yes" })).await;
        rig.work().await.unwrap();
    }
    let out = output(&rig.run("r").await);
    let mut log: Vec<String> = serde_json::from_value(out["log"].clone()).unwrap();
    log.sort();
    assert_eq!(log[..2], ["worker.answered leaf x", "worker.answered leaf y"]);
    assert_eq!(log.iter().filter(|entry| entry.starts_with("worker.blocked leaf")).count(), 2);
    assert_eq!(log.iter().filter(|entry| entry.starts_with("worker.finished middle")).count(), 2);
    assert_eq!(output(&rig.run("r.assign#1/0").await), json!({ "said": ["yes"] }));
}

/// A run whose child asks a person.
async fn asking_child() -> Rig {
    let world = World::default();
    let registry = registry(&world);
    let main = graph(
        "entry: a\nnodes:\n  a: { run: { graph: leaf, input: {} }, next: $end }\n",
        &registry,
    );
    let leaf = graph_named(
        "leaf",
        "entry: ask\nnodes:\n  ask: { gate: { ask: \"Well?\", answer: Choice }, next: $end }\n",
        &registry,
    );
    let rig = Rig::new(Arc::new(MemoryStore::new()), vec![main, leaf], registry);
    rig.finish(json!({})).await;
    assert_eq!(rig.open_blocks().await.len(), 1);
    rig
}

async fn assert_both_are_cancelled(rig: &Rig) {
    let cancelled = RunStatus::Cancelled;
    assert_eq!(
        rig.statuses().await,
        [("r".to_owned(), cancelled), ("r.a#1".to_owned(), cancelled)]
    );
    assert_eq!(rig.open_blocks().await, []);
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_run_cancels_what_it_started_and_withdraws_its_questions() {
    let rig = asking_child().await;
    assert!(rig.engine.cancel(&id("r"), "ada").await.unwrap());
    rig.work().await.unwrap();
    assert_both_are_cancelled(&rig).await;
    assert!(!rig.engine.cancel(&id("r"), "ada").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_that_only_waits_ends_without_a_worker_or_its_graph() {
    let rig = asking_child().await;
    let me = WorkerId::new("me").unwrap();
    let clock = rig.engine.clock().clone();
    let entropy = Arc::new(SeededEntropy::new(2));
    let library = Arc::new(Library::new(Registry::new()));
    let bare = Engine::new(rig.store.clone(), clock, entropy, library);
    assert!(!bare.end_cancelled(&id("r"), &me).await.unwrap(), "nobody wants that yet");
    assert_eq!(rig.open_blocks().await.len(), 1);
    bare.cancel(&id("r"), "ada").await.unwrap();
    assert!(bare.end_cancelled(&id("r"), &me).await.unwrap());
    assert_both_are_cancelled(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_stops_a_node_at_work() {
    let (rig, world) = rig(
        "entry: a\nnodes:\n  a: { uses: test/work, with: { name: a, ms: 3600000 }, next: $end }\n",
    )
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    let (engine, run) = (rig.engine.clone(), id("r"));
    let canceller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        engine.cancel(&run, "ada").await.unwrap();
    });
    assert_eq!(rig.work().await.unwrap(), Some(Driven::Ended(RunStatus::Cancelled)));
    canceller.await.unwrap();
    assert_eq!(world.count("worked a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_halted_worker_hands_its_run_back_and_keeps_what_has_ended() {
    let (rig, world) = rig(r#"
entry: start
nodes:
  start: { uses: test/put, next: [quick, long] }
  quick: { uses: test/work, with: { name: quick, ms: 10 }, next: $end }
  long: { uses: test/work, with: { name: long, ms: 60000 }, next: $end }
"#)
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    let claim = rig
        .engine
        .claim_next(&WorkerId::new("one").unwrap(), &[QueueName::new("default").unwrap()])
        .await
        .unwrap()
        .unwrap();
    let control = Control::default();
    let halt = control.halt.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        halt.cancel();
    });
    assert_eq!(rig.engine.drive(claim, control).await.unwrap(), Driven::Released);
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["quick", "long"]));
    assert_eq!((world.count("worked quick"), world.count("calls long#1")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_lease_was_taken_stops_and_writes_nothing() {
    let (rig, world) = rig(
        "entry: a\nnodes:\n  a: { uses: test/work, with: { name: a, ms: 60000 }, next: $end }\n",
    )
    .await;
    rig.start("r", "main", json!({})).await.unwrap();
    let queues = [QueueName::new("default").unwrap()];
    let zombie =
        rig.engine.claim_next(&WorkerId::new("zombie").unwrap(), &queues).await.unwrap().unwrap();
    // It sleeps past its lease before it begins.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let heir =
        rig.engine.claim_next(&WorkerId::new("heir").unwrap(), &queues).await.unwrap().unwrap();
    let (first, second) = tokio::join!(
        rig.engine.drive(zombie, Control::default()),
        rig.engine.drive(heir, Control::default())
    );
    assert_eq!(first.unwrap(), Driven::Lost);
    assert_eq!(second.unwrap(), Driven::Ended(RunStatus::Succeeded));
    assert_eq!(world.count("worked a"), 1);
}

#[tokio::test(start_paused = true)]
async fn working_on_one_run_waits_out_the_lease_of_a_dead_worker() {
    let (rig, world) =
        rig("entry: a\nnodes:\n  a: { uses: test/work, with: { name: a, ms: 1 }, next: $end }\n")
            .await;
    let (dead, heir) = (WorkerId::new("dead").unwrap(), WorkerId::new("heir").unwrap());
    let work_on = async |control| rig.engine.work_on(&id("r"), &heir, &control).await;
    let unknown = work_on(Control::default()).await.unwrap_err();
    assert!(matches!(unknown, Error::Store(store::Error::NotFound { .. })), "{unknown}");

    rig.start("r", "main", json!({})).await.unwrap();
    rig.engine.claim(&id("r"), &dead).await.unwrap().unwrap();
    let drained = Control::default();
    drained.drain.cancel();
    assert_eq!(work_on(drained).await.unwrap(), Driven::Released);
    assert_eq!(world.count("worked a"), 0, "the run is the other's as long as its lease holds");

    let ended = Driven::Ended(RunStatus::Succeeded);
    assert_eq!(work_on(Control::default()).await.unwrap(), ended);
    assert_eq!(work_on(Control::default()).await.unwrap(), ended, "there is nothing left to do");
    assert_eq!(world.count("worked a"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_over_its_budget_asks_and_goes_on_when_the_limit_is_raised() {
    let (rig, world) = rig(r#"
entry: a
nodes:
  a: { uses: test/deed, with: { name: one }, next: b }
  b: { uses: test/deed, with: { name: two }, next: $end }
"#)
    .await;
    let limit = Limit { usd: Some(UsdMicros(120)), tokens: None };
    let options = StartOptions { limit: Some(limit), ..StartOptions::default() };
    rig.engine.start(id("r"), "main", json!({}), options).await.unwrap();
    rig.work().await.unwrap();
    let block = rig.open_blocks().await.remove(0);
    assert_eq!(block.step.as_str(), "b#1");
    assert!(block.ask.question.contains("$0.0001"), "{}", block.ask.question);
    rig.answer(&block.id, json!({ "choice": "raise", "usd": 1 })).await;
    rig.work().await.unwrap();
    let run = rig.run("r").await;
    assert_eq!(output(&run)["log"], json!(["one 42 true", "two 42 true"]));
    assert_eq!(
        (run.spent.usd, run.spent.tokens, run.reserved.usd),
        (UsdMicros(120), 12, UsdMicros(0))
    );
    assert_eq!(world.count("memo r two"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_used_up_its_wall_time_asks_for_more() {
    let (rig, _) = rig(r#"
policies: { budget: { short: { wall: 1h } } }
defaults: { budget: short }
entry: a
nodes:
  a: { wait: { timeout: 2h }, next: b }
  b: { uses: test/put, with: { log: ["late"] }, next: $end }
"#)
    .await;
    rig.finish(json!({})).await;
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    rig.work().await.unwrap();
    let block = rig.open_blocks().await.remove(0);
    assert!(block.ask.question.contains("wall-time budget of 1h"), "{}", block.ask.question);
    rig.answer(&block.id, json!({ "choice": "grant" })).await;
    rig.work().await.unwrap();
    // Two hours have passed, of which two are granted now.
    assert_eq!(output(&rig.run("r").await)["log"], json!(["late"]));
}

#[tokio::test(start_paused = true)]
async fn a_run_stays_on_the_version_it_started_on() {
    let world = World::default();
    let registry = registry(&world);
    let version = |word: &str| {
        graph(
            &format!(
                "entry: ask\nnodes:\n  ask: {{ gate: {{ ask: \"Well?\", answer: Choice }}, next: say }}\n  say: {{ uses: test/put, with: {{ log: [\"{word}\"] }}, next: $end }}\n"
            ),
            &registry,
        )
    };
    let store = Arc::new(MemoryStore::new());
    let old = Rig::new(store.clone(), vec![version("old")], registry.clone());
    old.finish(json!({})).await;
    // A new process knows only the new text.
    let new = Rig::new(store, vec![version("new")], registry.clone());
    new.answer(&new.open_blocks().await[0].id.clone(), json!({ "choice": "on" })).await;
    new.work().await.unwrap();
    assert_eq!(output(&new.run("r").await)["log"], json!(["old"]));
    new.start("s", "main", json!({})).await.unwrap();
    new.work().await.unwrap();
    new.answer(&new.open_blocks().await[0].id.clone(), json!({ "choice": "on" })).await;
    new.work().await.unwrap();
    assert_eq!(output(&new.run("s").await)["log"], json!(["new"]));
}

#[tokio::test(start_paused = true)]
async fn a_run_beyond_its_limits_fails_with_the_limit_named() {
    let (rig, _) = rig(r#"
limits: { supersteps: 5 }
entry: a
nodes:
  a: { uses: test/put, routes: [ { when: "${{ true }}", to: a, max: 50 }, { to: $end } ] }
"#)
    .await;
    let failure = rig.finish(json!({})).await.failure.unwrap();
    assert_eq!(failure.to_string(), "limit: the run took more than `limits.supersteps` = 5");
}

#[tokio::test(start_paused = true)]
async fn starting_the_same_run_twice_starts_it_once_and_bad_input_starts_nothing() {
    let (rig, _) = rig(r#"
input: { schema: { type: object, properties: { n: { type: integer } }, required: [n] } }
entry: a
nodes:
  a: { uses: test/put, with: { n: "${{ input.n }}" }, next: $end }
"#)
    .await;
    let error = rig.start("r", "main", json!({ "n": "x" })).await.unwrap_err();
    assert!(error.to_string().starts_with("the input of graph `main`: /n: "), "{error}");
    assert!(rig.start("r", "main", json!({ "n": 1 })).await.unwrap());
    assert!(!rig.start("r", "main", json!({ "n": 2 })).await.unwrap());
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["n"], 1);
    let error = rig.start("q", "mein", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "no graph named `mein`; known: main");
}

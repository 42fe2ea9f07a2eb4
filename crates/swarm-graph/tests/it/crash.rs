//! A process that dies anywhere loses nothing and repeats no effect.
//!
//! One graph uses all that is durable: memo, spend, effect, retry, questions of a node, parallel
//! siblings, a loop of children, a gate, a signal. It goes through the public
//! [`crash_everywhere`], as a user's graph does: every crash point is hit, each write is died at,
//! in memory, on SQLite and on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::escalation::Block;
use swarm_core::port::store::Store;
use swarm_graph::library::Library;
use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
use swarm_graph::store::postgres::PostgresStore;
use swarm_graph::store::sqlite::{Options, SqliteStore, Synchronous};
use swarm_graph::testkit::{CRASH_POINTS, CrashTest, Disk, Report, crash_everywhere};

use crate::rig::{World, graph, graph_named, registry};

const MAIN: &str = r#"
policies:
  retry: { twice: { max_attempts: 3, backoff: { initial: 1s, jitter: false } } }
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [left, right, flaky, twice] }
  left: { uses: test/deed, with: { name: left }, next: join }
  right: { uses: test/work, with: { name: right, ms: 5 }, next: join }
  flaky: { uses: test/fail, config: { times: 1 }, retry: twice, next: join }
  twice: { uses: test/ask_twice, with: {}, next: join }
  join: { uses: test/put, when_all: [left, right, flaky, twice], with: { log: ["joined"] }, next: each }
  each:
    foreach: { in: "${{ ['x', 'y', 'z'] }}", as: item, max_parallel: 2 }
    run: { graph: child, input: { name: "${{ item }}" } }
    next: ask
  ask:
    gate: { ask: "Go on?", answer: Choice }
    set: { log: "${{ [answer.choice] }}" }
    next: wait
  wait: { wait: { signal: go }, set: { log: "${{ [signal.payload] }}" }, next: last }
  last: { uses: test/deed, with: { name: last }, next: $end }
"#;

const CHILD: &str = r#"
entry: deed
output: { schema: { type: object }, value: { log: "${{ state.log }}" } }
nodes:
  deed: { uses: test/deed, with: { name: "${{ input.name }}" }, next: $end }
"#;

/// A SQLite file that outlives processes.
struct File(tempfile::TempDir);

#[async_trait]
impl Disk for File {
    async fn open(&self) -> Arc<dyn Store> {
        let options = Options { synchronous: Synchronous::Normal, ..Options::default() };
        Arc::new(SqliteStore::open(self.0.path().join("runs.db"), options).await.unwrap())
    }
}

/// A PostgreSQL schema that outlives processes.
struct Schema {
    url: String,
    name: String,
}

#[async_trait]
impl Disk for Schema {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(&self.url, crate::pg::options(&self.name)).await.unwrap())
    }
}

fn library(world: &World) -> Library {
    loaded(world, "")
}

/// With what each graph opens with.
fn loaded(world: &World, head: &str) -> Library {
    let registry = registry(world);
    let [main, child] = [MAIN, CHILD].map(|text| format!("{head}{text}"));
    let graphs = [graph(&main, &registry), graph_named("child", &child, &registry)];
    graphs.into_iter().fold(Library::new(registry), Library::with)
}

fn all_that_is_durable() -> CrashTest<'static> {
    of_main(library)
}

/// The same, stored only when it must be.
fn held_back() -> CrashTest<'static> {
    of_main(|world| loaded(world, "durability: exit\n"))
}

fn of_main(library: fn(&World) -> Library) -> CrashTest<'static> {
    let is_of_node = |block: &Block| block.id.as_str().contains(':');
    crash_everywhere("main", json!({}), library)
        .answering(move |block| json!({ "choice": if is_of_node(block) { "a" } else { "on" } }))
        .signalling("go", json!("went"))
}

/// The other way to start a run.
fn created_claimed() -> CrashTest<'static> {
    crash_everywhere("child", json!({ "name": "alone" }), library).created_claimed()
}

#[expect(clippy::print_stdout, reason = "the figures are what the run is for")]
fn check(reports: &[Report; 3], is_of_store: impl Fn(&str) -> bool) {
    reports.iter().for_each(|report| println!("{report}"));
    let is_reached = |point: &str| reports.iter().any(|report| report.points.contains_key(point));
    let never: Vec<_> =
        CRASH_POINTS.iter().filter(|point| is_of_store(point) && !is_reached(point)).collect();
    assert!(never.is_empty(), "registered, but never reached: {never:?}");
    assert!(reports[0].crashes as usize > CRASH_POINTS.len(), "{}", reports[0]);
    let facts = reports.each_ref().map(|report| (report.effects, report.questions));
    assert_eq!(facts, [(6, 3), (1, 0), (6, 3)]);
}

#[test]
fn a_crash_anywhere_changes_nothing_in_memory() {
    let reports = [all_that_is_durable().run(), created_claimed().run(), held_back().run()];
    check(&reports, |point| !point.starts_with("sqlite:"));
    assert!(reports[0].writes > 40, "{}", reports[0]);
}

#[test]
fn a_crash_at_any_point_changes_nothing_on_sqlite() {
    let on_file = |test: CrashTest<'static>| {
        test.on(|| File(tempfile::tempdir().unwrap())).only_points().run()
    };
    check(&[all_that_is_durable(), created_claimed(), held_back()].map(on_file), |_| true);
}

#[test]
fn a_crash_at_any_point_changes_nothing_on_postgres() {
    let server = crate::pg::shared();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = runtime.block_on(server.database()).unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    let on_schema = |test: CrashTest<'static>| {
        let new_disk = {
            let url = url.clone();
            let first = number.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
            let number = std::sync::atomic::AtomicU32::new(first);
            move || {
                let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Schema { url: url.clone(), name: format!("crash_{number}") }
            }
        };
        test.on(new_disk).only_points().run()
    };
    check(&[all_that_is_durable(), created_claimed(), held_back()].map(on_schema), |point| {
        !point.starts_with("sqlite:")
    });
}

/// Sends a letter, in one of three ways.
struct Letter {
    world: World,
    how: String,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(JsonSchema, Serialize)]
struct Sent {
    log: Vec<String>,
}

#[async_trait]
impl Node for Letter {
    const KIND: &'static str = "test/letter";
    type Config = String;
    type Input = Nothing;
    type Output = Sent;

    async fn run(&self, ctx: &NodeContext, _input: Nothing) -> Result<Sent, NodeError> {
        let act = || async { Ok(self.world.effect("letter")) };
        match self.how.as_str() {
            "bare" => drop(act().await),
            "memo" => drop(ctx.memo("letter", act).await?),
            "blind" => {
                let probe = || async { Ok(Probe::DidNotHappen) };
                ctx.effect("letter", json!({}), probe, act).await?;
            }
            "hasty" => {
                let probe = || async { Ok(Probe::Landed(1)) };
                ctx.effect("letter", json!({}), probe, act).await?;
            }
            other => panic!("no way `{other}`"),
        }
        Ok(Sent { log: vec![ctx.now().to_string()] })
    }
}

/// What a test says about a node that does it this way.
fn verdict(how: &str) -> String {
    let broken = crash_everywhere("main", json!({}), |world| {
        let (letters, sent) = (world.clone(), how.to_owned());
        let registry =
            registry(world).node::<Letter>(move |how| Ok(Letter { world: letters.clone(), how }));
        let nodes = format!(
            "entry: send\nnodes: {{ send: {{ uses: test/letter, config: {sent}, next: $end }} }}\n"
        );
        let graph = graph(&nodes, &registry);
        Library::new(registry).with(graph)
    })
    .ignoring("log")
    .check();
    broken.map_or_else(|broken| broken.to_string(), |report| report.to_string())
}

#[test]
fn a_node_that_keeps_its_effect_out_of_the_journal_is_found_out() {
    insta::assert_snapshot!(verdict("bare"), @r"
    after a crash at `step:ended`:
      effects › letter: 2, undisturbed 1
    ");
    insta::assert_snapshot!(verdict("memo"), @r"
    after a crash at `drive:first-stored`:
      effects › letter: 2, undisturbed 1
    ");
}

#[test]
fn a_probe_that_does_not_look_is_found_out() {
    insta::assert_snapshot!(verdict("blind"), @r"
    after a crash at `effect:acted`:
      effects › letter: 2, undisturbed 1
    ");
    insta::assert_snapshot!(verdict("hasty"), @r"
    after a crash at `effect:intended`:
      effects › letter: null, undisturbed 1
    ");
}

#[test]
fn what_nobody_answers_is_said() {
    let silent = crash_everywhere("main", json!({}), library).check().unwrap_err();
    insta::assert_snapshot!(silent.to_string(), @r"
    without a crash:
      run `run` waits for an answer or a signal that nobody gives: see `answering` and `signalling`
    ");
}

#[test]
fn a_run_that_waits_for_days_is_tested_in_no_time() {
    let report = crash_everywhere("main", json!({}), |world| {
        let registry = registry(world);
        let graph = graph(
            "entry: wait\nnodes:\n  wait: { wait: { timeout: 90d }, next: deed }\n  deed: { uses: test/deed, with: { name: late }, next: $end }\n",
            &registry,
        );
        Library::new(registry).with(graph)
    })
    .run();
    assert_eq!(report.effects, 1);
}

//! Every registered crash point, first and second hit, on memory and SQLite: what a process does
//! that stops there, and its heir, is what an undisturbed one does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::escalation::BlockStatus;
use swarm_core::id::{QueueName, WorkerId};
use swarm_core::port::store::Store;
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;
use swarm_graph::engine::{Control, Engine, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::store::sqlite::{Options, SqliteStore, Synchronous};
use swarm_graph::testkit::{CRASH_POINTS, ManualClock, SeededEntropy, live};

use crate::rig::{World, graph, graph_named, id, output, person, registry};

const MAIN: &str = r#"
policies:
  retry: { twice: { max_attempts: 3, backoff: { initial: 5s, jitter: false } } }
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [left, flaky, twice] }
  left: { uses: test/deed, with: { name: left }, next: join }
  flaky: { uses: test/fail, config: { times: 1 }, retry: twice, next: join }
  twice: { uses: test/ask_twice, with: {}, next: join }
  join: { uses: test/put, when_all: [left, flaky, twice], with: { log: ["joined"] }, next: each }
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

/// A store that outlives processes.
enum Disk {
    Memory(Arc<MemoryStore>),
    Sqlite(tempfile::TempDir),
}

impl Disk {
    async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => store.clone(),
            Self::Sqlite(dir) => {
                let file = dir.path().join("runs.db");
                let options = Options { synchronous: Synchronous::Normal, ..Options::default() };
                Arc::new(SqliteStore::open(file, options).await.unwrap())
            }
        }
    }
}

/// What must be the same however a process dies: output, effects, money, questions.
#[derive(Debug, PartialEq)]
struct Facts {
    output: Value,
    effects: BTreeMap<String, u32>,
    spent: Spend,
    reserved: Spend,
    questions: Vec<(String, BlockStatus)>,
}

/// A process, and whoever answers and signals from outside, until the run has ended.
async fn process(disk: &Disk, world: &World, clock: &ManualClock) -> Facts {
    let store = disk.open().await;
    let registry = registry(world);
    let graphs = [graph(MAIN, &registry), graph_named("child", CHILD, &registry)];
    let library = graphs.into_iter().fold(Library::new(registry), Library::with);
    let entropy = Arc::new(SeededEntropy::new(1));
    let engine = Engine::new(store.clone(), Arc::new(clock.clone()), entropy, Arc::new(library));
    let (worker, queue) = (WorkerId::new("w").unwrap(), QueueName::new("default").unwrap());
    engine.start(id("r"), "main", json!({}), StartOptions::default()).await.unwrap();
    for _ in 0..100 {
        while let Some(claim) =
            engine.claim_next(&worker, std::slice::from_ref(&queue)).await.unwrap()
        {
            engine.drive(claim, Control::default()).await.unwrap();
        }
        let run = store.run(&id("r")).await.unwrap().unwrap();
        if run.status.is_final() {
            let (id, input) = (id("s"), json!({ "name": "alone" }));
            let options = StartOptions::default();
            engine.run(id, "child", input, options, &worker, &Control::default()).await.unwrap();
            let mut questions: Vec<_> = store.blocks(None, None).await.unwrap();
            questions.sort_by_key(|block| block.id.clone());
            return Facts {
                output: output(&run),
                effects: world.all("effect "),
                spent: run.spent,
                reserved: run.reserved,
                questions: questions
                    .into_iter()
                    .map(|block| (block.id.to_string(), block.status))
                    .collect(),
            };
        }
        for block in store.blocks(None, Some(BlockStatus::Open)).await.unwrap() {
            let choice = if block.id.as_str().contains(':') { "a" } else { "on" };
            engine.answer(&block.id, json!({ "choice": choice }), person("ada")).await.unwrap();
        }
        engine.signal(&id("r"), Some("go"), "go", json!("went")).await.unwrap();
        // Backoffs pass, and the leases of the dead end.
        clock.advance(Duration::from_secs(11));
    }
    panic!("the run does not end");
}

/// A life on a runtime of its own, which takes all its tasks with it.
fn lives(
    disk: &Disk,
    world: &World,
    clock: &ManualClock,
    crash: Option<(&str, u32)>,
) -> (Option<Facts>, BTreeMap<&'static str, u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let life = runtime.block_on(live(process(disk, world, clock), crash));
    (life.ended, life.hits)
}

/// Walks all points of a store; returns how many places were walked.
fn walk(new_disk: impl Fn() -> Disk) -> usize {
    let clock = ManualClock::at(Timestamp(1_800_000_000_000));
    let (expected, hits) = lives(&new_disk(), &World::default(), &clock, None);
    let expected = expected.expect("nothing crashed");
    assert!(expected.effects.values().all(|count| *count == 1), "{:?}", expected.effects);
    assert_eq!((expected.effects.len(), expected.questions.len()), (7, 3));
    let never: Vec<_> = CRASH_POINTS.iter().filter(|point| !hits.contains_key(*point)).collect();
    assert!(never.is_empty(), "registered, but never reached: {never:?}");
    let mut walked = 0;
    for (point, count) in hits {
        for hit in 1..=count.min(2) {
            let (disk, world) = (new_disk(), World::default());
            let (ended, _) = lives(&disk, &world, &clock, Some((point, hit)));
            assert!(ended.is_none(), "`{point}` was not hit for the {hit}. time");
            clock.advance(Duration::from_secs(11));
            let (ended, _) = lives(&disk, &world, &clock, None);
            assert_eq!(ended.as_ref(), Some(&expected), "a crash at `{point}`, hit {hit}");
            walked += 1;
        }
    }
    walked
}

#[test]
fn a_crash_at_any_point_changes_nothing_in_memory() {
    let walked = walk(|| Disk::Memory(Arc::new(MemoryStore::new())));
    assert!(walked > CRASH_POINTS.len(), "{walked} places of {} points", CRASH_POINTS.len());
}

#[test]
fn a_crash_at_any_point_changes_nothing_on_sqlite() {
    let walked = walk(|| Disk::Sqlite(tempfile::tempdir().unwrap()));
    assert!(walked > CRASH_POINTS.len(), "{walked} places of {} points", CRASH_POINTS.len());
}

//! A crash everywhere: a graph is run undisturbed once, and then again and again, each time by a
//! process that dies somewhere else and an heir that goes on; what it came to must be the same.
//!
//! What a newcomer gets wrong: the closure builds the nodes of one process. What outlives a
//! process (your database, the other side of an API) is the [`World`] that it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::id::{QueueName, RunId, WorkerId};
use swarm_core::port::clock::Clock;
use swarm_core::port::store::{RunFilter, Store};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::time::Timestamp;

use super::{
    CRASH_POINTS, Death, Life, ManualClock, MortalStore, SeededEntropy, VirtualClock, World, live,
};
use crate::engine::{Control, Driven, Engine, Error, StartOptions};
use crate::library::Library;
use crate::store::memory::MemoryStore;

/// When a test begins, on its own clock.
const BEGINNING: Timestamp = Timestamp(1_800_000_000_000);

/// Longer than a lease: afterwards an heir may have what the dead had.
const AFTER_THE_LEASE: Duration = Duration::from_secs(11);

/// A process that has worked, answered and waited so often will never end.
const ROUNDS_MAX: u32 = 1000;

/// A store that outlives processes: what a process opens when it starts.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Opens the store, as a new process does.
    async fn open(&self) -> Arc<dyn Store>;
}

#[async_trait]
impl Disk for Arc<MemoryStore> {
    async fn open(&self) -> Arc<dyn Store> {
        self.clone()
    }
}

/// Prepares a test of a graph with a crash at every crash point that it passes (first and second
/// time) and before and after every write.
///
/// `library` makes what a process is built of: the graphs and their node kinds, whose outside is
/// the [`World`]. The run of `graph` with `input` and all its children are worked on by one
/// process after the other; [`run`](CrashTest::run) compares effects, outputs, states, spending and
/// questions with an undisturbed run. Time is virtual: a run may wait for days.
///
/// ```
/// use swarm_graph::testkit;
/// # use std::sync::Arc;
/// # use serde_json::json;
/// # use swarm_graph::library::Library;
/// # use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
/// # use swarm_graph::registry::Registry;
/// # use swarm_graph::testkit::World;
/// # #[derive(serde::Deserialize, schemars::JsonSchema)]
/// # struct Nothing {}
/// # #[derive(serde::Serialize, schemars::JsonSchema)]
/// # struct Sent {}
/// # struct Send(World);
/// # #[async_trait::async_trait]
/// # impl Node for Send {
/// #     const KIND: &'static str = "post/send";
/// #     type Config = ();
/// #     type Input = Nothing;
/// #     type Output = Sent;
/// #     async fn run(&self, ctx: &NodeContext, _: Nothing) -> Result<Sent, NodeError> {
/// #         let name = format!("letter {}", ctx.run_id());
/// #         let probe = || async { Ok(if self.0.has(&name) { Probe::Landed(()) } else { Probe::DidNotHappen }) };
/// #         let act = || async { self.0.effect(&name); Ok(()) };
/// #         ctx.effect("letter", json!({}), probe, act).await?;
/// #         Ok(Sent {})
/// #     }
/// # }
/// # const TEXT: &str = r#"
/// # dsl: 1
/// # graph: { name: letter, version: 1.0.0 }
/// # entry: ask
/// # nodes:
/// #   ask: { gate: { ask: "Send it?", choices: [ yes, no ] }, next: send }
/// #   send: { uses: post/send, next: $end }
/// # "#;
/// # fn library(world: &World) -> Library {
/// #     let world = world.clone();
/// #     let registry = Registry::new().node::<Send>(move |()| Ok(Send(world.clone())));
/// #     let graph = swarm_graph::check::load_text(TEXT, &registry).unwrap();
/// #     Library::new(registry).with(graph)
/// # }
///
/// let report = testkit::crash_everywhere("letter", json!({}), |world| library(world))
///     .answering(|_question| json!({ "choice": "yes" }))
///     .run();
/// assert_eq!(report.effects, 1);
/// println!("{report}");
/// ```
pub fn crash_everywhere<'t>(
    graph: &str,
    input: Value,
    library: impl Fn(&World) -> Library + 't,
) -> CrashTest<'t> {
    CrashTest {
        graph: graph.to_owned(),
        input,
        library: Box::new(library),
        answers: None,
        signals: Vec::new(),
        disk: None,
        has_writes: true,
        is_created_claimed: false,
        ignored: BTreeSet::new(),
    }
}

type Answers<'t> = Box<dyn Fn(&Block) -> Value + 't>;
type NewDisk<'t> = Box<dyn Fn() -> Box<dyn Disk> + 't>;

/// A test of a graph with a crash everywhere; see [`crash_everywhere`].
#[must_use = "nothing is tested before `run` or `check`"]
pub struct CrashTest<'t> {
    graph: String,
    input: Value,
    library: Box<dyn Fn(&World) -> Library + 't>,
    answers: Option<Answers<'t>>,
    signals: Vec<(String, Value)>,
    /// `None`: memory, with paused time.
    disk: Option<NewDisk<'t>>,
    has_writes: bool,
    is_created_claimed: bool,
    ignored: BTreeSet<String>,
}

impl fmt::Debug for CrashTest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashTest").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// What was tested.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Processes that crashed, each followed by an heir.
    pub crashes: u32,
    /// The crash points that the graph passes, and how often each in an undisturbed run.
    pub points: BTreeMap<&'static str, u32>,
    /// Writes of an undisturbed run, each of which was died before and after; 0 if not asked for.
    pub writes: u64,
    /// Different effects that happened.
    pub effects: usize,
    /// Questions that were asked.
    pub questions: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crashes at {} of {} crash points and around {} writes changed nothing: {} effects, {} questions",
            self.crashes,
            self.points.len(),
            CRASH_POINTS.len(),
            self.writes,
            self.effects,
            self.questions
        )
    }
}

/// A crash that made a difference.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{place}:\n  {}", .differences.join("\n  "))]
pub struct Broken {
    /// Where the process crashed.
    pub place: String,
    /// What is not as in an undisturbed run.
    pub differences: Vec<String>,
}

/// Where a process dies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Nowhere,
    Point(&'static str, u32),
    Write(Death),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("without a crash"),
            Self::Point(point, 1) => write!(f, "after a crash at `{point}`"),
            Self::Point(point, hit) => write!(f, "after a crash at `{point}`, hit {hit}"),
            Self::Write(Death::Before(number)) => write!(f, "after a crash before write {number}"),
            Self::Write(Death::After(number)) => write!(f, "after a crash behind write {number}"),
            Self::Write(Death::Never) => f.write_str("without a death"),
        }
    }
}

/// What must be the same, as one value; calls, which may be one more, beside it.
struct Facts {
    value: Value,
    calls: BTreeMap<String, u32>,
}

/// How one process lived.
struct Lived {
    /// `None` when it crashed at a point; `Err` when it failed or its store died.
    ended: Option<Result<Facts, String>>,
    hits: BTreeMap<&'static str, u32>,
    writes: u64,
    is_dead: bool,
    /// What its clock showed in the end.
    now: Timestamp,
}

impl<'t> CrashTest<'t> {
    /// Answers the questions of the runs: called with each open question, more than once.
    pub fn answering(mut self, answers: impl Fn(&Block) -> Value + 't) -> Self {
        self.answers = Some(Box::new(answers));
        self
    }

    /// Sends the run a signal, once, when nothing is left to work on.
    pub fn signalling(mut self, name: &str, payload: Value) -> Self {
        self.signals.push((name.to_owned(), payload));
        self
    }

    /// Compares outputs and states without the values of this key, at any depth: for what a
    /// crash may change, such as the moment at which something was done.
    pub fn ignoring(mut self, key: &str) -> Self {
        self.ignored.insert(key.to_owned());
        self
    }

    /// Uses such a disk for each history instead of memory. Time is then moved on by hand while a
    /// process works, for stores need real time themselves.
    pub fn on<D: Disk + 'static>(mut self, disk: impl Fn() -> D + 't) -> Self {
        self.disk = Some(Box::new(move || Box::new(disk())));
        self
    }

    /// Creates the run in the hands of its first process, as [`Engine::run`] does.
    pub fn created_claimed(mut self) -> Self {
        self.is_created_claimed = true;
        self
    }

    /// Leaves out the crashes around writes.
    pub fn only_points(mut self) -> Self {
        self.has_writes = false;
        self
    }

    /// Crashes everywhere. Builds runtimes of its own: call it from a plain `#[test]`.
    ///
    /// # Panics
    /// With what is different, after the first crash that makes a difference.
    #[track_caller]
    pub fn run(self) -> Report {
        match self.check() {
            Ok(report) => report,
            Err(broken) => panic!("graph `{}` {broken}", self.graph),
        }
    }

    /// As [`run`](Self::run), without the panic.
    ///
    /// # Errors
    /// The first crash that makes a difference.
    pub fn check(&self) -> Result<Report, Broken> {
        let world = World::new();
        let disk = self.new_disk();
        let calm = self.live(&*disk, &world, BEGINNING, Place::Nowhere);
        let expected = calm.ended.unwrap_or_else(|| Err("it did not end".to_owned()));
        let expected = expected
            .map_err(|why| Broken { place: Place::Nowhere.to_string(), differences: vec![why] })?;
        let mut report = Report {
            crashes: 0,
            points: calm.hits,
            writes: if self.has_writes { calm.writes } else { 0 },
            effects: world.effects().len(),
            questions: expected.value["questions"].as_object().map_or(0, serde_json::Map::len),
        };
        let points = report.points.iter();
        let points = points
            .flat_map(|(point, hits)| (1..=*hits.min(&2)).map(|hit| Place::Point(point, hit)));
        let writes = (1..=report.writes)
            .flat_map(|number| [Death::Before(number), Death::After(number)].map(Place::Write));
        for place in points.chain(writes).collect::<Vec<_>>() {
            report.crashes += u32::from(self.check_place(place, &expected)?);
        }
        Ok(report)
    }

    fn new_disk(&self) -> Box<dyn Disk> {
        self.disk.as_ref().map_or_else(
            || Box::new(Arc::new(MemoryStore::new())) as Box<dyn Disk>,
            |new_disk| new_disk(),
        )
    }

    /// One process that dies there, and its heir; whether it died.
    fn check_place(&self, place: Place, expected: &Facts) -> Result<bool, Broken> {
        let broken = |differences| Broken { place: place.to_string(), differences };
        let (world, disk) = (World::new(), self.new_disk());
        let doomed = self.live(&*disk, &world, BEGINNING, place);
        let has_crashed = doomed.is_dead || doomed.ended.is_none();
        if let (false, Some(Err(why))) = (has_crashed, doomed.ended) {
            return Err(broken(vec![why]));
        }
        let heir = self.live(&*disk, &world, doomed.now + AFTER_THE_LEASE, Place::Nowhere);
        let facts = heir.ended.unwrap_or_else(|| Err("the heir did not end".to_owned()));
        let facts = facts.map_err(|why| broken(vec![why]))?;
        let mut differences = Vec::new();
        compare("", &expected.value, &facts.value, &mut differences);
        for (call, count) in &facts.calls {
            let calm = expected.calls.get(call).copied().unwrap_or(0);
            if *count > calm + 1 {
                differences.push(format!("call `{call}`: {count} times, undisturbed {calm}"));
            }
        }
        if differences.is_empty() { Ok(has_crashed) } else { Err(broken(differences)) }
    }

    /// A process on a runtime of its own, which takes all its tasks with it.
    fn live(&self, disk: &dyn Disk, world: &World, begins_at: Timestamp, place: Place) -> Lived {
        let is_paused = self.disk.is_none();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime of one thread");
        runtime.block_on(async {
            let time = if is_paused {
                tokio::time::pause();
                Time::Paused(VirtualClock::at(begins_at))
            } else {
                Time::ByHand(ManualClock::at(begins_at))
            };
            let (crash, death) = match place {
                Place::Nowhere => (None, Death::Never),
                Place::Point(point, hit) => (Some((point, hit)), Death::Never),
                Place::Write(death) => (None, death),
            };
            let front = Arc::new(MortalStore::new(disk.open().await, death));
            let process = self.process(front.clone(), &time, world);
            let Life { ended, hits } = live(process, crash).await;
            let (writes, is_dead) = (front.writes(), front.is_dead());
            Lived { ended, hits, writes, is_dead, now: time.clock().now() }
        })
    }

    /// Starts the run unless it is started, works, and plays the outside until all has ended.
    async fn process(
        &self,
        store: Arc<dyn Store>,
        time: &Time,
        world: &World,
    ) -> Result<Facts, String> {
        let entropy = Arc::new(SeededEntropy::new(1));
        let library = Arc::new((self.library)(world));
        let engine = Engine::new(store.clone(), time.clock(), entropy, library);
        let worker = WorkerId::new("crash-test").expect("it is a worker's id");
        let run = RunId::new("run").expect("it is a run's id");
        let input = self.input.clone();
        let options = StartOptions::default();
        if self.is_created_claimed && store.run(&run).await.map_err(text)?.is_none() {
            let control = Control::default();
            let running = engine.run(run.clone(), &self.graph, input, options, &worker, &control);
            time.passes_while(running).await?;
        } else {
            engine.start(run.clone(), &self.graph, input, options).await.map_err(text)?;
        }
        for _ in 0..ROUNDS_MAX {
            let queues = queues(&*store).await?;
            while let Some(claim) = engine.claim_next(&worker, &queues).await.map_err(text)? {
                time.passes_while(engine.drive(claim, Control::default())).await?;
            }
            let runs = store.runs(&RunFilter::default()).await.map_err(text)?;
            if runs.iter().all(|run| run.status.is_final()) {
                return self.facts(&*store, world).await;
            }
            if !self.play_outside(&engine, &run).await? && !has_ready(&*store).await? {
                time.wait(&runs).await?;
            }
        }
        Err(format!("it does not end: {}", standing(&*store).await?))
    }

    /// Answers and signals; whether there was anything to do.
    async fn play_outside(&self, engine: &Engine, run: &RunId) -> Result<bool, String> {
        let mut has_done = false;
        let open = engine.store().blocks(None, Some(BlockStatus::Open)).await.map_err(text)?;
        for block in open {
            let Some(answers) = &self.answers else { continue };
            let by = Answerer {
                login: "tester".to_owned(),
                via: "testkit".to_owned(),
                permission: "admin".to_owned(),
            };
            engine.answer(&block.id, answers(&block), by).await.map_err(text)?;
            has_done = true;
        }
        for (name, payload) in &self.signals {
            has_done |=
                engine.signal(run, Some(name), name, payload.clone()).await.map_err(text)?;
        }
        Ok(has_done)
    }

    async fn facts(&self, store: &dyn Store, world: &World) -> Result<Facts, String> {
        let mut runs = serde_json::Map::new();
        for run in store.runs(&RunFilter::default()).await.map_err(text)? {
            let last = store.checkpoint(&run.start.id, None).await.map_err(text)?;
            let state = last.map_or(Value::Null, |checkpoint| checkpoint.state.to_value());
            let told = json!({
                "status": run.status,
                "failure": run.failure,
                "output": run.output,
                "state": state,
                "spent": run.spent,
                "reserved": run.reserved,
            });
            runs.insert(run.start.id.to_string(), self.without_ignored(told));
        }
        let mut questions = serde_json::Map::new();
        for block in store.blocks(None, None).await.map_err(text)? {
            let told = json!({ "status": block.status, "answer": block.answer });
            questions.insert(block.id.to_string(), told);
        }
        let value = json!({ "effects": world.effects(), "runs": runs, "questions": questions });
        Ok(Facts { value, calls: world.calls() })
    }

    fn without_ignored(&self, mut value: Value) -> Value {
        match &mut value {
            Value::Object(fields) => {
                fields.retain(|name, _| !self.ignored.contains(name));
                for field in fields.values_mut() {
                    *field = self.without_ignored(field.take());
                }
            }
            Value::Array(items) => {
                for item in items {
                    *item = self.without_ignored(item.take());
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        value
    }
}

/// How time passes for a process.
enum Time {
    /// By itself whenever all sleep.
    Paused(VirtualClock),
    /// When it is moved.
    ByHand(ManualClock),
}

impl Time {
    fn clock(&self) -> Arc<dyn Clock> {
        match self {
            Self::Paused(clock) => Arc::new(*clock),
            Self::ByHand(clock) => Arc::new(clock.clone()),
        }
    }

    /// Works on a run until it rests.
    async fn passes_while(
        &self,
        driving: impl Future<Output = Result<Driven, Error>>,
    ) -> Result<Driven, String> {
        let Self::ByHand(clock) = self else { return driving.await.map_err(text) };
        let mut driving = Box::pin(driving);
        loop {
            tokio::select! {
                biased;
                driven = &mut driving => return driven.map_err(text),
                // It works, or it waits for the clock: a second now and then serves both.
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    clock.advance(Duration::from_secs(1));
                }
            }
        }
    }

    /// Lets time pass until a run can be claimed again.
    async fn wait(&self, runs: &[RunRecord]) -> Result<(), String> {
        let now = self.clock().now();
        let moments = runs.iter().filter_map(|run| match run.status {
            RunStatus::Running => run.lease_until,
            RunStatus::Waiting => run.wake_at,
            RunStatus::Ready => Some(now),
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => None,
        });
        let Some(moment) = moments.min() else {
            let waiting = runs.iter().find(|run| run.status == RunStatus::Waiting);
            let waiting = waiting.map_or_else(String::new, |run| run.start.id.to_string());
            return Err(format!(
                "run `{waiting}` waits for an answer or a signal that nobody gives: see `answering` and `signalling`"
            ));
        };
        let duration = moment.since(now) + Duration::from_millis(1);
        match self {
            Self::Paused(clock) => clock.sleep(duration).await,
            Self::ByHand(clock) => clock.advance(duration),
        }
        Ok(())
    }
}

fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn queues(store: &dyn Store) -> Result<Vec<QueueName>, String> {
    let runs = store.runs(&RunFilter::default()).await.map_err(text)?;
    let queues: BTreeSet<QueueName> = runs.into_iter().map(|run| run.start.queue).collect();
    Ok(queues.into_iter().collect())
}

async fn has_ready(store: &dyn Store) -> Result<bool, String> {
    let ready = RunFilter { status: vec![RunStatus::Ready], limit: 1, ..RunFilter::default() };
    Ok(!store.runs(&ready).await.map_err(text)?.is_empty())
}

async fn standing(store: &dyn Store) -> Result<String, String> {
    let runs = store.runs(&RunFilter::default()).await.map_err(text)?;
    let each = runs.iter().map(|run| format!("`{}` is {}", run.start.id, run.status.as_str()));
    Ok(each.collect::<Vec<_>>().join(", "))
}

/// Says where two values differ.
fn compare(place: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            for name in names {
                let side = |map: &serde_json::Map<String, Value>| map.get(name).cloned();
                let place =
                    if place.is_empty() { name.clone() } else { format!("{place} › {name}") };
                let (expected, found) = (side(expected), side(found));
                compare(
                    &place,
                    &expected.unwrap_or_default(),
                    &found.unwrap_or_default(),
                    differences,
                );
            }
        }
        (expected, found) if expected != found => {
            differences.push(format!("{place}: {found}, undisturbed {expected}"));
        }
        _ => {}
    }
}

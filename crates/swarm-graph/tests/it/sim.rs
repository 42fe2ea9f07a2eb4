//! The simulator: random programs, run by the engine on virtual time while processes die, are
//! dropped at an await, or stall until another worker has their runs; compared with a plain
//! interpretation.
//!
//! `SWARM_SIM_PROGRAMS=100000` runs so many instead of 2,000, `SWARM_SIM_SEED=7` begins at
//! another seed. A failure prints its seed and the program; that seed with one program is the
//! same failure again. Each program is on one thread; several programs run beside each other.

mod plain;
mod program;
mod world;
mod yaml;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use swarm_core::escalation::BlockStatus;
use swarm_core::id::{QueueName, RunId, WorkerId};
use swarm_core::port::clock::Clock;
use swarm_core::port::store::{RunFilter, Store};
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;
use swarm_graph::check;
use swarm_graph::engine::{Control, Engine, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{Death, MortalStore, SeededEntropy, VirtualClock};

use self::plain::Outcome;
use self::program::{Dice, Program};
use self::world::World;

/// Steps of a program, above which a smaller one is made.
const STEPS_MAX: u32 = 40;

/// What a person answers: a function of the question's id.
fn says_yes(block: &str) -> bool {
    block.bytes().map(u32::from).sum::<u32>() % 3 != 0
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// In peace.
    Calm,
    /// At a write.
    Dies(Death),
    /// Dropped when it has been polled so often.
    Drops(u64),
    /// It stalls at a write until another has its runs, then goes on.
    Stalls(Death, u64),
}

/// One program and all that varies around it.
struct Case {
    seed: u64,
    program: Program,
    outcome: Outcome,
    texts: Vec<(String, String)>,
    input: u32,
}

impl Case {
    fn new(seed: u64) -> Self {
        let input = u32::try_from(seed % 4).unwrap();
        let (program, outcome) = (0..)
            .map(|shrink| {
                let program = program::generate(seed, shrink);
                let outcome = plain::interpret(&program, "r", input);
                (program, outcome)
            })
            .find(|(_, outcome)| outcome.facts.steps <= STEPS_MAX)
            .expect("small programs have few steps");
        let texts = yaml::texts(&program);
        Self { seed, program, outcome, texts, input }
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (name, graph) in &self.texts {
            writeln!(text, "# {name}.yaml\n{graph}").unwrap();
        }
        text
    }
}

/// What one execution came to.
struct Report {
    writes: u64,
    polls: u64,
}

/// The graphs of a case, loaded.
fn library(case: &Case, world: &World) -> Arc<Library> {
    let registry = world::registry(world);
    let graphs: Vec<_> = case
        .texts
        .iter()
        .map(|(name, text)| {
            let file = format!("{name}.yaml");
            check::load(&check::Memory::one(&file, text.clone()), &file, &registry)
                .unwrap_or_else(|defects| panic!("{defects}"))
        })
        .collect();
    Arc::new(graphs.into_iter().fold(Library::new(registry), Library::with))
}

/// A running machine: the store beneath, the world, and the time.
struct Machine<'c> {
    case: &'c Case,
    beneath: Arc<dyn Store>,
    world: World,
    clock: VirtualClock,
    library: Arc<Library>,
}

impl<'c> Machine<'c> {
    fn new(case: &'c Case, world: &World, library: &Arc<Library>) -> Self {
        Self {
            case,
            beneath: Arc::new(MemoryStore::new()),
            world: world.clone(),
            clock: VirtualClock::at(Timestamp(1_800_000_000_000)),
            library: library.clone(),
        }
    }

    fn engine(&self, store: Arc<dyn Store>) -> Engine {
        let entropy = Arc::new(SeededEntropy::new(self.case.seed));
        Engine::new(store, Arc::new(self.clock), entropy, self.library.clone())
    }

    fn front(&self, death: Death) -> MortalStore {
        let entropy = SeededEntropy::new(self.case.seed.wrapping_add(9));
        MortalStore::new(self.beneath.clone(), death).jittered(entropy)
    }

    /// A process: starts the program unless it is started, and works until all has ended.
    async fn process(&self, store: Arc<dyn Store>, worker: &str) -> Result<(), String> {
        let engine = self.engine(store);
        let worker = WorkerId::new(worker).unwrap();
        let queues = [QueueName::new("default").unwrap()];
        let slots = 1 + self.case.seed as usize % 3;
        let is_eager = self.case.seed.is_multiple_of(5);
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let input = json!({ "k": self.case.input });
        engine
            .start(root(), "g0", input, StartOptions::default())
            .await
            .map_err(|error| text(&error))?;
        let outside = self.engine(self.beneath.clone());
        let mut at_work = FuturesUnordered::new();
        for _ in 0..2000 {
            while at_work.len() < slots {
                let claim = engine.claim_next(&worker, &queues).await.map_err(|e| text(&e))?;
                let Some(claim) = claim else { break };
                at_work.push(engine.drive(claim, Control::default()));
            }
            if at_work.is_empty() {
                if self.has_ended().await {
                    return Ok(());
                }
                if !world::play_outside(&outside).await {
                    self.clock.sleep(Duration::from_secs(1)).await;
                }
                continue;
            }
            tokio::select! {
                Some(driven) = at_work.next() => {
                    driven.map_err(|error| text(&error))?;
                }
                () = self.clock.sleep(Duration::from_millis(900)) => {
                    if is_eager {
                        world::play_outside(&outside).await;
                    }
                }
            }
        }
        Err(format!("it does not end: {:?}", self.statuses().await))
    }

    async fn statuses(&self) -> Vec<(String, RunStatus)> {
        let runs = self.beneath.runs(&RunFilter::default()).await.unwrap();
        runs.into_iter().map(|run| (run.start.id.to_string(), run.status)).collect()
    }

    async fn has_ended(&self) -> bool {
        self.statuses().await.iter().all(|(_, status)| status.is_final())
    }

    /// Lives through `lives`, then once more in peace.
    async fn play(&self, lives: &[Life]) -> Result<Report, String> {
        let mut crashes = 0;
        let mut report = Report { writes: 0, polls: 0 };
        for (index, life) in lives.iter().chain([&Life::Calm]).enumerate() {
            let worker = format!("w{index}");
            match *life {
                Life::Calm => {
                    let front = Arc::new(self.front(Death::Never));
                    let process = self.process(front.clone(), &worker);
                    let (polls, ended) = polled(process, u64::MAX).await;
                    ended.expect("it is polled without end")?;
                    report = Report { writes: front.writes(), polls };
                    break;
                }
                Life::Dies(death) => {
                    let front = Arc::new(self.front(death));
                    let ended = self.process(front.clone(), &worker).await;
                    crashes += u32::from(front.is_dead());
                    if front.is_dead() == ended.is_ok() && index == 0 {
                        return Err(format!("{life:?} did not happen: {ended:?}"));
                    }
                    if !front.is_dead() {
                        ended?;
                    }
                }
                Life::Drops(polls_max) => {
                    let process = self.process(Arc::new(self.front(Death::Never)), &worker);
                    let (_, ended) = polled(process, polls_max).await;
                    crashes += u32::from(ended.is_none());
                    ended.transpose()?;
                }
                Life::Stalls(death, wakes_after) => {
                    let front = Arc::new(self.front(death).stalling());
                    let mut process = pin!(self.process(front.clone(), &worker));
                    let stalled = tokio::select! {
                        biased;
                        () = front.stalled() => true,
                        ended = &mut process => { ended?; false }
                    };
                    if stalled {
                        crashes += 1;
                        self.clock.sleep(Duration::from_secs(11)).await;
                        let heir = self.front(Death::Never);
                        let rival = self.process(Arc::new(heir), "rival");
                        let late = async {
                            for _ in 0..wakes_after {
                                tokio::task::yield_now().await;
                            }
                            front.wake();
                            process.await
                        };
                        let (first, second) = tokio::join!(rival, late);
                        first?;
                        second?;
                    }
                }
            }
            // The leases of the dead end.
            self.clock.sleep(Duration::from_secs(11)).await;
        }
        self.check(crashes).await?;
        Ok(report)
    }

    /// Compares all that can be compared with the plain interpretation.
    async fn check(&self, crashes: u32) -> Result<(), String> {
        let outcome = &self.case.outcome;
        let run = self.beneath.run(&root()).await.unwrap().expect("it was started");
        if outcome.failures.is_empty() {
            if run.status != RunStatus::Succeeded {
                return Err(format!("the run {:?}: {:?}", run.status, run.failure));
            }
            self.check_state(run.output.as_deref().expect("it succeeded")).await?;
        } else {
            let class = run.failure.as_ref().map_or("none", |failure| failure.class.as_str());
            if run.status != RunStatus::Failed || !outcome.failures.contains(class) {
                return Err(format!(
                    "the run is {:?} with {:?}; expected a failure of {:?}",
                    run.status, run.failure, outcome.failures
                ));
            }
        }
        self.check_facts(crashes).await?;
        self.check_spend(run.spent.tokens, run.reserved.tokens)?;
        self.check_history().await
    }

    async fn check_state(&self, output: &Value) -> Result<(), String> {
        let outcome = &self.case.outcome;
        let log: Vec<String> = serde_json::from_value(output["log"].clone()).unwrap();
        plain::check_order(&outcome.order, &log).map_err(|why| format!("{why}; log: {log:?}"))?;
        same("the sum", &output["n"], &json!(outcome.sum))?;
        let last = self.beneath.checkpoint(&root(), None).await.unwrap().expect("there is one");
        let seen: BTreeMap<String, u32> =
            serde_json::from_value((**last.state.get("seen").unwrap()).clone()).unwrap();
        same("`seen`", &seen, &outcome.seen)?;
        let by_key: BTreeMap<String, u32> = last
            .state
            .get("last")
            .and_then(|list| list.as_array())
            .unwrap()
            .iter()
            .map(|item| {
                let visit = u32::try_from(item["visit"].as_u64().unwrap()).unwrap();
                (item["node"].as_str().unwrap().to_owned(), visit)
            })
            .collect();
        same("`last`", &by_key, &outcome.seen)?;
        let visits: BTreeMap<String, u32> =
            last.cursor.visits.iter().map(|(node, visits)| (node.to_string(), *visits)).collect();
        same("the visits", &visits, &outcome.visits)
    }

    async fn check_facts(&self, crashes: u32) -> Result<(), String> {
        let facts = &self.case.outcome.facts.all;
        let mut counts = self.world.counts();
        for block in self.beneath.blocks(None, None).await.unwrap() {
            let id = block.id.as_str();
            // Of a node: `run.step:key`; of a gate: `run.step`.
            *counts.entry(format!("question {id}")).or_default() += 1;
            let is_certain = facts.get(&format!("question {id}")).copied().unwrap_or(false);
            if is_certain && block.status != BlockStatus::Answered
                || block.status == BlockStatus::Open
            {
                return Err(format!("block `{id}` is {:?}", block.status));
            }
        }
        if let Some(stranger) = counts.keys().find(|fact| !facts.contains_key(*fact)) {
            return Err(format!("nobody asked for `{stranger}`"));
        }
        for (fact, must) in facts {
            let count = counts.get(fact).copied().unwrap_or(0);
            // What costs something may be begun again after a crash; an effect may not.
            let again =
                if fact.starts_with("memo") || fact.starts_with("spend") { crashes } else { 0 };
            let (low, high) = (u32::from(*must), 1 + again);
            if count < low || count > high {
                return Err(format!("`{fact}` happened {count} times, not {low} to {high}"));
            }
        }
        Ok(())
    }

    fn check_spend(&self, tokens: u64, reserved: u64) -> Result<(), String> {
        let facts = &self.case.outcome.facts;
        let all: u64 = facts.costs.values().sum();
        let certain: u64 =
            facts.costs.iter().filter(|(fact, _)| facts.all[*fact]).map(|(_, cost)| cost).sum();
        if tokens < certain || tokens > all {
            return Err(format!("{tokens} tokens were booked, not {certain} to {all}"));
        }
        same("what is still reserved", &reserved, &0)
    }

    /// Each step ends once, each question is told once, and events have no gaps.
    async fn check_history(&self) -> Result<(), String> {
        for (run, _) in self.statuses().await {
            let id = RunId::new(&run).unwrap();
            let mut ended = BTreeMap::new();
            for step in self.beneath.steps(&id).await.unwrap() {
                *ended.entry(step.step.to_string()).or_insert(0) += 1;
            }
            let mut told = BTreeMap::new();
            for (place, event) in self.beneath.events(&id, 0, 0).await.unwrap().iter().enumerate() {
                same("an event's number", &event.seq, &(place as u64 + 1))?;
                let kind = event.kind.as_str();
                let what = match kind {
                    "question.asked" => event.data["id"].to_string(),
                    "node.finished" | "child.started" | "child.ended" => {
                        event.step.as_ref().unwrap().to_string()
                    }
                    "run.succeeded" | "run.failed" | "run.cancelled" => String::new(),
                    _ => continue,
                };
                *told.entry(format!("{kind} {what}")).or_insert(0) += 1;
            }
            if let Some((what, count)) = ended.iter().chain(&told).find(|(_, count)| **count > 1) {
                return Err(format!("run `{run}`: `{what}` is stored {count} times"));
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, expected {expected:?}"))
    }
}

fn root() -> RunId {
    RunId::new("r").unwrap()
}

/// Polls a future, at most so often; with how often it was.
async fn polled<F: Future>(future: F, polls_max: u64) -> (u64, Option<F::Output>) {
    let mut future = pin!(future);
    let mut polls = 0;
    let ended = std::future::poll_fn(|cx| {
        if polls == polls_max {
            return Poll::Ready(None);
        }
        polls += 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await;
    (polls, ended)
}

/// Once in peace, then with crashes whose places are drawn from what was seen.
async fn simulate(case: &Case) -> Result<(), String> {
    let world = World::default();
    world.begin(case.seed, false);
    let library = library(case, &world);
    let calm = Machine::new(case, &world, &library).play(&[]).await;
    let calm = calm.map_err(|why| format!("in peace: {why}"))?;
    let dice = Dice::new(case.seed ^ 0xBAD);
    let write = |dice: &Dice| {
        let number = 1 + dice.roll(calm.writes);
        if dice.one_in(2) { Death::Before(number) } else { Death::After(number) }
    };
    let life = |dice: &Dice| match dice.roll(3) {
        0 => Life::Dies(write(dice)),
        1 => Life::Drops(1 + dice.roll(calm.polls)),
        _ => Life::Stalls(write(dice), dice.roll(60)),
    };
    let lives: Vec<Life> = (0..dice.small(1, 3)).map(|_| life(&dice)).collect();
    let stalls = lives.iter().any(|life| matches!(life, Life::Stalls(..)));
    world.begin(case.seed, stalls);
    let machine = Machine::new(case, &world, &library);
    machine.play(&lives).await.map(drop).map_err(|why| format!("{lives:?}: {why}"))
}

/// Runs one seed; `Err` is all that is needed to look into it.
fn run_seed(seed: u64) -> Result<(), String> {
    let case = Case::new(seed);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(simulate(&case))
    }));
    let why = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => {
            panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
        }
    };
    Err(format!("seed {seed}: {why}\n\n{}\n{:#?}", case.describe(), case.program))
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_programs_come_to_what_a_plain_reading_says_however_often_they_crash() {
    let programs = from_env("SWARM_SIM_PROGRAMS", 2000);
    let first = from_env("SWARM_SIM_SEED", 1);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::SeqCst);
                        if seed >= first + programs {
                            return None;
                        }
                        if let Err(failure) = run_seed(seed) {
                            next.store(first + programs, Ordering::SeqCst);
                            return Some(failure);
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

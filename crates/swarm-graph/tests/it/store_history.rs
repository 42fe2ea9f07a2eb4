//! A random history reads the same on every store.
//!
//! Each operation goes to all stores, with the same ids, moments and mistakes; each must say the
//! same, and at the end all that can be read must be the same. The memory store is the simple
//! one: where they differ, suspect SQL first.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Value, json};
use swarm_core::checkpoint::{
    Activation, Change, ChannelDelta, Cursor, Phase, StepEnding, StepRecord,
};
use swarm_core::escalation::{Answerer, Ask, Block, Reason};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{
    BlockId, ChannelName, GraphHash, GraphName, NodeName, QueueName, RunId, StepId, WorkerId,
};
use swarm_core::port::store::{
    CheckpointWrite, Claim, Commit, CopyRun, Edit, EntryKey, Fork, Keep, Outgoing, Recipient,
    Release, Result as StoreResult, Retention, SignalKind, Store,
};
use swarm_core::run::{Epoch, Limit, NewRun, Parent, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;
use swarm_graph::store::conformance::everything;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::store::postgres::PostgresStore;
use swarm_graph::store::sqlite::{Options, SqliteStore, Synchronous};

const RUNS: u8 = 5;
const TTL: Duration = Duration::from_secs(10);

/// One call, in small numbers: runs, blocks and keys are taken from a few.
#[derive(Clone, Debug)]
enum Op {
    Create {
        run: u8,
        parent: Option<(u8, bool)>,
        priority: i8,
        limit: Option<u8>,
    },
    ClaimNext {
        now: i64,
    },
    Claim {
        run: u8,
        now: i64,
    },
    Renew {
        by: Right,
        now: i64,
    },
    Commit(Box<Written>),
    Signal {
        run: u8,
        key: Option<u8>,
        now: i64,
    },
    Begin {
        by: Right,
        key: u8,
        reserve: u8,
    },
    Finish {
        by: Right,
        key: u8,
        spend: u8,
    },
    Note {
        by: Right,
        events: u8,
    },
    Answer {
        block: u8,
        value: u8,
        login: u8,
    },
    Raise {
        run: u8,
        limit: Option<u8>,
    },
    Put {
        key: u8,
        expected: u8,
        value: u8,
    },
    /// How far back from the last checkpoint.
    Fork {
        from: u8,
        back: u8,
        to: u8,
    },
    /// How far the person is behind, and what changes.
    Edit {
        run: u8,
        behind: u8,
        deltas: Vec<Changed>,
        now: i64,
    },
    Copy {
        from: u8,
        to: u8,
        claimable: bool,
    },
    Delete {
        run: u8,
    },
    Prune {
        last: Option<u8>,
        age: Option<i64>,
        remove: Option<i64>,
        only: Option<u8>,
        now: i64,
    },
}

impl Op {
    fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::ClaimNext { .. } => "claim next",
            Self::Claim { .. } => "claim",
            Self::Renew { .. } => "renew",
            Self::Commit(_) => "commit",
            Self::Signal { .. } => "signal",
            Self::Begin { .. } => "begin",
            Self::Finish { .. } => "finish",
            Self::Note { .. } => "note",
            Self::Answer { .. } => "answer",
            Self::Raise { .. } => "raise",
            Self::Put { .. } => "put",
            Self::Fork { .. } => "fork",
            Self::Edit { .. } => "edit",
            Self::Copy { .. } => "copy",
            Self::Delete { .. } => "delete",
            Self::Prune { .. } => "prune",
        }
    }
}

/// A run, and how far the writer's epoch is from the one of the last claim.
#[derive(Clone, Copy, Debug)]
struct Right {
    run: u8,
    off: u8,
}

/// A channel, a kind of change, and a value.
type Changed = (u8, u8, u8);

/// What a commit holds.
#[derive(Clone, Debug)]
struct Written {
    by: Right,
    now: i64,
    /// How far the number is from the right one, and what changes.
    checkpoint: Option<(u8, Vec<Changed>)>,
    steps: Vec<u8>,
    blocks: Vec<(u8, bool)>,
    withdrawn: Vec<u8>,
    children: Vec<(u8, bool)>,
    taken: u8,
    outgoing: Vec<u8>,
    limit: Option<u8>,
    events: u8,
    release: Option<u8>,
}

fn op() -> impl Strategy<Value = Op> {
    let now = || 0..40_000_i64;
    let priced = || (right(), 0..4_u8, 0..20_u8);
    prop_oneof![
        3 => (0..RUNS, maybe(0.4, (0..RUNS, any::<bool>())), -1..2_i8, maybe(0.6, 0..30_u8))
            .prop_map(|(run, parent, priority, limit)| Op::Create { run, parent, priority, limit }),
        3 => now().prop_map(|now| Op::ClaimNext { now }),
        6 => (0..RUNS, now()).prop_map(|(run, now)| Op::Claim { run, now }),
        1 => (right(), now()).prop_map(|(by, now)| Op::Renew { by, now }),
        20 => written().prop_map(|written| Op::Commit(Box::new(written))),
        2 => (0..RUNS, maybe(0.5, 0..3_u8), now())
            .prop_map(|(run, key, now)| Op::Signal { run, key, now }),
        2 => priced().prop_map(|(by, key, reserve)| Op::Begin { by, key, reserve }),
        2 => priced().prop_map(|(by, key, spend)| Op::Finish { by, key, spend }),
        1 => (right(), 0..3_u8).prop_map(|(by, events)| Op::Note { by, events }),
        2 => (0..4_u8, 0..2_u8, 0..2_u8)
            .prop_map(|(block, value, login)| Op::Answer { block, value, login }),
        1 => (0..RUNS, maybe(0.5, 0..60_u8)).prop_map(|(run, limit)| Op::Raise { run, limit }),
        1 => (0..3_u8, 0..4_u8, any::<u8>())
            .prop_map(|(key, expected, value)| Op::Put { key, expected, value }),
        2 => (0..RUNS, 0..3_u8, 0..RUNS).prop_map(|(from, back, to)| Op::Fork { from, back, to }),
        8 => (0..RUNS, prop_oneof![5 => Just(0_u8), 1 => Just(1_u8)], deltas(), now())
            .prop_map(|(run, behind, deltas, now)| Op::Edit { run, behind, deltas, now }),
        1 => (0..RUNS, 0..RUNS, any::<bool>())
            .prop_map(|(from, to, claimable)| Op::Copy { from, to, claimable }),
        1 => (0..RUNS).prop_map(|run| Op::Delete { run }),
        1 => (
            maybe(0.5, 0..4_u8),
            maybe(0.3, 0..20_000_i64),
            maybe(0.3, 0..60_000_i64),
            maybe(0.3, 0..RUNS),
            now(),
        )
            .prop_map(|(last, age, remove, only, now)| Op::Prune { last, age, remove, only, now }),
    ]
}

fn maybe<S: Strategy>(share: f64, some: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::weighted(share, some)
}

/// Most writers hold the claim that they think they hold.
fn right() -> impl Strategy<Value = Right> {
    let off = prop_oneof![9 => Just(0_u8), 1 => Just(1_u8)];
    (0..RUNS, off).prop_map(|(run, off)| Right { run, off })
}

fn deltas() -> impl Strategy<Value = Vec<Changed>> {
    vec((0..3_u8, 0..4_u8, any::<u8>()), 0..3)
}

fn written() -> impl Strategy<Value = Written> {
    let off = prop_oneof![12 => Just(0_u8), 1 => Just(1_u8)];
    let foreign = prop::bool::weighted(0.05);
    (
        (right(), 0..40_000_i64, maybe(0.5, (off, deltas()))),
        (vec(0..4_u8, 0..3), vec((0..4_u8, foreign), 0..2), vec(0..4_u8, 0..2)),
        (vec((0..RUNS, any::<bool>()), 0..2), any::<u8>(), vec(0..RUNS + 2, 0..2)),
        (maybe(0.2, 0..40_u8), 0..3_u8, maybe(0.5, 0..6_u8)),
    )
        .prop_map(|(a, b, c, d)| Written {
            by: a.0,
            now: a.1,
            checkpoint: a.2,
            steps: b.0,
            blocks: b.1,
            withdrawn: b.2,
            children: c.0,
            taken: c.1,
            outgoing: c.2,
            limit: d.0,
            events: d.1,
            release: d.2,
        })
}

fn run(n: u8) -> RunId {
    RunId::new(format!("r{n}")).unwrap()
}

fn step(n: u8) -> StepId {
    StepId::new(format!("work#{n}")).unwrap()
}

fn block_id(n: u8) -> BlockId {
    BlockId::new(format!("b{n}")).unwrap()
}

fn moment(ms: i64) -> Timestamp {
    Timestamp(1_000_000 + ms)
}

fn limit(usd: Option<u8>) -> Limit {
    Limit { usd: usd.map(|usd| UsdMicros(usd.into())), tokens: None }
}

fn usd(usd: u8) -> Spend {
    Spend { usd: UsdMicros(usd.into()), tokens: u64::from(usd) * 10 }
}

fn events(count: u8) -> Vec<NewEvent> {
    (0..count).map(|n| NewEvent::run(EventKind::of("test.said"), json!({ "n": n }))).collect()
}

fn named(n: u8) -> SignalKind {
    SignalKind::Named { name: format!("s{n}"), payload: Arc::new(json!(n)) }
}

fn new_run(n: u8, parent: Option<(u8, bool)>) -> NewRun {
    NewRun {
        id: run(n),
        graph: GraphName::new("g").unwrap(),
        graph_hash: GraphHash("h".into()),
        queue: QueueName::new("q").unwrap(),
        input: Arc::new(json!({ "n": n })),
        parent: parent.map(|(of, awaited)| Parent { run: run(of), step: step(1), awaited }),
        priority: 0,
        labels: BTreeMap::from([("n".to_owned(), n.to_string())]),
        limit: Limit::default(),
    }
}

/// A place where something is left to do, most of the time.
fn cursor(n: u8) -> Cursor {
    let active = (0..n).map(|n| Activation {
        step: step(n),
        node: NodeName::new("work").unwrap(),
        visit: 1,
        item: None,
        frame: None,
        attempts: 0,
        phase: if n == 1 { Phase::Answer { blocks: vec![block_id(n)] } } else { Phase::Due },
        error: None,
    });
    Cursor { active: active.collect(), supersteps: u32::from(n), ..Cursor::default() }
}

fn delta(&(channel, kind, value): &Changed) -> ChannelDelta {
    let channel = ChannelName::new(format!("c{channel}")).unwrap();
    let change = match kind {
        0 => Change::Full(Arc::new(json!([value]))),
        1 => Change::Full(Arc::new(if value % 2 == 0 { Value::Null } else { json!({}) })),
        2 => Change::Append(Arc::new(json!([value, "x"]))),
        _ => Change::Merge(Arc::new(json!({ format!("k{}", value % 3): value }))),
    };
    ChannelDelta { channel, change }
}

fn step_record(n: u8, seq: u64) -> StepRecord {
    StepRecord {
        step: step(n),
        node: NodeName::new("work").unwrap(),
        seq,
        attempt: 1,
        ending: StepEnding::Output(Arc::new(json!(n))),
        started_at: moment(0),
        ended_at: moment(1),
    }
}

fn block(n: u8, of: &RunId, foreign: bool) -> Block {
    let run = if foreign { run(9) } else { of.clone() };
    let ask = Ask::choice(Reason::Decision, format!("Question {n}?"), &["yes", "no"]);
    Block::open(block_id(n), run, step(1), ask, moment(2))
}

fn outgoing(n: u8) -> Outgoing {
    let to = match n {
        n if n < RUNS => Recipient::Run(run(n)),
        n if n == RUNS => Recipient::Ancestors,
        _ => Recipient::Children,
    };
    Outgoing { to, kind: named(n) }
}

fn release(how: u8, now: i64, seen: u64) -> Release {
    let ended = |status| Release::Ended {
        status,
        output: (status == RunStatus::Succeeded).then(|| Arc::new(json!("out"))),
        failure: (status == RunStatus::Failed).then(|| Failure::fatal("test", "failed")),
    };
    match how {
        0 => Release::Ready,
        1 => Release::Waiting { wake_at: None, seen },
        2 => Release::Waiting { wake_at: Some(moment(now + 500)), seen },
        3 => ended(RunStatus::Succeeded),
        4 => ended(RunStatus::Failed),
        _ => ended(RunStatus::Cancelled),
    }
}

/// What the writers know: the epoch of the last claim of each run.
#[derive(Default)]
struct World {
    epochs: BTreeMap<RunId, Epoch>,
    /// Operations that were done and not refused, by their kind.
    done: BTreeMap<&'static str, u32>,
}

impl World {
    fn epoch(&self, by: Right) -> Epoch {
        let known = self.epochs.get(&run(by.run)).copied().unwrap_or_default();
        Epoch(known.0 + u64::from(by.off))
    }

    fn key(&self, by: Right, key: u8) -> EntryKey {
        let (run, epoch) = (run(by.run), self.epoch(by));
        EntryKey { run, epoch, step: step(1), key: format!("k{key}") }
    }

    /// The commit as it is sent; what it must know of the run is read from `store` itself.
    async fn commit(&self, written: &Written, store: &dyn Store) -> Commit {
        let id = run(written.by.run);
        let last = store.checkpoint(&id, None).await.unwrap();
        let next = last.map_or(0, |checkpoint| checkpoint.seq + 1);
        let signals = store.signals(&id).await.unwrap();
        let seen = signals.get(usize::from(written.taken % 4)).map_or(0, |signal| signal.id);
        let taken = signals
            .iter()
            .enumerate()
            .filter(|(n, _)| (written.taken >> (n % 8)) & 1 == 1)
            .map(|(_, signal)| signal.id);
        let child = |&(n, awaited): &(u8, bool)| new_run(n, Some((written.by.run, awaited)));
        Commit {
            checkpoint: written.checkpoint.as_ref().map(|(off, deltas)| CheckpointWrite {
                seq: next + u64::from(*off),
                cursor: cursor(written.events),
                deltas: deltas.iter().map(delta).collect(),
            }),
            steps: written.steps.iter().map(|&n| step_record(n, next)).collect(),
            blocks: written.blocks.iter().map(|&(n, foreign)| block(n, &id, foreign)).collect(),
            withdrawn: written.withdrawn.iter().map(|&n| block_id(n)).collect(),
            children: written.children.iter().map(child).collect(),
            taken: taken.collect(),
            outgoing: written.outgoing.iter().map(|&n| outgoing(n)).collect(),
            limit: written.limit.map(|usd| limit(Some(usd))),
            events: events(written.events),
            release: written.release.map(|how| release(how, written.now, seen)),
            ..Commit::new(id, self.epoch(written.by), moment(written.now))
        }
    }
}

/// What a store said, in words, and the claim if it was one.
struct Said {
    words: String,
    claimed: Option<(RunId, Epoch)>,
}

impl Said {
    fn of(answer: impl Debug) -> Self {
        Self { words: format!("{answer:?}"), claimed: None }
    }

    fn claim(answer: StoreResult<Option<Claim>>) -> Self {
        let words = format!("{answer:?}");
        let claimed = answer.ok().flatten().map(|claim| (claim.run.start.id, claim.run.epoch));
        Self { words, claimed }
    }
}

/// Sends one operation to one store.
async fn send(op: &Op, world: &World, store: &dyn Store) -> Said {
    let worker = WorkerId::new("w").unwrap();
    match op {
        Op::Create { run, parent, priority, limit: usd } => {
            let priority = i32::from(*priority);
            let new = NewRun { priority, limit: limit(*usd), ..new_run(*run, *parent) };
            Said::of(store.create_run(new, moment(0)).await)
        }
        Op::ClaimNext { now } => {
            let queues = [QueueName::new("q").unwrap()];
            Said::claim(store.claim_next(&worker, &queues, moment(*now), TTL).await)
        }
        Op::Claim { run: n, now } => {
            Said::claim(store.claim(&run(*n), &worker, moment(*now), TTL).await)
        }
        Op::Renew { by, now } => {
            Said::of(store.renew(&run(by.run), world.epoch(*by), moment(*now), TTL).await)
        }
        Op::Commit(written) => {
            let commit = world.commit(written, store).await;
            let done = store.commit(commit).await.map(|mut done| {
                done.woken.sort();
                done
            });
            Said::of(done)
        }
        Op::Signal { run: n, key, now } => {
            let key = key.map(|key| format!("key{key}"));
            Said::of(store.signal(&run(*n), key.as_deref(), named(*n), moment(*now)).await)
        }
        Op::Begin { by, key, reserve } => {
            let key = world.key(*by, *key);
            Said::of(store.begin(key, json!("intent"), usd(*reserve), moment(3)).await)
        }
        Op::Finish { by, key, spend } => {
            let (key, result) = (world.key(*by, *key), Arc::new(json!("result")));
            Said::of(store.finish(key, result, usd(*spend), events(1), moment(4)).await)
        }
        Op::Note { by, events: count } => {
            let run = run(by.run);
            Said::of(store.note(&run, world.epoch(*by), events(*count), moment(5)).await)
        }
        Op::Answer { block, value, login } => {
            let (via, permission) = ("cli".to_owned(), "write".to_owned());
            let by = Answerer { login: format!("p{login}"), via, permission };
            Said::of(store.answer(&block_id(*block), Arc::new(json!(value)), by, moment(6)).await)
        }
        Op::Raise { run: n, limit: usd } => {
            Said::of(store.raise_limit(&run(*n), limit(*usd), moment(7)).await)
        }
        Op::Put { key, expected, value } => {
            let key = format!("key{key}");
            Said::of(store.put("space", &key, u64::from(*expected), json!(value)).await)
        }
        Op::Fork { .. }
        | Op::Edit { .. }
        | Op::Copy { .. }
        | Op::Delete { .. }
        | Op::Prune { .. } => send_archive(op, store).await,
    }
}

/// Sends an operation on whole histories to one store.
async fn send_archive(op: &Op, store: &dyn Store) -> Said {
    let last = async |n: u8| {
        let last = store.checkpoint(&run(n), None).await.unwrap();
        last.map_or(0, |checkpoint| checkpoint.seq)
    };
    match op {
        Op::Fork { from, back, to } => {
            let start = new_run(*to, None);
            let fork = Fork {
                from: run(*from),
                seq: last(*from).await.saturating_sub(u64::from(*back)),
                id: run(*to),
                graph: None,
                queue: start.queue,
                priority: 1,
                labels: start.labels,
                limit: limit(Some(30)),
            };
            Said::of(store.fork(fork, moment(8)).await)
        }
        Op::Edit { run: n, behind, deltas, now } => {
            let edit = Edit {
                run: run(*n),
                expected: last(*n).await.saturating_sub(u64::from(*behind)),
                deltas: deltas.iter().map(delta).collect(),
                by: "ann".to_owned(),
            };
            Said::of(store.edit(edit, moment(*now)).await)
        }
        Op::Copy { from, to, claimable } => {
            let copy = CopyRun { from: run(*from), id: run(*to), claimable: *claimable };
            Said::of(store.copy_run(copy, moment(9)).await)
        }
        Op::Delete { run: n } => Said::of(store.delete_run(&run(*n)).await),
        Op::Prune { last, age, remove, only, now } => {
            let millis = |ms: Option<i64>| ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
            let keep = Keep { last: last.map(u64::from), max_age: millis(*age) };
            let ended = Keep { last: Some(1), ..keep };
            let retention = Retention { live: keep, ended, remove_after: millis(*remove) };
            let only = only.map(|n| [run(n)]);
            let only = only.as_ref().map(|only| &only[..]);
            Said::of(store.prune(&retention, only, moment(*now)).await)
        }
        _ => unreachable!("sent by the caller"),
    }
}

/// How each history begins: with a run that has been forked, and a fork that is then edited.
fn opening() -> Vec<Op> {
    let written = Written {
        by: Right { run: 0, off: 0 },
        now: 0,
        checkpoint: Some((0, vec![(0, 0, 1)])),
        steps: vec![1],
        blocks: vec![],
        withdrawn: vec![],
        children: vec![],
        taken: 0,
        outgoing: vec![],
        limit: None,
        events: 2,
        release: Some(0),
    };
    vec![
        Op::Create { run: 0, parent: None, priority: 0, limit: None },
        Op::Claim { run: 0, now: 0 },
        Op::Commit(Box::new(written)),
        Op::Fork { from: 0, back: 0, to: 1 },
        Op::Edit { run: 1, behind: 0, deltas: vec![(0, 2, 1), (1, 3, 2)], now: 1 },
    ]
}

/// Returns how many operations of each kind were done.
async fn compare(
    history: &[Op],
    postgres: &PostgresStore,
) -> Result<BTreeMap<&'static str, u32>, TestCaseError> {
    let directory = tempfile::TempDir::new().unwrap();
    let options = Options { synchronous: Synchronous::Normal, ..Options::default() };
    let sqlite = SqliteStore::open(directory.path().join("swarm.db"), options).await.unwrap();
    let memory = MemoryStore::new();
    let mut world = World::default();
    for (n, op) in history.iter().enumerate() {
        let simple = send(op, &world, &memory).await;
        let durable = send(op, &world, &sqlite).await;
        prop_assert_eq!(&durable.words, &simple.words, "operation {}: {:?}", n, op);
        let remote = send(op, &world, postgres).await;
        prop_assert_eq!(&remote.words, &simple.words, "on PostgreSQL, operation {}: {:?}", n, op);
        world.epochs.extend(simple.claimed);
        if simple.words.starts_with("Ok") {
            *world.done.entry(op.kind()).or_default() += 1;
        }
    }
    let simple = everything(&memory).await.unwrap();
    for durable in [everything(&sqlite).await.unwrap(), everything(postgres).await.unwrap()] {
        for (durable, simple) in durable.lines().zip(simple.lines()) {
            prop_assert_eq!(durable, simple);
        }
        prop_assert_eq!(durable.lines().count(), simple.lines().count());
    }
    sqlite.close().await;
    Ok(world.done)
}

/// From `SWARM_SEED` (64 hexadecimal digits), or fresh.
fn seed() -> [u8; 32] {
    use std::hash::{BuildHasher as _, Hasher as _};
    if let Ok(text) = std::env::var("SWARM_SEED") {
        let bytes = hex::decode(text).expect("SWARM_SEED is hexadecimal");
        return bytes.try_into().expect("SWARM_SEED has 64 digits");
    }
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        let fresh = std::hash::RandomState::new().build_hasher().finish();
        part.copy_from_slice(&fresh.to_le_bytes());
    }
    seed
}

#[test]
fn a_random_history_reads_the_same_on_every_store() {
    let seed = seed();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = crate::pg::shared();
    let url = runtime.block_on(server.database()).unwrap();
    let number = std::cell::Cell::new(0);
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let done = RefCell::new(BTreeMap::<_, u32>::new());
    let result = TestRunner::new_with_rng(config, rng).run(&vec(op(), 30..120), |history| {
        let history = [opening(), history].concat();
        number.set(number.get() + 1);
        let options = crate::pg::options(&format!("history_{}", number.get()));
        let done_now = runtime.block_on(async {
            let postgres = PostgresStore::open(&url, options).await.unwrap();
            let done = compare(&history, &postgres).await;
            postgres.close().await;
            done
        });
        for (kind, times) in done_now? {
            *done.borrow_mut().entry(kind).or_default() += times;
        }
        Ok(())
    });
    let seed = hex::encode(seed);
    if let Err(difference) = result {
        panic!("SWARM_SEED={seed}\n{difference}");
    }
    // Two stores that refuse everything agree, too.
    let done = done.into_inner();
    assert!(done.len() == 17, "{done:?} SWARM_SEED={seed}");
}

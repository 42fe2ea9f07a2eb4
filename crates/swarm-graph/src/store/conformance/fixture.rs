//! What the clauses are made of: short words for runs, commits and questions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::checkpoint::{
    Activation, Change, ChannelDelta, Cursor, Phase, StepEnding, StepRecord,
};
use swarm_core::escalation::{Answerer, Ask, Block, Reason};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{
    BlockId, ChannelName, GraphHash, GraphName, NodeName, QueueName, RunId, StepId, WorkerId,
};
use swarm_core::port::store::{
    CheckpointFilter, CheckpointWrite, Claim, Commit, EntryKey, Release, Result, SignalKind, Store,
};
use swarm_core::run::{Limit, NewRun, Parent, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

/// How long a lease of these clauses lasts, in milliseconds.
pub(super) const TTL_MS: i64 = 10_000;

pub(super) const TTL: Duration = Duration::from_millis(TTL_MS as u64);

pub(super) fn t(ms: i64) -> Timestamp {
    Timestamp(1_700_000_000_000 + ms)
}

macro_rules! named {
    ($($short:ident: $name:ident),*) => {
        $(pub(super) fn $short(text: &str) -> $name {
            $name::new(text).expect("the clauses use valid names")
        })*
    };
}

named!(run: RunId, worker: WorkerId, queue: QueueName, step: StepId, node: NodeName,
       block_id: BlockId, channel: ChannelName, graph: GraphName);

/// A run of graph `g` on queue `q`.
pub(super) fn new_run(id: &str) -> NewRun {
    NewRun {
        id: run(id),
        graph: graph("g"),
        graph_hash: GraphHash("hash-of-g".into()),
        queue: queue("q"),
        input: Arc::new(json!({ "of": id })),
        parent: None,
        priority: 0,
        labels: BTreeMap::from([("issue".to_owned(), id.to_owned())]),
        limit: Limit::default(),
    }
}

/// A run that `parent` started.
pub(super) fn child(id: &str, parent: &str, awaited: bool) -> NewRun {
    let parent = Parent { run: run(parent), step: step("work#1"), awaited };
    NewRun { parent: Some(parent), ..new_run(id) }
}

/// Claims this run for `w1` at moment 0.
pub(super) async fn claim(store: &dyn Store, id: &str) -> Result<Claim> {
    let claim = store.claim(&run(id), &worker("w1"), t(0), TTL).await?;
    Ok(claim.expect("the run is claimable"))
}

/// Creates a run and claims it.
pub(super) async fn claimed(store: &dyn Store, id: &str) -> Result<Claim> {
    store.create_run(new_run(id), t(0)).await?;
    claim(store, id).await
}

/// A commit by this claim that changes nothing yet.
pub(super) fn commit(claim: &Claim) -> Commit {
    Commit::new(claim.run.start.id.clone(), claim.run.epoch, t(1))
}

/// A commit that only lets go.
pub(super) fn release(claim: &Claim, release: Release) -> Commit {
    Commit { release: Some(release), ..commit(claim) }
}

pub(super) fn waiting() -> Release {
    Release::Waiting { wake_at: None, seen: 0 }
}

pub(super) fn succeeded(output: Value) -> Release {
    let output = Some(Arc::new(output));
    Release::Ended { status: RunStatus::Succeeded, output, failure: None }
}

pub(super) fn cursor(supersteps: u32) -> Cursor {
    let active = Activation {
        step: step("work#1"),
        node: node("work"),
        visit: 1,
        item: None,
        frame: None,
        attempts: 0,
        phase: Phase::Due,
        error: None,
    };
    Cursor { active: vec![active], supersteps, ..Cursor::default() }
}

pub(super) fn checkpoint(seq: u64, deltas: Vec<ChannelDelta>) -> CheckpointWrite {
    let supersteps = u32::try_from(seq).expect("few checkpoints");
    CheckpointWrite { seq, cursor: cursor(supersteps), deltas }
}

pub(super) fn full(name: &str, value: Value) -> ChannelDelta {
    ChannelDelta { channel: channel(name), change: Change::Full(Arc::new(value)) }
}

pub(super) fn append(name: &str, items: Value) -> ChannelDelta {
    ChannelDelta { channel: channel(name), change: Change::Append(Arc::new(items)) }
}

pub(super) fn merge(name: &str, entries: Value) -> ChannelDelta {
    ChannelDelta { channel: channel(name), change: Change::Merge(Arc::new(entries)) }
}

pub(super) fn ended_step(id: &str, seq: u64) -> StepRecord {
    StepRecord {
        step: step(id),
        node: node("work"),
        seq,
        attempt: 1,
        ending: StepEnding::Output(Arc::new(json!({ "by": id }))),
        started_at: t(0),
        ended_at: t(1),
    }
}

pub(super) fn event(word: &'static str) -> NewEvent {
    NewEvent::step(EventKind::of("test.said"), &step("work#1"), json!({ "word": word }))
}

pub(super) fn block(id: &str, of: &str) -> Block {
    let ask = Ask::choice(Reason::AmbiguousSpec, "Which way?", &["left", "right"]);
    Block {
        remind_at: Some(t(1000)),
        ..Block::open(block_id(id), run(of), step("work#1"), ask, t(1))
    }
}

pub(super) fn person(login: &str) -> Answerer {
    Answerer { login: login.to_owned(), via: "cli".to_owned(), permission: "write".to_owned() }
}

pub(super) fn named(name: &str) -> SignalKind {
    SignalKind::Named { name: name.to_owned(), payload: Arc::new(json!({ "n": name })) }
}

pub(super) fn key(claim: &Claim, key: &str) -> EntryKey {
    let run = claim.run.start.id.clone();
    EntryKey { run, epoch: claim.run.epoch, step: step("work#1"), key: key.to_owned() }
}

pub(super) fn usd(micros: u64) -> Spend {
    Spend { usd: UsdMicros(micros), tokens: 0 }
}

/// The untaken signals of a run, without their numbers.
pub(super) async fn mailbox(store: &dyn Store, id: &str) -> Result<Vec<SignalKind>> {
    Ok(store.signals(&run(id)).await?.into_iter().map(|signal| signal.kind).collect())
}

/// The names of the untaken named signals of a run.
pub(super) async fn names(store: &dyn Store, id: &str) -> Result<Vec<String>> {
    let kinds = mailbox(store, id).await?;
    Ok(kinds
        .into_iter()
        .filter_map(|kind| match kind {
            SignalKind::Named { name, .. } => Some(name),
            SignalKind::Answered { .. }
            | SignalKind::ChildEnded { .. }
            | SignalKind::Cancel { .. } => None,
        })
        .collect())
}

pub(super) async fn status(store: &dyn Store, id: &str) -> Result<RunStatus> {
    Ok(store.run(&run(id)).await?.expect("the run is there").status)
}

/// Everything about runs that can be read of a store, as text: two stores that went through the
/// same history read the same.
///
/// # Errors
/// Those of reading.
pub async fn everything(store: &dyn Store) -> Result<String> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for record in store.runs(&swarm_core::port::store::RunFilter::default()).await? {
        let id = &record.start.id;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{record:?}");
        let _ = writeln!(text, "{:?}", store.checkpoint(id, None).await?);
        let listed = store.checkpoints(id, &CheckpointFilter::default()).await?;
        let _ = writeln!(text, "{listed:?}");
        for info in &listed {
            let _ = writeln!(text, "{:?}", store.checkpoint(id, Some(info.seq)).await?);
        }
        let _ = writeln!(text, "{:?}", store.steps(id).await?);
        let _ = writeln!(text, "{:?}", store.events(id, 0, 0).await?);
        let _ = writeln!(text, "{:?}", store.signals(id).await?);
        let _ = writeln!(text, "{:?}", store.entries(id, &step("work#1")).await?);
    }
    let _ = writeln!(text, "{:?}", store.blocks(None, None).await?);
    Ok(text)
}

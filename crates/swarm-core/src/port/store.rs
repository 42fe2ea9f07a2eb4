//! The store is the truth: runs, checkpoints, effects, questions, signals, events.
//!
//! Every write of a worker carries the epoch of its claim and fails as a whole with
//! [`Error::Fenced`] if the run was claimed again since. Each method is one transaction: after
//! it returns `Ok`, all of it will be found on restart; after an error, none of it is there,
//! except for [`Error::Unknown`], where reading again tells.

mod archive;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::checkpoint::{ChannelDelta, Checkpoint, Cursor, StepRecord};
use crate::escalation::{Answerer, Block, BlockStatus};
use crate::event::{Event, NewEvent};
use crate::failure::Failure;
use crate::id::{BlockId, GraphHash, GraphName, QueueName, RunId, StepId, WorkerId};
use crate::port::records::Records;
use crate::run::{Epoch, Limit, NewRun, RunRecord, RunStatus};
use crate::spend::Spend;
use crate::time::Timestamp;

pub use self::archive::{
    Archive, CheckpointFilter, CheckpointInfo, CopyRun, DeleteError, Edit, EditError, Fork,
    GRAPH_GRACE, Keep, Pruned, Retention,
};

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum Error {
    /// The run was claimed again since, or this claim has let go of it: stop working on it at
    /// once.
    #[error("run `{run}` is no longer ours: its epoch is {}, ours {}", .found.0, .ours.0)]
    Fenced {
        /// The run.
        run: RunId,
        /// The epoch of the writer.
        ours: Epoch,
        /// The epoch there is.
        found: Epoch,
    },
    /// There is no such thing.
    #[error("no {what} `{id}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The request contradicts itself or what is stored; nothing was changed.
    #[error("{what} of `{id}` is not valid: {why}")]
    Invalid {
        /// Which part of the request.
        what: &'static str,
        /// Whose it is.
        id: String,
        /// What was found, and what would be right.
        why: String,
    },
    /// The stored form cannot be read; nothing was changed.
    #[error("stored {what} of `{id}` cannot be read: {why}")]
    Corrupt {
        /// What was read.
        what: &'static str,
        /// Whose it is.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The answer to a commit was lost: it may or may not have happened.
    #[error("commit outcome unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The backend failed; nothing was changed.
    #[error("store failed")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// A graph's text, kept as long as a run is pinned to it.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphText {
    /// The content hash.
    pub hash: GraphHash,
    /// Its name.
    pub name: GraphName,
    /// Its version as written.
    pub version: String,
    /// The text, imports resolved, as the loader reads it again.
    pub text: String,
}

/// A run in a worker's hands.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The run; `run.epoch` is this claim's.
    pub run: RunRecord,
    /// Its last checkpoint; `None` before the first.
    pub checkpoint: Option<Checkpoint>,
    /// Steps that finished after that checkpoint.
    pub finished: Vec<StepRecord>,
}

/// Something that wakes a run, waiting to be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its number in the store; later signals have higher ones.
    pub id: u64,
    /// The run it is for.
    pub run: RunId,
    /// What it is.
    pub kind: SignalKind,
    /// When it was sent.
    pub at: Timestamp,
}

/// What a signal is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// One from outside or from a child: a name and a payload.
    Named {
        /// Its name, such as `worker.finished`.
        name: String,
        /// Its payload.
        payload: Arc<Value>,
    },
    /// A block was answered.
    Answered {
        /// The block.
        block: BlockId,
        /// The answer.
        value: Arc<Value>,
    },
    /// An awaited child ended.
    ChildEnded {
        /// The child.
        run: RunId,
        /// How.
        status: RunStatus,
        /// Its output, if it succeeded.
        output: Option<Arc<Value>>,
        /// Its failure, if it failed.
        failure: Option<Failure>,
    },
    /// Someone wants the run to stop.
    Cancel {
        /// Who.
        by: String,
    },
}

/// A signal that a commit sends to other runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Who shall get it.
    pub to: Recipient,
    /// What it is.
    pub kind: SignalKind,
}

/// Whom a commit sends a signal to. Runs that have ended do not get it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Recipient {
    /// This run.
    Run(RunId),
    /// Every ancestor of the committing run.
    Ancestors,
    /// Every direct child of the committing run that has not ended.
    Children,
}

/// What a worker writes about its run: one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The run.
    pub run: RunId,
    /// The epoch of the claim.
    pub epoch: Epoch,
    /// The moment of the commit.
    pub at: Timestamp,
    /// The checkpoint before the first superstep, number 0, of a run that has none yet: it is
    /// there before the rest of the commit, whose own checkpoint may follow it as number 1.
    pub first: Option<CheckpointWrite>,
    /// The next checkpoint: cursor and what changed of the state. Removes the finished steps'
    /// claim to be replayed.
    pub checkpoint: Option<CheckpointWrite>,
    /// Steps that ended. One of the same step and attempt that exists already is left as it is.
    pub steps: Vec<StepRecord>,
    /// Questions asked, open ones of this run. A block that exists already is left as it is; a
    /// new one sends `worker.blocked` to all ancestors.
    pub blocks: Vec<Block>,
    /// Open blocks of this run that are no longer needed; others are passed over.
    pub withdrawn: Vec<BlockId>,
    /// Runs started. One that exists already is left as it is; a parent must exist.
    pub children: Vec<NewRun>,
    /// Signals of this run that were taken; one that was taken before is passed over.
    pub taken: Vec<u64>,
    /// Signals sent; their runs become claimable.
    pub outgoing: Vec<Outgoing>,
    /// A new limit of this run.
    pub limit: Option<Limit>,
    /// The version of its graph that the run is pinned to from now on.
    pub graph: Option<GraphHash>,
    /// What to tell.
    pub events: Vec<NewEvent>,
    /// What becomes of the run; `None`: it stays claimed.
    pub release: Option<Release>,
}

impl Commit {
    /// A commit that changes nothing yet.
    #[must_use]
    pub fn new(run: RunId, epoch: Epoch, at: Timestamp) -> Self {
        Self {
            run,
            epoch,
            at,
            first: None,
            checkpoint: None,
            steps: Vec::new(),
            blocks: Vec::new(),
            withdrawn: Vec::new(),
            children: Vec::new(),
            taken: Vec::new(),
            outgoing: Vec::new(),
            limit: None,
            graph: None,
            events: Vec::new(),
            release: None,
        }
    }
}

/// A checkpoint as a difference to the one before it.
#[derive(Clone, Debug)]
pub struct CheckpointWrite {
    /// Its number: one more than the last, 0 for the first.
    pub seq: u64,
    /// The place.
    pub cursor: Cursor,
    /// What changed of the state; each channel at most once.
    pub deltas: Vec<ChannelDelta>,
}

/// What becomes of a run whose worker lets go of it.
#[derive(Clone, Debug)]
pub enum Release {
    /// Claimable at once.
    Ready,
    /// Parked until a signal comes, at the latest until `wake_at`. If a signal above `seen` is
    /// there already, the run becomes ready instead. Signals up to `seen` that were not taken
    /// stay for a later wait and do not wake the run.
    Waiting {
        /// When to wake it in any case.
        wake_at: Option<Timestamp>,
        /// The highest number of a signal that this claim has looked at; 0 for none.
        seen: u64,
    },
    /// The end. Sends `ChildEnded` to an awaiting parent and `worker.finished` to all ancestors,
    /// withdraws open blocks, and frees what journal entries without a result still reserve.
    Ended {
        /// Succeeded, failed or cancelled.
        status: RunStatus,
        /// The output, if it succeeded.
        output: Option<Arc<Value>>,
        /// The failure, if it failed.
        failure: Option<Failure>,
    },
}

/// What a commit did beyond the run itself.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The events as numbered.
    pub events: Vec<Event>,
    /// Runs that became claimable: children, runs that a signal woke, and the run itself if it
    /// was released and is ready. Hints for the queue.
    pub woken: Vec<RunId>,
}

/// Claims with leases and epochs.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Claims the most urgent claimable run of these queues: highest priority, then first
    /// created (in the order of the store, whatever clocks said). Claimable is: ready; running
    /// with an expired lease; waiting with `wake_at` reached. A run whose checkpoint is of a
    /// newer format than ours is passed over: a newer worker will take it.
    async fn claim_next(
        &self,
        worker: &WorkerId,
        queues: &[QueueName],
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>>;

    /// Claims this run if it is claimable.
    async fn claim(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>>;

    /// Claims this run if nobody works on it, even while it waits for something: for a change
    /// that is not work, such as moving it to another version of its graph.
    async fn claim_idle(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>>;

    /// Sets the end of the lease to `now + ttl`; an expired lease that nobody took is still ours.
    async fn renew(&self, run: &RunId, epoch: Epoch, now: Timestamp, ttl: Duration) -> Result<()>;
}

/// What workers write about runs.
#[async_trait]
pub trait Commits: Send + Sync {
    /// Starts a run; `false` if a run of this id is there already.
    async fn create_run(&self, run: NewRun, at: Timestamp) -> Result<bool>;

    /// Starts a run and claims it in the same transaction; `None` if a run of this id is there
    /// already. The claim is that of a run that was started and claimed at `now`.
    async fn create_claimed(
        &self,
        run: NewRun,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>>;

    /// Writes one commit.
    async fn commit(&self, commit: Commit) -> Result<Committed>;

    /// Raises a run's limit by a person's decision; no part of it is ever lowered, and
    /// `None` lifts that part altogether. Returns the limit there is now. Needs no epoch: the
    /// run may be an ancestor of the one that asked.
    async fn raise_limit(&self, run: &RunId, limit: Limit, at: Timestamp) -> Result<Limit>;

    /// Signals not yet taken, oldest first.
    async fn signals(&self, run: &RunId) -> Result<Vec<Signal>>;

    /// Sends a signal from outside; the run becomes ready if it waits. `key` makes it
    /// idempotent per run. `false` if that key was sent before, or the run has ended.
    async fn signal(
        &self,
        run: &RunId,
        key: Option<&str>,
        kind: SignalKind,
        at: Timestamp,
    ) -> Result<bool>;
}

/// One journal entry of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key inside the step, stable over attempts.
    pub key: String,
    /// What was meant to be done.
    pub intent: Value,
    /// What was reserved for it.
    pub reserved: Spend,
    /// What it gave; `None` while only the intent is there.
    pub result: Option<Arc<Value>>,
}

/// Whether an intent was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// It is durable now.
    New,
    /// There was an entry of this key; it is unchanged.
    Existing(Entry),
    /// A limit does not allow the reservation; nothing was written.
    OverLimit {
        /// Whose limit: the run or one of its ancestors.
        run: RunId,
        /// The limit.
        limit: Limit,
        /// What has been spent and reserved under it.
        used: Spend,
    },
}

/// Where an entry belongs and by what right it is written.
#[derive(Clone, Debug)]
pub struct EntryKey {
    /// The run.
    pub run: RunId,
    /// The epoch of the claim.
    pub epoch: Epoch,
    /// The step.
    pub step: StepId,
    /// The key inside the step.
    pub key: String,
}

/// The journal of effects and costly calls inside a step.
#[async_trait]
pub trait Journal: Send + Sync {
    /// The entries of a step, in the order of their writing.
    async fn entries(&self, run: &RunId, step: &StepId) -> Result<Vec<Entry>>;

    /// Writes an intent and reserves its cost with the run and all its ancestors. A reservation
    /// of nothing is never over a limit.
    async fn begin(
        &self,
        key: EntryKey,
        intent: Value,
        reserve: Spend,
        at: Timestamp,
    ) -> Result<Begun>;

    /// Writes a result, frees the reservation, and books `spend` with the run and all its
    /// ancestors. Writing it a second time changes nothing and returns no events. Works without
    /// a `begin`.
    async fn finish(
        &self,
        key: EntryKey,
        result: Arc<Value>,
        spend: Spend,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>>;

    /// Stores events of a step that is still at work.
    async fn note(
        &self,
        run: &RunId,
        epoch: Epoch,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>>;
}

/// Why an answer was not taken.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// There is no such block.
    #[error("no block `{0}`")]
    Unknown(BlockId),
    /// Another answer was first; the winner is in the block.
    #[error("block `{}` was already answered", .0.id)]
    AlreadyAnswered(Box<Block>),
    /// The question is no longer asked.
    #[error("block `{}` was withdrawn", .0.id)]
    Withdrawn(Box<Block>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Durable questions.
#[async_trait]
pub trait Questions: Send + Sync {
    /// Closes an open block with its only answer, wakes its run with `Answered`, and sends
    /// `worker.answered` to the run's ancestors. The same answer by the same person (login)
    /// again changes nothing and succeeds.
    async fn answer(
        &self,
        block: &BlockId,
        value: Arc<Value>,
        by: Answerer,
        at: Timestamp,
    ) -> std::result::Result<Block, AnswerError>;

    /// One block.
    async fn block(&self, block: &BlockId) -> Result<Option<Block>>;

    /// Blocks, oldest first, of one run or of all, in one status or in any.
    async fn blocks(&self, run: Option<&RunId>, status: Option<BlockStatus>) -> Result<Vec<Block>>;
}

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only in one of these statuses; empty is any.
    pub status: Vec<RunStatus>,
    /// Only of this graph.
    pub graph: Option<GraphName>,
    /// Only children of this run.
    pub parent: Option<RunId>,
    /// Only runs that no other run started.
    pub only_roots: bool,
    /// Only with all these labels.
    pub labels: Vec<(String, String)>,
    /// Only runs older than this one, in the order of the list.
    pub before: Option<RunId>,
    /// At most so many; 0 is no limit.
    pub limit: usize,
}

/// What people and tools read.
#[async_trait]
pub trait History: Send + Sync {
    /// One run.
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>>;

    /// Runs, newest first, in the order of the store. [`Error::NotFound`] if `before` is unknown.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>>;

    /// Events of a run with a number above `after`, oldest first; 0 for `limit` is no limit.
    async fn events(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Event>>;

    /// The checkpoint of this number, or the last.
    async fn checkpoint(&self, run: &RunId, seq: Option<u64>) -> Result<Option<Checkpoint>>;

    /// Checkpoints without their states, newest first; empty for an unknown run.
    async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> Result<Vec<CheckpointInfo>>;

    /// Steps that ended, oldest first.
    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>>;
}

/// Graph texts by content.
#[async_trait]
pub trait Graphs: Send + Sync {
    /// Keeps a text; keeping it again changes nothing.
    async fn put_graph(&self, graph: GraphText) -> Result<()>;

    /// A text by its hash.
    async fn graph(&self, hash: &GraphHash) -> Result<Option<GraphText>>;
}

/// A whole store.
pub trait Store:
    Leases
    + Commits
    + Journal
    + Questions
    + History
    + Archive
    + Graphs
    + Records
    + Send
    + Sync
    + 'static
{
}

impl<T> Store for T where
    T: Leases
        + Commits
        + Journal
        + Questions
        + History
        + Archive
        + Graphs
        + Records
        + Send
        + Sync
        + 'static
{
}

//! What people do to whole histories: fork, edit, copy, delete, prune.
//!
//! None of these needs a claim, and none touches what a claim holds: a run that somebody works on
//! may be forked, copied and pruned, but neither edited nor deleted. Nothing is shared between
//! runs: a fork or a copy stands by itself, and goes on when what it came from is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use super::{Error, Result};
use crate::checkpoint::{ChannelDelta, Place};
use crate::id::{ChannelName, GraphHash, NodeName, QueueName, RunId, WorkerId};
use crate::run::{Limit, RunStatus};
use crate::time::Timestamp;

/// Which checkpoints of a run to list; each part narrows, and all together hold.
#[derive(Clone, Debug, Default)]
pub struct CheckpointFilter {
    /// Only where this node is due, at work or waiting.
    pub active: Option<NodeName>,
    /// Only where a step of this node ended since the checkpoint before. A step that is not
    /// stored on its own, such as a wait, is found by its being gone from the cursor, which needs
    /// the checkpoint before to be there still.
    pub ended: Option<NodeName>,
    /// Only those written at this moment or later.
    pub since: Option<Timestamp>,
    /// Only those written before this moment.
    pub until: Option<Timestamp>,
    /// Only those with a lower number: where the list before has stopped.
    pub before: Option<u64>,
    /// At most so many; 0 is no limit.
    pub limit: usize,
}

/// A checkpoint in a list, without its state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CheckpointInfo {
    /// Its number in the run.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it by hand; `None` for the engine.
    pub edited_by: Option<String>,
    /// Supersteps finished.
    pub supersteps: u32,
    /// What is due, at work or waiting, in the order of the cursor.
    pub active: Vec<Place>,
    /// The channels that it changed, ordered by name.
    pub changed: Vec<ChannelName>,
}

/// A new run that begins where another one was.
#[derive(Clone, Debug, PartialEq)]
pub struct Fork {
    /// The run to fork. Any: new, at work, waiting or ended.
    pub from: RunId,
    /// The checkpoint to begin from.
    pub seq: u64,
    /// The id of the new run; forking to the same id twice forks once.
    pub id: RunId,
    /// The version of the graph that it is pinned to; `None` is the source's now. A checkpoint
    /// from before a migration belongs to the version before it.
    pub graph: Option<GraphHash>,
    /// The queue whose workers may claim it.
    pub queue: QueueName,
    /// Higher is claimed first.
    pub priority: i32,
    /// Its labels; none of the source's.
    pub labels: BTreeMap<String, String>,
    /// Its limit; none of the source's. What the source has spent does not count under it.
    pub limit: Limit,
}

/// A state changed by a person, as differences that its reducers have made.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The run.
    pub run: RunId,
    /// The number of the checkpoint that the person has seen; it must be the last one.
    pub expected: u64,
    /// What changes; each channel at most once.
    pub deltas: Vec<ChannelDelta>,
    /// Who.
    pub by: String,
}

/// Why a state was not edited; nothing was changed.
#[derive(Debug, ThisError)]
pub enum EditError {
    /// Somebody works on it.
    #[error("run `{run}` is being worked on{}: edit it once it waits", by_worker(.by.as_ref()))]
    Claimed {
        /// The run.
        run: RunId,
        /// Who.
        by: Option<WorkerId>,
    },
    /// It has ended: there is nothing left that the state could change.
    #[error("run `{run}` has {}: fork it at an earlier checkpoint instead", .status.as_str())]
    Ended {
        /// The run.
        run: RunId,
        /// How.
        status: RunStatus,
    },
    /// It has gone on since the person looked.
    #[error("run `{run}` is at checkpoint {}, not {expected}: look again, then edit that", seq_text(*.found))]
    Moved {
        /// The run.
        run: RunId,
        /// What the person had seen.
        expected: u64,
        /// What there is; `None` before the first.
        found: Option<u64>,
    },
    /// The store failed or refuses the deltas.
    #[error(transparent)]
    Store(#[from] Error),
}

fn by_worker(worker: Option<&WorkerId>) -> String {
    worker.map(|worker| format!(" by `{worker}`")).unwrap_or_default()
}

fn seq_text(seq: Option<u64>) -> String {
    seq.map_or_else(|| "none".to_owned(), |seq| seq.to_string())
}

/// A whole history under another id.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyRun {
    /// The run to copy.
    pub from: RunId,
    /// The id of the copy; copying to the same id twice copies once.
    pub id: RunId,
    /// Whether workers may go on with the copy where the source is now. Only of a run that has
    /// not ended.
    pub claimable: bool,
}

/// Why a run was not deleted; nothing was changed.
#[derive(Debug, ThisError)]
pub enum DeleteError {
    /// It, or a run below it, has not ended.
    #[error("run `{run}` is {}: cancel it first", .status.as_str())]
    Live {
        /// The run that has not ended.
        run: RunId,
        /// Where it stands.
        status: RunStatus,
    },
    /// A run above it has not ended, and would start it again after a crash.
    #[error("run `{run}` was started by `{by}`, which has not ended: delete that one instead")]
    Needed {
        /// The run.
        run: RunId,
        /// The run above it.
        by: RunId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// How many checkpoints of a run are kept. The last one always is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Keep {
    /// At most so many, the last ones; `None` is any number, and 0 is 1.
    pub last: Option<u64>,
    /// Only those not older than this; `None` is any age.
    pub max_age: Option<Duration>,
}

impl Keep {
    /// Keeps all.
    pub const ALL: Self = Self { last: None, max_age: None };
}

/// What is kept of histories, and how long. The default keeps all for ever.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Retention {
    /// Checkpoints of runs that have not ended.
    pub live: Keep,
    /// Checkpoints of runs that have.
    pub ended: Keep,
    /// Runs are removed, with all below them, so long after the last of them has ended; `None`
    /// is never.
    pub remove_after: Option<Duration>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// Checkpoints, not counting those of removed runs.
    pub checkpoints: u64,
    /// Whole runs.
    pub runs: u64,
    /// Graph texts.
    pub graphs: u64,
}

/// How long a graph text stays after a [`prune`](Archive::prune) has first found that no run
/// needs it: whoever has [put](super::Graphs::put_graph) one has so long to start its run.
pub const GRAPH_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// What people do to whole histories.
#[async_trait]
pub trait Archive: Send + Sync {
    /// Starts a run whose checkpoint 0 is the named one of another run: its state, and its cursor
    /// [begun anew](crate::checkpoint::Cursor::begun_anew). `false` if a run of this id is there
    /// already.
    ///
    /// After it returns `Ok`, the fork is `ready`, is pinned to the named version of the same
    /// graph, has the same input, no parent, and nothing spent; its record and its first event,
    /// `run.forked`, say where it came from.
    ///
    /// - Questions are asked anew, under ids of the fork, the answered ones of a step that is not
    ///   over yet included: an answer, and above all an approval, is given to one run.
    /// - Signals that the source has not taken stay its own; a wait begins again, with its whole
    ///   time-out.
    /// - A child that was waited for is started anew under an id of the fork; those that were
    ///   detached are not started again, for their steps are over.
    /// - Of each step that is not over, what its journal held when the checkpoint was written is
    ///   copied: results, which are then not made again, and intents of effects without a result,
    ///   which are then probed. What was journaled later is not there, so the fork does it itself.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run or a checkpoint that is not there (any more);
    /// [`Error::Invalid`] where nothing is left to do, or the run failed: fork an earlier one.
    async fn fork(&self, fork: Fork, at: Timestamp) -> Result<bool>;

    /// Writes one checkpoint with these changes to a run that nobody works on; returns its
    /// number. The cursor stays, as does whether the run is ready or waits. Steps that have ended
    /// since the last checkpoint are kept for the next claim.
    ///
    /// After it returns `Ok`, the checkpoint, its author, and the event `state.edited` with who,
    /// the number and the channels will be found.
    ///
    /// # Errors
    /// [`EditError`]; [`Error::Invalid`] for deltas that do not fit their channels.
    async fn edit(&self, edit: Edit, at: Timestamp) -> std::result::Result<u64, EditError>;

    /// Copies a run with its whole history: checkpoints, steps, journal, events, questions, what
    /// it has spent. `false` if a run of this id is there already.
    ///
    /// After it returns `Ok`, all of it reads under the new id as it did in the source at one
    /// moment, followed by the event `run.copied`. Questions have ids of the copy. The copy has
    /// no parent; runs below the source and signals not yet taken are not copied, nor what the
    /// source has reserved.
    ///
    /// Nobody goes on with it unless that is asked for: the copy of a run that has not ended is
    /// `cancelled`, its open questions withdrawn. If it is asked for, the copy is `ready`, and one
    /// more checkpoint holds its cursor begun anew, as a [`fork`](Self::fork)'s; the questions of
    /// steps that are not over are then not copied, for they are asked anew.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run; [`Error::Invalid`] for a claimable copy of a run
    /// that has ended.
    async fn copy_run(&self, copy: CopyRun, at: Timestamp) -> Result<bool>;

    /// Deletes a run and all below it, with all that belongs to them; returns how many runs that
    /// were: 0 if there is none of this id.
    ///
    /// After it returns `Ok`, no read finds any of it, and the ids may be used again. Forks and
    /// copies stay.
    ///
    /// # Errors
    /// [`DeleteError`].
    async fn delete_run(&self, run: &RunId) -> std::result::Result<u64, DeleteError>;

    /// Removes what a retention does not keep, of these runs or of all.
    ///
    /// After it returns `Ok`, each checkpoint that is left reads as before, up to the last one,
    /// which always is. Of a run that lost checkpoints, the journal of steps that were over at
    /// the first one left is gone as well; steps, events and questions stay as long as the run.
    /// Runs are removed by whole trees only, and only where all have ended. A graph text goes
    /// when no run has needed it for [`GRAPH_GRACE`].
    ///
    /// This is not one transaction but several: after an error or a crash, a part of it is done,
    /// and doing it again does the rest.
    ///
    /// # Errors
    /// The store's failure.
    async fn prune(
        &self,
        retention: &Retention,
        only: Option<&[RunId]>,
        now: Timestamp,
    ) -> Result<Pruned>;
}

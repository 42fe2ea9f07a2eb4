//! Moving live runs to another version of their graph, by a checked plan.
//!
//! [`plan`] is pure: two versions, a mapping and where a run stands in; what is written, or every
//! obstacle, out. What a newcomer gets wrong: ids do not move. The steps that a run stands in
//! keep the ids that they began with, whatever their nodes are called now, so a question asked
//! before is answered by its old id, and a child or an effect begun before is found again.

mod planner;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::json;
use swarm_core::checkpoint::{ChannelDelta, Checkpoint, Cursor, Phase};
use swarm_core::escalation::Block;
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{ChannelName, NodeName, RunId, StepId, WorkerId};
use swarm_core::port::store::{self, CheckpointWrite, Commit, Release, RunFilter, Signal};
use swarm_core::run::{RunRecord, RunStatus};

use crate::engine::{Engine, Error};
use crate::expr::Expr;
use crate::graph::Graph;

pub use self::planner::plan;

/// How a run's place and state become those of the new version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// Nodes by their old name, with the new one. Others keep their name.
    pub rename: BTreeMap<NodeName, NodeName>,
    /// Channels whose value may be lost.
    pub drop: BTreeSet<ChannelName>,
    /// Channels of the new version with an expression over the old `state`, `input` and `run`.
    pub set: BTreeMap<ChannelName, Expr>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'s> {
    /// The run.
    pub run: &'s RunRecord,
    /// Its last checkpoint; `None` before the first.
    pub checkpoint: Option<&'s Checkpoint>,
    /// The questions that its steps wait for.
    pub blocks: &'s [Block],
    /// Steps that ended after the checkpoint.
    pub finished: &'s [StepId],
    /// Steps that have written to their journal.
    pub begun: &'s BTreeSet<StepId>,
    /// Signals that nothing has taken yet.
    pub signals: &'s [Signal],
}

/// What a move writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Move {
    /// The place in the new version; `None`: the run has not begun.
    pub cursor: Option<Cursor>,
    /// How the state changes.
    pub deltas: Vec<ChannelDelta>,
    /// What becomes of the run, in words.
    pub notes: Vec<String>,
}

/// Why a run cannot be moved.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Obstacle {
    /// What was found.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}

/// What a version would mean for a live run of another one.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// The run.
    pub run: RunRecord,
    /// What would become of it, or why it cannot be moved.
    pub result: Result<Vec<String>, Vec<Obstacle>>,
}

/// What became of a move.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Migration {
    /// It is on the new version; what became of it, in words.
    Moved(Vec<String>),
    /// It stays where it was.
    Refused(Vec<Obstacle>),
    /// Somebody works on it: try again later.
    Busy,
    /// There is nothing to move: it has ended, or is on this version already.
    Settled,
}

/// What the store says of where a run stands, beside its checkpoint.
struct Around {
    blocks: Vec<Block>,
    begun: BTreeSet<StepId>,
    signals: Vec<Signal>,
}

impl Engine {
    /// What moving them to this version would mean for all live runs of other versions of the
    /// same graph; nothing is changed.
    ///
    /// # Errors
    /// The store's failure, or an old version that cannot be had.
    pub async fn prospects(&self, to: &Graph, mapping: &Mapping) -> Result<Vec<Prospect>, Error> {
        let filter = RunFilter {
            status: vec![RunStatus::Ready, RunStatus::Running, RunStatus::Waiting],
            graph: Some(to.name().clone()),
            ..RunFilter::default()
        };
        let mut prospects = Vec::new();
        for run in self.store().runs(&filter).await? {
            if run.start.graph_hash == *to.hash() {
                continue;
            }
            let result = self.prospect(&run, to, mapping).await?;
            prospects.push(Prospect { run, result: result.map(|moved| moved.notes) });
        }
        Ok(prospects)
    }

    /// Moves one live run to this version, in one transaction, if nobody works on it and the
    /// plan has no obstacle. Recorded as `run.migrated` with both versions and who did it.
    ///
    /// # Errors
    /// The store's failure, or an old version that cannot be had. The run is then as it was; if
    /// it was claimed for the move, it is free again once that claim's lease ends.
    pub async fn migrate(
        &self,
        run: &RunId,
        to: &Graph,
        mapping: &Mapping,
        worker: &WorkerId,
        by: &str,
    ) -> Result<Migration, Error> {
        let found = self.store().run(run).await?;
        let found =
            found.ok_or_else(|| store::Error::NotFound { what: "run", id: run.to_string() })?;
        if found.status.is_final() || found.start.graph_hash == *to.hash() {
            return Ok(Migration::Settled);
        }
        // A run that cannot be moved is not even touched.
        if let Err(obstacles) = self.prospect(&found, to, mapping).await? {
            return Ok(Migration::Refused(obstacles));
        }
        self.keep(to).await?;
        let claim = self.store().claim_idle(run, worker, self.clock().now(), self.lease_ttl());
        let Some(claim) = claim.await? else { return Ok(Migration::Busy) };
        let mut commit = Commit::new(run.clone(), claim.run.epoch, self.clock().now());
        commit.release = Some(Release::Ready);
        let from = claim.run.start.graph_hash.clone();
        let result = if from == *to.hash() {
            // Another migration was first.
            Ok(Migration::Settled)
        } else {
            let old = self.graph_of(&claim.run).await?;
            let checkpoint = claim.checkpoint.as_ref();
            let finished: Vec<StepId> =
                claim.finished.iter().map(|record| record.step.clone()).collect();
            let around = self.around(run, checkpoint).await?;
            let at = Standing {
                run: &claim.run,
                checkpoint,
                blocks: &around.blocks,
                finished: &finished,
                begun: &around.begun,
                signals: &around.signals,
            };
            plan(&old, to, mapping, &at).map(|moved| {
                commit.checkpoint = moved.cursor.zip(checkpoint).map(|(cursor, last)| {
                    CheckpointWrite { seq: last.seq + 1, cursor, deltas: moved.deltas }
                });
                commit.graph = Some(to.hash().clone());
                let seq = commit.checkpoint.as_ref().map(|checkpoint| checkpoint.seq);
                let data = json!({ "from": from, "to": to.hash(), "by": by, "seq": seq });
                commit.events.push(NewEvent::run(EventKind::RUN_MIGRATED, data));
                Migration::Moved(moved.notes)
            })
        };
        match self.commit(commit).await {
            Ok(()) => Ok(result.unwrap_or_else(Migration::Refused)),
            Err(store::Error::Fenced { .. }) => Ok(Migration::Busy),
            Err(error) => Err(error.into()),
        }
    }

    async fn prospect(
        &self,
        run: &RunRecord,
        to: &Graph,
        mapping: &Mapping,
    ) -> Result<Result<Move, Vec<Obstacle>>, Error> {
        let id = &run.start.id;
        let old = self.graph_of(run).await?;
        let checkpoint = self.store().checkpoint(id, None).await?;
        let around = self.around(id, checkpoint.as_ref()).await?;
        let finished: Vec<StepId> = match &checkpoint {
            Some(last) => {
                let steps = self.store().steps(id).await?;
                let active = |step: &StepId| last.cursor.active.iter().any(|one| one.step == *step);
                steps.into_iter().map(|record| record.step).filter(active).collect()
            }
            None => Vec::new(),
        };
        let at = Standing {
            run,
            checkpoint: checkpoint.as_ref(),
            blocks: &around.blocks,
            finished: &finished,
            begun: &around.begun,
            signals: &around.signals,
        };
        Ok(plan(&old, to, mapping, &at))
    }

    async fn around(&self, run: &RunId, checkpoint: Option<&Checkpoint>) -> store::Result<Around> {
        let signals = self.store().signals(run).await?;
        let mut around = Around { blocks: Vec::new(), begun: BTreeSet::new(), signals };
        for activation in checkpoint.iter().flat_map(|last| &last.cursor.active) {
            if let Phase::Answer { blocks } = &activation.phase {
                for block in blocks {
                    around.blocks.extend(self.store().block(block).await?);
                }
            }
            if !self.store().entries(run, &activation.step).await?.is_empty() {
                around.begun.insert(activation.step.clone());
            }
        }
        Ok(around)
    }
}

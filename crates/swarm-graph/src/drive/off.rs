//! What will not go on: the items of a loop that failed, the losers of a race. Steps at work are
//! stopped, questions withdrawn, children cancelled.
//!
//! What a newcomer gets wrong: the cursor does not tell what was asked and started. A former
//! claim may have stored a question or a child of a step that is still due, so the store is asked.

use swarm_core::escalation::BlockStatus;
use swarm_core::id::StepId;
use swarm_core::port::store::{self, Outgoing, Recipient, RunFilter, SignalKind};
use swarm_core::run::RunStatus;

use super::Session;
use crate::race;

impl Session<'_> {
    /// Takes out what has lost a race.
    pub(super) fn call_off(&mut self) {
        if !self.graph.has_races {
            return;
        }
        let cursor = &mut self.checkpoint.cursor;
        let off = race::call_off(&self.graph, cursor, &mut self.pending.endings);
        self.pending.settled_events.extend(off.events);
        for activation in off.activations {
            self.lose(activation.step);
        }
    }

    /// A step that was taken out of the cursor with all below it: what is at work there is
    /// stopped, and what was asked and started is called back with the coming commit.
    pub(super) fn lose(&mut self, step: StepId) {
        self.is_dirty = true;
        for (other, token) in &self.tokens {
            if *other == step || other.is_below(&step) {
                token.cancel();
            }
        }
        self.pending.lost.insert(step);
    }

    /// Puts into the coming commit that what the lost steps have asked and started is called
    /// back.
    pub(super) async fn call_back(&mut self) -> store::Result<()> {
        let pending = &mut self.pending;
        let lost = std::mem::take(&mut pending.lost);
        if lost.is_empty() {
            return Ok(());
        }
        let is_lost =
            |step: &StepId| lost.contains(step) || lost.iter().any(|other| step.is_below(other));
        pending.blocks.retain(|block| !is_lost(&block.step));
        pending.children.retain(|child| {
            child.parent.as_ref().is_none_or(|parent| !parent.awaited || !is_lost(&parent.step))
        });
        let run = &self.run.start.id;
        let blocks = self.engine.store().blocks(Some(run), Some(BlockStatus::Open)).await?;
        let wall = self.checkpoint.cursor.wall.block.as_ref();
        let asked = blocks.into_iter().filter(|block| is_lost(&block.step));
        pending.withdrawn.extend(asked.map(|block| block.id).filter(|id| Some(id) != wall));
        let filter = RunFilter {
            parent: Some(run.clone()),
            status: vec![RunStatus::Ready, RunStatus::Running, RunStatus::Waiting],
            ..RunFilter::default()
        };
        for child in self.engine.store().runs(&filter).await? {
            if child.start.parent.is_some_and(|parent| parent.awaited && is_lost(&parent.step)) {
                let kind = SignalKind::Cancel { by: run.to_string() };
                pending.outgoing.push(Outgoing { to: Recipient::Run(child.start.id), kind });
            }
        }
        Ok(())
    }
}

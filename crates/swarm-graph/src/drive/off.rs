//! What will not go on: the items of a loop that failed, the losers of a race. Steps at work are
//! stopped, questions withdrawn, children cancelled.
//!
//! What a newcomer gets wrong: the cursor does not tell what was asked and started. A former
//! claim may have stored a question or a child of a step that is still due, so the store is asked.

use std::collections::BTreeSet;

use swarm_core::checkpoint::Activation;
use swarm_core::escalation::BlockStatus;
use swarm_core::id::StepId;
use swarm_core::port::store::{self, Outgoing, Recipient, RunFilter, SignalKind};
use swarm_core::run::RunStatus;

use super::Session;
use crate::{plan, race};

impl Session<'_> {
    /// Takes out what has lost a race.
    pub(super) fn call_off(&mut self) {
        if self.graph.races.is_empty() {
            return;
        }
        let cursor = &mut self.checkpoint.cursor;
        let off = race::call_off(&self.graph, cursor, &mut self.pending.endings);
        self.pending.settled_events.extend(off.events);
        for activation in off.activations {
            self.is_dirty = true;
            if let Some(token) = self.tokens.get(&activation.step) {
                token.cancel();
            }
            self.pending.lost.insert(activation.step);
        }
    }

    /// A loop that failed leaves its other items. Items still at work are stopped; when they end,
    /// they find no loop.
    pub(super) fn drop_items(&mut self, group: &Activation, at_work: &BTreeSet<StepId>) {
        let cursor = &mut self.checkpoint.cursor;
        for item in plan::live_items(cursor, group) {
            if let Some(token) = self.tokens.get(&item.step) {
                token.cancel();
            }
        }
        cursor.active.retain(|other| {
            other.item.is_none()
                || other.node != group.node
                || other.visit != group.visit
                || at_work.contains(&other.step)
        });
        self.pending.lost.insert(group.step.clone());
    }

    /// Puts into the coming commit that what the lost steps have asked and started is called
    /// back.
    pub(super) async fn call_back(&mut self) -> store::Result<()> {
        let pending = &mut self.pending;
        let lost = std::mem::take(&mut pending.lost);
        if lost.is_empty() {
            return Ok(());
        }
        let is_lost = |step: &StepId| {
            let of_loop = step.as_str().split_once('/').map(|(of_loop, _)| of_loop);
            lost.contains(step) || of_loop.is_some_and(|of_loop| lost.contains(of_loop))
        };
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

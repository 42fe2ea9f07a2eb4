//! The end of a superstep: the one commit, and whether the run goes on, waits, ends or is handed
//! back.
//!
//! What a superstep came to is decided by the pure `settle`; this writes it down.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Change, ChannelDelta, Checkpoint, Phase};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::StepId;
use swarm_core::port::store::{
    self, CheckpointWrite, Commit, Outgoing, Recipient, Release, SignalKind,
};
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;

use super::{Held, Opening, Pending, Session, WAIT_IN_PLACE};
use crate::cancel;
use crate::engine::Driven;
use crate::graph::Durability;
use crate::plan;
use crate::settle::{self, Next};
use crate::turn;

impl Session<'_> {
    /// Ends the superstep: reduces, routes, commits. `Some` when the run now rests.
    pub(super) async fn settle(&mut self) -> store::Result<Option<Driven>> {
        let endings = std::mem::take(&mut self.pending.endings);
        let active_before: BTreeSet<StepId> = self
            .checkpoint
            .cursor
            .active
            .iter()
            .map(|activation| activation.step.clone())
            .collect();
        let mut deltas = self.held.as_mut().map(|held| std::mem::take(&mut held.deltas));
        let deltas = match &mut deltas {
            None => std::mem::take(&mut self.pending.deltas),
            Some(held) => {
                let newer = std::mem::take(&mut self.pending.deltas);
                settle::join(held, newer, &self.checkpoint.state);
                std::mem::take(held)
            }
        };
        let settled =
            settle::settle(&self.graph, &self.facts, &mut self.checkpoint, endings, deltas);
        for step in settled.lost {
            self.lose(step);
        }
        self.call_back().await?;
        self.pending.events.extend(settled.events);
        let begun = self.checkpoint.cursor.active.iter().filter(|activation| {
            activation.phase == Phase::Due && !active_before.contains(&activation.step)
        });
        self.pending.events.extend(begun.map(started_event));
        let (release, driven) = match settled.next {
            Next::Go => self.rest(),
            Next::End(output) => {
                self.pending
                    .events
                    .push(NewEvent::run(EventKind::RUN_SUCCEEDED, json!({ "output": &*output })));
                let status = RunStatus::Succeeded;
                (
                    Some(Release::Ended { status, output: Some(output), failure: None }),
                    Some(Driven::Ended(status)),
                )
            }
            Next::Fail(failure) => self.failed(failure),
        };
        let cursor = &mut self.checkpoint.cursor;
        cursor.patience.retain(|step, _| cursor.active.iter().any(|other| other.step == *step));
        let is_dirty = std::mem::take(&mut self.is_dirty) || self.held.is_some();
        let mut pending = std::mem::take(&mut self.pending);
        pending.settled_events.append(&mut pending.events);
        if let Some(held) = self.held.take() {
            pending.steps.splice(..0, held.steps);
            pending.settled_events.splice(..0, held.events);
        }
        if driven.is_none() && self.may_hold(&pending) {
            self.held = Some(Held {
                cursor: self.checkpoint.cursor.clone(),
                deltas: settled.deltas,
                steps: pending.steps,
                events: pending.settled_events,
            });
            self.scope.first.set_unstored();
            self.may_repeat = false;
            self.wait_in_place().await;
            return Ok(None);
        }
        if is_dirty {
            self.checkpoint.seq += 1;
        }
        let commit = Commit {
            checkpoint: is_dirty.then(|| CheckpointWrite {
                seq: self.checkpoint.seq,
                cursor: self.checkpoint.cursor.clone(),
                deltas: settled.deltas,
            }),
            steps: pending.steps,
            blocks: pending.blocks,
            withdrawn: pending.withdrawn,
            children: pending.children,
            taken: pending.taken,
            outgoing: pending.outgoing,
            events: pending.settled_events,
            release,
            ..self.empty_commit()
        };
        crash_point!("superstep:before-commit");
        self.commit(commit).await?;
        crash_point!("superstep:after-commit");
        self.may_repeat = false;
        if driven.is_none() {
            self.wait_in_place().await;
        }
        Ok(driven)
    }

    /// Whether a superstep need not be stored yet: nobody else is told anything by it.
    fn may_hold(&self, pending: &Pending) -> bool {
        self.graph.durability == Durability::Exit
            && pending.blocks.is_empty()
            && pending.withdrawn.is_empty()
            && pending.children.is_empty()
            && pending.taken.is_empty()
            && pending.outgoing.is_empty()
    }

    /// Returns when the start of the run shall wait no longer for the end of the superstep; never,
    /// once it is stored.
    pub(super) async fn opening_due(&self) {
        let due_at = match (&self.opening, &self.held) {
            (Some(opening), None) => Some(opening.due_at),
            (_, Some(_)) => None,
            (None, None) => return std::future::pending().await,
        };
        let clock = self.engine.clock();
        let due = async {
            match due_at {
                Some(due_at) => clock.sleep(due_at.since(clock.now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.scope.first.wanted() => {}
            () = due => {}
        }
    }

    /// Stores the start of the run, or what is held back of it, by itself.
    pub(super) async fn store_opening(&mut self) -> store::Result<()> {
        if self.held.is_some() {
            return self.store_held().await;
        }
        self.commit(self.empty_commit()).await?;
        crash_point!("drive:first-stored");
        Ok(())
    }

    /// Whether the run goes on, or rests until something wakes it.
    pub(super) fn rest(&mut self) -> (Option<Release>, Option<Driven>) {
        let now = self.engine.clock().now();
        let cursor = &self.checkpoint.cursor;
        let nothing = BTreeSet::new();
        let goes_on = cursor.active.iter().any(|activation| match &activation.phase {
            Phase::Due => turn::may_start(&self.graph, cursor, activation, &nothing, false),
            Phase::Backoff { until } => *until <= now + WAIT_IN_PLACE,
            Phase::Foreach { .. } => {
                plan::may_start_item(&self.graph, cursor, activation, &nothing)
            }
            Phase::Answer { .. }
            | Phase::Child { .. }
            | Phase::Signal { .. }
            | Phase::Inline(_) => false,
        });
        if goes_on {
            return (None, None);
        }
        let wake_at = plan::wake_at(cursor);
        let is_itself = |one: &&Activation| !matches!(one.phase, Phase::Inline(_));
        let waits = cursor.active.iter().filter(is_itself).map(waiting_data).collect::<Vec<_>>();
        self.pending.events.push(NewEvent::run(EventKind::RUN_WAITING, json!({ "on": waits })));
        (Some(Release::Waiting { wake_at, seen: self.seen }), Some(Driven::Waiting { wake_at }))
    }

    pub(super) fn failed(&mut self, failure: Failure) -> (Option<Release>, Option<Driven>) {
        let data = json!({ "error": &failure });
        self.pending.events.push(NewEvent::run(EventKind::RUN_FAILED, data));
        self.cancel_children();
        let status = RunStatus::Failed;
        (
            Some(Release::Ended { status, output: None, failure: Some(failure) }),
            Some(Driven::Ended(status)),
        )
    }

    pub(super) fn cancel_children(&mut self) {
        let by = self.run.start.id.to_string();
        self.pending
            .outgoing
            .push(Outgoing { to: Recipient::Children, kind: SignalKind::Cancel { by } });
    }

    pub(super) async fn cancel(&mut self, by: &str) -> store::Result<Driven> {
        let pending = std::mem::take(&mut self.pending);
        let commit = Commit {
            steps: pending.steps,
            withdrawn: pending.withdrawn,
            taken: pending.taken,
            outgoing: pending.outgoing,
            events: pending.events,
            ..self.empty_commit()
        };
        self.commit(cancel::ended(commit, by)).await?;
        Ok(Driven::Ended(RunStatus::Cancelled))
    }

    /// Gives the run back as it is: what has ended is kept, the rest is for the next claim.
    pub(super) async fn hand_back(&mut self) -> store::Result<Driven> {
        let mut events = std::mem::take(&mut self.pending.events);
        events.push(NewEvent::run(EventKind::RUN_RELEASED, Value::Null));
        let commit = Commit {
            steps: std::mem::take(&mut self.pending.steps),
            blocks: std::mem::take(&mut self.pending.blocks),
            children: std::mem::take(&mut self.pending.children),
            events,
            release: Some(Release::Ready),
            ..self.empty_commit()
        };
        self.commit(commit).await?;
        Ok(Driven::Released)
    }

    pub(super) async fn wait_in_place(&self) {
        let cursor = &self.checkpoint.cursor;
        let nothing = BTreeSet::new();
        let has_due = cursor.active.iter().any(|activation| match activation.phase {
            Phase::Due => turn::may_start(&self.graph, cursor, activation, &nothing, false),
            Phase::Foreach { .. } => {
                plan::may_start_item(&self.graph, cursor, activation, &nothing)
            }
            Phase::Backoff { .. }
            | Phase::Answer { .. }
            | Phase::Child { .. }
            | Phase::Signal { .. }
            | Phase::Inline(_) => false,
        });
        if let (false, Some(until)) = (has_due, plan::wake_at(cursor)) {
            let clock = self.engine.clock();
            tokio::select! {
                () = clock.sleep(until.since(clock.now())) => {}
                () = self.stop.cancelled() => {}
                () = self.control.drain.cancelled() => {}
            }
        }
    }
}

/// The start of a run: its claim, its first checkpoint with every channel at its default, and the
/// nodes that begin.
pub(super) fn opening(checkpoint: &Checkpoint, claimed: NewEvent, due_at: Timestamp) -> Opening {
    let deltas = checkpoint.state.0.iter().map(|(channel, value)| ChannelDelta {
        channel: channel.clone(),
        change: Change::Full(value.clone()),
    });
    let started = checkpoint.cursor.active.iter().map(started_event);
    Opening {
        checkpoint: CheckpointWrite {
            seq: checkpoint.seq,
            cursor: checkpoint.cursor.clone(),
            deltas: deltas.collect(),
        },
        events: std::iter::once(claimed).chain(started).collect(),
        due_at,
    }
}

pub(super) fn started_event(activation: &Activation) -> NewEvent {
    let data = json!({ "node": activation.node, "visit": activation.visit });
    NewEvent::step(EventKind::NODE_STARTED, &activation.step, data)
}

fn waiting_data(activation: &Activation) -> Value {
    match &activation.phase {
        Phase::Answer { blocks } => json!({ "node": activation.node, "answer": blocks }),
        Phase::Child { run } => json!({ "node": activation.node, "child": run }),
        Phase::Signal { name, until } => {
            json!({ "node": activation.node, "signal": name, "until": until })
        }
        Phase::Backoff { until } => json!({ "node": activation.node, "until": until }),
        Phase::Foreach { next, done, .. } => {
            json!({ "node": activation.node, "items": { "started": next, "done": done.len() } })
        }
        Phase::Due | Phase::Inline(_) => json!({ "node": activation.node }),
    }
}

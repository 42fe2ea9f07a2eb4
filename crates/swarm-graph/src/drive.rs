//! One claimed run, worked on until it rests: the loop that does what the pure parts decide.
//!
//! Everything a superstep came to is one commit. The exception that keeps work safe: a step that
//! ends while its siblings still run is committed by itself at once, and a later claim finds it
//! among [`Claim::finished`] instead of running it again.

mod off;
mod rest;
mod start;
mod wall;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use swarm_core::checkpoint::{
    Activation, ChannelDelta, Checkpoint, Cursor, Phase, StepEnding, StepRecord,
};
use swarm_core::escalation::Block;
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, StepId};
use swarm_core::port::store::{self, CheckpointWrite, Claim, Commit, Outgoing};
use swarm_core::run::{NewRun, RunRecord};
use swarm_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::engine::{Control, Driven, Engine};
use crate::first::{FIRST_WITHIN, First};
use crate::graph::{Durability, Graph, OnExceed};
use crate::node::{NodeContext, NodeError, RunScope};
use crate::plan::{self, AfterFailure, Ending, RunFacts};
use crate::settle;
use crate::worker::POLL;
use crate::{cancel, frame, heartbeat, race, resume};

/// Backoffs up to this long are waited for in place instead of giving the run back.
const WAIT_IN_PLACE: Duration = Duration::from_secs(2);

/// How long nodes may take to stop before they are dropped.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// From when on a claim must not be trusted, though its lease has not quite ended.
fn fence_at(run: &RunRecord, ttl: Duration) -> Timestamp {
    run.lease_until.map_or(Timestamp(i64::MAX), |until| until - ttl.mul_f64(0.2))
}

/// An attempt at work, and how it ended.
struct Attempt {
    activation: Activation,
    context: Arc<NodeContext>,
    started_at: Timestamp,
    result: Result<Value, NodeError>,
    /// Where its output is to be kept.
    cache_key: Option<String>,
}

type Running = FuturesUnordered<BoxFuture<'static, Attempt>>;

/// What starting an activation came to.
enum Started {
    Running(BoxFuture<'static, Attempt>),
    Ended(StepEnding),
    Parked(Phase),
    /// A loop over nothing.
    Skipped(Ending),
    /// A graph inside the run has begun.
    Entered,
}

pub(crate) struct Session<'e> {
    engine: &'e Engine,
    graph: Arc<Graph>,
    run: RunRecord,
    facts: Arc<RunFacts>,
    scope: Arc<RunScope>,
    checkpoint: Checkpoint,
    /// Steps that a former claim finished after the checkpoint.
    finished: BTreeMap<StepId, StepEnding>,
    /// What the next commit carries besides the checkpoint.
    pending: Pending,
    /// The highest signal looked at; 0 once something began to wait since then, because a
    /// signal that nobody wanted before may be what it waits for.
    seen: u64,
    /// Whether the cursor differs from the stored one.
    is_dirty: bool,
    /// Steps at work stop when this fires.
    stop: CancellationToken,
    /// Stops one step at work.
    tokens: BTreeMap<StepId, CancellationToken>,
    /// Whether signals were looked at since the claim.
    has_looked: bool,
    /// What the first commit of a new run brings besides.
    opening: Option<Opening>,
    /// Supersteps that are over and not stored yet.
    held: Option<Held>,
    /// Whether a former claim may have stored questions and children of this superstep.
    may_repeat: bool,
    control: Control,
}

/// The start of a run, as long as it is not stored.
struct Opening {
    checkpoint: CheckpointWrite,
    events: Vec<NewEvent>,
    /// From when on it does not wait for the end of the superstep.
    due_at: Timestamp,
}

/// What supersteps came to that are not stored yet: with `durability: exit`.
struct Held {
    /// The place after the last of them.
    cursor: Cursor,
    deltas: Vec<ChannelDelta>,
    steps: Vec<StepRecord>,
    events: Vec<NewEvent>,
}

#[derive(Default)]
struct Pending {
    endings: Vec<Ending>,
    /// How the state has changed in this superstep before its end.
    deltas: Vec<ChannelDelta>,
    steps: Vec<StepRecord>,
    blocks: Vec<Block>,
    /// Steps that will not go on: what they asked and started is called back.
    lost: BTreeSet<StepId>,
    withdrawn: Vec<BlockId>,
    children: Vec<NewRun>,
    taken: Vec<u64>,
    outgoing: Vec<Outgoing>,
    events: Vec<NewEvent>,
    /// Events of taken signals and lost races: stored only together with what they tell.
    settled_events: Vec<NewEvent>,
}

impl<'e> Session<'e> {
    pub(crate) fn new(
        engine: &'e Engine,
        graph: Arc<Graph>,
        claim: Claim,
        control: Control,
    ) -> Self {
        let run = claim.run;
        let start = &run.start;
        let facts = Arc::new(RunFacts::new(&start.id, &start.graph, &start.labels, &start.input));
        let scope = Arc::new(RunScope {
            store: engine.store().clone(),
            clock: engine.clock().clone(),
            live: engine.live().clone(),
            run: start.id.clone(),
            epoch: run.epoch,
            labels: start.labels.clone(),
            fence_at: AtomicI64::new(fence_at(&run, engine.lease_ttl()).as_millis()),
            asks_when_over_budget: graph
                .budget
                .as_ref()
                .is_none_or(|budget| budget.on_exceed == OnExceed::Escalate),
            first: First::new(claim.checkpoint.is_some()),
        });
        let mut pending = Pending::default();
        let data = json!({ "worker": run.lease_owner, "epoch": run.epoch });
        let claimed = NewEvent::run(EventKind::RUN_CLAIMED, data);
        let is_new = claim.checkpoint.is_none();
        let mut checkpoint = claim.checkpoint.unwrap_or_else(|| plan::begin(&graph));
        if graph.has_inline {
            // What was swept is null in the store.
            frame::sweep(&mut checkpoint.state, &checkpoint.cursor);
        }
        let opening = if is_new {
            Some(rest::opening(&checkpoint, claimed, engine.clock().now() + FIRST_WITHIN))
        } else {
            pending.events.push(claimed);
            None
        };
        let finished =
            claim.finished.into_iter().map(|record| (record.step, record.ending)).collect();
        let stop = CancellationToken::new();
        Self {
            engine,
            graph,
            run,
            facts,
            scope,
            checkpoint,
            finished,
            pending,
            seen: 0,
            is_dirty: false,
            stop,
            tokens: BTreeMap::new(),
            has_looked: false,
            opening,
            held: None,
            may_repeat: !is_new,
            control,
        }
    }

    /// Works until the run ends, waits, is handed back, or was lost.
    pub(crate) async fn drive(mut self) -> store::Result<Driven> {
        let beat = heartbeat::start(self.engine, &self.scope, self.stop.clone());
        let driven = self.supersteps(&beat).await;
        let is_lost = beat.is_lost();
        drop(beat);
        match driven {
            Err(store::Error::Fenced { .. }) => Ok(Driven::Lost),
            Err(_) if is_lost => Ok(Driven::Lost),
            driven => driven,
        }
    }

    async fn supersteps(&mut self, beat: &heartbeat::Heartbeat) -> store::Result<Driven> {
        loop {
            if let Some(by) = self.take_signals().await? {
                return self.cancel(&by).await;
            }
            crash_point!("drive:signals-read");
            self.check_wall().await?;
            let stopped = self.superstep().await?;
            if beat.is_lost() {
                return Ok(Driven::Lost);
            }
            if stopped {
                let signals = self.engine.store().signals(&self.run.start.id).await?;
                if let Some((id, by)) = cancel::wish(signals) {
                    self.pending.taken.push(id);
                    return self.cancel(&by).await;
                }
                return self.hand_back().await;
            }
            if let Some(driven) = self.settle().await? {
                return Ok(driven);
            }
            if self.control.drain.is_cancelled() {
                return self.hand_back().await;
            }
        }
    }

    /// Reads signals if anything waits for one; returns who cancelled, if someone did.
    async fn take_signals(&mut self) -> store::Result<Option<String>> {
        let waits = self.checkpoint.cursor.active.iter().any(|activation| match activation.phase {
            Phase::Answer { .. } | Phase::Child { .. } | Phase::Signal { .. } => true,
            Phase::Due | Phase::Backoff { .. } | Phase::Foreach { .. } | Phase::Inline(_) => false,
        });
        // A new claim looks once in any case: someone may have cancelled the run.
        if !waits && std::mem::replace(&mut self.has_looked, true) {
            return Ok(None);
        }
        let mut signals = self.engine.store().signals(&self.run.start.id).await?;
        self.seen = signals.iter().map(|signal| signal.id).max().unwrap_or(0);
        // What an earlier look in this superstep took is in the store until its commit.
        signals.retain(|signal| !self.pending.taken.contains(&signal.id));
        let now = self.engine.clock().now();
        let taken = resume::take(
            &self.graph,
            &self.run.start.id,
            &mut self.checkpoint.cursor,
            signals,
            now,
        );
        self.is_dirty |= !taken.ids.is_empty() || !taken.endings.is_empty() || taken.has_reminded;
        self.pending.withdrawn.extend(taken.expired);
        self.pending.taken.extend(taken.ids);
        self.pending.settled_events.extend(taken.events);
        self.pending.endings.extend(taken.endings);
        for step in taken.broken_off {
            self.lose(step);
        }
        self.call_off();
        if let Some(answer) = taken.wall_answer {
            self.answer_wall(&answer);
        }
        Ok(taken.cancelled_by)
    }

    /// Starts what may start and waits until nothing is at work. `true` when it was stopped
    /// before that.
    async fn superstep(&mut self) -> store::Result<bool> {
        let mut running = Running::new();
        let mut at_work = BTreeSet::new();
        loop {
            // A step that was told to stop is still due: it must not begin again.
            if !self.control.drain.is_cancelled() && !self.stop.is_cancelled() {
                running.extend(self.start_all(&mut at_work).await?);
            }
            let attempt = tokio::select! {
                biased;
                attempt = running.next() => attempt,
                () = self.stop.cancelled() => {
                    self.stop_running(running, &mut at_work).await?;
                    return Ok(true);
                }
                () = self.control.halt.cancelled() => {
                    self.stop.cancel();
                    self.stop_running(running, &mut at_work).await?;
                    return Ok(true);
                }
                () = self.opening_due() => {
                    self.store_opening().await?;
                    continue;
                }
                () = self.next_look(&at_work) => {
                    if self.take_signals().await?.is_some() {
                        self.stop.cancel();
                    }
                    continue;
                }
            };
            let Some(attempt) = attempt else {
                let is_drained = self.control.drain.is_cancelled() && self.has_due();
                return Ok(is_drained || self.stop.is_cancelled());
            };
            at_work.remove(&attempt.activation.step);
            self.ended_attempt(attempt).await?;
            crash_point!("step:ended");
            if !at_work.is_empty() {
                self.commit_early().await?;
            }
        }
    }

    /// Returns when a signal or a moment may have decided a race that steps at work take part in;
    /// never, when there is none.
    async fn next_look(&self, at_work: &BTreeSet<StepId>) {
        let cursor = &self.checkpoint.cursor;
        if !race::is_contested(&self.graph, cursor, at_work) {
            return std::future::pending().await;
        }
        let now = self.engine.clock().now();
        let due = plan::timer_at(cursor).map_or(POLL, |until| until.since(now));
        let mut woken = self.engine.woken();
        tokio::select! {
            _ = woken.changed() => {}
            () = self.engine.clock().sleep(due.min(POLL)) => {}
        }
    }

    fn has_due(&self) -> bool {
        self.checkpoint.cursor.active.iter().any(|activation| activation.phase == Phase::Due)
    }

    async fn start_all(
        &mut self,
        at_work: &mut BTreeSet<StepId>,
    ) -> store::Result<Vec<BoxFuture<'static, Attempt>>> {
        let mut attempts = Vec::new();
        self.end_finished();
        loop {
            let now = self.engine.clock().now();
            let has_ended = !self.pending.endings.is_empty();
            let cursor = &mut self.checkpoint.cursor;
            let Some(activation) =
                plan::next_to_start(&self.graph, cursor, at_work, has_ended, now)
            else {
                break;
            };
            let started = match self.finished.remove(&activation.step) {
                Some(ending) => Started::Ended(ending),
                None => self.start(&activation).await?,
            };
            match started {
                Started::Running(attempt) => {
                    at_work.insert(activation.step);
                    attempts.push(attempt);
                }
                Started::Parked(phase) => self.park(&activation.step, &phase),
                Started::Ended(ending) => self.end(&activation, ending),
                Started::Entered => self.is_dirty = true,
                Started::Skipped(ending) => {
                    self.is_dirty = true;
                    self.checkpoint.cursor.active.retain(|other| other.step != activation.step);
                    self.pending.endings.push(ending);
                    self.call_off();
                }
            }
        }
        if !at_work.is_empty() {
            self.commit_early().await?;
        }
        Ok(attempts)
    }

    /// Steps that a former claim finished end before any other begins: one of them may have won
    /// a race.
    fn end_finished(&mut self) {
        if self.finished.is_empty() || !self.graph.has_races {
            return;
        }
        let active = self.checkpoint.cursor.active.clone();
        for activation in active.iter().filter(|activation| activation.phase == Phase::Due) {
            if let Some(ending) = self.finished.remove(&activation.step) {
                self.end(activation, ending);
            }
        }
    }

    fn park(&mut self, step: &StepId, phase: &Phase) {
        self.is_dirty = true;
        self.seen = 0;
        for activation in &mut self.checkpoint.cursor.active {
            if activation.step == *step {
                activation.phase = phase.clone();
            }
        }
    }

    fn end(&mut self, activation: &Activation, ending: StepEnding) {
        self.is_dirty = true;
        let ending = plan::end_step(&self.graph, &mut self.checkpoint.cursor, activation, ending);
        let Some(ending) = ending else { return };
        if ending.breaks_off(&activation.step) {
            self.lose(ending.activation.step.clone());
        }
        self.pending.endings.push(ending);
        self.call_off();
    }

    async fn ended_attempt(&mut self, attempt: Attempt) -> store::Result<()> {
        let Attempt { activation, context, started_at, result, cache_key } = attempt;
        self.tokens.remove(&activation.step);
        let is_known =
            self.checkpoint.cursor.active.iter().any(|other| other.step == activation.step);
        if !is_known {
            // It has lost a race, or its loop has failed meanwhile.
            return Ok(());
        }
        let now = self.engine.clock().now();
        let ending = match result {
            Ok(output) => {
                if let Some(key) = cache_key.filter(|_| context.is_pure()) {
                    self.keep_output(&key, &activation, &output, now).await;
                }
                StepEnding::Output(Arc::new(output))
            }
            Err(NodeError::Failed(failure)) => match self.after_failure(&activation, &failure, now)
            {
                AfterFailure::Retry(until) => {
                    let data = json!({ "error": failure, "attempt": activation.attempts + 1, "retry_at": until });
                    self.pending.events.push(NewEvent::step(
                        EventKind::NODE_FAILED,
                        &activation.step,
                        data,
                    ));
                    self.backoff(&activation.step, until);
                    return Ok(());
                }
                AfterFailure::Exhausted => StepEnding::Failed(failure),
            },
            Err(NodeError::Asked) => {
                let blocks = context.take_asked();
                let ids = blocks.iter().map(|block| block.id.clone()).collect();
                self.ask(blocks).await?;
                self.park(&activation.step, &Phase::Answer { blocks: ids });
                return Ok(());
            }
            Err(NodeError::Cancelled) => {
                // Not of our doing: the store has told the node that the run is lost.
                self.stop.cancel();
                return Ok(());
            }
            Err(NodeError::Store(error)) => return Err(error),
        };
        let data =
            json!({ "ms": u64::try_from(now.since(started_at).as_millis()).unwrap_or(u64::MAX) });
        self.pending.events.push(match &ending {
            StepEnding::Output(_) => {
                NewEvent::step(EventKind::NODE_FINISHED, &activation.step, data)
            }
            StepEnding::Failed(failure) => {
                let data = json!({ "error": failure, "attempt": activation.attempts + 1 });
                NewEvent::step(EventKind::NODE_FAILED, &activation.step, data)
            }
        });
        self.pending.steps.push(StepRecord {
            step: activation.step.clone(),
            node: activation.node.clone(),
            seq: self.checkpoint.seq,
            attempt: activation.attempts + 1,
            ending: ending.clone(),
            started_at,
            ended_at: now,
        });
        self.end(&activation, ending);
        Ok(())
    }

    fn after_failure(
        &self,
        activation: &Activation,
        failure: &Failure,
        now: Timestamp,
    ) -> AfterFailure {
        let Some(node) = self.graph.at(&activation.node) else {
            return AfterFailure::Exhausted;
        };
        let error = settle::failure_value(failure);
        let checkpoint = &self.checkpoint;
        let scope = plan::scope(&self.facts, checkpoint, node, activation, Some(&error));
        plan::after_failure(
            node,
            activation.attempts + 1,
            failure,
            &scope,
            now,
            self.engine.chance(),
        )
    }

    fn backoff(&mut self, step: &StepId, until: Timestamp) {
        self.is_dirty = true;
        for activation in &mut self.checkpoint.cursor.active {
            if activation.step == *step {
                activation.attempts += 1;
                activation.phase = Phase::Backoff { until };
            }
        }
    }

    /// Attempts see the stop and end by themselves, or are dropped after a grace.
    async fn stop_running(
        &mut self,
        mut running: Running,
        at_work: &mut BTreeSet<StepId>,
    ) -> store::Result<()> {
        loop {
            let attempt = tokio::select! {
                biased;
                attempt = running.next() => attempt,
                () = self.scope.first.wanted() => {
                    self.store_opening().await?;
                    continue;
                }
            };
            let Some(attempt) = attempt else { return Ok(()) };
            at_work.remove(&attempt.activation.step);
            self.ended_attempt(attempt).await?;
        }
    }

    /// What has ended, was asked or started while others still work becomes durable now. Its
    /// effect on the cursor follows with the superstep: after a crash in between, the step's
    /// record, block or child is found again under its name.
    async fn commit_early(&mut self) -> store::Result<()> {
        let pending = &mut self.pending;
        let may_wait = pending.steps.is_empty() || self.graph.durability == Durability::Exit;
        if may_wait && pending.blocks.is_empty() && pending.children.is_empty() {
            return Ok(());
        }
        let commit = Commit {
            steps: std::mem::take(&mut pending.steps),
            blocks: std::mem::take(&mut pending.blocks),
            children: std::mem::take(&mut pending.children),
            events: std::mem::take(&mut pending.events),
            ..self.empty_commit()
        };
        crash_point!("early:before-commit");
        self.commit(commit).await?;
        crash_point!("early:after-commit");
        Ok(())
    }

    /// Writes a commit, and before it what is held back of the supersteps before.
    async fn commit(&mut self, commit: Commit) -> store::Result<()> {
        if commit.checkpoint.is_none() {
            self.store_held().await?;
        }
        self.write(commit).await
    }

    /// Stores what is held back; what has happened since stays for the next commit.
    async fn store_held(&mut self) -> store::Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        self.checkpoint.seq += 1;
        let commit = Commit {
            checkpoint: Some(CheckpointWrite {
                seq: self.checkpoint.seq,
                cursor: held.cursor,
                deltas: held.deltas,
            }),
            steps: held.steps,
            events: held.events,
            ..self.empty_commit()
        };
        crash_point!("held:before-commit");
        self.write(commit).await?;
        crash_point!("held:after-commit");
        Ok(())
    }

    /// Writes a commit, and the start of the run with it if that is not stored yet.
    async fn write(&mut self, mut commit: Commit) -> store::Result<()> {
        if let Some(opening) = self.opening.take() {
            commit.first = Some(opening.checkpoint);
            commit.events.splice(..0, opening.events);
        }
        self.engine.commit(commit).await?;
        self.scope.first.set_stored();
        Ok(())
    }

    fn empty_commit(&self) -> Commit {
        Commit::new(self.run.start.id.clone(), self.run.epoch, self.engine.clock().now())
    }
}

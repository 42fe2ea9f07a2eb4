//! One claimed run, worked on until it rests: the loop that does what the pure parts decide.
//!
//! Everything a superstep came to is one commit. The exception that keeps work safe: a step that
//! ends while its siblings still run is committed by itself at once, and a later claim finds it
//! among [`Claim::finished`] instead of running it again.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use swarm_core::checkpoint::{
    Activation, Change, ChannelDelta, Checkpoint, Phase, StepEnding, StepRecord,
};
use swarm_core::escalation::{Ask, Block, BlockStatus, Reason};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, GraphName, QueueName, RunId, StepId};
use swarm_core::port::clock::Clock;
use swarm_core::port::store::{
    self, CheckpointWrite, Claim, Commit, Outgoing, Recipient, Release, SignalKind,
};
use swarm_core::run::{NewRun, Parent, RunRecord, RunStatus};
use swarm_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::engine::{Control, Driven, Engine};
use crate::graph::{Graph, GraphNode, OnExceed, Work};
use crate::library::{check_input, limit_of};
use crate::node::{NodeContext, NodeError, RunScope};
use crate::plan::{self, AfterFailure, Ended, Ending, RunFacts};
use crate::registry::ErasedNode;
use crate::settle::{self, Next, expression_failure};
use crate::{heartbeat, question, resume, timeout};

/// Backoffs up to this long are waited for in place instead of giving the run back.
const WAIT_IN_PLACE: Duration = Duration::from_secs(2);

/// How long nodes may take to stop before they are dropped.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// An attempt at work, and how it ended.
struct Attempt {
    activation: Activation,
    context: Arc<NodeContext>,
    started_at: Timestamp,
    result: Result<Value, NodeError>,
}

type Running = FuturesUnordered<BoxFuture<'static, Attempt>>;

/// What starting an activation came to.
enum Started {
    Running(BoxFuture<'static, Attempt>),
    Ended(StepEnding),
    Parked(Phase),
    /// A loop over nothing.
    Skipped(Ending),
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
    /// Whether the checkpoint has never been stored.
    is_new: bool,
    control: Control,
}

#[derive(Default)]
struct Pending {
    endings: Vec<Ending>,
    steps: Vec<StepRecord>,
    blocks: Vec<Block>,
    withdrawn: Vec<BlockId>,
    children: Vec<NewRun>,
    taken: Vec<u64>,
    outgoing: Vec<Outgoing>,
    events: Vec<NewEvent>,
    /// Events of taken signals: stored only together with their being taken.
    taken_events: Vec<NewEvent>,
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
            asks_when_over_budget: graph
                .budget
                .as_ref()
                .is_none_or(|budget| budget.on_exceed == OnExceed::Escalate),
        });
        let mut pending = Pending::default();
        let data = json!({ "worker": run.lease_owner, "epoch": run.epoch });
        pending.events.push(NewEvent::run(EventKind::RUN_CLAIMED, data));
        let is_new = claim.checkpoint.is_none();
        let checkpoint = claim.checkpoint.unwrap_or_else(|| plan::begin(&graph));
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
            is_new,
            control,
        }
    }

    /// Works until the run ends, waits, is handed back, or was lost.
    pub(crate) async fn drive(mut self) -> store::Result<Driven> {
        let beat = heartbeat::start(self.engine, &self.run, self.stop.clone());
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
        if self.is_new {
            self.store_first().await?;
        }
        loop {
            if let Some(by) = self.take_signals().await? {
                return self.cancel(&by).await;
            }
            self.check_wall();
            let stopped = self.superstep().await?;
            if beat.is_lost() {
                return Ok(Driven::Lost);
            }
            if stopped {
                let signals = self.engine.store().signals(&self.run.start.id).await?;
                let cancel = signals.into_iter().find_map(|signal| match signal.kind {
                    SignalKind::Cancel { by } => Some((signal.id, by)),
                    SignalKind::Named { .. }
                    | SignalKind::Answered { .. }
                    | SignalKind::ChildEnded { .. } => None,
                });
                if let Some((id, by)) = cancel {
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
            Phase::Due | Phase::Backoff { .. } | Phase::Foreach { .. } => false,
        });
        // A new claim looks once in any case: someone may have cancelled the run.
        if !waits && std::mem::replace(&mut self.has_looked, true) {
            return Ok(None);
        }
        let signals = self.engine.store().signals(&self.run.start.id).await?;
        self.seen = signals.iter().map(|signal| signal.id).max().unwrap_or(0);
        let now = self.engine.clock().now();
        let taken = resume::take(
            &self.graph,
            &self.run.start.id,
            &mut self.checkpoint.cursor,
            signals,
            now,
        );
        self.is_dirty |= !taken.ids.is_empty() || !taken.endings.is_empty();
        self.pending.taken.extend(taken.ids);
        self.pending.taken_events.extend(taken.events);
        self.pending.endings.extend(taken.endings);
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
            if !self.control.drain.is_cancelled() {
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
            };
            let Some(attempt) = attempt else {
                return Ok(self.control.drain.is_cancelled() && self.has_due());
            };
            at_work.remove(&attempt.activation.step);
            self.ended_attempt(attempt, &mut at_work).await?;
            if !at_work.is_empty() {
                self.commit_early().await?;
            }
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
        loop {
            let now = self.engine.clock().now();
            let Some(activation) =
                plan::next_to_start(&self.graph, &mut self.checkpoint.cursor, at_work, now)
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
                Started::Ended(ending) => self.end(&activation, ending, at_work),
                Started::Skipped(ending) => {
                    self.is_dirty = true;
                    self.checkpoint.cursor.active.retain(|other| other.step != activation.step);
                    self.pending.endings.push(ending);
                }
            }
        }
        if !at_work.is_empty() {
            self.commit_early().await?;
        }
        Ok(attempts)
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

    fn end(&mut self, activation: &Activation, ending: StepEnding, at_work: &mut BTreeSet<StepId>) {
        self.is_dirty = true;
        let ending = plan::end_step(&self.graph, &mut self.checkpoint.cursor, activation, ending);
        let Some(ending) = ending else { return };
        if activation.item.is_some() {
            self.drop_items(&ending.activation, at_work);
        }
        self.pending.endings.push(ending);
    }

    /// A loop that failed leaves its other items: what they asked and started is called back.
    /// Items still at work are stopped; when they end, they find no loop.
    fn drop_items(&mut self, group: &Activation, at_work: &BTreeSet<StepId>) {
        let cursor = &mut self.checkpoint.cursor;
        for item in plan::live_items(cursor, group) {
            if let Some(token) = self.tokens.get(&item.step) {
                token.cancel();
            }
        }
        let (dropped, kept) =
            std::mem::take(&mut cursor.active).into_iter().partition(|other: &Activation| {
                other.item.is_some()
                    && other.node == group.node
                    && other.visit == group.visit
                    && !at_work.contains(&other.step)
            });
        cursor.active = kept;
        for activation in dropped {
            match activation.phase {
                Phase::Answer { blocks } => self.pending.withdrawn.extend(blocks),
                Phase::Child { run } => self.pending.outgoing.push(Outgoing {
                    to: Recipient::Run(run),
                    kind: SignalKind::Cancel { by: self.run.start.id.to_string() },
                }),
                Phase::Due
                | Phase::Backoff { .. }
                | Phase::Signal { .. }
                | Phase::Foreach { .. } => {}
            }
        }
    }

    async fn start(&mut self, activation: &Activation) -> store::Result<Started> {
        let graph = self.graph.clone();
        let Some(node) = graph.nodes.get(&activation.node) else {
            let message = format!("graph `{}` has no node `{}`", graph.name, activation.node);
            return Ok(Started::Ended(StepEnding::Failed(Failure::fatal("unknown_node", message))));
        };
        match self.start_work(node, activation).await {
            Ok(started) => Ok(started),
            Err(NodeError::Failed(failure)) => Ok(Started::Ended(StepEnding::Failed(failure))),
            Err(NodeError::Store(error)) => Err(error),
            Err(NodeError::Asked | NodeError::Cancelled) => Ok(Started::Parked(Phase::Due)),
        }
    }

    async fn start_work(
        &mut self,
        node: &GraphNode,
        activation: &Activation,
    ) -> Result<Started, NodeError> {
        let error = activation.error.as_ref().map(settle::failure_value);
        let checkpoint = &self.checkpoint;
        let scope = plan::scope(
            &self.facts,
            &checkpoint.state,
            &checkpoint.cursor,
            node,
            activation,
            error.as_ref(),
        );
        let place = |key: &str| format!("{}.{key}", node.name);
        if let (Some(foreach), None) = (&node.foreach, activation.item) {
            let items = foreach
                .items
                .eval(&scope)
                .map_err(|e| expression_failure(&place("foreach.in"), &e))?;
            let Value::Array(list) = &items else {
                let message = format!("`{}` is no list", place("foreach.in"));
                return Err(Failure::fatal("expression", message).into());
            };
            let is_empty = list.is_empty();
            let items = Arc::new(items);
            return Ok(if is_empty {
                let result = Ended::Items { items, endings: BTreeMap::new() };
                Started::Skipped(Ending { activation: activation.clone(), result })
            } else {
                Started::Parked(Phase::Foreach { items, next: 0, done: BTreeMap::new() })
            });
        }
        match &node.work {
            Work::Uses { node: code, input, .. } => {
                let input =
                    input.render(&scope).map_err(|e| expression_failure(&place("with"), &e))?;
                Ok(Started::Running(self.attempt(node, code.clone(), activation.clone(), input)))
            }
            Work::Run { graph, queue, input, detach, labels } => {
                let input = input
                    .render(&scope)
                    .map_err(|e| expression_failure(&place("run.input"), &e))?;
                let mut named = self.run.start.labels.clone();
                for (name, label) in labels {
                    let text = label.render_text(&scope).map_err(|e| {
                        expression_failure(&place(&format!("run.labels.{name}")), &e)
                    })?;
                    named.insert(name.clone(), text);
                }
                self.start_child(activation, graph, queue.as_ref(), input, named, *detach).await
            }
            Work::Wait { signal, timeout } => {
                let until = timeout.map(|timeout| self.engine.clock().now() + timeout);
                Ok(Started::Parked(Phase::Signal { name: signal.clone(), until }))
            }
            Work::Gate(gate) => {
                let ask = question::ask(&node.name, gate, &scope)?;
                self.start_gate(activation, ask, gate.remind).await
            }
        }
    }

    /// Asks a gate's question, unless an attempt before a crash has asked it already.
    async fn start_gate(
        &mut self,
        activation: &Activation,
        ask: Ask,
        remind: Option<Duration>,
    ) -> Result<Started, NodeError> {
        let id = BlockId::new(format!("{}.{}", self.run.start.id, activation.step))
            .map_err(|error| Failure::fatal("too_deep", error.to_string()))?;
        if let Some(block) = self.engine.store().block(&id).await?
            && let Some(answer) = block.answer
        {
            return Ok(Started::Ended(StepEnding::Output(Arc::new(answer))));
        }
        let now = self.engine.clock().now();
        let remind_at = remind.map(|wait| now + wait);
        self.ask(vec![new_block(
            id.clone(),
            &self.run.start.id,
            &activation.step,
            ask,
            now,
            remind_at,
        )]);
        Ok(Started::Parked(Phase::Answer { blocks: vec![id] }))
    }

    async fn start_child(
        &mut self,
        activation: &Activation,
        graph: &GraphName,
        queue: Option<&QueueName>,
        input: Value,
        labels: BTreeMap<String, String>,
        detach: bool,
    ) -> Result<Started, NodeError> {
        let Some(graph) = self.engine.library().named(graph.as_str()) else {
            return Err(Failure::fatal(
                "unknown_graph",
                format!("no graph named `{graph}` is loaded"),
            )
            .into());
        };
        check_input(&graph, &input).map_err(|why| Failure::fatal("bad_input", why))?;
        let id = self
            .run
            .start
            .id
            .child(&activation.step)
            .map_err(|error| Failure::fatal("too_deep", error.to_string()))?;
        let start = &self.run.start;
        let child = NewRun {
            id: id.clone(),
            graph: graph.name.clone(),
            graph_hash: graph.hash.clone(),
            queue: queue.unwrap_or(&start.queue).clone(),
            input: Arc::new(input),
            parent: Some(Parent {
                run: start.id.clone(),
                step: activation.step.clone(),
                awaited: !detach,
            }),
            priority: start.priority,
            labels,
            limit: limit_of(&graph),
        };
        self.engine.keep(&graph).await?;
        let data = json!({ "run": id, "graph": graph.name });
        self.pending.events.push(NewEvent::step(EventKind::CHILD_STARTED, &activation.step, data));
        self.pending.children.push(child);
        Ok(if detach {
            Started::Ended(StepEnding::Output(Arc::new(json!({ "run": id }))))
        } else {
            Started::Parked(Phase::Child { run: id })
        })
    }

    fn ask(&mut self, blocks: Vec<Block>) {
        for block in &blocks {
            let data = json!({ "id": block.id, "reason": block.ask.reason, "question": block.ask.question });
            self.pending.events.push(NewEvent::step(EventKind::QUESTION_ASKED, &block.step, data));
        }
        self.pending.blocks.extend(blocks);
    }

    fn attempt(
        &mut self,
        node: &GraphNode,
        code: Arc<dyn ErasedNode>,
        activation: Activation,
        input: Value,
    ) -> BoxFuture<'static, Attempt> {
        let cancelled = self.stop.child_token();
        self.tokens.insert(activation.step.clone(), cancelled.clone());
        let context = Arc::new(NodeContext::new(
            self.scope.clone(),
            activation.step.clone(),
            activation.node.clone(),
            activation.visit,
            activation.attempts + 1,
            cancelled.clone(),
        ));
        let clock = self.engine.clock().clone();
        let timeout = node.timeout;
        Box::pin(async move {
            let started_at = clock.now();
            let work = AssertUnwindSafe(code.run(&context, input)).catch_unwind();
            let result = tokio::select! {
                biased;
                result = work => result.unwrap_or_else(|panic| Err(panicked(&*panic).into())),
                failure = timeout::expire(&*clock, &context, timeout) => Err(failure.into()),
                () = stopped_for_long(&*clock, &cancelled) => Err(NodeError::Cancelled),
            };
            // What the node started must not outlive the attempt.
            cancelled.cancel();
            Attempt { activation, context, started_at, result }
        })
    }

    async fn ended_attempt(
        &mut self,
        attempt: Attempt,
        at_work: &mut BTreeSet<StepId>,
    ) -> store::Result<()> {
        let Attempt { activation, context, started_at, result } = attempt;
        self.tokens.remove(&activation.step);
        if activation.item.is_some()
            && plan::group_of(&self.checkpoint.cursor, &activation).is_none()
        {
            // Its loop has failed meanwhile.
            self.checkpoint.cursor.active.retain(|other| other.step != activation.step);
            return Ok(());
        }
        let now = self.engine.clock().now();
        let ending = match result {
            Ok(output) => StepEnding::Output(Arc::new(output)),
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
                self.ask(blocks);
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
        self.end(&activation, ending, at_work);
        Ok(())
    }

    fn after_failure(
        &self,
        activation: &Activation,
        failure: &Failure,
        now: Timestamp,
    ) -> AfterFailure {
        let Some(node) = self.graph.nodes.get(&activation.node) else {
            return AfterFailure::Exhausted;
        };
        let error = settle::failure_value(failure);
        let checkpoint = &self.checkpoint;
        let scope = plan::scope(
            &self.facts,
            &checkpoint.state,
            &checkpoint.cursor,
            node,
            activation,
            Some(&error),
        );
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
        while let Some(attempt) = running.next().await {
            at_work.remove(&attempt.activation.step);
            self.ended_attempt(attempt, at_work).await?;
        }
        Ok(())
    }

    /// What has ended, was asked or started while others still work becomes durable now. Its
    /// effect on the cursor follows with the superstep: after a crash in between, the step's
    /// record, block or child is found again under its name.
    async fn commit_early(&mut self) -> store::Result<()> {
        let pending = &mut self.pending;
        if pending.steps.is_empty() && pending.blocks.is_empty() && pending.children.is_empty() {
            return Ok(());
        }
        let commit = Commit {
            steps: std::mem::take(&mut pending.steps),
            blocks: std::mem::take(&mut pending.blocks),
            children: std::mem::take(&mut pending.children),
            events: std::mem::take(&mut pending.events),
            ..self.empty_commit()
        };
        self.engine.commit(commit).await
    }

    fn empty_commit(&self) -> Commit {
        Commit::new(self.run.start.id.clone(), self.run.epoch, self.engine.clock().now())
    }

    /// Ends the superstep: reduces, routes, commits. `Some` when the run now rests.
    async fn settle(&mut self) -> store::Result<Option<Driven>> {
        let endings = std::mem::take(&mut self.pending.endings);
        let active_before: BTreeSet<StepId> = self
            .checkpoint
            .cursor
            .active
            .iter()
            .map(|activation| activation.step.clone())
            .collect();
        let settled = settle::settle(&self.graph, &self.facts, &mut self.checkpoint, endings);
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
        let is_dirty = std::mem::take(&mut self.is_dirty);
        if is_dirty {
            self.checkpoint.seq += 1;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.taken_events.append(&mut pending.events);
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
            events: pending.taken_events,
            release,
            ..self.empty_commit()
        };
        self.engine.commit(commit).await?;
        if driven.is_none() {
            self.wait_in_place().await;
        }
        Ok(driven)
    }

    /// Stores the checkpoint before the first superstep, with every channel at its default.
    async fn store_first(&mut self) -> store::Result<()> {
        let checkpoint = &self.checkpoint;
        let deltas = checkpoint.state.0.iter().map(|(channel, value)| ChannelDelta {
            channel: channel.clone(),
            change: Change::Full(value.clone()),
        });
        self.pending.events.extend(checkpoint.cursor.active.iter().map(started_event));
        let commit = Commit {
            checkpoint: Some(CheckpointWrite {
                seq: checkpoint.seq,
                cursor: checkpoint.cursor.clone(),
                deltas: deltas.collect(),
            }),
            events: std::mem::take(&mut self.pending.events),
            ..self.empty_commit()
        };
        self.engine.commit(commit).await
    }

    /// Whether the run goes on, or rests until something wakes it.
    fn rest(&mut self) -> (Option<Release>, Option<Driven>) {
        let now = self.engine.clock().now();
        let cursor = &self.checkpoint.cursor;
        let goes_on = cursor.active.iter().any(|activation| match &activation.phase {
            Phase::Due => true,
            Phase::Backoff { until } => *until <= now + WAIT_IN_PLACE,
            Phase::Foreach { .. } => plan::may_start_item(&self.graph, cursor, activation),
            Phase::Answer { .. } | Phase::Child { .. } | Phase::Signal { .. } => false,
        });
        if goes_on {
            return (None, None);
        }
        let wake_at = plan::wake_at(cursor);
        let waits = cursor.active.iter().map(waiting_data).collect::<Vec<_>>();
        self.pending.events.push(NewEvent::run(EventKind::RUN_WAITING, json!({ "on": waits })));
        (Some(Release::Waiting { wake_at, seen: self.seen }), Some(Driven::Waiting { wake_at }))
    }

    fn failed(&mut self, failure: Failure) -> (Option<Release>, Option<Driven>) {
        let data = json!({ "error": &failure });
        self.pending.events.push(NewEvent::run(EventKind::RUN_FAILED, data));
        self.cancel_children();
        let status = RunStatus::Failed;
        (
            Some(Release::Ended { status, output: None, failure: Some(failure) }),
            Some(Driven::Ended(status)),
        )
    }

    fn cancel_children(&mut self) {
        let by = self.run.start.id.to_string();
        self.pending
            .outgoing
            .push(Outgoing { to: Recipient::Children, kind: SignalKind::Cancel { by } });
    }

    async fn cancel(&mut self, by: &str) -> store::Result<Driven> {
        self.pending.events.push(NewEvent::run(EventKind::RUN_CANCELLED, json!({ "by": by })));
        self.cancel_children();
        let pending = std::mem::take(&mut self.pending);
        let status = RunStatus::Cancelled;
        let commit = Commit {
            steps: pending.steps,
            withdrawn: pending.withdrawn,
            taken: pending.taken,
            outgoing: pending.outgoing,
            events: pending.events,
            release: Some(Release::Ended { status, output: None, failure: None }),
            ..self.empty_commit()
        };
        self.engine.commit(commit).await?;
        Ok(Driven::Ended(status))
    }

    /// Gives the run back as it is: what has ended is kept, the rest is for the next claim.
    async fn hand_back(&mut self) -> store::Result<Driven> {
        let mut events = std::mem::take(&mut self.pending.events);
        events.push(NewEvent::run(EventKind::RUN_RELEASED, Value::Null));
        let commit = Commit {
            steps: std::mem::take(&mut self.pending.steps),
            events,
            release: Some(Release::Ready),
            ..self.empty_commit()
        };
        self.engine.commit(commit).await?;
        Ok(Driven::Released)
    }

    async fn wait_in_place(&self) {
        let cursor = &self.checkpoint.cursor;
        let has_due = cursor.active.iter().any(|activation| match activation.phase {
            Phase::Due => true,
            Phase::Foreach { .. } => plan::may_start_item(&self.graph, cursor, activation),
            Phase::Backoff { .. }
            | Phase::Answer { .. }
            | Phase::Child { .. }
            | Phase::Signal { .. } => false,
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

    /// Parks what is due behind a question when the wall-time budget is used up.
    fn check_wall(&mut self) {
        let Some(budget) = self.graph.budget.as_ref() else { return };
        let Some(wall) = budget.wall else { return };
        let now = self.engine.clock().now();
        let granted = Duration::from_secs(self.checkpoint.cursor.wall.granted_secs);
        if now.since(self.run.created_at) <= wall + granted
            || self.checkpoint.cursor.wall.block.is_some()
        {
            return;
        }
        let due: Vec<StepId> = self
            .checkpoint
            .cursor
            .active
            .iter()
            .filter(|activation| matches!(activation.phase, Phase::Due | Phase::Backoff { .. }))
            .map(|activation| activation.step.clone())
            .collect();
        let Some(step) = due.first().cloned() else { return };
        let asked = self.checkpoint.cursor.wall.asked + 1;
        let Ok(id) = BlockId::new(format!("{}.$wall#{asked}", self.run.start.id)) else { return };
        let question = format!(
            "Run `{}` has used up its wall-time budget of {}. `grant` gives it as much again; `stop` ends it.",
            self.run.start.id,
            humantime::format_duration(wall)
        );
        let ask = Ask::choice(Reason::Budget, question, &["grant", "stop"]);
        self.ask(vec![new_block(id.clone(), &self.run.start.id, &step, ask, now, None)]);
        self.checkpoint.cursor.wall.asked = asked;
        self.checkpoint.cursor.wall.block = Some(id.clone());
        for step in due {
            self.park(&step, &Phase::Answer { blocks: vec![id.clone()] });
        }
    }

    fn answer_wall(&mut self, answer: &Value) {
        let wall = self.graph.budget.as_ref().and_then(|budget| budget.wall).unwrap_or_default();
        if answer.get("choice").and_then(Value::as_str) == Some("grant") {
            self.checkpoint.cursor.wall.granted_secs += wall.as_secs().max(1);
            return;
        }
        let failure =
            Failure::fatal("budget", "stopped by a person: the wall-time budget is used up");
        let due: Vec<Activation> = self
            .checkpoint
            .cursor
            .active
            .iter()
            .filter(|activation| activation.phase == Phase::Due)
            .cloned()
            .collect();
        for activation in due {
            let ending = StepEnding::Failed(failure.clone());
            let ending =
                plan::end_step(&self.graph, &mut self.checkpoint.cursor, &activation, ending);
            self.pending.endings.extend(ending);
        }
    }
}

fn new_block(
    id: BlockId,
    run: &RunId,
    step: &StepId,
    ask: Ask,
    asked_at: Timestamp,
    remind_at: Option<Timestamp>,
) -> Block {
    Block {
        id,
        run: run.clone(),
        step: step.clone(),
        ask,
        status: BlockStatus::Open,
        asked_at,
        remind_at,
        answer: None,
        answered_by: None,
        answered_at: None,
    }
}

fn started_event(activation: &Activation) -> NewEvent {
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
        Phase::Due => json!({ "node": activation.node }),
    }
}

/// Returns some time after a stop, for nodes that do not heed it.
async fn stopped_for_long(clock: &dyn Clock, stop: &CancellationToken) {
    stop.cancelled().await;
    clock.sleep(STOP_GRACE).await;
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Failure::fatal(
        "panic",
        format!("the node panicked: {}", text.chars().take(500).collect::<String>()),
    )
}

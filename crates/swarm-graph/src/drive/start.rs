//! What starting an activation comes to: an attempt at work, a question, a child, or a wait.
//!
//! Nothing is stored here: a question or a child goes out with the next commit, under a name that
//! is the same in every attempt.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Patience, Phase, StepEnding, StepRecord};
use swarm_core::escalation::{Ask, Block};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, GraphName, QueueName};
use swarm_core::port::clock::Clock;
use swarm_core::port::store;
use swarm_core::run::{NewRun, Parent};
use swarm_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::rest::started_event;
use super::{Attempt, STOP_GRACE, Session, Started};
use crate::cache::{self, Kept};
use crate::graph::{Cache, Gate, Graph, GraphNode, Work};
use crate::library::{check_input, limit_of};
use crate::node::{NodeContext, NodeError};
use crate::plan::{self, Ended, Ending};
use crate::registry::ErasedNode;
use crate::settle::{self, expression_failure};
use crate::{frame, question, timeout};

impl Session<'_> {
    pub(super) async fn start(&mut self, activation: &Activation) -> store::Result<Started> {
        let graph = self.graph.clone();
        let Some(node) = graph.at(&activation.node) else {
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

    pub(super) async fn start_work(
        &mut self,
        node: &GraphNode,
        activation: &Activation,
    ) -> Result<Started, NodeError> {
        let error = activation.error.as_ref().map(settle::failure_value);
        let checkpoint = &self.checkpoint;
        let scope = plan::scope(&self.facts, checkpoint, node, activation, error.as_ref());
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
                let cache_key = match &node.cache {
                    Some(Cache { key: Some(key), .. }) => Some(
                        key.render(&scope)
                            .map_err(|e| expression_failure(&place("cache.key"), &e))?,
                    ),
                    Some(Cache { key: None, .. }) => Some(input.clone()),
                    None => None,
                };
                let cache_key = node.cache.as_ref().zip(cache_key);
                let cache_key = cache_key.map(|(cache, value)| cache::key(cache, &value));
                if let Some(key) = &cache_key
                    && let Some(output) = self.kept_output(key, activation).await
                {
                    return Ok(Started::Ended(StepEnding::Output(output)));
                }
                let activation = activation.clone();
                Ok(Started::Running(self.attempt(node, code.clone(), activation, input, cache_key)))
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
            Work::Inline { graph, input } => {
                let input = input
                    .render(&scope)
                    .map_err(|e| expression_failure(&place("run.input"), &e))?;
                check_input(graph, &input).map_err(|why| Failure::fatal("bad_input", why))?;
                Ok(self.enter(activation, graph, input)?)
            }
            Work::Wait { signal, timeout } => {
                let until = timeout.map(|timeout| self.engine.clock().now() + timeout);
                Ok(Started::Parked(Phase::Signal { name: signal.clone(), until }))
            }
            Work::Gate(gate) => {
                let ask = question::ask(&node.name, gate, &scope)?;
                self.start_gate(activation, ask, gate).await
            }
        }
    }

    /// The output that another step left for this one, told as a step that took no time.
    async fn kept_output(&mut self, key: &str, activation: &Activation) -> Option<Arc<Value>> {
        let now = self.engine.clock().now();
        let kept = cache::find(self.engine.store().as_ref(), key, now).await?;
        let data = json!({ "run": kept.run, "step": kept.step });
        let step = &activation.step;
        self.pending.events.push(NewEvent::step(EventKind::NODE_CACHED, step, data));
        let data = json!({ "ms": 0 });
        self.pending.events.push(NewEvent::step(EventKind::NODE_FINISHED, step, data));
        let output = Arc::new(kept.output);
        self.pending.steps.push(StepRecord {
            step: step.clone(),
            node: activation.node.clone(),
            seq: self.checkpoint.seq,
            attempt: activation.attempts + 1,
            ending: StepEnding::Output(output.clone()),
            started_at: now,
            ended_at: now,
        });
        Some(output)
    }

    /// Leaves an output for later steps.
    pub(super) async fn keep_output(
        &self,
        key: &str,
        activation: &Activation,
        output: &Value,
        now: Timestamp,
    ) {
        let node = self.graph.at(&activation.node);
        let Some(cache) = node.and_then(|node| node.cache.as_ref()) else { return };
        let kept = Kept {
            expires_at: cache::expires_at(cache, now),
            run: self.run.start.id.clone(),
            step: activation.step.clone(),
            output: output.clone(),
        };
        cache::keep(self.engine.store().as_ref(), key, kept).await;
    }

    /// Begins to run a graph inside this run.
    fn enter(
        &mut self,
        activation: &Activation,
        inner: &Graph,
        input: Value,
    ) -> Result<Started, Failure> {
        let deltas = frame::enter(inner, &mut self.checkpoint, &activation.step, input)?;
        self.pending.deltas.extend(deltas);
        let begun = self.checkpoint.cursor.active.last().map(started_event);
        self.pending.events.extend(begun);
        Ok(Started::Entered)
    }

    /// Asks a gate's question, unless an attempt before a crash has asked it already.
    pub(super) async fn start_gate(
        &mut self,
        activation: &Activation,
        ask: Ask,
        gate: &Gate,
    ) -> Result<Started, NodeError> {
        let id = BlockId::new(format!("{}.{}", self.run.start.id, activation.step))
            .map_err(|error| Failure::fatal("too_deep", error.to_string()))?;
        let asked = self.engine.store().block(&id).await?;
        if let Some(answer) = asked.as_ref().and_then(|block| block.answer.clone()) {
            return Ok(Started::Ended(StepEnding::Output(Arc::new(answer))));
        }
        // A question that was asked before a crash does not become younger by it.
        let now = asked.map_or_else(|| self.engine.clock().now(), |block| block.asked_at);
        let run = self.run.start.id.clone();
        let mut block = Block::open(id.clone(), run, activation.step.clone(), ask, now);
        block.remind_at = gate.remind.map(|wait| now + wait);
        if gate.remind.is_some() || gate.expires.is_some() {
            let expires_at = gate.expires.map(|wait| now + wait);
            let patience = Patience { remind_at: block.remind_at, expires_at };
            self.checkpoint.cursor.patience.insert(activation.step.clone(), patience);
        }
        self.ask(vec![block]).await?;
        Ok(Started::Parked(Phase::Answer { blocks: vec![id] }))
    }

    pub(super) async fn start_child(
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
        crash_point!("child:graph-kept");
        if !self.may_repeat || self.engine.store().run(&id).await?.is_none() {
            let data = json!({ "run": id, "graph": graph.name });
            let event = NewEvent::step(EventKind::CHILD_STARTED, &activation.step, data);
            self.pending.events.push(event);
        }
        self.pending.children.push(child);
        Ok(if detach {
            Started::Ended(StepEnding::Output(Arc::new(json!({ "run": id }))))
        } else {
            Started::Parked(Phase::Child { run: id })
        })
    }

    /// Asks with the next commit. What a former claim has asked already is not told again.
    pub(super) async fn ask(&mut self, blocks: Vec<Block>) -> store::Result<()> {
        for block in &blocks {
            if self.may_repeat && self.engine.store().block(&block.id).await?.is_some() {
                continue;
            }
            let data = json!({ "id": block.id, "reason": block.ask.reason, "question": block.ask.question });
            self.pending.events.push(NewEvent::step(EventKind::QUESTION_ASKED, &block.step, data));
        }
        self.pending.blocks.extend(blocks);
        Ok(())
    }

    pub(super) fn attempt(
        &mut self,
        node: &GraphNode,
        code: Arc<dyn ErasedNode>,
        activation: Activation,
        input: Value,
        cache_key: Option<String>,
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
        let pool = node.pool.clone().map(|pool| (self.engine.pools().clone(), pool));
        Box::pin(async move {
            // The time until there is a place is not the attempt's.
            let place = async {
                match &pool {
                    Some((pools, pool)) => Some(pools.enter(pool).await),
                    None => None,
                }
            };
            let _place = tokio::select! {
                biased;
                place = place => place,
                () = cancelled.cancelled() => {
                    let result = Err(NodeError::Cancelled);
                    let started_at = clock.now();
                    return Attempt { activation, context, started_at, result, cache_key };
                }
            };
            context.touch();
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
            Attempt { activation, context, started_at, result, cache_key }
        })
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

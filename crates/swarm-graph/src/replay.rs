//! A recorded run planned again: from each checkpoint and from how its steps ended, the next
//! checkpoint is computed as the engine would today, and compared with the one that was stored.
//!
//! No node is run and nothing is written. What a newcomer gets wrong: a replay proves the engine
//! and the graph, not the nodes. A change of a graph that would have led a recorded run another
//! way is found; a node that would answer differently today is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Checkpoint, Cursor, Phase, StepEnding, StepRecord};
use swarm_core::event::{Event, EventKind};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, ChannelName, RunId, StepId};
use swarm_core::port::store::{self, CheckpointFilter, RunFilter, Store};
use swarm_core::run::{RunRecord, RunStatus};
use thiserror::Error;

use crate::graph::{Graph, GraphNode, Work};
use crate::plan::{self, Ended, Ending, RunFacts};
use crate::settle::{self, Next};
use crate::{race, resume};

/// A run as it was recorded: all that a replay needs, and plain data.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Recording {
    /// The run.
    pub run: RunRecord,
    /// Its checkpoints, oldest first; pruned ones are missing.
    pub checkpoints: Vec<Checkpoint>,
    /// How its steps ended, oldest first.
    pub steps: Vec<StepRecord>,
    /// The answers to its questions.
    pub answers: BTreeMap<BlockId, Value>,
    /// The runs that it started and that have ended.
    pub children: BTreeMap<RunId, Child>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
}

/// How a child run ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Child {
    /// Succeeded, failed or cancelled.
    pub status: RunStatus,
    /// Its output, if it succeeded.
    pub output: Option<Arc<Value>>,
    /// Its failure, if it failed.
    pub failure: Option<Failure>,
}

/// How much of a run was planned again and came out the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Replayed {
    /// Supersteps planned again.
    pub supersteps: usize,
    /// Supersteps that cannot be: a checkpoint beside them was pruned, a person's change of the
    /// run lies between, or the run is inside a graph that runs inline.
    pub skipped: usize,
    /// Steps whose recorded endings were used.
    pub steps: usize,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { supersteps, skipped, steps } = self;
        write!(f, "{supersteps} supersteps with {steps} steps came out as recorded")?;
        if *skipped > 0 {
            write!(f, ", {skipped} could not be replayed")?;
        }
        Ok(())
    }
}

/// Where a replay came to something else.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("checkpoint {seq}: {what}: recorded {recorded}, now {now}")]
pub struct Difference {
    /// The checkpoint that comes out differently.
    pub seq: u64,
    /// What of it.
    pub what: String,
    /// What was recorded, as JSON.
    pub recorded: String,
    /// What it comes to now, as JSON.
    pub now: String,
}

/// What would have happened.
#[derive(Clone, Debug, PartialEq)]
pub enum WhatIf {
    /// The run would have gone on from this checkpoint.
    GoesOn(Box<Checkpoint>),
    /// It would have ended with this output.
    Succeeds(Arc<Value>),
    /// It would have failed.
    Fails(Failure),
}

impl Recording {
    /// Reads a run from a store; `None` if there is none of this id.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn read(store: &dyn Store, run: &RunId) -> store::Result<Option<Self>> {
        let Some(record) = store.run(run).await? else { return Ok(None) };
        let infos = store.checkpoints(run, &CheckpointFilter::default()).await?;
        let mut checkpoints = Vec::with_capacity(infos.len());
        for info in infos.iter().rev() {
            checkpoints.extend(store.checkpoint(run, Some(info.seq)).await?);
        }
        let blocks = store.blocks(Some(run), None).await?;
        let answers = blocks.into_iter().filter_map(|block| Some((block.id, block.answer?)));
        let filter = RunFilter { parent: Some(run.clone()), ..RunFilter::default() };
        let children = store.runs(&filter).await?.into_iter();
        let children = children.filter(|child| child.status.is_final()).map(|child| {
            let RunRecord { start, status, output, failure, .. } = child;
            (start.id, Child { status, output, failure })
        });
        Ok(Some(Self {
            run: record,
            checkpoints,
            steps: store.steps(run).await?,
            answers: answers.collect(),
            children: children.collect(),
            events: store.events(run, 0, 0).await?,
        }))
    }
}

/// Plans a recorded run again, and compares each checkpoint: the state, what is due and waits,
/// what joins and bounded routes have counted, and how the run ended.
///
/// # Errors
/// The first [`Difference`].
pub fn replay(graph: &Graph, recording: &Recording) -> Result<Replayed, Difference> {
    let replay = Replay::new(graph, recording);
    let mut replayed = Replayed::default();
    if let Some(first) = recording.checkpoints.first()
        && first.seq == 0
        && recording.run.forked_from.is_none()
        && !replay.is_touched(0)
    {
        replay.compare(first, &plan::begin(graph))?;
    }
    let by_hand = recording.checkpoints.first().map_or(0, |first| usize::from(first.seq > 0));
    replayed.skipped += by_hand;
    for pair in recording.checkpoints.windows(2) {
        let [before, after] = pair else { continue };
        let is_inside = is_inside(graph, before) || is_inside(graph, after);
        if after.seq != before.seq + 1 || replay.is_touched(after.seq) || is_inside {
            replayed.skipped += 1;
            continue;
        }
        let (now, next, steps) = replay.superstep(before, after, None)?;
        replay.compare(after, &now)?;
        replay.compare_end(after, &next)?;
        replayed.supersteps += 1;
        replayed.steps += steps;
    }
    Ok(replayed)
}

/// What a recorded run would have come to after the superstep in which this step ended, had it
/// ended so. `None`: the recording has no such superstep.
///
/// # Errors
/// A [`Difference`] when the superstep cannot be planned again.
pub fn what_if(
    graph: &Graph,
    recording: &Recording,
    step: &StepId,
    ending: &StepEnding,
) -> Result<Option<WhatIf>, Difference> {
    let replay = Replay::new(graph, recording);
    let is_there =
        |checkpoint: &Checkpoint| checkpoint.cursor.active.iter().any(|other| other.step == *step);
    for pair in recording.checkpoints.windows(2) {
        let [before, after] = pair else { continue };
        let is_inside = is_inside(graph, before) || is_inside(graph, after);
        if after.seq != before.seq + 1 || !is_there(before) || is_there(after) || is_inside {
            continue;
        }
        let (now, next, _) = replay.superstep(before, after, Some((step, ending)))?;
        return Ok(Some(match next {
            Next::Go => WhatIf::GoesOn(Box::new(now)),
            Next::End(output) => WhatIf::Succeeds(output),
            Next::Fail(failure) => WhatIf::Fails(failure),
        }));
    }
    Ok(None)
}

/// Whether a run comes to a graph that runs inline, or is in one.
fn is_inside(graph: &Graph, checkpoint: &Checkpoint) -> bool {
    graph.has_inline
        && checkpoint.cursor.active.iter().any(|activation| {
            let inline = graph.at(&activation.node).and_then(GraphNode::inline);
            activation.frame.is_some() || inline.is_some()
        })
}

struct Replay<'r> {
    graph: &'r Graph,
    recording: &'r Recording,
    facts: RunFacts,
    /// The last record of each step.
    records: BTreeMap<&'r StepId, &'r StepRecord>,
    /// Where in the events each step's ending was told.
    told: BTreeMap<&'r StepId, usize>,
    /// Checkpoints that a person wrote.
    touched: BTreeSet<u64>,
}

impl<'r> Replay<'r> {
    fn new(graph: &'r Graph, recording: &'r Recording) -> Self {
        let start = &recording.run.start;
        let facts = RunFacts::new(&start.id, &start.graph, &start.labels, &start.input);
        let records = recording.steps.iter().map(|record| (&record.step, record)).collect();
        let mut told = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for (place, event) in recording.events.iter().enumerate() {
            if let Some(step) = &event.step {
                told.insert(step, place);
            }
            if event.kind == EventKind::STATE_EDITED || event.kind == EventKind::RUN_MIGRATED {
                touched.extend(event.data.get("seq").and_then(Value::as_u64));
            }
        }
        Self { graph, recording, facts, records, told, touched }
    }

    fn is_touched(&self, seq: u64) -> bool {
        self.touched.contains(&seq)
    }

    /// One superstep, and how many recorded endings it used.
    fn superstep(
        &self,
        before: &Checkpoint,
        after: &Checkpoint,
        instead: Option<(&StepId, &StepEnding)>,
    ) -> Result<(Checkpoint, Next, usize), Difference> {
        let mut now = before.clone();
        let mut ended = self.begin_loops(&mut now);
        let gone = |step: &StepId| after.cursor.active.iter().all(|other| other.step != *step);
        let leaving = now.cursor.active.iter().filter(|activation| {
            gone(&activation.step) && !matches!(activation.phase, Phase::Foreach { .. })
        });
        let mut leaving: Vec<Activation> = leaving.cloned().collect();
        leaving.extend(items_within(&now.cursor, &after.cursor));
        leaving.sort_by_key(|activation| {
            self.told.get(&activation.step).copied().unwrap_or(usize::MAX)
        });
        let mut steps = 0;
        for activation in leaving {
            if now.cursor.active.iter().all(|other| other.step != activation.step)
                && activation.item.is_none()
            {
                continue;
            }
            let replaced = instead.filter(|(step, _)| **step == activation.step);
            let ending = match replaced {
                Some((_, ending)) => ending.clone(),
                None => match self.ending(&now, &activation) {
                    Some(ending) => ending,
                    None if self.has_event(&activation.step, &EventKind::NODE_CANCELLED) => {
                        continue;
                    }
                    // An item of a loop that failed, or what a failed run leaves.
                    None if activation.item.is_some() || self.recording.run.failure.is_some() => {
                        continue;
                    }
                    None => return Err(missing(after.seq, &activation)),
                },
            };
            steps += 1;
            ended.extend(plan::end_step(self.graph, &mut now.cursor, &activation, ending));
            race::call_off(self.graph, &mut now.cursor, &mut ended);
        }
        // A loop that failed takes its other items with it.
        let loops: BTreeSet<_> = ended.iter().map(|ending| &ending.activation.step).collect();
        now.cursor.active.retain(|other| {
            let group = other.step.as_str().split_once('/').map(|(group, _)| group);
            group.is_none_or(|group| loops.iter().all(|step| step.as_str() != group))
        });
        let settled = settle::settle(self.graph, &self.facts, &mut now, ended, Vec::new());
        now.seq = after.seq;
        Ok((now, settled.next, steps))
    }

    /// Loops that begin in this superstep know their items; one over nothing has ended.
    fn begin_loops(&self, now: &mut Checkpoint) -> Vec<Ending> {
        let mut ended = Vec::new();
        for activation in now.cursor.active.clone() {
            let node = self.graph.nodes.get(&activation.node);
            let (Some(node), None, Phase::Due) = (node, activation.item, &activation.phase) else {
                continue;
            };
            let Some(foreach) = &node.foreach else { continue };
            let error = activation.error.as_ref().map(settle::failure_value);
            let scope = plan::scope(&self.facts, now, node, &activation, error.as_ref());
            let Ok(items) = foreach.items.eval(&scope) else { continue };
            let Some(len) = items.as_array().map(Vec::len) else { continue };
            let items = Arc::new(items);
            if len == 0 {
                now.cursor.active.retain(|other| other.step != activation.step);
                let result = Ended::Items { items, endings: BTreeMap::new() };
                ended.push(Ending { activation, result });
                continue;
            }
            let next = u32::try_from(len).unwrap_or(u32::MAX);
            for other in &mut now.cursor.active {
                if other.step == activation.step {
                    other.phase =
                        Phase::Foreach { items: items.clone(), next, done: BTreeMap::new() };
                }
            }
        }
        ended
    }

    /// How a step ended, from what was recorded of it.
    fn ending(&self, now: &Checkpoint, activation: &Activation) -> Option<StepEnding> {
        if let Some(record) = self.records.get(&activation.step) {
            return Some(record.ending.clone());
        }
        let node = self.graph.nodes.get(&activation.node)?;
        match &node.work {
            Work::Run { detach, .. } => self.child_ending(activation, *detach),
            Work::Gate(gate) => {
                let id = format!("{}.{}", self.recording.run.start.id, activation.step);
                let answer = self.recording.answers.get(id.as_str());
                if let Some(answer) = answer {
                    return Some(StepEnding::Output(Arc::new(answer.clone())));
                }
                let is_expired = self.has_event(&activation.step, &EventKind::QUESTION_EXPIRED);
                is_expired.then(|| resume::expired(gate))
            }
            Work::Wait { .. } => {
                let signal = self.event(&activation.step, &EventKind::SIGNAL_TAKEN);
                if let Some(signal) = signal {
                    return Some(StepEnding::Output(signal.data.clone()));
                }
                let is_over = self.has_event(&activation.step, &EventKind::TIMER_FIRED);
                is_over.then(|| StepEnding::Output(Arc::default()))
            }
            Work::Uses { .. } | Work::Inline { .. } => None,
        }
        .or_else(|| self.refused(now, node, activation))
    }

    fn child_ending(&self, activation: &Activation, detach: bool) -> Option<StepEnding> {
        let run = self.recording.run.start.id.child(&activation.step).ok()?;
        if detach {
            let was_started = self.has_event(&activation.step, &EventKind::CHILD_STARTED);
            return was_started.then(|| StepEnding::Output(Arc::new(json!({ "run": run }))));
        }
        let Child { status, output, failure } = self.recording.children.get(&run)?.clone();
        Some(resume::child_ending(run.as_str(), status, output, failure))
    }

    /// What was never begun, for its input could not be made.
    fn refused(
        &self,
        now: &Checkpoint,
        node: &GraphNode,
        activation: &Activation,
    ) -> Option<StepEnding> {
        let (input, key) = match &node.work {
            Work::Uses { input, .. } => (input, "with"),
            Work::Run { input, .. } | Work::Inline { input, .. } => (input, "run.input"),
            Work::Wait { .. } | Work::Gate(_) => return None,
        };
        let error = activation.error.as_ref().map(settle::failure_value);
        let scope = plan::scope(&self.facts, now, node, activation, error.as_ref());
        let refused = input.render(&scope).err()?;
        let place = format!("{}.{key}", node.name);
        Some(StepEnding::Failed(settle::expression_failure(&place, &refused)))
    }

    fn event(&self, step: &StepId, kind: &EventKind) -> Option<&'r Event> {
        let mut events = self.recording.events.iter().rev();
        events.find(|event| event.kind == *kind && event.step.as_ref() == Some(step))
    }

    fn has_event(&self, step: &StepId, kind: &EventKind) -> bool {
        self.event(step, kind).is_some()
    }

    fn compare(&self, recorded: &Checkpoint, now: &Checkpoint) -> Result<(), Difference> {
        let seq = recorded.seq;
        let channels: BTreeSet<&ChannelName> =
            recorded.state.0.keys().chain(now.state.0.keys()).collect();
        for channel in channels {
            let value = |checkpoint: &Checkpoint| checkpoint.state.0.get(channel).cloned();
            same(seq, || format!("channel `{channel}`"), &value(recorded), &value(now))?;
        }
        let (recorded, now) = (&recorded.cursor, &now.cursor);
        same(seq, || "visits".to_owned(), &recorded.visits, &now.visits)?;
        same(seq, || "routes taken".to_owned(), &recorded.taken, &now.taken)?;
        same(seq, || "arrivals at joins".to_owned(), &recorded.arrived, &now.arrived)?;
        same(seq, || "supersteps".to_owned(), &recorded.supersteps, &now.supersteps)?;
        same(seq, || "what is active".to_owned(), &places(recorded), &places(now))
    }

    fn compare_end(&self, after: &Checkpoint, next: &Next) -> Result<(), Difference> {
        let is_last = self.recording.checkpoints.last().is_some_and(|last| last.seq == after.seq);
        let run = &self.recording.run;
        let recorded = match run.status {
            RunStatus::Succeeded if is_last => json!({ "output": run.output }),
            RunStatus::Failed if is_last => json!({ "failure": run.failure }),
            _ => Value::Null,
        };
        let now = match next {
            Next::Go => Value::Null,
            Next::End(output) => json!({ "output": output }),
            Next::Fail(failure) => json!({ "failure": failure }),
        };
        same(after.seq, || "the end".to_owned(), &recorded, &now)
    }
}

/// Items that began and ended within one superstep are in no checkpoint.
fn items_within(before: &Cursor, after: &Cursor) -> Vec<Activation> {
    let mut items = Vec::new();
    for group in before.active.iter().filter(|other| other.item.is_none()) {
        let Phase::Foreach { items: list, done, .. } = &group.phase else { continue };
        let later = after.active.iter().find(|other| other.step == group.step);
        let done_later = match later.map(|group| &group.phase) {
            Some(Phase::Foreach { done, .. }) => Some(done),
            _ => None,
        };
        let len = u32::try_from(list.as_array().map_or(0, Vec::len)).unwrap_or(u32::MAX);
        for item in (0..len).filter(|item| !done.contains_key(item)) {
            let step = group.step.item(item);
            let is_known = before.active.iter().any(|other| other.step == step);
            // A loop that is gone has no item left that did not end.
            let has_ended = done_later.map_or(later.is_none(), |done| done.contains_key(&item));
            if has_ended && !is_known {
                let phase = Phase::Due;
                items.push(Activation { step, item: Some(item), phase, ..group.clone() });
            }
        }
    }
    items
}

/// What is active, without what depends on the clock. Items come and go with the workers.
fn places(cursor: &Cursor) -> Vec<(&StepId, &Option<Failure>)> {
    let whole = cursor.active.iter().filter(|activation| activation.item.is_none());
    whole.map(|activation| (&activation.step, &activation.error)).collect()
}

fn same<T: PartialEq + Serialize>(
    seq: u64,
    what: impl FnOnce() -> String,
    recorded: &T,
    now: &T,
) -> Result<(), Difference> {
    if recorded == now {
        return Ok(());
    }
    let text = |value: &T| serde_json::to_string(value).unwrap_or_default();
    Err(Difference { seq, what: what(), recorded: text(recorded), now: text(now) })
}

fn missing(seq: u64, activation: &Activation) -> Difference {
    Difference {
        seq,
        what: format!("step `{}`", activation.step),
        recorded: "that it ended, but not how".to_owned(),
        now: "nothing".to_owned(),
    }
}

//! Graph and checkpoint in, the next superstep out; pure.
//!
//! A `foreach` is one activation that stands for the whole loop and one for each item at work.
//! The loop's activation keeps what its ended items gave, so that the rest of the engine sees
//! only single steps. In the same way an inline graph is one activation, with its input and its
//! counts, and one for each of its nodes that is due, at work or waiting: see [`frame`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Checkpoint, Cursor, FORMAT, Phase, State, StepEnding};
use swarm_core::failure::Failure;
use swarm_core::id::{GraphName, InvalidId, NodeName, RunId, StepId};
use swarm_core::time::Timestamp;

use crate::expr::Scope;
use crate::frame;
use crate::graph::{Graph, GraphNode};
use crate::turn;

/// What expressions know of a run besides its state.
#[derive(Clone, Debug)]
pub(crate) struct RunFacts {
    pub(crate) input: Arc<Value>,
    /// `{id, graph, labels}`.
    pub(crate) value: Value,
}

impl RunFacts {
    pub(crate) fn new(
        id: &RunId,
        graph: &GraphName,
        labels: &BTreeMap<String, String>,
        input: &Arc<Value>,
    ) -> Self {
        let value = json!({ "id": id, "graph": graph, "labels": labels });
        Self { input: input.clone(), value }
    }

    /// The variables that every expression of a run sees.
    pub(crate) fn scope<'a>(&'a self, state: &'a State) -> Scope<'a> {
        Scope::new().state(state).var("input", &self.input).var("run", &self.value)
    }

    /// The same for the expressions of the graph that a step runs inline; `None`: the run's own.
    pub(crate) fn scope_in<'a>(
        &'a self,
        checkpoint: &'a Checkpoint,
        frame: Option<&'a StepId>,
    ) -> Scope<'a> {
        let Some(step) = frame else { return self.scope(&checkpoint.state) };
        let input = frame::of(&checkpoint.cursor, step).map_or(&Value::Null, |frame| &frame.input);
        Scope::new()
            .state_of(&checkpoint.state, step.as_str())
            .var("input", input)
            .var("run", &self.value)
    }
}

/// The checkpoint before the first superstep: every channel at its default, the entry due.
pub(crate) fn begin(graph: &Graph) -> Checkpoint {
    let mut state = State::default();
    for (name, channel) in &graph.channels {
        state.set(name.clone(), channel.default.clone());
    }
    let mut cursor = Cursor::default();
    // At the top no name is too long.
    let _ = activate(&mut cursor, None, &graph.entry, None);
    Checkpoint { format: FORMAT, seq: 0, state, cursor }
}

/// Makes a node due, once: a second way to the same node in the same superstep joins the first.
/// `frame` is the step whose inline graph it lies in.
///
/// Fails only where graphs lie in each other so deep that a step's id would be too long.
pub(crate) fn activate(
    cursor: &mut Cursor,
    frame: Option<&StepId>,
    node: &NodeName,
    error: Option<Failure>,
) -> Result<(), Failure> {
    let is_due_already = cursor.active.iter().any(|activation| {
        activation.node.local() == node.as_str()
            && activation.frame.as_ref() == frame
            && activation.phase == Phase::Due
            && activation.attempts == 0
            && activation.item.is_none()
    });
    if is_due_already {
        return Ok(());
    }
    let too_deep = |error: InvalidId| Failure::fatal("too_deep", error.to_string());
    let path = match frame {
        None => node.clone(),
        Some(step) => frame::path(cursor, step).unwrap_or(node).inside(node).map_err(too_deep)?,
    };
    let Some(counts) = frame::counts(cursor, frame) else { return Ok(()) };
    let visit = counts.visits.entry(node.clone()).or_default();
    *visit += 1;
    let visit = *visit;
    let step = match frame {
        None => StepId::of(node, visit, None),
        Some(outer) => outer.inside(node.as_str(), visit).map_err(too_deep)?,
    };
    cursor.active.push(Activation {
        step,
        node: path,
        visit,
        item: None,
        frame: frame.cloned(),
        attempts: 0,
        phase: Phase::Due,
        error,
    });
    Ok(())
}

/// The next activation to start, if one may start now; marks nothing. `running` are the steps at
/// work, `has_ended` says whether others have ended in this superstep. A loop that may start a
/// further item gets an activation for it first.
pub(crate) fn next_to_start(
    graph: &Graph,
    cursor: &mut Cursor,
    running: &BTreeSet<StepId>,
    has_ended: bool,
    now: Timestamp,
) -> Option<Activation> {
    if running.len() >= graph.limits.concurrency as usize {
        return None;
    }
    if let Some(ready) = cursor.active.iter().find(|activation| {
        !running.contains(&activation.step)
            && match activation.phase {
                Phase::Due => true,
                Phase::Backoff { until } => until <= now,
                Phase::Answer { .. }
                | Phase::Child { .. }
                | Phase::Signal { .. }
                | Phase::Foreach { .. }
                | Phase::Inline(_) => false,
            }
            && turn::may_start(graph, cursor, activation, running, has_ended)
    }) {
        return Some(ready.clone());
    }
    let position =
        cursor.active.iter().position(|group| may_start_item(graph, cursor, group, running))?;
    let group = &mut cursor.active[position];
    let Phase::Foreach { next, .. } = &mut group.phase else { return None };
    let item = *next;
    *next += 1;
    let activation = Activation {
        step: group.step.item(item),
        node: group.node.clone(),
        visit: group.visit,
        item: Some(item),
        frame: group.frame.clone(),
        attempts: 0,
        phase: Phase::Due,
        error: group.error.clone(),
    };
    cursor.active.push(activation.clone());
    Some(activation)
}

/// Whether a loop has an item left that may start now.
pub(crate) fn may_start_item(
    graph: &Graph,
    cursor: &Cursor,
    group: &Activation,
    running: &BTreeSet<StepId>,
) -> bool {
    let Phase::Foreach { items, next, .. } = &group.phase else { return false };
    let Some(node) = graph.at(&group.node) else { return false };
    let Some(foreach) = &node.foreach else { return false };
    turn::has_place(node, &group.node, cursor, running)
        && (*next as usize) < items.as_array().map_or(0, Vec::len)
        && live_items(cursor, group).count() < foreach.max_parallel as usize
}

/// The items of a loop that are at work or waiting.
fn live_items<'c>(
    cursor: &'c Cursor,
    group: &'c Activation,
) -> impl Iterator<Item = &'c Activation> {
    cursor.active.iter().filter(move |other| other.item.is_some() && is_same_visit(other, group))
}

/// The loop that an item belongs to.
fn group_of<'c>(cursor: &'c Cursor, item: &Activation) -> Option<&'c Activation> {
    cursor.active.iter().find(|other| other.item.is_none() && is_same_visit(other, item))
}

fn is_same_visit(one: &Activation, other: &Activation) -> bool {
    one.visit == other.visit && one.node == other.node && one.frame == other.frame
}

/// The earliest moment at which a waiting run must be looked at again.
pub(crate) fn wake_at(cursor: &Cursor) -> Option<Timestamp> {
    let patience = cursor.patience.values();
    let questions = patience.flat_map(|patience| [patience.remind_at, patience.expires_at]);
    cursor
        .active
        .iter()
        .filter_map(|activation| match activation.phase {
            Phase::Backoff { until } => Some(until),
            Phase::Signal { until, .. } => until,
            Phase::Due
            | Phase::Answer { .. }
            | Phase::Child { .. }
            | Phase::Foreach { .. }
            | Phase::Inline(_) => None,
        })
        .chain(questions.flatten())
        .min()
}

/// The earliest moment at which a `wait` is over.
pub(crate) fn timer_at(cursor: &Cursor) -> Option<Timestamp> {
    let timers = cursor.active.iter().filter_map(|activation| match activation.phase {
        Phase::Signal { until, .. } => until,
        Phase::Due
        | Phase::Backoff { .. }
        | Phase::Answer { .. }
        | Phase::Child { .. }
        | Phase::Foreach { .. }
        | Phase::Inline(_) => None,
    });
    timers.min()
}

/// The variables that an activation's expressions see.
pub(crate) fn scope<'a>(
    facts: &'a RunFacts,
    checkpoint: &'a Checkpoint,
    node: &'a GraphNode,
    activation: &'a Activation,
    error: Option<&'a Value>,
) -> Scope<'a> {
    let mut scope = facts.scope_in(checkpoint, activation.frame.as_ref());
    if let Some(error) = error {
        scope = scope.var("error", error);
    }
    if let (Some(foreach), Some(item)) = (&node.foreach, activation.item)
        && let Some(Phase::Foreach { items, .. }) =
            group_of(&checkpoint.cursor, activation).map(|group| &group.phase)
        && let Some(value) = items.get(item as usize)
    {
        scope = scope.var(&foreach.var, value);
    }
    scope
}

/// How a step that is not a single item of a loop ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) activation: Activation,
    pub(crate) result: Ended,
}

impl Ending {
    /// Whether it is that of a loop in which `step`, an item, has failed: the other items are
    /// called off.
    pub(crate) fn breaks_off(&self, step: &StepId) -> bool {
        self.activation.step != *step && matches!(self.result, Ended::Failed(_))
    }
}

/// What an ending holds.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// A step's output.
    Output(Arc<Value>),
    /// A loop's items and how each ended.
    Items { items: Arc<Value>, endings: BTreeMap<u32, StepEnding> },
    /// A failure with no retry left.
    Failed(Failure),
}

/// Takes an ended step out of the cursor, and a loop that fails with it together with its other
/// items. `Some` is an ending for [`crate::settle`]; an item of a loop that is not its last one
/// gives none.
pub(crate) fn end_step(
    graph: &Graph,
    cursor: &mut Cursor,
    activation: &Activation,
    ending: StepEnding,
) -> Option<Ending> {
    cursor.active.retain(|other| other.step != activation.step);
    let Some(item) = activation.item else {
        let result = match ending {
            StepEnding::Output(output) => Ended::Output(output),
            StepEnding::Failed(failure) => Ended::Failed(failure),
        };
        return Some(Ending { activation: activation.clone(), result });
    };
    let position = cursor
        .active
        .iter()
        .position(|other| other.item.is_none() && is_same_visit(other, activation))?;
    let stops_at_failure = graph
        .at(&activation.node)
        .and_then(|node| node.foreach.as_ref())
        .is_none_or(|foreach| foreach.on_error == crate::graph::OnError::Fail);
    if let (StepEnding::Failed(failure), true) = (&ending, stops_at_failure) {
        let group = cursor.active.remove(position);
        cursor.active.retain(|other| !other.step.is_below(&group.step));
        return Some(Ending { activation: group, result: Ended::Failed(failure.clone()) });
    }
    let Phase::Foreach { items, done, .. } = &mut cursor.active[position].phase else {
        return None;
    };
    done.insert(item, ending);
    if done.len() < items.as_array().map_or(0, Vec::len) {
        return None;
    }
    let (items, endings) = (items.clone(), std::mem::take(done));
    let group = cursor.active.remove(position);
    Some(Ending { activation: group, result: Ended::Items { items, endings } })
}

/// What becomes of an attempt that failed.
pub(crate) enum AfterFailure {
    /// Try again, not before this moment.
    Retry(Timestamp),
    /// No retry is left, or none would help.
    Exhausted,
}

/// Decides about a retry. `chance` in 0..=1 is where in its band a jittered delay falls.
pub(crate) fn after_failure(
    node: &GraphNode,
    attempts: u32,
    failure: &Failure,
    scope: &Scope<'_>,
    now: Timestamp,
    chance: f64,
) -> AfterFailure {
    let Some(retry) = &node.retry else { return AfterFailure::Exhausted };
    if attempts >= retry.attempts_max {
        return AfterFailure::Exhausted;
    }
    let may_help = match &retry.when {
        // A predicate that cannot be evaluated must not keep a failure alive.
        Some(when) => when.is_true(scope).unwrap_or(false),
        None => failure.remedy == swarm_core::failure::Remedy::Retry,
    };
    if !may_help {
        return AfterFailure::Exhausted;
    }
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = retry.initial.as_secs_f64() * retry.factor.powi(exponent);
    let capped = grown.min(retry.max.as_secs_f64());
    let jittered = if retry.jitter { capped * chance } else { capped };
    let asked =
        failure.retry_after_ms.map_or(0.0, |ms| std::time::Duration::from_millis(ms).as_secs_f64());
    let delay = jittered.max(asked).clamp(0.0, 30.0 * 86_400.0);
    AfterFailure::Retry(now + std::time::Duration::from_secs_f64(delay))
}

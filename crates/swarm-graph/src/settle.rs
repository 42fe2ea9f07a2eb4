//! The end of a superstep: updates reduced, routes taken, the next activations made; pure.
//!
//! Endings are applied in the order of the graph, never of finishing, so that the result does
//! not depend on which node was faster.

mod level;
mod update;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, ChannelDelta, Checkpoint, StepEnding};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::StepId;

use self::level::Level;
pub(crate) use self::update::{apply, join};
use crate::expr;
use crate::frame;
use crate::graph::{Graph, GraphNode};
use crate::plan::{self, Ending, RunFacts};

/// What a superstep came to.
#[derive(Debug)]
pub(crate) struct Settled {
    /// How the state changed.
    pub(crate) deltas: Vec<ChannelDelta>,
    /// What to tell.
    pub(crate) events: Vec<NewEvent>,
    /// Steps that were taken out of the cursor: what they asked and started is called back.
    pub(crate) lost: Vec<StepId>,
    /// What follows.
    pub(crate) next: Next,
}

/// What follows a superstep.
#[derive(Debug)]
pub(crate) enum Next {
    /// Something is due or waits.
    Go,
    /// The run reached its end with this output.
    End(Arc<Value>),
    /// Nothing caught a failure.
    Fail(Failure),
}

/// The endings of one level: by how deep it lies, deepest first, then by its step.
type Levels = BTreeMap<(Reverse<usize>, Option<StepId>), Vec<Ending>>;

fn add(levels: &mut Levels, ending: Ending) {
    let depth = ending.activation.node.as_str().matches('/').count();
    levels.entry((Reverse(depth), ending.activation.frame.clone())).or_default().push(ending);
}

/// Applies the endings of a superstep to state and cursor: those inside inline graphs first, for
/// such a graph may end with them. `deltas` is how the state has changed in the superstep so far.
pub(crate) fn settle(
    graph: &Graph,
    facts: &RunFacts,
    checkpoint: &mut Checkpoint,
    endings: Vec<Ending>,
    deltas: Vec<ChannelDelta>,
) -> Settled {
    let mut settled = Settled { deltas, events: Vec::new(), lost: Vec::new(), next: Next::Go };
    let has_ended = !endings.is_empty();
    if !graph.has_inline {
        let level = Level { whole: graph, graph, facts, frame: None };
        settled.next = level.settle(checkpoint, endings, has_ended, &mut settled);
        return settled;
    }
    let mut levels = Levels::new();
    for ending in endings {
        add(&mut levels, ending);
    }
    while let Some((frame, endings)) = pop_inner(&mut levels) {
        let Some(outer) = checkpoint.cursor.active.iter().find(|one| one.step == frame).cloned()
        else {
            continue;
        };
        let Some(inner) = graph.at(&outer.node).and_then(GraphNode::inline) else { continue };
        let level = Level { whole: graph, graph: inner, facts, frame: Some(&frame) };
        let next = level.settle(checkpoint, endings, true, &mut settled);
        let result = match next {
            Next::Go => continue,
            Next::End(output) => StepEnding::Output(output),
            Next::Fail(failure) => StepEnding::Failed(failure),
        };
        if let Some(ending) = leave(graph, checkpoint, &outer, result, &mut settled) {
            add(&mut levels, ending);
        }
    }
    let endings = levels.into_values().flatten().collect();
    let level = Level { whole: graph, graph, facts, frame: None };
    settled.next = level.settle(checkpoint, endings, has_ended, &mut settled);
    let swept = frame::sweep(&mut checkpoint.state, &checkpoint.cursor);
    settled.deltas.retain(|delta| swept.iter().all(|other| other.channel != delta.channel));
    settled.deltas.extend(swept);
    settled
}

/// The endings of the deepest level that is not the run's own.
fn pop_inner(levels: &mut Levels) -> Option<(StepId, Vec<Ending>)> {
    let first = levels.first_entry()?;
    let frame = first.key().1.clone()?;
    Some((frame, first.remove()))
}

/// Ends the step that ran a graph inline. `Some` is its own ending.
fn leave(
    graph: &Graph,
    checkpoint: &mut Checkpoint,
    outer: &Activation,
    result: StepEnding,
    settled: &mut Settled,
) -> Option<Ending> {
    let step = &outer.step;
    let cursor = &mut checkpoint.cursor;
    if cursor.active.iter().any(|other| other.step.is_below(step)) {
        cursor.active.retain(|other| !other.step.is_below(step));
        settled.lost.push(step.clone());
    }
    settled.events.push(match &result {
        StepEnding::Output(_) => NewEvent::step(EventKind::NODE_FINISHED, step, json!({})),
        StepEnding::Failed(failure) => {
            let data = json!({ "error": failure, "attempt": outer.attempts + 1 });
            NewEvent::step(EventKind::NODE_FAILED, step, data)
        }
    });
    let ending = plan::end_step(graph, cursor, outer, result)?;
    if ending.breaks_off(step) {
        settled.lost.push(ending.activation.step.clone());
    }
    Some(ending)
}

pub(crate) fn expression_failure(place: &str, error: &expr::Error) -> Failure {
    Failure::fatal("expression", format!("`{place}`: {error}"))
}

pub(crate) fn failure_value(failure: &Failure) -> Value {
    serde_json::to_value(failure).unwrap_or_default()
}

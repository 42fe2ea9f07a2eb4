//! Checkpoint and signals in, checkpoint out; pure.
//!
//! A signal is taken only when something waits for it; a named one that nobody waits for yet
//! stays in the store for a later `wait`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Cursor, Phase, StepEnding};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, RunId, StepId};
use swarm_core::port::store::{Signal, SignalKind};
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;

use crate::explain;
use crate::graph::{Gate, Graph, Work};
use crate::plan::{self, Ending};
use crate::signal::matches_name;

/// What the signals and the clock did to a cursor.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The signals to be removed with the next commit.
    pub(crate) ids: Vec<u64>,
    /// Waits that are over.
    pub(crate) endings: Vec<Ending>,
    /// Loops that failed with one of their items: the others are called off.
    pub(crate) broken_off: Vec<StepId>,
    /// Who wants the run to stop.
    pub(crate) cancelled_by: Option<String>,
    /// A person's answer about the wall-time budget.
    pub(crate) wall_answer: Option<Arc<Value>>,
    /// Questions that nobody answered in time.
    pub(crate) expired: Vec<BlockId>,
    /// Whether a question was brought to mind.
    pub(crate) has_reminded: bool,
    /// What to tell.
    pub(crate) events: Vec<NewEvent>,
}

impl Taken {
    fn ended(&mut self, graph: &Graph, cursor: &mut Cursor, step: &Activation, ending: StepEnding) {
        let Some(ending) = plan::end_step(graph, cursor, step, ending) else { return };
        if ending.breaks_off(&step.step) {
            self.broken_off.push(ending.activation.step.clone());
        }
        self.endings.push(ending);
    }
}

/// Hands signals and due timers to those who wait for them.
pub(crate) fn take(
    graph: &Graph,
    run: &RunId,
    cursor: &mut Cursor,
    signals: Vec<Signal>,
    now: Timestamp,
) -> Taken {
    let mut taken = Taken::default();
    for signal in signals {
        let is_taken = match signal.kind {
            SignalKind::Cancel { by } => {
                taken.cancelled_by.get_or_insert(by);
                true
            }
            // After a crash a step may still be on its way to the wait that this is for.
            SignalKind::Answered { ref block, .. } if is_coming(cursor, run, block.as_str()) => {
                false
            }
            SignalKind::ChildEnded { run: ref child, .. }
                if is_coming(cursor, run, child.as_str()) =>
            {
                false
            }
            SignalKind::Answered { block, value } => {
                answered(graph, cursor, &block, value, &mut taken);
                true
            }
            SignalKind::ChildEnded { run, status, output, failure } => {
                let waiting = find(
                    cursor,
                    |phase| matches!(phase, Phase::Child { run: child } if *child == run),
                );
                if let Some(activation) = waiting {
                    let ending = child_ending(run.as_str(), status, output, failure);
                    let data = json!({ "run": run, "status": status });
                    taken.events.push(NewEvent::step(
                        EventKind::CHILD_ENDED,
                        &activation.step,
                        data,
                    ));
                    taken.ended(graph, cursor, &activation, ending);
                }
                true
            }
            SignalKind::Named { name, payload } => {
                let waiting = find(cursor, |phase| match phase {
                    Phase::Signal { name: Some(pattern), .. } => matches_name(pattern, &name),
                    Phase::Signal { name: None, .. }
                    | Phase::Due
                    | Phase::Backoff { .. }
                    | Phase::Answer { .. }
                    | Phase::Child { .. }
                    | Phase::Foreach { .. }
                    | Phase::Inline(_) => false,
                });
                let is_taken = waiting.is_some();
                if let Some(activation) = waiting {
                    let value = json!({ "name": name, "payload": &*payload });
                    taken.events.push(NewEvent::step(
                        EventKind::SIGNAL_TAKEN,
                        &activation.step,
                        value.clone(),
                    ));
                    let ending = StepEnding::Output(Arc::new(value));
                    taken.ended(graph, cursor, &activation, ending);
                }
                is_taken
            }
        };
        if is_taken {
            taken.ids.push(signal.id);
        }
    }
    timers(graph, cursor, now, &mut taken);
    patience(graph, cursor, now, &mut taken);
    taken
}

/// Whether a block or a child, named after its step, belongs to a step that is yet to run.
fn is_coming(cursor: &Cursor, run: &RunId, name: &str) -> bool {
    let Some(step) = name.strip_prefix(run.as_str()).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let step = step.split_once(':').map_or(step, |(step, _)| step);
    let Ok(step) = StepId::new(step) else { return false };
    cursor.active.iter().any(|activation| {
        (step == activation.step || step.is_below(&activation.step))
            && matches!(activation.phase, Phase::Due | Phase::Backoff { .. })
    })
}

fn answered(
    graph: &Graph,
    cursor: &mut Cursor,
    block: &BlockId,
    value: Arc<Value>,
    taken: &mut Taken,
) {
    if cursor.wall.block.as_ref() == Some(block) {
        cursor.wall.block = None;
        taken.wall_answer = Some(value);
        for activation in &mut cursor.active {
            if waits_for(&activation.phase, block) {
                activation.phase = Phase::Due;
            }
        }
        return;
    }
    // An answer that nobody waits for any more is dropped: its step has moved on.
    let Some(activation) = find(cursor, |phase| waits_for(phase, block)) else { return };
    let data = json!({ "id": block });
    taken.events.push(NewEvent::step(EventKind::QUESTION_ANSWERED, &activation.step, data));
    match graph.at(&activation.node).map(|node| &node.work) {
        Some(Work::Gate(_)) => {
            let ending = StepEnding::Output(value);
            taken.ended(graph, cursor, &activation, ending);
        }
        // The node runs again from its start and finds the answer.
        Some(Work::Uses { .. } | Work::Run { .. } | Work::Inline { .. } | Work::Wait { .. })
        | None => {
            for other in &mut cursor.active {
                if other.step == activation.step {
                    other.phase = Phase::Due;
                }
            }
        }
    }
}

fn waits_for(phase: &Phase, block: &BlockId) -> bool {
    matches!(phase, Phase::Answer { blocks } if blocks.contains(block))
}

fn find(cursor: &Cursor, matches: impl Fn(&Phase) -> bool) -> Option<Activation> {
    cursor.active.iter().find(|activation| matches(&activation.phase)).cloned()
}

pub(crate) fn child_ending(
    run: &str,
    status: RunStatus,
    output: Option<Arc<Value>>,
    failure: Option<Failure>,
) -> StepEnding {
    match (status, failure) {
        (RunStatus::Succeeded, _) => StepEnding::Output(output.unwrap_or_default()),
        (_, Some(failure)) => StepEnding::Failed(Failure {
            message: format!("child run `{run}`: {}", failure.message),
            ..failure
        }),
        (status, None) => StepEnding::Failed(Failure::fatal(
            status.as_str(),
            format!("child run `{run}` was {}", status.as_str()),
        )),
    }
}

fn timers(graph: &Graph, cursor: &mut Cursor, now: Timestamp, taken: &mut Taken) {
    while let Some(activation) = find(
        cursor,
        |phase| matches!(phase, Phase::Signal { until: Some(until), .. } if *until <= now),
    ) {
        taken.events.push(NewEvent::step(EventKind::TIMER_FIRED, &activation.step, Value::Null));
        let ending = StepEnding::Output(Arc::new(Value::Null));
        taken.ended(graph, cursor, &activation, ending);
    }
}

/// Ends questions that are too late to answer, and brings others to mind. An answer that is there
/// has been taken before.
fn patience(graph: &Graph, cursor: &mut Cursor, now: Timestamp, taken: &mut Taken) {
    let is_over = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
    let over: Vec<StepId> = cursor
        .patience
        .iter()
        .filter(|(_, patience)| is_over(patience.expires_at) || is_over(patience.remind_at))
        .map(|(step, _)| step.clone())
        .collect();
    for step in over {
        let Some(activation) = find_step(cursor, &step) else {
            cursor.patience.remove(&step);
            continue;
        };
        let Some(Work::Gate(gate)) = graph.at(&activation.node).map(|node| &node.work) else {
            continue;
        };
        let (Phase::Answer { blocks }, Some(patience)) =
            (&activation.phase, cursor.patience.get_mut(&step))
        else {
            continue;
        };
        let data = json!({ "id": blocks.first() });
        if is_over(patience.expires_at) {
            let ending = expired(gate);
            cursor.patience.remove(&step);
            taken.events.push(NewEvent::step(EventKind::QUESTION_EXPIRED, &step, data));
            taken.expired.extend(blocks.iter().cloned());
            taken.ended(graph, cursor, &activation, ending);
        } else {
            patience.remind_at = next_reminder(patience.remind_at, gate.remind, now);
            taken.events.push(NewEvent::step(EventKind::QUESTION_REMINDED, &step, data));
            taken.has_reminded = true;
        }
    }
}

/// How a gate ends that nobody answered in time.
pub(crate) fn expired(gate: &Gate) -> StepEnding {
    let message =
        format!("nobody answered within {}", explain::time(gate.expires.unwrap_or_default()));
    StepEnding::Failed(Failure::fatal("expired", message))
}

/// The activation of a step that waits for an answer.
fn find_step(cursor: &Cursor, step: &StepId) -> Option<Activation> {
    let mut active = cursor.active.iter();
    let is_meant =
        |other: &&Activation| other.step == *step && matches!(other.phase, Phase::Answer { .. });
    active.find(is_meant).cloned()
}

/// What was missed while nobody worked on the run is told once.
fn next_reminder(
    last: Option<Timestamp>,
    interval: Option<Duration>,
    now: Timestamp,
) -> Option<Timestamp> {
    let interval = interval.filter(|interval| interval.as_millis() > 0)?;
    let last = last?;
    let missed = now.since(last).as_millis() / interval.as_millis();
    Some(last + interval * u32::try_from(missed + 1).unwrap_or(u32::MAX))
}

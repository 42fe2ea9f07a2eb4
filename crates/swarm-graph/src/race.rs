//! Who has won a race, and what is called off; pure.
//!
//! What a newcomer gets wrong: a race is decided when a member's step ends, not when the
//! superstep does. The steps that lost are taken out of the cursor at once; that becomes durable
//! with the winner's ending, in one commit, so that a crash in between leaves the race open.

use std::collections::BTreeSet;

use serde_json::json;
use swarm_core::checkpoint::{Activation, Cursor, Phase};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{NodeName, StepId};

use crate::frame;
use crate::graph::{Graph, Race};
use crate::plan::{Ended, Ending};

/// What the winners of races left behind.
#[derive(Debug, Default)]
pub(crate) struct CalledOff {
    /// The activations that were taken out of the cursor.
    pub(crate) activations: Vec<Activation>,
    /// What to tell.
    pub(crate) events: Vec<NewEvent>,
}

/// Takes what lost a race out of the cursor and out of the endings, which are in the order of
/// their arrival.
pub(crate) fn call_off(graph: &Graph, cursor: &mut Cursor, endings: &mut Vec<Ending>) -> CalledOff {
    let mut off = CalledOff::default();
    let mut frames: Vec<(Option<StepId>, NodeName)> = Vec::new();
    for Ending { activation, .. } in endings.iter() {
        if !frames.iter().any(|(frame, _)| *frame == activation.frame) {
            frames.push((activation.frame.clone(), activation.node.clone()));
        }
    }
    for (frame, node) in frames {
        if let Some(home) = graph.home(&node) {
            call_off_in(home, frame.as_ref(), cursor, endings, &mut off);
        }
    }
    off
}

/// The same for the races of one graph, in the frame that it runs in.
pub(crate) fn call_off_in(
    home: &Graph,
    frame: Option<&StepId>,
    cursor: &mut Cursor,
    endings: &mut Vec<Ending>,
    off: &mut CalledOff,
) {
    for race in &home.races {
        let won =
            |ending: &&Ending| ending.activation.frame.as_ref() == frame && wins(race, ending);
        let Some(winner) = endings.iter().find(won) else { continue };
        let winner = winner.activation.step.clone();
        let lost_itself = |activation: &Activation| {
            activation.frame.as_ref() == frame
                && race.field.contains(activation.node.local())
                && activation.step != winner
        };
        let roots: Vec<StepId> = cursor
            .active
            .iter()
            .filter(|activation| lost_itself(activation))
            .map(|activation| activation.step.clone())
            .collect();
        let lost = |activation: &Activation| {
            lost_itself(activation) || roots.iter().any(|root| activation.step.is_below(root))
        };
        let cancelled = |step: &StepId| {
            let data = json!({ "race": race.node, "winner": winner });
            NewEvent::step(EventKind::NODE_CANCELLED, step, data)
        };
        endings.retain(|ending| !lost(&ending.activation));
        let (dropped, kept) =
            std::mem::take(&mut cursor.active).into_iter().partition(|other| lost(other));
        cursor.active = kept;
        off.events
            .extend(dropped.iter().map(|activation: &Activation| cancelled(&activation.step)));
        off.activations.extend(dropped);
        if let Some(counts) = frame::counts(cursor, frame) {
            counts.arrived.retain(|join, _| !race.field.contains(join));
        }
    }
}

/// Whether something in the field of a race waits while something else in it is at work: then
/// what it waits for must be looked for before the superstep ends.
pub(crate) fn is_contested(graph: &Graph, cursor: &Cursor, at_work: &BTreeSet<StepId>) -> bool {
    graph.has_races
        && frame::all(cursor).into_iter().any(|(frame, node)| {
            let Some(home) = graph.home(node) else { return false };
            home.races.iter().any(|race| is_contested_in(race, frame, cursor, at_work))
        })
}

fn is_contested_in(
    race: &Race,
    frame: Option<&StepId>,
    cursor: &Cursor,
    at_work: &BTreeSet<StepId>,
) -> bool {
    let lines: Vec<&StepId> = cursor
        .active
        .iter()
        .filter(|other| other.frame.as_ref() == frame && race.field.contains(other.node.local()))
        .map(|other| &other.step)
        .collect();
    let field = || {
        let is_in = |step: &StepId| lines.iter().any(|line| step == *line || step.is_below(line));
        cursor.active.iter().filter(move |other| is_in(&other.step))
    };
    let waits = |other: &Activation| {
        matches!(other.phase, Phase::Answer { .. } | Phase::Child { .. } | Phase::Signal { .. })
    };
    field().any(|other| at_work.contains(&other.step)) && field().any(waits)
}

fn wins(race: &Race, ending: &Ending) -> bool {
    race.members.iter().any(|member| member.as_str() == ending.activation.node.local())
        && matches!(ending.result, Ended::Output(_) | Ended::Items { .. })
}

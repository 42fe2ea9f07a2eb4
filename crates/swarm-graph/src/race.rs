//! Who has won a race, and what is called off; pure.
//!
//! What a newcomer gets wrong: a race is decided when a member's step ends, not when the
//! superstep does. The steps that lost are taken out of the cursor at once; that becomes durable
//! with the winner's ending, in one commit, so that a crash in between leaves the race open.

use std::collections::BTreeSet;

use serde_json::json;
use swarm_core::checkpoint::{Activation, Cursor, Phase};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::StepId;

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
    for race in &graph.races {
        let Some(winner) = endings.iter().find(|ending| wins(race, ending)) else { continue };
        let winner = winner.activation.step.clone();
        let lost = |activation: &Activation| {
            race.field.contains(&activation.node) && activation.step != winner
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
        cursor.arrived.retain(|join, _| !race.field.contains(join));
    }
    off
}

/// Whether something in the field of a race waits while something else in it is at work: then
/// what it waits for must be looked for before the superstep ends.
pub(crate) fn is_contested(graph: &Graph, cursor: &Cursor, at_work: &BTreeSet<StepId>) -> bool {
    graph.races.iter().any(|race| {
        let field = || cursor.active.iter().filter(|other| race.field.contains(&other.node));
        field().any(|other| at_work.contains(&other.step))
            && field().any(|other| {
                matches!(
                    other.phase,
                    Phase::Answer { .. } | Phase::Child { .. } | Phase::Signal { .. }
                )
            })
    })
}

fn wins(race: &Race, ending: &Ending) -> bool {
    race.members.contains(&ending.activation.node)
        && matches!(ending.result, Ended::Output(_) | Ended::Items { .. })
}

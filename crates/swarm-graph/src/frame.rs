//! Graphs that run inside a run, each in the frame of the activation that runs it; pure.
//!
//! What a newcomer gets wrong: nothing is flattened when a graph is loaded. The cursor stays one
//! list; an activation in an inline graph names the step that runs the graph as its `frame`, and
//! has that step's id before its own. Counts and input of a graph inside are kept in that step's
//! phase; its channels are in the run's state, under that step's id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use swarm_core::checkpoint::{Change, ChannelDelta, Checkpoint, Cursor, Frame, Phase, State};
use swarm_core::failure::Failure;
use swarm_core::id::{ChannelName, NodeName, StepId};

use crate::graph::Graph;
use crate::plan;

/// What one graph of a run has used up.
pub(crate) struct Counts<'c> {
    pub(crate) visits: &'c mut BTreeMap<NodeName, u32>,
    pub(crate) taken: &'c mut BTreeMap<String, u32>,
    pub(crate) arrived: &'c mut BTreeMap<NodeName, Vec<NodeName>>,
    pub(crate) supersteps: &'c mut u32,
}

/// The counts of the graph that a step runs inline, or of the run's own; `None`: there is no such
/// step.
pub(crate) fn counts<'c>(cursor: &'c mut Cursor, frame: Option<&StepId>) -> Option<Counts<'c>> {
    let Some(step) = frame else {
        let Cursor { visits, taken, arrived, supersteps, .. } = cursor;
        return Some(Counts { visits, taken, arrived, supersteps });
    };
    cursor.active.iter_mut().find(|other| other.step == *step).and_then(|found| {
        match &mut found.phase {
            Phase::Inline(frame) => {
                let Frame { visits, taken, arrived, supersteps, .. } = &mut **frame;
                Some(Counts { visits, taken, arrived, supersteps })
            }
            Phase::Due
            | Phase::Backoff { .. }
            | Phase::Answer { .. }
            | Phase::Child { .. }
            | Phase::Signal { .. }
            | Phase::Foreach { .. } => None,
        }
    })
}

/// The frame that a step keeps, if it runs a graph inline.
pub(crate) fn of<'c>(cursor: &'c Cursor, step: &StepId) -> Option<&'c Frame> {
    cursor.active.iter().find(|other| other.step == *step).and_then(|found| match &found.phase {
        Phase::Inline(frame) => Some(&**frame),
        Phase::Due
        | Phase::Backoff { .. }
        | Phase::Answer { .. }
        | Phase::Child { .. }
        | Phase::Signal { .. }
        | Phase::Foreach { .. } => None,
    })
}

/// The node that runs a graph inline, by its path.
pub(crate) fn path<'c>(cursor: &'c Cursor, step: &StepId) -> Option<&'c NodeName> {
    cursor.active.iter().find(|other| other.step == *step).map(|found| &found.node)
}

/// Begins to run a graph inside: its channels at their defaults, its entry due. Returns how the
/// state changed.
pub(crate) fn enter(
    inner: &Graph,
    checkpoint: &mut Checkpoint,
    step: &StepId,
    input: Value,
) -> Result<Vec<ChannelDelta>, Failure> {
    let mut deltas = Vec::with_capacity(inner.channels.len());
    for (name, channel) in &inner.channels {
        let name = channel_in(Some(step), name)?;
        checkpoint.state.set(name.clone(), channel.default.clone());
        deltas.push(ChannelDelta { channel: name, change: Change::Full(channel.default.clone()) });
    }
    let frame = Frame { input: Arc::new(input), ..Frame::default() };
    for activation in &mut checkpoint.cursor.active {
        if activation.step == *step {
            activation.phase = Phase::Inline(Box::new(frame.clone()));
        }
    }
    plan::activate(&mut checkpoint.cursor, Some(step), &inner.entry, None)?;
    Ok(deltas)
}

/// The name in the run's state of a channel of the graph that a step runs inline.
pub(crate) fn channel_in(
    frame: Option<&StepId>,
    channel: &ChannelName,
) -> Result<ChannelName, Failure> {
    match frame {
        None => Ok(channel.clone()),
        Some(step) => ChannelName::inside(step, channel)
            .map_err(|error| Failure::fatal("too_deep", error.to_string())),
    }
}

/// Removes the channels of graphs inside that have ended or were called off. In the store they
/// are null from then on.
pub(crate) fn sweep(state: &mut State, cursor: &Cursor) -> Vec<ChannelDelta> {
    let live: BTreeSet<&str> = cursor
        .active
        .iter()
        .filter(|activation| matches!(activation.phase, Phase::Inline(_)))
        .map(|activation| activation.step.as_str())
        .collect();
    let is_dead = |name: &&ChannelName| name.frame().is_some_and(|frame| !live.contains(frame));
    let dead: Vec<ChannelName> = state.0.keys().filter(is_dead).cloned().collect();
    let null = |channel| {
        state.remove(&channel);
        ChannelDelta { channel, change: Change::Full(Arc::default()) }
    };
    dead.into_iter().map(null).collect()
}

/// The frames that something of a run is in, `None` for the run's own graph, each with a node in
/// it.
pub(crate) fn all(cursor: &Cursor) -> BTreeMap<Option<&StepId>, &NodeName> {
    cursor.active.iter().map(|one| (one.frame.as_ref(), &one.node)).collect()
}

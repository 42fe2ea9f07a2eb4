//! Whose turn it is: what is due, but must wait for others first; pure.
//!
//! What a newcomer gets wrong: being due is not enough to start. A node with `concurrency` waits
//! until fewer of its own have begun, a deferred one until nothing else of its graph is left, and
//! a step of an inline graph for that graph's own `limits.concurrency`.

use std::collections::BTreeSet;

use swarm_core::checkpoint::{Activation, Cursor, Phase};
use swarm_core::id::{NodeName, StepId};

use crate::graph::{Graph, GraphNode};

/// Whether an activation that is due may start now. `running` are the steps at work; `has_ended`:
/// something has ended in this superstep, and may yet lead somewhere.
pub(crate) fn may_start(
    graph: &Graph,
    cursor: &Cursor,
    activation: &Activation,
    running: &BTreeSet<StepId>,
    has_ended: bool,
) -> bool {
    if !graph.has_turns {
        return true;
    }
    let Some(node) = graph.at(&activation.node) else { return true };
    let is_loop = node.foreach.is_some() && activation.item.is_none();
    let waits_for_all = node.is_deferred && activation.item.is_none();
    (is_loop || has_place(node, &activation.node, cursor, running))
        && (!waits_for_all || (!has_ended && is_last(graph, cursor, activation)))
        && has_room(graph, cursor, activation, running)
}

/// Whether fewer of a node's activations than it allows have begun and not ended.
pub(crate) fn has_place(
    node: &GraphNode,
    path: &NodeName,
    cursor: &Cursor,
    running: &BTreeSet<StepId>,
) -> bool {
    let Some(limit) = node.concurrency else { return true };
    let has_begun = |other: &&Activation| {
        other.node == *path
            && match other.phase {
                Phase::Due | Phase::Backoff { .. } => running.contains(&other.step),
                Phase::Answer { .. }
                | Phase::Child { .. }
                | Phase::Signal { .. }
                | Phase::Inline(_) => true,
                Phase::Foreach { .. } => false,
            }
    };
    cursor.active.iter().filter(has_begun).count() < limit as usize
}

/// Whether only deferred nodes are left in the graph that an activation lies in. All of those
/// begin together, so that none waits for another.
fn is_last(graph: &Graph, cursor: &Cursor, activation: &Activation) -> bool {
    let mut others = cursor.active.iter().filter(|other| other.frame == activation.frame);
    others.all(|other| graph.at(&other.node).is_none_or(|node| node.is_deferred))
}

/// Whether every inline graph that an activation lies in may have one more step at work.
fn has_room(
    graph: &Graph,
    cursor: &Cursor,
    activation: &Activation,
    running: &BTreeSet<StepId>,
) -> bool {
    let mut inner = activation;
    while let Some(step) = &inner.frame {
        let Some(outer) = cursor.active.iter().find(|other| other.step == *step) else {
            return true;
        };
        let limit = graph.at(&outer.node).and_then(GraphNode::inline);
        let limit = limit.map_or(u32::MAX, |inside| inside.limits.concurrency);
        let at_work = running.iter().filter(|running| running.is_below(step)).count();
        if at_work >= limit as usize {
            return false;
        }
        inner = outer;
    }
    true
}

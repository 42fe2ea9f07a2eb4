//! Which nodes may be at work at the same time.
//!
//! Conservative: a pair that is not here is never together; a pair that is here may be. After a
//! way with several targets, whatever is reachable from one target may meet whatever is reachable
//! from another, up to a join that waits for both.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use crate::graph::Topology;

/// Pairs of nodes by their places, the smaller first; a node with itself when it may run twice.
pub(super) type Pairs = BTreeSet<(usize, usize)>;

/// The pairs that may be together; `without` is a node that is left out with its ways.
pub(super) fn together(topology: &Topology, without: Option<usize>) -> Pairs {
    let joins = joins(topology, without);
    let mut pairs = Pairs::new();
    for targets in forks(topology) {
        for (position, first) in targets.iter().enumerate() {
            for second in &targets[position + 1..] {
                let met = met(topology, *first, *second, &joins, without);
                let firsts = region(topology, *first, &met, without);
                let seconds = region(topology, *second, &met, without);
                for a in &firsts {
                    for b in &seconds {
                        pairs.insert((*a.min(b), *a.max(b)));
                    }
                }
            }
        }
    }
    pairs
}

/// The targets of each way that leads to several nodes.
fn forks(topology: &Topology) -> Vec<Vec<usize>> {
    let mut by_place: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for edge in topology.edge_references() {
        if topology[edge.target()].is_some() {
            by_place.entry(&edge.weight().place).or_default().insert(edge.target().index());
        }
    }
    by_place.into_values().filter(|to| to.len() > 1).map(|to| to.into_iter().collect()).collect()
}

/// The joins and the nodes that lead to each.
fn joins(topology: &Topology, without: Option<usize>) -> BTreeMap<usize, BTreeSet<usize>> {
    topology
        .node_indices()
        .filter(|node| {
            topology[*node].is_some_and(|node| node.is_join) && Some(node.index()) != without
        })
        .map(|node| {
            let from = topology.neighbors_directed(node, petgraph::Direction::Incoming);
            (node.index(), from.map(NodeIndex::index).collect())
        })
        .collect()
}

/// The joins that bring the ways from two nodes together: each comes to it by a way of its own.
fn met(
    topology: &Topology,
    first: usize,
    second: usize,
    joins: &BTreeMap<usize, BTreeSet<usize>>,
    without: Option<usize>,
) -> BTreeSet<usize> {
    let mut met = BTreeSet::new();
    for (join, members) in joins {
        let stop = BTreeSet::from([*join]);
        let firsts = region(topology, first, &stop, without);
        let seconds = region(topology, second, &stop, without);
        let own = |ours: &BTreeSet<usize>, theirs: &BTreeSet<usize>| {
            members.iter().any(|member| ours.contains(member) && !theirs.contains(member))
        };
        if own(&firsts, &seconds) && own(&seconds, &firsts) {
            met.insert(*join);
        }
    }
    met
}

/// What is reachable from a node, itself included, without passing `stop`.
fn region(
    topology: &Topology,
    from: usize,
    stop: &BTreeSet<usize>,
    without: Option<usize>,
) -> BTreeSet<usize> {
    let blocked = |node: usize| stop.contains(&node) || Some(node) == without;
    let mut seen = BTreeSet::new();
    let mut left = vec![from];
    while let Some(here) = left.pop() {
        let index = NodeIndex::new(here);
        if blocked(here) || topology[index].is_none() || !seen.insert(here) {
            continue;
        }
        left.extend(topology.neighbors(index).map(NodeIndex::index));
    }
    seen
}

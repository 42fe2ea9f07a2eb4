//! Which nodes may be at work at the same time.
//!
//! Conservative: a pair that is not here is never together; a pair that is here may be. After a
//! way with several targets, whatever is reachable from one target may meet whatever is reachable
//! from another, up to a join that waits for both.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use crate::graph::Topology;

/// A set of nodes by their places.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Nodes(Vec<u64>);

impl Nodes {
    fn insert(&mut self, node: usize) -> bool {
        let (word, bit) = (node / 64, 1 << (node % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn contains(&self, node: usize) -> bool {
        self.0.get(node / 64).is_some_and(|word| word & (1 << (node % 64)) != 0)
    }

    fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

/// The pairs of nodes that may be together.
pub(super) struct Together {
    with: Vec<Nodes>,
}

impl Together {
    /// Looks at every way with several targets.
    pub(super) fn of(topology: &Topology) -> Self {
        let mut search = Search { topology, regions: BTreeMap::new() };
        let joins = joins(topology);
        let mut together = Self { with: vec![Nodes::default(); topology.node_count()] };
        for (first, second) in forks(topology) {
            let met = search.met(first, second, &joins);
            let firsts = search.region(first, &met);
            let seconds = search.region(second, &met);
            together.add(&firsts, &seconds);
            together.add(&seconds, &firsts);
        }
        together
    }

    fn add(&mut self, these: &Nodes, those: &Nodes) {
        for (node, with) in self.with.iter_mut().enumerate() {
            if these.contains(node) {
                with.add_all(those);
            }
        }
    }

    /// Whether two nodes may be at work at the same time; one with itself: whether it may run
    /// twice.
    pub(super) fn may_be(&self, first: usize, second: usize) -> bool {
        self.with.get(first).is_some_and(|with| with.contains(second))
    }
}

/// Every two targets of a way.
fn forks(topology: &Topology) -> BTreeSet<(usize, usize)> {
    let mut by_place: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for edge in topology.edge_references() {
        if topology[edge.target()].is_some() {
            by_place.entry(&edge.weight().place).or_default().insert(edge.target().index());
        }
    }
    by_place
        .into_values()
        .flat_map(|targets| {
            let targets: Vec<usize> = targets.into_iter().collect();
            let mut pairs = Vec::new();
            for (position, first) in targets.iter().enumerate() {
                pairs.extend(targets[position + 1..].iter().map(|second| (*first, *second)));
            }
            pairs
        })
        .collect()
}

/// The joins, and the nodes that lead to each.
fn joins(topology: &Topology) -> Vec<(usize, Vec<usize>)> {
    topology
        .node_indices()
        .filter(|node| topology[*node].is_some_and(|spot| spot.is_join))
        .map(|node| {
            let from = topology.neighbors_directed(node, Direction::Incoming);
            (node.index(), from.map(NodeIndex::index).collect())
        })
        .collect()
}

struct Search<'t> {
    topology: &'t Topology,
    /// What is reachable from a node without passing some others.
    regions: BTreeMap<(usize, Nodes), Nodes>,
}

impl Search<'_> {
    /// The joins that bring the ways from two nodes together: each comes by a way of its own.
    fn met(&mut self, first: usize, second: usize, joins: &[(usize, Vec<usize>)]) -> Nodes {
        let mut met = Nodes::default();
        for (join, members) in joins {
            let mut stop = Nodes::default();
            stop.insert(*join);
            let (firsts, seconds) = (self.region(first, &stop), self.region(second, &stop));
            let own = |ours: &Nodes, theirs: &Nodes| {
                members.iter().any(|member| ours.contains(*member) && !theirs.contains(*member))
            };
            if own(&firsts, &seconds) && own(&seconds, &firsts) {
                met.insert(*join);
            }
        }
        met
    }

    /// What is reachable from a node, itself included, without passing `stop`.
    fn region(&mut self, from: usize, stop: &Nodes) -> Nodes {
        let key = (from, stop.clone());
        if let Some(known) = self.regions.get(&key) {
            return known.clone();
        }
        let mut seen = Nodes::default();
        let mut left = vec![from];
        while let Some(here) = left.pop() {
            let index = NodeIndex::new(here);
            if stop.contains(here) || self.topology[index].is_none() || !seen.insert(here) {
                continue;
            }
            left.extend(self.topology.neighbors(index).map(NodeIndex::index));
        }
        self.regions.insert(key, seen.clone());
        seen
    }
}

//! Whether untrusted text, a secret and a way out meet, and whether every effect that needs a
//! gate has one before it.
//!
//! A run carries marks: it has read untrusted text, it has read a secret, no gate was passed yet.
//! All combinations of marks that it may come to each node with are found by following every way,
//! starting with those of the entry. A gate takes all marks away. What another node that may be at
//! work at the same time reads counts as read, too: both see one state.
//!
//! Conservative in what parallel lines share, exact in what routes exclude.

use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use super::Checker;
use super::parallel::Together;
use crate::defect::Code;
use crate::graph::{Graph, GraphNode, Topology, Work};
use crate::information::Flow;
use crate::registry::Registry;
use crate::spec::yaml::Span;

/// Marks that a run carries, as bits.
type Marks = u8;

const UNTRUSTED: Marks = 1;
const SECRET: Marks = 2;
const UNGATED: Marks = 4;
const BOTH: Marks = UNTRUSTED | SECRET;
const COMBINATIONS: Marks = 8;

/// A set of combinations of marks: the bit of a combination is its number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Possible(u8);

impl Possible {
    fn one(marks: Marks) -> Self {
        Self(1 << marks)
    }

    fn add(&mut self, other: Self) -> bool {
        let before = self.0;
        self.0 |= other.0;
        self.0 != before
    }

    fn iter(self) -> impl Iterator<Item = Marks> {
        (0..COMBINATIONS).filter(move |marks| self.0 & (1 << marks) != 0)
    }

    /// Each of one with each of the other: what a join holds.
    fn times(self, other: Self) -> Self {
        let pairs = self.iter().flat_map(|one| other.iter().map(move |two| one | two));
        pairs.fold(Self::default(), |all, marks| Self(all.0 | 1 << marks))
    }
}

/// What starting a graph means for whoever starts it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Summary {
    /// The marks that it may end with, by those that it was started with.
    out: [Possible; COMBINATIONS as usize],
    /// The marks to start it with that let something out inside it.
    leaks: Possible,
}

/// The summaries of graphs that start each other, by name: the smallest that hold together.
pub(super) fn summaries<'g>(
    graphs: &(impl Iterator<Item = &'g Graph> + Clone),
    registry: &Registry,
) -> BTreeMap<String, Summary> {
    let mut known = BTreeMap::new();
    loop {
        let next = graphs
            .clone()
            .map(|graph| (graph.name.to_string(), summary_of(graph, registry, &known)));
        let next: BTreeMap<String, Summary> = next.collect();
        if next == known {
            return known;
        }
        known = next;
    }
}

/// What running a graph means, started or inside another one.
fn summary_of(graph: &Graph, registry: &Registry, known: &BTreeMap<String, Summary>) -> Summary {
    let view = View::of(&graph.nodes, &graph.topology, &graph.together, registry, known);
    let entry = graph.nodes.get_index_of(&graph.entry).unwrap_or_default();
    view.summary(entry)
}

/// What is wrong at a node.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Wrong {
    LetsOut,
    NoGateBefore,
}

/// A node as this check sees it.
#[derive(Clone, Copy)]
enum Means {
    Kind(Flow),
    Gate,
    Child { summary: Summary, is_awaited: bool },
}

/// A node and the marks that a run comes to it with.
type Place = (usize, Marks);

/// A graph as this check sees it.
struct View<'v> {
    topology: &'v Topology,
    together: &'v Together,
    means: Vec<Means>,
}

/// What following every way came to.
struct Followed {
    /// By node; the last is the end.
    arrives: Vec<Possible>,
    /// From where each place was first come to.
    from: BTreeMap<Place, Place>,
    /// The first place of each node at which each thing is wrong.
    wrong: BTreeMap<(usize, Wrong), Marks>,
}

impl<'v> View<'v> {
    fn of(
        nodes: &indexmap::IndexMap<swarm_core::id::NodeName, GraphNode>,
        topology: &'v Topology,
        together: &'v Together,
        registry: &Registry,
        known: &BTreeMap<String, Summary>,
    ) -> Self {
        let means = nodes.values().map(|node| match &node.work {
            Work::Uses { kind, .. } => {
                Means::Kind(registry.kind(kind).map_or(Flow::NONE, |kind| kind.flow))
            }
            Work::Gate(_) => Means::Gate,
            Work::Wait { .. } => Means::Kind(Flow::NONE),
            Work::Inline { graph, .. } => {
                Means::Child { summary: summary_of(graph, registry, known), is_awaited: true }
            }
            Work::Run { graph, detach, .. } => {
                known.get(graph.as_str()).map_or(Means::Kind(Flow::NONE), |summary| Means::Child {
                    summary: *summary,
                    is_awaited: !detach,
                })
            }
        });
        Self { topology, together, means: means.collect() }
    }

    fn summary(&self, entry: usize) -> Summary {
        let mut summary = Summary::default();
        for marks in 0..COMBINATIONS {
            // Inside, a gate of whoever started it does not count: a graph guards itself.
            let followed = self.follow((entry, marks | UNGATED));
            let out = followed.arrives[self.means.len()];
            // If it asks nobody, it takes no gate away from whoever started it either.
            let kept = |out: Marks| if marks & UNGATED == 0 { out & !UNGATED } else { out };
            let out = out
                .iter()
                .fold(Possible::default(), |all, out| Possible(all.0 | Possible::one(kept(out)).0));
            summary.out[usize::from(marks)] = out;
            if followed.wrong.keys().any(|(_, wrong)| *wrong == Wrong::LetsOut) {
                summary.leaks.add(Possible::one(marks));
            }
        }
        summary
    }

    /// What the node itself, and others while it works, may have read.
    fn read_at(&self, node: usize, marks: Marks) -> Marks {
        let reads = |other: usize| match self.means[other] {
            Means::Kind(flow) => {
                let untrusted = if flow.reads_untrusted { UNTRUSTED } else { 0 };
                untrusted | if flow.reads_secret { SECRET } else { 0 }
            }
            Means::Gate => 0,
            Means::Child { summary, .. } => {
                summary.out[0].iter().fold(0, |all, out| all | (out & BOTH))
            }
        };
        let beside = (0..self.means.len())
            .filter(|other| *other != node && self.together.may_be(node, *other))
            .fold(0, |all, other| all | reads(other));
        let own = if let Means::Kind(_) = self.means[node] { reads(node) } else { 0 };
        marks | own | beside
    }

    /// What a node makes of the marks: when it succeeds, when it fails, and what is wrong with it.
    fn pass(&self, (node, marks): Place) -> (Possible, Possible, Vec<Wrong>) {
        let here = self.read_at(node, marks);
        match self.means[node] {
            Means::Gate => (Possible::one(0), Possible::one(here), Vec::new()),
            Means::Kind(flow) => {
                let mut wrong = Vec::new();
                if flow.sends_out && here & BOTH == BOTH {
                    wrong.push(Wrong::LetsOut);
                }
                if flow.needs_gate && here & UNGATED != 0 {
                    wrong.push(Wrong::NoGateBefore);
                }
                let used_up = here | if flow.needs_gate { UNGATED } else { 0 };
                let after = if flow.asks_person { 0 } else { used_up };
                (Possible::one(after), Possible::one(used_up), wrong)
            }
            Means::Child { summary, is_awaited } => {
                // What it does when it is started clean is told where it is.
                let lets_out =
                    |marks: Marks| summary.leaks.iter().any(|leaking| leaking == marks & BOTH);
                let wrong =
                    if lets_out(here) && !lets_out(0) { vec![Wrong::LetsOut] } else { vec![] };
                let mut out = summary.out[usize::from(here)];
                if !is_awaited || out == Possible::default() {
                    out.add(Possible::one(here));
                }
                let mut failed = out;
                failed.add(Possible::one(here));
                (out, failed, wrong)
            }
        }
    }

    /// Follows every way from a place.
    fn follow(&self, start: Place) -> Followed {
        let end = self.means.len();
        let mut followed = Followed {
            arrives: vec![Possible::default(); end + 1],
            from: BTreeMap::new(),
            wrong: BTreeMap::new(),
        };
        followed.arrives[start.0] = Possible::one(start.1);
        // What each way has brought, for joins.
        let mut brought: BTreeMap<(usize, usize), Possible> = BTreeMap::new();
        let mut due = std::collections::VecDeque::from([start]);
        while let Some(place) = due.pop_front() {
            let (node, marks) = place;
            let (out, failed, wrong) = self.pass(place);
            for wrong in wrong {
                followed.wrong.entry((node, wrong)).or_insert(marks);
            }
            for way in self.topology.edges(NodeIndex::new(node)) {
                let to = way.target().index();
                let gives = if way.weight().on_failure { failed } else { out };
                brought.entry((node, to)).or_default().add(gives);
                let is_join = self.topology[way.target()].is_some_and(|spot| spot.is_join);
                let arriving = if is_join { self.joined(to, node, &brought) } else { gives };
                for marks in arriving.iter() {
                    if followed.arrives[to].add(Possible::one(marks)) {
                        followed.from.insert((to, marks), place);
                        if to != end {
                            due.push_back((to, marks));
                        }
                    }
                }
            }
        }
        followed
    }

    /// What a join holds when one of its ways brings something: that with all that the others
    /// have brought so far.
    fn joined(
        &self,
        join: usize,
        by: usize,
        brought: &BTreeMap<(usize, usize), Possible>,
    ) -> Possible {
        let mut ways: Vec<usize> = self
            .topology
            .edges_directed(NodeIndex::new(join), Direction::Incoming)
            .map(|way| way.source().index())
            .collect();
        ways.sort_unstable();
        ways.dedup();
        let of = |way: usize| brought.get(&(way, join)).copied().unwrap_or_default();
        let others = ways.into_iter().filter(|way| *way != by).map(of);
        others.filter(|held| held.0 != 0).fold(of(by), Possible::times)
    }

    /// The nodes on the way to a place, the place's own last.
    fn path(&self, followed: &Followed, mut place: Place) -> Vec<usize> {
        let mut path = vec![place.0];
        while let Some(before) = followed.from.get(&place) {
            path.push(before.0);
            place = *before;
        }
        path.reverse();
        path
    }
}

impl Checker<'_> {
    /// Notes where something secret may be let out, and where an effect comes before its gate.
    pub(super) fn information(
        &mut self,
        nodes: &indexmap::IndexMap<swarm_core::id::NodeName, GraphNode>,
        places: &[Span],
        entry: usize,
        topology: &Topology,
        together: &Together,
    ) {
        let none = BTreeMap::new();
        let known = self.summaries.unwrap_or(&none);
        let view = View::of(nodes, topology, together, self.registry, known);
        let followed = view.follow((entry, UNGATED));
        for (&(node, wrong), &marks) in &followed.wrong {
            let name = |index: usize| nodes.get_index(index).map_or("", |(name, _)| name.as_str());
            let path = view.path(&followed, (node, marks));
            let way: Vec<&str> = path.iter().map(|index| name(*index)).collect();
            let way = way.join(" → ");
            let (code, message, help) = match wrong {
                Wrong::LetsOut => (
                    Code::UnguardedFlow,
                    format!(
                        "node `{}` can send out what is secret, on behalf of text that strangers wrote: {way}",
                        name(node)
                    ),
                    "put a `gate` before it, or keep the text, the secret and the way out in different runs",
                ),
                Wrong::NoGateBefore => (
                    Code::EffectBeforeGate,
                    format!("node `{}` needs a gate, and none is on the way {way}", name(node)),
                    "put a `gate` before it; after each time that it has run, a new one is needed",
                ),
            };
            self.report.error(code, places[node], message).help = Some(help.to_owned());
        }
    }
}

//! The flow of a graph: what can be reached, what comes to an end, what goes round.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::NodeIndex;
use petgraph::visit::{Dfs, EdgeRef, Reversed};

use super::Checker;
use super::node::Draft;
use super::parallel::Together;
use super::race::RaceDraft;
use super::state::StateDraft;
use crate::defect::{Code, suggest};
use crate::graph::{Limits, Spot, Topology, Way};
use crate::spec::yaml::{Span, Spanned};

impl Checker<'_> {
    /// Checks the flow, and makes the graph that the printers walk.
    pub(super) fn flow(
        &mut self,
        drafts: &[Draft],
        entry: Option<usize>,
        limits: Limits,
        state: &StateDraft,
    ) -> (Topology, Vec<RaceDraft>, Together) {
        let topology = topology(drafts);
        self.reach(drafts, entry, &topology);
        self.ends(drafts, &topology);
        self.cycles(drafts, &topology);
        self.bounds(drafts, limits);
        let races = self.races(drafts, entry, &topology);
        let together = Together::of(&topology, &races);
        self.joins(drafts, entry, &together);
        self.rivals(drafts, &races, &together);
        self.parallel_writers(drafts, &together, &races, state);
        (topology, races, together)
    }

    fn reach(&mut self, drafts: &[Draft], entry: Option<usize>, topology: &Topology) {
        let Some(entry) = entry else { return };
        let mut reached = BTreeSet::new();
        let mut dfs = Dfs::new(topology, NodeIndex::new(entry));
        while let Some(node) = dfs.next(topology) {
            reached.insert(node.index());
        }
        for (index, draft) in drafts.iter().enumerate() {
            if !reached.contains(&index) {
                let message = format!("no way leads from `entry` to node `{}`", draft.name);
                self.report.error(Code::UnreachableNode, draft.at, message).help =
                    Some("lead a `next`, a route or a `catch` to it, or leave it out".to_owned());
            }
        }
    }

    fn ends(&mut self, drafts: &[Draft], topology: &Topology) {
        let end = NodeIndex::new(drafts.len());
        let mut ending = BTreeSet::new();
        let reversed = Reversed(topology);
        let mut dfs = Dfs::new(reversed, end);
        while let Some(node) = dfs.next(reversed) {
            ending.insert(node.index());
        }
        // A way that could not be read may have been the way out.
        for (index, _) in drafts.iter().enumerate().filter(|(_, draft)| !draft.is_whole) {
            let mut dfs = Dfs::new(reversed, NodeIndex::new(index));
            while let Some(node) = dfs.next(reversed) {
                ending.insert(node.index());
            }
        }
        for (index, draft) in drafts.iter().enumerate() {
            if !ending.contains(&index) {
                let message = format!("no way leads from node `{}` to `$end`", draft.name);
                self.report.error(Code::NoWayToEnd, draft.at, message).help =
                    Some("lead one of its ways out, at last to `$end`".to_owned());
            }
        }
    }

    /// Every cycle must have a `max` on one of its ways: without the bounded ones, none is left.
    fn cycles(&mut self, drafts: &[Draft], topology: &Topology) {
        let unbounded: Topology = topology
            .filter_map(|_, node| Some(*node), |_, way| way.max.is_none().then(|| way.clone()));
        for component in tarjan_scc(&unbounded) {
            let members: BTreeSet<usize> = component.iter().map(|node| node.index()).collect();
            let Some(path) = shortest_cycle(&unbounded, &members) else { continue };
            let names: Vec<&str> =
                path.iter().chain(path.first()).map(|index| drafts[*index].name.as_str()).collect();
            let message = format!("the cycle {} has no bound", names.join(" → "));
            let (last, first) = (path[path.len() - 1], path[0]);
            let at = way_at(&drafts[last], first).unwrap_or(drafts[last].at);
            self.report.error(Code::UnboundedCycle, at, message).help = Some(
                "put a `max` on a route or a `catch` of it; waiting and `limits` are no bound"
                    .to_owned(),
            );
        }
    }

    /// A `max` that `visits_per_node` never lets be used up.
    fn bounds(&mut self, drafts: &[Draft], limits: Limits) {
        for way in drafts.iter().flat_map(|draft| &draft.ways) {
            if let Some(max) = way.max
                && max > limits.visits_per_node
            {
                let message = format!(
                    "`max: {max}` is never reached: `limits.visits_per_node` is {}",
                    limits.visits_per_node
                );
                self.report.warn(Code::BoundAboveLimit, way.at, message).help =
                    Some("raise the limit, or lower the `max`".to_owned());
            }
        }
    }

    /// The nodes that a join or a race names, each once, with the place of its name.
    pub(super) fn members_named(
        &mut self,
        drafts: &[Draft],
        names: &[Spanned<String>],
    ) -> Vec<(usize, Span)> {
        let mut members: Vec<(usize, Span)> = Vec::new();
        for wanted in names {
            let Some(found) = drafts.iter().position(|other| other.name == wanted.value) else {
                let message = format!("no node named `{}`", wanted.value);
                self.report.error(Code::UnknownNode, wanted.at, message).help =
                    suggest(&wanted.value, drafts.iter().map(|draft| draft.name.as_str()));
                continue;
            };
            if members.iter().any(|(member, _)| *member == found) {
                let message = format!("`{}` is there twice", wanted.value);
                self.report.error(Code::DuplicateName, wanted.at, message);
                continue;
            }
            members.push((found, wanted.at));
        }
        members
    }

    fn joins(&mut self, drafts: &[Draft], entry: Option<usize>, together: &Together) {
        for (index, draft) in drafts.iter().enumerate() {
            let mut members: Vec<usize> = Vec::new();
            for (found, at) in self.members_named(drafts, &draft.when_all) {
                members.push(found);
                if way_at(&drafts[found], index).is_none() && drafts[found].is_whole {
                    let message = format!(
                        "the join `{}` is never met: `{}` does not lead to it",
                        draft.name, drafts[found].name
                    );
                    self.report.error(Code::JoinNeverMet, at, message);
                }
            }
            if draft.when_all.is_empty() {
                continue;
            }
            if entry == Some(index) {
                let message = format!("a run cannot begin in the join `{}`", draft.name);
                self.report.error(Code::JoinNeverMet, draft.at, message);
            }
            for (from, other) in drafts.iter().enumerate() {
                if let (Some(at), false) = (way_at(other, index), members.contains(&from)) {
                    let message = format!(
                        "`{}` leads to the join `{}`, which does not wait for it",
                        other.name, draft.name
                    );
                    self.report.error(Code::JoinNeverMet, at, message).help =
                        Some(format!("add `{}` to its `when_all`", other.name));
                }
            }
            self.exclusive(drafts, index, &members, together);
        }
    }

    /// Two members of a join of which a run only ever takes one.
    fn exclusive(&mut self, drafts: &[Draft], join: usize, members: &[usize], together: &Together) {
        // A way that could not be read may bring them together.
        if drafts.iter().any(|draft| !draft.is_whole) {
            return;
        }
        for (position, first) in members.iter().enumerate() {
            for second in &members[position + 1..] {
                let leads = |member: usize| way_at(&drafts[member], join).is_some();
                if !leads(*first)
                    || !leads(*second)
                    || together.may_both_wait(join, *first, *second)
                {
                    continue;
                }
                let message = format!(
                    "the join `{}` is never met: a run comes from `{}` or from `{}`, never from both",
                    drafts[join].name, drafts[*first].name, drafts[*second].name
                );
                self.report.error(Code::JoinNeverMet, drafts[join].at, message).help = Some(
                    "leave out `when_all` if either is enough, or let a node before them lead to both"
                        .to_owned(),
                );
            }
        }
    }

    fn parallel_writers(
        &mut self,
        drafts: &[Draft],
        together: &Together,
        races: &[RaceDraft],
        state: &StateDraft,
    ) {
        for (channel, entry) in &state.channels {
            if entry.reducer.takes_parallel_writes() {
                continue;
            }
            let writers: Vec<Writer> = drafts
                .iter()
                .enumerate()
                .flat_map(|(node, draft)| {
                    let well = draft.writes.iter().map(|write| (write, false));
                    let all = well.chain(draft.catch_writes.iter().map(|write| (write, true)));
                    all.filter(|((written, _), _)| written == channel)
                        .map(move |((_, at), on_failure)| Writer { node, at: *at, on_failure })
                })
                .collect();
            let help = || {
                Some("give the channel a reducer that takes several, such as `append`, or join the ways first".to_owned())
            };
            for (position, writer) in writers.iter().enumerate() {
                let Writer { node: first, at, .. } = writer;
                let own = &drafts[*first];
                if own.is_loop
                    && own.writes.iter().any(|(written, at_own)| written == channel && at_own == at)
                {
                    let message = format!(
                        "the items of `{}` write channel `{channel}` at the same time",
                        own.name
                    );
                    self.report.error(Code::ParallelWriters, *at, message).help = help();
                }
                let rival = writers[position..].iter().find(|second| {
                    together.may_be(*first, second.node)
                        && !races.iter().any(|race| race.keeps_one(writer, second))
                });
                if let Some(Writer { node: second, .. }) = rival {
                    let message = if first == second {
                        format!(
                            "`{}` may run twice at the same time, and writes channel `{channel}`",
                            own.name
                        )
                    } else {
                        format!(
                            "`{}` and `{}` may write channel `{channel}` at the same time",
                            own.name, drafts[*second].name
                        )
                    };
                    self.report.error(Code::ParallelWriters, *at, message).help = help();
                }
            }
        }
    }
}

/// A node that writes a channel.
pub(super) struct Writer {
    pub(super) node: usize,
    pub(super) at: Span,
    /// Whether it writes when it fails.
    pub(super) on_failure: bool,
}

/// Nodes by their place in the file, `$end` behind the last.
fn topology(drafts: &[Draft]) -> Topology {
    let mut topology = Topology::new();
    for (index, draft) in drafts.iter().enumerate() {
        topology.add_node(Some(Spot { index, is_join: !draft.when_all.is_empty() }));
    }
    let end = topology.add_node(None);
    for (index, draft) in drafts.iter().enumerate() {
        for way in &draft.ways {
            for (target, _) in &way.to {
                let to = target.map_or(end, NodeIndex::new);
                let way = Way {
                    place: way.place.clone(),
                    when: way.when.clone(),
                    max: way.max,
                    on_failure: way.on_failure,
                };
                topology.add_edge(NodeIndex::new(index), to, way);
            }
        }
    }
    topology
}

/// Where a node says that it leads to another.
pub(super) fn way_at(draft: &Draft, target: usize) -> Option<Span> {
    let mut targets = draft.ways.iter().flat_map(|way| &way.to);
    targets.find(|(to, _)| *to == Some(target)).map(|(_, at)| *at)
}

/// The shortest cycle inside a component that begins at its first node, if there is one.
fn shortest_cycle(graph: &Topology, members: &BTreeSet<usize>) -> Option<Vec<usize>> {
    let start = *members.first()?;
    let mut queue = std::collections::VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        let last = NodeIndex::new(*path.last()?);
        let mut targets: Vec<usize> = graph
            .edges_directed(last, Direction::Outgoing)
            .map(|edge| edge.target().index())
            .collect();
        targets.sort_unstable();
        for target in targets {
            if target == start {
                return Some(path);
            }
            if members.contains(&target) && seen.insert(target) {
                let mut longer = path.clone();
                longer.push(target);
                queue.push_back(longer);
            }
        }
    }
    None
}

//! Races: which nodes run against each other, and whether that can be told.
//!
//! The lines of a race begin at its fork: the last node that every way to every member goes
//! through. What a newcomer gets wrong: a race is not the set of its members. Whatever leads from
//! the fork to a member is called off with it.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::algo::dominators::{Dominators, simple_fast};
use petgraph::graph::NodeIndex;

use super::Checker;
use super::flow::{Writer, way_at};
use super::node::Draft;
use super::parallel::Together;
use crate::defect::Code;
use crate::graph::Topology;

/// A race as far as it could be read, nodes by their place in the file.
pub(super) struct RaceDraft {
    pub(super) node: usize,
    pub(super) members: Vec<usize>,
    /// All nodes of all lines.
    pub(super) field: BTreeSet<usize>,
    /// Where the lines begin.
    fork: Option<usize>,
}

impl RaceDraft {
    /// Whether only one of two updates is ever applied: a member that ends well calls off
    /// everything else in the field, even what ended in the same superstep.
    pub(super) fn keeps_one(&self, first: &Writer, second: &Writer) -> bool {
        let wins = |writer: &Writer| !writer.on_failure && self.members.contains(&writer.node);
        first.node != second.node
            && self.field.contains(&first.node)
            && self.field.contains(&second.node)
            && (wins(first) || wins(second))
    }
}

impl Checker<'_> {
    /// Reads the races, and notes those whose ways are wrong.
    pub(super) fn races(
        &mut self,
        drafts: &[Draft],
        entry: Option<usize>,
        topology: &Topology,
    ) -> Vec<RaceDraft> {
        let dominators = entry.map(|entry| simple_fast(topology, NodeIndex::new(entry)));
        let mut races = Vec::new();
        for (node, draft) in drafts.iter().enumerate() {
            if draft.when_any.is_empty() {
                continue;
            }
            let members = self.members(drafts, node);
            if entry == Some(node) {
                let message = format!("a run cannot begin in the race `{}`", draft.name);
                self.report.error(Code::BadRace, draft.at, message);
            }
            if draft.when_any.len() == 1 {
                let message = format!("the race `{}` has only one line", draft.name);
                self.report.error(Code::BadRace, draft.when_any[0].at, message).help =
                    Some("leave `when_any` out: any arrival runs a node".to_owned());
            }
            let fork = dominators.as_ref().and_then(|known| fork(known, &members));
            if let Some(fork) = fork.filter(|fork| members.len() > 1 && members.contains(fork)) {
                let message = format!(
                    "the race `{}` is always won by `{}`, which the others come after",
                    draft.name, drafts[fork].name
                );
                self.report.error(Code::BadRace, draft.at, message);
            }
            let field = field(topology, &members, node, fork);
            races.push(RaceDraft { node, members, field, fork });
        }
        races
    }

    /// The members of a race; each leads to it, to it alone, and always.
    fn members(&mut self, drafts: &[Draft], race: usize) -> Vec<usize> {
        let mut members = Vec::new();
        let name = &drafts[race].name;
        for (found, at) in self.members_named(drafts, &drafts[race].when_any) {
            members.push(found);
            let member = &drafts[found];
            let always = member.ways.iter().any(|way| {
                way.place.ends_with(".next") && way.to.iter().all(|(to, _)| *to == Some(race))
            });
            if member.is_whole && !always {
                let message =
                    format!("`{}` does not always lead to the race `{name}`", member.name);
                self.report.error(Code::BadRace, at, message).help = Some(format!(
                    "write `next: {name}` there; what depends on a condition goes behind the race"
                ));
            }
            for way in member.ways.iter().filter(|way| way.on_failure) {
                if let Some((_, at)) = way.to.iter().find(|(to, _)| *to == Some(race)) {
                    let message = format!("a failure of `{}` does not win `{name}`", member.name);
                    self.report.error(Code::BadRace, *at, message).help =
                        Some("lead it to `$end`, or to a node of its own".to_owned());
                }
            }
        }
        for (from, other) in drafts.iter().enumerate() {
            if let (Some(at), false) = (way_at(other, race), members.contains(&from)) {
                let message = format!(
                    "`{}` leads to the race `{name}`, but is none of its lines",
                    other.name
                );
                self.report.error(Code::BadRace, at, message).help =
                    Some(format!("add `{}` to its `when_any`", other.name));
            }
        }
        members
    }

    /// Notes races whose lines never run at once, or are run several times at once.
    pub(super) fn rivals(&mut self, drafts: &[Draft], races: &[RaceDraft], together: &Together) {
        // A way that could not be read may bring them together.
        if drafts.iter().any(|draft| !draft.is_whole) {
            return;
        }
        for race in races {
            let at = drafts[race.node].at;
            let name = &drafts[race.node].name;
            let fork = race.fork.filter(|fork| !race.members.contains(fork));
            let Some(fork) = fork else { continue };
            for (position, first) in race.members.iter().enumerate() {
                let apart = race.members[position + 1..]
                    .iter()
                    .find(|second| !together.may_be(*first, **second));
                if let Some(second) = apart {
                    let message = format!(
                        "nothing races for `{name}`: a run goes to `{}` or to `{}`, never to both",
                        drafts[*first].name, drafts[*second].name
                    );
                    self.report.error(Code::BadRace, at, message).help =
                        Some("leave `when_any` out, or fan out with several targets".to_owned());
                }
            }
            let is_mixed = together.may_be(fork, fork)
                || race.field.iter().any(|node| together.may_be(fork, *node));
            if is_mixed {
                let message = format!(
                    "the race `{name}` may be run twice at the same time: `{}` may run again before it is won",
                    drafts[fork].name
                );
                self.report.error(Code::BadRace, at, message).help =
                    Some("put the race in a graph of its own, started with `run`".to_owned());
            }
        }
    }
}

/// The last node that every way to every member goes through.
fn fork(dominators: &Dominators<NodeIndex>, members: &[usize]) -> Option<usize> {
    let above = |member: &usize| -> Vec<usize> {
        dominators
            .dominators(NodeIndex::new(*member))
            .map(|nodes| nodes.map(NodeIndex::index).collect())
            .unwrap_or_default()
    };
    let (first, rest) = members.split_first()?;
    let others: Vec<Vec<usize>> = rest.iter().map(above).collect();
    above(first).into_iter().find(|node| others.iter().all(|other| other.contains(node)))
}

/// The nodes from which a way leads to a member without going through the race or its fork.
fn field(
    topology: &Topology,
    members: &[usize],
    race: usize,
    fork: Option<usize>,
) -> BTreeSet<usize> {
    let mut field = BTreeSet::new();
    let mut left: Vec<usize> = members.to_vec();
    while let Some(node) = left.pop() {
        if node == race || Some(node) == fork || !field.insert(node) {
            continue;
        }
        let before = topology.neighbors_directed(NodeIndex::new(node), Direction::Incoming);
        left.extend(before.map(NodeIndex::index));
    }
    field
}

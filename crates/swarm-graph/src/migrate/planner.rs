//! What moving a run writes, or every obstacle; pure.
//!
//! Each part of where a run stands is carried over by itself and refuses by itself, so that a
//! person sees all that is in the way at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use swarm_core::checkpoint::{Activation, Change, ChannelDelta, Cursor, Phase, State};
use swarm_core::id::{ChannelName, NodeName};
use swarm_core::port::store::SignalKind;

use super::{Mapping, Move, Obstacle, Standing};
use crate::diff;
use crate::expr::Expr;
use crate::graph::{Exits, Graph, GraphNode, Race};
use crate::library;
use crate::plan::RunFacts;
use crate::signal::{self, Misfit};

/// Decides what moving a run to `new` writes.
///
/// # Errors
/// Every obstacle at once.
pub fn plan(
    old: &Graph,
    new: &Graph,
    mapping: &Mapping,
    at: &Standing<'_>,
) -> Result<Move, Vec<Obstacle>> {
    let guesses = diff::renames(old, new);
    let mut planner =
        Planner { old, new, mapping, at, guesses, obstacles: Vec::new(), notes: Vec::new() };
    planner.mapping();
    planner.run();
    planner.signals();
    let moved = at.checkpoint.map(|checkpoint| {
        let cursor = planner.cursor(&checkpoint.cursor);
        (cursor, planner.state(&checkpoint.state))
    });
    if !planner.obstacles.is_empty() {
        return Err(planner.obstacles);
    }
    let (cursor, deltas) = moved.unzip();
    Ok(Move { cursor, deltas: deltas.unwrap_or_default(), notes: planner.notes })
}

struct Planner<'p> {
    old: &'p Graph,
    new: &'p Graph,
    mapping: &'p Mapping,
    at: &'p Standing<'p>,
    guesses: BTreeMap<NodeName, NodeName>,
    obstacles: Vec<Obstacle>,
    notes: Vec<String>,
}

const WAIT: &str = "let the run go on until it has left that node, or keep the node as it was";

impl Planner<'_> {
    fn refuse(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.obstacles.push(Obstacle { what: what.into(), remedy: remedy.into() });
    }

    /// The name that a node has in the new version.
    fn renamed<'n>(&'n self, name: &'n NodeName) -> &'n NodeName {
        self.mapping.rename.get(name).unwrap_or(name)
    }

    /// The path that a node has in the new version. Nodes inside an inline graph keep their
    /// names: a run that stands in one is only moved while that graph stays as it is.
    fn moved(&self, path: &NodeName) -> NodeName {
        let Some((outer, inner)) = path.as_str().split_once('/') else {
            return self.renamed(path).clone();
        };
        let moved = NodeName::new(outer)
            .and_then(|outer| NodeName::new(format!("{}/{inner}", self.renamed(&outer))));
        moved.unwrap_or_else(|_| path.clone())
    }

    fn mapping(&mut self) {
        let mut taken: BTreeMap<&NodeName, &NodeName> = BTreeMap::new();
        let mapping = self.mapping;
        for (from, to) in &mapping.rename {
            if !self.old.nodes.contains_key(from) {
                self.refuse(format!("the old version has no node `{from}`"), "rename another node");
            }
            if !self.new.nodes.contains_key(to) {
                self.refuse(
                    format!("the new version has no node `{to}`"),
                    "rename to another node",
                );
            }
            let stays = self.old.nodes.contains_key(to) && !mapping.rename.contains_key(to);
            if let Some(other) = taken.insert(to, from).or(stays.then_some(to)) {
                self.refuse(
                    format!("both `{other}` and `{from}` would become `{to}`"),
                    "give each a node of its own",
                );
            }
        }
        for name in mapping.drop.iter().filter(|name| !self.old.channels.contains_key(*name)) {
            self.refuse(format!("the old version has no channel `{name}`"), "drop another channel");
        }
        for name in mapping.set.keys().filter(|name| !self.new.channels.contains_key(*name)) {
            self.refuse(format!("the new version has no channel `{name}`"), "set another channel");
        }
    }

    fn run(&mut self) {
        let start = &self.at.run.start;
        if self.old.name != self.new.name {
            let what = format!("its graph is `{}`, not `{}`", self.old.name, self.new.name);
            self.refuse(what, "move it to a version of its own graph");
        }
        if let Err(why) = library::check_input(self.new, &start.input) {
            self.refuse(why, "accept the old input in the new version, too");
        }
        let output = |graph: &Graph| graph.output.as_ref().map(|output| output.schema.clone());
        let is_awaited = start.parent.as_ref().is_some_and(|parent| parent.awaited);
        if is_awaited && output(self.old) != output(self.new) {
            self.refuse(
                "the run that started it waits for an output of the old type",
                "keep the output's type, or let the run end on its version",
            );
        }
        if let Some(step) = self.at.finished.first() {
            self.refuse(
                format!("step `{step}` has ended since the last checkpoint"),
                "let a worker take the run to its next checkpoint, then try again",
            );
        }
    }

    fn cursor(&mut self, old: &Cursor) -> Cursor {
        let mut cursor = old.clone();
        for activation in &mut cursor.active {
            self.seat(activation, old);
            activation.node = self.moved(&activation.node);
        }
        self.order(&mut cursor.active);
        self.races(old);
        // The old names keep their counts: a name that comes back must not repeat a step's id.
        for (name, visits) in &old.visits {
            let count = cursor.visits.entry(self.renamed(name).clone()).or_default();
            *count = (*count).max(*visits);
        }
        cursor.taken = self.taken(&old.taken);
        cursor.arrived = self.arrived(&old.arrived);
        let limits = self.new.limits;
        if cursor.supersteps > limits.supersteps {
            self.refuse(
                format!("it took {} supersteps, more than the new limit", cursor.supersteps),
                "raise `limits.supersteps`",
            );
        }
        if let Some((name, visits)) =
            cursor.visits.iter().find(|(_, visits)| **visits > limits.visits_per_node)
        {
            let what = format!("node `{name}` was visited {visits} times, more than the new limit");
            self.refuse(what, "raise `limits.visits_per_node`");
        }
        cursor
    }

    /// A signal that the new version would have refused must not lie in the mailbox.
    fn signals(&mut self) {
        let Some(known) = &self.new.signals else { return };
        for signal in self.at.signals {
            let SignalKind::Named { name, payload } = &signal.kind else { continue };
            let what = match signal::check(known, name, payload) {
                Ok(()) => continue,
                Err(Misfit::Unknown(_)) => {
                    format!(
                        "its mailbox holds signal `{name}`, which the new version does not know"
                    )
                }
                Err(Misfit::Payload(why)) => {
                    format!("its mailbox holds signal `{name}`, whose payload does not fit: {why}")
                }
            };
            self.refuse(what, "take the signal in the new version, too");
        }
    }

    /// What runs against each other now must have begun to do so.
    fn races(&mut self, cursor: &Cursor) {
        let in_field = |race: Option<&Race>, name: &dyn Fn(&NodeName) -> NodeName| {
            let active = cursor.active.iter().map(|activation| &activation.node);
            let lines =
                active.filter(|node| race.is_some_and(|race| race.field.contains(&name(node))));
            lines.cloned().collect::<BTreeSet<NodeName>>()
        };
        let races = self.new.races.iter().map(|race| &race.node);
        let gone = self.old.races.iter().map(|race| self.renamed(&race.node));
        for node in races.chain(gone).cloned().collect::<BTreeSet<NodeName>>() {
            let old = self.old.races.iter().find(|race| *self.renamed(&race.node) == node);
            let new = self.new.races.iter().find(|race| race.node == node);
            let was = in_field(old, &NodeName::clone);
            let is = in_field(new, &|name| self.renamed(name).clone());
            if was != is && was.len().max(is.len()) > 1 {
                let list: Vec<String> = was.union(&is).map(|name| format!("`{name}`")).collect();
                self.refuse(
                    format!(
                        "{} are under way, and the race `{node}` is run by others now",
                        list.join(", ")
                    ),
                    "let the run pass the race first",
                );
            }
        }
    }

    /// Activations are in the order of the graph.
    fn order(&self, active: &mut [Activation]) {
        active.sort_by_key(|activation| {
            let outermost = activation.node.as_str().split('/').next().unwrap_or_default();
            (self.new.nodes.get_index_of(outermost), activation.visit)
        });
    }

    /// Whether an activation has a place in the new version.
    fn seat(&mut self, activation: &Activation, cursor: &Cursor) {
        let name = &activation.node;
        let to = self.moved(name);
        let (Some(old), Some(new)) = (self.old.at(name), self.new.at(&to)) else {
            let remedy = match self.guesses.get(name) {
                Some(guess) => format!("`--rename {name}={guess}`, if that is what it became"),
                None => format!("`--rename {name}=NODE`, or {WAIT}"),
            };
            self.refuse(
                format!("it {} `{name}`, which is gone", stands(&activation.phase)),
                remedy,
            );
            return;
        };
        if let Some(what) = self.misfit(activation, old, new, cursor) {
            self.refuse(what, WAIT);
            return;
        }
        if to != *name {
            self.notes.push(format!(
                "it {} `{name}`, which becomes `{to}`; step `{}` keeps its id",
                stands(&activation.phase),
                activation.step
            ));
        }
    }

    fn misfit(
        &self,
        activation: &Activation,
        old: &GraphNode,
        new: &GraphNode,
        cursor: &Cursor,
    ) -> Option<String> {
        let name = &activation.node;
        let each = |node: &GraphNode| {
            node.foreach.as_ref().map(|each| (each.var.clone(), each.items.source().to_owned()))
        };
        let in_loop =
            activation.item.is_some() || matches!(activation.phase, Phase::Foreach { .. });
        if each(old).is_some() != each(new).is_some() || (in_loop && each(old) != each(new)) {
            return Some(format!("it has begun with the items of `{name}`, which are others now"));
        }
        let (was, is) = (diff::work(old), diff::work(new));
        if let (Phase::Inline(_), Some(before), Some(now)) =
            (&activation.phase, old.inline(), new.inline())
            && before.hash != now.hash
        {
            return Some(format!(
                "it is inside graph `{}`, which `{name}` runs and which changed",
                before.name
            ));
        }
        match &activation.phase {
            Phase::Due | Phase::Backoff { .. } | Phase::Foreach { .. } => {
                let has_begun = self.at.begun.contains(&activation.step) || in_loop;
                (was != is && has_begun)
                    .then(|| format!("it has begun `{name}`, which {was} in the old version and {is} in the new one"))
            }
            Phase::Answer { blocks }
                if blocks.iter().all(|id| cursor.wall.block.as_ref() == Some(id)) =>
            {
                None
            }
            Phase::Answer { blocks } => {
                if was != is {
                    return Some(format!("it asks in `{name}`, which {was} in the old version and {is} in the new one"));
                }
                let asked = self.at.blocks.iter().filter(|block| blocks.contains(&block.id));
                let schema = diff::answer(new)?;
                asked.into_iter().find(|block| block.ask.answer_schema != *schema).map(|block| {
                    format!(
                        "question `{}` takes another answer than `{}` does now",
                        block.id, new.name
                    )
                })
            }
            Phase::Child { run } => (was != is).then(|| {
                format!("it waits for run `{run}` in `{name}`, which {was} in the old version and {is} in the new one")
            }),
            Phase::Inline(_) => (was != is).then(|| {
                format!("it is inside `{name}`, which {was} in the old version and {is} in the new one")
            }),
            Phase::Signal { .. } => {
                (was != is).then(|| format!("it waits in `{name}`, which {was} in the old version and {is} in the new one"))
            }
        }
    }

    /// The counts of bounded ways follow the ways, not their places.
    fn taken(&mut self, old: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
        let mut taken = BTreeMap::new();
        for (place, count) in old {
            match self.same_way(place) {
                Some(new) => {
                    taken.insert(new, *count);
                }
                None => self
                    .notes
                    .push(format!("`{place}` was taken {count} times; that is no longer counted")),
            }
        }
        taken
    }

    /// The place in the new version of the way at this one: same targets, same condition.
    fn same_way(&self, place: &str) -> Option<String> {
        let (name, rest) = place.split_once('.')?;
        let (list, index) = rest.strip_suffix(']')?.split_once('[')?;
        let index: usize = index.parse().ok()?;
        let old = self.old.nodes.get(name)?;
        let new = self.new.nodes.get(self.renamed(&old.name))?;
        let way = self.ways(old, list, true).into_iter().nth(index)?;
        let position = self.ways(new, list, false).iter().position(|other| *other == way)?;
        Some(format!("{}.{list}[{position}]", new.name))
    }

    fn ways(
        &self,
        node: &GraphNode,
        list: &str,
        is_old: bool,
    ) -> Vec<(Option<String>, Vec<String>)> {
        let target = |target: &crate::graph::Target| match target {
            crate::graph::Target::Node(name) if is_old => self.renamed(name).to_string(),
            other => other.to_string(),
        };
        let way = |when: &Option<Expr>, to: &[crate::graph::Target]| {
            (when.as_ref().map(|when| when.source().to_owned()), to.iter().map(target).collect())
        };
        match (list, &node.exits) {
            ("catch", _) => node.catch.iter().map(|catch| way(&catch.when, &catch.to)).collect(),
            (_, Exits::Routes(routes)) => {
                routes.iter().map(|route| way(&route.when, &route.to)).collect()
            }
            (_, Exits::Next(_)) => Vec::new(),
        }
    }

    fn arrived(
        &mut self,
        old: &BTreeMap<NodeName, Vec<NodeName>>,
    ) -> BTreeMap<NodeName, Vec<NodeName>> {
        let mut arrived = BTreeMap::new();
        for (join, from) in old {
            let to = self.renamed(join).clone();
            let from: Vec<NodeName> = from.iter().map(|name| self.renamed(name).clone()).collect();
            let wanted = self.new.nodes.get(&to).map(|node| node.when_all.clone());
            let wanted = wanted.unwrap_or_default();
            if let Some(lost) = from.iter().find(|name| !wanted.contains(name)) {
                self.refuse(
                    format!(
                        "`{lost}` has arrived at the join `{join}`, which does not wait for it now"
                    ),
                    "`--rename` the node or the join, or let the run pass the join first",
                );
            } else if wanted.iter().all(|name| from.contains(name)) {
                self.refuse(
                    format!("all that the join `{to}` now waits for has arrived already"),
                    "let the run pass the join first",
                );
            }
            arrived.insert(to, from);
        }
        arrived
    }

    fn state(&mut self, old: &State) -> Vec<ChannelDelta> {
        let mut deltas = Vec::new();
        let start = &self.at.run.start;
        let facts = RunFacts::new(&start.id, &start.graph, &start.labels, &start.input);
        let full = |channel: &ChannelName, value: Arc<Value>| ChannelDelta {
            channel: channel.clone(),
            change: Change::Full(value),
        };
        for (name, channel) in &self.new.channels {
            let kept = old.get(name.as_str()).filter(|_| {
                self.old.channels.contains_key(name) && !self.mapping.drop.contains(name)
            });
            let value = match (self.mapping.set.get(name), kept) {
                (Some(expr), _) => match expr.eval(&facts.scope(old)) {
                    Ok(value) => Arc::new(value),
                    Err(error) => {
                        self.obstacles.push(Obstacle {
                            what: format!("channel `{name}` cannot be set: {error}"),
                            remedy: format!("mend `--set {name}=…`"),
                        });
                        continue;
                    }
                },
                (None, Some(value)) => value.clone(),
                (None, None) => channel.default.clone(),
            };
            if let Err(why) = library::fits(&channel.schema, &value) {
                // A channel may be empty before anything is written to it.
                if value != channel.default {
                    self.obstacles.push(Obstacle {
                        what: format!("channel `{name}` does not fit its type: {why}"),
                        remedy: format!("`--set {name}=…` with an expression over the old `state`"),
                    });
                    continue;
                }
            }
            if old.get(name.as_str()) != Some(&value) {
                self.notes.push(format!("channel `{name}` becomes {}", shown(&value)));
                deltas.push(full(name, value));
            }
        }
        for (name, channel) in &self.old.channels {
            if self.new.channels.contains_key(name) {
                continue;
            }
            let value = old.get(name.as_str()).filter(|value| !value.is_null());
            let Some(value) = value else { continue };
            if *value != channel.default && !self.mapping.drop.contains(name) {
                self.obstacles.push(Obstacle {
                    what: format!("channel `{name}` is gone, and holds {}", shown(value)),
                    remedy: format!(
                        "`--drop-channel {name}`, after `--set CHANNEL=state.{name}` if it is to live on"
                    ),
                });
                continue;
            }
            self.notes.push(format!("channel `{name}` is dropped"));
            deltas.push(full(name, Arc::new(Value::Null)));
        }
        deltas
    }
}

/// What an activation does, as the beginning of a sentence.
fn stands(phase: &Phase) -> &'static str {
    match phase {
        Phase::Due | Phase::Backoff { .. } => "stands at",
        Phase::Answer { .. } => "waits for an answer in",
        Phase::Child { .. } => "waits for a child run in",
        Phase::Signal { .. } => "waits in",
        Phase::Foreach { .. } => "goes over the items of",
        Phase::Inline(_) => "is inside",
    }
}

/// A value, cut for a line.
fn shown(value: &Value) -> String {
    const SHOWN_MAX: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    text.chars().take(SHOWN_MAX).chain(['…']).collect()
}

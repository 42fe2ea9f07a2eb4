//! Moving live runs to another version of their graph, by a checked plan.
//!
//! [`plan`] is pure: two versions, a mapping and where a run stands in; what is written, or every
//! obstacle, out. What a newcomer gets wrong: ids do not move. The steps that a run stands in
//! keep the ids that they began with, whatever their nodes are called now, so a question asked
//! before is answered by its old id, and a child or an effect begun before is found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Change, ChannelDelta, Checkpoint, Cursor, Phase, State};
use swarm_core::escalation::Block;
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{ChannelName, NodeName, RunId, StepId, WorkerId};
use swarm_core::port::store::{self, CheckpointWrite, Commit, Release, RunFilter};
use swarm_core::run::{RunRecord, RunStatus};

use crate::diff;
use crate::engine::{Engine, Error};
use crate::expr::Expr;
use crate::graph::{Exits, Graph, GraphNode};
use crate::library;
use crate::plan::RunFacts;

/// How a run's place and state become those of the new version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// Nodes by their old name, with the new one. Others keep their name.
    pub rename: BTreeMap<NodeName, NodeName>,
    /// Channels whose value may be lost.
    pub drop: BTreeSet<ChannelName>,
    /// Channels of the new version with an expression over the old `state`, `input` and `run`.
    pub set: BTreeMap<ChannelName, Expr>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'s> {
    /// The run.
    pub run: &'s RunRecord,
    /// Its last checkpoint; `None` before the first.
    pub checkpoint: Option<&'s Checkpoint>,
    /// The questions that its steps wait for.
    pub blocks: &'s [Block],
    /// Steps that ended after the checkpoint.
    pub finished: &'s [StepId],
    /// Steps that have written to their journal.
    pub begun: &'s BTreeSet<StepId>,
}

/// What a move writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Move {
    /// The place in the new version; `None`: the run has not begun.
    pub cursor: Option<Cursor>,
    /// How the state changes.
    pub deltas: Vec<ChannelDelta>,
    /// What becomes of the run, in words.
    pub notes: Vec<String>,
}

/// Why a run cannot be moved.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Obstacle {
    /// What was found.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}

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
            activation.node = self.renamed(&activation.node).clone();
        }
        self.order(&mut cursor.active);
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

    /// Activations are in the order of the graph.
    fn order(&self, active: &mut [Activation]) {
        active.sort_by_key(|activation| {
            (self.new.nodes.get_index_of(&activation.node), activation.visit)
        });
    }

    /// Whether an activation has a place in the new version.
    fn seat(&mut self, activation: &Activation, cursor: &Cursor) {
        let name = &activation.node;
        let to = self.renamed(name).clone();
        let (Some(old), Some(new)) = (self.old.nodes.get(name), self.new.nodes.get(&to)) else {
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

/// What a version would mean for a live run of another one.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// The run.
    pub run: RunRecord,
    /// What would become of it, or why it cannot be moved.
    pub result: Result<Vec<String>, Vec<Obstacle>>,
}

/// What became of a move.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Migration {
    /// It is on the new version; what became of it, in words.
    Moved(Vec<String>),
    /// It stays where it was.
    Refused(Vec<Obstacle>),
    /// Somebody works on it: try again later.
    Busy,
    /// There is nothing to move: it has ended, or is on this version already.
    Settled,
}

/// What the store says of where a run stands, beside its checkpoint.
struct Around {
    blocks: Vec<Block>,
    begun: BTreeSet<StepId>,
}

impl Engine {
    /// What moving them to this version would mean for all live runs of other versions of the
    /// same graph; nothing is changed.
    ///
    /// # Errors
    /// The store's failure, or an old version that cannot be had.
    pub async fn prospects(&self, to: &Graph, mapping: &Mapping) -> Result<Vec<Prospect>, Error> {
        let filter = RunFilter {
            status: vec![RunStatus::Ready, RunStatus::Running, RunStatus::Waiting],
            graph: Some(to.name().clone()),
            ..RunFilter::default()
        };
        let mut prospects = Vec::new();
        for run in self.store().runs(&filter).await? {
            if run.start.graph_hash == *to.hash() {
                continue;
            }
            let result = self.prospect(&run, to, mapping).await?;
            prospects.push(Prospect { run, result: result.map(|moved| moved.notes) });
        }
        Ok(prospects)
    }

    /// Moves one live run to this version, in one transaction, if nobody works on it and the
    /// plan has no obstacle. Recorded as `run.migrated` with both versions and who did it.
    ///
    /// # Errors
    /// The store's failure, or an old version that cannot be had. The run is then as it was; if
    /// it was claimed for the move, it is free again once that claim's lease ends.
    pub async fn migrate(
        &self,
        run: &RunId,
        to: &Graph,
        mapping: &Mapping,
        worker: &WorkerId,
        by: &str,
    ) -> Result<Migration, Error> {
        let found = self.store().run(run).await?;
        let found =
            found.ok_or_else(|| store::Error::NotFound { what: "run", id: run.to_string() })?;
        if found.status.is_final() || found.start.graph_hash == *to.hash() {
            return Ok(Migration::Settled);
        }
        // A run that cannot be moved is not even touched.
        if let Err(obstacles) = self.prospect(&found, to, mapping).await? {
            return Ok(Migration::Refused(obstacles));
        }
        self.keep(to).await?;
        let claim = self.store().claim_idle(run, worker, self.clock().now(), self.lease_ttl());
        let Some(claim) = claim.await? else { return Ok(Migration::Busy) };
        let mut commit = Commit::new(run.clone(), claim.run.epoch, self.clock().now());
        commit.release = Some(Release::Ready);
        let from = claim.run.start.graph_hash.clone();
        let result = if from == *to.hash() {
            // Another migration was first.
            Ok(Migration::Settled)
        } else {
            let old = self.graph_of(&claim.run).await?;
            let checkpoint = claim.checkpoint.as_ref();
            let finished: Vec<StepId> =
                claim.finished.iter().map(|record| record.step.clone()).collect();
            let around = self.around(run, checkpoint).await?;
            let at = Standing {
                run: &claim.run,
                checkpoint,
                blocks: &around.blocks,
                finished: &finished,
                begun: &around.begun,
            };
            plan(&old, to, mapping, &at).map(|moved| {
                commit.checkpoint = moved.cursor.zip(checkpoint).map(|(cursor, last)| {
                    CheckpointWrite { seq: last.seq + 1, cursor, deltas: moved.deltas }
                });
                commit.graph = Some(to.hash().clone());
                let seq = commit.checkpoint.as_ref().map(|checkpoint| checkpoint.seq);
                let data = json!({ "from": from, "to": to.hash(), "by": by, "seq": seq });
                commit.events.push(NewEvent::run(EventKind::RUN_MIGRATED, data));
                Migration::Moved(moved.notes)
            })
        };
        match self.commit(commit).await {
            Ok(()) => Ok(result.unwrap_or_else(Migration::Refused)),
            Err(store::Error::Fenced { .. }) => Ok(Migration::Busy),
            Err(error) => Err(error.into()),
        }
    }

    async fn prospect(
        &self,
        run: &RunRecord,
        to: &Graph,
        mapping: &Mapping,
    ) -> Result<Result<Move, Vec<Obstacle>>, Error> {
        let id = &run.start.id;
        let old = self.graph_of(run).await?;
        let checkpoint = self.store().checkpoint(id, None).await?;
        let around = self.around(id, checkpoint.as_ref()).await?;
        let finished: Vec<StepId> = match &checkpoint {
            Some(last) => {
                let steps = self.store().steps(id).await?;
                let active = |step: &StepId| last.cursor.active.iter().any(|one| one.step == *step);
                steps.into_iter().map(|record| record.step).filter(active).collect()
            }
            None => Vec::new(),
        };
        let at = Standing {
            run,
            checkpoint: checkpoint.as_ref(),
            blocks: &around.blocks,
            finished: &finished,
            begun: &around.begun,
        };
        Ok(plan(&old, to, mapping, &at))
    }

    async fn around(&self, run: &RunId, checkpoint: Option<&Checkpoint>) -> store::Result<Around> {
        let mut around = Around { blocks: Vec::new(), begun: BTreeSet::new() };
        for activation in checkpoint.iter().flat_map(|last| &last.cursor.active) {
            if let Phase::Answer { blocks } = &activation.phase {
                for block in blocks {
                    around.blocks.extend(self.store().block(block).await?);
                }
            }
            if !self.store().entries(run, &activation.step).await?.is_empty() {
                around.begun.insert(activation.step.clone());
            }
        }
        Ok(around)
    }
}

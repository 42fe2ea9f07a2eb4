//! One graph of a run at the end of a superstep: the run's own, or one that a step runs inline.
//!
//! What a newcomer gets wrong: a node's name is local here, and so is a channel's; only what goes
//! into the cursor and the state is named by its place in the whole run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Change, Checkpoint, State, StepEnding};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{ChannelName, NodeName, StepId};

use super::update::{Update, add_delta, apply, render_set, updates_of, with_result};
use super::{Next, Settled, expression_failure, failure_value};
use crate::expr::{Expr, Scope};
use crate::graph::{Catch, Exits, Graph, GraphNode, OnError, Route, Target};
use crate::plan::{self, Ended, Ending, RunFacts};
use crate::{frame, race};

/// One graph of a run: its own, or one that a step runs inline.
pub(super) struct Level<'l> {
    /// The run's own graph.
    pub(super) whole: &'l Graph,
    pub(super) graph: &'l Graph,
    pub(super) facts: &'l RunFacts,
    /// The step that runs it inline.
    pub(super) frame: Option<&'l StepId>,
}

impl Level<'_> {
    /// Applies the endings in this graph. `has_ended`: something of the run has ended, here or
    /// below.
    pub(super) fn settle(
        &self,
        checkpoint: &mut Checkpoint,
        mut endings: Vec<Ending>,
        has_ended: bool,
        settled: &mut Settled,
    ) -> Next {
        self.call_off(checkpoint, &mut endings, settled);
        endings.sort_by_key(|ending| {
            let local = ending.activation.node.local();
            (self.graph.nodes.get_index_of(local), ending.activation.visit)
        });
        let outcome = self.apply_all(checkpoint, &endings, settled);
        if let Some(counts) = frame::counts(&mut checkpoint.cursor, self.frame) {
            *counts.supersteps += u32::from(has_ended);
        }
        if let Err(failure) = outcome.and_then(|()| self.check_limits(checkpoint)) {
            return Next::Fail(failure);
        }
        let goes_on =
            checkpoint.cursor.active.iter().any(|other| other.frame.as_ref() == self.frame);
        if goes_on { Next::Go } else { self.end(checkpoint) }
    }

    /// An inline graph ends only here, so it may win a race only here.
    fn call_off(
        &self,
        checkpoint: &mut Checkpoint,
        endings: &mut Vec<Ending>,
        settled: &mut Settled,
    ) {
        if !self.whole.has_inline || self.graph.races.is_empty() {
            return;
        }
        let mut off = race::CalledOff::default();
        race::call_off_in(self.graph, self.frame, &mut checkpoint.cursor, endings, &mut off);
        settled.events.extend(off.events);
        settled.lost.extend(off.activations.into_iter().map(|activation| activation.step));
    }

    fn apply_all(
        &self,
        checkpoint: &mut Checkpoint,
        endings: &[Ending],
        settled: &mut Settled,
    ) -> Result<(), Failure> {
        let error_values: Vec<Value> = endings.iter().map(error_value).collect();
        // All updates see the state before the superstep; only then is any of them applied.
        let mut decided = Vec::with_capacity(endings.len());
        for (ending, error) in endings.iter().zip(&error_values) {
            decided.push(self.decide(checkpoint, ending, error)?);
        }
        let mut routes = Vec::with_capacity(endings.len());
        for ((updates, way), ending) in decided.into_iter().zip(endings) {
            for (channel, update) in updates {
                let node = &ending.activation.node;
                let (channel, change) =
                    self.reduce(&mut checkpoint.state, &channel, update, node)?;
                add_delta(&mut settled.deltas, &checkpoint.state, channel, change);
            }
            routes.push(way);
        }
        for ((way, ending), error) in routes.into_iter().zip(endings).zip(&error_values) {
            let node = self.node(&ending.activation.node)?;
            let (targets, failure) = match way {
                Way::Exits => (self.exits(checkpoint, node, ending, error)?, None),
                Way::Caught { index, failure } => {
                    let catch = &node.catch[index];
                    self.count(checkpoint, format!("{}.catch[{index}]", node.name), catch.max);
                    let data = json!({ "error": &failure, "to": targets_text(&catch.to) });
                    settled.events.push(NewEvent::step(
                        EventKind::NODE_CAUGHT,
                        &ending.activation.step,
                        data,
                    ));
                    (catch.to.clone(), Some(failure))
                }
            };
            for target in targets {
                self.follow(checkpoint, &node.name, &target, failure.as_ref())?;
            }
        }
        Ok(())
    }

    fn decide(
        &self,
        checkpoint: &Checkpoint,
        ending: &Ending,
        error: &Value,
    ) -> Result<(Vec<Update>, Way), Failure> {
        let (graph, facts) = (self.graph, self.facts);
        let node = self.node(&ending.activation.node)?;
        match &ending.result {
            Ended::Output(output) => {
                let before = ending.activation.error.as_ref().map(|_| error);
                let scope = plan::scope(facts, checkpoint, node, &ending.activation, before);
                let scope = with_result(scope, node, output);
                Ok((updates_of(graph, node, Some(output), &scope)?, Way::Exits))
            }
            Ended::Items { items, endings } => {
                Ok((self.item_updates(checkpoint, node, items, endings)?, Way::Exits))
            }
            Ended::Failed(failure) => {
                let scope = plan::scope(facts, checkpoint, node, &ending.activation, Some(error));
                let Some(index) = self.first_catch(&node.catch, checkpoint, node, &scope)? else {
                    return Err(failure.clone());
                };
                let updates = render_set(&node.catch[index].set, node, &scope)?;
                Ok((updates, Way::Caught { index, failure: failure.clone() }))
            }
        }
    }

    fn item_updates(
        &self,
        checkpoint: &Checkpoint,
        node: &GraphNode,
        items: &Value,
        endings: &BTreeMap<u32, StepEnding>,
    ) -> Result<Vec<Update>, Failure> {
        let var = node.foreach.as_ref().map_or("item", |foreach| foreach.var.as_str());
        let mut updates = Vec::new();
        let ignores =
            node.foreach.as_ref().is_some_and(|foreach| foreach.on_error == OnError::Ignore);
        for (index, ending) in endings {
            let (output, error) = match ending {
                StepEnding::Output(output) => ((**output).clone(), Value::Null),
                StepEnding::Failed(_) if ignores => continue,
                StepEnding::Failed(failure) => (Value::Null, failure_value(failure)),
            };
            let item = items.get(*index as usize).unwrap_or(&Value::Null);
            let scope = self.facts.scope_in(checkpoint, self.frame);
            let scope = with_result(scope.var(var, item).var("error", &error), node, &output);
            updates.extend(updates_of(self.graph, node, Some(&output), &scope)?);
        }
        Ok(updates)
    }

    /// Reduces an update; the channel is then named as in the run's state.
    fn reduce(
        &self,
        state: &mut State,
        channel: &ChannelName,
        update: Value,
        node: &NodeName,
    ) -> Result<(ChannelName, Change), Failure> {
        let Some(there) = self.graph.channels.get(channel) else {
            return Err(Failure::fatal(
                "reduce",
                format!("node `{node}` writes `{channel}`, which is no channel"),
            ));
        };
        let values = Arc::make_mut(&mut state.0);
        let name = frame::channel_in(self.frame, channel)?;
        let value = values.entry(name.clone()).or_default();
        let change = apply(there, value, update).map_err(|why| {
            let message = format!("node `{node}` cannot update channel `{channel}`: {why}");
            Failure::fatal("reduce", message)
        })?;
        Ok((name, change))
    }

    fn exits(
        &self,
        checkpoint: &mut Checkpoint,
        node: &GraphNode,
        ending: &Ending,
        error: &Value,
    ) -> Result<Vec<Target>, Failure> {
        let routes = match &node.exits {
            Exits::Next(targets) => return Ok(targets.clone()),
            Exits::Routes(routes) => routes,
        };
        let output = match &ending.result {
            Ended::Output(output) => output.clone(),
            Ended::Items { endings, .. } => Arc::new(outputs(endings)),
            Ended::Failed(_) => Arc::default(),
        };
        let chosen = {
            let before = ending.activation.error.as_ref().map(|_| error);
            let scope = plan::scope(self.facts, checkpoint, node, &ending.activation, before);
            self.first_route(routes, checkpoint, node, &with_result(scope, node, &output))?
        };
        let Some(index) = chosen else {
            return Err(Failure::fatal(
                "no_route",
                format!("no route of node `{}` applies", node.name),
            ));
        };
        self.count(checkpoint, format!("{}.routes[{index}]", node.name), routes[index].max);
        Ok(routes[index].to.clone())
    }

    /// The first route that holds and is not used up.
    fn first_route(
        &self,
        routes: &[Route],
        checkpoint: &Checkpoint,
        node: &GraphNode,
        scope: &Scope<'_>,
    ) -> Result<Option<usize>, Failure> {
        let ways = routes.iter().map(|route| (route.when.as_ref(), route.max));
        self.first_way(ways, checkpoint, node, "routes", scope)
    }

    /// The first `catch` that holds and is not used up.
    fn first_catch(
        &self,
        catches: &[Catch],
        checkpoint: &Checkpoint,
        node: &GraphNode,
        scope: &Scope<'_>,
    ) -> Result<Option<usize>, Failure> {
        let ways = catches.iter().map(|catch| (catch.when.as_ref(), catch.max));
        self.first_way(ways, checkpoint, node, "catch", scope)
    }

    /// A used-up way lets the next ones try, without its condition being asked.
    fn first_way<'g>(
        &self,
        ways: impl Iterator<Item = (Option<&'g Expr>, Option<u32>)>,
        checkpoint: &Checkpoint,
        node: &GraphNode,
        list: &str,
        scope: &Scope<'_>,
    ) -> Result<Option<usize>, Failure> {
        let cursor = &checkpoint.cursor;
        for (index, (when, max)) in ways.enumerate() {
            let place = || format!("{}.{list}[{index}]", node.name);
            let taken = || match self.frame {
                None => cursor.taken.get(&place()).copied(),
                Some(step) => frame::of(cursor, step)?.taken.get(&place()).copied(),
            };
            let is_left = max.is_none_or(|max| taken().unwrap_or(0) < max);
            if is_left && holds(when, scope, || format!("{}.when", place()))? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Counts a bounded way.
    fn count(&self, checkpoint: &mut Checkpoint, place: String, max: Option<u32>) {
        if max.is_some()
            && let Some(counts) = frame::counts(&mut checkpoint.cursor, self.frame)
        {
            *counts.taken.entry(place).or_default() += 1;
        }
    }

    fn follow(
        &self,
        checkpoint: &mut Checkpoint,
        from: &NodeName,
        target: &Target,
        error: Option<&Failure>,
    ) -> Result<(), Failure> {
        let Target::Node(name) = target else { return Ok(()) };
        let node = self.node(name)?;
        let cursor = &mut checkpoint.cursor;
        if !node.when_all.is_empty()
            && let Some(counts) = frame::counts(cursor, self.frame)
        {
            let arrived = counts.arrived.entry(name.clone()).or_default();
            if !arrived.contains(from) {
                arrived.push(from.clone());
            }
            if !node.when_all.iter().all(|wanted| arrived.contains(wanted)) {
                return Ok(());
            }
            counts.arrived.remove(name);
        }
        plan::activate(cursor, self.frame, name, error.cloned())
    }

    fn check_limits(&self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let limits = &self.graph.limits;
        let cursor = &checkpoint.cursor;
        let (supersteps, visits) = match self.frame {
            None => (cursor.supersteps, &cursor.visits),
            Some(step) => match frame::of(cursor, step) {
                Some(frame) => (frame.supersteps, &frame.visits),
                None => return Ok(()),
            },
        };
        if supersteps > limits.supersteps {
            let message =
                format!("the run took more than `limits.supersteps` = {}", limits.supersteps);
            return Err(Failure::fatal("limit", message));
        }
        let over = visits.iter().find(|(_, visits)| **visits > limits.visits_per_node);
        over.map_or(Ok(()), |(node, _)| {
            let message = format!(
                "node `{node}` was visited more than `limits.visits_per_node` = {}",
                limits.visits_per_node
            );
            Err(Failure::fatal("limit", message))
        })
    }

    fn end(&self, checkpoint: &Checkpoint) -> Next {
        let arrived = match self.frame {
            None => Some(&checkpoint.cursor.arrived),
            Some(step) => frame::of(&checkpoint.cursor, step).map(|frame| &frame.arrived),
        };
        if let Some((join, arrived)) = arrived.and_then(|arrived| arrived.iter().next()) {
            let arrived: Vec<&str> = arrived.iter().map(NodeName::as_str).collect();
            let message = format!("join `{join}` was only reached from {}", arrived.join(", "));
            return Next::Fail(Failure::fatal("join_unmet", message));
        }
        let output = self.graph.output.as_ref();
        let Some(template) = output.and_then(|output| output.value.as_ref()) else {
            return Next::End(Arc::new(self.state(checkpoint)));
        };
        match template.render(&self.facts.scope_in(checkpoint, self.frame)) {
            Ok(output) => Next::End(Arc::new(output)),
            Err(error) => Next::Fail(expression_failure("output.value", &error)),
        }
    }

    /// Its whole state. A channel that a former version of the graph had may still be stored.
    fn state(&self, checkpoint: &Checkpoint) -> Value {
        let value = |channel: &ChannelName| {
            let name = frame::channel_in(self.frame, channel).ok()?;
            let value = checkpoint.state.get(name.as_str())?;
            Some((channel.to_string(), (**value).clone()))
        };
        let mut fields: Vec<(String, Value)> =
            self.graph.channels.keys().filter_map(value).collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        Value::Object(fields.into_iter().collect())
    }

    fn node(&self, path: &NodeName) -> Result<&GraphNode, Failure> {
        self.graph.nodes.get(path.local()).ok_or_else(|| {
            let message = format!("graph `{}` has no node `{path}`", self.graph.name);
            Failure::fatal("unknown_node", message)
        })
    }
}

/// Which way an ending takes out of its node.
enum Way {
    Exits,
    Caught { index: usize, failure: Failure },
}

fn outputs(endings: &BTreeMap<u32, StepEnding>) -> Value {
    endings
        .values()
        .map(|ending| match ending {
            StepEnding::Output(output) => (**output).clone(),
            StepEnding::Failed(_) => Value::Null,
        })
        .collect()
}

fn holds(
    when: Option<&Expr>,
    scope: &Scope<'_>,
    place: impl Fn() -> String,
) -> Result<bool, Failure> {
    when.map_or(Ok(true), |when| {
        when.is_true(scope).map_err(|error| expression_failure(&place(), &error))
    })
}

fn error_value(ending: &Ending) -> Value {
    match (&ending.result, &ending.activation.error) {
        (Ended::Failed(failure), _) | (Ended::Output(_) | Ended::Items { .. }, Some(failure)) => {
            failure_value(failure)
        }
        (Ended::Output(_) | Ended::Items { .. }, None) => Value::Null,
    }
}

fn targets_text(targets: &[Target]) -> Vec<&str> {
    targets
        .iter()
        .map(|target| match target {
            Target::Node(name) => name.as_str(),
            Target::End => "$end",
        })
        .collect()
}

//! The end of a superstep: updates reduced, routes taken, the next activations made; pure.
//!
//! Endings are applied in the order of the graph, never of finishing, so that the result does
//! not depend on which node was faster.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Change, ChannelDelta, Checkpoint, State, StepEnding};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{ChannelName, NodeName};
use swarm_core::reducer::Reducer;

use crate::expr::{self, Expr, Scope, Template};
use crate::graph::{Catch, Channel, Exits, Graph, GraphNode, OnError, Route, Target, Work};
use crate::plan::{self, Ended, Ending, RunFacts};

/// What a superstep came to.
#[derive(Debug)]
pub(crate) struct Settled {
    /// How the state changed.
    pub(crate) deltas: Vec<ChannelDelta>,
    /// What to tell.
    pub(crate) events: Vec<NewEvent>,
    /// What follows.
    pub(crate) next: Next,
}

/// What follows a superstep.
#[derive(Debug)]
pub(crate) enum Next {
    /// Something is due or waits.
    Go,
    /// The run reached its end with this output.
    End(Arc<Value>),
    /// Nothing caught a failure.
    Fail(Failure),
}

type Update = (ChannelName, Value);

/// Applies the endings of a superstep to state and cursor.
pub(crate) fn settle(
    graph: &Graph,
    facts: &RunFacts,
    checkpoint: &mut Checkpoint,
    mut endings: Vec<Ending>,
) -> Settled {
    endings.sort_by_key(|ending| {
        (graph.nodes.get_index_of(&ending.activation.node), ending.activation.visit)
    });
    let mut settled = Settled { deltas: Vec::new(), events: Vec::new(), next: Next::Go };
    let outcome = apply_all(graph, facts, checkpoint, &endings, &mut settled);
    checkpoint.cursor.supersteps += u32::from(!endings.is_empty());
    if let Err(failure) = outcome.and_then(|()| check_limits(graph, checkpoint)) {
        settled.next = Next::Fail(failure);
    } else if checkpoint.cursor.active.is_empty() {
        settled.next = end(graph, facts, checkpoint);
    }
    settled
}

fn apply_all(
    graph: &Graph,
    facts: &RunFacts,
    checkpoint: &mut Checkpoint,
    endings: &[Ending],
    settled: &mut Settled,
) -> Result<(), Failure> {
    let error_values: Vec<Value> = endings.iter().map(error_value).collect();
    // All updates see the state before the superstep; only then is any of them applied.
    let mut decided = Vec::with_capacity(endings.len());
    for (ending, error) in endings.iter().zip(&error_values) {
        decided.push(decide(graph, facts, checkpoint, ending, error)?);
    }
    let mut routes = Vec::with_capacity(endings.len());
    for ((updates, way), ending) in decided.into_iter().zip(endings) {
        for (channel, update) in updates {
            let change =
                reduce(graph, &mut checkpoint.state, &channel, update, &ending.activation.node)?;
            add_delta(&mut settled.deltas, &checkpoint.state, channel, change);
        }
        routes.push(way);
    }
    for ((way, ending), error) in routes.into_iter().zip(endings).zip(&error_values) {
        let node = node_of(graph, &ending.activation.node)?;
        let (targets, failure) = match way {
            Way::Exits => (exits(facts, checkpoint, node, ending, error)?, None),
            Way::Caught { index, failure } => {
                let catch = &node.catch[index];
                count(checkpoint, format!("{}.catch[{index}]", node.name), catch.max);
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
            follow(graph, checkpoint, &ending.activation.node, &target, failure.as_ref())?;
        }
    }
    Ok(())
}

/// Which way an ending takes out of its node.
enum Way {
    Exits,
    Caught { index: usize, failure: Failure },
}

fn decide(
    graph: &Graph,
    facts: &RunFacts,
    checkpoint: &Checkpoint,
    ending: &Ending,
    error: &Value,
) -> Result<(Vec<Update>, Way), Failure> {
    let node = node_of(graph, &ending.activation.node)?;
    match &ending.result {
        Ended::Output(output) => {
            let before = ending.activation.error.as_ref().map(|_| error);
            let scope = with_result(
                plan::scope(facts, checkpoint, node, &ending.activation, before),
                node,
                output,
            );
            Ok((updates_of(graph, node, Some(output), &scope)?, Way::Exits))
        }
        Ended::Items { items, endings } => {
            Ok((item_updates(graph, facts, checkpoint, node, items, endings)?, Way::Exits))
        }
        Ended::Failed(failure) => {
            let scope = plan::scope(facts, checkpoint, node, &ending.activation, Some(error));
            let Some(index) = first_catch(&node.catch, checkpoint, node, &scope)? else {
                return Err(failure.clone());
            };
            let updates = render_set(&node.catch[index].set, node, &scope)?;
            Ok((updates, Way::Caught { index, failure: failure.clone() }))
        }
    }
}

fn with_result<'a>(scope: Scope<'a>, node: &GraphNode, output: &'a Value) -> Scope<'a> {
    match node.work {
        Work::Uses { .. } | Work::Run { .. } => scope.var("output", output),
        Work::Wait { .. } => scope.var("signal", output),
        Work::Gate(_) => scope.var("answer", output),
    }
}

/// The updates of one output: what `set` says, else the fields that name a channel.
fn updates_of(
    graph: &Graph,
    node: &GraphNode,
    output: Option<&Value>,
    scope: &Scope<'_>,
) -> Result<Vec<Update>, Failure> {
    if let Some(set) = &node.set {
        return render_set(set, node, scope);
    }
    let (Work::Uses { .. } | Work::Run { detach: false, .. }, Some(Value::Object(fields))) =
        (&node.work, output)
    else {
        return Ok(Vec::new());
    };
    Ok(fields
        .iter()
        .filter_map(|(name, value)| {
            let (channel, _) = graph.channels.get_key_value(name.as_str())?;
            Some((channel.clone(), value.clone()))
        })
        .collect())
}

fn item_updates(
    graph: &Graph,
    facts: &RunFacts,
    checkpoint: &Checkpoint,
    node: &GraphNode,
    items: &Value,
    endings: &BTreeMap<u32, StepEnding>,
) -> Result<Vec<Update>, Failure> {
    let var = node.foreach.as_ref().map_or("item", |foreach| foreach.var.as_str());
    let mut updates = Vec::new();
    let ignores = node.foreach.as_ref().is_some_and(|foreach| foreach.on_error == OnError::Ignore);
    for (index, ending) in endings {
        let (output, error) = match ending {
            StepEnding::Output(output) => ((**output).clone(), Value::Null),
            StepEnding::Failed(_) if ignores => continue,
            StepEnding::Failed(failure) => (Value::Null, failure_value(failure)),
        };
        let item = items.get(*index as usize).unwrap_or(&Value::Null);
        let scope = facts.scope(&checkpoint.state).var(var, item).var("error", &error);
        let scope = with_result(scope, node, &output);
        updates.extend(updates_of(graph, node, Some(&output), &scope)?);
    }
    Ok(updates)
}

fn render_set(
    set: &[(ChannelName, Template)],
    node: &GraphNode,
    scope: &Scope<'_>,
) -> Result<Vec<Update>, Failure> {
    set.iter()
        .map(|(channel, template)| {
            let value = template.render(scope).map_err(|error| {
                expression_failure(&format!("{}.set.{channel}", node.name), &error)
            })?;
            Ok((channel.clone(), value))
        })
        .collect()
}

fn reduce(
    graph: &Graph,
    state: &mut State,
    channel: &ChannelName,
    update: Value,
    node: &NodeName,
) -> Result<Change, Failure> {
    let Some(there) = graph.channels.get(channel) else {
        return Err(Failure::fatal(
            "reduce",
            format!("node `{node}` writes `{channel}`, which is no channel"),
        ));
    };
    let values = Arc::make_mut(&mut state.0);
    let value = values.entry(channel.clone()).or_default();
    apply(there, value, update).map_err(|why| {
        Failure::fatal("reduce", format!("node `{node}` cannot update channel `{channel}`: {why}"))
    })
}

/// Applies an update to the value of a channel by its reducer; `Err` says why it does not fit.
pub(crate) fn apply(
    channel: &Channel,
    value: &mut Arc<Value>,
    update: Value,
) -> Result<Change, String> {
    let Channel { reducer, custom, .. } = channel;
    let mut reduced =
        |update| reducer.apply(Arc::make_mut(value), update).map_err(|error| error.to_string());
    Ok(match (reducer, custom) {
        (Reducer::Custom { .. }, Some(custom)) => {
            let next = Arc::new(custom(value, update)?);
            *value = next.clone();
            Change::Full(next)
        }
        (Reducer::Append, _) => {
            let items = Arc::new(update.clone());
            reduced(update)?;
            Change::Append(items)
        }
        (Reducer::Merge, _) => {
            let entries = Arc::new(update.clone());
            reduced(update)?;
            Change::Merge(entries)
        }
        (Reducer::Replace, _) => {
            *value = Arc::new(update);
            Change::Full(value.clone())
        }
        (Reducer::MergeByKey { .. } | Reducer::Sum | Reducer::Max | Reducer::Custom { .. }, _) => {
            reduced(update)?;
            Change::Full(value.clone())
        }
    })
}

/// A channel has one delta a superstep: a second change of the same kind joins the first, any
/// other makes it the whole value.
fn add_delta(deltas: &mut Vec<ChannelDelta>, state: &State, channel: ChannelName, change: Change) {
    let Some(delta) = deltas.iter_mut().find(|delta| delta.channel == channel) else {
        deltas.push(ChannelDelta { channel, change });
        return;
    };
    match (&mut delta.change, change) {
        (Change::Append(first), Change::Append(second)) => {
            if let (Value::Array(all), Value::Array(more)) = (Arc::make_mut(first), &*second) {
                all.extend(more.iter().cloned());
            }
        }
        (Change::Merge(first), Change::Merge(second)) => {
            if let (Value::Object(all), Value::Object(more)) = (Arc::make_mut(first), &*second) {
                all.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        (earlier @ (Change::Full(_) | Change::Append(_) | Change::Merge(_)), _) => {
            *earlier = Change::Full(state.get(channel.as_str()).cloned().unwrap_or_default());
        }
    }
}

fn exits(
    facts: &RunFacts,
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
        let scope = with_result(
            plan::scope(facts, checkpoint, node, &ending.activation, before),
            node,
            &output,
        );
        first_route(routes, checkpoint, node, &scope)?
    };
    let Some(index) = chosen else {
        return Err(Failure::fatal(
            "no_route",
            format!("no route of node `{}` applies", node.name),
        ));
    };
    count(checkpoint, format!("{}.routes[{index}]", node.name), routes[index].max);
    Ok(routes[index].to.clone())
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

/// The first route that holds and is not used up.
fn first_route(
    routes: &[Route],
    checkpoint: &Checkpoint,
    node: &GraphNode,
    scope: &Scope<'_>,
) -> Result<Option<usize>, Failure> {
    first_way(
        routes.iter().map(|route| (route.when.as_ref(), route.max)),
        checkpoint,
        node,
        "routes",
        scope,
    )
}

/// The first `catch` that holds and is not used up.
fn first_catch(
    catches: &[Catch],
    checkpoint: &Checkpoint,
    node: &GraphNode,
    scope: &Scope<'_>,
) -> Result<Option<usize>, Failure> {
    first_way(
        catches.iter().map(|catch| (catch.when.as_ref(), catch.max)),
        checkpoint,
        node,
        "catch",
        scope,
    )
}

/// A used-up way lets the next ones try, without its condition being asked.
fn first_way<'g>(
    ways: impl Iterator<Item = (Option<&'g Expr>, Option<u32>)>,
    checkpoint: &Checkpoint,
    node: &GraphNode,
    list: &str,
    scope: &Scope<'_>,
) -> Result<Option<usize>, Failure> {
    for (index, (when, max)) in ways.enumerate() {
        let place = || format!("{}.{list}[{index}]", node.name);
        let is_left =
            max.is_none_or(|max| checkpoint.cursor.taken.get(&place()).copied().unwrap_or(0) < max);
        if is_left && holds(when, scope, || format!("{}.when", place()))? {
            return Ok(Some(index));
        }
    }
    Ok(None)
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

/// Counts a bounded way.
fn count(checkpoint: &mut Checkpoint, place: String, max: Option<u32>) {
    if max.is_some() {
        *checkpoint.cursor.taken.entry(place).or_default() += 1;
    }
}

fn follow(
    graph: &Graph,
    checkpoint: &mut Checkpoint,
    from: &NodeName,
    target: &Target,
    error: Option<&Failure>,
) -> Result<(), Failure> {
    let Target::Node(name) = target else { return Ok(()) };
    let node = node_of(graph, name)?;
    let cursor = &mut checkpoint.cursor;
    if !node.when_all.is_empty() {
        let arrived = cursor.arrived.entry(name.clone()).or_default();
        if !arrived.contains(from) {
            arrived.push(from.clone());
        }
        if !node.when_all.iter().all(|wanted| arrived.contains(wanted)) {
            return Ok(());
        }
        cursor.arrived.remove(name);
    }
    plan::activate(cursor, name, error.cloned());
    Ok(())
}

fn check_limits(graph: &Graph, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let limits = &graph.limits;
    if checkpoint.cursor.supersteps > limits.supersteps {
        let message = format!("the run took more than `limits.supersteps` = {}", limits.supersteps);
        return Err(Failure::fatal("limit", message));
    }
    let over =
        checkpoint.cursor.visits.iter().find(|(_, visits)| **visits > limits.visits_per_node);
    over.map_or(Ok(()), |(node, _)| {
        let message = format!(
            "node `{node}` was visited more than `limits.visits_per_node` = {}",
            limits.visits_per_node
        );
        Err(Failure::fatal("limit", message))
    })
}

fn end(graph: &Graph, facts: &RunFacts, checkpoint: &Checkpoint) -> Next {
    if let Some((join, arrived)) = checkpoint.cursor.arrived.iter().next() {
        let arrived: Vec<&str> = arrived.iter().map(NodeName::as_str).collect();
        let message = format!("join `{join}` was only reached from {}", arrived.join(", "));
        return Next::Fail(Failure::fatal("join_unmet", message));
    }
    let Some(template) = graph.output.as_ref().and_then(|output| output.value.as_ref()) else {
        // A channel that a former version of the graph had may still be stored.
        let known =
            checkpoint.state.0.iter().filter(|(name, _)| graph.channels.contains_key(*name));
        let state = known.map(|(name, value)| (name.to_string(), (**value).clone())).collect();
        return Next::End(Arc::new(Value::Object(state)));
    };
    let scope = facts.scope(&checkpoint.state);
    match template.render(&scope) {
        Ok(output) => Next::End(Arc::new(output)),
        Err(error) => Next::Fail(expression_failure("output.value", &error)),
    }
}

fn node_of<'g>(graph: &'g Graph, name: &NodeName) -> Result<&'g GraphNode, Failure> {
    graph.nodes.get(name).ok_or_else(|| {
        Failure::fatal("unknown_node", format!("graph `{}` has no node `{name}`", graph.name))
    })
}

pub(crate) fn expression_failure(place: &str, error: &expr::Error) -> Failure {
    Failure::fatal("expression", format!("`{place}`: {error}"))
}

pub(crate) fn failure_value(failure: &Failure) -> Value {
    serde_json::to_value(failure).unwrap_or_default()
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

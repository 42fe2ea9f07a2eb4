//! What a step writes, and what a reducer makes of it; pure.

use std::sync::Arc;

use serde_json::Value;
use swarm_core::checkpoint::{Change, ChannelDelta, State};
use swarm_core::failure::Failure;
use swarm_core::id::ChannelName;
use swarm_core::reducer::Reducer;

use super::expression_failure;
use crate::expr::{Scope, Template};
use crate::graph::{Channel, Graph, GraphNode, Work};

/// A value for a channel, not reduced yet.
pub(super) type Update = (ChannelName, Value);

pub(super) fn with_result<'a>(scope: Scope<'a>, node: &GraphNode, output: &'a Value) -> Scope<'a> {
    match node.work {
        Work::Uses { .. } | Work::Run { .. } | Work::Inline { .. } => scope.var("output", output),
        Work::Wait { .. } => scope.var("signal", output),
        Work::Gate(_) => scope.var("answer", output),
    }
}

/// The updates of one output: what `set` says, else the fields that name a channel.
pub(super) fn updates_of(
    graph: &Graph,
    node: &GraphNode,
    output: Option<&Value>,
    scope: &Scope<'_>,
) -> Result<Vec<Update>, Failure> {
    if let Some(set) = &node.set {
        return render_set(set, node, scope);
    }
    let (
        Work::Uses { .. } | Work::Run { detach: false, .. } | Work::Inline { .. },
        Some(Value::Object(fields)),
    ) = (&node.work, output)
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

pub(super) fn render_set(
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

/// Puts newer deltas behind older ones.
pub(crate) fn join(older: &mut Vec<ChannelDelta>, newer: Vec<ChannelDelta>, state: &State) {
    for ChannelDelta { channel, change } in newer {
        add_delta(older, state, channel, change);
    }
}

/// A channel has one delta a superstep: a second change of the same kind joins the first, any
/// other makes it the whole value.
pub(super) fn add_delta(
    deltas: &mut Vec<ChannelDelta>,
    state: &State,
    channel: ChannelName,
    change: Change,
) {
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

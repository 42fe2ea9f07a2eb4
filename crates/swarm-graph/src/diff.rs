//! Two versions of a graph compared: what changed, and which changes could break a live run.
//!
//! What a newcomer gets wrong: a run stays on the version that it was started with, so no change
//! breaks a run by itself. What is judged here is moving it: see [`crate::migrate`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use swarm_core::id::NodeName;

use crate::graph::{Exits, Graph, GraphNode, Race, Work};

/// One difference between two versions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// What changed, in words.
    pub what: String,
    /// How a live run that is moved could be broken by it; `None`: it cannot.
    pub breaks: Option<String>,
}

/// Everything that changed from `old` to `new`, in the order of the graph.
#[must_use]
pub fn diff(old: &Graph, new: &Graph) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    changes.head(old, new);
    changes.channels(old, new);
    changes.signals(old, new);
    changes.nodes(old, new);
    changes.races(old, new);
    changes.0
}

/// The nodes that were most likely renamed: gone here, new there, and doing the same work. A
/// guess.
#[must_use]
pub fn renames(old: &Graph, new: &Graph) -> BTreeMap<NodeName, NodeName> {
    let gone: Vec<&GraphNode> =
        old.nodes.values().filter(|node| !new.nodes.contains_key(&node.name)).collect();
    let mut come: Vec<&GraphNode> =
        new.nodes.values().filter(|node| !old.nodes.contains_key(&node.name)).collect();
    let mut renames = BTreeMap::new();
    for node in gone {
        let likeness = |other: &GraphNode| {
            strsim::jaro_winkler(node.name.as_str(), other.name.as_str())
                + if ways(node) == ways(other) { 1.0 } else { 0.0 }
        };
        let likest = come
            .iter()
            .enumerate()
            .filter(|(_, other)| work(node) == work(other))
            .max_by(|(_, one), (_, other)| likeness(one).total_cmp(&likeness(other)))
            .map(|(position, _)| position);
        if let Some(position) = likest {
            renames.insert(node.name.clone(), come.remove(position).name.clone());
        }
    }
    renames
}

struct Changes(Vec<Change>);

impl Changes {
    fn safe(&mut self, what: String) {
        self.0.push(Change { what, breaks: None });
    }

    fn risky(&mut self, what: String, breaks: impl Into<String>) {
        self.0.push(Change { what, breaks: Some(breaks.into()) });
    }

    fn head(&mut self, old: &Graph, new: &Graph) {
        if old.name != new.name {
            let what = format!("the graph is named `{}`, not `{}`", new.name, old.name);
            self.risky(what, "a run is never moved to a graph of another name");
        }
        if old.version != new.version {
            self.safe(format!("version {} became {}", old.version, new.version));
        }
        if old.input_schema != new.input_schema {
            self.risky(
                "the input's type changed".to_owned(),
                "a run whose input does not fit is refused",
            );
        }
        let output = |graph: &Graph| graph.output.as_ref().map(|output| output.schema.clone());
        if output(old) != output(new) {
            self.risky(
                "the output's type changed".to_owned(),
                "a run that another waits for is refused: that one expects the old type",
            );
        }
        if old.entry != new.entry {
            self.safe(format!("it begins with `{}`, not `{}`", new.entry, old.entry));
        }
        if old.limits != new.limits {
            self.risky(
                "the limits changed".to_owned(),
                "a run that has used more than a lower limit is refused",
            );
        }
        if old.durability != new.durability {
            self.safe("the place of a run is stored at other moments".to_owned());
        }
        if old.budget != new.budget {
            self.safe("the budget changed; a live run keeps its own".to_owned());
        }
    }

    fn channels(&mut self, old: &Graph, new: &Graph) {
        for (name, channel) in &old.channels {
            let Some(other) = new.channels.get(name) else {
                self.risky(
                    format!("channel `{name}` is gone"),
                    "its value in a live run would be lost",
                );
                continue;
            };
            if channel.schema != other.schema {
                self.risky(
                    format!("channel `{name}` has another type"),
                    "a live run's value may not fit",
                );
            }
            if channel.reducer != other.reducer {
                self.safe(format!(
                    "channel `{name}` takes updates by `{}`, not `{}`",
                    other.reducer.name(),
                    channel.reducer.name()
                ));
            }
        }
        for name in new.channels.keys().filter(|name| !old.channels.contains_key(*name)) {
            self.safe(format!("channel `{name}` is new; a live run gets its default"));
        }
    }

    fn signals(&mut self, old: &Graph, new: &Graph) {
        let (old, new) = match (&old.signals, &new.signals) {
            (None, None) => return,
            (Some(_), None) => return self.safe("signals of any name are taken now".to_owned()),
            (None, Some(_)) => {
                return self.risky(
                    "only the signals that are declared are taken now".to_owned(),
                    "a run whose mailbox holds another one is refused",
                );
            }
            (Some(old), Some(new)) => (old, new),
        };
        for (name, schema) in old {
            match new.get(name) {
                None => self.risky(
                    format!("signal `{name}` is gone"),
                    "a run whose mailbox holds one is refused",
                ),
                Some(other) if other != schema => self.risky(
                    format!("signal `{name}` carries something else"),
                    "a run whose mailbox holds one that does not fit is refused",
                ),
                Some(_) => {}
            }
        }
        for name in new.keys().filter(|name| !old.contains_key(*name)) {
            self.safe(format!("signal `{name}` is new"));
        }
    }

    fn races(&mut self, old: &Graph, new: &Graph) {
        let renames = renames(old, new);
        let renamed = |name: &NodeName| renames.get(name).unwrap_or(name).clone();
        let field = |race: &Race, to: &dyn Fn(&NodeName) -> NodeName| -> BTreeSet<NodeName> {
            race.field.iter().map(to).collect()
        };
        let known = |graph: &Graph, node: &NodeName| graph.nodes.contains_key(node);
        for race in &old.races {
            let node = renamed(&race.node);
            let other = new.races.iter().find(|other| other.node == node);
            let was = field(race, &renamed);
            let is = other.map_or_else(BTreeSet::new, |other| field(other, &NodeName::clone));
            if was != is && known(new, &node) {
                self.risky(
                    format!("the race `{node}` is run by other nodes"),
                    "a run in which several of them are under way is refused",
                );
            }
        }
        for race in &new.races {
            let is_new = !old.races.iter().any(|other| renamed(&other.node) == race.node);
            if is_new && old.nodes.keys().any(|name| renamed(name) == race.node) {
                self.risky(
                    format!("node `{}` is a race now", race.node),
                    "a run in which several of its lines are under way is refused",
                );
            }
        }
    }

    fn nodes(&mut self, old: &Graph, new: &Graph) {
        let renames = renames(old, new);
        for node in old.nodes.values() {
            let name = &node.name;
            match new.nodes.get(name) {
                Some(other) => self.node(node, other),
                None => match renames.get(name).and_then(|to| new.nodes.get(to)) {
                    Some(other) => {
                        self.risky(
                            format!("node `{name}` was renamed to `{}`, most likely", other.name),
                            format!(
                                "a run that stands in it needs `--rename {name}={}`",
                                other.name
                            ),
                        );
                        self.node(node, other);
                    }
                    None => self.risky(
                        format!("node `{name}` is gone"),
                        "a run that stands in it, or waits in it, has no place to go on",
                    ),
                },
            }
        }
        for name in new.nodes.keys().filter(|name| !old.nodes.contains_key(*name)) {
            if !renames.values().any(|to| to == name) {
                self.safe(format!("node `{name}` is new"));
            }
        }
    }

    fn node(&mut self, old: &GraphNode, new: &GraphNode) {
        let name = &new.name;
        if work(old) != work(new) {
            self.risky(
                format!("node `{name}` {} now; it {} before", work(new), work(old)),
                "a run that waits in it, or has begun it, is refused",
            );
        } else if answer(old) != answer(new) {
            self.risky(
                format!("node `{name}` takes another answer"),
                "an open question of it keeps its old choices, so such a run is refused",
            );
        }
        if let (Some(was), Some(is)) = (old.inline(), new.inline())
            && was.hash != is.hash
        {
            self.risky(
                format!("the graph that node `{name}` runs inside changed"),
                "a run that stands in it is refused",
            );
        }
        if old.foreach.as_ref().map(|each| (&each.var, &each.items))
            != new.foreach.as_ref().map(|each| (&each.var, &each.items))
        {
            self.risky(
                format!("node `{name}` goes over other items"),
                "a run that has begun with them is refused",
            );
        }
        if old.when_all != new.when_all {
            self.risky(
                format!("the join `{name}` waits for other nodes"),
                "a run of which some have arrived may be refused",
            );
        }
        let turn = |node: &GraphNode| (node.concurrency, node.pool.clone(), node.is_deferred);
        if turn(old) != turn(new) {
            self.safe(format!("node `{name}` waits for its turn in another way"));
        }
        if old.cache != new.cache {
            self.safe(format!("what node `{name}` gives is kept in another way"));
        }
        if ways(old) != ways(new) {
            self.safe(format!("node `{name}` leads on in another way"));
        }
    }
}

/// What a node does, without what it is given.
pub(crate) fn work(node: &GraphNode) -> String {
    match &node.work {
        Work::Uses { kind, .. } => format!("runs `{kind}`"),
        Work::Run { graph, detach: false, .. } => format!("starts a run of `{graph}`"),
        Work::Run { graph, detach: true, .. } => format!("starts a detached run of `{graph}`"),
        Work::Inline { graph, .. } => format!("runs graph `{}` inside", graph.name),
        Work::Wait { signal, timeout } => match (signal, timeout) {
            (Some(signal), None) => format!("waits for `{signal}`"),
            (Some(signal), Some(_)) => format!("waits for `{signal}` with a timeout"),
            (None, _) => "waits for a moment".to_owned(),
        },
        Work::Gate(_) => "asks a person".to_owned(),
    }
}

pub(crate) fn answer(node: &GraphNode) -> Option<&serde_json::Value> {
    match &node.work {
        Work::Gate(gate) => Some(&gate.answer_schema),
        Work::Uses { .. } | Work::Run { .. } | Work::Inline { .. } | Work::Wait { .. } => None,
    }
}

/// Where a node leads, in a form that can be compared.
fn ways(node: &GraphNode) -> String {
    let exits = match &node.exits {
        Exits::Next(to) => format!("{to:?}"),
        Exits::Routes(routes) => format!("{routes:?}"),
    };
    format!("{exits} {:?}", node.catch)
}

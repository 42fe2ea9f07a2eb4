//! The checked graph: what a run executes.
//!
//! A `Graph` only comes out of [`crate::check`]: whoever has one need not ask whether a node or a
//! channel exists. Names cross this module's border, petgraph's indices do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indexmap::IndexMap;
use jsonschema::Validator;
use petgraph::graph::DiGraph;
use serde_json::Value;
use swarm_core::escalation::Reason;
use swarm_core::id::{ChannelName, GraphHash, GraphName, NodeName, QueueName};
use swarm_core::reducer::Reducer;

use crate::check::parallel::Together;
use crate::defect::Defect;
use crate::expr::{Expr, Template};
use crate::registry::{ErasedNode, ReduceFn};
use crate::signal::Signals;

/// A checked graph. Cheap to share behind an `Arc`.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) name: GraphName,
    pub(crate) version: String,
    pub(crate) hash: GraphHash,
    pub(crate) text: String,
    pub(crate) input_schema: Value,
    /// Made from the schema when it is first needed.
    pub(crate) input_validator: OnceLock<Result<Arc<Validator>, String>>,
    pub(crate) output: Option<GraphOutput>,
    pub(crate) channels: IndexMap<ChannelName, Channel>,
    pub(crate) signals: Option<Signals>,
    pub(crate) nodes: IndexMap<NodeName, GraphNode>,
    pub(crate) entry: NodeName,
    pub(crate) limits: Limits,
    pub(crate) durability: Durability,
    pub(crate) budget: Option<Budget>,
    pub(crate) races: Vec<Race>,
    /// Whether it, or a graph inside it, has a race.
    pub(crate) has_races: bool,
    /// Whether a node of it runs a graph inline.
    pub(crate) has_inline: bool,
    /// Whether something that is due may have to wait for its turn: see [`crate::turn`].
    pub(crate) has_turns: bool,
    pub(crate) together: Arc<Together>,
    pub(crate) topology: Topology,
    pub(crate) warnings: Vec<Defect>,
}

/// Nodes by their place in [`Graph::nodes`], and the ways between them; `None` is `$end`.
pub(crate) type Topology = DiGraph<Option<Spot>, Way>;

/// A node in the topology.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Spot {
    /// Its place in [`Graph::nodes`].
    pub(crate) index: usize,
    /// Whether it waits for several nodes to lead to it.
    pub(crate) is_join: bool,
}

/// One way from a node to another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Way {
    /// Its place, as in the cursor: `plan.routes[0]`.
    pub(crate) place: String,
    /// Its condition, as written.
    pub(crate) when: Option<String>,
    /// How often it may be taken.
    pub(crate) max: Option<u32>,
    /// Whether only a failure goes this way.
    pub(crate) on_failure: bool,
}

impl Graph {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &GraphName {
        &self.name
    }

    /// Its version, as written.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The hash of its canonical form: the same for the same graph, however it is laid out.
    #[must_use]
    pub fn hash(&self) -> &GraphHash {
        &self.hash
    }

    /// Its text with all imports resolved; loads again to the same graph with the same hash.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The JSON schema of its input; `true` when the graph declares none.
    #[must_use]
    pub fn input_schema(&self) -> &Value {
        &self.input_schema
    }

    /// What it returns, if it declares it.
    #[must_use]
    pub fn output(&self) -> Option<&GraphOutput> {
        self.output.as_ref()
    }

    /// The channels of its state, in the order of the file.
    #[must_use]
    pub fn channels(&self) -> &IndexMap<ChannelName, Channel> {
        &self.channels
    }

    /// The signals that a run takes, each with the JSON schema of its payload, those that runs
    /// send by themselves included; `None`: any.
    #[must_use]
    pub fn signals(&self) -> Option<&BTreeMap<String, Value>> {
        self.signals.as_ref()
    }

    /// Its nodes, in the order of the file.
    #[must_use]
    pub fn nodes(&self) -> &IndexMap<NodeName, GraphNode> {
        &self.nodes
    }

    /// A node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&GraphNode> {
        self.nodes.get(name)
    }

    /// A node by name, or by path inside the graphs that run inline: `deliver/dev`.
    #[must_use]
    pub fn at(&self, path: &NodeName) -> Option<&GraphNode> {
        self.home(path)?.nodes.get(path.local())
    }

    /// The graph that the node of a path lies in.
    pub(crate) fn home(&self, path: &NodeName) -> Option<&Self> {
        let mut home = self;
        if let Some((outer, _)) = path.as_str().rsplit_once('/') {
            for name in outer.split('/') {
                home = home.nodes.get(name)?.inline()?;
            }
        }
        Some(home)
    }

    /// The graphs that its nodes run inline, each with its node, in their order.
    pub fn inlined(&self) -> impl Iterator<Item = (&NodeName, &Arc<Self>)> {
        self.nodes.values().filter_map(|node| Some((&node.name, node.inline()?)))
    }

    /// Where a run begins.
    #[must_use]
    pub fn entry(&self) -> &NodeName {
        &self.entry
    }

    /// The bounds of a run.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is most likely not what was meant, though the graph can be used.
    #[must_use]
    pub fn warnings(&self) -> &[Defect] {
        &self.warnings
    }

    /// What a run may cost, if it is bounded.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }
}

/// What a run returns.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphOutput {
    /// The JSON schema of the output.
    pub schema: Value,
    /// The output; without it, the whole state.
    pub value: Option<Template>,
}

/// One field of the state.
#[derive(Clone, Debug)]
pub struct Channel {
    /// How it takes an update.
    pub reducer: Reducer,
    /// The function of a custom reducer.
    pub custom: Option<ReduceFn>,
    /// Its value when a run begins.
    pub default: Arc<Value>,
    /// The JSON schema of its value; it may refer to its own `$defs`.
    pub schema: Value,
}

/// Lines of a run of which the first to arrive calls off the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Race {
    /// The node that runs once one has arrived.
    pub(crate) node: NodeName,
    /// The last node of each line.
    pub(crate) members: Vec<NodeName>,
    /// All nodes of all lines: those behind the fork that lead to a member.
    pub(crate) field: BTreeSet<NodeName>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct GraphNode {
    pub(crate) name: NodeName,
    pub(crate) work: Work,
    pub(crate) foreach: Option<Foreach>,
    pub(crate) set: Option<Vec<(ChannelName, Template)>>,
    pub(crate) exits: Exits,
    pub(crate) catch: Vec<Catch>,
    pub(crate) retry: Option<Retry>,
    pub(crate) timeout: Timeouts,
    pub(crate) when_all: Vec<NodeName>,
    pub(crate) when_any: Vec<NodeName>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) pool: Option<Pool>,
    pub(crate) is_deferred: bool,
    pub(crate) cache: Option<Cache>,
}

impl GraphNode {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// What it does.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The graph that it runs inline, if it does that.
    #[must_use]
    pub fn inline(&self) -> Option<&Arc<Graph>> {
        match &self.work {
            Work::Inline { graph, .. } => Some(graph),
            Work::Uses { .. } | Work::Run { .. } | Work::Wait { .. } | Work::Gate(_) => None,
        }
    }

    /// Whether it does that once per item of a list.
    #[must_use]
    pub fn foreach(&self) -> Option<&Foreach> {
        self.foreach.as_ref()
    }

    /// What it writes; `None`: each field of its output that is a channel.
    #[must_use]
    pub fn set(&self) -> Option<&[(ChannelName, Template)]> {
        self.set.as_deref()
    }

    /// Where the run goes on.
    #[must_use]
    pub fn exits(&self) -> &Exits {
        &self.exits
    }

    /// Where the run goes on after a failure; the first that holds.
    #[must_use]
    pub fn catch(&self) -> &[Catch] {
        &self.catch
    }

    /// How it is tried again.
    #[must_use]
    pub fn retry(&self) -> Option<&Retry> {
        self.retry.as_ref()
    }

    /// How long an attempt may take.
    #[must_use]
    pub fn timeout(&self) -> Timeouts {
        self.timeout
    }

    /// The nodes that must all have arrived before it runs; empty: any arrival runs it.
    #[must_use]
    pub fn when_all(&self) -> &[NodeName] {
        &self.when_all
    }

    /// How many of its activations, items of a loop included, may have begun and not ended.
    #[must_use]
    pub fn concurrency(&self) -> Option<u32> {
        self.concurrency
    }

    /// The pool whose places its attempts take.
    #[must_use]
    pub fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Whether its outputs are kept for later runs.
    #[must_use]
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// Whether it begins only when nothing else of its graph is left to do.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    /// The nodes of which the first to end well brings the run here and calls off the others.
    #[must_use]
    pub fn when_any(&self) -> &[NodeName] {
        &self.when_any
    }
}

/// How the outputs of a node are kept for later runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// How long.
    pub ttl: Duration,
    /// What an output is kept under; `None`: the node's input.
    pub key: Option<Template>,
    /// What must be the same besides: graph, node, kind, version of the kind, configuration.
    pub(crate) scope: String,
}

/// A limit that all runs of a process share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Its name, the same in every graph that shares it.
    pub name: String,
    /// How many attempts may be at work in it before one of this graph begins.
    pub limit: u32,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Runs registered code.
    Uses {
        /// The kind.
        kind: String,
        /// The code, built with its `config`.
        node: Arc<dyn ErasedNode>,
        /// Its input.
        input: Template,
    },
    /// Starts a run of another graph.
    Run {
        /// The graph.
        graph: GraphName,
        /// Which queue's workers may claim it; `None`: that of this run.
        queue: Option<QueueName>,
        /// Its input.
        input: Template,
        /// Whether this run goes on without waiting for its end.
        detach: bool,
        /// Labels for people and filters, added to those of this run.
        labels: Vec<(String, Template)>,
    },
    /// Runs another graph inside this run.
    Inline {
        /// The graph.
        graph: Arc<Graph>,
        /// Its input.
        input: Template,
    },
    /// Waits for a signal, a moment, or whichever comes first.
    Wait {
        /// The signal's name; a trailing `*` stands for any ending.
        signal: Option<String>,
        /// When to stop waiting.
        timeout: Option<Duration>,
    },
    /// Asks a person.
    Gate(Box<Gate>),
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Why a person is needed.
    pub reason: Reason,
    /// The question; renders to a string.
    pub ask: Template,
    /// What the person is asked to bring; each renders to a `Request`. Empty: one decision or
    /// one text, made from the question and the answer's schema.
    pub requested_input: Vec<Template>,
    /// The JSON schema that an answer must satisfy.
    pub answer_schema: Value,
    /// Facts that help to decide.
    pub context: Option<Template>,
    /// After how long to remind, again and again.
    pub remind: Option<Duration>,
    /// After how long the node fails with class `expired` if nobody has answered.
    pub expires: Option<Duration>,
}

/// A node done once per item of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreach {
    /// The list.
    pub items: Expr,
    /// The name of the item in expressions.
    pub var: String,
    /// How many at once.
    pub max_parallel: u32,
    /// What a failed item means.
    pub on_error: OnError,
}

/// What a failed item of a `foreach` means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnError {
    /// The node fails, and items not yet begun are left out.
    #[default]
    Fail,
    /// The others go on, and so does the node: its `set` sees the failed item's `error`.
    Collect,
    /// The others go on, and so does the node, as if the item had not been there.
    Ignore,
}

/// Where a run goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Exits {
    /// To all of these.
    Next(Vec<Target>),
    /// By the first route whose condition holds; the last has none.
    Routes(Vec<Route>),
}

/// A way on that is taken when its condition holds and its bound is not used up.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its condition; `None`: always.
    pub when: Option<Expr>,
    /// Where it leads: to all of these.
    pub to: Vec<Target>,
    /// How often it may be taken in a run; then it counts as not holding.
    pub max: Option<u32>,
}

/// A way on after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Catch {
    /// Its condition over `error`; `None`: always.
    pub when: Option<Expr>,
    /// Where it leads: to all of these.
    pub to: Vec<Target>,
    /// How often it may be taken in a run; then it counts as not holding.
    pub max: Option<u32>,
    /// What it writes.
    pub set: Vec<(ChannelName, Template)>,
}

/// Where a way leads.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// To a node.
    Node(NodeName),
    /// To the end of this line of the run, `$end`.
    End,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::End => f.pad("$end"),
        }
    }
}

/// How a failed step is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// The wait before the second attempt.
    pub initial: Duration,
    /// By what the wait grows each time.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// Whether the wait is drawn between nothing and its full length.
    pub jitter: bool,
    /// Which failures are tried again; `None`: those whose remedy is a retry.
    pub when: Option<Expr>,
}

/// How long one attempt of a step may take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    /// In all.
    pub run: Option<Duration>,
    /// Without a sign of life.
    pub idle: Option<Duration>,
}

/// The bounds of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Supersteps in all.
    pub supersteps: u32,
    /// Activations of one node.
    pub visits_per_node: u32,
    /// Steps at once.
    pub concurrency: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { supersteps: 500, visits_per_node: 25, concurrency: 8 }
    }
}

/// What a run may cost, with all its children.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Money, in US dollars.
    pub usd: Option<f64>,
    /// Model tokens, in and out.
    pub tokens: Option<u64>,
    /// Time from start to end, waiting included.
    pub wall: Option<Duration>,
    /// What happens when it is used up.
    pub on_exceed: OnExceed,
}

/// When the place of a run is stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// After every superstep.
    #[default]
    Sync,
    /// When the run rests, asks, starts another or takes a signal, and before a step writes to
    /// its journal or tells of something. After a crash the supersteps since then are run again.
    Exit,
}

/// What happens when a budget is used up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnExceed {
    /// A person is asked to raise it.
    #[default]
    Escalate,
    /// The run fails.
    Fail,
}

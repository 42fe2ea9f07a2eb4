//! The graphs that an engine may run: the newest by name, and every version by hash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::RwLock;

use jsonschema::Validator;
use serde_json::Value;
use swarm_core::id::GraphHash;
use swarm_core::run::Limit;
use swarm_core::spend::UsdMicros;

use crate::graph::Graph;
use crate::registry::Registry;

/// Loaded graphs and the registry that later loads are checked against.
#[derive(Debug)]
pub struct Library {
    registry: Registry,
    graphs: RwLock<Graphs>,
}

#[derive(Debug, Default)]
struct Graphs {
    by_name: BTreeMap<String, Arc<Graph>>,
    by_hash: BTreeMap<GraphHash, Arc<Graph>>,
}

impl Library {
    /// A library without graphs.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, graphs: RwLock::default() }
    }

    /// Adds a graph; from now on its name means this version.
    #[must_use]
    pub fn with(self, graph: Graph) -> Self {
        self.add(graph);
        self
    }

    /// Adds a graph; from now on its name means this version.
    pub fn add(&self, graph: Graph) -> Arc<Graph> {
        let graph = Arc::new(graph);
        let mut graphs = self.graphs.write().expect("no panic while locked");
        graphs.by_name.insert(graph.name().to_string(), graph.clone());
        graphs.by_hash.insert(graph.hash().clone(), graph.clone());
        graph
    }

    /// The newest version of a graph.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Graph>> {
        self.graphs.read().expect("no panic while locked").by_name.get(name).cloned()
    }

    /// One version of a graph, if it is loaded.
    #[must_use]
    pub fn by_hash(&self, hash: &GraphHash) -> Option<Arc<Graph>> {
        self.graphs.read().expect("no panic while locked").by_hash.get(hash).cloned()
    }

    /// The names of all graphs.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.graphs.read().expect("no panic while locked").by_name.keys().cloned().collect()
    }

    /// What graphs are checked against.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Keeps an old version for the runs that are pinned to it; its name is not touched.
    pub(crate) fn add_version(&self, graph: Graph) -> Arc<Graph> {
        let graph = Arc::new(graph);
        let mut graphs = self.graphs.write().expect("no panic while locked");
        graphs.by_hash.insert(graph.hash().clone(), graph.clone());
        graph
    }
}

/// The limit that a graph's budget sets.
pub(crate) fn limit_of(graph: &Graph) -> Limit {
    graph.budget().map_or_else(Limit::default, |budget| Limit {
        usd: budget.usd.map(UsdMicros::from_dollars),
        tokens: budget.tokens,
    })
}

/// Whether a run of the graph may be started with this input; `Err` says what does not fit.
pub(crate) fn check_input(graph: &Graph, input: &Value) -> Result<(), String> {
    let compiled =
        graph.input_validator.get_or_init(|| compile(graph.input_schema()).map(Arc::new));
    let misfits = compiled.as_ref().map_or_else(|why| Some(why.clone()), |v| misfits(v, input));
    misfits.map_or(Ok(()), |why| Err(format!("the input of graph `{}`: {why}", graph.name())))
}

/// Whether a value satisfies a schema; `Err` lists what does not fit, each with its place.
pub(crate) fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    misfits(&compile(schema)?, value).map_or(Ok(()), Err)
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::validator_for(schema).map_err(|error| format!("unusable schema: {error}"))
}

fn misfits(validator: &Validator, value: &Value) -> Option<String> {
    let misfits: Vec<String> = validator
        .iter_errors(value)
        .take(8)
        .map(|error| {
            let place = error.instance_path().to_string();
            if place.is_empty() { error.to_string() } else { format!("{place}: {error}") }
        })
        .collect();
    (!misfits.is_empty()).then(|| misfits.join("; "))
}

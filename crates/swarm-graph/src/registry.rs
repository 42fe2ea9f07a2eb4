//! Node kinds, types and reducers by name: what a graph file may refer to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;
use swarm_core::failure::Failure;

use crate::information::Flow;
use crate::node::{Node, NodeContext, NodeError};

/// A node whose types are only known as schemas.
#[async_trait]
pub trait ErasedNode: Send + Sync + fmt::Debug {
    /// Runs one step; `input` has passed no check yet.
    async fn run(&self, ctx: &NodeContext, input: Value) -> Result<Value, NodeError>;
}

struct Erased<N>(N);

impl<N: Node> fmt::Debug for Erased<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(N::KIND)
    }
}

#[async_trait]
impl<N: Node> ErasedNode for Erased<N> {
    async fn run(&self, ctx: &NodeContext, input: Value) -> Result<Value, NodeError> {
        let input = serde_json::from_value(input).map_err(|error| {
            Failure::fatal("bad_input", format!("`with` does not fit `{}`: {error}", N::KIND))
        })?;
        let output = self.0.run(ctx, input).await?;
        serde_json::to_value(output).map_err(|error| {
            Failure::fatal("bad_output", format!("the output of `{}` is no JSON: {error}", N::KIND))
                .into()
        })
    }
}

type Build = dyn Fn(Value) -> Result<Arc<dyn ErasedNode>, String> + Send + Sync;

/// A registered node kind.
#[derive(Clone)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// The version of what it does.
    pub version: u32,
    /// The schema of `config:`.
    pub config_schema: Value,
    /// The schema of `with:`.
    pub input_schema: Value,
    /// The schema of what it returns.
    pub output_schema: Value,
    /// What it does with information.
    pub flow: Flow,
    build: Arc<Build>,
}

impl Kind {
    /// Builds the node from its `config:`.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn build(&self, config: Value) -> Result<Arc<dyn ErasedNode>, String> {
        (self.build)(config)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A registered type.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeEntry {
    /// Its schema.
    pub schema: Value,
    /// Its default, where it has one: the initial state of a run whose state it is.
    pub default: Option<Value>,
}

/// A reducer of the host's own: the current value and an update in, the new value out.
pub type ReduceFn = fn(&Value, Value) -> Result<Value, String>;

/// All that a graph file may refer to by name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Kind>,
    types: BTreeMap<String, TypeEntry>,
    reducers: BTreeMap<String, ReduceFn>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node kind. `build` gets the decoded `config:` and says in words what is wrong
    /// with it. A second kind of the same name replaces the first, so that a host can override.
    #[must_use]
    pub fn node<N: Node>(
        mut self,
        build: impl Fn(N::Config) -> Result<N, String> + Send + Sync + 'static,
    ) -> Self {
        let build = move |config: Value| -> Result<Arc<dyn ErasedNode>, String> {
            let config = serde_json::from_value(config).map_err(|error| error.to_string())?;
            Ok(Arc::new(Erased(build(config)?)))
        };
        let kind = Kind {
            name: N::KIND,
            version: N::VERSION,
            config_schema: schema_of::<N::Config>(),
            input_schema: schema_of::<N::Input>(),
            output_schema: schema_of::<N::Output>(),
            flow: N::FLOW,
            build: Arc::new(build),
        };
        self.kinds.insert(N::KIND, kind);
        self
    }

    /// Adds a type with a default: it can be a state.
    #[must_use]
    pub fn ty<T: JsonSchema + Serialize + Default>(mut self, name: &str) -> Self {
        let default = serde_json::to_value(T::default()).ok();
        self.types.insert(name.to_owned(), TypeEntry { schema: schema_of::<T>(), default });
        self
    }

    /// Adds a type: it can be an input, an output or an answer.
    #[must_use]
    pub fn ty_without_default<T: JsonSchema>(mut self, name: &str) -> Self {
        self.types.insert(name.to_owned(), TypeEntry { schema: schema_of::<T>(), default: None });
        self
    }

    /// Adds a reducer.
    #[must_use]
    pub fn reducer(mut self, name: &str, reduce: ReduceFn) -> Self {
        self.reducers.insert(name.to_owned(), reduce);
        self
    }

    /// A kind by name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name)
    }

    /// All kinds, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// A type by name.
    #[must_use]
    pub fn type_named(&self, name: &str) -> Option<&TypeEntry> {
        self.types.get(name)
    }

    /// All types, by name.
    pub fn types(&self) -> impl Iterator<Item = (&str, &TypeEntry)> {
        self.types.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// A reducer by name.
    #[must_use]
    pub fn reducer_named(&self, name: &str) -> Option<ReduceFn> {
        self.reducers.get(name).copied()
    }

    /// The names of all reducers of the host's own.
    pub fn reducers(&self) -> impl Iterator<Item = &str> {
        self.reducers.keys().map(String::as_str)
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

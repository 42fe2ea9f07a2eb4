//! From text to a checked graph, or to everything that is wrong with it.
//!
//! The checks go on as long as there is something to check: a node with an unknown kind still
//! has its routes followed. What a newcomer gets wrong: a check never returns early for the whole
//! graph; it notes a defect and leaves a gap, and [`load`] returns a graph only without gaps.

mod bundle;
mod flow;
mod information;
mod inline;
mod node;
pub(crate) mod parallel;
mod policies;
mod race;
pub(crate) mod signals;
mod state;
mod value;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use serde_json::Value;
use swarm_core::id::{GraphName, NodeName};

use self::inline::Around;
use crate::defect::report::Report;
use crate::defect::{Code, Defects, suggest};
use crate::expr::{Env, Type};
use crate::graph::{Durability, Graph, GraphNode, GraphOutput, Race};
use crate::registry::Registry;
use crate::spec::read::Read as _;
use crate::spec::yaml::{Span, Yaml, parse};
use crate::spec::{DSL, GraphSpec};

use self::information::Summary;

/// The most nodes of a graph.
pub const NODES_MAX: usize = 2_000;

/// Where texts come from.
pub trait Sources {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    fn read(&self, path: &str) -> Result<String, String>;
}

/// Files below a directory.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Files below `root`; paths are relative to it.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl Sources for Files {
    fn read(&self, path: &str) -> Result<String, String> {
        let path = self.root.join(path);
        // A device or a huge file would be read to no end.
        let len = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if len > crate::spec::yaml::FILE_LEN_MAX as u64 {
            return Err(format!("the file has {len} bytes"));
        }
        std::fs::read_to_string(&path).map_err(|error| error.to_string())
    }
}

/// Texts in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: BTreeMap<String, String>,
}

impl Memory {
    /// One file.
    #[must_use]
    pub fn one(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self::default().with(path, text)
    }

    /// With one more file.
    #[must_use]
    pub fn with(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }
}

impl Sources for Memory {
    fn read(&self, path: &str) -> Result<String, String> {
        self.files.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    }
}

/// Loads the graph in the file at `path`.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(sources: &dyn Sources, path: &str, registry: &Registry) -> Result<Graph, Defects> {
    Loader::new(sources, registry).get(path)
}

/// Loads several graphs that run each other, in the order of their paths: `run` may only name one
/// of them, what it gives must fit the other's input, what comes back has the type of the other's
/// output, and no two have the same name.
///
/// # Errors
/// For each graph everything that is wrong with it, at once.
pub fn load_all(
    sources: &dyn Sources,
    paths: &[&str],
    registry: &Registry,
) -> Vec<Result<Graph, Defects>> {
    let mut first = Loader::new(sources, registry);
    for path in paths {
        if let Some(name) = name_of(sources, path) {
            first.names.entry(name).or_insert_with(|| (*path).to_owned());
        }
    }
    let alone: Vec<Option<Graph>> = paths.iter().map(|path| first.get(path).ok()).collect();
    let mut others = Others {
        signatures: Signatures::new(),
        summaries: information::summaries(&alone.iter().flatten(), registry),
    };
    for (path, graph) in paths.iter().zip(&alone) {
        // A graph with defects still has a name.
        let name = graph.as_ref().map(|graph| graph.name.to_string());
        if let Some(name) = name.or_else(|| name_of(sources, path)) {
            let signature = || ((*path).to_owned(), graph.as_ref().map(Signature::of));
            others.signatures.entry(name).or_insert_with(signature);
        }
    }
    let second = Loader {
        names: std::mem::take(&mut first.names),
        others: Some(&others),
        ..Loader::new(sources, registry)
    };
    paths.iter().map(|path| second.get(path)).collect()
}

type Loaded = Result<Arc<Graph>, Defects>;

/// Loads files, each once.
struct Loader<'l> {
    sources: &'l dyn Sources,
    registry: &'l Registry,
    /// The graphs that `run` may name; `None`: any, because the others are not at hand.
    others: Option<&'l Others>,
    /// The files of graphs that may run inside others, by the graphs' names.
    names: BTreeMap<String, String>,
    /// By path; `None` while it is being checked.
    loaded: RefCell<BTreeMap<String, Option<Loaded>>>,
}

impl<'l> Loader<'l> {
    fn new(sources: &'l dyn Sources, registry: &'l Registry) -> Self {
        let (names, loaded) = (BTreeMap::new(), RefCell::default());
        Self { sources, registry, others: None, names, loaded }
    }

    fn get(&self, path: &str) -> Result<Graph, Defects> {
        let loaded = self.load(path).expect("no file is being checked when one is asked for");
        loaded.map(Arc::unwrap_or_clone)
    }

    /// `None`: it is being checked, so it would run inside itself.
    fn load(&self, path: &str) -> Option<Loaded> {
        if let Some(loaded) = self.loaded.borrow().get(path) {
            return loaded.clone();
        }
        self.loaded.borrow_mut().insert(path.to_owned(), None);
        let mut report = Report::default();
        let loaded = match self.sources.read(path) {
            Ok(text) => check(self, path, &text, report),
            Err(why) => Err(unreadable(&mut report, path, &why)),
        };
        let loaded = loaded.map(Arc::new);
        self.loaded.borrow_mut().insert(path.to_owned(), Some(loaded.clone()));
        Some(loaded)
    }
}

fn name_of(sources: &dyn Sources, path: &str) -> Option<String> {
    let tree = parse(&sources.read(path).ok()?, 0).ok()?;
    tree.get("graph")?.get("name")?.to_json().as_str().map(str::to_owned)
}

/// What a graph takes and gives: all that others need to know of it.
struct Signature {
    input: Value,
    output: Type,
}

impl Signature {
    fn of(graph: &Graph) -> Self {
        let channel_types = graph
            .channels
            .iter()
            .map(|(name, channel)| (name.to_string(), Type::of_schema(&channel.schema)));
        let output = match &graph.output {
            Some(output) => Type::of_schema(&output.schema),
            None => Type::record(channel_types),
        };
        Self { input: graph.input_schema.clone(), output }
    }
}

/// What is known of the graphs that are loaded together.
struct Others {
    signatures: Signatures,
    summaries: BTreeMap<String, Summary>,
}

/// The graphs there are by name, each with its file; no signature for one that has defects.
type Signatures = BTreeMap<String, (String, Option<Signature>)>;

/// Loads a graph from a text without imports, such as [`Graph::text`].
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load_text(text: &str, registry: &Registry) -> Result<Graph, Defects> {
    check(&Loader::new(&Memory::default(), registry), "graph", text, Report::default())
}

fn unreadable(report: &mut Report, path: &str, why: &str) -> Defects {
    let file = report.add_file(path, "");
    let top = Span { file, line: 1, column: 1, start: 0 };
    report.error(Code::UnreadableFile, top, format!("cannot be read: {why}"));
    std::mem::take(report).finish().expect_err("an error was noted")
}

fn check(
    loader: &Loader<'_>,
    path: &str,
    text: &str,
    mut report: Report,
) -> Result<Graph, Defects> {
    let file = report.add_file(path, text);
    let draft = match parse(text, file) {
        Ok(tree) => GraphSpec::read(&tree, &mut report).and_then(|spec| {
            Checker {
                sources: loader.sources,
                path,
                registry: loader.registry,
                graphs: loader.others.map(|others| &others.signatures),
                summaries: loader.others.map(|others| &others.summaries),
                loader,
                around: &Around::nothing(),
                is_inside: false,
                report: &mut report,
            }
            .graph(&tree, &spec)
        }),
        Err(error) => {
            report.error(Code::Syntax, error.at, error.message);
            None
        }
    };
    let warnings = report.finish()?;
    let mut graph = draft.expect("a graph without defects has no gaps");
    graph.warnings = warnings;
    Ok(graph)
}

/// What every part of the check needs.
struct Checker<'c> {
    sources: &'c dyn Sources,
    path: &'c str,
    registry: &'c Registry,
    /// The graphs that `run` may name; `None`: any, because the others are not at hand.
    graphs: Option<&'c Signatures>,
    /// What starting them means for the flow of information.
    summaries: Option<&'c BTreeMap<String, Summary>>,
    loader: &'c Loader<'c>,
    /// Where graphs that run inline are looked for first.
    around: &'c Around<'c>,
    /// Whether the graph lies in the text of another one.
    is_inside: bool,
    report: &'c mut Report,
}

impl Checker<'_> {
    fn graph(&mut self, tree: &Yaml, spec: &GraphSpec) -> Option<Graph> {
        let around = Around::of(spec, tree, self.around);
        Checker {
            sources: self.sources,
            path: self.path,
            registry: self.registry,
            graphs: self.graphs,
            summaries: self.summaries,
            loader: self.loader,
            around: &around,
            is_inside: self.is_inside,
            report: self.report,
        }
        .whole(tree, spec)
    }

    fn whole(&mut self, tree: &Yaml, spec: &GraphSpec) -> Option<Graph> {
        self.dsl(spec.dsl.as_ref());
        let name = spec.graph.as_ref().and_then(|head| head.name.as_ref()).and_then(|name| {
            GraphName::new(&name.value)
                .map_err(|error| self.report.error(Code::BadName, name.at, error.to_string()))
                .ok()
        });
        if !self.is_inside {
            self.other_of_that_name(spec);
        }
        let version = self.version(spec);
        let policies = self.policies(spec);
        let defaults = self.defaults(spec.defaults.as_ref(), &policies);
        let limits = self.limits(spec.limits.as_ref());
        let pools = self.pools(spec.limits.as_ref());
        let input_schema = self.declared(spec.input.as_ref());
        let state = self.state(spec.state.as_ref());
        let signals = self.signals(spec.signals.as_ref());
        let base = Env::default()
            .with("input", Type::of_schema(&input_schema))
            .with("state", state.ty.clone())
            .with("run", run_type());
        let output = spec.output.as_ref().map(|output| self.output(output, &base));
        let empty = Vec::new();
        let specs = spec.nodes.as_ref().map_or(&empty, |nodes| &nodes.value.0);
        if let (true, Some(nodes)) = (specs.is_empty(), &spec.nodes) {
            self.report.error(Code::MissingKey, nodes.at, "a graph needs at least one node");
        }
        if let Some((extra, _)) = specs.get(NODES_MAX) {
            let message = format!("{} nodes; at most {NODES_MAX} are allowed", specs.len());
            self.report.error(Code::BadLimit, extra.at, message).help =
                Some("a part of it can be a graph of its own, started with `run`".to_owned());
            return None;
        }
        let place = node::Place {
            names: specs.iter().map(|(name, _)| name.value.as_str()).collect(),
            caught: node::caught(specs),
            base: &base,
            state: &state,
            signals: signals.as_ref(),
            policies: &policies,
            defaults: &defaults,
            limits,
            pools: &pools,
            graph: name.as_ref().map_or("", GraphName::as_str),
        };
        let drafts: Vec<node::Draft> =
            specs.iter().map(|(name, spec)| self.node(name, spec, &place)).collect();
        let entry =
            spec.entry.as_ref().and_then(|entry| self.entry(&entry.value, entry.at, &place));
        let (topology, races, together) = self.flow(&drafts, entry, limits, &state);
        let places: Vec<Span> = drafts.iter().map(|draft| draft.at).collect();
        self.others_inside();
        let nodes: Option<IndexMap<NodeName, _>> = drafts
            .into_iter()
            .map(|draft| draft.into_node().map(|node| (node.name.clone(), node)))
            .collect();
        let nodes = nodes?;
        self.information(&nodes, &places, entry?, &topology, &together);
        let inside: BTreeMap<&str, &Arc<Graph>> = nodes
            .values()
            .filter_map(GraphNode::inline)
            .map(|graph| (graph.name.as_str(), graph))
            .collect();
        let has_inline = !inside.is_empty();
        let waits_its_turn = |node: &GraphNode| node.is_deferred || node.concurrency.is_some();
        let has_turns = has_inline || nodes.values().any(waits_its_turn);
        let has_races = !races.is_empty() || inside.values().any(|graph| graph.has_races);
        let bundle = bundle::bundle(tree, &policies, &inside);
        if has_inline && let Err(error) = parse(&bundle.text, 0) {
            let message = format!("with the graphs inside it is too large: {}", error.message);
            self.report.error(Code::BadLimit, tree.at, message);
        }
        Some(Graph {
            name: name?,
            version: version?,
            hash: bundle.hash,
            text: bundle.text,
            input_schema,
            input_validator: OnceLock::new(),
            output: output.map(|(schema, value)| GraphOutput { schema, value }),
            channels: state.channels,
            signals,
            entry: nodes.get_index(entry?)?.0.clone(),
            limits,
            budget: defaults.budget,
            races: races
                .iter()
                .map(|race| {
                    let name = |index: &usize| Some(nodes.get_index(*index)?.0.clone());
                    let members = race.members.iter().filter_map(name).collect();
                    let field = race.field.iter().filter_map(name).collect();
                    Some(Race { node: name(&race.node)?, members, field })
                })
                .collect::<Option<_>>()?,
            has_races,
            has_inline,
            durability: spec.durability.map_or_else(Durability::default, |word| word.0),
            has_turns,
            nodes,
            topology,
            together: Arc::new(together),
            warnings: Vec::new(),
        })
    }

    fn dsl(&mut self, dsl: Option<&crate::spec::yaml::Spanned<u32>>) {
        if let Some(dsl) = dsl
            && dsl.value != DSL
        {
            let message = format!("version {} of the format is not known", dsl.value);
            self.report.error(Code::BadVersion, dsl.at, message).help =
                Some(format!("this program reads version {DSL}"));
        }
    }

    /// Two graphs of one name would hide each other.
    fn other_of_that_name(&mut self, spec: &GraphSpec) {
        let Some(name) = spec.graph.as_ref().and_then(|head| head.name.as_ref()) else { return };
        if let Some((path, _)) = self.graphs.and_then(|graphs| graphs.get(&name.value))
            && path != self.path
        {
            let message = format!("`{path}` has a graph named `{}`, too", name.value);
            self.report.error(Code::DuplicateName, name.at, message);
        }
    }

    fn version(&mut self, spec: &GraphSpec) -> Option<String> {
        let version = spec.graph.as_ref()?.version.as_ref()?;
        let parts: Vec<&str> = version.value.split('.').collect();
        let number = |part: &&str| {
            !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if parts.len() == 3 && parts.iter().all(number) {
            return Some(version.value.clone());
        }
        let message = format!("`{}` is no version", version.value);
        self.report.error(Code::BadVersion, version.at, message).help =
            Some("write three numbers, such as `1.0.0`".to_owned());
        None
    }

    fn entry(&mut self, name: &str, at: Span, place: &node::Place<'_>) -> Option<usize> {
        let found = place.names.iter().position(|known| *known == name);
        if found.is_none() {
            self.report.error(Code::UnknownNode, at, format!("no node named `{name}`")).help =
                suggest(name, place.names.iter().copied());
        }
        found
    }
}

/// The type of `run` in expressions.
fn run_type() -> Type {
    let text = || Type::Text(None);
    let labels = Type::Map(std::sync::Arc::new(text()));
    Type::record([
        ("id".to_owned(), text()),
        ("graph".to_owned(), text()),
        ("labels".to_owned(), labels),
    ])
}

/// The type of `error` in expressions.
fn failure_type() -> Type {
    let schema = schemars::schema_for!(swarm_core::failure::Failure);
    Type::of_schema(&schema.to_value())
}

//! Graphs that run inside others: where they are found, and whether they can.
//!
//! A graph is looked for in the text that names it, then in the texts around that, then in the
//! files that are loaded together. What a newcomer gets wrong: each graph is checked once, when
//! the first node names it; one that is named while it is being checked would run inside itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Checker, Loader};
use crate::defect::{Code, suggest};
use crate::graph::{Graph, Work};
use crate::signal::{self, Signals};
use crate::spec::GraphSpec;
use crate::spec::read::Record as _;
use crate::spec::yaml::{Data, Span, Spanned, Yaml};

/// How deep graphs may lie in each other.
const DEPTH_MAX: usize = 8;

/// How far a graph is checked.
#[derive(Clone)]
pub(super) enum Found {
    /// Its check is not over.
    Checking,
    /// It is over; `None`: the graph has defects.
    Checked(Option<Arc<Graph>>),
}

/// The graphs in the text of a graph, and those around it.
pub(super) struct Around<'a> {
    graphs: Vec<(&'a Spanned<String>, &'a GraphSpec, &'a Yaml)>,
    found: RefCell<BTreeMap<String, Found>>,
    outer: Option<&'a Self>,
}

impl<'a> Around<'a> {
    /// Nothing around.
    pub(super) fn nothing() -> Self {
        Self { graphs: Vec::new(), found: RefCell::default(), outer: None }
    }

    /// The graphs that a graph's text holds.
    pub(super) fn of(spec: &'a GraphSpec, tree: &'a Yaml, outer: &'a Self) -> Self {
        let trees: &[Yaml] = match tree.get("graphs").map(|graphs| &graphs.data) {
            Some(Data::List(trees)) => trees,
            _ => &[],
        };
        let named = |spec: &'a GraphSpec| {
            let tree = trees.iter().find(|tree| tree.at == spec.at())?;
            Some((spec.graph.as_ref()?.name.as_ref()?, spec, tree))
        };
        let graphs = spec.graphs.iter().flatten().filter_map(named).collect();
        Self { graphs, found: RefCell::default(), outer: Some(outer) }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.graphs.iter().map(|(name, ..)| name.value.clone()).collect();
        names.extend(self.outer.map(Self::names).unwrap_or_default());
        names
    }
}

impl Checker<'_> {
    /// Checks the graphs of this text that no node has named, and that all have different names.
    pub(super) fn others_inside(&mut self) {
        let around = self.around;
        for (position, (name, ..)) in around.graphs.iter().enumerate() {
            if around.graphs[..position].iter().any(|(other, ..)| other.value == name.value) {
                let message = format!("two graphs here are named `{}`", name.value);
                self.report.error(Code::DuplicateName, name.at, message);
            } else if !around.found.borrow().contains_key(&name.value) {
                self.inlined(name);
            }
        }
    }

    /// The graph of this name, for a node that runs it inline; notes it when there is none.
    pub(super) fn inlined(&mut self, name: &Spanned<String>) -> Option<Arc<Graph>> {
        let mut scope = Some(self.around);
        while let Some(around) = scope {
            if let Some((_, spec, tree)) =
                around.graphs.iter().find(|(other, ..)| other.value == name.value)
            {
                return match self.in_text(around, &name.value, spec, tree) {
                    Found::Checked(graph) => graph,
                    Found::Checking => self.cycle(name),
                };
            }
            scope = around.outer;
        }
        match self.loader.named(&name.value) {
            Some(Found::Checked(Some(graph))) => Some(graph),
            Some(Found::Checking) => self.cycle(name),
            Some(Found::Checked(None)) => {
                let message = format!("graph `{}` has defects of its own", name.value);
                self.report.error(Code::BadInline, name.at, message);
                None
            }
            None => {
                let message = format!("no graph named `{}` is at hand", name.value);
                let mut known = self.around.names();
                known.extend(self.loader.names().map(str::to_owned));
                let help = suggest(&name.value, known.iter().map(String::as_str));
                self.report.error(Code::UnknownGraph, name.at, message).help = Some(
                    help.unwrap_or(
                        "write it under `graphs`, or load its file together with this one"
                            .to_owned(),
                    ),
                );
                None
            }
        }
    }

    fn in_text(&mut self, around: &Around<'_>, name: &str, spec: &GraphSpec, tree: &Yaml) -> Found {
        if let Some(found) = around.found.borrow().get(name) {
            return found.clone();
        }
        around.found.borrow_mut().insert(name.to_owned(), Found::Checking);
        let graph = Checker {
            sources: self.sources,
            path: self.path,
            registry: self.registry,
            graphs: self.graphs,
            summaries: self.summaries,
            loader: self.loader,
            around,
            is_inside: true,
            report: self.report,
        }
        .graph(tree, spec);
        let found = Found::Checked(graph.map(Arc::new));
        around.found.borrow_mut().insert(name.to_owned(), found.clone());
        found
    }

    fn cycle(&mut self, name: &Spanned<String>) -> Option<Arc<Graph>> {
        let message = format!("graph `{}` would run inside itself", name.value);
        self.report.error(Code::InlineCycle, name.at, message).help = Some(
            "leave `inline` out here: then each is a run of its own, and the runs are bounded"
                .to_owned(),
        );
        None
    }

    /// Notes what keeps a graph from running inside this one.
    pub(super) fn may_be_inside(
        &mut self,
        name: &Spanned<String>,
        inside: &Graph,
        signals: Option<&Signals>,
    ) -> bool {
        let before = self.report.errors();
        if inside.budget.is_some() {
            let message = format!("graph `{}` has a budget, which only a run keeps", name.value);
            self.bad_inline(name.at, message, "leave `inline` out, or the budget to this graph");
        }
        if depth(inside) >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} graphs lie in each other here");
            self.report.error(Code::BadLimit, name.at, message).help =
                Some("leave out one `inline`: then it is a run of its own".to_owned());
        }
        self.signals_inside(name, inside, signals);
        self.report.errors() == before
    }

    /// A signal is sent to a run: what waits for one inside must be declared by the run's graph.
    fn signals_inside(
        &mut self,
        name: &Spanned<String>,
        inside: &Graph,
        signals: Option<&Signals>,
    ) {
        let Some(known) = signals else {
            if inside.signals.is_some() {
                let message = format!("graph `{}` declares its signals, this one none", name.value);
                self.bad_inline(
                    name.at,
                    message,
                    "declare them here, too: they are sent to the run",
                );
            }
            return;
        };
        for pattern in waits(inside) {
            if signal::matching(known, pattern).next().is_none() {
                let message =
                    format!("graph `{}` waits for `{pattern}`, which is not declared", name.value);
                self.report.error(Code::UnknownSignal, name.at, message).help =
                    signal::help(known, pattern);
            }
        }
        for (signal, schema) in inside.signals.iter().flatten() {
            if known.get(signal).is_some_and(|other| other != schema) {
                let message =
                    format!("graph `{}` takes another payload with `{signal}`", name.value);
                self.bad_inline(name.at, message, "declare the same in both");
            }
        }
    }

    fn bad_inline(&mut self, at: Span, message: String, help: &str) {
        self.report.error(Code::BadInline, at, message).help = Some(help.to_owned());
    }
}

/// How many graphs lie in each other, this one included.
fn depth(graph: &Graph) -> usize {
    1 + graph.inlined().map(|(_, inside)| depth(inside)).max().unwrap_or(0)
}

/// The signals that a graph, and those inside it, wait for.
fn waits(graph: &Graph) -> Vec<&str> {
    let own = graph.nodes.values().flat_map(|node| match &node.work {
        Work::Wait { signal, .. } => signal.iter().map(String::as_str).collect(),
        Work::Inline { graph, .. } => waits(graph),
        Work::Uses { .. } | Work::Run { .. } | Work::Gate(_) => Vec::new(),
    });
    own.collect()
}

impl Loader<'_> {
    /// The graph of this name among the files that are loaded together.
    fn named(&self, name: &str) -> Option<Found> {
        let path = self.names.get(name)?;
        Some(match self.load(path) {
            None => Found::Checking,
            Some(loaded) => Found::Checked(loaded.ok()),
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}

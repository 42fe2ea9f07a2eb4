//! Graphs: built in, from directories that lie over them file by file, and what they use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};
use swarm_core::id::QueueName;
use swarm_graph::check::{self, Files, Sources};
use swarm_graph::defect::Defects;
use swarm_graph::graph::{Graph, Work};
use swarm_graph::library::Library;
use swarm_graph::registry::Registry;

use crate::config::Settings;
use crate::defaults;

/// Directories over the built-in graphs: a file of the first that has it hides all others.
#[derive(Clone, Debug)]
pub struct Layers {
    dirs: Vec<PathBuf>,
    built_in: BTreeMap<String, String>,
}

/// What a host's builder was given beside the shipped graphs.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// Directories, the last over all others.
    pub(super) dirs: Vec<PathBuf>,
    /// Texts that are part of the program, by path; the last over all others.
    pub(super) texts: Vec<(String, String)>,
}

impl Sources for Layers {
    fn read(&self, path: &str) -> Result<String, String> {
        for dir in &self.dirs {
            if dir.join(path).exists() {
                return Files::below(dir).read(path);
            }
        }
        self.built_in.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    }
}

impl Layers {
    /// The directory of the configuration, else `graphs` in the data directory; then those of
    /// the host's builder; then the graphs that are part of the program.
    pub(super) fn of(settings: &Settings, given: Given) -> Self {
        let kept = settings.data_dir.join("graphs");
        let first = settings.values.graphs.clone().or_else(|| kept.is_dir().then_some(kept));
        let shipped =
            defaults::GRAPHS.iter().map(|(path, text)| (path.to_string(), text.to_string()));
        Self {
            dirs: first.into_iter().chain(given.dirs.into_iter().rev()).collect(),
            built_in: shipped.chain(given.texts).collect(),
        }
    }

    /// The files that hold a graph; those without the key `graph` are only imported.
    #[must_use]
    pub fn graph_files(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.built_in.keys().cloned().collect();
        for dir in &self.dirs {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            names.extend(
                entries
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .filter(|name| name.ends_with(".yaml")),
            );
        }
        let holds_graph = |text: &str| text.lines().any(|line| line.starts_with("graph:"));
        names.retain(|name| self.read(name).map_or(true, |text| holds_graph(&text)));
        names.into_iter().collect()
    }

    /// Where a file is, for people.
    #[must_use]
    pub fn place(&self, path: &str) -> String {
        match self.dirs.iter().map(|dir| dir.join(path)).find(|path| path.exists()) {
            Some(path) => path.display().to_string(),
            None => format!("{path} (built in)"),
        }
    }

    /// Loads every graph, each held against the others that it starts runs of.
    #[must_use]
    pub fn load_each(
        &self,
        registry: &Registry,
    ) -> Vec<(String, std::result::Result<Graph, Box<Defects>>)> {
        let files = self.graph_files();
        let paths: Vec<&str> = files.iter().map(String::as_str).collect();
        let loaded = check::load_all(self, &paths, registry);
        let loaded = loaded.into_iter().map(|result| result.map_err(Box::new));
        files.iter().cloned().zip(loaded).collect()
    }

    /// Loads every graph.
    ///
    /// # Errors
    /// All defects of all graphs, at once.
    pub fn load(&self, registry: Registry) -> Result<Library> {
        let (mut graphs, mut defects) = (Vec::new(), Vec::new());
        for (file, result) in self.load_each(&registry) {
            match result {
                Ok(graph) => graphs.push(graph),
                Err(found) => defects.push(format!("{}:\n{found}", self.place(&file))),
            }
        }
        if !defects.is_empty() {
            bail!("graphs cannot be used\n\n{}", defects.join("\n\n"));
        }
        Ok(graphs.into_iter().fold(Library::new(registry), Library::with))
    }
}

/// The queues that graphs send runs to, and the one that issues come in by.
pub(super) fn queues(library: &Library) -> Vec<QueueName> {
    let mut queues: BTreeSet<QueueName> = ["default", "manager"]
        .map(|name| QueueName::new(name).expect("a word is a queue name"))
        .into();
    for name in library.names() {
        queues.extend(library.named(&name).iter().flat_map(|graph| queues_of(graph)));
    }
    queues.into_iter().collect()
}

fn queues_of(graph: &Graph) -> Vec<QueueName> {
    graph
        .nodes()
        .values()
        .flat_map(|node| match node.work() {
            Work::Run { queue, .. } => queue.iter().cloned().collect(),
            Work::Inline { graph, .. } => queues_of(graph),
            Work::Uses { .. } | Work::Wait { .. } | Work::Gate(_) => Vec::new(),
        })
        .collect()
}

//! The tools that a model may call in a workspace.
//!
//! Paths come from a model that has read untrusted text, so none is ever given to the operating
//! system whole: `tree` walks them name by name from one directory handle. What a model does
//! wrong is a [`ToolResult::error`] in words that help it; `Err` is for what it cannot mend.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::sandbox::{self, Sandbox};
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};
use thiserror::Error;

pub mod apply_patch;
pub mod control;
pub mod edit;
pub mod list;
pub mod read;
pub mod search;
pub mod shell;
mod text;
pub(crate) mod tree;
mod walk;
pub mod write;

use tree::Tree;

/// What the tools of a toolbox may do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look only: `read`, `list`, `search`.
    ReadOnly,
    /// Also `write`, `edit`, `apply_patch` and `shell`.
    ReadWrite,
}

/// How much one call may take in and give back, and with what.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest file that is read, searched, edited or written, in bytes.
    pub file_bytes: u64,
    /// The longest answer to the model, in bytes.
    pub output_bytes: usize,
    /// The most lines of a file that one `read` shows.
    pub read_lines: usize,
    /// The longest line shown, in characters; the rest of it is cut off.
    pub line_chars: usize,
    /// The most entries that one `list` shows.
    pub entries: usize,
    /// The most matches that one `search` shows.
    pub matches: usize,
    /// The most files that one `list` or `search` visits.
    pub visited: usize,
    /// What one `shell` command may use up; a model may ask for less time, never for more.
    pub shell: sandbox::Limits,
    /// Which package caches the `shell` commands share, such as the repository's name.
    pub cache: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 4 * 1024 * 1024,
            output_bytes: 48 * 1024,
            read_lines: 1500,
            line_chars: 1000,
            entries: 400,
            matches: 100,
            visited: 100_000,
            shell: sandbox::Limits { output_bytes: 24 * 1024, ..sandbox::Limits::default() },
            cache: sandbox::SHARED_CACHE.to_owned(),
        }
    }
}

/// Why a toolbox cannot be made.
#[derive(Debug, Error)]
pub enum Error {
    /// The workspace cannot be opened.
    #[error("cannot open the workspace `{path}`")]
    Root {
        /// The path as given.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A forbidden glob cannot be read.
    #[error("`{glob}` is not a glob")]
    Glob {
        /// The glob as given.
        glob: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
}

/// The tools of one workspace, by name.
#[derive(Clone)]
pub struct Toolbox {
    tools: Vec<(ToolSpec, Arc<dyn Tool>)>,
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Toolbox {
    /// Opens the workspace `root` once, symbolic links in its own path resolved, and makes the
    /// tools for it. Files that match one of the `forbidden` globs (paths from the root, `*`
    /// stays inside a directory, `**` crosses them) can be neither seen nor written; `.git` never
    /// can.
    ///
    /// # Errors
    /// When the root is not a directory that can be opened, or a glob is none.
    pub fn new(
        root: &Path,
        access: Access,
        sandbox: Arc<dyn Sandbox>,
        limits: Limits,
        forbidden: &[String],
    ) -> Result<Self, Error> {
        let tree = Arc::new(Tree::open(root, forbidden)?);
        let limits = Arc::new(limits);
        let mut tools: Vec<Arc<dyn Tool>> = vec![
            Arc::new(read::ReadTool::new(&tree, &limits)),
            Arc::new(list::ListTool::new(&tree, &limits)),
            Arc::new(search::SearchTool::new(&tree, &limits)),
        ];
        match access {
            Access::ReadOnly => {}
            Access::ReadWrite => tools.extend([
                Arc::new(write::WriteTool::new(&tree, &limits)) as Arc<dyn Tool>,
                Arc::new(edit::EditTool::new(&tree, &limits)),
                Arc::new(apply_patch::ApplyPatchTool::new(&tree, &limits)),
                Arc::new(shell::ShellTool::new(&tree, &limits, sandbox)),
            ]),
        }
        Ok(Self { tools: tools.into_iter().map(|tool| (tool.spec(), tool)).collect() })
    }

    /// How the tools present themselves to a model, in a fixed order. The control tools are not
    /// among them: see [`control`].
    #[must_use]
    pub fn specs(&self) -> Vec<ToolSpec> {
        self.tools.iter().map(|(spec, _)| spec.clone()).collect()
    }

    /// The tools' names, in the order of [`Self::specs`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|(spec, _)| spec.name.as_str())
    }

    /// The tool of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.tools.iter().find(|(spec, _)| spec.name == name).map(|(_, tool)| tool)
    }

    /// Runs one call as a model wrote it. A name that is not known and arguments that do not fit
    /// are errors for the model, as is all that it can do better.
    ///
    /// # Errors
    /// What the model can do nothing about: `sandbox_unavailable`, `io`, `cancelled`.
    pub async fn call(&self, name: &str, arguments: Value) -> Result<ToolResult, Failure> {
        if let Some(tool) = self.get(name) {
            return tool.call(arguments).await;
        }
        let names: Vec<&str> = self.names().collect();
        let mut words = format!("there is no tool `{name}`");
        if let Some(near) = nearest(name, names.iter().copied()) {
            let _ = write!(words, ", perhaps `{near}`");
        }
        let _ = write!(words, "; known: {}", names.join(", "));
        Ok(ToolResult::error(words))
    }
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// In words for the model, which can do better.
    Refused(String),
    /// Nothing that the model could mend.
    Failed(Failure),
}

impl From<String> for Trouble {
    fn from(words: String) -> Self {
        Self::Refused(words)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(Failure::retryable("io", format!("the workspace cannot be used: {error}")))
    }
}

/// A tool's presentation, the schema written from its argument type.
pub(crate) fn spec<A: JsonSchema>(name: &str, description: &str) -> ToolSpec {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>();
    schema.remove("title");
    schema.remove("description");
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        arguments: schema.to_value(),
    }
}

/// Reads the arguments and runs `work`, which may block, away from the async threads.
pub(crate) async fn blocking<A, F>(arguments: Value, work: F) -> Result<ToolResult, Failure>
where
    A: DeserializeOwned + Send + 'static,
    F: FnOnce(A) -> Result<String, Trouble> + Send + 'static,
{
    let arguments: A = match serde_json::from_value(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return Ok(ToolResult::error(format!("the arguments do not fit: {error}"))),
    };
    let done = tokio::task::spawn_blocking(move || work(arguments)).await;
    match done {
        Ok(Ok(text)) => Ok(ToolResult::ok(text)),
        Ok(Err(Trouble::Refused(words))) => Ok(ToolResult::error(words)),
        Ok(Err(Trouble::Failed(failure))) => Err(failure),
        Err(error) => Err(Failure::fatal("internal", format!("a tool broke off: {error}"))),
    }
}

/// The most similar of the known names, if one is similar at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .filter(|candidate| {
            // A slip or two of the fingers, or the same beginning.
            let slips = strsim::damerau_levenshtein(name, candidate);
            slips <= 1 + name.chars().count() / 4 || strsim::jaro_winkler(name, candidate) > 0.85
        })
        .max_by(|one, other| {
            strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other))
        })
}

//! `list`: what is in a directory, and below it.
//!
//! Ignored files are left out unless asked for, for they are most often many and never the task.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::tree::Tree;
use super::walk::{Entry, Next, Walk, What, shown};
use super::{Limits, Trouble};

/// The arguments of `list`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The directory, from the root of the workspace; the root itself when left out.
    #[serde(default)]
    pub path: Option<String>,
    /// How many levels to show; 2 when left out.
    #[serde(default)]
    pub depth: Option<usize>,
    /// Whether to show what the ignore files leave out.
    #[serde(default)]
    pub include_ignored: Option<bool>,
}

/// The tool `list`.
#[derive(Debug)]
pub struct ListTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
}

impl ListTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits) }
    }
}

#[async_trait]
impl Tool for ListTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<List>(
            "list",
            "Shows what is in a directory and below it, a path a line; directories end in `/`, \
             and those that are not entered say how much is in them. What the ignore files name \
             is left out.",
        )
    }

    fn mutates(&self) -> bool {
        false
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let (tree, limits) = (Arc::clone(&self.tree), Arc::clone(&self.limits));
        super::blocking(arguments, move |arguments| list(&tree, &limits, &arguments)).await
    }
}

fn list(tree: &Tree, limits: &Limits, arguments: &List) -> Result<String, Trouble> {
    let start = arguments.path.as_deref().unwrap_or(".");
    let depth_max = arguments.depth.unwrap_or(2).max(1);
    let mut out = String::new();
    let mut count = 0;
    let walk = Walk::new(tree, limits.visited, arguments.include_ignored == Some(true));
    let is_whole = walk.run(start, &mut |entry| {
        if count == limits.entries || out.len() >= limits.output_bytes {
            return Ok(Next::Stop);
        }
        count += 1;
        Ok(line(entry, depth_max, &mut out))
    })?;
    if count == 0 {
        return Ok(format!("`{start}` holds nothing that is not ignored"));
    }
    if !is_whole {
        let _ = write!(out, "(cut off after {count} entries: list a directory below it)");
    }
    Ok(out)
}

fn line(entry: &Entry<'_>, depth_max: usize, out: &mut String) -> Next {
    let path = shown(entry.path);
    let _ = match (entry.what, entry.name) {
        (What::Directory, _) if entry.depth >= depth_max => {
            let inside = entry
                .name
                .and_then(|name| super::tree::open_dir(entry.dir, name).ok())
                .and_then(|dir| dir.entries().ok())
                .map_or(0, Iterator::count);
            let _ = writeln!(out, "{path}/ ({inside} entries)");
            return Next::Over;
        }
        (What::Directory, _) => writeln!(out, "{path}/"),
        (What::File, Some(_)) => writeln!(out, "{path}"),
        (What::File, None) => writeln!(out, "{path} (its name is not UTF-8)"),
        (What::Link, name) => {
            let target = name.and_then(|name| entry.dir.read_link_contents(name).ok());
            let target = target.unwrap_or_default();
            writeln!(out, "{path} -> {}", shown(&target.to_string_lossy()))
        }
        (What::Other, _) => writeln!(out, "{path} (not a regular file)"),
    };
    Next::Into
}

//! `write`: a whole file, made or replaced.
//!
//! The new file takes the place of the old in one step, and keeps its executable bit and its
//! line endings.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::text::Text;
use super::tree::Tree;
use super::{Limits, Trouble};

/// The permission bits of a new file.
pub(super) const NEW_MODE: u32 = 0o644;

/// The arguments of `write`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The file, from the root of the workspace. Directories on the way are made.
    pub path: String,
    /// The whole content of the file.
    pub content: String,
}

/// The tool `write`.
#[derive(Debug)]
pub struct WriteTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
}

impl WriteTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits) }
    }
}

#[async_trait]
impl Tool for WriteTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<Write>(
            "write",
            "Makes a file or replaces all of it. For a change to a part of a file use `edit` or \
             `apply_patch`.",
        )
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let (tree, limits) = (Arc::clone(&self.tree), Arc::clone(&self.limits));
        super::blocking(arguments, move |arguments| write(&tree, &limits, &arguments)).await
    }
}

fn write(tree: &Tree, limits: &Limits, arguments: &Write) -> Result<String, Trouble> {
    check_content(&arguments.content, limits)?;
    let place = tree.place(&arguments.path)?;
    let old = place.read(limits.file_bytes)?;
    let mode = old.as_ref().map_or(NEW_MODE, |file| file.mode);
    let was_there = old.is_some();
    let old_text = old.and_then(|file| Text::decode(&place.path, file.bytes).ok());
    let content = match &old_text {
        Some(text) => text.ended(&arguments.content),
        None => arguments.content.clone(),
    };
    place.write(content.as_bytes(), mode)?;
    let lines = arguments.content.lines().count();
    Ok(match (was_there, old_text) {
        (false, _) => format!("made {} ({lines} lines)", place.path),
        (true, Some(text)) => {
            let before = text.plain().lines().count();
            format!("replaced {} ({lines} lines, before {before})", place.path)
        }
        (true, None) => format!("replaced {} ({lines} lines, before binary)", place.path),
    })
}

/// Refuses content that no tool of ours could read again.
pub(super) fn check_content(content: &str, limits: &Limits) -> Result<(), Trouble> {
    if content.len() as u64 > limits.file_bytes {
        return Err(Trouble::Refused(format!(
            "the content is too large ({} bytes, at most {})",
            content.len(),
            limits.file_bytes
        )));
    }
    if content.contains('\0') {
        return Err(Trouble::Refused("the content has a NUL character".to_owned()));
    }
    Ok(())
}

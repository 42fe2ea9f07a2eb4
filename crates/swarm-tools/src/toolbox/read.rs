//! `read`: a file or some lines of it, numbered.
//!
//! The numbers are not part of the file: they are there to be named in the next call.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::text::{Text, cut_line};
use super::tree::Tree;
use super::{Limits, Trouble};

/// The arguments of `read`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The file, from the root of the workspace.
    pub path: String,
    /// The first line to show, from 1.
    #[serde(default)]
    pub start_line: Option<usize>,
    /// The last line to show.
    #[serde(default)]
    pub end_line: Option<usize>,
}

/// The tool `read`.
#[derive(Debug)]
pub struct ReadTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
}

impl ReadTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits) }
    }
}

#[async_trait]
impl Tool for ReadTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<Read>(
            "read",
            "Shows a text file, or some lines of it, each with its number and a tab before it. \
             Long files are shown in parts: the answer says how to go on.",
        )
    }

    fn mutates(&self) -> bool {
        false
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let (tree, limits) = (Arc::clone(&self.tree), Arc::clone(&self.limits));
        super::blocking(arguments, move |arguments| read(&tree, &limits, &arguments)).await
    }
}

fn read(tree: &Tree, limits: &Limits, arguments: &Read) -> Result<String, Trouble> {
    let file = tree.read(&arguments.path, limits.file_bytes)?;
    let path = &file.path;
    let text = Text::decode(path, file.bytes)?;
    if text.plain().is_empty() {
        return Ok(format!("{path} is empty"));
    }
    let lines: Vec<&str> = text.plain().lines().collect();
    let first = arguments.start_line.unwrap_or(1).max(1);
    let last = arguments.end_line.unwrap_or(lines.len()).min(lines.len());
    if first > lines.len() {
        return Err(Trouble::Refused(format!(
            "`{path}` has {} lines; there is no line {first}",
            lines.len()
        )));
    }
    if last < first {
        return Err(Trouble::Refused(format!(
            "the last line ({last}) is before the first ({first})"
        )));
    }
    let mut body = String::new();
    let mut shown = 0;
    for (index, line) in lines[first - 1..last].iter().enumerate() {
        if shown == limits.read_lines || body.len() >= limits.output_bytes {
            break;
        }
        let _ = writeln!(body, "{:>6}\t{}", first + index, cut_line(line, limits.line_chars));
        shown += 1;
    }
    let until = first + shown - 1;
    let mut head = format!("{path}: lines {first} to {until} of {}", lines.len());
    if text.is_crlf() {
        head += ", line endings CRLF (kept by the editing tools)";
    }
    if !text.plain().ends_with('\n') && until == lines.len() {
        head += ", no newline at the end";
    }
    if until < last {
        let _ = write!(body, "({} more lines: go on with start_line {})", last - until, until + 1);
    }
    Ok(format!("{head}\n{body}"))
}

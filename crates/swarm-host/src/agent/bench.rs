//! What a conversation works on: tools, and a tree that can be taken out and put back.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::model::Message;
use swarm_core::port::sandbox::Sandbox;
use swarm_core::port::tool::{ToolResult, ToolSpec};
use swarm_tools::git::TreeId;
use swarm_tools::toolbox::{self, Access, Toolbox};

use super::clip;
use crate::dev::desk::OpenDesk;

/// What a conversation works on. The loop calls only tools of [`specs`](Self::specs), with
/// arguments that satisfy their schemas.
#[async_trait]
pub trait Bench: Send + Sync {
    /// How the tools present themselves.
    fn specs(&self) -> Vec<ToolSpec>;

    /// Whether a call of the tool may change the tree.
    fn mutates(&self, tool: &str) -> bool;

    /// Runs one call.
    async fn call(&self, tool: &str, arguments: Value) -> Result<ToolResult, Failure>;

    /// The tree as it is now, kept for as long as the run may need it.
    async fn capture(&self) -> Result<TreeId, Failure>;

    /// Makes the tree equal a captured one.
    async fn restore(&self, tree: &TreeId) -> Result<(), Failure>;
}

/// The tools of a workspace.
#[derive(Debug)]
pub struct TreeBench {
    desk: OpenDesk,
    toolbox: Toolbox,
}

impl TreeBench {
    /// Opens the tools of a desk's workspace, which must have been put in place.
    ///
    /// # Errors
    /// A fatal failure of class `workspace` when it cannot be opened.
    pub fn open(
        desk: OpenDesk,
        access: Access,
        sandbox: Arc<dyn Sandbox>,
        limits: toolbox::Limits,
        forbidden: &[String],
    ) -> Result<Self, Failure> {
        let toolbox = Toolbox::new(&desk.path(), access, sandbox, limits, forbidden)
            .map_err(|error| Failure::fatal("workspace", error.to_string()))?;
        Ok(Self { desk, toolbox })
    }
}

#[async_trait]
impl Bench for TreeBench {
    fn specs(&self) -> Vec<ToolSpec> {
        self.toolbox.specs()
    }

    fn mutates(&self, tool: &str) -> bool {
        self.toolbox.get(tool).is_none_or(|tool| tool.mutates())
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<ToolResult, Failure> {
        self.toolbox.call(tool, arguments).await
    }

    async fn capture(&self) -> Result<TreeId, Failure> {
        self.desk.capture().await
    }

    async fn restore(&self, tree: &TreeId) -> Result<(), Failure> {
        self.desk.put(tree).await
    }
}

/// A call in a few words, for people who watch: the arguments that say most.
pub(super) fn summary(tool: &str, arguments: &Value) -> String {
    let said = ["command", "path", "pattern", "query"]
        .iter()
        .find_map(|key| arguments.get(key).filter(|value| !value.is_null()));
    let said = match said {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) => {
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    clip(format!("{tool} {line}").trim_end(), 160)
}

/// The end of a conversation, for whoever must decide whether it goes on.
pub(super) fn last_words(messages: &[Message]) -> Vec<String> {
    let last = messages.len().saturating_sub(4);
    messages[last..]
        .iter()
        .map(|message| match message {
            Message::User { text } => format!("host: {}", clip(text, 400)),
            Message::Tool { text, .. } => format!("tool: {}", clip(text, 400)),
            Message::Assistant { text, tool_calls, .. } => {
                let calls: Vec<String> =
                    tool_calls.iter().map(|call| summary(&call.name, &call.arguments)).collect();
                format!("model: {} [{}]", clip(text, 400), calls.join(", "))
            }
        })
        .collect()
}

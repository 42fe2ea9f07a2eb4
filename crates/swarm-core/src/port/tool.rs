//! Tools: outside abilities that a model may call.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a tool presents itself to a model.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ToolSpec {
    /// Its name, `[a-z_]+`.
    pub name: String,
    /// What it does and when to use it, for the model.
    pub description: String,
    /// The JSON schema of its arguments.
    pub arguments: Value,
}

/// What a tool call gave back to the model.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ToolResult {
    /// The text the model reads. Untrusted: it may quote the repository.
    pub text: String,
    /// Whether the call failed; the text then says why and what would be right.
    pub is_error: bool,
}

impl ToolResult {
    /// A result.
    #[must_use]
    pub fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false }
    }

    /// A refusal or a failure, in words that help the model to do better.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: true }
    }
}

/// One outside ability. A failure that the model can mend is a [`ToolResult::error`];
/// `Err` is for what the model can do nothing about.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// How it presents itself.
    fn spec(&self) -> ToolSpec;

    /// Whether a call may change the workspace.
    fn mutates(&self) -> bool;

    /// Runs one call. `arguments` satisfy the schema.
    async fn call(&self, arguments: Value) -> Result<ToolResult, crate::failure::Failure>;
}

//! Models: one turn of a conversation, with tools, structure, usage and price.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::port::tool::ToolSpec;
use crate::spend::{Spend, UsdMicros};

/// One message of a conversation.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum Message {
    /// What the host or a person says. Untrusted text in it is quoted as data.
    User {
        /// The text.
        text: String,
    },
    /// What the model said.
    Assistant {
        /// Its words; may be empty when it only calls tools.
        text: String,
        /// The tools it calls.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
        /// Its reasoning, to be given back as it came ([`ChatTurn::message`] does).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thoughts: Option<Thoughts>,
    },
    /// What one tool call gave back.
    Tool {
        /// The id of the call.
        call: String,
        /// The text.
        text: String,
        /// Whether the call failed.
        #[serde(default)]
        is_error: bool,
    },
}

/// Reasoning that a provider wants back in the next request of the same conversation, or it
/// refuses to go on after a tool call. Ours to carry, not to read: only the model that thought it
/// is given it back.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Thoughts {
    /// The model that thought, as `provider:name`.
    pub model: String,
    /// The pieces, in order.
    pub pieces: Vec<Thought>,
}

/// One piece of reasoning.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Thought {
    /// In words.
    Plain {
        /// The words.
        text: String,
    },
    /// In words, with the provider's signature over them.
    Signed {
        /// The words; may be empty.
        text: String,
        /// The signature.
        signature: String,
    },
    /// In a form that only the provider reads.
    Sealed {
        /// The provider's block, verbatim.
        block: Value,
    },
}

/// A tool call as the model wrote it, not yet checked.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ToolCall {
    /// The id that the result must carry.
    pub id: String,
    /// The tool's name, which may not exist.
    pub name: String,
    /// The arguments; a string when the model's text was not JSON.
    pub arguments: Value,
}

/// A request for one turn.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The system prompt.
    pub system: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// The tools it may call.
    #[serde(default)]
    pub tools: Vec<ToolSpec>,
    /// The JSON schema that the answer's text must satisfy, if it must.
    #[serde(default)]
    pub answer_schema: Option<Value>,
    /// The most tokens to answer with.
    pub tokens_max: u32,
    /// Who asks, for logs, records and prices: `dev`, `reviewer`, `manager`.
    pub role: String,
    /// Which conversation this is, by a name that the caller makes from what stays the same when
    /// the same work is done again: role, node, task and visit, as in `dev/implement#1` or
    /// `dev/fix-parser/implement#1`. Never from run ids, moments or paths.
    ///
    /// Together with the number of assistant messages ([`ChatRequest::turn`]) it is what a recorded
    /// turn is found by, so two conversations that may differ need two names; one that is
    /// shortened or started over goes on under a new name.
    #[serde(default)]
    pub conversation: String,
}

impl ChatRequest {
    /// Which turn of the conversation is asked for, from 0: the assistant messages so far.
    #[must_use]
    pub fn turn(&self) -> u32 {
        let said = self.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        u32::try_from(said).unwrap_or(u32::MAX)
    }
}

/// Tokens used, as the provider counted them; estimated from sizes when it counted nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input: u64,
    /// Those of the input that the provider had cached.
    #[serde(default)]
    pub cached: u64,
    /// Tokens written, reasoning included.
    pub output: u64,
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It was done.
    End,
    /// It wants tools.
    Tools,
    /// The token limit cut it off.
    Length,
    /// A content filter cut it off.
    Filter,
}

/// One turn.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ChatTurn {
    /// Its words.
    pub text: String,
    /// The tools it calls.
    #[serde(default)]
    pub tool_calls: Vec<ToolCall>,
    /// Its reasoning, for the next request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thoughts: Option<Thoughts>,
    /// Why it stopped.
    pub stop: Stop,
    /// Tokens used.
    pub usage: Usage,
    /// What the turn costs by the configured price; zero when none is configured.
    pub usd: UsdMicros,
    /// Which model answered, as `provider:name`.
    pub model: String,
}

impl ChatTurn {
    /// The turn as a message of the conversation that goes on.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::Assistant {
            text: self.text.clone(),
            tool_calls: self.tool_calls.clone(),
            thoughts: self.thoughts.clone(),
        }
    }

    /// What the turn spends of a budget.
    #[must_use]
    pub fn spend(&self) -> Spend {
        Spend { usd: self.usd, tokens: self.usage.input + self.usage.output }
    }
}

/// What kind of failure, which decides what helps.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// No key, or a wrong one: a person is needed.
    Auth,
    /// No money left at the provider: a person is needed.
    Quota,
    /// Too many requests: wait.
    RateLimit,
    /// The provider is overloaded or failed (5xx): wait.
    Server,
    /// The connection failed or was cut: try again.
    Connection,
    /// No answer in time: try again.
    Timeout,
    /// The conversation does not fit the model.
    ContextLength,
    /// The provider refuses the request as it is.
    Invalid,
    /// The answer cannot be read as the wire format.
    Garbled,
    /// A replayed recording holds no answer for this request.
    NotRecorded,
}

/// A turn that did not come.
#[derive(Clone, Debug, Error)]
#[error("model `{model}`: {message}")]
pub struct Error {
    /// What kind of failure.
    pub class: ErrorClass,
    /// Which model was asked.
    pub model: String,
    /// What happened, without secrets.
    pub message: String,
    /// How long the provider asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Whether the same request may succeed later without anyone's help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.class {
            ErrorClass::RateLimit
            | ErrorClass::Server
            | ErrorClass::Connection
            | ErrorClass::Timeout
            | ErrorClass::Garbled => true,
            ErrorClass::Auth
            | ErrorClass::Quota
            | ErrorClass::ContextLength
            | ErrorClass::Invalid
            | ErrorClass::NotRecorded => false,
        }
    }
}

/// Hears a turn while it is being written.
pub trait TurnListener: Send + Sync {
    /// The next piece of text.
    fn text(&self, piece: &str);

    /// The call failed and will be tried again after `wait`, perhaps on a fallback model;
    /// `attempt` is the one that failed and counts from 1. The pieces heard so far are void.
    fn retrying(&self, attempt: u32, wait: Duration, error: &Error);
}

/// Hears nothing.
impl TurnListener for () {
    fn text(&self, _: &str) {}
    fn retrying(&self, _: u32, _: Duration, _: &Error) {}
}

/// Asks a model.
#[async_trait]
pub trait ChatModel: Send + Sync + 'static {
    /// What a request may cost at the most, to reserve before it is sent.
    fn estimate(&self, request: &ChatRequest) -> Spend;

    /// One turn, retried inside as its error class allows. Only a whole turn is returned: a cut
    /// stream is an error.
    async fn chat(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error>;
}

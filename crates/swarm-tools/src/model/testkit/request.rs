//! A request as it came over the wire, with the questions that scripts and assertions ask of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// Which wire format a request speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wire {
    /// `POST …/chat/completions`.
    OpenAi,
    /// `POST …/messages`.
    Anthropic,
}

/// One request that the server received.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// Its number, from 0.
    pub nth: usize,
    /// Its wire format.
    pub wire: Wire,
    /// The HTTP method.
    pub method: String,
    /// The path and, if any, the query.
    pub path: String,
    /// The headers, with lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The body; null when it is not JSON.
    pub body: Value,
    /// How long after the server's start it came.
    pub at: Duration,
}

impl WireRequest {
    /// The model's name.
    #[must_use]
    pub fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }

    /// The key that the client showed, if any.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        let bearer =
            self.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        bearer.or_else(|| self.headers.get("x-api-key").map(String::as_str))
    }

    /// Whether the client wants a stream.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.body["stream"].as_bool().unwrap_or(false)
    }

    /// The system prompt.
    #[must_use]
    pub fn system(&self) -> String {
        match self.wire {
            Wire::Anthropic => text_of(&self.body["system"]),
            Wire::OpenAi => self
                .messages()
                .iter()
                .filter(|message| message["role"] == "system")
                .map(|message| text_of(&message["content"]))
                .collect::<Vec<_>>()
                .join("\n\n"),
        }
    }

    /// The messages as sent.
    #[must_use]
    pub fn messages(&self) -> &[Value] {
        self.body["messages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The text of the last message, be it a person's or a tool's.
    #[must_use]
    pub fn last_message(&self) -> String {
        self.messages().last().map(|message| text_of(&message["content"])).unwrap_or_default()
    }

    /// How many assistant messages it holds: which turn of its conversation is asked for, from 0.
    #[must_use]
    pub fn turn(&self) -> usize {
        self.messages().iter().filter(|message| message["role"] == "assistant").count()
    }

    /// The names of the tools that it offers.
    #[must_use]
    pub fn tools(&self) -> Vec<&str> {
        let tools = self.body["tools"].as_array().map_or(&[][..], Vec::as_slice);
        tools
            .iter()
            .filter_map(|tool| match self.wire {
                Wire::OpenAi => tool["function"]["name"].as_str(),
                Wire::Anthropic => tool["name"].as_str(),
            })
            .collect()
    }

    /// The JSON schema that it demands of the answer, if any.
    #[must_use]
    pub fn answer_schema(&self) -> Option<&Value> {
        match self.wire {
            Wire::OpenAi => self.body.pointer("/response_format/json_schema/schema"),
            Wire::Anthropic => self.body.pointer("/output_config/format/schema"),
        }
    }
}

/// The text of a content field: a string, or blocks that hold text or tool results.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .map(|block| match block["type"].as_str() {
                Some("tool_result") => text_of(&block["content"]),
                _ => block["text"].as_str().unwrap_or_default().to_owned(),
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

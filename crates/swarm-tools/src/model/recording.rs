//! Recorded turns: the file, its form, and how a turn is found in it.
//!
//! A recording is YAML, one document a turn, so that people can read, edit and compare it. A turn
//! is found by its [`Key`] alone: who asks, in which conversation, for which turn of it. No
//! position is kept between requests, so a run that is killed and resumed finds the same turn
//! again, and none of the prompts' words matter, so prompts may be edited without a new recording.
//!
//! ```yaml
//! ---
//! role: dev
//! conversation: dev/implement#1
//! turn: 0
//! text: I will look at the parser first.
//! tool_calls:
//! - id: call_1
//!   name: read_file
//!   arguments:
//!     path: src/parser.rs
//! ```
//!
//! That is all a hand-written turn needs. What is recorded also has the model, its usage and cost,
//! and the digest of the request: when a key was recorded more than once, the turn whose digest
//! fits is taken, else the one recorded last.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use swarm_core::port::model::{ChatRequest, ChatTurn, Stop, Thoughts, ToolCall, Usage};
use swarm_core::spend::UsdMicros;
use thiserror::Error;

/// What a recorded turn is found by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    /// Who asks.
    pub role: String,
    /// In which conversation; see [`ChatRequest::conversation`].
    pub conversation: String,
    /// For which turn, from 0.
    pub turn: u32,
}

impl Key {
    /// The key of the turn that a request asks for.
    #[must_use]
    pub fn of(request: &ChatRequest) -> Self {
        Self {
            role: request.role.clone(),
            conversation: request.conversation.clone(),
            turn: request.turn(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn {} of `{}` for role `{}`", self.turn, self.conversation, self.role)
    }
}

/// One document of a recording.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedTurn {
    /// Who asked.
    pub role: String,
    /// In which conversation.
    pub conversation: String,
    /// For which turn, from 0.
    pub turn: u32,
    /// The digest of the request, as [`digest`] makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Which model answered.
    #[serde(default = "recorded")]
    pub model: String,
    /// Why it stopped; when absent, for its tool calls or because it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Tokens used.
    #[serde(default)]
    pub usage: Usage,
    /// What it cost, in millionths of a dollar.
    #[serde(default)]
    pub usd_micros: UsdMicros,
    /// Its reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thoughts: Option<Thoughts>,
    /// Its words.
    #[serde(default)]
    pub text: String,
    /// The tools it called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

fn recorded() -> String {
    "recorded".to_owned()
}

impl RecordedTurn {
    /// The document for a turn that answered a request.
    #[must_use]
    pub fn of(request: &ChatRequest, turn: &ChatTurn) -> Self {
        let Key { role, conversation, turn: number } = Key::of(request);
        Self {
            role,
            conversation,
            turn: number,
            digest: Some(digest(request)),
            model: turn.model.clone(),
            stop: Some(turn.stop),
            usage: turn.usage,
            usd_micros: turn.usd,
            thoughts: turn.thoughts.clone(),
            text: turn.text.clone(),
            tool_calls: turn.tool_calls.clone(),
        }
    }

    /// What it is found by.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { role: self.role.clone(), conversation: self.conversation.clone(), turn: self.turn }
    }

    /// The turn as it was.
    #[must_use]
    pub fn turn(&self) -> ChatTurn {
        let calls = !self.tool_calls.is_empty();
        ChatTurn {
            text: self.text.clone(),
            tool_calls: self.tool_calls.clone(),
            thoughts: self.thoughts.clone(),
            stop: self.stop.unwrap_or(if calls { Stop::Tools } else { Stop::End }),
            usage: self.usage,
            usd: self.usd_micros,
            model: self.model.clone(),
        }
    }

    /// The document as text, from its `---` to its last line break.
    ///
    /// # Errors
    /// [`Unwritable`] when no form of it reads back as the same turn.
    pub fn to_document(&self) -> Result<String, Unwritable> {
        let yaml = serde_yaml::to_string(self).ok().map(|text| document(&text));
        // JSON is YAML, ugly but exact: for texts that block scalars cannot hold.
        let json = serde_json::to_string(self).ok().map(|text| document(&text));
        yaml.into_iter()
            .chain(json)
            .find(|text| self.is_read_from(text))
            .ok_or_else(|| Unwritable(self.key()))
    }

    fn is_read_from(&self, document: &str) -> bool {
        parse(document).is_ok_and(|turns| turns.as_slice() == std::slice::from_ref(self))
    }
}

fn document(text: &str) -> String {
    format!("---\n{}\n", text.strip_suffix('\n').unwrap_or(text))
}

/// A turn that cannot be written so that it reads back the same.
#[derive(Debug, Eq, Error, PartialEq)]
#[error("{0} cannot be written as YAML")]
pub struct Unwritable(pub Key);

/// A recording that cannot be read.
#[derive(Debug, Error)]
#[error("recording `{name}`: {message}")]
pub struct Unreadable {
    /// The recording's name, most often its path.
    pub name: String,
    /// What is wrong and where.
    pub message: String,
}

/// The digest of what a request says: its prompt, messages, tools and schema, in an order of keys
/// that does not depend on how they were made.
#[must_use]
pub fn digest(request: &ChatRequest) -> String {
    let said = serde_json::json!({
        "system": request.system,
        "messages": request.messages,
        "tools": request.tools,
        "answer_schema": request.answer_schema,
    });
    hex::encode(&Sha256::digest(canonical(&said).to_string().as_bytes())[..16])
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            Value::Object(
                sorted.into_iter().map(|(name, value)| (name.clone(), canonical(value))).collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// All turns of a recording, by key.
#[derive(Debug, Default)]
pub struct Recording {
    turns: HashMap<Key, Vec<RecordedTurn>>,
}

impl Recording {
    /// Reads a recording; `name` is for errors.
    ///
    /// # Errors
    /// [`Unreadable`] with the place of the first defect.
    pub fn read(name: &str, text: &str) -> Result<Self, Unreadable> {
        let unreadable = |message: String| Unreadable { name: name.to_owned(), message };
        let mut turns: HashMap<Key, Vec<RecordedTurn>> = HashMap::new();
        for turn in parse(text).map_err(unreadable)? {
            turns.entry(turn.key()).or_default().push(turn);
        }
        Ok(Self { turns })
    }

    /// The turns recorded under a key, in the order of the file.
    #[must_use]
    pub fn turns(&self, key: &Key) -> &[RecordedTurn] {
        self.turns.get(key).map_or(&[], Vec::as_slice)
    }

    /// What comes nearest to a key that is missing, for people.
    #[must_use]
    pub fn nearest(&self, key: &Key) -> String {
        let mut conversations: HashMap<(&str, &str), Vec<u32>> = HashMap::new();
        for known in self.turns.keys() {
            conversations.entry((&known.role, &known.conversation)).or_default().push(known.turn);
        }
        let wanted = format!("{} {}", key.role, key.conversation);
        let likeness = |role: &str, conversation: &str| {
            strsim::jaro_winkler(&wanted, &format!("{role} {conversation}"))
        };
        let mut ranked: Vec<_> = conversations.into_iter().collect();
        ranked.sort_by(|((role_a, a), _), ((role_b, b), _)| {
            likeness(role_b, b).total_cmp(&likeness(role_a, a)).then(a.cmp(b))
        });
        let near: Vec<String> = ranked
            .into_iter()
            .take(3)
            .map(|((role, conversation), mut turns)| {
                turns.sort_unstable();
                let last = turns.last().copied().unwrap_or_default();
                format!("`{conversation}` for role `{role}` up to turn {last}")
            })
            .collect();
        if near.is_empty() { "nothing at all".to_owned() } else { near.join(", ") }
    }
}

/// Reads the documents. Recordings are large and trusted: the parser's budget against bombs does
/// not apply, its other rules do.
fn parse(text: &str) -> Result<Vec<RecordedTurn>, String> {
    let options = serde_yaml::options! { budget: None };
    serde_yaml::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

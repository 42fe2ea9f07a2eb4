//! Questions to people: what a run asks, the durable block it leaves, and the words they read.
//!
//! An [`Ask`] is what a node wants to know. Stored, it becomes a [`Block`] with an id of its own;
//! one answer closes it, by compare-and-set. [`render`] writes it in the escalation template.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{BlockId, RunId, StepId};
use crate::time::Timestamp;

/// Why a person is needed.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A secret or an account that only a person can give.
    MissingSecret,
    /// The change deletes or overwrites more than the policy allows unseen.
    DestructiveChange,
    /// Tests still fail after the allowed retries.
    TestsFailing,
    /// The issue can be read in more than one way.
    AmbiguousSpec,
    /// The budget would be exceeded.
    Budget,
    /// No sandbox of the required level is available.
    SandboxUnavailable,
    /// An effect may or may not have happened and cannot be probed.
    EffectInDoubt,
    /// The model's answers stayed unusable after the bounded number of corrections.
    ModelUnusable,
    /// A merge needs a person's explicit approval.
    Approval,
    /// A decision that the graph leaves to a person.
    Decision,
}

impl Reason {
    /// The reason in words, for headings.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::MissingSecret => "Missing secret",
            Self::DestructiveChange => "Destructive change",
            Self::TestsFailing => "Tests keep failing",
            Self::AmbiguousSpec => "Ambiguous specification",
            Self::Budget => "Budget exceeded",
            Self::SandboxUnavailable => "Sandbox unavailable",
            Self::EffectInDoubt => "Effect in doubt",
            Self::ModelUnusable => "Model answers unusable",
            Self::Approval => "Approval needed",
            Self::Decision => "Decision needed",
        }
    }
}

/// One thing that a person is asked to bring.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Request {
    /// A secret or an account.
    Secret {
        /// The name the repository knows it by.
        name: String,
        /// Where to create it: a console or URL.
        create_at: String,
        /// The exact scopes it needs.
        scopes: Vec<String>,
        /// Where to paste it.
        paste_into: String,
    },
    /// A permission to grant.
    Permission {
        /// Which permission.
        permission: String,
        /// To which app, token or program.
        to: String,
    },
    /// An approval or a policy decision.
    Decision {
        /// The question, whole.
        question: String,
        /// The answers it can have, as values of the answer's `choice`.
        choices: Vec<String>,
    },
    /// Free text.
    Text {
        /// The question, whole.
        question: String,
    },
}

/// What a node or a gate asks.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Why a person is needed.
    pub reason: Reason,
    /// The question in a sentence or two.
    pub question: String,
    /// What the person is asked to bring.
    #[serde(default)]
    pub requested_input: Vec<Request>,
    /// The JSON schema that an answer must satisfy.
    pub answer_schema: Value,
    /// Facts that help to decide: a diff summary, failing tests, the head commit.
    #[serde(default)]
    pub context: Value,
}

impl Ask {
    /// A question whose answer is `{choice, comment?}` with one of `choices`.
    #[must_use]
    pub fn choice(reason: Reason, question: impl Into<String>, choices: &[&str]) -> Self {
        let question = question.into();
        let choices: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
        Self {
            reason,
            answer_schema: serde_json::json!({
                "type": "object",
                "properties": {
                    "choice": { "type": "string", "enum": choices },
                    "comment": { "type": "string" }
                },
                "required": ["choice"],
                "additionalProperties": false
            }),
            requested_input: vec![Request::Decision { question: question.clone(), choices }],
            question,
            context: Value::Null,
        }
    }

    /// The same question with facts that help to decide.
    #[must_use]
    pub fn with_context(mut self, context: Value) -> Self {
        self.context = context;
        self
    }
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockStatus {
    /// Waits for its answer.
    Open,
    /// Answered, once and for good.
    Answered,
    /// Its run ended, or no longer needs the answer.
    Withdrawn,
}

/// Who answered, as the way in established it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Answerer {
    /// The person's login.
    pub login: String,
    /// The way in: `cli`, `api`, `page`, `chatkit`, `github`.
    pub via: String,
    /// The permission that was checked: `admin`, `write`.
    pub permission: String,
}

/// A durable question, as stored.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Block {
    /// Its own id, derived from the run and the step that asked.
    pub id: BlockId,
    /// The run that asks.
    pub run: RunId,
    /// The step that asks.
    pub step: StepId,
    /// What is asked.
    pub ask: Ask,
    /// Where it stands.
    pub status: BlockStatus,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When to remind, if nobody has answered.
    pub remind_at: Option<Timestamp>,
    /// The answer, once given.
    pub answer: Option<Value>,
    /// Who gave it.
    pub answered_by: Option<Answerer>,
    /// When it was given.
    pub answered_at: Option<Timestamp>,
}

impl Block {
    /// A question just asked, with no reminder.
    #[must_use]
    pub fn open(id: BlockId, run: RunId, step: StepId, ask: Ask, asked_at: Timestamp) -> Self {
        Self {
            id,
            run,
            step,
            ask,
            status: BlockStatus::Open,
            asked_at,
            remind_at: None,
            answer: None,
            answered_by: None,
            answered_at: None,
        }
    }
}

/// A block in the words that people read, as Markdown. `subject` names the issue or the run.
#[must_use]
pub fn render(block: &Block, subject: &str) -> String {
    let mut text = String::new();
    let ask = &block.ask;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "> **🛑 Escalation: {}**", ask.reason.title());
    let _ = writeln!(text, "> **Run/Issue:** {} (run {})", one_line(subject), block.run);
    let _ = writeln!(text, "> **What happened:** {}", quoted(&ask.question));
    let _ = writeln!(text, "> **What I need from you:**");
    for (index, request) in ask.requested_input.iter().enumerate() {
        let line = match request {
            // What happened has just been said: once is enough.
            Request::Decision { question, choices } if *question == ask.question => {
                format!("Decision → Choose one of: {}.", choices.join(", "))
            }
            Request::Text { question } if *question == ask.question => {
                "Answer → A text that answers this.".to_owned()
            }
            Request::Decision { .. }
            | Request::Text { .. }
            | Request::Secret { .. }
            | Request::Permission { .. } => request_line(request),
        };
        let _ = writeln!(text, "> {}) {line}", index + 1);
    }
    let _ = writeln!(
        text,
        "> **I will resume automatically** after you complete the checklist and comment \
         \"UNBLOCK #{id}\" (or add the `unblocked` label); where issues live on this machine alone, \
         run `swarm-host answer '{id}'` instead. Workers stay reserved until then.",
        id = block.id
    );
    text
}

/// One thing that a person is asked to bring, in a line of Markdown.
#[must_use]
pub fn request_line(request: &Request) -> String {
    match request {
        Request::Secret { name, create_at, scopes, paste_into } => format!(
            "Secret `{name}` → Where to create it: {create_at}, **exact scopes**: {}, and where to paste it: {paste_into}.",
            if scopes.is_empty() { "none".to_owned() } else { scopes.join(", ") }
        ),
        Request::Permission { permission, to } => {
            format!("Permission → Grant {permission} to {to}.")
        }
        Request::Decision { question, choices } => {
            format!("Decision → {} Choose one of: {}.", quoted(question), choices.join(", "))
        }
        Request::Text { question } => format!("Answer → {}", quoted(question)),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Keeps every line of a longer text inside the quote.
fn quoted(text: &str) -> String {
    text.trim().replace('\n', "\n> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escalation_says_its_question_once() {
        let mut ask = Ask::choice(Reason::TestsFailing, "Tests fail.", &["retry", "stop"]);
        ask.requested_input.insert(
            0,
            Request::Permission { permission: "push".to_owned(), to: "the bot".to_owned() },
        );
        let block = Block {
            id: BlockId::new("r.n#1").unwrap(),
            run: RunId::new("r").unwrap(),
            step: StepId::new("n#1").unwrap(),
            ask,
            status: BlockStatus::Open,
            asked_at: Timestamp(0),
            remind_at: None,
            answer: None,
            answered_by: None,
            answered_at: None,
        };
        let expected = "\
> **🛑 Escalation: Tests keep failing**
> **Run/Issue:** #1 A title (run r)
> **What happened:** Tests fail.
> **What I need from you:**
> 1) Permission → Grant push to the bot.
> 2) Decision → Choose one of: retry, stop.
> **I will resume automatically** after you complete the checklist and comment \"UNBLOCK #r.n#1\" \
(or add the `unblocked` label); where issues live on this machine alone, run `swarm-host answer \
'r.n#1'` instead. Workers stay reserved until then.
";
        assert_eq!(render(&block, "#1 A\ntitle"), expected);
    }
}

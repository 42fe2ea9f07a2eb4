//! The two calls that end or interrupt an agent's loop: `finish` and `ask`.
//!
//! They are presented to the model like tools but are none: the loop takes them out of a turn
//! before the toolbox sees it, so nothing here runs anything.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::escalation::{Reason, Request};
use swarm_core::port::tool::ToolSpec;

/// The name of the call that says the work is done.
pub const FINISH: &str = "finish";

/// The name of the call that asks a person.
pub const ASK: &str = "ask";

/// The arguments of `finish`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// What was done and why, in a few sentences, for the people who review the change.
    pub summary: String,
    /// The first line of the commit message: imperative, at most 72 characters, no full stop.
    pub commit_title: String,
    /// The rest of the commit message: why the change is needed and what is worth knowing.
    #[serde(default)]
    pub commit_body: String,
}

/// The arguments of `ask`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AskPerson {
    /// Why a person is needed.
    pub reason: AskReason,
    /// The question, whole, in a sentence or two. The person has not seen the conversation.
    pub question: String,
    /// What the person is asked to bring; leave it empty for a question that is answered in words.
    #[serde(default)]
    pub requested_input: Vec<Request>,
}

/// The reasons that a model may give. The others are the host's to find.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AskReason {
    /// The task can be read in more than one way, and the readings lead to different changes.
    AmbiguousSpec,
    /// A secret or an account is needed that only a person can give.
    MissingSecret,
    /// The task needs something deleted or overwritten that cannot be had again.
    DestructiveChange,
    /// A decision that is not the agent's to take.
    Decision,
}

impl From<AskReason> for Reason {
    fn from(reason: AskReason) -> Self {
        match reason {
            AskReason::AmbiguousSpec => Self::AmbiguousSpec,
            AskReason::MissingSecret => Self::MissingSecret,
            AskReason::DestructiveChange => Self::DestructiveChange,
            AskReason::Decision => Self::Decision,
        }
    }
}

/// How `finish` presents itself.
#[must_use]
pub fn finish_spec() -> ToolSpec {
    super::spec::<Finish>(
        FINISH,
        "Says that the task is done. Call it once, alone, when the change is complete and its \
         tests pass. The repository's own tests are run after it; if they fail, you are told.",
    )
}

/// How `ask` presents itself.
#[must_use]
pub fn ask_spec() -> ToolSpec {
    super::spec::<AskPerson>(
        ASK,
        "Asks a person and waits for the answer, which may take hours. Call it alone, and only \
         when the task cannot be done well without the answer; what the repository can tell, \
         look up there.",
    )
}

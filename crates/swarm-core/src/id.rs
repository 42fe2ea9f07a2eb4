//! Newtypes for every id and name: parse and print, nothing else.
//!
//! Ids come in as arguments: nothing here makes one up. A child run's id is derived from its
//! parent ([`RunId::child`]), so that starting it twice starts it once.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest id or name, in bytes.
pub const ID_LEN_MAX: usize = 240;

/// A text that cannot serve as the id or name it was meant to be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct InvalidId {
    /// What the text was meant to be, such as `run id`.
    pub what: &'static str,
    /// The text as found, cut to 80 characters.
    pub text: String,
    /// What would be right.
    pub rule: &'static str,
}

const ID_RULE: &str = "write 1 to 240 characters out of A-Z a-z 0-9 . _ : # / @ $ + -";
const NAME_RULE: &str = "start with a letter, then letters, digits, `_` or `-`, at most 64";

fn is_id(text: &str) -> bool {
    (1..=ID_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:#/@$+-".contains(&byte))
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a text.
            ///
            /// # Errors
            /// [`InvalidId`] when the text breaks the rule that the error names.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                if $valid(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(InvalidId { what: $what, text, rule: $rule })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                (*name.0).to_owned()
            }
        }
    };
}

text_newtype!(
    /// One execution of a graph for one request.
    RunId, "run id", is_id, ID_RULE
);
text_newtype!(
    /// One durable question to a person.
    BlockId, "block id", is_id, ID_RULE
);
text_newtype!(
    /// A process that leases runs.
    WorkerId, "worker id", is_id, ID_RULE
);
text_newtype!(
    /// One activation of a node in a run, and inside a `foreach` one item of it:
    /// `implement#2`, `assign#1/0`. Stable over attempts, restarts and machines.
    StepId, "step id", is_id, ID_RULE
);
text_newtype!(
    /// The name of a graph.
    GraphName, "graph name", is_name, NAME_RULE
);
text_newtype!(
    /// The name of a node in a graph.
    NodeName, "node name", is_name, NAME_RULE
);
text_newtype!(
    /// The name of a channel: one field of a run's state.
    ChannelName, "channel name", is_name, NAME_RULE
);
text_newtype!(
    /// The name of a queue; workers of a role serve the queue of that name.
    QueueName, "queue name", is_name, NAME_RULE
);

impl RunId {
    /// The id of the run that `step` of this run starts. Deriving it makes the start idempotent.
    ///
    /// # Errors
    /// [`InvalidId`] when runs are nested so deep that the id would exceed [`ID_LEN_MAX`].
    pub fn child(&self, step: &StepId) -> Result<Self, InvalidId> {
        Self::new(format!("{self}.{step}"))
    }
}

impl StepId {
    /// The id of the `visit`-th activation (from 1) of `node`, and of one `foreach` item in it.
    #[must_use]
    pub fn of(node: &NodeName, visit: u32, item: Option<u32>) -> Self {
        Self(match item {
            None => format!("{node}#{visit}").into(),
            Some(item) => format!("{node}#{visit}/{item}").into(),
        })
    }
}

impl StepId {
    /// The step of one item of the loop whose step this is. It follows the loop's id and not the
    /// node's name, which another version of the graph may have changed.
    #[must_use]
    pub fn item(&self, item: u32) -> Self {
        Self(format!("{self}/{item}").into())
    }
}

/// The hash of a checked graph's text: what a run is pinned to.
#[derive(
    Clone, Debug, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GraphHash(pub Arc<str>);

impl fmt::Display for GraphHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_run_id_is_a_function_of_parent_and_step() {
        let step = StepId::of(&NodeName::new("assign").unwrap(), 2, Some(0));
        let child = RunId::new("20261123-084512-k3f9").unwrap().child(&step).unwrap();
        assert_eq!(child.as_str(), "20261123-084512-k3f9.assign#2/0");
    }

    #[test]
    fn a_name_with_a_space_is_refused_with_the_rule() {
        let error = NodeName::new("open pr").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`open pr` is not a node name: start with a letter, then letters, digits, `_` or `-`, at most 64"
        );
    }
}

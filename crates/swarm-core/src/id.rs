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
const PATH_RULE: &str = "start with a letter, then letters, digits, `_` or `-`, at most 64; a `/` leads \
                         into a graph that a node runs inline";

fn is_id(text: &str) -> bool {
    (1..=ID_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:#/@$+-".contains(&byte))
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn is_path(text: &str) -> bool {
    text.len() <= ID_LEN_MAX && text.split('/').all(is_name)
}

fn is_channel(text: &str) -> bool {
    match text.rsplit_once('/') {
        Some((frame, name)) => is_id(text) && !frame.is_empty() && is_name(name),
        None => is_name(text),
    }
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
    /// The name of a node in a graph. A node of a graph that runs inline has those of the nodes
    /// that it lies in before its own: `deliver/dev`.
    NodeName, "node name", is_path, PATH_RULE
);
text_newtype!(
    /// The name of a channel: one field of a run's state. A channel of a graph that runs inline
    /// has the step that it lies in before its own: `deliver#1/findings`.
    ChannelName, "channel name", is_channel, PATH_RULE
);
text_newtype!(
    /// The name of a queue; workers of a role serve the queue of that name.
    QueueName, "queue name", is_name, NAME_RULE
);

impl NodeName {
    /// The name of `node` inside the graph that this node runs inline.
    ///
    /// # Errors
    /// [`InvalidId`] when graphs lie in each other so deep that it would exceed [`ID_LEN_MAX`].
    pub fn inside(&self, node: &Self) -> Result<Self, InvalidId> {
        Self::new(format!("{self}/{node}"))
    }

    /// Its name in the graph that it lies in.
    #[must_use]
    pub fn local(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, local)| local)
    }

    /// Whether it lies in a graph that runs inline.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.0.contains('/')
    }
}

impl ChannelName {
    /// The name of `channel` of the graph that `frame` runs inline.
    ///
    /// # Errors
    /// [`InvalidId`] when graphs lie in each other so deep that it would exceed [`ID_LEN_MAX`].
    pub fn inside(frame: &StepId, channel: &Self) -> Result<Self, InvalidId> {
        Self::new(format!("{frame}/{channel}"))
    }

    /// The step whose graph it belongs to, if that graph runs inline.
    #[must_use]
    pub fn frame(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(frame, _)| frame)
    }
}

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
    /// The id of the `visit`-th activation (from 1) of `node` in the graph that this step runs
    /// inline: `deliver#1/dev#1`.
    ///
    /// # Errors
    /// [`InvalidId`] when graphs lie in each other so deep that it would exceed [`ID_LEN_MAX`],
    /// with some room left for an item.
    pub fn inside(&self, node: &str, visit: u32) -> Result<Self, InvalidId> {
        let text = format!("{self}/{node}#{visit}");
        if text.len() + 12 > ID_LEN_MAX {
            return Err(InvalidId { what: "step id", text, rule: ID_RULE });
        }
        Self::new(text)
    }

    /// Whether this step lies in `other`: an item of its loop, or a step of the graph that it
    /// runs inline, at any depth.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

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
        assert!(error.to_string().starts_with("`open pr` is not a node name: start with a letter"));
    }

    #[test]
    fn what_lies_in_a_step_begins_with_its_id() {
        let outer = StepId::of(&NodeName::new("deliver").unwrap(), 1, None);
        let inner = outer.inside("dev", 2).unwrap();
        assert_eq!(inner.as_str(), "deliver#1/dev#2");
        assert!(inner.is_below(&outer) && !outer.is_below(&inner) && !inner.is_below(&inner));
        assert!(!StepId::new("deliver#11/dev#1").unwrap().is_below(&outer));
        let channel = ChannelName::inside(&outer, &ChannelName::new("log").unwrap()).unwrap();
        assert_eq!((channel.as_str(), channel.frame()), ("deliver#1/log", Some("deliver#1")));
    }
}

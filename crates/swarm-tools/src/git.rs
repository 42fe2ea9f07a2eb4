//! Git on the host: mirrors of repositories, commits made from data, pushes.
//!
//! Two ways lead to git. Objects, diffs and references go through libgit2, which runs no hook, no
//! filter driver and no text conversion. The network goes through the git program, as a child
//! without any configuration but ours. What a newcomer gets wrong: neither ever runs in a tree
//! that an agent has written; see [`crate::workspace`] for how its files get here.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::failure::Failure;
use swarm_core::port::forge::Sha;
use thiserror::Error;

mod cli;
mod credentials;
mod diff;
mod lock;
mod mirror;
pub(crate) mod objects;
mod origin;
mod push;
mod refs;

pub use cli::Git;
pub use credentials::Credentials;
pub(crate) use mirror::blocking;
pub use mirror::{Mirror, Mirrors};
pub use objects::{Merged, NewCommit, Person, Treeish};
pub use origin::Origin;
pub use refs::check_branch;

pub(crate) use diff::{DiffLimits, between};
pub(crate) use lock::Lock;

/// A tree in a mirror's object database: the id of what the files are, without any history.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct TreeId(pub String);

impl std::fmt::Display for TreeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Why git did not do it.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no git program.
    #[error("no `git` program in an absolute folder of PATH: install git")]
    NoGit,
    /// Not something to clone from.
    #[error("cannot clone from `{url}`: {why}")]
    InvalidUrl {
        /// The address, without any credential in it.
        url: String,
        /// What is wrong with it, and what would be right.
        why: &'static str,
    },
    /// Not a name for a branch or a reference.
    #[error("`{}` is not a {what} name: {why}", .name.escape_debug())]
    InvalidName {
        /// What it was meant to name: `branch`, `reference`.
        what: &'static str,
        /// The name.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Not someone who can make a commit.
    #[error("`{name} <{email}>` cannot sign a commit: no name, or `<`, `>` or a line break in it")]
    InvalidPerson {
        /// The name.
        name: String,
        /// The mail address.
        email: String,
    },
    /// There is no such branch, commit, tree or file.
    #[error("{what} not found in `{repo}`")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where.
        repo: String,
    },
    /// A reference of ours is not where it was expected.
    #[error("`{name}` is at {}, not at {}", shown(.found.as_ref()), shown(.expected.as_ref()))]
    RefMoved {
        /// The reference.
        name: String,
        /// Where it was expected; `None` for not at all.
        expected: Option<Sha>,
        /// Where it is; `None` for not at all.
        found: Option<Sha>,
    },
    /// Someone else pushed to the branch.
    #[error(
        "branch `{branch}` of the origin is at {}, which we did not push (expected {}): \
         take the foreign commits in, or push to another branch",
        shown(.found.as_ref()), shown(.expected.as_ref())
    )]
    ForeignBranch {
        /// The branch.
        branch: String,
        /// Where it was expected; `None` for not at all.
        expected: Option<Sha>,
        /// Where it is; `None` for not at all.
        found: Option<Sha>,
    },
    /// The origin does not take the push.
    #[error("the origin refuses `{branch}`: {why}")]
    Refused {
        /// The branch.
        branch: String,
        /// What it says.
        why: String,
    },
    /// More than we are willing to read.
    #[error("{what} has {bytes} bytes, at most {max} are read")]
    TooLarge {
        /// What was to be read.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The git program took too long, or another process held the mirror for too long.
    #[error("{what} was not done after {} s", .after.as_secs())]
    TimedOut {
        /// What was done.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// The git program failed.
    #[error("{what} failed: {stderr}")]
    Cli {
        /// What was done.
        what: String,
        /// What git says, shortened, without credentials.
        stderr: String,
    },
    /// libgit2 failed.
    #[error("{what} failed in `{repo}`")]
    Objects {
        /// What was done.
        what: &'static str,
        /// Where.
        repo: String,
        /// What libgit2 says.
        #[source]
        source: git2::Error,
    },
    /// The disk failed.
    #[error("{what}")]
    Io {
        /// What was done, where.
        what: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<Error> for Failure {
    /// The failure of a node: the connection, the disk and time may mend themselves.
    fn from(error: Error) -> Self {
        let message = chain(&error);
        match error {
            Error::TimedOut { .. } => Self::retryable("timeout", message),
            Error::Cli { .. } | Error::Io { .. } => Self::retryable("io", message),
            Error::NoGit
            | Error::InvalidUrl { .. }
            | Error::InvalidName { .. }
            | Error::InvalidPerson { .. }
            | Error::NotFound { .. }
            | Error::RefMoved { .. }
            | Error::Refused { .. }
            | Error::TooLarge { .. }
            | Error::Objects { .. } => Self::fatal("git", message),
            Error::ForeignBranch { .. } => Self::fatal("foreign_branch", message),
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn shown(sha: Option<&Sha>) -> &str {
    sha.map_or("nothing", Sha::short)
}

/// The result of a git call.
pub type Result<T> = std::result::Result<T, Error>;

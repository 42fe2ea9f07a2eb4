//! Sandboxes: where every command runs that a repository or a model causes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How strong the walls are.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Landlock and seccomp: files, network and system calls; shares process ids.
    Landlock,
    /// Bubblewrap: namespaces of its own for files, processes, network.
    Bubblewrap,
}

/// What a command may reach.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing, not even the host's loopback.
    #[default]
    None,
    /// What the host reaches. Only for the set-up step, by policy.
    Host,
}

/// What a command may use up. The process group is killed when a limit is hit.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall time.
    pub wall_secs: u64,
    /// Address space of each process, in MiB.
    pub memory_mib: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Bytes kept of stdout and of stderr, each; the rest is read and dropped.
    pub output_bytes: usize,
    /// The largest file that may be written, in MiB.
    pub file_mib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_secs: 600,
            memory_mib: 8192,
            processes: 512,
            output_bytes: 256 * 1024,
            file_mib: 2048,
        }
    }
}

/// A command to run. No shell is involved unless `argv` names one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// Program and arguments; the program is looked up in the sandbox's PATH.
    pub argv: Vec<String>,
    /// The workspace on the host, absolute: the only writable tree besides a private `/tmp` and
    /// the package caches. Fixed when the run starts, never chosen by the model.
    pub workspace: PathBuf,
    /// Where to start, relative to the workspace.
    pub dir: PathBuf,
    /// The whole environment besides PATH, HOME, LANG and the cache variables. Never a secret.
    pub env: BTreeMap<String, String>,
    /// What it may reach.
    pub network: Network,
    /// What it may use up.
    pub limits: Limits,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Killed: the wall time was used up.
    TimedOut,
    /// Killed: the run was cancelled.
    Cancelled,
}

/// One captured stream. Bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Captured {
    /// The beginning and the end, with a line between them that says how much is missing.
    pub text: String,
    /// Bytes dropped.
    pub dropped_bytes: u64,
}

/// What a command left.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// How long it took.
    pub wall: Duration,
    /// Within which walls it ran.
    pub level: Level,
}

impl Finished {
    /// Whether it ended by itself with code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit == Exit::Code(0)
    }
}

/// Why a command was not run.
#[derive(Debug, Error)]
pub enum Error {
    /// No sandbox of the required level works here; nothing was run.
    #[error("no sandbox is available: {}", .missing.join("; "))]
    Unavailable {
        /// What is missing, each with what would mend it.
        missing: Vec<String>,
    },
    /// The command cannot be meant: empty, or outside the workspace.
    #[error("cannot run: {0}")]
    Invalid(String),
    /// The sandbox itself failed; the command may have begun.
    #[error("sandbox failed")]
    Io(#[from] std::io::Error),
}

/// Runs commands behind walls.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// The level in use, as probed at start.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none; every run would be refused.
    fn level(&self) -> Result<Level, Error>;

    /// Runs a command to its end. After this no process of it is left. Dropping the future
    /// kills the whole process group.
    async fn run(&self, command: Command) -> Result<Finished, Error>;
}

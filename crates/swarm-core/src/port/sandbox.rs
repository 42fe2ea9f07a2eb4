//! Sandboxes: where every command runs that a repository or a model causes.
//!
//! A [`Command`] says what to run and what it may reach; nothing of the host's environment
//! comes along unless the sandbox's own configuration or [`Command::env`] says so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How strong the walls are; the stronger is the greater.
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

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Landlock => "landlock",
            Self::Bubblewrap => "bubblewrap",
        })
    }
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

/// What a command may use up. All its processes are killed when one of the first three is hit.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall time.
    pub wall_secs: u64,
    /// Memory in use by all its processes together, in MiB; no single process can reserve more.
    pub memory_mib: u64,
    /// Processes and threads, all together.
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

/// How a place inside the workspace is kept from the command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cover {
    /// It can be read, not changed.
    ReadOnly,
    /// It looks empty, and cannot be changed.
    Absent,
}

/// A place inside the workspace that the command may not change, or not even see.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Relative to the workspace, such as `.git`. What does not exist is not masked.
    pub path: PathBuf,
    /// How it is kept.
    pub cover: Cover,
}

/// The name of the package caches that commands share when they name no others.
pub const SHARED_CACHE: &str = "shared";

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
    /// The whole environment besides PATH, HOME, TMPDIR, LANG, the cache variables and those
    /// that toolchains need. What is named here wins over them. Never a secret.
    pub env: BTreeMap<String, String>,
    /// What it may reach.
    pub network: Network,
    /// What it may use up.
    pub limits: Limits,
    /// Places in the workspace that it may not change, or not even see.
    /// Only [`Level::Bubblewrap`] can; any other level refuses a mask on something that exists.
    pub masked: Vec<Mask>,
    /// Which package caches it shares, such as the repository's name: whoever writes to a cache
    /// chooses what the others build from, so trust should be the same throughout.
    pub cache: String,
}

impl Command {
    /// `argv` in the workspace's root: no network, default limits, nothing masked, the shared
    /// caches.
    #[must_use]
    pub fn new<S: Into<String>>(
        workspace: impl Into<PathBuf>,
        argv: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            workspace: workspace.into(),
            dir: PathBuf::new(),
            env: BTreeMap::new(),
            network: Network::None,
            limits: Limits::default(),
            masked: Vec::new(),
            cache: SHARED_CACHE.to_owned(),
        }
    }
}

/// What a command had too much of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Memory, of all its processes together.
    Memory,
    /// Processes and threads.
    Processes,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Processes => "processes",
        })
    }
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
    /// Killed: more in use than the limits allow.
    Exceeded(Resource),
    /// Killed: the run was cancelled.
    Cancelled,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("killed: its wall time was used up"),
            Self::Exceeded(resource) => write!(f, "killed: it used too much ({resource})"),
            Self::Cancelled => f.write_str("killed: the run was cancelled"),
        }
    }
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
    /// kills all of them. A program that PATH does not have ends with code 127 and says so on
    /// its standard error.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no walls of the wanted strength stand here, [`Error::Invalid`]
    /// when the command cannot be meant, [`Error::Io`] when the sandbox itself failed.
    async fn run(&self, command: Command) -> Result<Finished, Error>;
}

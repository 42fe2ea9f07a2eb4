//! The repository's own tests and linters: found, run, and read as data.
//!
//! [`detect`] looks once, before anything is changed; the same list is run before and after, so
//! that a change cannot pass by editing what is run. The exit code decides whether a check
//! passed, never its text; text only says which tests failed, and that none ran at all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::failure::Failure;
use swarm_core::port::sandbox::Exit;

mod compare;
mod detect;
mod remarks;
mod results;
mod run;
mod said;

pub use compare::{Comparison, Fewer, TestRef, compare};
pub use detect::{detect, detect_at};
pub use run::{Options, run};

/// What a check is for.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Installs what the tests need: the only one that may have the network, by policy.
    Setup,
    /// Runs tests.
    Test,
    /// Reads the code and remarks on it.
    Lint,
}

/// One way to run a check.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A command that succeeds when this way is open; empty: the program is looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<String>,
}

/// A command of the repository that tells whether a change is good, or prepares for that.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, unique in a list: `cargo test`, `npm test (web)`.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A command that succeeds when `argv` can be run; empty: the program is looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<String>,
    /// Other ways, tried in order when `argv` cannot be run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Way>,
    /// Where it starts, from the root of the workspace; `.` is the root.
    pub dir: String,
    /// What it makes below `dir` that is no part of any change: directories, which get a
    /// `.gitignore` of their own, and files, which are taken away if they were not there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<String>,
    /// Why it is believed to be a check: the file that says so.
    pub why: String,
}

/// A command that the host's configuration names.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredCheck {
    /// Its name; the command itself when there is none.
    #[serde(default)]
    pub name: Option<String>,
    /// Program and arguments; a shell only if it names one.
    pub argv: Vec<String>,
    /// Where it starts, from the root of the workspace.
    #[serde(default = "root")]
    pub dir: String,
}

fn root() -> String {
    ".".to_owned()
}

/// What the host's configuration says about checks. A list that is there replaces what would be
/// detected of its kind; an empty one says that there is none.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChecksConfig {
    /// The tests.
    pub tests: Option<Vec<ConfiguredCheck>>,
    /// The linters.
    pub linters: Option<Vec<ConfiguredCheck>>,
    /// What installs dependencies.
    pub setup: Option<Vec<ConfiguredCheck>>,
}

/// How a check came out.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Outcome {
    /// It succeeded; for a test: and did not say that it ran none.
    Passed,
    /// It ended with a code that says no.
    Failed,
    /// It succeeded or gave up because there was no test to run.
    NoTests,
    /// It was not run, and need not be.
    Skipped {
        /// Why.
        why: String,
    },
    /// It could not be run to its end, so nothing is known.
    Broken {
        /// What broke it.
        cause: Cause,
        /// The same in words, with what would mend it.
        why: String,
    },
}

impl Outcome {
    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        matches!(self, Self::Passed)
    }
}

/// What broke a check.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its time was used up.
    TimedOut,
    /// The program is not installed in the sandbox.
    MissingTool,
    /// A signal ended it, such as for want of memory.
    Killed,
    /// The run was cancelled.
    Cancelled,
    /// The command cannot be meant, such as a directory that is not there any more.
    Invalid,
    /// There is no sandbox to run it in.
    SandboxUnavailable,
    /// The sandbox failed.
    SandboxFailed,
}

impl Cause {
    /// The failure class of it.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::MissingTool => "missing_tool",
            Self::Killed => "killed",
            Self::Cancelled => "cancelled",
            Self::Invalid => "invalid_check",
            Self::SandboxUnavailable => "sandbox_unavailable",
            Self::SandboxFailed => "io",
        }
    }
}

/// How many tests did what, as the runner says in its closing lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed or broke.
    pub failed: u64,
    /// Tests that were not run on purpose.
    pub skipped: u64,
}

/// One failed test.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TestFailure {
    /// Its name as the runner prints it.
    pub name: String,
    /// The file where it failed, as printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The beginning of what the runner says about it.
    #[serde(default)]
    pub message: String,
}

/// One remark of a linter.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Finding {
    /// The file, from the root of the workspace when it could be told.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// The linter's name for the rule; empty when it gives none.
    #[serde(default)]
    pub rule: String,
    /// The remark.
    pub message: String,
}

/// What a check found.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Report {
    /// The check's name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// What was run, as one line for people; empty when nothing was.
    pub command: String,
    /// How it ended; `None` when it was not run.
    pub exit: Option<Exit>,
    /// What that means.
    pub outcome: Outcome,
    /// Test counts, when the runner's closing lines are known.
    pub counts: Option<Counts>,
    /// Failed tests, when the runner's output is known; at most 100.
    pub failures: Vec<TestFailure>,
    /// Remarks of a linter; at most 500.
    pub findings: Vec<Finding>,
    /// The last lines of its output. Untrusted.
    pub tail: String,
    /// Whether output was dropped, so that counts, failures and findings may lack some.
    pub is_cut: bool,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
}

impl Report {
    /// The failure that stands for a check which could not be run.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match &self.outcome {
            Outcome::Broken { cause, why } => {
                let class = cause.class();
                let words = format!("`{}`: {why}", self.name);
                Some(match cause {
                    Cause::SandboxFailed | Cause::Cancelled => Failure::retryable(class, words),
                    Cause::TimedOut
                    | Cause::MissingTool
                    | Cause::Killed
                    | Cause::Invalid
                    | Cause::SandboxUnavailable => Failure::fatal(class, words),
                })
            }
            Outcome::Passed | Outcome::Failed | Outcome::NoTests | Outcome::Skipped { .. } => None,
        }
    }
}

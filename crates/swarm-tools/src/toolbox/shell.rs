//! `shell`: a command line, run by `sh -c` behind the sandbox's walls.
//!
//! A command that fails is a result, with its exit code, for the model to read. That there is no
//! sandbox is none: the model could do nothing about it, so it is a failure of the step.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::sandbox::{self, Captured, Command, Exit, Finished, Sandbox};
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::tree::Tree;
use super::{Limits, Trouble};

/// The arguments of `shell`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// The command line, as `sh -c` takes it. Nothing can be typed into it while it runs.
    pub command: String,
    /// The directory to start in, from the root of the workspace; the root when left out.
    #[serde(default)]
    pub dir: Option<String>,
    /// After how many seconds to stop it.
    #[serde(default)]
    pub timeout_secs: Option<u64>,
}

/// The tool `shell`.
pub struct ShellTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
    sandbox: Arc<dyn Sandbox>,
}

impl std::fmt::Debug for ShellTool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShellTool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl ShellTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>, sandbox: Arc<dyn Sandbox>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits), sandbox }
    }
}

#[async_trait]
impl Tool for ShellTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<Shell>(
            "shell",
            &format!(
                "Runs a command line in the workspace and shows its exit code and output. There \
                 is no network, no secret, and no git history; nothing outlives the command. It \
                 is stopped after {} seconds. Prefer the other tools for reading and editing.",
                self.limits.shell.wall_secs
            ),
        )
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let arguments: Shell = match serde_json::from_value(arguments) {
            Ok(arguments) => arguments,
            Err(error) => {
                return Ok(ToolResult::error(format!("the arguments do not fit: {error}")));
            }
        };
        let command = match self.command(&arguments) {
            Ok(command) => command,
            Err(Trouble::Refused(words)) => return Ok(ToolResult::error(words)),
            Err(Trouble::Failed(failure)) => return Err(failure),
        };
        let wall_secs = command.limits.wall_secs;
        match self.sandbox.run(command).await {
            Ok(finished) => told(&finished, wall_secs),
            Err(sandbox::Error::Invalid(why)) => {
                Ok(ToolResult::error(format!("the command was not run: {why}")))
            }
            Err(error @ sandbox::Error::Unavailable { .. }) => {
                Err(Failure::fatal("sandbox_unavailable", error.to_string()))
            }
            Err(sandbox::Error::Io(error)) => {
                Err(Failure::retryable("io", format!("the sandbox failed: {error}")))
            }
        }
    }
}

impl ShellTool {
    fn command(&self, arguments: &Shell) -> Result<Command, Trouble> {
        if arguments.command.trim().is_empty() {
            return Err(Trouble::Refused("the command is empty".to_owned()));
        }
        if arguments.command.contains('\0') {
            return Err(Trouble::Refused("the command has a NUL character".to_owned()));
        }
        let (_, dir) = self.tree.directory(arguments.dir.as_deref().unwrap_or("."))?;
        let mut limits = self.limits.shell.clone();
        if let Some(secs) = arguments.timeout_secs {
            limits.wall_secs = limits.wall_secs.min(secs.max(1));
        }
        let argv = ["sh", "-c", arguments.command.as_str()];
        Ok(Command {
            dir: if dir == "." { PathBuf::new() } else { PathBuf::from(dir) },
            env: quiet_env(),
            limits,
            cache: self.limits.cache.clone(),
            ..Command::new(self.tree.root_path(), argv)
        })
    }
}

/// What makes programs speak to a reader that is no terminal and leave no litter.
pub(crate) fn quiet_env() -> BTreeMap<String, String> {
    [
        ("CI", "1"),
        ("TERM", "dumb"),
        ("NO_COLOR", "1"),
        ("CARGO_TERM_COLOR", "never"),
        ("PAGER", "cat"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONUNBUFFERED", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// A finished command as the model reads it.
fn told(finished: &Finished, wall_secs: u64) -> Result<ToolResult, Failure> {
    let mut text = match finished.exit {
        Exit::Cancelled => {
            return Err(Failure::retryable("cancelled", "the run was cancelled during a command"));
        }
        Exit::TimedOut => format!("stopped after {wall_secs} seconds: it had not ended\n"),
        Exit::Code(_) | Exit::Signal(_) | Exit::Exceeded(_) => format!("{}\n", finished.exit),
    };
    for (name, stream) in [("stdout", &finished.stdout), ("stderr", &finished.stderr)] {
        section(name, stream, &mut text);
    }
    if finished.stdout.text.is_empty() && finished.stderr.text.is_empty() {
        text += "(no output)\n";
    }
    Ok(ToolResult { text, is_error: !finished.succeeded() })
}

fn section(name: &str, stream: &Captured, text: &mut String) {
    if stream.text.is_empty() {
        return;
    }
    let _ = match stream.dropped_bytes {
        0 => writeln!(text, "--- {name}"),
        dropped => writeln!(text, "--- {name} ({dropped} bytes left out where it says so)"),
    };
    text.push_str(&stream.text);
    if !text.ends_with('\n') {
        text.push('\n');
    }
}

//! The git program as a child: no configuration but ours, no hooks, no prompts, a time limit.
//!
//! Arguments are a list, never a line; whatever comes from outside stands after `--`. The child
//! leads a process group of its own, which is killed as a whole when it takes too long or when
//! nobody waits for it any more.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessGroup};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{Credentials, Error, Result};

/// How much of git's output is kept, in bytes.
const OUTPUT_MAX: u64 = 1024 * 1024;

/// The git program.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
}

/// What the child is to do.
pub(crate) struct Call<'a> {
    /// In words, for messages.
    pub(crate) what: String,
    /// The repository it works in; a bare one of ours.
    pub(crate) git_dir: Option<&'a Path>,
    /// The one protocol it may use.
    pub(crate) protocol: Option<&'static str>,
    pub(crate) args: Vec<OsString>,
    pub(crate) credentials: &'a Credentials,
    pub(crate) timeout: Duration,
    /// A lock that the child holds while it lives.
    pub(crate) holds: Option<File>,
}

/// What the child said.
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Git {
    /// Finds git in the absolute folders of a PATH.
    ///
    /// # Errors
    /// [`Error::NoGit`] when none of them holds it.
    pub fn find(path: &OsStr) -> Result<Self> {
        std::env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join("git"))
            .find(|program| program.is_file())
            .map(|program| Self { program })
            .ok_or(Error::NoGit)
    }

    /// The program's absolute path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Settings that hold for every call, also for the far side of a local one.
    pub(crate) const SETTINGS: [&str; 8] = [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.attributesFile=/dev/null",
        "gc.auto=0",
        "maintenance.auto=false",
        "receive.autogc=false",
        "submodule.recurse=false",
        "fetch.recurseSubmodules=false",
    ];

    /// Runs git and returns what it said, whatever its exit code.
    pub(crate) async fn ask(&self, call: Call<'_>) -> Result<Said> {
        let Call { what, git_dir, protocol, args, credentials, timeout, holds } = call;
        let mut command = tokio::process::Command::new(&self.program);
        for setting in Self::SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(["-c", "protocol.allow=never", "-c", "credential.helper="]);
        command.args(["-c", "transfer.credentialsInUrl=die"]);
        if let Some(protocol) = protocol {
            command.args(["-c", &format!("protocol.{protocol}.allow=always")]);
        }
        if let Some(git_dir) = git_dir {
            let mut option = OsString::from("--git-dir=");
            option.push(git_dir);
            command.arg(option);
        }
        command.args(args).env_clear().envs(self.environment()).envs(credentials.env());
        command.current_dir(git_dir.unwrap_or(Path::new("/")));
        command.stdin(holds.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut wrap = CommandWrap::from(command);
        wrap.wrap(ProcessGroup::leader());
        let child =
            wrap.spawn().map_err(Error::io(format!("starting `{}`", self.program.display())))?;
        let mut group = Group { child, has_ended: false };
        let said = tokio::time::timeout(timeout, group.listen()).await;
        let Ok(said) = said else {
            drop(group);
            return Err(Error::TimedOut { what, after: timeout });
        };
        let said = said.map_err(Error::io(format!("listening to git while {what}")))?;
        Ok(Said { stderr: credentials.redact(&said.stderr), ..said })
    }

    /// Runs git and returns its output.
    pub(crate) async fn run(&self, call: Call<'_>) -> Result<String> {
        let what = call.what.clone();
        let said = self.ask(call).await?;
        if said.succeeded { Ok(said.stdout) } else { Err(said.failure(what)) }
    }

    /// The whole environment of the child but for credentials.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        // Git starts its own helpers and `ssh` by name.
        let mut path =
            self.program.parent().map(|dir| dir.as_os_str().to_owned()).unwrap_or_default();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        vec![
            ("PATH", path),
            ("LC_ALL", "C".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_OPTIONAL_LOCKS", "0".into()),
            ("GIT_SSH_COMMAND", "ssh -o BatchMode=yes".into()),
        ]
    }
}

impl Said {
    /// The call as a failure, in git's words but short.
    pub(crate) fn failure(&self, what: String) -> Error {
        let lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join("; ");
        let stderr = match text.char_indices().nth(600) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None if text.is_empty() => "git gave no reason".to_owned(),
            None => text,
        };
        Error::Cli { what, stderr }
    }
}

/// A child with its process group; dropped before its end, all of it is killed.
struct Group {
    child: Box<dyn ChildWrapper>,
    /// Whether all of it has ended, so that its id may belong to others now.
    has_ended: bool,
}

impl Group {
    async fn listen(&mut self) -> std::io::Result<Said> {
        let stdout = self.child.stdout().take();
        let stderr = self.child.stderr().take();
        let (stdout, stderr) = tokio::join!(keep(stdout), keep(stderr));
        let (stdout, stderr) = (stdout?, stderr?);
        let status = self.child.wait().await?;
        self.has_ended = true;
        Ok(Said { succeeded: status.success(), stdout, stderr })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.has_ended {
            // The group may be ending by itself just now, which is what we want.
            let _ = self.child.start_kill();
        }
    }
}

/// Reads to the end and keeps the beginning, so that a chatty child is never blocked.
async fn keep(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let mut kept = Vec::new();
    (&mut stream).take(OUTPUT_MAX).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

//! The sandbox that the tests of the toolbox and of checks run in.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use swarm_core::port::sandbox::{Captured, Command, Error, Exit, Finished, Level, Sandbox};
use tokio::io::AsyncReadExt as _;

/// No walls at all: for tests alone, whose commands are their own.
struct Unwalled;

pub(crate) fn sandbox() -> Arc<dyn Sandbox> {
    Arc::new(Unwalled)
}

/// A sandbox that there is not.
pub(crate) struct Missing;

#[async_trait]
impl Sandbox for Missing {
    fn level(&self) -> Result<Level, Error> {
        Err(Error::Unavailable { missing: vec!["install bubblewrap".to_owned()] })
    }

    async fn run(&self, _: Command) -> Result<Finished, Error> {
        Err(self.level().unwrap_err())
    }
}

#[async_trait]
impl Sandbox for Unwalled {
    fn level(&self) -> Result<Level, Error> {
        Ok(Level::Landlock)
    }

    async fn run(&self, command: Command) -> Result<Finished, Error> {
        let started = Instant::now();
        let mut child = tokio::process::Command::new(&command.argv[0]);
        child.args(&command.argv[1..]).current_dir(command.workspace.join(&command.dir));
        child.env_clear();
        for name in ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME"] {
            child.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        child.envs(&command.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match child.process_group(0).kill_on_drop(true).spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let stderr = Captured { text: error.to_string(), dropped_bytes: 0 };
                return Ok(Finished {
                    exit: Exit::Code(127),
                    stdout: Captured::default(),
                    stderr,
                    wall: started.elapsed(),
                    level: Level::Landlock,
                });
            }
            child => child?,
        };
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let all = async {
            let (a, b, status) = tokio::join!(
                out.read_to_end(&mut stdout),
                err.read_to_end(&mut stderr),
                child.wait()
            );
            a.and(b).and(status)
        };
        let wall = Duration::from_secs(command.limits.wall_secs);
        let exit = match tokio::time::timeout(wall, all).await {
            Err(_) => {
                let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
                rustix::process::kill_process_group(group.unwrap(), rustix::process::Signal::KILL)
                    .unwrap();
                child.wait().await?;
                Exit::TimedOut
            }
            Ok(status) => Exit::Code(status?.code().unwrap_or(-1)),
        };
        let captured = |bytes: Vec<u8>| Captured {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            dropped_bytes: 0,
        };
        Ok(Finished {
            exit,
            stdout: captured(stdout),
            stderr: captured(stderr),
            wall: started.elapsed(),
            level: Level::Landlock,
        })
    }
}

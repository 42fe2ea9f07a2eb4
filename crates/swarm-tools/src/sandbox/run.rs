//! Running a command, as seen from the host: a warden for each, two captured streams, a clock.
//!
//! To drop the future is to hang up on the warden, which then kills everything; nothing here
//! signals a process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use swarm_core::port::sandbox::{Command, Error, Exit, Finished, Level, Limits, Sandbox};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ENTRY;
use super::capture::capture;
use super::plan::{Planned, Planner};
use super::wire::{self, Report};

/// How long the warden may take to kill everything.
const DEATH_MAX: Duration = Duration::from_secs(20);
/// How long the streams may stay open after everything is dead.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A level that works here.
#[derive(Debug)]
pub(super) struct Walls {
    pub(super) planner: Arc<Planner>,
}

#[async_trait]
impl Sandbox for Walls {
    fn level(&self) -> Result<Level, Error> {
        Ok(self.planner.level)
    }

    async fn run(&self, command: Command) -> Result<Finished, Error> {
        let planner = Arc::clone(&self.planner);
        let limits = command.limits.clone();
        let planned = tokio::task::spawn_blocking(move || planner.plan(&command)).await;
        let planned = planned.map_err(io::Error::other)??;
        run(&self.planner.config.entry, planned, &limits).await
    }
}

/// The warden's process, not yet started, and the host's end of its socket.
pub(super) fn warden(entry: &Path) -> io::Result<(StdCommand, StdStream)> {
    let (ours, theirs) = StdStream::pair()?;
    let mut command = StdCommand::new(entry);
    command
        .args([ENTRY, wire::WARDEN])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A terminal's interrupt is for the host, which then decides.
        .process_group(0);
    Ok((command, ours))
}

async fn run(entry: &Path, planned: Planned, limits: &Limits) -> Result<Finished, Error> {
    let begun = Instant::now();
    let level = planned.job.level;
    let (command, ours) = warden(entry)?;
    ours.set_nonblocking(true)?;
    let socket = UnixStream::from_std(ours)?;
    let mut child = tokio::process::Command::from(command).spawn()?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("the warden has no output").into());
    };
    let stop = CancellationToken::new();
    let captures = async {
        tokio::join!(
            capture(stdout, limits.output_bytes, &stop),
            capture(stderr, limits.output_bytes, &stop),
        )
    };
    tokio::pin!(captures);
    let mut captured = None;
    let report = {
        let conduct = conduct(socket, &mut child, planned, limits);
        tokio::pin!(conduct);
        loop {
            tokio::select! {
                report = &mut conduct => break report,
                streams = &mut captures, if captured.is_none() => captured = Some(streams),
            }
        }
    };
    let (stdout, stderr) = match captured {
        Some(streams) => streams,
        None => match timeout(DRAIN_MAX, &mut captures).await {
            Ok(streams) => streams,
            Err(_) => {
                stop.cancel();
                captures.await
            }
        },
    };
    let exit = match report? {
        Report::Code(code) => Exit::Code(code),
        Report::Signal(signal) => Exit::Signal(signal),
        Report::Exceeded(resource) => Exit::Exceeded(resource),
        Report::Killed => Exit::TimedOut,
        Report::Failed(reason) => return Err(failed(&reason, &stderr.text)),
    };
    Ok(Finished { exit, stdout, stderr, wall: begun.elapsed(), level })
}

/// Hands the job over, waits for the report, hangs up when the time is used up.
async fn conduct(
    mut socket: UnixStream,
    child: &mut Child,
    planned: Planned,
    limits: &Limits,
) -> io::Result<Report> {
    socket.write_all(&wire::encode(&planned.job)?).await?;
    planned.handed_over();
    let wall = Duration::from_secs(limits.wall_secs);
    let report = match timeout(wall, receive(&mut socket)).await {
        Ok(report) => report?,
        Err(_) => {
            socket.shutdown().await?;
            timeout(DEATH_MAX, receive(&mut socket)).await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the command could not be killed")
            })??
        }
    };
    child.wait().await?;
    Ok(report)
}

async fn receive(socket: &mut UnixStream) -> io::Result<Report> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other("the warden died before it could report"),
        _ => error,
    })?;
    let mut body = vec![0; wire::length_of(length)?];
    socket.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Why the walls could not be built: the warden's reason, and what bubblewrap said.
pub(super) fn failed(reason: &str, stderr: &str) -> Error {
    let said = stderr.trim();
    let words = if said.is_empty() { reason.to_owned() } else { format!("{reason}: {said}") };
    Error::Io(io::Error::other(words))
}

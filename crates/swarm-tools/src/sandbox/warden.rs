//! The warden: outside the walls, one for each command, and the last to leave.
//!
//! It adopts whatever the command leaves behind, so that at its end nothing is left, however
//! often something forked away. The host holds the other end of its standard input: when that is
//! closed, by will or by death, all is killed. It starts the command from its main thread, which
//! lives as long as it does: `--die-with-parent` means the thread, not the process.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, set_child_subreaper, wait,
};
use swarm_core::port::sandbox::{Level, Resource};

use super::process::{self, Member};
use super::wire::{self, Job, Report, Staged};
use super::{ENTRY, plan};

/// How often the use of processes and memory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long to wait between two rounds of killing.
const ROUND: Duration = Duration::from_millis(2);
/// How long something may take to die before it is given up: it hangs in the kernel.
const DEATH_MAX: Duration = Duration::from_secs(10);
/// Bubblewrap's own two processes.
const WALLS: u64 = 2;

enum Event {
    HungUp,
    Staged(Option<Staged>),
    Ended(Pid, WaitStatus),
    Alone,
}

pub(super) fn main() -> ExitCode {
    let Ok(mut host) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    let Ok(job) = wire::receive::<Job>(&mut host) else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    let scratch = job.scratch.clone();
    let report = match host.try_clone().and_then(|host| guard(job, host)) {
        Ok(report) => report,
        Err(error) => Report::Failed(error.to_string()),
    };
    if let Some(scratch) = scratch {
        plan::remove_scratch(&scratch);
    }
    // When the host is gone nobody wants to know.
    let _ = wire::send(&mut host, &report);
    ExitCode::SUCCESS
}

fn guard(mut job: Job, mut host: UnixStream) -> io::Result<Report> {
    set_child_subreaper(Some(getpid()))?;
    if job.level < Level::Bubblewrap {
        let host = getppid().map(Pid::as_raw_pid);
        job.stage.guarded = host.into_iter().chain([getpid().as_raw_pid()]).collect();
    }
    job.stage.tasks = process::tasks_of_this_user().map(|now| now + job.processes);

    let (ours, theirs) = UnixStream::pair()?;
    let main = start(&job, theirs.into())?;
    let (sender, events) = channel();
    listen(&sender, ours, &job);
    {
        let sender = sender.clone();
        thread::spawn(move || {
            let _ = host.read(&mut [0]);
            let _ = sender.send(Event::HungUp);
        });
    }
    thread::spawn(move || reap(&sender));
    Ok(watch(&job, main, &events))
}

/// Starts bubblewrap, or the stage itself, and forgets its end of the socket.
fn start(job: &Job, socket: OwnedFd) -> io::Result<i32> {
    let mut command = match job.outer.split_first() {
        Some((bwrap, arguments)) => {
            let mut command = Command::new(bwrap);
            command.args(arguments);
            command
        }
        None => {
            let mut command = Command::new("/proc/self/exe");
            command.args([ENTRY, wire::STAGE]);
            command
        }
    };
    // The command's own environment must not reach a process that is still outside the walls:
    // LD_PRELOAD would run code there.
    let child = command.env_clear().stdin(Stdio::from(socket)).spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Tells the stage what to do, and reports how that went.
fn listen(sender: &Sender<Event>, mut stage: UnixStream, job: &Job) {
    let sender = sender.clone();
    let message = wire::encode(&job.stage);
    thread::spawn(move || {
        let staged = message
            .and_then(|message| io::Write::write_all(&mut stage, &message))
            .and_then(|()| wire::receive(&mut stage))
            .ok();
        let _ = sender.send(Event::Staged(staged));
    });
}

fn reap(sender: &Sender<Event>) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                let _ = sender.send(Event::Ended(pid, status));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                let _ = sender.send(Event::Alone);
                return;
            }
        }
    }
}

/// Waits for the end, or brings it about.
fn watch(job: &Job, main: i32, events: &Receiver<Event>) -> Report {
    let mut staged = None;
    let mut ended = None;
    let mut killed = None;
    let mut alone = false;
    while ended.is_none() && killed.is_none() && !alone {
        match events.recv_timeout(LOOK) {
            Ok(Event::Staged(message)) => staged = Some(message),
            Ok(Event::Ended(pid, status)) if pid.as_raw_pid() == main => ended = Some(status),
            Ok(Event::Ended(..)) => {}
            Ok(Event::Alone) => alone = true,
            Ok(Event::HungUp) => killed = Some(Report::Killed),
            Err(RecvTimeoutError::Timeout) => killed = exceeded(job).map(Report::Exceeded),
            Err(RecvTimeoutError::Disconnected) => alone = true,
        }
    }
    kill_all(events, alone, &mut staged, |pid, status| {
        if pid.as_raw_pid() == main {
            ended = ended.or(Some(status));
        }
    });
    match (staged.flatten(), killed, ended) {
        (_, Some(report), _) => report,
        (Some(Staged::Failed(reason)), None, _) => Report::Failed(reason),
        (Some(Staged::Ready), None, Some(status)) => exit(job.level, status),
        (None, None, Some(status)) => Report::Failed(format!("the walls ended with {status:?}")),
        (_, None, None) => Report::Failed("the command was lost".to_owned()),
    }
}

fn exceeded(job: &Job) -> Option<Resource> {
    let members = process::descendants(getpid().as_raw_pid());
    let tasks: u64 = members.iter().map(|member| member.tasks).sum();
    let walls = if job.outer.is_empty() { 0 } else { WALLS };
    let memory_max = job.stage.memory_mib.saturating_mul(1024 * 1024);
    if tasks > job.processes + walls {
        Some(Resource::Processes)
    } else if process::memory_bytes(&members, memory_max) > memory_max {
        Some(Resource::Memory)
    } else {
        None
    }
}

/// Kills until nothing is left. All are stopped before any is killed, for what is stopped
/// does not fork.
fn kill_all(
    events: &Receiver<Event>,
    mut alone: bool,
    staged: &mut Option<Option<Staged>>,
    mut ended: impl FnMut(Pid, WaitStatus),
) {
    let begun = Instant::now();
    let own = getpid().as_raw_pid();
    while !(alone && staged.is_some()) && begun.elapsed() < DEATH_MAX {
        if !alone {
            let members: Vec<Member> = process::descendants(own);
            for signal in [Signal::STOP, Signal::KILL] {
                members.iter().for_each(|member| process::signal(*member, signal));
            }
        }
        match events.recv_timeout(ROUND) {
            Ok(Event::Alone) => alone = true,
            Ok(Event::Ended(pid, status)) => ended(pid, status),
            Ok(Event::Staged(message)) => *staged = Some(message),
            Ok(Event::HungUp) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn exit(level: Level, status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        // Bubblewrap passes a signal on as a shell does; the rare program that ends with such a
        // code by itself is taken for a signalled one.
        (Some(code @ 129..=192), _) if level == Level::Bubblewrap => Report::Signal(code - 128),
        (Some(code), _) => Report::Code(code),
        (None, Some(signal)) => Report::Signal(signal),
        (None, None) => Report::Failed(format!("the command ended with {status:?}")),
    }
}

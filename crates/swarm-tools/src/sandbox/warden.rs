//! The warden: outside the walls, one for each command, and the last to leave.
//!
//! It adopts whatever the command leaves behind, so that at its end nothing is left, however
//! often something forked away. The host holds the other end of its standard input: when that is
//! closed, by will or by death, all is killed. It starts the command from its main thread, which
//! lives as long as it does: `--die-with-parent` means the thread, not the process.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, set_child_subreaper,
    setpriority_process, wait,
};
use swarm_core::port::sandbox::{Level, Resource};

use super::cage::Cage;
use super::process;
use super::wire::{self, Job, Report, Stage, Staged};
use super::{ENTRY, plan};

/// How often the use of processes and memory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The priority before all others.
const FIRST: i32 = -20;
/// Processes and threads beyond twice what is allowed: bubblewrap's, and some room.
const SPARE: u64 = 16;
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
    wire::close_inherited();
    let Ok(mut host) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    let Ok(job) = wire::receive::<Job>(&mut host) else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    let scratch = job.scratch.clone();
    let begun = share_life(&job, &host).and_then(|life| Ok((life, host.try_clone()?)));
    let (life, report) = match begun {
        Ok((life, host)) => (life, guard(job, host)),
        Err(error) => (None, Err(error)),
    };
    let report = report.unwrap_or_else(|error| Report::Failed(error.to_string()));
    if let Some(scratch) = scratch {
        plan::remove_scratch(&scratch);
    }
    drop(life);
    // When the host is gone nobody wants to know.
    let _ = wire::send(&mut host, &report);
    ExitCode::SUCCESS
}

/// Joins the host in holding its life, then makes sure that it still lives: what begins after the
/// host's death would work beside whoever has taken its place.
fn share_life(job: &Job, host: &UnixStream) -> io::Result<Option<File>> {
    let life = match job.life.as_ref().map(File::open) {
        Some(Ok(life)) => {
            life.try_lock_shared()?;
            Some(life)
        }
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Whoever buried the host has taken it away, or nobody ever can bury it.
        Some(Err(_)) | None => None,
    };
    host.set_nonblocking(true)?;
    let heard = (&*host).read(&mut [0]);
    host.set_nonblocking(false)?;
    match heard {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(life),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("the host is gone")),
    }
}

fn guard(mut job: Job, mut host: UnixStream) -> io::Result<Report> {
    set_child_subreaper(Some(getpid()))?;
    if job.level < Level::Bubblewrap {
        let host = getppid().map(Pid::as_raw_pid);
        job.stage.guarded = host.into_iter().chain([getpid().as_raw_pid()]).collect();
    }
    // More than the command may have: it is killed for having too many, in words, and this only
    // stands where forking outruns the look that counts them.
    let tasks_max = job.processes.saturating_mul(2) + SPARE;
    job.stage.tasks = process::tasks_of_this_user().map(|now| now + tasks_max);
    let cage = job.is_caged.then(|| Cage::build(tasks_max, job.stage.memory_mib)).flatten();
    let cage = cage.map(Arc::new);

    let (ours, theirs) = UnixStream::pair()?;
    let main = start(&job, theirs.into())?;
    // After the start, so that it alone is raised: it must get its turn among a thousand others.
    // Only root may, and only root needs to: others have `RLIMIT_NPROC`.
    let _ = setpriority_process(None, FIRST);
    let (sender, events) = channel();
    listen(&sender, ours, &job, cage.clone());
    {
        let sender = sender.clone();
        thread::spawn(move || {
            let _ = host.read(&mut [0]);
            let _ = sender.send(Event::HungUp);
        });
    }
    thread::spawn(move || reap(&sender));
    let report = watch(&job, main, &events);
    // Nothing is in it any more, so this removes it.
    drop(cage);
    Ok(report)
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
fn listen(sender: &Sender<Event>, mut stage: UnixStream, job: &Job, cage: Option<Arc<Cage>>) {
    let sender = sender.clone();
    let order = job.stage.clone();
    thread::spawn(move || {
        let staged = match instruct(&mut stage, &order, cage.as_deref()) {
            Ok(staged) => Some(staged),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Staged::Failed(error.to_string())),
        };
        drop(cage);
        let _ = sender.send(Event::Staged(staged));
    });
}

/// Nothing of the command runs before the stage has its order, so all there is can be caged.
fn instruct(stage: &mut UnixStream, order: &Stage, cage: Option<&Cage>) -> io::Result<Staged> {
    match wire::receive(stage)? {
        Staged::Waiting => {}
        answer @ (Staged::Ready | Staged::Failed(_)) => return Ok(answer),
    }
    if let Some(cage) = cage {
        for member in process::descendants(getpid().as_raw_pid()) {
            cage.admit(member)?;
        }
    }
    wire::send(stage, order)?;
    wire::receive(stage)
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
    let mut next_look = Instant::now() + LOOK;
    while ended.is_none() && killed.is_none() && !alone {
        // By the clock: a command that makes events without end must be looked at all the same.
        let now = Instant::now();
        if now >= next_look {
            killed = exceeded(job).map(Report::Exceeded);
            next_look = Instant::now() + LOOK;
            continue;
        }
        match events.recv_timeout(next_look - now) {
            Ok(Event::Staged(message)) => staged = Some(message),
            Ok(Event::Ended(pid, status)) if pid.as_raw_pid() == main => ended = Some(status),
            Ok(Event::Ended(..)) => {}
            Ok(Event::Alone) => alone = true,
            Ok(Event::HungUp) => killed = Some(Report::Killed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => alone = true,
        }
    }
    kill_all(job.level, events, alone, &mut staged, |pid, status| {
        if pid.as_raw_pid() == main {
            ended = ended.or(Some(status));
        }
    });
    match (staged.flatten(), killed, ended) {
        (_, Some(report), _) => report,
        (Some(Staged::Failed(reason)), None, _) => Report::Failed(reason),
        (Some(Staged::Ready), None, Some(status)) => exit(job.level, status),
        (None, None, Some(status)) => Report::Failed(format!("the walls ended with {status:?}")),
        (Some(Staged::Waiting), None, Some(_)) | (_, None, None) => {
            Report::Failed("the command was lost".to_owned())
        }
    }
}

fn exceeded(job: &Job) -> Option<Resource> {
    let walls = if job.outer.is_empty() { 0 } else { WALLS };
    let tasks_max = job.processes + walls;
    let mut members = Vec::new();
    let mut tasks = 0;
    process::visit(getpid().as_raw_pid(), |member| {
        members.push(member);
        tasks += member.tasks;
        // Too many are too many; to count them all would only give them time.
        if tasks > tasks_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let memory_max = job.stage.memory_mib.saturating_mul(1024 * 1024);
    if tasks > tasks_max {
        Some(Resource::Processes)
    } else if process::memory_bytes(&members, memory_max) > memory_max {
        Some(Resource::Memory)
    } else {
        None
    }
}

/// Kills until nothing is left.
fn kill_all(
    level: Level,
    events: &Receiver<Event>,
    mut alone: bool,
    staged: &mut Option<Option<Staged>>,
    mut ended: impl FnMut(Pid, WaitStatus),
) {
    let begun = Instant::now();
    while !(alone && staged.is_some()) && begun.elapsed() < DEATH_MAX {
        if !alone {
            kill_round(level, begun);
        }
        let until = Instant::now() + ROUND;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match events.recv_timeout(left) {
                Ok(Event::Alone) => {
                    alone = true;
                    break;
                }
                Ok(Event::Ended(pid, status)) => ended(pid, status),
                Ok(Event::Staged(message)) => *staged = Some(message),
                Ok(Event::HungUp) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// One attempt to kill all there is.
fn kill_round(level: Level, begun: Instant) {
    let own = getpid().as_raw_pid();
    if level == Level::Bubblewrap {
        // Bubblewrap's own two, the second of which is the init of all others: the kernel lets
        // nobody fork in a namespace whose init dies, and kills the rest.
        let mut walls = 0;
        process::visit(own, |member| {
            process::signal(member, Signal::KILL);
            walls += 1;
            if walls == WALLS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        return;
    }
    // What is stopped does not fork: once a pass finds nobody new, nobody is left to. To kill at
    // once would be a race with whoever forks faster.
    let mut stopped = HashSet::new();
    loop {
        let before = stopped.len();
        let mut groups = HashSet::new();
        process::visit(own, |member| {
            if stopped.insert(member.pid) && groups.insert(process::group(member)) {
                process::signal_group(member, Signal::STOP);
            }
            ControlFlow::Continue(())
        });
        if stopped.len() == before || begun.elapsed() > DEATH_MAX {
            break;
        }
    }
    for member in process::descendants(own) {
        process::signal(member, Signal::KILL);
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

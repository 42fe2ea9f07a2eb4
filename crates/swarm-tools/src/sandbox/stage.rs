//! The stage: a process that gives up what it may do, then becomes the command.
//!
//! It has a single thread, for Landlock and seccomp bind the thread that asks. The order
//! matters: each step takes away something that an earlier one needed.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use rlimit::Resource;
use rustix::fs::Mode;
use rustix::process::{Signal, nice, set_parent_process_death_signal, setsid, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use swarm_core::port::sandbox::Level;

use super::wire::{self, Stage, Staged};
use super::{landlock, seccomp};

const NO_SUCH_PROGRAM: u8 = 127;
const CANNOT_EXECUTE: u8 = 126;
const NICE: i32 = 10;
const MIB: u64 = 1024 * 1024;

/// Never returns when all goes well.
pub(super) fn main() -> ExitCode {
    wire::close_inherited();
    let Ok(mut warden) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    if wire::send(&mut warden, &Staged::Waiting).is_err() {
        return ExitCode::from(wire::NOT_STARTED);
    }
    let Ok(stage) = wire::receive::<Stage>(&mut warden) else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    if let Err(reason) = wall_in(&stage) {
        let _ = wire::send(&mut warden, &Staged::Failed(reason));
        return ExitCode::from(wire::NOT_STARTED);
    }
    if wire::send(&mut warden, &Staged::Ready).is_err() {
        return ExitCode::from(wire::NOT_STARTED);
    }
    become_command(&stage)
}

fn wall_in(stage: &Stage) -> Result<(), String> {
    if stage.level < Level::Bubblewrap {
        setsid().map_err(failed("a session of its own"))?;
        // Should even the warden be killed, at least the command itself goes with it.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(failed("dying with the warden"))?;
    }
    std::env::set_current_dir(&stage.dir).map_err(failed("entering the directory"))?;
    umask(Mode::from_raw_mode(0o022));
    // When memory runs out, this goes first. A kernel without the file has no such choice.
    let _ = fs::write("/proc/self/oom_score_adj", "500");
    // The host answers people while this builds.
    let _ = nice(NICE);
    limit(stage).map_err(failed("limits"))?;
    drop_capabilities().map_err(failed("giving up capabilities"))?;
    set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    let unix_sockets = landlock::restrict(stage)?;
    seccomp::restrict(stage, unix_sockets)
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn limit(stage: &Stage) -> io::Result<()> {
    let at_most = |resource: Resource, wanted: u64| {
        let (_, hard) = resource.get()?;
        resource.set(wanted.min(hard), wanted.min(hard))
    };
    at_most(Resource::CORE, 0)?;
    at_most(Resource::FSIZE, stage.file_mib.saturating_mul(MIB))?;
    // Not the address space: runtimes reserve far more of it than they ever use.
    at_most(Resource::DATA, stage.memory_mib.saturating_mul(MIB))?;
    match stage.tasks {
        Some(tasks) => at_most(Resource::NPROC, tasks),
        None => Ok(()),
    }
}

/// Root without capabilities owns its files and is otherwise like anyone.
fn drop_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // Only who holds CAP_SETPCAP can, and only then is it needed.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

fn become_command(stage: &Stage) -> ExitCode {
    let Some((program, arguments)) = stage.argv.split_first() else {
        return ExitCode::from(wire::NOT_STARTED);
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&stage.env)
        .stdin(Stdio::null())
        .exec();
    let (code, words) = match error.kind() {
        io::ErrorKind::NotFound => (NO_SUCH_PROGRAM, "no such program in the sandbox's PATH"),
        _ => (CANNOT_EXECUTE, "the program cannot be executed in the sandbox"),
    };
    let _ = writeln!(io::stderr(), "sandbox: `{program}`: {words} ({error})");
    ExitCode::from(code)
}

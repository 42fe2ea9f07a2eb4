//! Whether a level works here, found out by running something behind its walls.
//!
//! The something reads a file of its workspace and fails to read one beside it: walls that stand
//! but hide nothing are as bad as none.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use swarm_core::port::sandbox::{Command, Level, Limits};

use super::plan::Planner;
use super::run::{self, Walls};
use super::view::View;
use super::wire::{self, Report};
use super::{Config, toolchain};

/// How long a trial may take.
const TRIAL_MAX: Duration = Duration::from_secs(20);
const INSIDE: &str = "inside";
const OUTSIDE: &str = "outside";
/// Prints the one and must not print the other.
const SCRIPT: &str = "cat inside; cat ../outside 2>/dev/null; true";

/// Tries `level`. On success the walls and what they give here; else what is missing, and how to
/// mend it.
pub(super) fn probe(config: &Config, level: Level) -> Result<(Walls, String), String> {
    let bwrap = match level {
        Level::Bubblewrap => Some(find_bwrap(config)?),
        Level::Landlock => None,
    };
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        format!("{level}: {what}: {error}{}", advice(level))
    };
    let config = with_directories(config)
        .map_err(|error| format!("{level}: the directories for caches and scratch: {error}"))?;
    let view = View::new(&config).map_err(|error| cannot("looking at the host", &error))?;
    let planner = Arc::new(Planner { config, view, level, bwrap });
    let seen = try_out(&planner).map_err(|reason| cannot("a trial run failed", &reason))?;
    if seen != INSIDE {
        return Err(cannot("a trial run saw what it must not", &format!("{seen:?}")));
    }
    let gives = match (level, rustix::process::getuid().is_root()) {
        (Level::Bubblewrap, false) => "works: files, processes and network of its own",
        (Level::Bubblewrap, true) => {
            "works: files, processes and network of its own; the host is root, so give it a user"
        }
        (Level::Landlock, false) => {
            "works: files and sockets closed; no loopback, no /tmp, no masks; process ids are shared"
        }
        (Level::Landlock, true) => {
            "works: files and sockets closed; no loopback, no /tmp, no masks; process ids are \
             shared; the host is root, so give it a user"
        }
    };
    Ok((Walls { planner }, gives.to_owned()))
}

fn find_bwrap(config: &Config) -> Result<PathBuf, String> {
    let named = config.bwrap.iter().cloned();
    let in_path = toolchain::path_entries(&config.path).map(|entry| entry.join("bwrap"));
    let candidates: Vec<PathBuf> =
        if config.bwrap.is_some() { named.collect() } else { in_path.collect() };
    candidates.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        let place = match &config.bwrap {
            Some(named) => format!("no `{}`", named.display()),
            None => "no `bwrap` in PATH".to_owned(),
        };
        format!("bubblewrap: {place}: install the package `bubblewrap`")
    })
}

fn with_directories(config: &Config) -> io::Result<Config> {
    let mut config = config.clone();
    for directory in [&mut config.caches, &mut config.scratch] {
        fs::create_dir_all(&directory)?;
        *directory = directory.canonicalize()?;
    }
    config.entry = config.entry.canonicalize()?;
    Ok(config)
}

fn advice(level: Level) -> &'static str {
    match level {
        Level::Bubblewrap => {
            " (it needs user namespaces: `sysctl user.max_user_namespaces`, on Ubuntu an AppArmor \
             profile for bwrap, in a container a seccomp profile that allows them)"
        }
        Level::Landlock => "",
    }
}

/// What the trial printed.
fn try_out(planner: &Planner) -> Result<String, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let trial = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(&planner.config.scratch)
        .map_err(|error| words(&error))?;
    let workspace = trial.path().join("workspace");
    write_files(trial.path(), &workspace).map_err(|error| words(&error))?;
    let mut command = Command::new(&workspace, ["sh", "-c", SCRIPT]);
    command.limits = Limits { processes: 64, memory_mib: 1024, ..Limits::default() };
    let planned = planner.plan(&command).map_err(|error| words(&error))?;

    let (mut warden, mut socket) =
        run::warden(&planner.config.entry).map_err(|error| words(&error))?;
    let mut child = warden.spawn().map_err(|error| {
        format!("`{}` cannot be started: {error}", planner.config.entry.display())
    })?;
    // Else this process would hold the warden's end too, and never see it close.
    drop(warden);
    let report = socket
        .set_read_timeout(Some(TRIAL_MAX))
        .and_then(|()| wire::send(&mut socket, &planned.job))
        .and_then(|()| wire::receive::<Report>(&mut socket));
    // Should the warden have removed it already, there is nothing left to remove.
    drop(planned);
    drop(socket);
    if report.is_err() {
        // Not a warden, whatever it is.
        child.kill().map_err(|error| words(&error))?;
    }
    let mut said = [String::new(), String::new()];
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said[0]).map_err(|error| words(&error))?;
    }
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said[1]).map_err(|error| words(&error))?;
    }
    child.wait().map_err(|error| words(&error))?;
    let [stdout, stderr] = said;
    match report {
        Ok(Report::Code(0)) => Ok(stdout),
        Ok(Report::Failed(reason)) => Err(format!("{reason}: {}", stderr.trim())),
        Ok(report) => Err(format!("it ended with {report:?}: {}", stderr.trim())),
        Err(_) => Err(format!(
            "`{}` does not build walls when started with `{}`",
            planner.config.entry.display(),
            super::ENTRY
        )),
    }
}

fn write_files(trial: &Path, workspace: &Path) -> io::Result<()> {
    fs::create_dir(workspace)?;
    fs::write(workspace.join(INSIDE), INSIDE)?;
    fs::write(trial.join(OUTSIDE), OUTSIDE)
}

//! Sandboxes: bubblewrap, else Landlock and seccomp, else a refusal.
//!
//! [`detect`] tries, once, what really works here; there is no way to run a command without
//! walls. Any program that calls [`detect`] must call [`sandbox_exec_main`] first of all when its
//! first argument is [`ENTRY`]: the walls are built by that same program, started again.
//!
//! ```text
//! host ── job ──▶ warden ── bwrap ──▶ stage ──▶ command      (bubblewrap)
//!      ◀─ report ─┘   └───────────▶ stage ──▶ command        (landlock)
//! ```
//!
//! The *warden* is outside the walls: it starts the command, watches what it uses, and when the
//! command ends, the host dies or the host hangs up, it kills all that is left. The *stage* is
//! inside: a process with a single thread that gives up what it may do, then becomes the command.
//!
//! | | bubblewrap | landlock |
//! | --- | --- | --- |
//! | files outside | do not exist | exist, cannot be opened |
//! | `/tmp`, HOME | private, in memory, bounded | private directories; `/tmp` itself is closed |
//! | `/proc` | its own | closed but for `cpuinfo` and the like |
//! | network: none | a loopback of its own, nothing else | no sockets at all: tests that listen fail |
//! | Unix sockets | its own, and what is in a visible directory | none |
//! | signals to the host | impossible | impossible from Linux 6.12; before, kept only from its main thread's id |
//! | modes and times of the user's files outside | out of reach | can be changed, unlike what is in them |
//! | masks in the workspace | yes | refused |
//! | System V IPC, `/dev/shm` | its own | none |
//! | user | 1000, no capabilities | the host's user, no capabilities |
//!
//! Both count processes and memory twenty times a second, files that live in memory alone
//! included, and kill what has too much. Behind that
//! stand `RLIMIT_DATA`, `RLIMIT_NPROC` (which the kernel does not apply to root) and, where the host
//! may make one, a control group. A host that runs as root stays the owner of
//! its files: what hides them is that they are not there, so prefer a user of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use swarm_core::port::sandbox::{Error, Level, Sandbox};

mod bubblewrap;
mod cage;
mod capture;
mod landlock;
mod plan;
mod probe;
mod process;
mod refuse;
mod run;
mod seccomp;
mod stage;
mod toolchain;
mod view;
mod warden;
mod wire;

/// The hidden first argument by which the host's program builds walls instead of serving.
pub const ENTRY: &str = "__sandbox-exec";

/// What the sandboxes need to know of the host.
#[derive(Clone, Debug)]
pub struct Config {
    /// The program that calls [`sandbox_exec_main`]: this one, unless this is a test.
    pub entry: PathBuf,
    /// The `bwrap` to use, instead of the one in PATH.
    pub bwrap: Option<PathBuf>,
    /// The host's PATH: kept, and visible inside.
    pub path: String,
    /// The user's home: invisible but for the toolchains that PATH names.
    pub home: Option<PathBuf>,
    /// Variables by which toolchains find themselves, such as `RUSTUP_TOOLCHAIN`. What they
    /// name as a directory is visible.
    pub toolchain_env: BTreeMap<String, String>,
    /// Variables that name the files of certificate authorities; given and visible only with the
    /// host's network.
    pub certificate_env: BTreeMap<String, String>,
    /// Where the package caches live that commands share; made when missing.
    pub caches: PathBuf,
    /// Where private home and temporary directories live while a command runs; made when missing.
    pub scratch: PathBuf,
    /// A file that this process holds a shared lock on as long as it lives. Each warden holds it,
    /// too, so that who can lock it alone knows that nothing of this process runs any more.
    pub life: Option<PathBuf>,
    /// Never visible, even inside something that is: the data directory, above all.
    pub hidden: Vec<PathBuf>,
    /// Visible to be read, besides the toolchains.
    pub read_only: Vec<PathBuf>,
    /// The weakest level that is good enough. Whoever wants less than bubblewrap says so.
    pub minimum: Level,
    /// This level and no other, though a stronger one may work.
    pub only: Option<Level>,
    /// Whether to make a control group for each command, where the host may; without one, the
    /// warden's counting is all that bounds the processes of root at the landlock level.
    pub control_groups: bool,
    /// Whether a command may ask for the host's network at all.
    pub host_network: bool,
    /// The size of a private `/tmp` and of a private home, each, in MiB (bubblewrap only).
    pub tmp_mib: u64,
}

impl Config {
    /// The usual configuration: caches and scratch below `data`, which itself stays hidden, and
    /// what `environment` (`std::env::vars_os()`) says of PATH, HOME and toolchains.
    /// No network, bubblewrap or nothing.
    #[must_use]
    pub fn new(
        entry: impl Into<PathBuf>,
        data: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let environment: BTreeMap<String, String> = environment
            .into_iter()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let chosen = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), environment.get(*name)?.clone())))
                .collect()
        };
        Self {
            entry: entry.into(),
            bwrap: None,
            path: environment.get("PATH").cloned().unwrap_or_else(|| "/usr/bin:/bin".to_owned()),
            home: environment.get("HOME").map(PathBuf::from),
            toolchain_env: chosen(toolchain::VARIABLES),
            certificate_env: chosen(toolchain::CERTIFICATE_VARIABLES),
            caches: data.join("caches"),
            scratch: data.join("scratch"),
            life: None,
            hidden: vec![data.to_owned()],
            read_only: Vec::new(),
            minimum: Level::Bubblewrap,
            only: None,
            control_groups: true,
            host_network: false,
            tmp_mib: 1024,
        }
    }
}

/// One level, as found here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The level.
    pub level: Level,
    /// What it gives here, or what is missing and how to mend it.
    pub verdict: Result<String, String>,
}

/// The strongest sandbox that works here and that the configuration allows; else one that
/// refuses every command and says why. Starts a few processes and waits for them.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "a sandbox keeps what it was configured with")]
pub fn detect(config: Config) -> Arc<dyn Sandbox> {
    let mut missing = Vec::new();
    for level in [Level::Bubblewrap, Level::Landlock] {
        if config.only.is_some_and(|only| only != level) {
            continue;
        }
        match probe::probe(&config, level) {
            Ok(_) if level < config.minimum => missing.push(format!(
                "{level} works here but is weaker than {}: allow it by naming it as the minimum",
                config.minimum
            )),
            Ok((walls, gives)) => {
                if level < Level::Bubblewrap {
                    tracing::warn!(%level, reasons = missing.join("; "), "Commands run behind the weaker walls.");
                } else {
                    tracing::debug!(%level, gives, "Commands run behind walls.");
                }
                return Arc::new(walls);
            }
            Err(reason) => missing.push(reason),
        }
    }
    Arc::new(refuse::Refusing { missing })
}

/// Every level, strongest first, each really tried: what `doctor` prints.
#[must_use]
pub fn report(config: &Config) -> Vec<Finding> {
    [Level::Bubblewrap, Level::Landlock]
        .into_iter()
        .map(|level| Finding {
            level,
            verdict: probe::probe(config, level).map(|(_, gives)| gives),
        })
        .collect()
}

/// Builds the walls and becomes the command; to be called with the arguments after [`ENTRY`],
/// before anything else in `main`, while the process has a single thread.
#[must_use]
pub fn sandbox_exec_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let role = arguments.into_iter().next();
    match role.as_ref().and_then(|role| role.to_str()) {
        Some(wire::WARDEN) => warden::main(),
        Some(wire::STAGE) => stage::main(),
        _ => ExitCode::from(wire::NOT_STARTED),
    }
}

fn unavailable(missing: &[String]) -> Error {
    Error::Unavailable { missing: missing.to_vec() }
}

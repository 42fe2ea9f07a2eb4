//! Sandboxes: bubblewrap, else Landlock and seccomp, else a refusal.
//!
//! [`detect`] tries, once, what really works here; there is no way to run a command without
//! walls. Any program that calls [`detect`] must call [`sandbox_exec_main`] first of all when its
//! first argument is [`ENTRY`]: the walls are built by that same program, started again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use swarm_core::port::sandbox::{Error, Level, Sandbox};

mod refuse;

/// The hidden first argument by which the host's program builds walls instead of serving.
pub const ENTRY: &str = "__sandbox-exec";

/// What the sandboxes need to know of the host.
#[derive(Clone, Debug)]
pub struct Config {
    /// The program that calls [`sandbox_exec_main`]: this one, unless this is a test.
    pub entry: PathBuf,
    /// The host's PATH: kept, and visible inside.
    pub path: OsString,
    /// The user's home: invisible but for the toolchains that PATH names.
    pub home: Option<PathBuf>,
    /// Variables by which toolchains find themselves, such as `RUSTUP_TOOLCHAIN`.
    pub toolchain_env: Vec<(String, OsString)>,
    /// Where the package caches live that commands share; made when missing.
    pub caches: PathBuf,
    /// Where private home and temporary directories live while a command runs; made when missing.
    pub scratch: PathBuf,
    /// Never visible, even inside something that is: the data directory, above all.
    pub hidden: Vec<PathBuf>,
    /// Visible to be read, besides the toolchains.
    pub read_only: Vec<PathBuf>,
    /// The weakest level that is good enough. Whoever wants less than bubblewrap says so.
    pub minimum: Level,
    /// This level and no other, though a stronger one may work.
    pub only: Option<Level>,
    /// The size of a private `/tmp` and of a private home, each, in MiB.
    pub tmp_mib: u64,
}

impl Config {
    /// The usual configuration: caches and scratch below `data`, which itself stays hidden, and
    /// what `environment` (`std::env::vars_os()`) says of PATH, HOME and toolchains.
    #[must_use]
    pub fn new(
        entry: impl Into<PathBuf>,
        data: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        Self {
            entry: entry.into(),
            path: variable("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
            home: variable("HOME").map(PathBuf::from),
            toolchain_env: Vec::new(),
            caches: data.join("caches"),
            scratch: data.join("scratch"),
            hidden: vec![data.to_owned()],
            read_only: Vec::new(),
            minimum: Level::Bubblewrap,
            only: None,
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
/// refuses every command and says why.
#[must_use]
pub fn detect(config: Config) -> Arc<dyn Sandbox> {
    let missing = report(&config).into_iter().filter_map(|finding| finding.verdict.err()).collect();
    Arc::new(refuse::Refusing { missing })
}

/// Every level, strongest first, each really tried.
#[must_use]
pub fn report(config: &Config) -> Vec<Finding> {
    let _ = config;
    vec![
        Finding { level: Level::Bubblewrap, verdict: Err("bubblewrap: not wired yet".into()) },
        Finding { level: Level::Landlock, verdict: Err("landlock: not wired yet".into()) },
    ]
}

/// Builds the walls and becomes the command; to be called with the arguments after [`ENTRY`],
/// before anything else in `main`, while the process has a single thread.
#[must_use]
pub fn sandbox_exec_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _ = arguments.into_iter().count();
    ExitCode::from(125)
}

fn unavailable(missing: &[String]) -> Error {
    Error::Unavailable { missing: missing.to_vec() }
}

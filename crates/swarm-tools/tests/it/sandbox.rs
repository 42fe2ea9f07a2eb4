//! A bench for sandboxes: a data directory with secrets, a workspace inside it, both levels.
//!
//! [`on_both_levels!`] makes two tests of each function; the walls differ, the facts do not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use swarm_core::port::sandbox::{Command, Error, Finished, Level, Sandbox};
use swarm_tools::sandbox::{Config, detect};
use tempfile::TempDir;

/// Makes one test for each level of each function.
#[macro_export]
macro_rules! on_both_levels {
    ($(async fn $name:ident($bench:ident) $body:block)*) => {
        mod bubblewrap {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let $bench = $crate::sandbox::Bench::new(swarm_core::port::sandbox::Level::Bubblewrap);
                $body
            })*
        }
        mod landlock {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let $bench = $crate::sandbox::Bench::new(swarm_core::port::sandbox::Level::Landlock);
                $body
            })*
        }
    };
}

/// What the secrets contain: it must never come out.
pub(crate) const SECRET: &str = "correct horse battery staple";

pub(crate) struct Bench {
    root: TempDir,
    pub(crate) level: Level,
    pub(crate) workspace: PathBuf,
    pub(crate) sandbox: Arc<dyn Sandbox>,
}

impl Bench {
    pub(crate) fn new(level: Level) -> Self {
        Self::with(level, |_| {})
    }

    pub(crate) fn with(level: Level, change: impl FnOnce(&mut Config)) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let data = root.path().canonicalize().expect("it exists").join("data");
        let workspace = data.join("workspaces/one");
        fs::create_dir_all(&workspace).expect("a new directory");
        fs::write(data.join("secret"), SECRET).expect("a new file");
        let mut config = config(&data, level);
        change(&mut config);
        let sandbox = detect(config);
        assert_eq!(sandbox.level().expect("both levels work where these tests run"), level);
        Self { root, level, workspace, sandbox }
    }

    /// The data directory, as the host sees it.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().canonicalize().expect("it exists").join("data")
    }

    /// Writes a file of the workspace.
    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let file = self.workspace.join(path);
        fs::create_dir_all(file.parent().expect("it is in the workspace")).expect("a directory");
        fs::write(&file, text).expect("a file");
        file
    }

    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        Command::new(&self.workspace, argv.iter().copied())
    }

    pub(crate) async fn run(&self, argv: &[&str]) -> Finished {
        self.sandbox.run(self.command(argv)).await.expect("the sandbox runs it")
    }

    pub(crate) async fn sh(&self, script: &str) -> Finished {
        self.run(&["sh", "-c", script]).await
    }

    pub(crate) async fn python(&self, script: &str) -> Finished {
        self.run(&["python3", "-c", script]).await
    }

    pub(crate) async fn refused(&self, command: Command) -> String {
        match self.sandbox.run(command).await {
            Err(error @ (Error::Invalid(_) | Error::Unavailable { .. })) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// The usual configuration of this machine, at one level.
pub(crate) fn config(data: &Path, level: Level) -> Config {
    let entry = env!("CARGO_BIN_EXE_swarm-sandbox-probe");
    let mut config = Config::new(entry, data, std::env::vars_os());
    config.minimum = Level::Landlock;
    config.only = Some(level);
    config
}

/// Waits until `condition` holds, for at most ten seconds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed().as_secs() < 10, "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// Processes of this machine whose arguments hold `mark`.
pub(crate) fn processes_with(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("a Linux").filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|arguments| arguments.contains(mark))
        .collect()
}

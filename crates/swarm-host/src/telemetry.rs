//! Logs: to standard error, or to a file while the live view owns the terminal.
//!
//! Secrets cannot get here: keys are `SecretString`s, which print as nothing, and what the
//! environment holds is never logged.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Where logs go.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Standard error, for people.
    Stderr,
    /// Standard error, one JSON object a line.
    StderrJson,
    /// A file of this process in this directory.
    Directory(&'a Path),
}

/// Sets up logging for the whole process. `filter` is what `RUST_LOG` says; else only warnings
/// reach standard error, and steps of runs reach a file. Returns the file, if it is one.
///
/// # Errors
/// When the filter cannot be read, the file cannot be made, or logging is set up already.
pub fn init(filter: Option<&str>, target: Target<'_>) -> Result<Option<PathBuf>> {
    // `genai` logs what a server said word for word, which may hold the key; errors of ours
    // say the same with keys taken out.
    let usual = match target {
        Target::Stderr | Target::StderrJson => "warn,genai=off",
        Target::Directory(_) => "info,genai=off",
    };
    let filter = EnvFilter::try_new(filter.unwrap_or(usual))
        .context("RUST_LOG cannot be read; write something like `swarm_host=debug`")?;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE);
    let (done, file) = match target {
        Target::Stderr => {
            (subscriber.with_writer(std::io::stderr).with_ansi(false).try_init(), None)
        }
        Target::StderrJson => (subscriber.json().with_writer(std::io::stderr).try_init(), None),
        Target::Directory(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot make the directory {} for logs", dir.display()))?;
            let path = dir.join(format!("{}.log", std::process::id()));
            let file = File::options().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("cannot write the log {}", path.display()))?;
            let done = subscriber.with_ansi(false).with_writer(Mutex::new(file)).try_init();
            (done, Some(path))
        }
    };
    match done {
        Ok(()) => Ok(file),
        Err(error) => Err(anyhow::anyhow!("logging is set up already: {error}")),
    }
}

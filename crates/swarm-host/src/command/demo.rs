//! `demo`: an issue of a small repository becomes a merged change, without any account.
//!
//! Only the model's words are replayed. Everything else is what happens to any repository, by
//! the same code, graphs and prompts.

pub mod repository;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use swarm_core::port::forge::RepoId;
use swarm_core::port::sandbox;
use swarm_tools::git::Git;

use super::follow::Asking;
use super::out::{Out, quoted};
use super::{run, runs};
use crate::cli;
use crate::config::{self, Environment, Overrides, Settings};
use crate::order::{Order, real};
use crate::progress::{Outcome, Screen, clean_lines};
use crate::start::log;
use crate::telemetry::Target;
use crate::wire::{Host, HostBuilder, ModelSource};

/// What the models say in the demo.
const RECORDING: &str = include_str!("../../demo/recording.yaml");

const WORDS: &str = "\
This demo makes a small Rust repository with a failing test and an issue about it, and lets the
swarm work on it. Only the model's words are replayed, from a recording that is part of this
program. All else is real: clone, edits, tests in the sandbox, commits, pull request, review,
your approval, merge.
";

/// Runs the command.
///
/// # Errors
/// When the demo cannot be set up: no git, no cargo, no place to put it.
pub async fn run(
    environment: &Environment,
    shared: &cli::Shared,
    builder: HostBuilder,
    out: Out,
    given: &cli::Demo,
) -> Result<ExitCode> {
    let dir = place(environment, given.dir.as_deref())?;
    let overrides = Overrides {
        data_dir: Some(shared.data_dir.clone().unwrap_or_else(|| dir.join("data"))),
        without_file: true,
        ..Overrides::default()
    };
    let settings = config::load(environment, &overrides)?;
    let logs = settings.data_dir.join("logs");
    let owns_terminal = !out.is_json() && std::io::stdout().is_terminal();
    log(&settings, if owns_terminal { Target::Directory(&logs) } else { Target::Stderr })?;
    let git = tools(&settings)?;
    let repository = repository::make(&dir, git.program())?;
    let source = ModelSource::BuiltIn { name: "the demo's recording", text: RECORDING };
    let host = builder.models_from(source).build(settings).await?;
    if let Err(sandbox::Error::Unavailable { missing }) = host.parts().sandbox.level() {
        bail!(
            "no sandbox works here, and nothing is run without one\n  {}\n  On Debian and Ubuntu: \
             apt-get install bubblewrap",
            missing.join("\n  ")
        );
    }
    let mut screen = Screen::new(out.is_json());
    screen.say(WORDS);
    screen.say(&format!("Everything is in {}\n", dir.display()));
    let asking = if given.yes { Asking::ApproveAll } else { Asking::AtTerminal };
    let order = order(&host, &repository);
    let started = host.start(&order, false, 0).await?;
    let (last, was_left) = run::attend(&host, &mut screen, &started.id, asking).await?;
    let again = format!("swarm-host demo --dir {}", quoted(&dir.to_string_lossy()));
    if last.outcome == Outcome::Merged {
        screen.say(&story(&host, &git, &repository, &started.id).await?);
    }
    let code = run::conclude(&host, out, &last, was_left.then_some(again.as_str()))?;
    screen.say(&kept(&host, &dir, &repository));
    if last.outcome == Outcome::Waiting {
        screen.say(&format!("The demo goes on with:  {again}   (--yes approves)"));
    }
    Ok(code)
}

fn place(environment: &Environment, given: Option<&Path>) -> Result<PathBuf> {
    let dir = match given {
        Some(dir) => {
            let dir = environment.current_dir().join(dir);
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            dir
        }
        None => tempfile::Builder::new()
            .prefix("devinswarm-demo-")
            .tempdir()
            .context("cannot make a temporary folder; name one with --dir")?
            .keep(),
    };
    Ok(real(&dir))
}

/// What the demo needs on the machine besides this program.
fn tools(settings: &Settings) -> Result<Git> {
    let path = settings.environment().get("PATH").unwrap_or_default();
    let git = Git::find(path.as_ref()).context("the demo needs git: apt-get install git")?;
    if !settings.environment().path().iter().any(|dir| dir.join("cargo").is_file()) {
        bail!("the demo's repository is a Rust crate, so it needs cargo: see https://rustup.rs");
    }
    Ok(git)
}

fn order(host: &Host, repository: &Path) -> Order {
    let (title, body) = repository::ISSUE.split_once('\n').unwrap_or((repository::ISSUE, ""));
    Order {
        repo: RepoId(real(repository).to_string_lossy().into_owned()),
        title: title.trim_start_matches(['#', ' ']).to_owned(),
        body: body.trim().to_owned(),
        author: host.settings().owner(),
    }
}

/// The timeline, and what was merged.
async fn story(
    host: &Host,
    git: &Git,
    repository: &Path,
    run: &swarm_core::id::RunId,
) -> Result<String> {
    let timeline =
        runs::show(host.engine().store().as_ref(), run.as_str(), host.settings()).await?;
    let diff = repository::read(
        git.program(),
        repository,
        &["diff", "--no-ext-diff", "--no-textconv", "--no-color", "main^1", "main"],
    )?;
    Ok(format!("\nWhat happened\n\n{timeline}\n\nWhat was merged\n\n{}", clean_lines(&diff)))
}

fn kept(host: &Host, dir: &Path, repository: &Path) -> String {
    let data = &host.settings().data_dir;
    let line = |name: &str, path: &Path| format!("  {name:<11} {}", path.display());
    [
        "\nWhere everything is".to_owned(),
        line("folder", dir),
        line("repository", repository),
        line("data", data),
        line("workspaces", &data.join("workspaces")),
        format!(
            "  look around swarm-host{} runs list   and   git -C {} log --graph --all --oneline",
            host.settings().flags(),
            quoted(&repository.to_string_lossy())
        ),
    ]
    .join("\n")
}

//! From the arguments to the exit code: what `main` of every host does.
//!
//! The sandbox starts this same program again to build its walls. That must be noticed before
//! anything else happens, while the process has a single thread; so a custom host's `main` is
//! nothing but a call of [`start`].

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use swarm_graph::system::SystemClock;
use swarm_tools::sandbox;

use crate::cli::{self, Cli, Command};
use crate::command::out::Out;
use crate::command::{
    self, answer, approve, archive, blocks, cancel, demo, doctor, graph, run, runs, submit,
    versions,
};
use crate::config::{self, Environment, Overrides, Settings};
use crate::telemetry::{self, Target};
use crate::wire::{Home, Host, HostBuilder, ModelSource};

/// Does what the arguments say, with a host that `customise` may add to.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     swarm_host::start(|host| host)
/// }
/// ```
#[must_use]
pub fn start(customise: impl FnOnce(HostBuilder) -> HostBuilder) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == sandbox::ENTRY).is_some() {
        return sandbox::sandbox_exec_main(arguments);
    }
    let cli = Cli::parse();
    let builder = customise(HostBuilder::default());
    match work(cli, builder) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {}", chain(&error));
            command::exit_code(&error)
        }
    }
}

fn work(cli: Cli, builder: HostBuilder) -> Result<ExitCode> {
    // An error means that a custom host has chosen its own provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(Box::pin(dispatch(cli, builder)));
    // A terminal that is still being read must not keep the process.
    runtime.shutdown_background();
    done
}

/// Whether nobody reads any more, as in `swarm-host runs list | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The error and its causes, each on a line of its own.
fn chain(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some errors repeat their cause; once is enough.
        if !lines.iter().any(|line| line.contains(&text)) {
            lines.push(text);
        }
    }
    lines.join("\n  because: ")
}

async fn dispatch(cli: Cli, builder: HostBuilder) -> Result<ExitCode> {
    let environment = Environment::read();
    let out = Out::new(cli.shared.json);
    let shared = &cli.shared;
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "swarm-host", &mut script);
            command::out::line(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(cli::Config::Schema) => {
            let schema = serde_json::to_string_pretty(&config::schema())?;
            command::out::line(&schema)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config(what) => {
            let settings = config::load(&environment, &overrides(shared, None, None))?;
            command::config::run(&settings, out, what)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Db(what) => {
            let settings = config::load(&environment, &overrides(shared, None, None))?;
            log(&settings, Target::Stderr)?;
            command::db::run(&settings, out, what).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Graph(what) => {
            let settings = config::load(&environment, &overrides(shared, None, None))?;
            log(&settings, Target::Stderr)?;
            let (registry, texts) = builder.without_models().registry(&settings)?;
            let (registry, texts, settings) = (&registry, &texts, &settings);
            graph::run(versions::Parts { registry, texts, settings, out }, what).await
        }
        Command::Doctor(given) => {
            let overrides = overrides(shared, Some(&given.models), None);
            doctor::run(&environment, &overrides, builder, out, given).await
        }
        Command::Demo(given) => demo::run(&environment, shared, builder, out, given).await,
        Command::Run(given) => {
            let mut overrides = overrides(shared, Some(&given.models), given.repo.clone());
            overrides.slots = given.slots;
            let settings = config::load(&environment, &overrides)?;
            serve_or_follow(settings, builder, out, given).await
        }
        Command::Submit(given) => {
            let overrides = overrides(shared, None, Some(given.what.repo.clone()));
            let settings = config::load(&environment, &overrides)?;
            log(&settings, Target::Stderr)?;
            let host = builder.without_models().build(settings).await?;
            submit::run(&host, out, given).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Start(given) => {
            let settings = config::load(&environment, &overrides(shared, None, None))?;
            log(&settings, Target::Stderr)?;
            let host = builder.without_models().build(settings).await?;
            command::start::run(&host, out, given).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Runs(what @ (cli::Runs::Edit { .. } | cli::Runs::Replay { .. })) => {
            let settings = config::load(&environment, &overrides(shared, None, None))?;
            log(&settings, Target::Stderr)?;
            let host = builder.without_models().build(settings).await?;
            archive::run(host.engine(), host.settings(), out, what).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Runs(_)
        | Command::Blocks(_)
        | Command::Answer(_)
        | Command::Approve(_)
        | Command::Cancel(_) => {
            let settings = config::load(&environment, &overrides(shared, None, None))?;
            log(&settings, Target::Stderr)?;
            look(&settings, out, &cli.command).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The commands that need the store and nothing else.
async fn look(settings: &Settings, out: Out, what: &Command) -> Result<()> {
    let engine = Home::open(settings).await?.engine();
    let store = engine.store();
    match what {
        Command::Runs(what) => {
            if archive::run(&engine, settings, out, what).await? {
                return Ok(());
            }
            runs::run(store.clone(), &SystemClock, out, settings, what).await
        }
        Command::Blocks(what) => {
            blocks::run(store.as_ref(), out, engine.clock().now(), settings, what).await
        }
        Command::Answer(given) => answer::run(&engine, settings, out, given).await,
        Command::Approve(given) => approve::run(&engine, settings, out, given).await,
        Command::Cancel(given) => cancel::run(&engine, settings, out, given).await,
        Command::Demo(_)
        | Command::Run(_)
        | Command::Submit(_)
        | Command::Start(_)
        | Command::Graph(_)
        | Command::Db(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Completions { .. } => Ok(()),
    }
}

async fn serve_or_follow(
    settings: Settings,
    builder: HostBuilder,
    out: Out,
    given: &cli::Run,
) -> Result<ExitCode> {
    let work = given.work();
    let logs = settings.data_dir.join("logs");
    let owns_terminal = work.is_some() && !out.is_json() && std::io::stdout().is_terminal();
    log(&settings, if owns_terminal { Target::Directory(&logs) } else { Target::Stderr })?;
    if let Some(why) = &settings.passed_over {
        tracing::warn!("{why}");
    }
    let host: Host = builder.models_from(ModelSource::of(&given.models)).build(settings).await?;
    match work {
        Some(work) => run::one(&host, out, &work).await,
        None => run::serve(&host, out).await,
    }
}

fn overrides(
    shared: &cli::Shared,
    models: Option<&cli::Models>,
    repo: Option<std::path::PathBuf>,
) -> Overrides {
    Overrides {
        config: shared.config.clone(),
        data_dir: shared.data_dir.clone(),
        model: models.and_then(|models| models.model.clone()),
        repo,
        ..Overrides::default()
    }
}

pub(crate) fn log(settings: &Settings, target: Target<'_>) -> Result<()> {
    telemetry::init(settings.environment().get("RUST_LOG"), target)?;
    Ok(())
}

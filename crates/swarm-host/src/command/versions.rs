//! `graph diff` and `graph migrate`: what another version of a graph would mean, and moving live
//! runs to it.
//!
//! What a newcomer gets wrong: nothing moves without `--apply`. A run stays on the version that
//! it was started with, however the files change.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::json;
use swarm_core::id::{ChannelName, NodeName};
use swarm_graph::diff::diff;
use swarm_graph::engine::Engine;
use swarm_graph::expr::Expr;
use swarm_graph::graph::Graph;
use swarm_graph::migrate::{Mapping, Migration, Obstacle};
use swarm_graph::registry::Registry;
use swarm_graph::system::{SystemClock, SystemEntropy};

use super::{Usage, find, graph, out::Out, people};
use crate::cli;
use crate::config::Settings;
use crate::wire::{Home, Layers};
use crate::worker::worker_id;

/// What the commands work with.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'p> {
    /// The node kinds that graphs are checked against.
    pub registry: &'p Registry,
    /// The graphs that the host would load.
    pub texts: &'p Layers,
    /// Where the store is.
    pub settings: &'p Settings,
    /// Where to print.
    pub out: Out,
}

/// Runs `graph diff`.
///
/// # Errors
/// [`Usage`] for a graph that is not there; the store's failure.
pub async fn run_diff(parts: Parts<'_>, old: &str, new: &str, live: bool) -> Result<ExitCode> {
    let old = graph::one(parts.registry, parts.texts, old)?;
    let new = graph::one(parts.registry, parts.texts, new)?;
    let changes = diff(&old, &new);
    let runs = if live { prospects(parts, &new, &Mapping::default()).await? } else { Vec::new() };
    let value =
        json!({ "changes": changes, "runs": runs.iter().map(Told::value).collect::<Vec<_>>() });
    parts.out.print(&value, || {
        let mut lines: Vec<String> = changes
            .iter()
            .map(|change| match &change.breaks {
                Some(why) => format!("! {}: {why}", change.what),
                None => format!("  {}", change.what),
            })
            .collect();
        if changes.is_empty() {
            lines.push("The two are the same graph.".to_owned());
        }
        if live {
            lines.push(String::new());
            lines.extend(told(&runs, &new));
        }
        lines.join("\n")
    })?;
    Ok(exit(&runs))
}

/// Runs `graph migrate`.
///
/// # Errors
/// [`Usage`] for a graph or run that is not there or a mapping that cannot be read; the store's
/// failure.
pub async fn run_migrate(parts: Parts<'_>, given: &cli::Migrate) -> Result<ExitCode> {
    let to = graph::one(parts.registry, parts.texts, &given.graph)?;
    let mapping = mapping(given)?;
    let engine = engine(parts).await?;
    let mut runs = prospects_on(&engine, &to, &mapping).await?;
    if !given.runs.is_empty() {
        let mut wanted = Vec::new();
        for run in &given.runs {
            wanted.push(find::run(engine.store().as_ref(), run).await?.start.id.to_string());
        }
        runs.retain(|told| wanted.contains(&told.run));
    }
    if given.apply {
        let by = people::answerer(parts.settings, given.login.as_deref())?.login;
        let worker = worker_id(&SystemEntropy);
        for told in &mut runs {
            let run = told.run.parse()?;
            told.became = match engine.migrate(&run, &to, &mapping, &worker, &by).await? {
                Migration::Moved(notes) => Became::Moved(notes),
                Migration::Refused(obstacles) => Became::Refused(obstacles),
                Migration::Busy => Became::Busy,
                Migration::Settled => Became::Settled,
            };
        }
    }
    let value = runs.iter().map(Told::value).collect::<Vec<_>>();
    parts.out.print(&value, || {
        let mut lines = told(&runs, &to);
        if !given.apply && !runs.is_empty() {
            lines.push("\nNothing was changed; `--apply` moves them.".to_owned());
        }
        lines.join("\n")
    })?;
    Ok(exit(&runs))
}

/// What becomes of one run.
struct Told {
    run: String,
    became: Became,
}

enum Became {
    /// It would be moved.
    Movable(Vec<String>),
    Moved(Vec<String>),
    Refused(Vec<Obstacle>),
    Busy,
    Settled,
}

impl Told {
    fn value(&self) -> serde_json::Value {
        let (outcome, notes, obstacles): (_, &[String], &[Obstacle]) = match &self.became {
            Became::Movable(notes) => ("movable", notes, &[]),
            Became::Moved(notes) => ("moved", notes, &[]),
            Became::Refused(obstacles) => ("refused", &[], obstacles),
            Became::Busy => ("busy", &[], &[]),
            Became::Settled => ("settled", &[], &[]),
        };
        json!({ "run": self.run, "outcome": outcome, "notes": notes, "obstacles": obstacles })
    }

    fn lines(&self) -> Vec<String> {
        let (head, rest) = match &self.became {
            Became::Movable(notes) => ("can be moved", notes.clone()),
            Became::Moved(notes) => ("was moved", notes.clone()),
            Became::Refused(obstacles) => (
                "cannot be moved",
                obstacles.iter().map(|one| format!("{}\n    → {}", one.what, one.remedy)).collect(),
            ),
            Became::Busy => {
                ("is being worked on", vec!["try again when it waits or has ended".to_owned()])
            }
            Became::Settled => ("has nothing to move", Vec::new()),
        };
        let head = format!("{}: {head}", self.run);
        [head].into_iter().chain(rest.into_iter().map(|line| format!("  - {line}"))).collect()
    }
}

fn told(runs: &[Told], to: &Graph) -> Vec<String> {
    if runs.is_empty() {
        return vec![format!("No live run is on another version of `{}`.", to.name())];
    }
    runs.iter().flat_map(Told::lines).collect()
}

fn exit(runs: &[Told]) -> ExitCode {
    let is_left = |told: &Told| matches!(told.became, Became::Refused(_) | Became::Busy);
    if runs.iter().any(is_left) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn engine(parts: Parts<'_>) -> Result<Engine> {
    let home = Home::open(parts.settings).await?;
    let library = Arc::new(parts.texts.load(parts.registry.clone())?);
    let store = home.store().clone();
    Ok(Engine::new(store, Arc::new(SystemClock), Arc::new(SystemEntropy), library))
}

async fn prospects(parts: Parts<'_>, to: &Graph, mapping: &Mapping) -> Result<Vec<Told>> {
    prospects_on(&engine(parts).await?, to, mapping).await
}

async fn prospects_on(engine: &Engine, to: &Graph, mapping: &Mapping) -> Result<Vec<Told>> {
    let prospects = engine.prospects(to, mapping).await?;
    Ok(prospects
        .into_iter()
        .map(|prospect| Told {
            run: prospect.run.start.id.to_string(),
            became: prospect.result.map_or_else(Became::Refused, Became::Movable),
        })
        .collect())
}

fn mapping(given: &cli::Migrate) -> Result<Mapping> {
    let mut mapping = Mapping::default();
    for text in &given.rename {
        let (from, to) = pair("--rename", text)?;
        mapping.rename.insert(named(NodeName::new(from))?, named(NodeName::new(to))?);
    }
    for text in &given.drop_channel {
        mapping.drop.insert(named(ChannelName::new(text))?);
    }
    for text in &given.set {
        let (channel, expression) = pair("--set", text)?;
        let expression =
            Expr::parse(expression).map_err(|error| Usage(format!("--set {text}: {error}")))?;
        mapping.set.insert(named(ChannelName::new(channel))?, expression);
    }
    Ok(mapping)
}

fn pair<'t>(flag: &str, text: &'t str) -> Result<(&'t str, &'t str)> {
    text.split_once('=')
        .with_context(|| Usage(format!("{flag} {text}: two parts joined by `=` are wanted")))
}

fn named<T>(name: Result<T, swarm_core::id::InvalidId>) -> Result<T> {
    name.map_err(|error| Usage(error.to_string()).into())
}

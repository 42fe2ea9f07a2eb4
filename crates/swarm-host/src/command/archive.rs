//! `runs checkpoints|replay|fork|edit|copy|delete|prune`: what people do to whole histories.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use swarm_core::id::{NodeName, RunId};
use swarm_core::port::store::{CheckpointFilter, CheckpointInfo, DeleteError, EditError};
use swarm_core::time::Timestamp;
use swarm_graph::archive::{EditRefused, ForkOptions};
use swarm_graph::engine::Engine;
use swarm_graph::replay::replay;
use swarm_graph::system::SystemEntropy;

use super::{Usage, find, out, out::Out, people};
use crate::cli;
use crate::config::Settings;
use crate::progress::clean;
use crate::retention::retention;
use crate::worker::worker_id;

/// Runs one of the commands; `false` if it is none of these. An edit and a replay need an engine that
/// knows the node kinds, for they load the run's graph.
///
/// # Errors
/// [`Usage`] for what cannot be meant, or cannot be done to this run now; the store's failure.
pub async fn run(engine: &Engine, settings: &Settings, out: Out, what: &cli::Runs) -> Result<bool> {
    let store = engine.store().as_ref();
    match what {
        cli::Runs::List { .. } | cli::Runs::Show { .. } | cli::Runs::Events { .. } => {
            return Ok(false);
        }
        cli::Runs::Checkpoints { run, active, ended, before, limit } => {
            let run = find::run(store, run).await?.start.id;
            let node = |name: &Option<String>| name.as_ref().map(NodeName::new).transpose();
            let filter = CheckpointFilter {
                active: node(active).map_err(|error| Usage(error.to_string()))?,
                ended: node(ended).map_err(|error| Usage(error.to_string()))?,
                before: *before,
                limit: *limit,
                ..CheckpointFilter::default()
            };
            let listed = engine.checkpoints(&run, &filter).await?;
            out.print(&listed, || list(&listed, engine.clock().now()))?;
        }
        cli::Runs::Replay { run, now } => {
            let run = find::run(store, run).await?.start.id;
            let (pinned, recording) = engine.recorded(&run).await?;
            let graph = match now {
                true => engine.library().named(pinned.name().as_str()),
                false => Some(pinned.clone()),
            };
            let graph = graph
                .ok_or_else(|| Usage(format!("no graph named `{}` is loaded", pinned.name())))?;
            let replayed = replay(&graph, &recording)
                .with_context(|| format!("run {run} comes out differently"))?;
            let said = json!({
                "run": run, "graph": graph.hash(), "supersteps": replayed.supersteps,
                "skipped": replayed.skipped, "steps": replayed.steps,
            });
            out.print(&said, || format!("Run {run}: {replayed}."))?;
        }
        cli::Runs::Fork { run, at, id } => {
            let from = find::run(store, run).await?.start.id;
            let id = id.clone().unwrap_or_else(|| format!("{from}@{at}"));
            let id = new_id(&id)?;
            let is_new = engine.fork(&from, *at, id.clone(), ForkOptions::default()).await?;
            let said =
                json!({ "run": id, "forked_from": { "run": from, "seq": at }, "new": is_new });
            out.print(&said, || {
                if is_new {
                    format!("Run {id} begins where {from} was at checkpoint {at}. Its questions are asked anew.")
                } else {
                    format!("Run {id} is there already; nothing was changed.")
                }
            })?;
        }
        cli::Runs::Edit { run, at, set, login } => {
            let run = find::run(store, run).await?.start.id;
            let by = people::answerer(settings, login.as_deref())?;
            let edited = engine.edit_state(&run, *at, updates(set)?, &by.login).await;
            let seq = edited.map_err(|refused| match refused {
                EditRefused::Graph(error) => error.into(),
                EditRefused::Run(EditError::Store(error)) => error.into(),
                refused => anyhow::Error::from(Usage(refused.to_string())),
            })?;
            out.print(&json!({ "run": run, "seq": seq, "by": by.login }), || {
                format!("The state of run {run} is changed; it is at checkpoint {seq} now.")
            })?;
        }
        cli::Runs::Copy { run, id, claimable } => {
            let from = find::run(store, run).await?.start.id;
            let id = new_id(id)?;
            let is_new = engine.copy_run(&from, id.clone(), *claimable).await?;
            out.print(&json!({ "run": id, "copied_from": from, "new": is_new }), || {
                if is_new {
                    format!("Run {id} is a copy of {from}.")
                } else {
                    format!("Run {id} is there already; nothing was changed.")
                }
            })?;
        }
        cli::Runs::Delete { run, force, login } => {
            delete(engine, settings, out, run, *force, login.as_deref()).await?;
        }
        cli::Runs::Prune => {
            let pruned = engine.prune(&retention(&settings.values.retention)).await?;
            let said = json!({
                "checkpoints": pruned.checkpoints, "runs": pruned.runs, "graphs": pruned.graphs,
            });
            out.print(&said, || {
                format!(
                    "Removed {} checkpoints, {} runs and {} graph texts.",
                    pruned.checkpoints, pruned.runs, pruned.graphs
                )
            })?;
        }
    }
    Ok(true)
}

/// What cannot be undone wants the whole id.
async fn delete(
    engine: &Engine,
    settings: &Settings,
    out: Out,
    run: &str,
    force: bool,
    login: Option<&str>,
) -> Result<()> {
    let id = find::run(engine.store().as_ref(), run).await?.start.id;
    if id.as_str() != run {
        bail!(Usage(format!("deleting cannot be undone, so it wants the whole id: `{id}`")));
    }
    let deleted = if force {
        let by = people::answerer(settings, login)?;
        engine.cancel_and_delete_run(&id, &by.login, &worker_id(&SystemEntropy)).await
    } else {
        engine.delete_run(&id).await
    };
    let deleted = deleted.map_err(|error| match error {
        DeleteError::Live { .. } if !force => Usage(format!("{error}, or add --force")).into(),
        DeleteError::Live { .. } | DeleteError::Needed { .. } => {
            anyhow::Error::from(Usage(error.to_string()))
        }
        DeleteError::Store(error) => error.into(),
    })?;
    out.print(&json!({ "run": id, "deleted": deleted }), || {
        format!("Deleted {deleted} runs: {id} and all below it.")
    })
}

fn new_id(text: &str) -> Result<RunId> {
    RunId::new(text).map_err(|error| Usage(error.to_string()).into())
}

/// `CHANNEL=JSON`, each channel once.
fn updates(set: &[String]) -> Result<Map<String, Value>> {
    let mut updates = Map::new();
    for text in set {
        let Some((channel, value)) = text.split_once('=') else {
            bail!(Usage(format!("--set wants CHANNEL=JSON, found `{}`", clean(text))));
        };
        let value = serde_json::from_str(value).with_context(|| {
            Usage(format!("--set {channel}: the value is no JSON; quote a text"))
        })?;
        if updates.insert(channel.to_owned(), value).is_some() {
            bail!(Usage(format!("--set names `{channel}` twice")));
        }
    }
    Ok(updates)
}

fn list(listed: &[CheckpointInfo], now: Timestamp) -> String {
    if listed.is_empty() {
        return "There are no such checkpoints.".to_owned();
    }
    let rows = listed.iter().map(|info| {
        let active: Vec<String> = info
            .active
            .iter()
            .map(|place| format!("{} {}", place.step, place.doing.as_str()))
            .collect();
        let changed: Vec<&str> = info.changed.iter().map(AsRef::as_ref).collect();
        vec![
            info.seq.to_string(),
            super::age(now, info.at),
            active.join(", "),
            changed.join(", "),
            info.edited_by.as_deref().map(clean).unwrap_or_default(),
        ]
    });
    out::table(&["SEQ", "AGE", "ACTIVE", "CHANGED", "EDITED BY"], rows)
}

//! `cancel`: asks a run and all below it to stop. Branches, workspaces and history stay.

use anyhow::Result;
use serde_json::json;
use swarm_graph::engine::Engine;
use swarm_graph::system::SystemEntropy;

use super::{find, out::Out, people};
use crate::cli;
use crate::config::Settings;
use crate::worker::worker_id;

/// Runs the command.
///
/// # Errors
/// [`Usage`](super::Usage) for an unknown run; the store's failure.
pub async fn run(
    engine: &Engine,
    settings: &Settings,
    out: Out,
    given: &cli::Cancel,
) -> Result<()> {
    let run = find::run(engine.store().as_ref(), &given.run).await?;
    let by = people::answerer(settings, given.login.as_deref())?;
    let id = &run.start.id;
    let asked = engine.cancel(id, &by.login).await?;
    let has_ended = engine.end_cancelled(id, &worker_id(&SystemEntropy)).await?;
    out.print(&json!({ "run": id, "cancelling": asked, "ended": has_ended }), || {
        if !asked {
            format!("Run {id} has already {}.", run.status.as_str())
        } else if has_ended {
            format!("Run {id} and all below it are cancelled. What they made is kept.")
        } else {
            format!(
                "Run {id} and all below it stop as soon as the processes that work on them see it. \
                 What they made is kept."
            )
        }
    })
}

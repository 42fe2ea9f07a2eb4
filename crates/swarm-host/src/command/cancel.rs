//! `cancel`: asks a run and all below it to stop. Branches, workspaces and history stay.

use anyhow::Result;
use serde_json::json;
use swarm_graph::engine::Engine;

use super::{find, out::Out, people};
use crate::cli;
use crate::config::Settings;

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
    out.print(&json!({ "run": id, "cancelling": asked }), || {
        if asked {
            format!(
                "Run {id} and all below it will stop as soon as a process works on them. What they \
                 made is kept."
            )
        } else {
            format!("Run {id} has already {}.", run.status.as_str())
        }
    })
}

//! `submit`: queues an issue for whoever serves this data directory.

use anyhow::{Result, bail};
use serde_json::json;

use super::out::Out;
use crate::cli;
use crate::order::Order;
use crate::wire::Host;

/// Runs the command.
///
/// # Errors
/// [`Usage`](super::Usage) for a repository or an issue that cannot be meant; the store's failure.
pub async fn run(host: &Host, out: Out, given: &cli::Submit) -> Result<()> {
    let order = Order::read(host.settings(), &given.what)?;
    let started = host.start(&order, given.what.new, given.priority).await?;
    let id = &started.id;
    let Some(run) = host.engine().store().run(id).await? else { bail!("run `{id}` is gone") };
    out.print(&json!({ "run": id, "new": started.is_new, "status": run.status }), || {
        if started.is_new {
            let flags = host.settings().flags();
            format!("Queued as run {id}.\nFollow it: swarm-host{flags} runs events {id} --follow")
        } else {
            format!(
                "Run {id} of this issue is there already: {} (--new would queue another one).",
                run.status.as_str()
            )
        }
    })
}

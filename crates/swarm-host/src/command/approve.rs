//! `approve`: answers the question whether a change may be merged.
//!
//! The approval holds for the commit that the question shows. If the head has moved since, the
//! run asks again; nothing here decides about merging.

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use swarm_core::escalation::{Block, BlockStatus, Reason};
use swarm_core::port::store::Store;
use swarm_graph::engine::Engine;

use super::{Usage, answer, out, out::Out, people};
use crate::cli;
use crate::config::Settings;
use crate::progress::clean;

/// Runs the command.
///
/// # Errors
/// [`Usage`] when nothing of the kind waits for an approval; the store's failure.
pub async fn run(
    engine: &Engine,
    settings: &Settings,
    out: Out,
    given: &cli::Approve,
) -> Result<()> {
    let block = find(engine.store().as_ref(), &given.target).await?;
    let value = answer::choose(&block, "approve", given.comment.as_deref())?;
    let by = people::answerer(settings, given.login.as_deref())?;
    let login = by.login.clone();
    engine
        .answer(&block.id, value, by)
        .await
        .with_context(|| format!("question `{}` takes no approval", block.id))?;
    let head = block.ask.context["head_sha"].as_str().map(clean).unwrap_or_default();
    let pr = &block.ask.context["pr"];
    let approved =
        json!({ "block": block.id, "run": block.run, "pr": pr, "head_sha": head, "by": login });
    out.print(&approved, || {
        format!(
            "Approved #{pr} at {head} as {login}. Run {} goes on. {}",
            block.run,
            out::WHO_GOES_ON
        )
    })
}

/// The only open approval that a run, a pull request's number or a question's id names.
async fn find(store: &dyn Store, target: &str) -> Result<Block> {
    let mut open = store.blocks(None, Some(BlockStatus::Open)).await?;
    open.retain(|block| block.ask.reason == Reason::Approval);
    let number = target.trim_start_matches('#').parse::<u64>().ok();
    let of_run = |block: &&Block| {
        let run = block.run.as_str();
        run.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found: Vec<&Block> = match number {
        Some(number) => open.iter().filter(|block| block.ask.context["pr"] == number).collect(),
        None => {
            let exact: Vec<&Block> =
                open.iter().filter(|block| block.id.as_str() == target || of_run(block)).collect();
            if exact.is_empty() {
                open.iter().filter(|block| block.id.as_str().contains(target)).collect()
            } else {
                exact
            }
        }
    };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] if open.is_empty() => bail!(Usage("no change waits for an approval".to_owned())),
        [] => {
            bail!(Usage(format!("nothing named `{target}` waits for an approval; {}", list(&open))))
        }
        several => {
            let several: Vec<Block> = several.iter().map(|&block| block.clone()).collect();
            bail!(Usage(format!("`{target}` names more than one; {}", list(&several))))
        }
    }
}

fn list(blocks: &[Block]) -> String {
    let ids: Vec<&str> = blocks.iter().take(8).map(|block| block.id.as_str()).collect();
    format!("waiting are {}", ids.join(", "))
}

//! Runs and questions by what people type: an id, the beginning of one, a part of one.

use anyhow::{Result, bail};
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::id::{BlockId, RunId};
use swarm_core::port::store::{RunFilter, Store};
use swarm_core::run::RunRecord;

use super::Usage;

/// How many of the newest runs an abbreviated id is looked for in.
const RECENT: usize = 10_000;

/// The run of this id, or the only one whose id begins so; a root run wins over those below it.
///
/// # Errors
/// [`Usage`] when there is none or more than one; the store's failure.
pub async fn run(store: &dyn Store, text: &str) -> Result<RunRecord> {
    if let Ok(id) = RunId::new(text)
        && let Some(run) = store.run(&id).await?
    {
        return Ok(run);
    }
    let recent = store.runs(&RunFilter { limit: RECENT, ..RunFilter::default() }).await?;
    let begins = |run: &&RunRecord| !text.is_empty() && run.start.id.as_str().starts_with(text);
    let (roots, below): (Vec<&RunRecord>, Vec<&RunRecord>) =
        recent.iter().filter(begins).partition(|run| run.start.parent.is_none());
    match (roots.as_slice(), below.as_slice()) {
        ([one], _) | ([], [one]) => Ok((*one).clone()),
        ([], []) => {
            let roots = recent.iter().filter(|run| run.start.parent.is_none()).take(5);
            let known: Vec<&str> = roots.map(|run| run.start.id.as_str()).collect();
            let newest = if known.is_empty() {
                "there are no runs yet".to_owned()
            } else {
                format!("the newest are {}", known.join(", "))
            };
            bail!(Usage(format!("no run begins with `{text}`; {newest}")))
        }
        (roots, below) => {
            let found: Vec<&str> =
                roots.iter().chain(below).take(8).map(|run| run.start.id.as_str()).collect();
            bail!(Usage(format!("`{text}` could be any of {}", found.join(", "))))
        }
    }
}

/// The run and all below it, parents first, oldest first.
///
/// # Errors
/// The store's failure.
pub async fn tree(store: &dyn Store, root: &RunRecord) -> Result<Vec<RunRecord>> {
    let mut tree = vec![root.clone()];
    let mut next = 0;
    while let Some(run) = tree.get(next) {
        let filter = RunFilter { parent: Some(run.start.id.clone()), ..RunFilter::default() };
        let mut children = store.runs(&filter).await?;
        children.reverse();
        tree.extend(children);
        next += 1;
    }
    Ok(tree)
}

/// The question of this id, or the only one whose id contains the text; open ones are looked at
/// first.
///
/// # Errors
/// [`Usage`] when there is none or more than one; the store's failure.
pub async fn block(store: &dyn Store, text: &str) -> Result<Block> {
    if let Ok(id) = BlockId::new(text)
        && let Some(block) = store.block(&id).await?
    {
        return Ok(block);
    }
    let contains = |block: &Block| !text.is_empty() && block.id.as_str().contains(text);
    let open = store.blocks(None, Some(BlockStatus::Open)).await?;
    let mut found: Vec<Block> = open.iter().filter(|block| contains(block)).cloned().collect();
    if found.is_empty() {
        found = store.blocks(None, None).await?.into_iter().filter(contains).collect();
    }
    if found.len() == 1 {
        return Ok(found.remove(0));
    }
    let list = |blocks: &[Block]| {
        blocks.iter().take(8).map(|block| block.id.as_str()).collect::<Vec<_>>().join(", ")
    };
    if found.is_empty() {
        let known = if open.is_empty() {
            "no question is open".to_owned()
        } else {
            format!("open are {}", list(&open))
        };
        bail!(Usage(format!("no question's id contains `{text}`; {known}")));
    }
    bail!(Usage(format!("`{text}` could be any of {}", list(&found))))
}

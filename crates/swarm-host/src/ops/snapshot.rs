//! Everything that a decision stands on, read from the forge in one go.

use swarm_core::gate::Snapshot;
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::node::{NodeContext, NodeError};

use crate::parts::{Parts, forge_failure};

/// Reads what the gate needs to know of a pull request. `reviewed` is the head that our own
/// reviewer looked at.
pub(super) async fn take(
    ctx: &NodeContext,
    parts: &Parts,
    repo: &RepoId,
    number: u64,
    reviewed: &Sha,
) -> Result<Snapshot, NodeError> {
    let forge = &parts.forge;
    let pull = forge.pull_request(repo, number).await.map_err(forge_failure)?;
    let reviews = forge.reviews(repo, number).await.map_err(forge_failure)?;
    let checks = forge.checks(repo, &pull.head_sha).await.map_err(forge_failure)?;
    let rules = forge.branch_rules(repo, &pull.base).await.map_err(forge_failure)?;
    let policy = parts.gate_policy(repo)?;
    let changed_paths = if policy.path_rules.is_empty() {
        None
    } else {
        Some(parts.diff_of_pull(repo, &pull).await?.paths())
    };
    Ok(Snapshot {
        taken_at: ctx.now(),
        reviews,
        checks,
        changed_paths,
        reviewed_head: Some(reviewed.clone()),
        tested_base: None,
        rules,
        policy,
        pull,
    })
}

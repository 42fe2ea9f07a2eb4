//! `swarm/merge`: merges the approved head, and no other.
//!
//! The only place that holds the merging credential. It does not believe the graph that led here:
//! it reads the forge and asks the gate again, and passes the approved commit to the forge, which
//! refuses any other.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_core::gate::{self, Decision};
use swarm_core::port::forge::{ForgeMerge, MergeRequest, PullState, RepoId, Sha};
use swarm_core::time::Timestamp;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError, Probe};

use super::snapshot;
use crate::handover::{Change, Issue, OpsOutcome};
use crate::parts::{Parts, forge_failure};

/// `swarm/merge`
pub struct Merge {
    parts: Arc<Parts>,
    merger: Arc<dyn ForgeMerge>,
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Merge")
    }
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The change, with the head that was reviewed.
    pub change: Change,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct MergeOutput {
    /// Merged.
    pub outcome: OpsOutcome,
    /// The merge commit.
    pub merge_sha: Sha,
    /// None.
    pub reasons: Vec<String>,
}

impl Merge {
    pub(crate) fn new(parts: &Arc<Parts>, merger: &Arc<dyn ForgeMerge>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts), merger: Arc::clone(merger) }
    }
}

#[async_trait]
impl Node for Merge {
    const KIND: &'static str = "swarm/merge";
    type Config = NoConfig;
    type Input = MergeInput;
    type Output = MergeOutput;

    async fn run(&self, ctx: &NodeContext, input: MergeInput) -> Result<MergeOutput, NodeError> {
        let (repo, number, head) = (&input.repo, input.change.pr, &input.change.head);
        let at: Timestamp = ctx.memo("at", || async { Ok(ctx.now()) }).await?;
        let intent = json!({ "merge": number, "head": head });
        let probe = || async {
            let pull = self.merger.pull_request(repo, number).await.map_err(forge_failure)?;
            Ok(match (pull.state, pull.merge_sha) {
                (PullState::Merged, Some(sha)) if pull.head_sha == *head => Probe::Landed(sha),
                (PullState::Merged, _) => {
                    Probe::InDoubt("it is merged, but not with the approved head".to_owned())
                }
                (PullState::Open | PullState::Closed, _) => Probe::DidNotHappen,
            })
        };
        let merge_sha: Sha = ctx
            .effect("merge", intent, probe, || async { self.merge(ctx, &input, at).await })
            .await?;
        let told = json!({ "pr": number, "head": head, "merge_sha": merge_sha });
        ctx.emit("change.merged", told).await?;
        Ok(MergeOutput { outcome: OpsOutcome::Merged, merge_sha, reasons: Vec::new() })
    }
}

impl Merge {
    /// Asks the gate now, whatever it said before, and merges what it allows.
    async fn merge(
        &self,
        ctx: &NodeContext,
        input: &MergeInput,
        at: Timestamp,
    ) -> Result<Sha, NodeError> {
        let MergeInput { repo, issue, change } = input;
        let snapshot = snapshot::take(ctx, &self.parts, repo, change.pr, &change.head).await?;
        let decision = gate::decide(&snapshot);
        ctx.emit("gate.decided", json!({ "decision": decision, "snapshot": snapshot })).await?;
        let (head, base) = match decision {
            Decision::Merge { sha, base } => (sha, base),
            Decision::Blocked { reasons } => {
                let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                return Err(Failure::fatal("gate_closed", words.join("; ")).into());
            }
        };
        let merge = MergeRequest {
            number: change.pr,
            expected_head: head,
            expected_base: base,
            message: message(issue, change, ctx),
            at,
        };
        Ok(self.merger.merge(repo, merge).await.map_err(forge_failure)?)
    }
}

fn message(issue: &Issue, change: &Change, ctx: &NodeContext) -> String {
    let title = change.title.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "Merge #{}: {title}\n\nIssue: #{}\nSwarm-Run: {}\n",
        change.pr,
        issue.number,
        ctx.root_id()
    )
}

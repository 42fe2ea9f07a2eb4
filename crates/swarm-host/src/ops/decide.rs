//! `swarm/decide`: looks at the gate and says what it needs next.
//!
//! Every decision is stored as an event with all that it stands on, so that it can be replayed.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::gate::{self, BlockedReason, Decision, Snapshot};
use swarm_core::port::forge::{RepoId, Sha, Verdict};
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};

use super::{Step, follow, snapshot};
use crate::handover::{Change, OpsOutcome};
use crate::parts::Parts;

/// `swarm/decide`
#[derive(Debug)]
pub struct Decide {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideInput {
    /// The repository.
    pub repo: RepoId,
    /// The change, with the head that was reviewed.
    pub change: Change,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct DecideOutput {
    /// What follows.
    pub step: Step,
    /// How it would end if nothing followed.
    pub outcome: OpsOutcome,
    /// The head that was looked at.
    pub head: Sha,
    /// What stands in the way, in words.
    pub reasons: Vec<String>,
}

impl Decide {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Decide {
    const KIND: &'static str = "swarm/decide";
    type Config = NoConfig;
    type Input = DecideInput;
    type Output = DecideOutput;

    async fn run(&self, ctx: &NodeContext, input: DecideInput) -> Result<DecideOutput, NodeError> {
        let DecideInput { repo, change } = input;
        let snapshot = snapshot::take(ctx, &self.parts, &repo, change.pr, &change.head).await?;
        let decision = gate::decide(&snapshot);
        ctx.emit("gate.decided", json!({ "decision": decision, "snapshot": snapshot })).await?;
        let head = snapshot.pull.head_sha.clone();
        let (step, outcome, reasons) = match &decision {
            Decision::Merge { .. } => (Step::Merge, OpsOutcome::Blocked, Vec::new()),
            Decision::Blocked { reasons } => {
                let (step, outcome) = follow(gate::course(reasons, &head));
                (step, outcome, words(reasons, &snapshot))
            }
        };
        Ok(DecideOutput { step, outcome, head, reasons })
    }
}

/// The reasons in words; of a request for changes, the words of whoever made it.
fn words(reasons: &[BlockedReason], snapshot: &Snapshot) -> Vec<String> {
    let mut words = Vec::new();
    for reason in reasons {
        words.push(reason.to_string());
        let BlockedReason::ChangesRequested { login, commit } = reason else { continue };
        let review = snapshot.reviews.iter().rev().find(|review| {
            review.author.login == *login
                && review.commit == *commit
                && review.verdict == Verdict::RequestChanges
        });
        let Some(review) = review else { continue };
        words.extend((!review.body.trim().is_empty()).then(|| review.body.trim().to_owned()));
        words.extend(
            review.comments.iter().map(|c| format!("{}:{}: {}", c.path, c.line, c.body.trim())),
        );
    }
    words
}

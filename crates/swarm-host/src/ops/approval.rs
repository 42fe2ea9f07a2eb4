//! `swarm/approval`: asks a person whether this very head may be merged.
//!
//! The answer is recorded on the forge as a review by whoever gave it, bound to the commit that
//! the question showed. It is not permission by itself: the gate looks at the forge again, and
//! whoever may not approve has approved nothing.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::escalation::{Answerer, Ask, Reason};
use swarm_core::port::forge::{self, Actor, NewReview, PullRequest, RepoId, Sha, Verdict};
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError, Probe};

use crate::agent::clip;
use crate::handover::{Change, OpsOutcome};
use crate::parts::{Parts, forge_failure};

/// `swarm/approval`
#[derive(Debug)]
pub struct Approval {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalInput {
    /// The repository.
    pub repo: RepoId,
    /// The change.
    pub change: Change,
    /// The head to be approved.
    pub head: Sha,
    /// What the gate says is missing.
    pub reasons: Vec<String>,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct ApprovalOutput {
    /// What the person chose.
    pub choice: Choice,
    /// How it ends if nothing follows.
    pub outcome: OpsOutcome,
    /// What the person said.
    pub reasons: Vec<String>,
}

/// What a person may answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Merge this head.
    Approve,
    /// Not like this.
    RequestChanges,
    /// Leave it.
    Stop,
}

#[derive(Debug, Deserialize)]
struct Answer {
    choice: Choice,
    #[serde(default)]
    comment: String,
}

impl Approval {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Approval {
    const KIND: &'static str = "swarm/approval";
    const FLOW: Flow = Flow { asks_person: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = ApprovalInput;
    type Output = ApprovalOutput;

    async fn run(
        &self,
        ctx: &NodeContext,
        input: ApprovalInput,
    ) -> Result<ApprovalOutput, NodeError> {
        let ask: Ask = ctx.memo("ask", || async { self.ask(&input).await }).await?;
        let (answer, by): (Answer, Answerer) = ctx.ask_person("approval", ask).await?;
        let verdict = match answer.choice {
            Choice::Approve => Some(Verdict::Approve),
            Choice::RequestChanges => Some(Verdict::RequestChanges),
            Choice::Stop => None,
        };
        if let Some(verdict) = verdict {
            self.record(ctx, &input, &by, verdict, &answer.comment).await?;
        }
        let outcome = match answer.choice {
            Choice::Approve => OpsOutcome::Blocked,
            Choice::RequestChanges => OpsOutcome::ChangesRequested,
            Choice::Stop => OpsOutcome::Stopped,
        };
        let said = answer.comment.trim().to_owned();
        let reasons = match (answer.choice, said.is_empty()) {
            (_, false) => vec![said],
            (Choice::Stop, true) => vec![format!("stopped by `{}`", by.login)],
            (Choice::Approve | Choice::RequestChanges, true) => Vec::new(),
        };
        Ok(ApprovalOutput { choice: answer.choice, outcome, reasons })
    }
}

impl Approval {
    async fn ask(&self, input: &ApprovalInput) -> Result<Ask, NodeError> {
        let forge = &self.parts.forge;
        let number = input.change.pr;
        let pull = forge.pull_request(&input.repo, number).await.map_err(forge_failure)?;
        let checks = forge.checks(&input.repo, &input.head).await.map_err(forge_failure)?;
        let diff = self.parts.diff_of_pull(&input.repo, &pull).await?;
        let question = question(input, &pull);
        let checks: Vec<Value> = checks
            .iter()
            .map(|check| json!({ "name": check.name, "state": check.state, "summary": check.summary }))
            .collect();
        let files: Vec<Value> = diff
            .files
            .iter()
            .take(100)
            .map(|file| json!({ "path": file.path, "added": file.added, "removed": file.removed }))
            .collect();
        let context = json!({
            "pr": number,
            "title": pull.title,
            "url": pull.url,
            "branch": pull.head,
            "base": pull.base,
            "head_sha": input.head,
            "diff": {
                "files": diff.files.len(), "added": diff.added(), "removed": diff.removed(),
                "each": files, "patch": clip(&diff.patch, 20_000),
            },
            "checks": checks,
            "missing": input.reasons,
        });
        let choices = ["approve", "request_changes", "stop"];
        Ok(Ask::choice(Reason::Approval, question, &choices).with_context(context))
    }

    /// Records the answer as the person's review, unless it is there already: whoever approves on
    /// the forge and then answers has said it once.
    async fn record(
        &self,
        ctx: &NodeContext,
        input: &ApprovalInput,
        by: &Answerer,
        verdict: Verdict,
        comment: &str,
    ) -> Result<(), NodeError> {
        let (forge, number) = (&self.parts.forge, input.change.pr);
        let is_there = || async {
            let reviews = forge.reviews(&input.repo, number).await.map_err(forge_failure)?;
            let last = reviews.iter().rev().find(|review| {
                review.author.login == by.login && review.verdict != Verdict::Comment
            });
            Ok::<bool, NodeError>(last.is_some_and(|review| {
                review.verdict == verdict && review.commit == input.head && !review.is_dismissed
            }))
        };
        let intent = json!({ "review": verdict, "of": number, "at": input.head, "by": by.login });
        let probe = || async {
            Ok(if is_there().await? { Probe::Landed(()) } else { Probe::DidNotHappen })
        };
        let act = || async {
            if is_there().await? {
                return Ok(());
            }
            let review = NewReview {
                author: Actor { login: by.login.clone(), is_bot: false },
                verdict,
                commit: input.head.clone(),
                body: comment.to_owned(),
                comments: Vec::new(),
                key: format!("{}.{}:approval", ctx.run_id(), ctx.step()),
            };
            match forge.submit_review(&input.repo, number, review).await {
                Ok(_) => Ok(()),
                // Whoever may not review has not reviewed; the gate will say so and ask again.
                Err(forge::Error::Refused(why) | forge::Error::Denied(why)) => {
                    ctx.emit("review.refused", json!({ "by": by.login, "why": why })).await
                }
                Err(error) => Err(forge_failure(error).into()),
            }
        };
        ctx.effect("review", intent, probe, act).await
    }
}

fn question(input: &ApprovalInput, pull: &PullRequest) -> String {
    format!(
        "May pull request #{} `{}` be merged into `{}` at {}? Missing: {}. `approve` merges exactly this commit, \
         `request_changes` hands your comment to the developer, `stop` leaves the pull request as it is.",
        pull.number,
        clip(&pull.title, 100),
        pull.base,
        input.head.short(),
        if input.reasons.is_empty() { "nothing".to_owned() } else { input.reasons.join("; ") }
    )
}

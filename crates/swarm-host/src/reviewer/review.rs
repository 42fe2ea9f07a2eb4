//! `swarm/review`: what a model thinks of the change.
//!
//! It sees the diff and what was asked for, and has no tools: a change that talks to it can at the
//! most win a kind word, which counts for nothing at the gate.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_graph::information::Flow;
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_tools::checks::{Outcome, Report};

use crate::agent::untrusted::{quote, quote_exact};
use crate::agent::{Limits, Opening, structured};
use crate::dev::checks::Results;
use crate::handover::{Change, Desk, Finding, Issue, Task};
use crate::parts::Parts;

/// The most findings of one review.
const FINDINGS_MAX: usize = 30;

/// `swarm/review`
#[derive(Debug)]
pub struct Review {
    parts: Arc<Parts>,
    config: ReviewConfig,
}

/// How it is set up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReviewConfig {
    /// Whose model it uses.
    pub role: String,
    /// The prompt with the rules.
    pub rules: String,
    /// The prompt with the change.
    pub prompt: String,
    /// What bounds the conversation; the host's own limits when absent.
    pub limits: Option<Limits>,
}

impl Default for ReviewConfig {
    fn default() -> Self {
        Self {
            role: "reviewer".to_owned(),
            rules: "reviewer/rules.md".to_owned(),
            prompt: "reviewer/review.md".to_owned(),
            limits: None,
        }
    }
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewInput {
    /// The issue.
    pub issue: Issue,
    /// The task.
    pub task: Task,
    /// The change.
    pub change: Change,
    /// The commits it stands between.
    pub desk: Desk,
    /// How tests and linters came out.
    pub checks: Results,
    /// Rounds of development so far.
    #[serde(default)]
    pub round: u32,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct ReviewNodeOutput {
    /// What the model thinks.
    pub opinion: Opinion,
}

/// What a model thinks of a change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Opinion {
    /// Whether there is one.
    pub is_given: bool,
    /// Whether the change does what the task asks, in a sentence. Untrusted.
    pub summary: String,
    /// What it found. Untrusted.
    pub findings: Vec<Finding>,
}

/// What the model is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// Whether the change does what the task asks, in a sentence.
    summary: String,
    /// What must be mended, and what is worth knowing.
    findings: Vec<Finding>,
}

impl Review {
    pub(crate) fn new(parts: &Arc<Parts>, config: ReviewConfig) -> Self {
        Self { parts: Arc::clone(parts), config }
    }
}

#[async_trait]
impl Node for Review {
    const KIND: &'static str = "swarm/review";
    const FLOW: Flow = Flow { reads_untrusted: true, ..Flow::NONE };
    type Config = ReviewConfig;
    type Input = ReviewInput;
    type Output = ReviewNodeOutput;

    async fn run(
        &self,
        ctx: &NodeContext,
        input: ReviewInput,
    ) -> Result<ReviewNodeOutput, NodeError> {
        let ReviewInput { issue, task, change, desk, checks, round } = input;
        let mirror = self.parts.mirror_as_is(&issue.repo).await?;
        let diff = mirror.diff(&desk.base, &desk.start).await.map_err(Failure::from)?;
        let role = &self.config.role;
        let words = json!({
            "issue": issue.quoted(),
            "task": task,
            "summary": quote("developer", &change.summary),
            "checks": checks.reports.iter().map(words).collect::<Vec<_>>(),
            "files": diff.files.len(),
            "added": diff.added(),
            "removed": diff.removed(),
            "is_cut": diff.is_patch_cut,
            "diff": quote_exact("diff", &diff.patch),
        });
        let opening = Opening {
            role: role.clone(),
            conversation: format!("{role}/{}/{round}/{}#{}", task.id, ctx.node(), ctx.visit()),
            system: self.parts.prompt(&self.config.rules, &words)?,
            text: self.parts.prompt(&self.config.prompt, &words)?,
        };
        let model = self.parts.model(role)?;
        let limits = self.config.limits.as_ref().unwrap_or(&self.parts.limits);
        let answer: Answer =
            structured(ctx, &*model, opening, limits, "invalid_review", rules).await?;
        let opinion =
            Opinion { is_given: true, summary: answer.summary, findings: answer.findings };
        Ok(ReviewNodeOutput { opinion })
    }
}

/// What a schema cannot say about an answer.
fn rules(answer: &Answer) -> Result<(), String> {
    if answer.findings.len() > FINDINGS_MAX {
        let found = answer.findings.len();
        return Err(format!("{found} findings; name the {FINDINGS_MAX} that matter most"));
    }
    if answer.findings.iter().any(|finding| finding.text.trim().is_empty()) {
        return Err("a finding without a text".to_owned());
    }
    Ok(())
}

/// How a check came out, in words without times or other chance.
fn words(report: &Report) -> String {
    let came_out = match &report.outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed => "failed".to_owned(),
        Outcome::NoTests => "found no tests".to_owned(),
        Outcome::Skipped { why } => format!("was not run: {why}"),
        Outcome::Broken { why, .. } => format!("could not be run: {why}"),
    };
    format!("{}: {came_out}", report.name)
}

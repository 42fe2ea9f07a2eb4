//! `swarm/implement`: the agent works on the task in the workspace.
//!
//! It is given the task, what the tests said, and what a review wants; it gives back a tree. What
//! it says about that tree is shown to people and believed by nobody: the tests, the policies and
//! the gate look for themselves.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::failure::Failure;
use swarm_core::port::forge::RepoId;
use swarm_graph::information::Flow;
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_tools::checks::{Check, Kind, Outcome, Report};
use swarm_tools::git::TreeId;
use swarm_tools::toolbox::{self, Access};

use super::Finished;
use super::checks::{Results, TestVerdict};
use super::desk::OpenDesk;
use super::inspect::{Inspection, InspectionVerdict};
use crate::agent::untrusted::quote_exact;
use crate::agent::{Ending, Limits, Opening, TreeBench, converse};
use crate::handover::{Desk, Finding, Issue, Task, Weight};
use crate::parts::{Parts, instructions};

/// `swarm/implement`
#[derive(Debug)]
pub struct Implement {
    parts: Arc<Parts>,
    config: ImplementConfig,
}

/// How it is set up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImplementConfig {
    /// Whose model it uses.
    pub role: String,
    /// The prompt with the rules.
    pub rules: String,
    /// The prompt with the task.
    pub prompt: String,
    /// What its tools may do.
    pub access: Access,
    /// What bounds the conversation; the host's own limits when absent.
    pub limits: Option<Limits>,
}

impl Default for ImplementConfig {
    fn default() -> Self {
        Self {
            role: "dev".to_owned(),
            rules: "dev/rules.md".to_owned(),
            prompt: "dev/implement.md".to_owned(),
            access: Access::ReadWrite,
            limits: None,
        }
    }
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImplementInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The task.
    pub task: Task,
    /// The workspace.
    pub desk: Desk,
    /// Its files.
    pub tree: TreeId,
    /// Rounds of development before this one.
    #[serde(default)]
    pub round: u32,
    /// Files that hold conflict marks.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// The repository's checks.
    #[serde(default)]
    pub list: Vec<Check>,
    /// How they came out before the change.
    #[serde(default)]
    pub before: Results,
    /// How they came out after the last attempt; as by default when there was none.
    #[serde(default)]
    pub after: Results,
    /// What policies said of the last attempt.
    #[serde(default)]
    pub inspection: Inspection,
    /// What a review wants.
    #[serde(default)]
    pub feedback: Vec<Finding>,
    /// A person's advice.
    #[serde(default)]
    pub hint: String,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct ImplementOutput {
    /// How it ended.
    pub ended: Ended,
    /// The files it left.
    pub tree: TreeId,
    /// What it says it did.
    pub finish: Finished,
    /// Why it ended, when stopped.
    pub reasons: Vec<String>,
}

/// How the agent's work ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It says that it is done.
    Finished,
    /// A person stopped it; the tree is kept.
    Stopped,
}

impl Implement {
    pub(crate) fn new(parts: &Arc<Parts>, config: ImplementConfig) -> Self {
        Self { parts: Arc::clone(parts), config }
    }
}

#[async_trait]
impl Node for Implement {
    const KIND: &'static str = "swarm/implement";
    const FLOW: Flow = Flow { reads_untrusted: true, ..Flow::NONE };
    type Config = ImplementConfig;
    type Input = ImplementInput;
    type Output = ImplementOutput;

    async fn run(
        &self,
        ctx: &NodeContext,
        input: ImplementInput,
    ) -> Result<ImplementOutput, NodeError> {
        let (parts, config) = (&self.parts, &self.config);
        let desk = parts.desk(ctx, &input.repo, &input.desk).await?;
        let words: Value = ctx.memo("words", || async { Ok(words(&desk, &input).await?) }).await?;
        let opening = Opening {
            role: config.role.clone(),
            conversation: format!(
                "{}/{}/{}/{}#{}",
                config.role,
                input.task.id,
                input.round,
                ctx.node(),
                ctx.visit()
            ),
            system: parts.prompt(&config.rules, &words)?,
            text: parts.prompt(&config.prompt, &words)?,
        };
        let model = parts.model(&config.role)?;
        let limits = config.limits.as_ref().unwrap_or(&parts.limits);
        let keeper = parts.desk(ctx, &input.repo, &input.desk).await?;
        let bench = TreeBench::open(
            desk.blind_to_leaves(&input.list),
            config.access,
            Arc::clone(&parts.sandbox),
            // The caches that the set-up has filled, and no other repository's.
            toolbox::Limits { cache: input.repo.0.clone(), ..parts.tool_limits.clone() },
            &parts.change_policy.forbidden_paths,
        )?;
        let ended = converse(ctx, &*model, &bench, input.tree, opening, limits).await?;
        Ok(match ended {
            (Ending::Finished(finish), tree) => ImplementOutput {
                ended: Ended::Finished,
                tree,
                finish: finish.into(),
                reasons: Vec::new(),
            },
            (Ending::Stopped(comment), tree) => {
                let kept = keeper.keep(&input.desk, &tree, ctx.now()).await?;
                let why = if comment.is_empty() { "no reason given" } else { &comment };
                let reasons = vec![
                    format!("stopped by a person: {why}"),
                    format!("the work so far is kept as `{kept}`"),
                ];
                let finish = Finished::default();
                ImplementOutput { ended: Ended::Stopped, tree, finish, reasons }
            }
        })
    }
}

/// What the prompts are rendered from. Nothing in it may change between two attempts of a step.
async fn words(desk: &OpenDesk, input: &ImplementInput) -> Result<Value, Failure> {
    let told = instructions(desk.mirror(), &input.desk.base).await?;
    let diff = desk.mirror().diff(&input.desk.base, &input.tree).await?;
    let failed = input.after.verdict == TestVerdict::Failed;
    let objections = match input.inspection.verdict {
        InspectionVerdict::Unseen | InspectionVerdict::Allowed => &[][..],
        InspectionVerdict::NeedsPerson | InspectionVerdict::Refused | InspectionVerdict::Empty => {
            &input.inspection.findings
        }
    };
    let checks = input.list.iter().filter(|check| check.kind == Kind::Test).map(|check| {
        let report = input.before.reports.iter().find(|report| report.name == check.name);
        json!({ "command": check.argv.join(" "), "dir": check.dir, "before": came_out(report) })
    });
    Ok(json!({
        "issue": input.issue.quoted(),
        "task": input.task,
        "instructions": told.map(|text| quote_exact("AGENTS.md", &text)),
        "conflicts": input.conflicts,
        "checks": checks.collect::<Vec<_>>(),
        "diff": if diff.is_empty() { String::new() } else { quote_exact("diff", &diff.patch) },
        "failing": if failed { &input.after.problems[..] } else { &[] },
        "output": if failed { output(&input.after.reports) } else { String::new() },
        "refused": objections,
        "feedback": feedback(&input.feedback),
        "hint": input.hint.trim(),
    }))
}

/// How a check came out before the change, in words without times or other chance.
fn came_out(report: Option<&Report>) -> String {
    let Some(report) = report else { return "not run before the change".to_owned() };
    match &report.outcome {
        Outcome::Passed => "passes before the change".to_owned(),
        Outcome::Failed if report.failures.is_empty() => "fails before the change".to_owned(),
        Outcome::Failed => {
            let names: Vec<String> =
                report.failures.iter().take(20).map(|test| format!("`{}`", test.name)).collect();
            format!("fails before the change: {}", names.join(", "))
        }
        Outcome::NoTests => "finds no tests".to_owned(),
        Outcome::Skipped { why } | Outcome::Broken { why, .. } => format!("cannot be run: {why}"),
    }
}

/// The ends of the outputs of tests that did not pass.
fn output(reports: &[Report]) -> String {
    let failed = reports
        .iter()
        .filter(|report| report.kind == Kind::Test && !report.outcome.passed())
        .filter(|report| !report.tail.trim().is_empty())
        .map(|report| quote_exact(&format!("output of {}", report.name), &report.tail));
    failed.collect::<Vec<_>>().join("\n\n")
}

fn feedback(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings
        .iter()
        .filter(|finding| !finding.text.trim().is_empty())
        .map(|finding| {
            let place = match (finding.path.as_str(), finding.line) {
                ("", _) => String::new(),
                (path, 0) => format!("{path}: "),
                (path, line) => format!("{path}:{line}: "),
            };
            let weight = match finding.weight {
                Weight::Blocking => "must be mended",
                Weight::Remark => "remark",
            };
            format!("- ({weight}) {place}{}", finding.text.trim())
        })
        .collect();
    if lines.is_empty() { String::new() } else { quote_exact("review", &lines.join("\n")) }
}

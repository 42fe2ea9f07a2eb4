//! `swarm/report`: says on the issue what became of it, and closes it when all is merged.
//!
//! The output of this node is what programs read (`swarm-host run --json`); the comment is the
//! same for people.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::{Failure, Remedy};
use swarm_core::port::forge::Sha;
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};

use super::{ManagerOutput, Outcome, TrackedTask};
use crate::handover::{Issue, Plan, TaskOutcome, TaskStatus};
use crate::parts::{Parts, forge_failure};

/// How often telling the issue is tried before the run ends without it.
const ATTEMPTS: u32 = 4;

/// `swarm/report`
#[derive(Debug)]
pub struct Report {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportInput {
    /// The issue.
    pub issue: Issue,
    /// The plan.
    pub plan: Plan,
    /// The tasks, ended.
    pub tasks: Vec<TrackedTask>,
    /// Why it ended before there were tasks; empty else.
    #[serde(default)]
    pub reason: String,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct ReportOutput {
    /// The end.
    pub outcome: ManagerOutput,
}

impl Report {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Report {
    const KIND: &'static str = "swarm/report";
    const FLOW: Flow = Flow { sends_out: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = ReportInput;
    type Output = ReportOutput;

    async fn run(&self, ctx: &NodeContext, input: ReportInput) -> Result<ReportOutput, NodeError> {
        let ReportInput { issue, plan, tasks, reason } = input;
        let outcome = outcome(&issue, tasks, reason);
        match self.tell(ctx, &issue, &plan, &outcome).await {
            Ok(()) => {}
            Err(failure) if failure.remedy == Remedy::Retry && ctx.attempt() < ATTEMPTS => {
                return Err(failure.into());
            }
            // The work is done whether or not the issue says so.
            Err(failure) => ctx.emit("report.failed", json!({ "error": failure })).await?,
        }
        Ok(ReportOutput { outcome })
    }
}

impl Report {
    async fn tell(
        &self,
        ctx: &NodeContext,
        issue: &Issue,
        plan: &Plan,
        outcome: &ManagerOutput,
    ) -> Result<(), Failure> {
        let forge = &self.parts.forge;
        let marker = format!("devinswarm:run={};kind=report", ctx.root_id());
        let (author, body) = (self.parts.bot.actor(), words(outcome, plan));
        forge
            .sticky_comment(&issue.repo, issue.number, &author, &marker, &body)
            .await
            .map_err(forge_failure)?;
        if outcome.outcome == Outcome::Merged {
            forge.close(&issue.repo, issue.number).await.map_err(forge_failure)?;
        }
        Ok(())
    }
}

fn outcome(issue: &Issue, tasks: Vec<TrackedTask>, reason: String) -> ManagerOutput {
    let tasks: Vec<TaskOutcome> = tasks.into_iter().map(|task| task.outcome).collect();
    let is = |status| tasks.iter().any(|task| task.status == status);
    let outcome = if is(TaskStatus::Failed) {
        Outcome::Failed
    } else if !tasks.is_empty() && tasks.iter().all(|task| task.status == TaskStatus::Merged) {
        Outcome::Merged
    } else {
        Outcome::Stopped
    };
    let mut reasons: Vec<String> = if reason.is_empty() { Vec::new() } else { vec![reason] };
    for task in tasks.iter().filter(|task| task.status != TaskStatus::Merged) {
        reasons.extend(task.reasons.iter().map(|reason| format!("{}: {reason}", task.task)));
    }
    let only = match tasks.as_slice() {
        [task] => task.clone(),
        _ => TaskOutcome::default(),
    };
    ManagerOutput {
        outcome,
        repo: issue.repo.clone(),
        issue: issue.number,
        pr: only.pr,
        branch: only.branch,
        merge_sha: only.merge_sha,
        tasks,
        reasons,
    }
}

fn words(outcome: &ManagerOutput, plan: &Plan) -> String {
    let head = match outcome.outcome {
        Outcome::Merged => "✅ Merged.",
        Outcome::Stopped => "⏹ Stopped by a person.",
        Outcome::Failed => "❌ Not finished.",
    };
    let mut text = format!("{head}\n\n");
    // Writing to a String cannot fail.
    for task in &outcome.tasks {
        let title = plan.tasks.iter().find(|planned| planned.id == task.task);
        let title = title.map_or(task.task.as_str(), |planned| planned.title.as_str());
        let _ = write!(text, "- {title}: {}", status_word(task.status));
        if task.pr != 0 {
            let _ = write!(text, ", pull request #{}", task.pr);
        }
        if task.merge_sha != Sha::default() {
            let _ = write!(text, ", as {}", task.merge_sha.short());
        }
        text.push('\n');
    }
    for reason in &outcome.reasons {
        let _ = writeln!(text, "- {reason}");
    }
    text
}

fn status_word(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Open => "open",
        TaskStatus::Blocked => "waits for a person",
        TaskStatus::Merged => "merged",
        TaskStatus::Stopped => "stopped",
        TaskStatus::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, status: TaskStatus) -> TrackedTask {
        let outcome = TaskOutcome {
            task: id.to_owned(),
            status,
            pr: 2,
            reasons: vec!["why".to_owned()],
            ..TaskOutcome::default()
        };
        TrackedTask { task: id.to_owned(), status, outcome, ..TrackedTask::default() }
    }

    #[test]
    fn the_whole_is_merged_only_when_every_task_is() {
        let of = |statuses: &[TaskStatus]| {
            let tasks = statuses.iter().map(|status| task("t", *status)).collect();
            outcome(&Issue::default(), tasks, String::new()).outcome
        };
        assert_eq!(of(&[TaskStatus::Merged, TaskStatus::Merged]), Outcome::Merged);
        assert_eq!(of(&[TaskStatus::Merged, TaskStatus::Stopped]), Outcome::Stopped);
        assert_eq!(of(&[TaskStatus::Stopped, TaskStatus::Failed]), Outcome::Failed);
        assert_eq!(of(&[]), Outcome::Stopped);
    }

    #[test]
    fn the_report_names_what_was_not_merged_and_why() {
        let tasks = vec![task("t1", TaskStatus::Merged), task("t2", TaskStatus::Failed)];
        let outcome = outcome(&Issue::default(), tasks, String::new());
        assert_eq!(outcome.pr, 0, "two pull requests are not one");
        insta::assert_snapshot!(words(&outcome, &Plan::default()), @r#"
        ❌ Not finished.

        - t1: merged, pull request #2
        - t2: failed, pull request #2
        - t2: why
        "#);
    }
}

//! `swarm/plan`: the issue becomes tasks, or questions.
//!
//! The model's plan is only a proposal of what to do: it names no commands and no branches, and
//! nothing in it widens what a worker may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_graph::node::{Node, NodeContext, NodeError};

use super::Answered;
use crate::agent::untrusted::quote_exact;
use crate::agent::{Limits, Opening, clip, structured};
use crate::handover::{Issue, Plan};
use crate::parts::{Overview, Parts};

/// The most tasks of a plan.
pub const TASKS_MAX: usize = 8;

/// `swarm/plan`
#[derive(Debug)]
pub struct PlanNode {
    parts: Arc<Parts>,
    config: PlanConfig,
}

/// How it is set up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlanConfig {
    /// Whose model it uses.
    pub role: String,
    /// The prompt with the rules.
    pub rules: String,
    /// The prompt with the task.
    pub prompt: String,
    /// What bounds the conversation; the host's own limits when absent.
    pub limits: Option<Limits>,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            role: "manager".to_owned(),
            rules: "manager/rules.md".to_owned(),
            prompt: "manager/plan.md".to_owned(),
            limits: None,
        }
    }
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanInput {
    /// The issue.
    pub issue: Issue,
    /// What people answered to earlier questions.
    #[serde(default)]
    pub answers: Vec<Answered>,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct PlanOutput {
    /// The plan.
    pub plan: Plan,
}

impl PlanNode {
    pub(crate) fn new(parts: &Arc<Parts>, config: PlanConfig) -> Self {
        Self { parts: Arc::clone(parts), config }
    }
}

#[async_trait]
impl Node for PlanNode {
    const KIND: &'static str = "swarm/plan";
    type Config = PlanConfig;
    type Input = PlanInput;
    type Output = PlanOutput;

    async fn run(&self, ctx: &NodeContext, input: PlanInput) -> Result<PlanOutput, NodeError> {
        let PlanInput { issue, answers } = input;
        let role = &self.config.role;
        let overview: Overview =
            ctx.memo("overview", || async { self.parts.overview(&issue).await }).await?;
        let quoted =
            |name: &str, text: &Option<String>| text.as_deref().map(|text| quote_exact(name, text));
        let words = json!({
            "issue": issue.quoted(),
            "answers": answers,
            "files": quote_exact("list of files", &overview.files.join("\n")),
            "files_cut": overview.files_cut,
            "readme": quoted("README", &overview.readme),
            "instructions": quoted("AGENTS.md", &overview.instructions),
            "tasks_max": TASKS_MAX,
        });
        let opening = Opening {
            role: role.clone(),
            conversation: format!("{role}/{}#{}", ctx.node(), ctx.visit()),
            system: self.parts.prompt(&self.config.rules, &words)?,
            text: self.parts.prompt(&self.config.prompt, &words)?,
        };
        let model = self.parts.model(role)?;
        let limits = self.config.limits.as_ref().unwrap_or(&self.parts.limits);
        let plan: Plan = structured(ctx, &*model, opening, limits, "invalid_plan", rules).await?;
        let tasks: Vec<_> =
            plan.tasks.iter().map(|task| json!({ "id": task.id, "title": task.title })).collect();
        ctx.emit(
            "plan.made",
            json!({ "ambiguous": plan.ambiguous, "questions": plan.questions, "tasks": tasks }),
        )
        .await?;
        Ok(PlanOutput { plan })
    }
}

/// What a schema cannot say about a plan.
fn rules(plan: &Plan) -> Result<(), String> {
    if plan.summary.trim().is_empty() {
        return Err("`summary` is empty".to_owned());
    }
    if plan.ambiguous {
        let asks = plan.questions.iter().any(|question| !question.trim().is_empty());
        return if asks { Ok(()) } else { Err("`ambiguous` without a question".to_owned()) };
    }
    if plan.tasks.is_empty() || plan.tasks.len() > TASKS_MAX {
        return Err(format!("`tasks` has {} items; 1 to {TASKS_MAX} are right", plan.tasks.len()));
    }
    let mut ids = BTreeSet::new();
    for task in &plan.tasks {
        let is_id = (1..=32).contains(&task.id.len())
            && task.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_id {
            let id = clip(&task.id, 40);
            return Err(format!("task id `{id}`: 1 to 32 letters, digits and dashes are right"));
        }
        if !ids.insert(&task.id) {
            return Err(format!("task id `{}` is there twice", task.id));
        }
        if task.title.trim().is_empty() || task.goal.trim().is_empty() {
            return Err(format!("task `{}` has no title or no goal", task.id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::Task;

    fn task(id: &str) -> Task {
        Task { id: id.to_owned(), title: "t".to_owned(), goal: "g".to_owned(), ..Task::default() }
    }

    fn plan(tasks: Vec<Task>) -> Plan {
        Plan { summary: "s".to_owned(), tasks, ..Plan::default() }
    }

    #[test]
    fn a_plan_has_one_to_eight_tasks_with_ids_of_their_own() {
        let nine = (1..=9).map(|n| task(&format!("t{n}"))).collect();
        let said: Vec<String> = [
            plan(Vec::new()),
            plan(nine),
            plan(vec![task("t1"), task("t1")]),
            plan(vec![task("../../x")]),
            plan(vec![Task { goal: " ".to_owned(), ..task("t1") }]),
            Plan { ambiguous: true, ..plan(Vec::new()) },
        ]
        .iter()
        .map(|plan| rules(plan).unwrap_err())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        `tasks` has 0 items; 1 to 8 are right
        `tasks` has 9 items; 1 to 8 are right
        task id `t1` is there twice
        task id `../../x`: 1 to 32 letters, digits and dashes are right
        task `t1` has no title or no goal
        `ambiguous` without a question
        "#);
        assert_eq!(rules(&plan(vec![task("t1"), task("t2")])), Ok(()));
    }

    #[test]
    fn an_ambiguous_plan_needs_no_tasks() {
        let questions = vec!["Which?".to_owned()];
        let plan = Plan { ambiguous: true, questions, ..plan(Vec::new()) };
        assert_eq!(rules(&plan), Ok(()));
    }
}

//! The manager: an issue becomes a plan, its tasks become workers' runs, and all ends in a report.
//!
//! What is done in which order stands in `graphs/manager.yaml`; here are only the node kinds that
//! it names. None of them touches the repository's code.

pub mod escalate;
pub mod intake;
pub mod plan;
pub mod report;
pub mod track;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::registry::Registry;

use crate::handover::{Issue, ManagerInput, Plan, TaskOutcome, TaskStatus};
use crate::parts::Parts;

/// The state of a run of `manager`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct ManagerState {
    /// The issue, frozen.
    pub issue: Issue,
    /// The plan.
    pub plan: Plan,
    /// Why there is no plan.
    pub problem: String,
    /// What people answered to the plan's questions, oldest first.
    pub answers: Vec<Answered>,
    /// The tasks given to workers, by their runs.
    pub tasks: Vec<TrackedTask>,
    /// The last signal of a worker.
    pub signal: WorkerSignal,
    /// The end.
    pub outcome: ManagerOutput,
}

/// A question of the plan and what a person said to it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Answered {
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
}

/// A task in a worker's hands.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct TrackedTask {
    /// The run of `deliver` that works on it.
    pub run: String,
    /// The task's id in the plan.
    pub task: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its workers' questions that wait for a person, by the blocks' ids.
    pub waiting: Vec<String>,
    /// How it ended, once it has.
    pub outcome: TaskOutcome,
}

/// A signal as a worker's run sends it: `worker.blocked`, `worker.answered`, `worker.finished`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct WorkerSignal {
    /// Its name.
    pub name: String,
    /// Its payload, as the store wrote it.
    pub payload: serde_json::Value,
}

/// What a run of `manager` gives back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct ManagerOutput {
    /// How it ended as a whole.
    pub outcome: Outcome,
    /// The repository.
    pub repo: RepoId,
    /// The issue's number.
    pub issue: u64,
    /// Each task of the plan.
    pub tasks: Vec<TaskOutcome>,
    /// The pull request, when there is exactly one; else 0.
    pub pr: u64,
    /// Its branch.
    pub branch: String,
    /// Its merge commit.
    pub merge_sha: Sha,
    /// Why something was not merged.
    pub reasons: Vec<String>,
}

/// How a run of `manager` ended as a whole.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every task is merged.
    Merged,
    /// People stopped every task that is not merged.
    #[default]
    Stopped,
    /// A task failed.
    Failed,
}

/// Adds the manager's node kinds and types.
pub(crate) fn register(registry: Registry, parts: &Arc<Parts>) -> Registry {
    let (intake, plan, escalate, report) =
        (parts.clone(), parts.clone(), parts.clone(), parts.clone());
    registry
        .ty_without_default::<ManagerInput>("ManagerInput")
        .ty::<ManagerState>("ManagerState")
        .ty::<ManagerOutput>("ManagerOutput")
        .node::<intake::Intake>(move |config| Ok(intake::Intake::new(&intake, config)))
        .node::<plan::PlanNode>(move |config| Ok(plan::PlanNode::new(&plan, config)))
        .node::<track::Track>(|_| Ok(track::Track))
        .node::<escalate::Escalate>(move |config| Ok(escalate::Escalate::new(&escalate, config)))
        .node::<report::Report>(move |config| Ok(report::Report::new(&report, config)))
}

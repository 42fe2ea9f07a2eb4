//! Operations: watches the gate, asks for the approval, merges.
//!
//! Whether something may be merged is decided in `swarm_core::gate`, never here. The merging
//! credential is given to [`merge::Merge`] alone, which asks the gate again before it uses it: no
//! graph, however it is edited, merges past the gate.

pub mod approval;
pub mod decide;
pub mod merge;
mod snapshot;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::gate::Course;
use swarm_core::port::forge::{ForgeMerge, RepoId, Sha};
use swarm_graph::registry::Registry;

use crate::handover::{Change, Issue, OpsOutcome, OpsOutput};
use crate::parts::Parts;

/// What a run of `ops` is started with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OpsInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The change.
    pub change: Change,
}

/// The state of a run of `ops`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct OpsState {
    /// What the gate needs next.
    pub step: Step,
    /// The head that was looked at last.
    pub head: Sha,
    /// How it ended.
    pub outcome: OpsOutcome,
    /// What stands in the way, or what the person wants.
    pub reasons: Vec<String>,
    /// The merge commit.
    pub merge_sha: Sha,
}

/// What follows a look at the gate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Merge.
    Merge,
    /// Ask for the approval.
    Approval,
    /// Look again later.
    Wait,
    /// Hand it back, with the outcome.
    #[default]
    Return,
}

/// What a blocked merge's course means for this run.
fn follow(course: Course) -> (Step, OpsOutcome) {
    match course {
        Course::Approval => (Step::Approval, OpsOutcome::Blocked),
        Course::Wait => (Step::Wait, OpsOutcome::Blocked),
        Course::Changes => (Step::Return, OpsOutcome::ChangesRequested),
        Course::Update => (Step::Return, OpsOutcome::Outdated),
        Course::Review => (Step::Return, OpsOutcome::HeadMoved),
        Course::Stuck => (Step::Return, OpsOutcome::Blocked),
    }
}

/// Adds the node kinds and types of operations. `merger` goes to `swarm/merge` and nowhere else.
pub(crate) fn register(
    registry: Registry,
    parts: &Arc<Parts>,
    merger: &Arc<dyn ForgeMerge>,
) -> Registry {
    let (decide, approval, merge) = (parts.clone(), parts.clone(), parts.clone());
    let merger = Arc::clone(merger);
    registry
        .ty_without_default::<OpsInput>("OpsInput")
        .ty::<OpsState>("OpsState")
        .ty::<OpsOutput>("OpsOutput")
        .node::<decide::Decide>(move |config| Ok(decide::Decide::new(&decide, config)))
        .node::<approval::Approval>(move |config| Ok(approval::Approval::new(&approval, config)))
        .node::<merge::Merge>(move |config| Ok(merge::Merge::new(&merge, &merger, config)))
}

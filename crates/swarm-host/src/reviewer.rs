//! The reviewer: a fresh look at the head of a pull request.
//!
//! It never approves as a person would. Its review remarks or requests changes, and its three
//! statuses say whether tests, linters and review stand in the way; only people open the gate.

pub mod review;
pub mod submit;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::port::forge::RepoId;
use swarm_graph::registry::Registry;
use swarm_tools::checks::Check;
use swarm_tools::git::TreeId;

use crate::dev::checks::Results;
use crate::handover::{Change, Desk, Finding, Issue, ReviewOutput, ReviewVerdict, Task};
use crate::parts::Parts;

/// What a run of `reviewer` is started with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewerInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The task.
    pub task: Task,
    /// The change.
    pub change: Change,
    /// The repository's checks as found before the change.
    #[serde(default)]
    pub list: Vec<Check>,
    /// Rounds of development so far.
    #[serde(default)]
    pub round: u32,
}

/// The state of a run of `reviewer`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct ReviewerState {
    /// The workspace and the commits it stands on.
    pub desk: Desk,
    /// Its files.
    pub tree: TreeId,
    /// The change, with the head as it is.
    pub change: Change,
    /// How tests and linters came out.
    pub checks: Results,
    /// Why the model has no opinion.
    pub problem: String,
    /// What the model thinks.
    pub opinion: review::Opinion,
    /// What follows from all that.
    pub verdict: ReviewVerdict,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Adds the reviewer's node kinds and types.
pub(crate) fn register(registry: Registry, parts: &Arc<Parts>) -> Registry {
    let (review, submit) = (Arc::clone(parts), Arc::clone(parts));
    registry
        .ty_without_default::<ReviewerInput>("ReviewerInput")
        .ty::<ReviewerState>("ReviewerState")
        .ty::<ReviewOutput>("ReviewOutput")
        .node::<review::Review>(move |config| Ok(review::Review::new(&review, config)))
        .node::<submit::Submit>(move |config| Ok(submit::Submit::new(&submit, config)))
}

//! The developer: a task becomes a commit on a branch with a pull request.
//!
//! The workspace is only a place where commands find files. What counts is the tree in the run's
//! state: each node puts it there before it begins and takes it out when it may have changed, so
//! what a killed process or a test run left lying about never gets into a change.

pub mod checkout;
pub mod checks;
pub mod commit;
pub mod desk;
pub mod implement;
pub mod inspect;
pub mod open_pr;
pub mod push;
pub mod setup;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::registry::Registry;
use swarm_tools::checks::Check;
use swarm_tools::git::TreeId;
use swarm_tools::toolbox::control::Finish;

use crate::handover::{Change, Desk, DevOutcome, DevOutput, Finding, Issue, Plan, Task};
use crate::parts::Parts;

/// What a run of `dev` is started with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DevInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The plan that the task is from.
    pub plan: Plan,
    /// The task.
    pub task: Task,
    /// What the workspace is named after, the same in every round; empty: this run.
    #[serde(default)]
    pub workspace: String,
    /// Rounds before this one.
    #[serde(default)]
    pub round: u32,
    /// The change so far; its `pr` is 0 when there is none.
    #[serde(default)]
    pub change: Change,
    /// What this round shall deal with.
    #[serde(default)]
    pub feedback: Vec<Finding>,
    /// Whether to take the base in.
    #[serde(default)]
    pub update: bool,
    /// The repository's checks as found in an earlier round; empty: they are looked for.
    #[serde(default)]
    pub list: Vec<Check>,
}

/// The state of a run of `dev`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct DevState {
    /// The workspace and the commits it stands on.
    pub desk: Desk,
    /// The files as they shall be.
    pub tree: TreeId,
    /// Files that hold conflict marks from taking the base in.
    pub conflicts: Vec<String>,
    /// The repository's checks.
    pub list: Vec<Check>,
    /// How they came out before.
    pub before: checks::Results,
    /// How they came out after.
    pub after: checks::Results,
    /// What the implementer says it did.
    pub finish: Finished,
    /// What policies say of the change.
    pub inspection: inspect::Inspection,
    /// A person's advice.
    pub hint: String,
    /// The commit.
    pub head: Sha,
    /// The change, once proposed.
    pub change: Change,
    /// How the round ended.
    pub outcome: DevOutcome,
    /// Why it ended so.
    pub reasons: Vec<String>,
}

/// What the implementer says it did: [`Finish`], with a default.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Finished {
    /// What was done and why. Untrusted.
    pub summary: String,
    /// The first line of the commit message. Untrusted.
    pub commit_title: String,
    /// The rest of the commit message. Untrusted.
    pub commit_body: String,
}

impl From<Finish> for Finished {
    fn from(finish: Finish) -> Self {
        let Finish { summary, commit_title, commit_body } = finish;
        Self { summary, commit_title, commit_body }
    }
}

/// Adds the developer's node kinds and types.
pub(crate) fn register(registry: Registry, parts: &Arc<Parts>) -> Registry {
    let p = || Arc::clone(parts);
    let (checkout, setup, run, implement) = (p(), p(), p(), p());
    let (inspect, commit, push, open_pr) = (p(), p(), p(), p());
    registry
        .ty_without_default::<DevInput>("DevInput")
        .ty::<DevState>("DevState")
        .ty::<DevOutput>("DevOutput")
        .node::<checkout::Checkout>(move |config| Ok(checkout::Checkout::new(&checkout, config)))
        .node::<setup::Setup>(move |config| Ok(setup::Setup::new(&setup, config)))
        .node::<checks::Checks>(move |config| Ok(checks::Checks::new(&run, config)))
        .node::<implement::Implement>(move |config| {
            Ok(implement::Implement::new(&implement, config))
        })
        .node::<inspect::Inspect>(move |config| Ok(inspect::Inspect::new(&inspect, config)))
        .node::<commit::Commit>(move |config| Ok(commit::Commit::new(&commit, config)))
        .node::<push::Push>(move |config| Ok(push::Push::new(&push, config)))
        .node::<open_pr::OpenPr>(move |config| Ok(open_pr::OpenPr::new(&open_pr, config)))
}

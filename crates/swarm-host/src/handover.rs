//! What the roles hand to each other: the issue, the plan, a task, a change, a review.
//!
//! These are the shapes of the channels in `graphs/*.yaml`, so a field renamed here is a field
//! renamed there. They have defaults and few options: an expression in a graph may then read
//! `state.change.pr` before there is a change, and finds 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::registry::Registry;
use swarm_tools::checks::Check;

use crate::agent::untrusted::quote;

/// The files of a workspace or a commit, by their content.
pub use swarm_tools::git::TreeId;

/// What a run of `manager` is started with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue, by number or as text.
    pub issue: IssueSource,
}

/// An issue by number, or its text when there is none yet.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IssueSource {
    /// The issue's number; 0 when it must first be opened from the text below.
    #[serde(default)]
    pub number: u64,
    /// The title of a new issue; empty: the first line of the body.
    #[serde(default)]
    pub title: String,
    /// The text of a new issue, Markdown.
    #[serde(default)]
    pub body: String,
    /// The login of whoever brought the text.
    #[serde(default)]
    pub author: String,
}

/// An issue as it was when the run began. Later edits do not reach the run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Issue {
    /// The repository.
    pub repo: RepoId,
    /// The issue's number.
    pub number: u64,
    /// The title. Untrusted.
    pub title: String,
    /// The text. Untrusted.
    pub body: String,
    /// Who wrote it.
    pub author: String,
    /// Comments by people with write permission, oldest first. Untrusted all the same.
    pub remarks: Vec<Remark>,
    /// Its labels.
    pub labels: Vec<String>,
    /// Where people see it.
    pub url: String,
    /// SHA-256 over title, body and remarks, in hex: what exactly was worked on.
    pub hash: String,
    /// The branch that the change shall go to.
    pub base_branch: String,
}

impl Issue {
    /// The issue for a prompt: every text of it quoted as data.
    #[must_use]
    pub fn quoted(&self) -> Value {
        let remarks = self
            .remarks
            .iter()
            .map(|remark| quote(&format!("comment by {}", remark.author), &remark.body));
        json!({
            "number": self.number,
            "title": quote("issue title", &self.title),
            "body": quote("issue text", &self.body),
            "remarks": remarks.collect::<Vec<_>>(),
        })
    }
}

/// A comment on an issue.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Remark {
    /// Who wrote it.
    pub author: String,
    /// The text. Untrusted.
    pub body: String,
}

/// How the issue is to be solved.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The approach in two or three sentences.
    pub summary: String,
    /// Whether the issue can be read in more than one way that matters.
    pub ambiguous: bool,
    /// What a person must answer before work can begin; empty unless ambiguous.
    #[serde(default)]
    pub questions: Vec<String>,
    /// The tasks, each of which becomes a pull request of its own. One task is best.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// A piece of work that makes sense, and can be merged, by itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// A short id, unique in the plan, such as `t1`: letters, digits and dashes.
    pub id: String,
    /// What changes, in a line of at most 70 characters, in the imperative.
    pub title: String,
    /// What to do and why, for whoever implements it.
    pub goal: String,
    /// Facts that hold when it is done, each checkable.
    #[serde(default)]
    pub acceptance: Vec<String>,
    /// Files that are likely to change.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A working tree and the commits it stands on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Desk {
    /// The workspace's key in the data directory.
    pub key: String,
    /// The commit of the base branch that the change is measured against.
    pub base: Sha,
    /// The commit that the next commit goes on top of: the base, or the head of the branch.
    pub start: Sha,
    /// The commit of the base branch that the next commit takes in; empty when none.
    pub takes_in: Sha,
    /// The branch that is or will be pushed.
    pub branch: String,
    /// The branch it shall go to.
    pub base_branch: String,
}

/// A pull request with its head as handed over.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Change {
    /// The pull request's number; 0 while there is none.
    pub pr: u64,
    /// Where people see it.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The branch it shall go to.
    pub base_branch: String,
    /// The commit of the base branch it was made on.
    pub base: Sha,
    /// The head.
    pub head: Sha,
    /// The title.
    pub title: String,
    /// What was done, in the implementer's words. Untrusted.
    pub summary: String,
}

/// How a round of `dev` ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DevOutcome {
    /// A pull request is open and its head is new.
    Proposed,
    /// A person stopped the work; the workspace is kept.
    #[default]
    Stopped,
}

/// What a run of `dev` gives back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DevOutput {
    /// How it ended.
    pub outcome: DevOutcome,
    /// The change, when proposed.
    pub change: Change,
    /// The repository's checks, as found before anything was changed.
    pub list: Vec<Check>,
    /// Why it ended so, when stopped.
    pub reasons: Vec<String>,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Must be mended before a merge.
    Blocking,
    /// Worth knowing.
    #[default]
    Remark,
}

/// One thing that a review found.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The file, from the root of the repository; empty when it concerns the whole change.
    #[serde(default)]
    pub path: String,
    /// The line in the new file, from 1; 0 when it concerns the whole file.
    #[serde(default)]
    pub line: u32,
    /// How much it weighs.
    pub weight: Weight,
    /// What is wrong, why, and what would be right.
    pub text: String,
}

/// What the reviewer makes of a change.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewVerdict {
    /// Nothing blocks. Not an approval: only a person gives that.
    #[default]
    Clean,
    /// Tests fail or a finding blocks.
    ChangesRequested,
}

/// What a run of `reviewer` gives back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct ReviewOutput {
    /// What it makes of the change.
    pub verdict: ReviewVerdict,
    /// The change, with the head that it looked at.
    pub change: Change,
    /// What it found, failing tests included.
    pub findings: Vec<Finding>,
}

/// How a merge attempt ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpsOutcome {
    /// Merged.
    Merged,
    /// A person asked for changes.
    ChangesRequested,
    /// The base has moved or conflicts: the change must take it in.
    Outdated,
    /// The head is not the one that was reviewed.
    HeadMoved,
    /// Something other than a person's approval stands in the way.
    #[default]
    Blocked,
    /// A person stopped it.
    Stopped,
}

/// What a run of `ops` gives back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct OpsOutput {
    /// How it ended.
    pub outcome: OpsOutcome,
    /// The merge commit, when merged.
    pub merge_sha: Sha,
    /// What stands in the way, or what the person wants changed.
    pub reasons: Vec<String>,
}

/// Where a task ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Work goes on.
    #[default]
    Open,
    /// A worker waits for a person.
    Blocked,
    /// Merged.
    Merged,
    /// A person stopped it.
    Stopped,
    /// It failed.
    Failed,
}

/// What a run of `deliver` gives back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct TaskOutcome {
    /// The task's id.
    pub task: String,
    /// Where it ended.
    pub status: TaskStatus,
    /// The pull request's number; 0 when there is none.
    pub pr: u64,
    /// Where people see it.
    pub url: String,
    /// The branch; empty when nothing was pushed.
    pub branch: String,
    /// The merge commit; empty when not merged.
    pub merge_sha: Sha,
    /// Why it was not merged.
    pub reasons: Vec<String>,
}

/// What a run of `deliver` is started with.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The plan that the task is from.
    pub plan: Plan,
    /// The task.
    pub task: Task,
}

/// The state of a run of `deliver`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct DeliverState {
    /// Rounds of development begun.
    pub round: u32,
    /// How the last round of development ended.
    pub outcome: DevOutcome,
    /// The change.
    pub change: Change,
    /// The repository's checks, as found before anything was changed.
    pub list: Vec<Check>,
    /// What the reviewer made of it.
    pub verdict: ReviewVerdict,
    /// What the next round shall deal with.
    pub feedback: Vec<Finding>,
    /// Whether the next round shall take the base in.
    pub update: bool,
    /// The part that broke off last.
    pub at: String,
    /// What became of the merge.
    pub gate: OpsOutcome,
    /// The merge commit.
    pub merge_sha: Sha,
    /// What stands in the way.
    pub reasons: Vec<String>,
}

/// An answer in words.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The answer.
    pub comment: String,
}

/// Adds what several roles share.
pub(crate) fn register(registry: Registry) -> Registry {
    registry
        .ty_without_default::<Answer>("Answer")
        .ty_without_default::<DeliverInput>("DeliverInput")
        .ty::<DeliverState>("DeliverState")
        .ty::<TaskOutcome>("TaskOutcome")
}

//! Forges: issues, branches, pull requests, reviews, statuses, merge.
//!
//! The objects are GitHub's, reduced to what the swarm decides on; the local forge keeps the
//! same ones in the store. Pushing a branch is git's business, not the forge's.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::Timestamp;

/// A full commit id in lower-case hex.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Sha(pub String);

impl Sha {
    /// The first ten characters, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for Sha {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A repository: `owner/name` on GitHub, an absolute path or a `file://` URL locally.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct RepoId(pub String);

impl std::fmt::Display for RepoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What someone may do in a repository. GitHub's `maintain` folds to write, `triage` to read.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Write: approve, merge, command.
    Write,
    /// Everything.
    Admin,
}

/// Someone who acts.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub struct Actor {
    /// The login.
    pub login: String,
    /// Whether it is a program.
    pub is_bot: bool,
}

/// A repository's facts.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Repo {
    /// Which one.
    pub id: RepoId,
    /// What git clones and pushes to.
    pub clone_url: String,
    /// Where changes go unless said otherwise.
    pub default_branch: String,
}

/// An issue to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NewIssue {
    /// The title.
    pub title: String,
    /// The text, Markdown.
    pub body: String,
    /// Who wrote it.
    pub author: Actor,
    /// Makes the call idempotent: the same key finds the same issue.
    pub key: String,
}

/// An issue.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Issue {
    /// Its number, shared with pull requests.
    pub number: u64,
    /// The title. Untrusted.
    pub title: String,
    /// The text. Untrusted.
    pub body: String,
    /// Who wrote it.
    pub author: Actor,
    /// Whether it is open.
    pub is_open: bool,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its comments, oldest first.
    pub comments: Vec<Comment>,
    /// Where people see it.
    pub url: String,
}

/// A comment on an issue or a pull request.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Comment {
    /// Its id.
    pub id: u64,
    /// Who wrote it.
    pub author: Actor,
    /// The text. Untrusted.
    pub body: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// Whether it was edited since; an edited comment is never a command.
    pub is_edited: bool,
}

/// A pull request to be opened.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NewPullRequest {
    /// The branch with the change. One open pull request per head branch: opening it again
    /// finds it.
    pub head: String,
    /// The branch it shall go to.
    pub base: String,
    /// The title.
    pub title: String,
    /// The description, Markdown.
    pub body: String,
    /// Who opens it.
    pub author: Actor,
}

/// Where a pull request stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Open.
    Open,
    /// Closed without a merge.
    Closed,
    /// Merged.
    Merged,
}

/// Someone who wrote or committed a commit of a change.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Committer {
    /// The name in the commit. Untrusted: anyone can write any name.
    pub name: String,
    /// The mail address in the commit. Untrusted, too.
    pub email: String,
    /// The login that the forge matched it to, if it could.
    pub login: Option<String>,
}

/// A pull request, as read now.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PullRequest {
    /// Its number, shared with issues.
    pub number: u64,
    /// Where it stands.
    pub state: PullState,
    /// Whether its author says that it is not ready.
    pub is_draft: bool,
    /// Whether its head lives in another repository: no secrets for it, and no push to it.
    pub is_from_fork: bool,
    /// The title. Untrusted.
    pub title: String,
    /// The description. Untrusted.
    pub body: String,
    /// Who opened it.
    pub author: Actor,
    /// The branch with the change.
    pub head: String,
    /// The head's commit now.
    pub head_sha: Sha,
    /// The branch it shall go to.
    pub base: String,
    /// The base's commit now.
    pub base_sha: Sha,
    /// Whether it merges without conflict; `None` while the forge has not computed it.
    pub mergeable: Option<bool>,
    /// How many commits of the base the head lacks; `None` while unknown. With 0, the merge has
    /// the head's very tree.
    pub behind_by: Option<u64>,
    /// Authors and committers of its commits, each once.
    pub committers: Vec<Committer>,
    /// The merge commit, once merged.
    pub merge_sha: Option<Sha>,
    /// Where people see it.
    pub url: String,
}

/// What a review says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Fine to merge.
    Approve,
    /// Not like this.
    RequestChanges,
    /// Remarks only.
    Comment,
}

/// A remark on a line of the change.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LineComment {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line in the new file, from 1.
    pub line: u32,
    /// The remark, Markdown.
    pub body: String,
}

/// A review to be submitted. Bound to the commit it looked at.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NewReview {
    /// Who reviews.
    pub author: Actor,
    /// What it says.
    pub verdict: Verdict,
    /// The commit it looked at.
    pub commit: Sha,
    /// The text.
    pub body: String,
    /// Remarks on lines.
    pub comments: Vec<LineComment>,
    /// Makes the call idempotent: the same key finds the same review.
    pub key: String,
}

/// A submitted review.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Review {
    /// Its id.
    pub id: u64,
    /// Who reviewed.
    pub author: Actor,
    /// The author's permission, as read now, not as it was then.
    pub permission: Permission,
    /// What it says.
    pub verdict: Verdict,
    /// The commit it looked at.
    pub commit: Sha,
    /// The text. Untrusted.
    pub body: String,
    /// Remarks on lines.
    pub comments: Vec<LineComment>,
    /// Whether it was dismissed.
    pub is_dismissed: bool,
    /// When it was submitted.
    pub submitted_at: Timestamp,
}

/// How a check or a status stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Not finished.
    Pending,
    /// Passed.
    Success,
    /// Passed in GitHub's eyes: skipped.
    Skipped,
    /// Passed in GitHub's eyes: neutral.
    Neutral,
    /// Failed.
    Failure,
    /// Broke before it could say.
    Error,
}

impl CheckState {
    /// Whether it counts as passed: success, skipped and neutral do.
    #[must_use]
    pub fn passes(self) -> bool {
        match self {
            Self::Success | Self::Skipped | Self::Neutral => true,
            Self::Pending | Self::Failure | Self::Error => false,
        }
    }
}

/// Which of the forge's two kinds a check is. A name that is present as both must pass as both.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// A commit status: anyone with write permission can set any name.
    Status,
    /// A check run of an app.
    Run,
}

/// A check run or a commit status: belongs to a commit, not to a pull request.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Check {
    /// Its name, GitHub's `context`.
    pub name: String,
    /// Which of the two kinds it is.
    pub kind: CheckKind,
    /// How it stands.
    pub state: CheckState,
    /// One line for people. Untrusted.
    pub summary: String,
    /// The commit.
    pub commit: Sha,
    /// The login or app that set it, as the forge established it; required checks pin this.
    pub source: String,
    /// When it was set.
    pub at: Timestamp,
}

/// A status to be set.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NewStatus {
    /// Its name, GitHub's `context`.
    pub name: String,
    /// How it stands.
    pub state: CheckState,
    /// One line for people, at most 140 characters.
    pub summary: String,
    /// The commit.
    pub commit: Sha,
    /// Who sets it. On GitHub the credential decides; the local forge believes its host.
    pub source: Actor,
}

/// A check that must pass before a merge.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(deny_unknown_fields)]
pub struct RequiredCheck {
    /// Its name, GitHub's `context`.
    pub name: String,
    /// The only login or app it is believed from; anyone, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What the forge itself demands of a branch: all its protections and rulesets, added up.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BranchRules {
    /// Checks that must pass.
    #[serde(default)]
    pub required_checks: Vec<RequiredCheck>,
    /// How many approvals are needed at least.
    #[serde(default)]
    pub approvals_min: u32,
    /// Whether the head must contain the base.
    #[serde(default)]
    pub is_strict: bool,
}

/// A merge to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct MergeRequest {
    /// The pull request.
    pub number: u64,
    /// The head that was approved. Any other head is refused.
    pub expected_head: Sha,
    /// The base that the decision stood on, if it depends on it. Any other base is refused.
    pub expected_base: Option<Sha>,
    /// The merge commit's message.
    pub message: String,
    /// When the merge was decided; dates the merge commit where the forge lets us.
    pub at: Timestamp,
}

/// Why the forge did not do it.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such repository, issue, branch or pull request.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The head is not the one that was approved. Never retry with a fresh one.
    #[error("the head moved to {found}, approved was {expected}")]
    HeadMoved {
        /// The approved head.
        expected: Sha,
        /// The head now.
        found: Sha,
    },
    /// The base is not the one that the decision stood on: decide again.
    #[error("the base moved to {found}, decided on was {expected}")]
    BaseMoved {
        /// The base of the decision.
        expected: Sha,
        /// The base now.
        found: Sha,
    },
    /// It cannot be merged: a conflict, not open, or a work tree in the way.
    #[error("cannot merge: {0}")]
    NotMergeable(String),
    /// The forge refuses the request as it is.
    #[error("refused: {0}")]
    Refused(String),
    /// No or not enough permission: a person is needed.
    #[error("permission denied: {0}")]
    Denied(String),
    /// Too many requests: wait.
    #[error("rate limited")]
    RateLimited {
        /// How long to wait.
        retry_after: std::time::Duration,
    },
    /// The connection or the disk failed.
    #[error("forge unreachable: {0}")]
    Unreachable(String),
}

/// Reads: what every worker may do.
#[async_trait]
pub trait ForgeRead: Send + Sync + 'static {
    /// The repository's facts.
    async fn repo(&self, repo: &RepoId) -> Result<Repo, Error>;
    /// An issue or a pull request, as a text with comments.
    async fn issue(&self, repo: &RepoId, number: u64) -> Result<Issue, Error>;
    /// A pull request, head and base read now.
    async fn pull_request(&self, repo: &RepoId, number: u64) -> Result<PullRequest, Error>;
    /// The open pull request of a head branch, or the last one there was.
    async fn pull_request_of(
        &self,
        repo: &RepoId,
        head: &str,
    ) -> Result<Option<PullRequest>, Error>;
    /// Its reviews, oldest first, with the authors' permissions read now.
    async fn reviews(&self, repo: &RepoId, number: u64) -> Result<Vec<Review>, Error>;
    /// Checks and statuses of a commit; of each name, kind and source the latest.
    async fn checks(&self, repo: &RepoId, commit: &Sha) -> Result<Vec<Check>, Error>;
    /// What the forge demands of a branch.
    async fn branch_rules(&self, repo: &RepoId, branch: &str) -> Result<BranchRules, Error>;
    /// What someone may do, read now.
    async fn permission(&self, repo: &RepoId, login: &str) -> Result<Permission, Error>;
}

/// Writes: what dev, reviewer and manager may do. Each is idempotent by a key or a name in it.
#[async_trait]
pub trait ForgeWrite: ForgeRead {
    /// Makes an issue.
    async fn open_issue(&self, repo: &RepoId, issue: NewIssue) -> Result<Issue, Error>;
    /// Writes or rewrites the one comment that carries `marker`, on an issue or pull request.
    async fn sticky_comment(
        &self,
        repo: &RepoId,
        number: u64,
        author: &Actor,
        marker: &str,
        body: &str,
    ) -> Result<Comment, Error>;
    /// Opens a pull request, or finds the open one of the same head and brings its text up to date.
    async fn open_pull_request(
        &self,
        repo: &RepoId,
        pull: NewPullRequest,
    ) -> Result<PullRequest, Error>;
    /// Submits a review. Remarks must lie on lines of the change or beside them (in a hunk of the
    /// diff): others are [`Error::Refused`], as is an approval by a bot or by the author.
    async fn submit_review(
        &self,
        repo: &RepoId,
        number: u64,
        review: NewReview,
    ) -> Result<Review, Error>;
    /// Sets a status on a commit.
    async fn set_status(&self, repo: &RepoId, status: NewStatus) -> Result<(), Error>;
    /// Closes an issue or a pull request.
    async fn close(&self, repo: &RepoId, number: u64) -> Result<(), Error>;
}

/// The merging credential: only the gate's component holds it.
#[async_trait]
pub trait ForgeMerge: ForgeRead {
    /// Merges if head and base are still the expected ones, and returns the merge commit. Merged
    /// already with that head is success with the same commit.
    async fn merge(&self, repo: &RepoId, merge: MergeRequest) -> Result<Sha, Error>;
}

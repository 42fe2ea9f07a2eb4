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

/// A pull request, as read now.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PullRequest {
    /// Its number, shared with issues.
    pub number: u64,
    /// Where it stands.
    pub state: PullState,
    /// The title.
    pub title: String,
    /// The description.
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
    /// Whether it merges without conflict; `None` while unknown.
    pub mergeable: Option<bool>,
    /// Authors and committers of its commits, as names with mail addresses.
    pub committers: Vec<String>,
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
    /// The author's permission, as read now.
    pub permission: Permission,
    /// What it says.
    pub verdict: Verdict,
    /// The commit it looked at.
    pub commit: Sha,
    /// The text.
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

/// A check run or a commit status: belongs to a commit, not to a pull request.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Check {
    /// Its name, GitHub's `context`.
    pub name: String,
    /// How it stands.
    pub state: CheckState,
    /// One line for people.
    pub summary: String,
    /// The commit.
    pub commit: Sha,
    /// Who set it; required checks pin this.
    pub source: String,
}

/// A merge to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct MergeRequest {
    /// The pull request.
    pub number: u64,
    /// The head that was approved. Any other head is refused.
    pub expected_head: Sha,
    /// The merge commit's message.
    pub message: String,
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
    /// It cannot be merged: a conflict, or not open.
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
    /// An issue with its comments.
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
    /// Checks and statuses of a commit; of each name the latest.
    async fn checks(&self, repo: &RepoId, commit: &Sha) -> Result<Vec<Check>, Error>;
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
    /// Submits a review.
    async fn submit_review(
        &self,
        repo: &RepoId,
        number: u64,
        review: NewReview,
    ) -> Result<Review, Error>;
    /// Sets a status on a commit.
    async fn set_status(&self, repo: &RepoId, check: Check) -> Result<(), Error>;
    /// Closes an issue or a pull request.
    async fn close(&self, repo: &RepoId, number: u64) -> Result<(), Error>;
}

/// The merging credential: only the gate's component holds it.
#[async_trait]
pub trait ForgeMerge: ForgeRead {
    /// Merges if the head is still `expected_head`; merged already with that head is success.
    async fn merge(&self, repo: &RepoId, merge: MergeRequest) -> Result<Sha, Error>;
}

//! `swarm/commit`: the tree becomes a commit in the mirror.
//!
//! Made by the host from data: no hook, filter or signature of the repository has a say. The same
//! tree, parents, message and moment make the same commit, so making it twice makes it once.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_core::port::forge::{RepoId, Sha};
use swarm_core::time::Timestamp;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};
use swarm_tools::git::{NewCommit, TreeId};

use super::Finished;
use crate::agent::clip;
use crate::agent::untrusted::clean;
use crate::handover::{Desk, Issue, Task};
use crate::parts::Parts;

/// `swarm/commit`
#[derive(Debug)]
pub struct Commit {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitInput {
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
    /// What the implementer says it did.
    pub finish: Finished,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct CommitOutput {
    /// The commit; the start itself when the files are still the same.
    pub head: Sha,
}

impl Commit {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Commit {
    const KIND: &'static str = "swarm/commit";
    type Config = NoConfig;
    type Input = CommitInput;
    type Output = CommitOutput;

    async fn run(&self, ctx: &NodeContext, input: CommitInput) -> Result<CommitOutput, NodeError> {
        let CommitInput { repo, issue, task, desk, tree, finish } = input;
        let mirror = self.parts.mirror_as_is(&repo).await?;
        let takes_in = desk.takes_in != Sha::default();
        let unchanged = mirror.tree_of(&desk.start).await.map_err(Failure::from)? == tree;
        if unchanged && !takes_in {
            return Ok(CommitOutput { head: desk.start });
        }
        let at: Timestamp = ctx.memo("at", || async { Ok(ctx.now()) }).await?;
        let mut parents = vec![desk.start.clone()];
        parents.extend(takes_in.then(|| desk.takes_in.clone()));
        let person = self.parts.bot.person();
        let commit = NewCommit {
            tree: tree.clone(),
            parents,
            author: person.clone(),
            committer: person,
            at,
            message: message(&issue, &task, &desk, &finish, ctx.root_id().as_str()),
        };
        let head = mirror.commit(commit).await.map_err(Failure::from)?;
        let open = self.parts.desk(ctx, &repo, &desk).await?;
        open.keep(&desk, &tree, at).await?;
        ctx.emit("commit.made", json!({ "sha": head, "branch": desk.branch })).await?;
        Ok(CommitOutput { head })
    }
}

/// The title in one line, the body, and trailers that nothing in them can forge.
fn message(issue: &Issue, task: &Task, desk: &Desk, finish: &Finished, run: &str) -> String {
    let mut title = line(&finish.commit_title);
    if title.is_empty() {
        title = if desk.takes_in == Sha::default() {
            line(&task.title)
        } else {
            format!("Take in {} at {}", desk.base_branch, desk.takes_in.short())
        };
    }
    // A trailer of the model's would look like ours.
    let body: Vec<String> = clean(&finish.commit_body)
        .lines()
        .filter(|line| !is_trailer(line))
        .map(|line| line.trim_end().to_owned())
        .collect();
    let body = body.join("\n");
    let body = body.trim();
    let gap = if body.is_empty() { "" } else { "\n\n" };
    format!("{}{gap}{body}\n\nIssue: #{}\nSwarm-Run: {run}\n", clip(&title, 100), issue.number)
}

fn is_trailer(line: &str) -> bool {
    let Some((key, _)) = line.trim_start().split_once(':') else { return false };
    ["issue", "swarm-run", "signed-off-by", "co-authored-by", "reviewed-by", "approved-by"]
        .contains(&key.trim().to_ascii_lowercase().as_str())
}

fn line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_title_a_body_and_trailers_of_ours_only() {
        let finish = Finished {
            summary: String::new(),
            commit_title: "Fix the parser\nfor good.".to_owned(),
            commit_body: "It lost the last line.\nApproved-By: nobody\nSwarm-Run: other\n"
                .to_owned(),
        };
        let issue = Issue { number: 7, ..Issue::default() };
        let text = message(&issue, &Task::default(), &Desk::default(), &finish, "run-1");
        insta::assert_snapshot!(text, @r#"
        Fix the parser for good

        It lost the last line.

        Issue: #7
        Swarm-Run: run-1
        "#);
    }

    #[test]
    fn without_a_title_of_its_own_a_commit_has_the_tasks() {
        let task = Task { title: "Do it".to_owned(), ..Task::default() };
        let text = message(&Issue::default(), &task, &Desk::default(), &Finished::default(), "r");
        assert!(text.starts_with("Do it\n\nIssue: #0\n"), "{text}");
    }
}

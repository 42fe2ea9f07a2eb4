//! `swarm/checkout`: a workspace with the files that the work begins from.
//!
//! Which commits these are is decided once and journaled: a branch that moves afterwards does not
//! move the ground under a run.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use swarm_core::failure::Failure;
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::information::Flow;
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_tools::git::{Mirror, TreeId};

use crate::handover::{Change, Desk, Issue, Task};
use crate::parts::{Parts, forge_failure};

/// `swarm/checkout`
#[derive(Debug)]
pub struct Checkout {
    parts: Arc<Parts>,
    config: CheckoutConfig,
}

/// How it is set up.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckoutConfig {
    /// What to check out.
    pub at: At,
}

/// What to check out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// To develop: our branch if it is there, else the base branch.
    Branch,
    /// To review: the head of the pull request as it is now, in a workspace of this run's own.
    Head,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckoutInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The task.
    pub task: Task,
    /// The change so far.
    pub change: Change,
    /// What the workspace and the branch are named after; empty: this run.
    #[serde(default)]
    pub workspace: String,
    /// Whether to take the base in.
    #[serde(default)]
    pub update: bool,
}

/// What it gives.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
pub struct CheckoutOutput {
    /// The workspace and its commits.
    pub desk: Desk,
    /// Its files.
    pub tree: TreeId,
    /// Files that hold conflict marks.
    pub conflicts: Vec<String>,
    /// The change, with the head as it is.
    pub change: Change,
}

impl Checkout {
    pub(crate) fn new(parts: &Arc<Parts>, config: CheckoutConfig) -> Self {
        Self { parts: Arc::clone(parts), config }
    }
}

#[async_trait]
impl Node for Checkout {
    const KIND: &'static str = "swarm/checkout";
    const FLOW: Flow = Flow { reads_untrusted: true, ..Flow::NONE };
    type Config = CheckoutConfig;
    type Input = CheckoutInput;
    type Output = CheckoutOutput;

    async fn run(
        &self,
        ctx: &NodeContext,
        input: CheckoutInput,
    ) -> Result<CheckoutOutput, NodeError> {
        let repo = input.repo.clone();
        let output: CheckoutOutput = ctx
            .memo("ground", || async {
                let mirror = self.parts.mirror(&repo).await?;
                Ok(match self.config.at {
                    At::Branch => branch(ctx, &mirror, input).await?,
                    At::Head => self.head(ctx, &mirror, input).await?,
                })
            })
            .await?;
        let desk = self.parts.desk(ctx, &repo, &output.desk).await?;
        desk.put(&output.tree).await?;
        let Desk { base, start, branch, .. } = &output.desk;
        let told = json!({ "base": base, "start": start, "branch": branch, "conflicts": output.conflicts });
        ctx.emit("workspace.ready", told).await?;
        Ok(output)
    }
}

impl Checkout {
    async fn head(
        &self,
        ctx: &NodeContext,
        mirror: &Mirror,
        input: CheckoutInput,
    ) -> Result<CheckoutOutput, NodeError> {
        let CheckoutInput { repo, change, .. } = input;
        let pull = self.parts.forge.pull_request(&repo, change.pr).await.map_err(forge_failure)?;
        if !mirror.has_commit(&pull.head_sha).await.map_err(Failure::from)? {
            let message = format!("the head {} is not in the repository", pull.head_sha.short());
            return Err(Failure::retryable("not_found", message).into());
        }
        let base = fork(mirror, &pull.base_sha, &pull.head_sha).await?;
        let tree = mirror.tree_of(&pull.head_sha).await.map_err(Failure::from)?;
        let desk = Desk {
            key: key(ctx.run_id().as_str()),
            base,
            start: pull.head_sha.clone(),
            takes_in: Sha::default(),
            branch: pull.head,
            base_branch: pull.base,
        };
        let change = Change { head: pull.head_sha, ..change };
        Ok(CheckoutOutput { desk, tree, conflicts: Vec::new(), change })
    }
}

async fn branch(
    ctx: &NodeContext,
    mirror: &Mirror,
    input: CheckoutInput,
) -> Result<CheckoutOutput, Failure> {
    let CheckoutInput { issue, task, change, workspace, update, .. } = input;
    let name = if workspace.is_empty() { ctx.run_id().to_string() } else { workspace };
    let tip = mirror.branch(&issue.base_branch).await?;
    let mut desk = Desk {
        key: key(&name),
        base: tip.clone(),
        start: tip.clone(),
        takes_in: Sha::default(),
        branch: branch_name(&issue, &task, &name),
        base_branch: issue.base_branch,
    };
    if change.pr == 0 {
        let tree = mirror.tree_of(&tip).await?;
        return Ok(CheckoutOutput { desk, tree, conflicts: Vec::new(), change });
    }
    desk.branch.clone_from(&change.branch);
    // Whatever people have pushed onto our branch meanwhile is kept: the work goes on top of it.
    desk.start = mirror.branch(&change.branch).await?;
    desk.base = fork(mirror, &tip, &desk.start).await?;
    let (mut tree, mut conflicts) = (mirror.tree_of(&desk.start).await?, Vec::new());
    if update && desk.base != tip {
        (tree, conflicts) = mirror.merge_marked(&desk.start, &tip).await?;
        desk.base = tip.clone();
        desk.takes_in = tip;
    }
    Ok(CheckoutOutput { desk, tree, conflicts, change })
}

async fn fork(mirror: &Mirror, base: &Sha, head: &Sha) -> Result<Sha, Failure> {
    Ok(mirror.merge_base(base, head).await?.unwrap_or_else(|| base.clone()))
}

/// `devinswarm/12-fix-the-parser-3fa2c1`: the same for the same run and task, and no other's.
fn branch_name(issue: &Issue, task: &Task, workspace: &str) -> String {
    let slug = slug(&task.title);
    let hash = short_hash(&format!("{workspace}\0{}", task.id));
    let dash = if slug.is_empty() { "" } else { "-" };
    format!("devinswarm/{}-{slug}{dash}{hash}", issue.number)
}

/// A name for a folder: readable, and no other run's.
fn key(name: &str) -> String {
    let slug = slug(name);
    format!("{slug}-{}", short_hash(name))
}

fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= 40 {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

fn short_hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_name_is_a_function_of_issue_task_and_run() {
        let issue = Issue { number: 12, ..Issue::default() };
        let task =
            |title: &str| Task { title: title.to_owned(), id: "t1".to_owned(), ..Task::default() };
        let name = branch_name(&issue, &task("Fix the «parser»: --upload-pack=x"), "run-1");
        insta::assert_snapshot!(name, @r#"devinswarm/12-fix-the-parser-upload-pack-x-3ee9ad"#);
        assert_eq!(name, branch_name(&issue, &task("Fix the «parser»: --upload-pack=x"), "run-1"));
        assert_ne!(name, branch_name(&issue, &task("Fix the «parser»: --upload-pack=x"), "run-2"));
        for title in ["", "…", &"long ".repeat(50)] {
            let name = branch_name(&issue, &task(title), "r");
            swarm_tools::git::check_branch(&name).unwrap();
        }
    }

    #[test]
    fn a_workspace_key_is_a_plain_folder_name() {
        let key = key("20261123-k3f9.assign#1/0");
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{key}");
        assert_ne!(key, super::key("20261123-k3f9.assign#1/1"));
    }
}

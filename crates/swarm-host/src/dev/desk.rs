//! A desk: a workspace, its mirror, and the commit it was made from, opened together.

use std::path::PathBuf;

use swarm_core::failure::Failure;
use swarm_core::port::forge::{RepoId, Sha};
use swarm_core::port::sandbox::Network;
use swarm_core::time::Timestamp;
use swarm_graph::node::NodeContext;
use swarm_tools::checks::{self, Check, ChecksConfig, Report};
use swarm_tools::git::{Mirror, TreeId};
use swarm_tools::workspace::Workspace;

use crate::handover::Desk;
use crate::parts::Parts;

/// An opened desk.
#[derive(Debug)]
pub struct OpenDesk {
    mirror: Mirror,
    workspace: Workspace,
    repo: RepoId,
}

impl Parts {
    /// Opens a desk; its workspace is made when it is missing, as after a move to another machine.
    /// A workspace that stands on another commit is brought to this one, what it holds kept.
    ///
    /// # Errors
    /// What git and the disk say.
    pub async fn desk(
        &self,
        ctx: &NodeContext,
        repo: &RepoId,
        desk: &Desk,
    ) -> Result<OpenDesk, Failure> {
        let mirror = self.mirror_as_is(repo).await?;
        let workspace = self.workspaces.at(&desk.key);
        let ground = ground(desk);
        workspace.checkout(&mirror, ground, ctx.now()).await?;
        Ok(OpenDesk { mirror, workspace, repo: repo.clone() })
    }
}

/// The commit that a desk's workspace stands on.
fn ground(desk: &Desk) -> &Sha {
    &desk.start
}

impl OpenDesk {
    /// The mirror.
    #[must_use]
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The tree on disk: the only part that a sandbox may see.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.workspace.tree()
    }

    /// The same desk, blind to what the repository's checks are known to leave behind: a lock
    /// file that was not there before, build output. An agent that runs the tests has not made it.
    #[must_use]
    pub fn blind_to_leaves(self, list: &[Check]) -> Self {
        let lines = list.iter().flat_map(|check| {
            let dir = if check.dir == "." { "" } else { check.dir.as_str() };
            let root = if dir.is_empty() { String::new() } else { format!("/{dir}") };
            check.leaves.iter().map(move |leaf| format!("{root}/**/{leaf}"))
        });
        Self { workspace: self.workspace.ignoring(lines.collect::<Vec<_>>()), ..self }
    }

    /// Makes the files equal a tree; what is ignored, such as installed packages, stays.
    ///
    /// # Errors
    /// The disk.
    pub async fn put(&self, tree: &TreeId) -> Result<(), Failure> {
        Ok(self.workspace.restore(&self.mirror, tree).await?)
    }

    /// The files as a tree.
    ///
    /// # Errors
    /// What was left there: too many or too large files.
    pub async fn capture(&self) -> Result<TreeId, Failure> {
        Ok(self.workspace.capture(&self.mirror).await?.tree)
    }

    /// Keeps a tree under a reference, for people to find when work stops here.
    ///
    /// # Errors
    /// What git says.
    pub async fn keep(&self, desk: &Desk, tree: &TreeId, at: Timestamp) -> Result<String, Failure> {
        let kept = self.workspace.keep_tree(&self.mirror, ground(desk), tree, at).await?;
        Ok(kept.reference)
    }

    /// The repository's checks, set-up included.
    ///
    /// # Errors
    /// The disk.
    pub fn detect(&self, config: &ChecksConfig) -> Result<Vec<Check>, Failure> {
        checks::detect_at(&self.path(), config).map_err(|error| {
            Failure::retryable("io", format!("the workspace cannot be read: {error}"))
        })
    }

    /// Runs one check.
    pub async fn run(&self, parts: &Parts, check: &Check, network: Network) -> Report {
        let options = checks::Options {
            limits: parts.check_limits.clone(),
            setup_network: network,
            cache: self.repo.0.clone(),
        };
        checks::run(check, &*parts.sandbox, &self.path(), &options).await
    }
}

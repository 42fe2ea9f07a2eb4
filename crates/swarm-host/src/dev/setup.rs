//! `swarm/setup`: installs what the repository's tests need.
//!
//! The only step whose commands may have the network, when the configuration says so, and then
//! with nothing secret in reach. A set-up that fails is told and not fatal: whether the tests run
//! without it, the tests will say.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::port::forge::RepoId;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};
use swarm_tools::checks::Kind;
use swarm_tools::git::TreeId;

use super::checks;
use crate::handover::Desk;
use crate::parts::Parts;

/// `swarm/setup`
#[derive(Debug)]
pub struct Setup {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetupInput {
    /// The repository.
    pub repo: RepoId,
    /// The workspace.
    pub desk: Desk,
    /// Its files.
    pub tree: TreeId,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct SetupOutput {
    /// Whether every step of the set-up passed.
    pub is_complete: bool,
}

impl Setup {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Setup {
    const KIND: &'static str = "swarm/setup";
    type Config = NoConfig;
    type Input = SetupInput;
    type Output = SetupOutput;

    async fn run(&self, ctx: &NodeContext, input: SetupInput) -> Result<SetupOutput, NodeError> {
        let SetupInput { repo, desk, tree } = input;
        let desk = self.parts.desk(ctx, &repo, &desk).await?;
        desk.put(&tree).await?;
        let list = desk.detect(&self.parts.settings(&repo)?.checks)?;
        let list: Vec<_> = list.into_iter().filter(|check| check.kind == Kind::Setup).collect();
        let network = self.parts.settings(&repo)?.setup_network;
        let reports = checks::run_all(ctx, &self.parts, &desk, &list, network).await?;
        Ok(SetupOutput { is_complete: reports.iter().all(|report| report.outcome.passed()) })
    }
}

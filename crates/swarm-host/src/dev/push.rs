//! `swarm/push`: moves our branch of the origin to the commit, from where we left it or not at all.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError, Probe};

use crate::handover::{Change, Desk};
use crate::parts::Parts;

/// `swarm/push`
#[derive(Debug)]
pub struct Push {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushInput {
    /// The repository.
    pub repo: RepoId,
    /// The workspace, with the branch.
    pub desk: Desk,
    /// The change so far: whether the branch is there already.
    pub change: Change,
    /// The commit.
    pub head: Sha,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct PushOutput {
    /// The commit that the branch is at now.
    pub head: Sha,
}

impl Push {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Push {
    const KIND: &'static str = "swarm/push";
    const FLOW: Flow = Flow { sends_out: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = PushInput;
    type Output = PushOutput;

    async fn run(&self, ctx: &NodeContext, input: PushInput) -> Result<PushOutput, NodeError> {
        let PushInput { repo, desk, change, head } = input;
        let mirror = self.parts.mirror_as_is(&repo).await?;
        let credentials = &self.parts.credentials;
        // A first push makes the branch; a later one moves it from where the work began.
        let expected = (change.pr != 0).then(|| desk.start.clone());
        let intent = json!({ "push": desk.branch, "from": expected, "to": head });
        let probe = || async {
            let found = mirror.remote_branch(&desk.branch, credentials).await;
            let found = found.map_err(Failure::from)?;
            Ok(if found.as_ref() == Some(&head) { Probe::Landed(()) } else { Probe::DidNotHappen })
        };
        let act = || async {
            let pushed = mirror.push(&desk.branch, expected.as_ref(), &head, credentials).await;
            Ok(pushed.map_err(Failure::from)?)
        };
        ctx.effect("push", intent, probe, act).await?;
        // What was pushed is what the next fetch finds.
        mirror.fetch(credentials).await.map_err(Failure::from)?;
        ctx.emit("branch.pushed", json!({ "branch": desk.branch, "sha": head })).await?;
        Ok(PushOutput { head })
    }
}

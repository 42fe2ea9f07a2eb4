//! Runs: one execution of a graph, and every legal change of its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::id::{GraphHash, GraphName, QueueName, RunId, StepId, WorkerId};
use crate::spend::Spend;
use crate::time::Timestamp;

/// Where a run stands.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Can be claimed now: new, woken, or released.
    Ready,
    /// Claimed by a worker; if its lease has expired, claimable again.
    Running,
    /// Parked on an answer, a signal, a child or a timer; holds no lease.
    Waiting,
    /// Reached the end.
    Succeeded,
    /// A failure was not caught.
    Failed,
    /// A person or a parent cancelled it.
    Cancelled,
}

impl RunStatus {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Ready | Self::Running | Self::Waiting => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }

    /// Whether a run may go from `self` to `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Ready, Self::Running | Self::Cancelled)
            | (Self::Running, _)
            | (Self::Waiting, Self::Ready | Self::Running | Self::Cancelled) => true,
            (Self::Ready | Self::Waiting, _)
            | (Self::Succeeded | Self::Failed | Self::Cancelled, _) => false,
        }
    }

    /// The word as stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The counter that shuts out a late writer: each claim of a run gets a higher one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The step of another run that started a run and waits for it, or hears its signals.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Parent {
    /// The run that started it.
    pub run: RunId,
    /// The step that started it.
    pub step: StepId,
    /// Whether the step waits for the end; a detached child only sends signals.
    pub awaited: bool,
}

/// What a run is limited to, for its whole life and all its children together.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Money; `None` is unlimited.
    pub usd: Option<crate::spend::UsdMicros>,
    /// Model tokens; `None` is unlimited.
    pub tokens: Option<u64>,
}

impl Limit {
    /// Whether `amount` fits.
    #[must_use]
    pub fn allows(&self, amount: Spend) -> bool {
        self.usd.is_none_or(|usd| amount.usd <= usd)
            && self.tokens.is_none_or(|tokens| amount.tokens <= tokens)
    }
}

/// A run to be started.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NewRun {
    /// Its id; starting the same id twice starts it once.
    pub id: RunId,
    /// The graph it executes.
    pub graph: GraphName,
    /// The version of the graph it is pinned to.
    pub graph_hash: GraphHash,
    /// Which queue's workers may claim it.
    pub queue: QueueName,
    /// Its input.
    pub input: Arc<Value>,
    /// Who started it, if another run did.
    pub parent: Option<Parent>,
    /// Higher is claimed first.
    pub priority: i32,
    /// For people and filters: `issue`, `repo`, `task`.
    pub labels: BTreeMap<String, String>,
    /// Its own limit; ancestors' limits hold as well.
    pub limit: Limit,
}

/// Where a fork began.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Origin {
    /// The run that was forked; it may be gone since.
    pub run: RunId,
    /// The checkpoint that became the fork's first.
    pub seq: u64,
}

/// A run as stored, without its state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunRecord {
    /// What it was started with.
    #[serde(flatten)]
    pub start: NewRun,
    /// Where it began, if it is a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<Origin>,
    /// Where it stands.
    pub status: RunStatus,
    /// The epoch of its last claim.
    pub epoch: Epoch,
    /// Who holds the lease, if anyone.
    pub lease_owner: Option<WorkerId>,
    /// The first moment at which the lease is no longer held.
    pub lease_until: Option<Timestamp>,
    /// The worker whose commit left a block open, until the run is claimed again or ends. A record:
    /// it holds no slot of that worker.
    pub reserved_by: Option<WorkerId>,
    /// When to wake it without being asked.
    pub wake_at: Option<Timestamp>,
    /// What it and its children have spent.
    pub spent: Spend,
    /// What is reserved for calls under way.
    pub reserved: Spend,
    /// Its output, once succeeded.
    pub output: Option<Arc<Value>>,
    /// Its failure, once failed.
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

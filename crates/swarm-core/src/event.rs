//! Events: facts in the past tense, as stored and as streamed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{RunId, StepId};
use crate::time::Timestamp;

/// What kind of fact: `run.created`, `node.finished`, or a node's own, such as `tool.called`.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct EventKind(pub Cow<'static, str>);

impl EventKind {
    /// A run was created.
    pub const RUN_CREATED: Self = Self(Cow::Borrowed("run.created"));
    /// A worker claimed the run; data: `worker`, `epoch`.
    pub const RUN_CLAIMED: Self = Self(Cow::Borrowed("run.claimed"));
    /// The run parked; data: what it waits on.
    pub const RUN_WAITING: Self = Self(Cow::Borrowed("run.waiting"));
    /// The run reached its end; data: `output`.
    pub const RUN_SUCCEEDED: Self = Self(Cow::Borrowed("run.succeeded"));
    /// The run failed; data: the failure.
    pub const RUN_FAILED: Self = Self(Cow::Borrowed("run.failed"));
    /// The run was cancelled.
    pub const RUN_CANCELLED: Self = Self(Cow::Borrowed("run.cancelled"));
    /// The run was handed back by a worker that drains.
    pub const RUN_RELEASED: Self = Self(Cow::Borrowed("run.released"));
    /// The run began as a fork; data: the `run` and `seq` it came from.
    pub const RUN_FORKED: Self = Self(Cow::Borrowed("run.forked"));
    /// The events before this one are a copy; data: the `run` they came from.
    pub const RUN_COPIED: Self = Self(Cow::Borrowed("run.copied"));
    /// A person changed the state; data: `by`, the checkpoint's `seq`, the `channels`.
    pub const STATE_EDITED: Self = Self(Cow::Borrowed("state.edited"));
    /// A step began; data: `attempt`.
    pub const NODE_STARTED: Self = Self(Cow::Borrowed("node.started"));
    /// A step finished; data: `ms`.
    pub const NODE_FINISHED: Self = Self(Cow::Borrowed("node.finished"));
    /// A step's output was taken from the cache instead of running it; data: the `run` and `step`
    /// that it comes from.
    pub const NODE_CACHED: Self = Self(Cow::Borrowed("node.cached"));
    /// A step failed; data: the failure, `attempt`, `retry_at`.
    pub const NODE_FAILED: Self = Self(Cow::Borrowed("node.failed"));
    /// A failure was routed by `catch`; data: the failure, `to`.
    pub const NODE_CAUGHT: Self = Self(Cow::Borrowed("node.caught"));
    /// A step was called off because another line of a race arrived first; data: `race`,
    /// `winner` (the step that arrived).
    pub const NODE_CANCELLED: Self = Self(Cow::Borrowed("node.cancelled"));
    /// A question was asked; data: the block's `id`, `reason`, `question`.
    pub const QUESTION_ASKED: Self = Self(Cow::Borrowed("question.asked"));
    /// A question was answered; data: the block's `id`, `by`.
    pub const QUESTION_ANSWERED: Self = Self(Cow::Borrowed("question.answered"));
    /// A question was brought to mind again; data: the block's `id`.
    pub const QUESTION_REMINDED: Self = Self(Cow::Borrowed("question.reminded"));
    /// Nobody answered a question in time; data: the block's `id`.
    pub const QUESTION_EXPIRED: Self = Self(Cow::Borrowed("question.expired"));
    /// A child run was started; data: `run`, `graph`.
    pub const CHILD_STARTED: Self = Self(Cow::Borrowed("child.started"));
    /// A child run ended; data: `run`, `status`.
    pub const CHILD_ENDED: Self = Self(Cow::Borrowed("child.ended"));
    /// A signal was taken; data: `name`, `payload`.
    pub const SIGNAL_TAKEN: Self = Self(Cow::Borrowed("signal.taken"));
    /// A timer fired.
    pub const TIMER_FIRED: Self = Self(Cow::Borrowed("timer.fired"));
    /// The run was moved to another version of its graph; data: `from`, `to`, `by`, and
    /// `seq`, the first checkpoint of the new version.
    pub const RUN_MIGRATED: Self = Self(Cow::Borrowed("run.migrated"));
    /// A limit was raised by a person; data: the new limit.
    pub const BUDGET_RAISED: Self = Self(Cow::Borrowed("budget.raised"));

    /// A kind of a node's own: two words joined by a dot.
    #[must_use]
    pub fn of(kind: &'static str) -> Self {
        Self(Cow::Borrowed(kind))
    }

    /// The kind as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An event before the store has numbered it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NewEvent {
    /// What kind of fact.
    pub kind: EventKind,
    /// The step it is about, if one.
    pub step: Option<StepId>,
    /// Its data; an object or null.
    pub data: Arc<Value>,
}

impl NewEvent {
    /// An event about a whole run.
    #[must_use]
    pub fn run(kind: EventKind, data: Value) -> Self {
        Self { kind, step: None, data: Arc::new(data) }
    }

    /// An event about one step.
    #[must_use]
    pub fn step(kind: EventKind, step: &StepId, data: Value) -> Self {
        Self { kind, step: Some(step.clone()), data: Arc::new(data) }
    }
}

/// A stored event.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    /// The run it belongs to.
    pub run: RunId,
    /// Its number in the run, from 1, without gaps.
    pub seq: u64,
    /// When it was stored.
    pub at: Timestamp,
    /// What kind of fact.
    pub kind: EventKind,
    /// The step it is about, if one.
    pub step: Option<StepId>,
    /// Its data.
    pub data: Arc<Value>,
}

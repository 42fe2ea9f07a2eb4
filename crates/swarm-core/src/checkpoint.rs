//! Checkpoints: state and cursor after a superstep, durable before the next begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::id::{BlockId, ChannelName, NodeName, RunId, StepId};
use crate::time::Timestamp;

/// The format of stored checkpoints; a higher one is refused, lower ones are read for ever.
pub const FORMAT: u16 = 1;

/// The data of a run: one value per channel. Cheap to clone; unchanged channels are shared.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct State(pub Arc<BTreeMap<ChannelName, Arc<Value>>>);

impl State {
    /// The value of a channel; `None` when it was never written.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<&Arc<Value>> {
        self.0.get(channel)
    }

    /// Removes a channel.
    pub fn remove(&mut self, channel: &ChannelName) {
        Arc::make_mut(&mut self.0).remove(channel);
    }

    /// Sets a channel.
    pub fn set(&mut self, channel: ChannelName, value: Arc<Value>) {
        Arc::make_mut(&mut self.0).insert(channel, value);
    }

    /// The whole state as one JSON object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(
            self.0.iter().map(|(name, value)| (name.to_string(), (**value).clone())).collect(),
        )
    }
}

/// How one channel changed in a superstep: what is stored instead of the whole state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ChannelDelta {
    /// The channel.
    pub channel: ChannelName,
    /// The change.
    pub change: Change,
}

/// A change of a channel.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The value is now this; earlier changes no longer matter.
    Full(Arc<Value>),
    /// These items were put behind the list.
    Append(Arc<Value>),
    /// These keys of the object were set.
    Merge(Arc<Value>),
}

/// Where a run is in its graph, and what bounds it has used up.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Cursor {
    /// The activations that are due, at work or waiting, in the order of the graph.
    pub active: Vec<Activation>,
    /// How often each node was activated.
    pub visits: BTreeMap<NodeName, u32>,
    /// How often each bounded route was taken, by its place: `plan.routes[0]`, `plan.catch[1]`.
    pub taken: BTreeMap<String, u32>,
    /// Which nodes have arrived at a join, by the join's name.
    pub arrived: BTreeMap<NodeName, Vec<NodeName>>,
    /// Supersteps finished.
    pub supersteps: u32,
    /// The wall-time budget, where it was used up.
    #[serde(default)]
    pub wall: Wall,
    /// When the questions of gates are brought to mind again, and when they expire, by step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub patience: BTreeMap<StepId, Patience>,
}

/// How long a question waits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Patience {
    /// When it is brought to mind next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_at: Option<Timestamp>,
    /// The first moment at which it is too late for an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Cursor {
    /// The same place for another run, with nothing that belongs to this one: whoever waits for
    /// an answer, a child or a signal is due again, and so asks, starts or waits under the other
    /// run's ids. Backoffs, loops with their items, and all counts stay; what people granted
    /// beyond the wall-time budget does not, for that is counted from the start of a run.
    #[must_use]
    pub fn begun_anew(&self) -> Self {
        let mut cursor = Self { wall: Wall::default(), ..self.clone() };
        for activation in &mut cursor.active {
            match activation.phase {
                Phase::Answer { .. } | Phase::Child { .. } | Phase::Signal { .. } => {
                    activation.phase = Phase::Due;
                }
                Phase::Due | Phase::Backoff { .. } | Phase::Foreach { .. } | Phase::Inline(_) => {}
            }
        }
        cursor
    }

    /// What is due, at work or waiting, in short.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let place = |activation: &Activation| Place {
            step: activation.step.clone(),
            node: activation.node.clone(),
            attempts: activation.attempts,
            doing: Doing::of(&activation.phase),
        };
        self.active.iter().map(place).collect()
    }
}

/// An activation in short.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Place {
    /// Its step.
    pub step: StepId,
    /// The node.
    pub node: NodeName,
    /// Failed attempts so far.
    pub attempts: u32,
    /// What it is doing.
    pub doing: Doing,
}

/// What an activation is doing, without the details of its [`Phase`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// To be run in the next superstep.
    Due,
    /// To be run again after a failure.
    Backoff,
    /// Waits for answers.
    Answer,
    /// Waits for a child run.
    Child,
    /// Waits for a signal or a moment.
    Signal,
    /// A loop with items left.
    Foreach,
    /// A graph inside the run.
    Inline,
}

impl Doing {
    fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Due => Self::Due,
            Phase::Backoff { .. } => Self::Backoff,
            Phase::Answer { .. } => Self::Answer,
            Phase::Child { .. } => Self::Child,
            Phase::Signal { .. } => Self::Signal,
            Phase::Foreach { .. } => Self::Foreach,
            Phase::Inline(_) => Self::Inline,
        }
    }

    /// The word as shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Backoff => "backoff",
            Self::Answer => "answer",
            Self::Child => "child",
            Self::Signal => "signal",
            Self::Foreach => "foreach",
            Self::Inline => "inline",
        }
    }
}

/// What people granted beyond a run's wall-time budget.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Wall {
    /// Granted so far, in seconds.
    pub granted_secs: u64,
    /// Questions asked about it so far.
    pub asked: u32,
    /// The question that is open now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockId>,
}

/// One node that is due, at work or waiting.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Activation {
    /// Its step.
    pub step: StepId,
    /// The node.
    pub node: NodeName,
    /// The how-manieth activation of the node, from 1.
    pub visit: u32,
    /// The item index inside a `foreach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The step whose inline graph the node lies in; `None`: the run's own graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<StepId>,
    /// Failed attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// What it is doing.
    pub phase: Phase,
    /// The failure that brought the run here through a `catch`, as `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What an activation is doing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// To be run in the next superstep.
    Due,
    /// To be run again, but not before this moment.
    Backoff {
        /// The first moment at which it may run.
        until: Timestamp,
    },
    /// Waits for the answers to these blocks.
    Answer {
        /// All must be answered.
        blocks: Vec<BlockId>,
    },
    /// Waits for a child run to end.
    Child {
        /// The child.
        run: RunId,
    },
    /// Waits for a signal, a moment, or whichever comes first.
    Signal {
        /// The signal's name; a trailing `*` stands for any ending. `None`: only the timer.
        name: Option<String>,
        /// When to stop waiting.
        until: Option<Timestamp>,
    },
    /// A `foreach` over this many items; each item has an activation or a finished step.
    Foreach {
        /// The items, fixed when the loop began.
        items: Arc<Value>,
        /// Items not yet started begin here.
        next: u32,
        /// Items that ended, by index.
        done: BTreeMap<u32, StepEnding>,
    },
    /// Runs a graph inline; the activations in it name this one's step as their `frame`.
    Inline(Box<Frame>),
}

/// A graph that runs inside a run. Its channels are in the run's state under the names of
/// [`ChannelName::inside`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Frame {
    /// What it was given.
    pub input: Arc<Value>,
    /// How often each of its nodes was activated.
    pub visits: BTreeMap<NodeName, u32>,
    /// How often each of its bounded routes was taken.
    pub taken: BTreeMap<String, u32>,
    /// Which of its nodes have arrived at a join.
    pub arrived: BTreeMap<NodeName, Vec<NodeName>>,
    /// Supersteps in which a step of it ended.
    pub supersteps: u32,
}

/// State and cursor after a superstep.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Checkpoint {
    /// The format it was stored in.
    pub format: u16,
    /// Its number in the run, from 0 (before the first superstep).
    pub seq: u64,
    /// The data.
    pub state: State,
    /// The place.
    pub cursor: Cursor,
}

/// How one attempt of a step ended, as stored in `steps`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StepRecord {
    /// The step.
    pub step: StepId,
    /// The node.
    pub node: NodeName,
    /// The checkpoint it began from.
    pub seq: u64,
    /// Attempts made, this one included.
    pub attempt: u32,
    /// How it ended.
    pub ending: StepEnding,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// How a step ended.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnding {
    /// With an output.
    Output(Arc<Value>),
    /// With a failure that no retry is left for.
    Failed(Failure),
}

//! What every store decides in the same way, free of any backend: which commits are valid, how
//! deltas add up, and the words of the signals that a store sends by itself.
//!
//! A store calls these; it never writes such a rule a second time in SQL.

mod archive;

use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Change, ChannelDelta};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, ChannelName, RunId};
use swarm_core::port::store::{AnswerError, Commit, Error, Release, Result, SignalKind};
use swarm_core::run::{Epoch, Limit, NewRun, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

pub(super) use self::archive::*;

/// How many merges may follow a full value before the store folds them into one.
pub(super) const MERGES_MAX: u32 = 64;

/// Refuses a writer whose claim is over.
pub(super) fn fence(run: &RunId, status: RunStatus, found: Epoch, ours: Epoch) -> Result<()> {
    if found == ours && status == RunStatus::Running {
        return Ok(());
    }
    Err(Error::Fenced { run: run.clone(), ours, found })
}

/// Whether a run of this status, lease and timer can be claimed now.
pub(super) fn is_claimable(
    status: RunStatus,
    lease_until: Option<Timestamp>,
    wake_at: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    match status {
        RunStatus::Ready => true,
        RunStatus::Running => lease_until.is_none_or(|until| until <= now),
        RunStatus::Waiting => wake_at.is_some_and(|wake_at| wake_at <= now),
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => false,
    }
}

/// Whether nobody works on a run that has not ended.
pub(super) fn is_idle(status: RunStatus, lease_until: Option<Timestamp>, now: Timestamp) -> bool {
    status == RunStatus::Waiting || is_claimable(status, lease_until, None, now)
}

/// Refuses a commit that contradicts itself.
pub(super) fn check_commit(commit: &Commit) -> Result<()> {
    for block in &commit.blocks {
        if block.run != commit.run {
            return Err(invalid("block", &block.id, "its run is not the committing run"));
        }
        if block.status != BlockStatus::Open {
            return Err(invalid("block", &block.id, "a new block is open"));
        }
    }
    for checkpoint in commit.first.iter().chain(&commit.checkpoint) {
        check_deltas(&commit.run, &checkpoint.deltas)?;
    }
    if let Some(first) = &commit.first {
        check_seq(&commit.run, None, first.seq)?;
    }
    match &commit.release {
        Some(Release::Ended { status, .. }) if !status.is_final() => {
            let why = format!("a run does not end as `{}`", status.as_str());
            Err(invalid("release", &commit.run, why))
        }
        Some(Release::Ended { .. } | Release::Ready | Release::Waiting { .. }) | None => Ok(()),
    }
}

/// Refuses a checkpoint that does not follow the last one.
pub(super) fn check_seq(run: &RunId, last: Option<u64>, next: u64) -> Result<()> {
    let expected = last.map_or(0, |last| last + 1);
    if next == expected {
        return Ok(());
    }
    Err(invalid("checkpoint", run, format!("its number is {next}, the next one is {expected}")))
}

/// Refuses a parent that is not there.
pub(super) fn no_parent(parent: &RunId) -> Error {
    Error::NotFound { what: "parent run", id: parent.to_string() }
}

/// Refuses a block whose id is taken by another run.
pub(super) fn foreign_block(block: &Block) -> Error {
    block_taken(&block.id)
}

/// Refuses an id of a block that is taken by another run.
pub(super) fn block_taken(block: &BlockId) -> Error {
    invalid("block", block, "a block of this id belongs to another run")
}

/// What a channel holds, as far as deltas care.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// Nothing yet; takes any change.
    Null,
    /// A list; takes appends.
    List,
    /// An object; takes merges.
    Object,
    /// Anything else; takes full values only.
    Scalar,
}

impl Shape {
    /// The shape of a value.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Self::Scalar,
        }
    }

    /// The shape after a change to a channel of this shape.
    pub(super) fn after(self, run: &RunId, delta: &ChannelDelta) -> Result<Self> {
        let (wanted, update) = match &delta.change {
            Change::Full(value) => return Ok(Self::of(value)),
            Change::Append(items) => (Self::List, Self::of(items)),
            Change::Merge(entries) => (Self::Object, Self::of(entries)),
        };
        if update == wanted && (self == wanted || self == Self::Null) {
            return Ok(wanted);
        }
        let why = format!(
            "channel `{}` holds {}, and {} cannot be put to it",
            delta.channel,
            self.words(),
            update.words()
        );
        Err(invalid("checkpoint", run, why))
    }

    fn words(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::List => "a list",
            Self::Object => "an object",
            Self::Scalar => "a plain value",
        }
    }
}

/// The value that a full change and those after it add up to. `None` if they do not fit.
pub(super) fn fold(changes: impl IntoIterator<Item = Change>) -> Option<Arc<Value>> {
    let mut sum = Arc::new(Value::Null);
    for change in changes {
        match change {
            Change::Full(value) => sum = value,
            Change::Append(items) => put(&mut sum, items, Value::Array(Vec::new()))?,
            Change::Merge(entries) => {
                put(&mut sum, entries, Value::Object(serde_json::Map::new()))?;
            }
        }
    }
    Some(sum)
}

fn put(sum: &mut Arc<Value>, update: Arc<Value>, empty: Value) -> Option<()> {
    let sum = Arc::make_mut(sum);
    if sum.is_null() {
        *sum = empty;
    }
    match (sum, Arc::unwrap_or_clone(update)) {
        (Value::Array(list), Value::Array(items)) => list.extend(items),
        (Value::Object(object), Value::Object(entries)) => object.extend(entries),
        _ => return None,
    }
    Some(())
}

/// The value of one channel, or that its deltas do not fit.
pub(super) fn rebuild(
    run: &RunId,
    channel: &ChannelName,
    changes: impl IntoIterator<Item = Change>,
) -> Result<Arc<Value>> {
    fold(changes).ok_or_else(|| Error::Corrupt {
        what: "checkpoint",
        id: run.to_string(),
        why: format!("the deltas of channel `{channel}` do not fit together"),
    })
}

/// Refuses a checkpoint that a newer program wrote.
pub(super) fn check_format(run: &RunId, format: u16) -> Result<()> {
    if format <= swarm_core::checkpoint::FORMAT {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: "checkpoint",
        id: run.to_string(),
        why: format!(
            "it is of format {format}, and this program reads up to {}",
            swarm_core::checkpoint::FORMAT
        ),
    })
}

/// What ancestors hear when a run has ended.
pub(super) fn finished(
    start: &NewRun,
    status: RunStatus,
    output: Option<&Arc<Value>>,
    failure: Option<&Failure>,
) -> SignalKind {
    named(
        "worker.finished",
        json!({
            "run": start.id, "graph": start.graph, "status": status,
            "output": output, "failure": failure, "labels": start.labels,
        }),
    )
}

/// What ancestors hear when a run has asked.
pub(super) fn blocked(start: &NewRun, block: &Block) -> SignalKind {
    named("worker.blocked", about(start, block))
}

/// What ancestors hear when a run has its answer.
pub(super) fn answered(start: &NewRun, block: &Block) -> SignalKind {
    named("worker.answered", about(start, block))
}

fn about(start: &NewRun, block: &Block) -> Value {
    json!({
        "run": start.id, "graph": start.graph, "block": block.id,
        "reason": block.ask.reason, "question": block.ask.question,
        "requested_input": block.ask.requested_input, "labels": start.labels,
    })
}

fn named(name: &str, payload: Value) -> SignalKind {
    SignalKind::Named { name: name.to_owned(), payload: Arc::new(payload) }
}

/// Whether a block takes an answer: `Ok(true)` if it is the first, `Ok(false)` if it is the one
/// that it has.
pub(super) fn takes_answer(
    block: &Block,
    value: &Value,
    by: &Answerer,
) -> std::result::Result<bool, AnswerError> {
    match block.status {
        BlockStatus::Open => Ok(true),
        BlockStatus::Withdrawn => Err(AnswerError::Withdrawn(Box::new(block.clone()))),
        BlockStatus::Answered => {
            let same_person = block.answered_by.as_ref().is_some_and(|one| one.login == by.login);
            if same_person && block.answer.as_ref() == Some(value) {
                return Ok(false);
            }
            Err(AnswerError::AlreadyAnswered(Box::new(block.clone())))
        }
    }
}

/// `amount` without `part`; never below zero.
pub(super) fn less(amount: Spend, part: Spend) -> Spend {
    Spend {
        usd: UsdMicros(amount.usd.0.saturating_sub(part.usd.0)),
        tokens: amount.tokens.saturating_sub(part.tokens),
    }
}

/// The higher of two limits in each part; none at all is the highest.
pub(super) fn raised(old: Limit, new: Limit) -> Limit {
    Limit {
        usd: old.usd.zip(new.usd).map(|(old, new)| old.max(new)),
        tokens: old.tokens.zip(new.tokens).map(|(old, new)| old.max(new)),
    }
}

pub(super) fn invalid(
    what: &'static str,
    id: &(impl ToString + ?Sized),
    why: impl Into<String>,
) -> Error {
    Error::Invalid { what, id: id.to_string(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_and_merges_add_up_from_the_last_full_value() {
        let sum = fold([
            Change::Append(Arc::new(json!([0]))),
            Change::Full(Arc::new(json!([1]))),
            Change::Append(Arc::new(json!([2, 3]))),
        ]);
        assert_eq!(sum.as_deref(), Some(&json!([1, 2, 3])));
        let sum = fold([
            Change::Merge(Arc::new(json!({"a": 1, "b": 1}))),
            Change::Merge(Arc::new(json!({"b": 2}))),
        ]);
        assert_eq!(sum.as_deref(), Some(&json!({"a": 1, "b": 2})));
        assert_eq!(fold([Change::Merge(Arc::new(json!([1])))]), None);
    }

    #[test]
    fn an_append_to_an_object_says_what_was_found() {
        let run = RunId::new("r").unwrap();
        let channel = ChannelName::new("findings").unwrap();
        let delta = ChannelDelta { channel, change: Change::Append(Arc::new(json!([1]))) };
        insta::assert_snapshot!(
            Shape::Object.after(&run, &delta).unwrap_err(),
            @"checkpoint of `r` is not valid: channel `findings` holds an object, and a list cannot be put to it"
        );
        assert_eq!(Shape::Null.after(&run, &delta).unwrap(), Shape::List);
    }
}

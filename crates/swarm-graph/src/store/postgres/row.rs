//! Rows to words and back.
//!
//! What does not depend on the database is in [`crate::store::stored`].

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use swarm_core::checkpoint::{Change, Checkpoint, State, StepRecord};
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::event::{Event, EventKind};
use swarm_core::id::{ChannelName, GraphHash, RunId};
use swarm_core::port::store::{Error, Result};
use swarm_core::run::{Epoch, Limit, NewRun, Origin, Parent, RunRecord};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

pub(super) use crate::store::stored::{
    amount, block_status, corrupt, id, int, json, limit, status, text, uint,
};

use crate::store::rules;

/// A limit as stored.
pub(super) fn limits(limit: Limit) -> (Option<i64>, Option<i64>) {
    (limit.usd.map(|usd| amount(usd.0)), limit.tokens.map(amount))
}

/// An amount as read.
pub(super) fn spend(usd: i64, tokens: i64) -> Spend {
    Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) }
}

/// A label as stored: a JSON list of key and value, so that it can be looked up as a whole.
pub(super) fn label(key: &str, value: &str) -> Result<String> {
    text(&[key, value])
}

/// Labels as stored.
pub(super) fn labels(start: &std::collections::BTreeMap<String, String>) -> Result<Vec<String>> {
    start.iter().map(|(key, value)| label(key, value)).collect()
}

pub(super) fn no_run(run: &RunId) -> Error {
    Error::NotFound { what: "run", id: run.to_string() }
}

/// One column of a row.
pub(super) fn column<'r, T>(row: &'r PgRow, name: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(name).map_err(|error| Error::Backend(Box::new(error)))
}

/// The only column of the first row, if there is one.
pub(super) fn scalar<'r, T>(rows: &'r [PgRow]) -> Result<Option<T>>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let first = rows.first().map(|row| row.try_get(0)).transpose();
    first.map_err(|error| Error::Backend(Box::new(error)))
}

/// Reads a row of the view `whole_runs`.
pub(super) fn run(row: &PgRow) -> Result<RunRecord> {
    let name: &str = column(row, "id")?;
    let owner = |of| column::<Option<&str>>(row, of)?.map(|text| id("worker id", text)).transpose();
    let moment = |of| Ok::<_, Error>(column::<Option<i64>>(row, of)?.map(Timestamp));
    let data = |of| column::<Option<&str>>(row, of);
    Ok(RunRecord {
        start: start(row, name)?,
        forked_from: origin(row)?,
        status: status(name, column(row, "status")?)?,
        epoch: Epoch(uint(column(row, "epoch")?)),
        lease_owner: owner("lease_owner")?,
        lease_until: moment("lease_until")?,
        reserved_by: owner("reserved_by")?,
        wake_at: moment("wake_at")?,
        spent: spend(column(row, "spent_usd")?, column(row, "spent_tokens")?),
        reserved: spend(column(row, "reserved_usd")?, column(row, "reserved_tokens")?),
        output: data("output")?.map(|text| json("output", name, text)).transpose()?,
        failure: data("failure")?.map(|text| json("failure", name, text)).transpose()?,
        created_at: Timestamp(column(row, "created_at")?),
        updated_at: Timestamp(column(row, "updated_at")?),
        ended_at: moment("ended_at")?,
    })
}

fn origin(row: &PgRow) -> Result<Option<Origin>> {
    let Some(run) = column::<Option<&str>>(row, "forked_from")? else { return Ok(None) };
    Ok(Some(Origin { run: id("run id", run)?, seq: uint(column(row, "forked_seq")?) }))
}

fn start(row: &PgRow, name: &str) -> Result<NewRun> {
    let parent: Option<&str> = column(row, "parent")?;
    let labels: Vec<String> = column(row, "labels")?;
    let labels = labels.iter().map(|label| json("labels", name, label)).collect::<Result<_>>()?;
    Ok(NewRun {
        id: id("run id", name)?,
        graph: id("graph name", column(row, "graph")?)?,
        graph_hash: GraphHash(column::<&str>(row, "graph_hash")?.into()),
        queue: id("queue name", column(row, "queue")?)?,
        input: json("input", name, column(row, "input")?)?,
        parent: match parent {
            None => None,
            Some(parent) => Some(Parent {
                run: id("run id", parent)?,
                step: id("step id", column(row, "parent_step")?)?,
                awaited: column(row, "parent_awaits")?,
            }),
        },
        priority: column(row, "priority")?,
        labels,
        limit: limit(column(row, "limit_usd")?, column(row, "limit_tokens")?),
    })
}

/// The columns of a block, as [`block`] reads them.
macro_rules! select_blocks {
    ($tail:literal) => {
        concat!(
            "SELECT b.id, r.id AS run, b.step, b.status, b.ask, b.asked_at, b.remind_at, \
             b.answer, b.answered_by, b.answered_at \
             FROM blocks b JOIN runs r ON r.seq = b.run ",
            $tail
        )
    };
}
pub(super) use select_blocks;

/// Reads a row of [`select_blocks`].
pub(super) fn block(row: &PgRow) -> Result<Block> {
    let name: &str = column(row, "id")?;
    let status = match column(row, "status")? {
        "open" => BlockStatus::Open,
        "answered" => BlockStatus::Answered,
        "withdrawn" => BlockStatus::Withdrawn,
        other => return Err(corrupt("block", name, format!("its status is `{other}`"))),
    };
    let answer: Option<&str> = column(row, "answer")?;
    let by: Option<&str> = column(row, "answered_by")?;
    Ok(Block {
        id: id("block id", name)?,
        run: id("run id", column(row, "run")?)?,
        step: id("step id", column(row, "step")?)?,
        ask: json("block", name, column(row, "ask")?)?,
        status,
        asked_at: Timestamp(column(row, "asked_at")?),
        remind_at: column::<Option<i64>>(row, "remind_at")?.map(Timestamp),
        answer: answer.map(|text| json("answer", name, text)).transpose()?,
        answered_by: by.map(|text| json("answer", name, text)).transpose()?,
        answered_at: column::<Option<i64>>(row, "answered_at")?.map(Timestamp),
    })
}

/// Reads an event of `run`.
pub(super) fn event(run: &RunId, row: &PgRow) -> Result<Event> {
    let step: Option<&str> = column(row, "step")?;
    Ok(Event {
        run: run.clone(),
        seq: uint(column(row, "seq")?),
        at: Timestamp(column(row, "at")?),
        kind: EventKind(column::<String>(row, "kind")?.into()),
        step: step.map(|text| id("step id", text)).transpose()?,
        data: json("event", run.as_str(), column(row, "data")?)?,
    })
}

/// The parts of a stored step, in the order of its columns.
type StepParts<'r> = (&'r str, &'r str, i64, i64, &'r str, i64, i64);

fn step_of(run: &RunId, parts: StepParts<'_>) -> Result<StepRecord> {
    let (step, node, seq, attempt, ending, started_at, ended_at) = parts;
    Ok(StepRecord {
        step: id("step id", step)?,
        node: id("node name", node)?,
        seq: uint(seq),
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        ending: json("step", run.as_str(), ending)?,
        started_at: Timestamp(started_at),
        ended_at: Timestamp(ended_at),
    })
}

/// Reads a row of `steps`.
pub(super) fn step(run: &RunId, row: &PgRow) -> Result<StepRecord> {
    let parts = (
        column(row, "step")?,
        column(row, "node")?,
        column(row, "seq")?,
        column(row, "attempt")?,
        column(row, "ending")?,
        column(row, "started_at")?,
        column(row, "ended_at")?,
    );
    step_of(run, parts)
}

/// Reads the steps of a row of the view `claimed_runs`.
pub(super) fn steps(run: &RunId, row: &PgRow) -> Result<Vec<StepRecord>> {
    let Some(steps) = column::<Option<Vec<String>>>(row, "steps")? else { return Ok(Vec::new()) };
    let nodes: Vec<String> = column(row, "nodes")?;
    let seqs: Vec<i64> = column(row, "seqs")?;
    let attempts: Vec<i64> = column(row, "attempts")?;
    let endings: Vec<String> = column(row, "endings")?;
    let started: Vec<i64> = column(row, "started")?;
    let ended: Vec<i64> = column(row, "ended")?;
    (0..steps.len())
        .map(|n| {
            let ending = endings[n].as_str();
            step_of(run, (&steps[n], &nodes[n], seqs[n], attempts[n], ending, started[n], ended[n]))
        })
        .collect()
}

/// Reads a checkpoint from the columns of `read_checkpoint`; `None` if there is none.
pub(super) fn checkpoint(run: &RunId, seq: i64, row: &PgRow) -> Result<Option<Checkpoint>> {
    let Some(format) = column::<Option<i32>>(row, "format")? else { return Ok(None) };
    let format = u16::try_from(format).unwrap_or(u16::MAX);
    rules::check_format(run, format)?;
    let cursor = json("checkpoint", run.as_str(), column(row, "cursor")?)?;
    let list = |of| Ok::<_, Error>(column::<Option<Vec<String>>>(row, of)?.unwrap_or_default());
    let (channels, changes, values) = (list("channels")?, list("changes")?, list("values")?);
    let mut state = State::default();
    let mut rows = channels.into_iter().zip(changes).zip(values).peekable();
    while let Some(((name, first), value)) = rows.next() {
        let mut sum = vec![change(run, &first, &value)?];
        while let Some(((_, next), value)) = rows.next_if(|((other, _), _)| *other == name) {
            sum.push(change(run, &next, &value)?);
        }
        let channel: ChannelName = id("channel name", &name)?;
        let value = rules::rebuild(run, &channel, sum)?;
        state.set(channel, value);
    }
    Ok(Some(Checkpoint { format, seq: uint(seq), state, cursor }))
}

/// A change as stored.
pub(super) fn change_parts(change: &Change) -> (&'static str, &Arc<serde_json::Value>) {
    match change {
        Change::Full(value) => ("full", value),
        Change::Append(items) => ("append", items),
        Change::Merge(entries) => ("merge", entries),
    }
}

/// A change as read.
pub(super) fn change(run: &RunId, change: &str, value: &str) -> Result<Change> {
    let value = json("checkpoint", run.as_str(), value)?;
    match change {
        "full" => Ok(Change::Full(value)),
        "append" => Ok(Change::Append(value)),
        "merge" => Ok(Change::Merge(value)),
        other => Err(corrupt("checkpoint", run.as_str(), format!("a change is `{other}`"))),
    }
}

/// A shape as stored.
pub(super) fn shape_text(shape: rules::Shape) -> &'static str {
    match shape {
        rules::Shape::Null => "null",
        rules::Shape::List => "list",
        rules::Shape::Object => "object",
        rules::Shape::Scalar => "scalar",
    }
}

/// A shape as read.
pub(super) fn shape(run: &RunId, text: &str) -> Result<rules::Shape> {
    match text {
        "null" => Ok(rules::Shape::Null),
        "list" => Ok(rules::Shape::List),
        "object" => Ok(rules::Shape::Object),
        "scalar" => Ok(rules::Shape::Scalar),
        other => Err(corrupt("checkpoint", run.as_str(), format!("a shape is `{other}`"))),
    }
}

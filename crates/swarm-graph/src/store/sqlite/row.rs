//! Rows to words and back.
//!
//! What does not depend on the database is in [`crate::store::stored`].

use rusqlite::types::FromSql;
use rusqlite::{Row, RowIndex};
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::event::{Event, EventKind};
use swarm_core::id::RunId;
use swarm_core::port::store::{Error, Result};
use swarm_core::run::{Epoch, NewRun, Origin, Parent, RunRecord};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

pub(super) use crate::store::stored::{
    AMOUNT_MAX, amount, block_status, corrupt, id, int, json, limit, status, text, uint,
};

/// A `SELECT` of whole runs, as [`run`] reads them, with what follows `FROM`.
macro_rules! select_runs {
    ($($tail:literal)?) => {
        concat!(
            "SELECT r.id, r.graph, r.graph_hash, r.queue, r.priority, r.labels, \
             p.id AS parent, r.parent_step, r.parent_awaits, r.status, r.epoch, r.lease_owner, \
             r.lease_until, r.reserved_by, r.wake_at, r.limit_usd, r.limit_tokens, r.spent_usd, \
             r.spent_tokens, r.reserved_usd, r.reserved_tokens, r.checkpoint_seq, r.created_at, \
             r.updated_at, r.ended_at, r.forked_from, r.forked_seq, d.input, d.output, d.failure \
             FROM runs r JOIN run_data d ON d.run = r.seq LEFT JOIN runs p ON p.seq = r.parent ",
            $($tail)?
        )
    };
}
pub(super) use select_runs;

/// A run as stored.
pub(super) struct StoredRun {
    pub(super) checkpoint_seq: Option<i64>,
    pub(super) record: RunRecord,
}

/// Reads a row of [`select_runs`].
pub(super) fn run(row: &Row<'_>) -> Result<StoredRun> {
    Ok(StoredRun { checkpoint_seq: column(row, "checkpoint_seq")?, record: record(row)? })
}

fn record(row: &Row<'_>) -> Result<RunRecord> {
    let name = word(row, "id")?;
    let owner = |of| some_word(row, of)?.map(|text| id("worker id", text)).transpose();
    let moment = |of| Ok::<_, Error>(column::<Option<i64>>(row, of)?.map(Timestamp));
    let data = |of| some_word(row, of);
    Ok(RunRecord {
        start: start(row, name)?,
        forked_from: origin(row)?,
        status: status(name, word(row, "status")?)?,
        epoch: Epoch(uint(column(row, "epoch")?)),
        lease_owner: owner("lease_owner")?,
        lease_until: moment("lease_until")?,
        reserved_by: owner("reserved_by")?,
        wake_at: moment("wake_at")?,
        spent: spend(row, "spent_usd", "spent_tokens")?,
        reserved: spend(row, "reserved_usd", "reserved_tokens")?,
        output: data("output")?.map(|text| json("output", name, text)).transpose()?,
        failure: data("failure")?.map(|text| json("failure", name, text)).transpose()?,
        created_at: Timestamp(column(row, "created_at")?),
        updated_at: Timestamp(column(row, "updated_at")?),
        ended_at: moment("ended_at")?,
    })
}

fn origin(row: &Row<'_>) -> Result<Option<Origin>> {
    let Some(run) = some_word(row, "forked_from")? else { return Ok(None) };
    Ok(Some(Origin { run: id("run id", run)?, seq: uint(column(row, "forked_seq")?) }))
}

fn start(row: &Row<'_>, name: &str) -> Result<NewRun> {
    let run: RunId = id("run id", name)?;
    let parent = some_word(row, "parent")?;
    Ok(NewRun {
        id: run,
        graph: id("graph name", word(row, "graph")?)?,
        graph_hash: swarm_core::id::GraphHash(word(row, "graph_hash")?.into()),
        queue: id("queue name", word(row, "queue")?)?,
        input: json("input", name, word(row, "input")?)?,
        parent: match parent {
            None => None,
            Some(parent) => Some(Parent {
                run: id("run id", parent)?,
                step: id("step id", word(row, "parent_step")?)?,
                awaited: column(row, "parent_awaits")?,
            }),
        },
        priority: column(row, "priority")?,
        labels: json("labels", name, word(row, "labels")?)?,
        limit: limit(column(row, "limit_usd")?, column(row, "limit_tokens")?),
    })
}

fn spend(row: &Row<'_>, usd: &str, tokens: &str) -> Result<Spend> {
    Ok(Spend { usd: UsdMicros(uint(column(row, usd)?)), tokens: uint(column(row, tokens)?) })
}

/// The columns of a block, as [`block`] reads them.
macro_rules! select_blocks {
    ($tail:literal) => {
        concat!(
            "SELECT b.id, r.id AS run, b.step, b.status, b.ask, b.asked_at, b.remind_at, \
             b.answer, b.answered_by, b.answered_at, b.run AS run_seq \
             FROM blocks b JOIN runs r ON r.seq = b.run ",
            $tail
        )
    };
}
pub(super) use select_blocks;

/// Reads a row of [`select_blocks`].
pub(super) fn block(row: &Row<'_>) -> Result<Block> {
    let name = word(row, "id")?;
    let status = match word(row, "status")? {
        "open" => BlockStatus::Open,
        "answered" => BlockStatus::Answered,
        "withdrawn" => BlockStatus::Withdrawn,
        other => return Err(corrupt("block", name, format!("its status is `{other}`"))),
    };
    let answer = some_word(row, "answer")?;
    let by = some_word(row, "answered_by")?;
    Ok(Block {
        id: id("block id", name)?,
        run: id("run id", word(row, "run")?)?,
        step: id("step id", word(row, "step")?)?,
        ask: json("block", name, word(row, "ask")?)?,
        status,
        asked_at: Timestamp(column(row, "asked_at")?),
        remind_at: column::<Option<i64>>(row, "remind_at")?.map(Timestamp),
        answer: answer.map(|text| json("answer", name, text)).transpose()?,
        answered_by: by.map(|text| json("answer", name, text)).transpose()?,
        answered_at: column::<Option<i64>>(row, "answered_at")?.map(Timestamp),
    })
}

/// Reads an event of `run`.
pub(super) fn event(run: &RunId, row: &Row<'_>) -> Result<Event> {
    let step = some_word(row, "step")?;
    Ok(Event {
        run: run.clone(),
        seq: uint(column(row, "seq")?),
        at: Timestamp(column(row, "at")?),
        kind: EventKind(column::<String>(row, "kind")?.into()),
        step: step.map(|text| id("step id", text)).transpose()?,
        data: json("event", run.as_str(), word(row, "data")?)?,
    })
}

/// One column of a row.
pub(super) fn column<T: FromSql>(row: &Row<'_>, name: &str) -> Result<T> {
    row.get(name).map_err(backend)
}

/// One column of a row that is text.
pub(super) fn word<'r>(row: &'r Row<'_>, at: impl RowIndex) -> Result<&'r str> {
    let text = row.get_ref(at).map_err(backend)?.as_str();
    text.map_err(|error| Error::Backend(Box::new(error)))
}

/// One column of a row that is text or nothing.
fn some_word<'r>(row: &'r Row<'_>, at: impl RowIndex) -> Result<Option<&'r str>> {
    let text = row.get_ref(at).map_err(backend)?.as_str_or_null();
    text.map_err(|error| Error::Backend(Box::new(error)))
}

fn backend(error: rusqlite::Error) -> Error {
    Error::Backend(Box::new(error))
}

//! Rows to words and back.
//!
//! Numbers are signed in SQLite and unsigned here: an amount too large for the file is cut to
//! [`AMOUNT_MAX`], far above anything real, so that sums in SQL never overflow into floats.

use rusqlite::types::FromSql;
use rusqlite::{Row, RowIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::event::{Event, EventKind};
use swarm_core::id::{InvalidId, RunId};
use swarm_core::port::store::{Error, Result};
use swarm_core::run::{Epoch, Limit, NewRun, Origin, Parent, RunRecord, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

/// The largest amount that is stored; twice of it still fits SQLite's integers.
pub(super) const AMOUNT_MAX: i64 = 1 << 61;

/// An unsigned number as stored.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number that is never negative.
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// An amount as stored.
pub(super) fn amount(number: u64) -> i64 {
    int(number).min(AMOUNT_MAX)
}

/// A value as JSON text.
pub(super) fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Backend(Box::new(error)))
}

/// JSON text as a value.
pub(super) fn json<T: DeserializeOwned>(what: &'static str, id: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(what, id, error))
}

/// An id or name as stored.
pub(super) fn id<T>(what: &'static str, text: &str) -> Result<T>
where
    T: std::str::FromStr<Err = InvalidId>,
{
    text.parse().map_err(|error| corrupt(what, text, error))
}

/// A stored form that cannot be read.
#[expect(clippy::needless_pass_by_value, reason = "takes what `map_err` gives")]
pub(super) fn corrupt(what: &'static str, id: &str, why: impl ToString) -> Error {
    Error::Corrupt { what, id: id.to_owned(), why: why.to_string() }
}

/// A status as stored.
pub(super) fn status(run: &str, text: &str) -> Result<RunStatus> {
    match text {
        "ready" => Ok(RunStatus::Ready),
        "running" => Ok(RunStatus::Running),
        "waiting" => Ok(RunStatus::Waiting),
        "succeeded" => Ok(RunStatus::Succeeded),
        "failed" => Ok(RunStatus::Failed),
        "cancelled" => Ok(RunStatus::Cancelled),
        other => Err(corrupt("run", run, format!("its status is `{other}`"))),
    }
}

/// The status of a block as stored.
pub(super) fn block_status(status: BlockStatus) -> &'static str {
    match status {
        BlockStatus::Open => "open",
        BlockStatus::Answered => "answered",
        BlockStatus::Withdrawn => "withdrawn",
    }
}

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

/// A limit as stored.
pub(super) fn limit(usd: Option<i64>, tokens: Option<i64>) -> Limit {
    Limit { usd: usd.map(|usd| UsdMicros(uint(usd))), tokens: tokens.map(uint) }
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

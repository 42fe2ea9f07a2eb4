//! Checkpoints: what a commit stores of the state, and how a read puts it together.
//!
//! Only changes are stored. Each row of a channel names its `base`, the last full value, so a
//! read touches the rows that count and none of those before; too many merges in a row are
//! folded into a full value by the commit that finds them.

use std::sync::Arc;

use serde_json::Value;
use swarm_core::checkpoint::{Change, ChannelDelta, Checkpoint, FORMAT, State};
use swarm_core::id::{ChannelName, RunId};
use swarm_core::port::store::{CheckpointWrite, Result};
use swarm_core::time::Timestamp;

use super::super::rules::{self, MERGES_MAX, Shape};
use super::Done;
use super::row::{self, corrupt, int, uint};
use super::tx::{Tx, tuple};

/// A checkpoint and its texts, made before the writer is asked: it serves everyone.
pub(super) struct Written {
    checkpoint: CheckpointWrite,
    cursor: String,
    /// The value of each change.
    values: Vec<String>,
}

impl Written {
    pub(super) fn new(checkpoint: CheckpointWrite) -> Result<Self> {
        let cursor = row::text(&checkpoint.cursor)?;
        let deltas = checkpoint.deltas.iter();
        let values =
            deltas.map(|delta| row::text(value_of(&delta.change))).collect::<Result<_>>()?;
        Ok(Self { checkpoint, cursor, values })
    }

    pub(super) fn seq(&self) -> u64 {
        self.checkpoint.seq
    }
}

/// The run that a checkpoint is written to.
#[derive(Clone, Copy)]
pub(super) struct On<'r> {
    pub(super) run: &'r RunId,
    pub(super) run_seq: i64,
}

/// Stores a checkpoint whose number is known to be right; `by` is who made it, if a person did.
pub(super) fn write(
    tx: &Tx<'_>,
    on: On<'_>,
    written: &Written,
    by: Option<&str>,
    at: Timestamp,
) -> Done<()> {
    let seq = int(written.checkpoint.seq);
    tx.execute(
        "INSERT INTO checkpoints (run, seq, format, at, edited_by, cursor) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (on.run_seq, seq, FORMAT, at.as_millis(), by, &written.cursor),
    )?;
    for (delta, value) in written.checkpoint.deltas.iter().zip(&written.values) {
        put(tx, on, seq, delta, value)?;
    }
    Ok(())
}

/// Where a channel stands before a change.
struct Head {
    base: i64,
    merges: u32,
    shape: Shape,
}

impl Head {
    fn of(tx: &Tx<'_>, on: On<'_>, channel: &ChannelName) -> Done<Option<Self>> {
        tx.find(
            "SELECT base, merges, shape FROM channel_deltas WHERE run = ?1 AND channel = ?2 \
             ORDER BY seq DESC LIMIT 1",
            (on.run_seq, channel.as_str()),
            |row| {
                let shape = shape_of(on.run, row::word(row, 2)?)?;
                Ok(Self { base: row.get(0)?, merges: row.get(1)?, shape })
            },
        )
    }
}

/// Stores one change. Of a full value, nothing before it matters.
fn put(tx: &Tx<'_>, on: On<'_>, seq: i64, delta: &ChannelDelta, value: &str) -> Done<()> {
    let head = match delta.change {
        Change::Full(_) => None,
        Change::Append(_) | Change::Merge(_) => Head::of(tx, on, &delta.channel)?,
    };
    let shape = head.as_ref().map_or(Shape::Null, |head| head.shape).after(on.run, delta)?;
    let (base, merges) = head.map_or((seq, 0), |head| (head.base, head.merges));
    let folded;
    let (base, merges, change, value) = match &delta.change {
        Change::Full(_) => (seq, 0, "full", value),
        Change::Append(_) => (base, merges, "append", value),
        Change::Merge(_) if merges < MERGES_MAX => (base, merges + 1, "merge", value),
        Change::Merge(_) => {
            let mut changes = changes(tx, on, &delta.channel, base)?;
            changes.push(delta.change.clone());
            folded = row::text(&rules::rebuild(on.run, &delta.channel, changes)?)?;
            (seq, 0, "full", folded.as_str())
        }
    };
    tx.execute(
        "INSERT INTO channel_deltas (run, channel, seq, base, merges, shape, change, value) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (on.run_seq, delta.channel.as_str(), seq, base, merges, shape_text(shape), change, value),
    )?;
    Ok(())
}

/// The changes of a channel from its last full value on.
fn changes(tx: &Tx<'_>, on: On<'_>, channel: &ChannelName, base: i64) -> Done<Vec<Change>> {
    tx.all(
        "SELECT change, value FROM channel_deltas \
         WHERE run = ?1 AND channel = ?2 AND seq >= ?3 ORDER BY seq",
        (on.run_seq, channel.as_str(), base),
        |row| Ok(change_of(on.run, row::word(row, 0)?, row::word(row, 1)?)?),
    )
}

/// Reads the checkpoint of this number.
pub(super) fn read(
    reader: &Tx<'_>,
    run: &RunId,
    run_seq: i64,
    seq: i64,
) -> Done<Option<Checkpoint>> {
    let found: Option<(u16, String)> = reader.find(
        "SELECT format, cursor FROM checkpoints WHERE run = ?1 AND seq = ?2",
        (run_seq, seq),
        tuple,
    )?;
    let Some((format, cursor)) = found else { return Ok(None) };
    rules::check_format(run, format)?;
    let cursor = row::json("checkpoint", run.as_str(), &cursor)?;
    let state = read_state(reader, run, run_seq, seq)?;
    Ok(Some(Checkpoint { format, seq: uint(seq), state, cursor }))
}

/// The state after checkpoint `seq`: hops from channel to channel by the primary key, then takes
/// each channel's rows from its base on.
fn read_state(reader: &Tx<'_>, run: &RunId, run_seq: i64, seq: i64) -> Done<State> {
    let rows: Vec<(String, String, String)> = reader.all(
        "WITH RECURSIVE channels (channel) AS ( \
           SELECT min(channel) FROM channel_deltas WHERE run = ?1 \
           UNION ALL \
           SELECT (SELECT min(d.channel) FROM channel_deltas d \
                   WHERE d.run = ?1 AND d.channel > channels.channel) \
           FROM channels WHERE channels.channel IS NOT NULL) \
         SELECT d.channel, d.change, d.value FROM channels \
         CROSS JOIN channel_deltas d ON d.run = ?1 AND d.channel = channels.channel \
           AND d.seq <= ?2 AND d.seq >= ( \
             SELECT h.base FROM channel_deltas h \
             WHERE h.run = ?1 AND h.channel = channels.channel AND h.seq <= ?2 \
             ORDER BY h.seq DESC LIMIT 1) \
         ORDER BY d.channel, d.seq",
        (run_seq, seq),
        tuple,
    )?;
    let mut state = State::default();
    for rows in rows.chunk_by(|a, b| a.0 == b.0) {
        let channel: ChannelName = row::id("channel name", &rows[0].0)?;
        let changes: Vec<Change> = rows
            .iter()
            .map(|(_, change, value)| change_of(run, change, value))
            .collect::<Result<_>>()?;
        let value = rules::rebuild(run, &channel, changes)?;
        state.set(channel, value);
    }
    Ok(state)
}

fn value_of(change: &Change) -> &Arc<Value> {
    match change {
        Change::Full(value) | Change::Append(value) | Change::Merge(value) => value,
    }
}

fn change_of(run: &RunId, change: &str, value: &str) -> Result<Change> {
    let value = row::json("checkpoint", run.as_str(), value)?;
    match change {
        "full" => Ok(Change::Full(value)),
        "append" => Ok(Change::Append(value)),
        "merge" => Ok(Change::Merge(value)),
        other => Err(corrupt("checkpoint", run.as_str(), format!("a change is `{other}`"))),
    }
}

fn shape_text(shape: Shape) -> &'static str {
    match shape {
        Shape::Null => "null",
        Shape::List => "list",
        Shape::Object => "object",
        Shape::Scalar => "scalar",
    }
}

fn shape_of(run: &RunId, text: &str) -> Result<Shape> {
    match text {
        "null" => Ok(Shape::Null),
        "list" => Ok(Shape::List),
        "object" => Ok(Shape::Object),
        "scalar" => Ok(Shape::Scalar),
        other => Err(corrupt("checkpoint", run.as_str(), format!("a shape is `{other}`"))),
    }
}

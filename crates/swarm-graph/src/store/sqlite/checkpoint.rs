//! Checkpoints: what a commit stores of the state, and how a read puts it together.
//!
//! Only changes are stored. Each row of a channel names its `base`, the last full value, so a
//! read touches the rows that count and none of those before; too many merges in a row are
//! folded into a full value by the commit that finds them.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use swarm_core::checkpoint::{Change, ChannelDelta, Checkpoint, FORMAT, State};
use swarm_core::id::{ChannelName, RunId};
use swarm_core::port::store::{CheckpointWrite, Result};
use swarm_core::time::Timestamp;

use super::super::rules::{self, MERGES_MAX, Shape};
use super::Done;
use super::claim::Held;
use super::row::{self, backend, column, corrupt, int, uint};
use super::script::Script;

/// Where a channel stands before a change.
pub(super) struct Head {
    base: i64,
    merges: u32,
    shape: Shape,
}

impl Head {
    /// Reads a channel's last row, if there is one, with the name of the channel.
    pub(super) fn read(run: &RunId, row: &SqliteRow) -> Result<Option<(String, Self)>> {
        let Some(channel) = column::<Option<String>>(row, "channel")? else { return Ok(None) };
        let shape = shape_of(run, column(row, "shape")?)?;
        let head = Self { base: column(row, "base")?, merges: column(row, "merges")?, shape };
        Ok(Some((channel, head)))
    }

    /// Reads the heads of the [`changed`] channels of a run.
    pub(super) async fn of(
        tx: &mut SqliteConnection,
        run: &RunId,
        run_seq: i64,
        checkpoint: &CheckpointWrite,
    ) -> Done<HashMap<String, Self>> {
        let rows = sqlx::query(
            "SELECT d.channel, d.base, d.merges, d.shape FROM json_each(?2) wanted \
             CROSS JOIN channel_deltas d ON d.run = ?1 AND d.channel = wanted.value \
             AND d.seq = (SELECT max(l.seq) FROM channel_deltas l \
               WHERE l.run = ?1 AND l.channel = wanted.value)",
        )
        .bind(run_seq)
        .bind(row::text(&changed(checkpoint))?)
        .fetch_all(tx)
        .await?;
        let heads = rows.iter().filter_map(|row| Self::read(run, row).transpose());
        Ok(heads.collect::<Result<_>>()?)
    }
}

/// The run that a checkpoint is written to, and where its [`changed`] channels stand.
pub(super) struct On<'h> {
    pub(super) run: &'h RunId,
    pub(super) run_seq: i64,
    pub(super) heads: &'h HashMap<String, Head>,
}

/// The channels whose heads [`write`] must know: those that are changed and not replaced, for of
/// a full value, nothing before it matters.
pub(super) fn changed(checkpoint: &CheckpointWrite) -> Vec<&ChannelName> {
    let deltas = checkpoint.deltas.iter();
    let changed = deltas.filter(|delta| !matches!(delta.change, Change::Full(_)));
    changed.map(|delta| &delta.channel).collect()
}

/// A change as a row.
struct Delta {
    channel: String,
    base: i64,
    merges: u32,
    shape: Shape,
    change: &'static str,
    value: String,
}

/// Adds a checkpoint to the script; `held` has the heads of the [`changed`] channels.
pub(super) async fn write(
    tx: &mut SqliteConnection,
    script: &mut Script,
    run: &RunId,
    held: &Held,
    checkpoint: &CheckpointWrite,
    at: Timestamp,
) -> Done<()> {
    rules::check_seq(run, held.checkpoint_seq, checkpoint.seq)?;
    let on = On { run, run_seq: held.seq, heads: &held.heads };
    write_on(tx, script, &on, checkpoint, None, at).await
}

/// Adds a checkpoint whose number is known to be right to the script; `by` is who made it, if a
/// person did.
pub(super) async fn write_on(
    tx: &mut SqliteConnection,
    script: &mut Script,
    on: &On<'_>,
    checkpoint: &CheckpointWrite,
    by: Option<&str>,
    at: Timestamp,
) -> Done<()> {
    let seq = int(checkpoint.seq);
    let mut rows = Vec::with_capacity(checkpoint.deltas.len());
    for delta in &checkpoint.deltas {
        rows.push(place(tx, on, seq, delta).await?);
    }
    script.statement("INSERT INTO checkpoints (run, seq, format, at, edited_by, cursor) ").values(
        [row::text(&checkpoint.cursor)?],
        |mut to, cursor| {
            to.push_bind(on.run_seq).push_bind(seq).push_bind(FORMAT).push_bind(at.as_millis());
            to.push_bind(by.map(str::to_owned)).push_bind(cursor);
        },
    );
    if rows.is_empty() {
        return Ok(());
    }
    script
        .statement(
            "INSERT INTO channel_deltas \
             (run, channel, seq, base, merges, shape, change, value) ",
        )
        .values(rows, |mut to, row| {
            to.push_bind(on.run_seq).push_bind(row.channel).push_bind(seq).push_bind(row.base);
            to.push_bind(row.merges).push_bind(shape_text(row.shape)).push_bind(row.change);
            to.push_bind(row.value);
        });
    Ok(())
}

/// A change as the row that it becomes.
async fn place(
    tx: &mut SqliteConnection,
    on: &On<'_>,
    seq: i64,
    delta: &ChannelDelta,
) -> Done<Delta> {
    let run = on.run;
    let head = on.heads.get(delta.channel.as_str());
    let shape = head.map_or(Shape::Null, |head| head.shape).after(run, delta)?;
    let base = head.map_or(seq, |head| head.base);
    let merges = head.map_or(0, |head| head.merges);
    let channel = delta.channel.to_string();
    let (change, value) = change_parts(&delta.change);
    let full = |value: &Arc<Value>| {
        let value = row::text(value)?;
        let channel = channel.clone();
        Ok(Delta { channel, base: seq, merges: 0, shape, change: "full", value })
    };
    match &delta.change {
        Change::Full(value) => full(value),
        Change::Merge(_) if merges >= MERGES_MAX => {
            let mut changes = changes(tx, run, on.run_seq, &channel, base).await?;
            changes.push(delta.change.clone());
            full(&rules::rebuild(run, &delta.channel, changes)?)
        }
        Change::Merge(_) | Change::Append(_) => {
            let merges = merges + u32::from(change == "merge");
            Ok(Delta { base, merges, shape, change, value: row::text(value)?, channel })
        }
    }
}

/// The changes of a channel from its last full value on.
async fn changes(
    tx: &mut SqliteConnection,
    run: &RunId,
    run_seq: i64,
    channel: &str,
    base: i64,
) -> Done<Vec<Change>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT change, value FROM channel_deltas \
         WHERE run = ?1 AND channel = ?2 AND seq >= ?3 ORDER BY seq",
    )
    .bind(run_seq)
    .bind(channel)
    .bind(base)
    .fetch_all(tx)
    .await?;
    Ok(rows
        .iter()
        .map(|(change, value)| change_of(run, change, value))
        .collect::<Result<Vec<_>>>()?)
}

/// Reads the checkpoint of this number.
pub(super) async fn read(
    reader: &mut SqliteConnection,
    run: &RunId,
    run_seq: i64,
    seq: i64,
) -> Result<Option<Checkpoint>> {
    let found: Option<(u16, String)> =
        sqlx::query_as("SELECT format, cursor FROM checkpoints WHERE run = ?1 AND seq = ?2")
            .bind(run_seq)
            .bind(seq)
            .fetch_optional(&mut *reader)
            .await
            .map_err(backend)?;
    let Some((format, cursor)) = found else { return Ok(None) };
    rules::check_format(run, format)?;
    let cursor = row::json("checkpoint", run.as_str(), &cursor)?;
    let state = read_state(reader, run, run_seq, seq).await?;
    Ok(Some(Checkpoint { format, seq: uint(seq), state, cursor }))
}

/// The state after checkpoint `seq`: hops from channel to channel by the primary key, then takes
/// each channel's rows from its base on.
async fn read_state(
    reader: &mut SqliteConnection,
    run: &RunId,
    run_seq: i64,
    seq: i64,
) -> Result<State> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
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
    )
    .bind(run_seq)
    .bind(seq)
    .fetch_all(reader)
    .await
    .map_err(backend)?;
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

fn change_parts(change: &Change) -> (&'static str, &Arc<Value>) {
    match change {
        Change::Full(value) => ("full", value),
        Change::Append(items) => ("append", items),
        Change::Merge(entries) => ("merge", entries),
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

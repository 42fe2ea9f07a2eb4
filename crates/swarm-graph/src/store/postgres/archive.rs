//! Forks, edits and copies: new histories out of old ones, by statements that move rows inside
//! the database.
//!
//! These are rare, so each is a plain transaction of several round trips. It begins with a lock
//! on the row of the source, which keeps its writers out: what is copied was all there at one
//! moment.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use swarm_core::checkpoint::{Change, ChannelDelta, Cursor, FORMAT};
use swarm_core::event::NewEvent;
use swarm_core::id::RunId;
use swarm_core::port::store::{
    Archive, CopyRun, DeleteError, Edit, EditError, Fork, Pruned, Result, Retention,
};
use swarm_core::run::RunRecord;
use swarm_core::time::Timestamp;

use super::row::{self, column, int, limits, uint};
use super::{Done, PostgresStore, Tx, prune};
use crate::store::rules::{self, MERGES_MAX, Shape, Taken, Written};

#[async_trait]
impl Archive for PostgresStore {
    async fn fork(&self, fork: Fork, at: Timestamp) -> Result<bool> {
        let is_new = self
            .pool()
            .transact(|tx| {
                let fork = fork.clone();
                Box::pin(async move { self::fork(tx, &fork, at).await })
            })
            .await?;
        if is_new {
            self.0.bell.ring();
        }
        Ok(is_new)
    }

    async fn edit(&self, edit: Edit, at: Timestamp) -> std::result::Result<u64, EditError> {
        let edited = self.pool().transact(|tx| {
            let edit = edit.clone();
            Box::pin(async move { self::edit(tx, &edit, at).await })
        });
        edited.await?
    }

    async fn copy_run(&self, copy: CopyRun, at: Timestamp) -> Result<bool> {
        let is_new = self
            .pool()
            .transact(|tx| {
                let copy = copy.clone();
                Box::pin(async move { self::copy(tx, &copy, at).await })
            })
            .await?;
        if is_new && copy.claimable {
            self.0.bell.ring();
        }
        Ok(is_new)
    }

    async fn delete_run(&self, run: &RunId) -> std::result::Result<u64, DeleteError> {
        let deleted = self.pool().transact(|tx| {
            let run = run.clone();
            Box::pin(async move { prune::delete(tx, &run).await })
        });
        deleted.await?
    }

    async fn prune(
        &self,
        retention: &Retention,
        only: Option<&[RunId]>,
        now: Timestamp,
    ) -> Result<Pruned> {
        self.prune_all(*retention, only, now).await
    }
}

/// A run, its number, its last checkpoint's and its last event's.
struct Found {
    seq: i64,
    record: RunRecord,
    last: Option<u64>,
    /// Of the last checkpoint.
    format: u16,
    event_seq: i64,
}

/// Locks a run and reads it.
async fn find(tx: &mut Tx, run: &RunId) -> Done<Found> {
    sqlx::query("SELECT 1 FROM runs WHERE id = $1 FOR NO KEY UPDATE")
        .bind(run.as_str())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| row::no_run(run))?;
    let found = sqlx::query("SELECT * FROM whole_runs WHERE id = $1")
        .bind(run.as_str())
        .fetch_one(tx)
        .await?;
    let format: i32 = column(&found, "checkpoint_format")?;
    Ok(Found {
        seq: column(&found, "seq")?,
        record: row::run(&found)?,
        last: column::<Option<i64>>(&found, "checkpoint_seq")?.map(uint),
        format: u16::try_from(format).unwrap_or(u16::MAX),
        event_seq: column(&found, "event_seq")?,
    })
}

async fn exists(tx: &mut Tx, run: &RunId) -> Done<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM runs WHERE id = $1)")
        .bind(run.as_str())
        .fetch_one(tx)
        .await?)
}

async fn fork(tx: &mut Tx, fork: &Fork, at: Timestamp) -> Done<bool> {
    let from = find(tx, &fork.from).await?;
    if exists(tx, &fork.id).await? {
        return Ok(false);
    }
    let seq = int(fork.seq);
    let first = sqlx::query("SELECT * FROM read_checkpoint($1, $2)")
        .bind(from.seq)
        .bind(seq)
        .fetch_optional(&mut *tx)
        .await?;
    let first = first.map(|found| row::checkpoint(&fork.from, seq, &found)).transpose()?.flatten();
    let first = first.ok_or_else(|| rules::no_checkpoint(&fork.from, fork.seq))?;
    rules::check_fork(fork, from.record.status, from.last, &first.cursor)?;
    let (limit_usd, limit_tokens) = limits(fork.limit);
    let run: Option<i64> = sqlx::query_scalar(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, limit_usd, \
         limit_tokens, forked_from, forked_seq, checkpoint_seq, checkpoint_format, event_seq, \
         created_at, updated_at) \
         SELECT $2, graph, coalesce($11, graph_hash), $3, $4, $5, $6, $7, id, $8, 0, $9, 1, $10, \
         $10 \
         FROM runs WHERE seq = $1 ON CONFLICT (id) DO NOTHING RETURNING seq",
    )
    .bind(from.seq)
    .bind(fork.id.as_str())
    .bind(fork.queue.as_str())
    .bind(fork.priority)
    .bind(row::labels(&fork.labels)?)
    .bind(limit_usd)
    .bind(limit_tokens)
    .bind(seq)
    .bind(i32::from(FORMAT))
    .bind(at.as_millis())
    .bind(fork.graph.as_ref().map(|graph| &*graph.0))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(run) = run else { return Ok(false) };
    sqlx::query("INSERT INTO run_data (run, input) SELECT $2, input FROM run_data WHERE run = $1")
        .bind(from.seq)
        .bind(run)
        .execute(&mut *tx)
        .await?;
    let deltas: Vec<ChannelDelta> = first
        .state
        .0
        .iter()
        .map(|(channel, value)| ChannelDelta {
            channel: channel.clone(),
            change: Change::Full(value.clone()),
        })
        .collect();
    let place = Place { run: &fork.id, run_seq: run, seq: 0, by: None };
    place.write(tx, &first.cursor.begun_anew(), &deltas, at).await?;
    tell(tx, run, 0, rules::forked(fork), at).await?;
    copy_entries(tx, from.seq, run, seq, &first.cursor).await?;
    Ok(true)
}

/// Adds an event after the `last` one; the caller counts it.
async fn tell(tx: &mut Tx, run: i64, last: i64, event: NewEvent, at: Timestamp) -> Done<()> {
    sqlx::query(
        "INSERT INTO events (run, seq, at, kind, step, data) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(run)
    .bind(last + 1)
    .bind(at.as_millis())
    .bind(event.kind.as_str())
    .bind(event.step.as_ref().map(|step| step.as_str()))
    .bind(row::text(&event.data)?)
    .execute(tx)
    .await?;
    Ok(())
}

/// Where a checkpoint is written by hand.
struct Place<'e> {
    run: &'e RunId,
    run_seq: i64,
    /// Its number.
    seq: u64,
    by: Option<&'e str>,
}

impl Place<'_> {
    async fn write(
        &self,
        tx: &mut Tx,
        cursor: &impl Serialize,
        deltas: &[ChannelDelta],
        at: Timestamp,
    ) -> Done<()> {
        sqlx::query(
            "INSERT INTO checkpoints (run, seq, format, at, edited_by, cursor) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(self.run_seq)
        .bind(int(self.seq))
        .bind(i32::from(FORMAT))
        .bind(at.as_millis())
        .bind(self.by)
        .bind(row::text(cursor)?)
        .execute(&mut *tx)
        .await?;
        for delta in deltas {
            self.put(tx, delta).await?;
        }
        Ok(())
    }

    async fn put(&self, tx: &mut Tx, delta: &ChannelDelta) -> Done<()> {
        let head = sqlx::query(
            "SELECT base, merges, shape FROM channel_deltas \
             WHERE run = $1 AND channel = $2 ORDER BY seq DESC LIMIT 1",
        )
        .bind(self.run_seq)
        .bind(delta.channel.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        let seq = int(self.seq);
        let (base, merges, held) = match &head {
            None => (seq, 0, Shape::Null),
            Some(head) => (
                column(head, "base")?,
                column::<i32>(head, "merges")?,
                row::shape(self.run, column(head, "shape")?)?,
            ),
        };
        let shape = held.after(self.run, delta)?;
        let (change, value) = row::change_parts(&delta.change);
        let bound = i32::try_from(MERGES_MAX).unwrap_or(i32::MAX);
        let (change, base, merges, value) = match &delta.change {
            Change::Full(value) => ("full", seq, 0, row::text(value)?),
            Change::Merge(_) if merges >= bound => {
                let mut changes = self.changes(tx, delta.channel.as_str(), base).await?;
                changes.push(delta.change.clone());
                let sum = rules::rebuild(self.run, &delta.channel, changes)?;
                ("full", seq, 0, row::text(&sum)?)
            }
            Change::Merge(_) => (change, base, merges + 1, row::text(value)?),
            Change::Append(_) => (change, base, merges, row::text(value)?),
        };
        sqlx::query(
            "INSERT INTO channel_deltas (run, channel, seq, base, merges, shape, change, value) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.run_seq)
        .bind(delta.channel.as_str())
        .bind(seq)
        .bind(base)
        .bind(merges)
        .bind(row::shape_text(shape))
        .bind(change)
        .bind(value)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// The changes of a channel from its last full value on.
    async fn changes(&self, tx: &mut Tx, channel: &str, base: i64) -> Done<Vec<Change>> {
        let rows = sqlx::query(
            "SELECT change, value FROM channel_deltas \
             WHERE run = $1 AND channel = $2 AND seq >= $3 ORDER BY seq",
        )
        .bind(self.run_seq)
        .bind(channel)
        .bind(base)
        .fetch_all(tx)
        .await?;
        let change =
            |row: &PgRow| row::change(self.run, column(row, "change")?, column(row, "value")?);
        Ok(rows.iter().map(change).collect::<Result<_>>()?)
    }

    /// Writes one more checkpoint at the same place. Steps that ended since the last checkpoint
    /// are still to be taken by a claim, so it is not this checkpoint that covers them.
    async fn write_same(
        &self,
        tx: &mut Tx,
        deltas: &[ChannelDelta],
        change: impl FnOnce(Cursor) -> Cursor,
        at: Timestamp,
    ) -> Done<()> {
        let cursor: String =
            sqlx::query_scalar("SELECT cursor FROM checkpoints WHERE run = $1 AND seq = $2")
                .bind(self.run_seq)
                .bind(int(self.seq) - 1)
                .fetch_one(&mut *tx)
                .await?;
        let cursor = change(row::json("checkpoint", self.run.as_str(), &cursor)?);
        sqlx::query("UPDATE steps SET covered_by = $2 + 1 WHERE run = $1 AND covered_by = $2")
            .bind(self.run_seq)
            .bind(int(self.seq))
            .execute(&mut *tx)
            .await?;
        self.write(tx, &cursor, deltas, at).await
    }
}

/// Copies what the journal held of the steps of this cursor when it was stored.
async fn copy_entries(tx: &mut Tx, from: i64, to: i64, seq: i64, cursor: &Cursor) -> Done<()> {
    let active: Vec<&str> =
        cursor.active.iter().map(|activation| activation.step.as_str()).collect();
    let rows = sqlx::query(
        "SELECT n, begun_after, finished_after, reserved_usd, reserved_tokens FROM effects \
         WHERE run = $1 AND step = ANY ($2) ORDER BY n",
    )
    .bind(from)
    .bind(active)
    .fetch_all(&mut *tx)
    .await?;
    let (mut results, mut all) = (Vec::new(), Vec::new());
    for found in rows {
        let n: i64 = found.try_get(0)?;
        let written = Written { begun_after: found.try_get(1)?, finished_after: found.try_get(2)? };
        match written.before(seq, row::spend(found.try_get(3)?, found.try_get(4)?)) {
            Taken::Nothing => {}
            Taken::Intent => all.push(n),
            Taken::Result => {
                all.push(n);
                results.push(n);
            }
        }
    }
    sqlx::query(
        "INSERT INTO effects (run, step, key, reserved_usd, reserved_tokens, spent_usd, \
         spent_tokens, begun_at, finished_at, intent, result, begun_after, finished_after) \
         SELECT $2, e.step, e.key, e.reserved_usd, e.reserved_tokens, \
         CASE WHEN d.done THEN e.spent_usd ELSE 0 END, \
         CASE WHEN d.done THEN e.spent_tokens ELSE 0 END, \
         e.begun_at, CASE WHEN d.done THEN e.finished_at END, e.intent, \
         CASE WHEN d.done THEN e.result END, -1, CASE WHEN d.done THEN -1 END \
         FROM effects e CROSS JOIN LATERAL (SELECT e.n = ANY ($4) AS done) d \
         WHERE e.run = $1 AND e.n = ANY ($3) ORDER BY e.n",
    )
    .bind(from)
    .bind(to)
    .bind(all)
    .bind(results)
    .execute(tx)
    .await?;
    Ok(())
}

/// Edits a state. A refusal is a value here: it has written nothing to be undone.
async fn edit(
    tx: &mut Tx,
    edit: &Edit,
    at: Timestamp,
) -> Done<std::result::Result<u64, EditError>> {
    let found = find(tx, &edit.run).await?;
    let seq = match rules::check_edit(edit, &found.record, found.last) {
        Ok(seq) => seq,
        Err(refusal) => return Ok(Err(refusal)),
    };
    rules::check_format(&edit.run, found.format)?;
    let place = Place { run: &edit.run, run_seq: found.seq, seq, by: Some(&edit.by) };
    place.write_same(tx, &edit.deltas, |cursor| cursor, at).await?;
    tell(tx, found.seq, found.event_seq, rules::edited(edit, seq), at).await?;
    sqlx::query(
        "UPDATE runs SET event_seq = event_seq + 1, updated_at = $2, checkpoint_seq = $3, \
         checkpoint_format = $4 WHERE seq = $1",
    )
    .bind(found.seq)
    .bind(at.as_millis())
    .bind(int(seq))
    .bind(i32::from(FORMAT))
    .execute(tx)
    .await?;
    Ok(Ok(seq))
}

async fn copy(tx: &mut Tx, copy: &CopyRun, at: Timestamp) -> Done<bool> {
    let from = find(tx, &copy.from).await?;
    if exists(tx, &copy.id).await? {
        return Ok(false);
    }
    let status = from.record.status;
    rules::check_copy(&copy.from, status, copy.claimable)?;
    rules::check_format(&copy.from, from.format)?;
    let (new_status, ended_at) = match (copy.claimable, from.record.ended_at) {
        (true, _) => ("ready", None),
        (false, None) => ("cancelled", Some(at)),
        (false, ended_at @ Some(_)) => (status.as_str(), ended_at),
    };
    let run: Option<i64> = sqlx::query_scalar(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, status, epoch, \
         limit_usd, limit_tokens, spent_usd, spent_tokens, forked_from, forked_seq, \
         checkpoint_seq, checkpoint_format, event_seq, created_at, updated_at, ended_at) \
         SELECT $2, graph, graph_hash, queue, priority, labels, $3, epoch, limit_usd, \
         limit_tokens, spent_usd, spent_tokens, forked_from, forked_seq, checkpoint_seq, \
         checkpoint_format, event_seq + 1, created_at, $4, $5 FROM runs WHERE seq = $1 \
         ON CONFLICT (id) DO NOTHING RETURNING seq",
    )
    .bind(from.seq)
    .bind(copy.id.as_str())
    .bind(new_status)
    .bind(at.as_millis())
    .bind(ended_at.map(Timestamp::as_millis))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(run) = run else { return Ok(false) };
    for statement in COPIES {
        sqlx::query(*statement).bind(from.seq).bind(run).execute(&mut *tx).await?;
    }
    let mut active = BTreeSet::new();
    if let (true, Some(last)) = (copy.claimable, from.last) {
        let seq = last + 1;
        let place = Place { run: &copy.id, run_seq: run, seq, by: None };
        let keep = |cursor: Cursor| {
            active.extend(cursor.active.iter().map(|activation| activation.step.to_string()));
            cursor.begun_anew()
        };
        place.write_same(tx, &[], keep, at).await?;
        sqlx::query("UPDATE runs SET checkpoint_seq = $2, checkpoint_format = $3 WHERE seq = $1")
            .bind(run)
            .bind(int(seq))
            .bind(i32::from(FORMAT))
            .execute(&mut *tx)
            .await?;
    }
    tell(tx, run, from.event_seq, rules::copied(&copy.from), at).await?;
    copy_blocks(tx, from.seq, run, copy, &active).await?;
    Ok(true)
}

/// What is copied as it is, from run $1 to run $2.
const COPIES: &[&str] = &[
    "INSERT INTO run_data (run, input, output, failure) \
     SELECT $2, input, output, failure FROM run_data WHERE run = $1",
    "INSERT INTO checkpoints (run, seq, format, at, edited_by, cursor) \
     SELECT $2, seq, format, at, edited_by, cursor FROM checkpoints WHERE run = $1",
    "INSERT INTO channel_deltas (run, channel, seq, base, merges, shape, change, value) \
     SELECT $2, channel, seq, base, merges, shape, change, value \
     FROM channel_deltas WHERE run = $1",
    "INSERT INTO steps (run, step, attempt, node, seq, covered_by, started_at, ended_at, ending) \
     SELECT $2, step, attempt, node, seq, covered_by, started_at, ended_at, ending \
     FROM steps WHERE run = $1 ORDER BY n",
    "INSERT INTO effects (run, step, key, reserved_usd, reserved_tokens, spent_usd, \
     spent_tokens, begun_at, finished_at, intent, result, begun_after, finished_after) \
     SELECT $2, step, key, reserved_usd, reserved_tokens, spent_usd, spent_tokens, begun_at, \
     finished_at, intent, result, begun_after, finished_after FROM effects WHERE run = $1 \
     AND (result IS NOT NULL OR (reserved_usd = 0 AND reserved_tokens = 0)) ORDER BY n",
    "INSERT INTO events (run, seq, at, kind, step, data) \
     SELECT $2, seq, at, kind, step, data FROM events WHERE run = $1",
];

/// Copies the questions except those of these steps; open ones are withdrawn.
async fn copy_blocks(
    tx: &mut Tx,
    from: i64,
    to: i64,
    copy: &CopyRun,
    without: &BTreeSet<String>,
) -> Done<()> {
    let blocks: Vec<(String, String)> =
        sqlx::query_as("SELECT id, step FROM blocks WHERE run = $1 ORDER BY n")
            .bind(from)
            .fetch_all(&mut *tx)
            .await?;
    for (id, step) in blocks {
        if without.contains(&step) {
            continue;
        }
        let new = rules::copied_block(&row::id("block id", &id)?, &copy.from, &copy.id)?;
        let put = sqlx::query(
            "INSERT INTO blocks (id, run, step, status, ask, asked_at, remind_at, answer, \
             answered_by, answered_at) \
             SELECT $2, $3, step, CASE status WHEN 'open' THEN 'withdrawn' ELSE status END, ask, \
             asked_at, remind_at, answer, answered_by, answered_at FROM blocks WHERE id = $1 \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&id)
        .bind(new.as_str())
        .bind(to)
        .execute(&mut *tx)
        .await?;
        if put.rows_affected() == 0 {
            return Err(rules::block_taken(&new).into());
        }
    }
    Ok(())
}

//! Forks, edits and copies: new histories out of old ones, by statements that move rows inside
//! the file.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use swarm_core::checkpoint::{Change, ChannelDelta, Cursor, FORMAT};
use swarm_core::event::NewEvent;
use swarm_core::id::RunId;
use swarm_core::port::store::{
    Archive, CheckpointWrite, CopyRun, DeleteError, Edit, EditError, Fork, Pruned, Result,
    Retention,
};
use swarm_core::run::RunRecord;
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

use super::super::rules::{self, Taken, Written};
use super::checkpoint::Head;
use super::claim::no_run;
use super::row::{self, amount, int, uint};
use super::script::Script;
use super::{Done, SqliteStore, checkpoint, commit, prune};

#[async_trait]
impl Archive for SqliteStore {
    async fn fork(&self, fork: Fork, at: Timestamp) -> Result<bool> {
        self.write(move |tx| Box::pin(async move { self::fork(tx, fork, at).await })).await
    }

    async fn edit(&self, edit: Edit, at: Timestamp) -> std::result::Result<u64, EditError> {
        self.write(move |tx| Box::pin(async move { self::edit(tx, edit, at).await })).await?
    }

    async fn copy_run(&self, copy: CopyRun, at: Timestamp) -> Result<bool> {
        self.write(move |tx| Box::pin(async move { self::copy(tx, &copy, at).await })).await
    }

    async fn delete_run(&self, run: &RunId) -> std::result::Result<u64, DeleteError> {
        let run = run.clone();
        self.write(move |tx| Box::pin(async move { prune::delete(tx, &run).await })).await?
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

async fn find(tx: &mut SqliteConnection, run: &RunId) -> Done<Found> {
    let numbers: Option<(i64, Option<i64>, i64, u16)> = sqlx::query_as(
        "SELECT seq, checkpoint_seq, event_seq, checkpoint_format FROM runs WHERE id = ?1",
    )
    .bind(run.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let (seq, last, event_seq, format) = numbers.ok_or_else(|| no_run(run))?;
    let record = commit::record(tx, seq).await?;
    Ok(Found { seq, record, last: last.map(uint), format, event_seq })
}

async fn exists(tx: &mut SqliteConnection, run: &RunId) -> Done<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM runs WHERE id = ?1)")
        .bind(run.as_str())
        .fetch_one(tx)
        .await?)
}

async fn fork(tx: &mut SqliteConnection, fork: Fork, at: Timestamp) -> Done<bool> {
    let from = find(tx, &fork.from).await?;
    if exists(tx, &fork.id).await? {
        return Ok(false);
    }
    let first = checkpoint::read(tx, &fork.from, from.seq, int(fork.seq)).await?;
    let first = first.ok_or_else(|| rules::no_checkpoint(&fork.from, fork.seq))?;
    rules::check_fork(&fork, from.record.status, from.last, &first.cursor)?;
    let created = sqlx::query(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, limit_usd, \
         limit_tokens, forked_from, forked_seq, checkpoint_seq, checkpoint_format, event_seq, \
         created_at, updated_at) \
         SELECT ?2, graph, graph_hash, ?3, ?4, ?5, ?6, ?7, id, ?8, 0, ?9, 1, ?10, ?10 \
         FROM runs WHERE seq = ?1",
    )
    .bind(from.seq)
    .bind(fork.id.as_str())
    .bind(fork.queue.as_str())
    .bind(fork.priority)
    .bind(row::text(&fork.labels)?)
    .bind(fork.limit.usd.map(|usd| amount(usd.0)))
    .bind(fork.limit.tokens.map(amount))
    .bind(int(fork.seq))
    .bind(FORMAT)
    .bind(at.as_millis())
    .execute(&mut *tx)
    .await?;
    let run = created.last_insert_rowid();
    sqlx::query("INSERT INTO run_data (run, input) SELECT ?2, input FROM run_data WHERE run = ?1")
        .bind(from.seq)
        .bind(run)
        .execute(&mut *tx)
        .await?;
    let deltas = first.state.0.iter().map(|(channel, value)| ChannelDelta {
        channel: channel.clone(),
        change: Change::Full(value.clone()),
    });
    let write =
        CheckpointWrite { seq: 0, cursor: first.cursor.begun_anew(), deltas: deltas.collect() };
    let mut script = Script::new();
    let on = checkpoint::On { run: &fork.id, run_seq: run, heads: &HashMap::new() };
    checkpoint::write_on(tx, &mut script, &on, &write, None, at).await?;
    tell(&mut script, &fork.id, run, 0, rules::forked(&fork), at)?;
    script.run(tx).await?;
    copy_entries(tx, from.seq, run, int(fork.seq), &first.cursor).await?;
    Ok(true)
}

/// Adds an event after the `last` one; the caller counts it.
fn tell(
    script: &mut Script,
    run: &RunId,
    seq: i64,
    last: i64,
    event: NewEvent,
    at: Timestamp,
) -> Result<()> {
    commit::put_events(script, seq, &commit::number(run, last, vec![event], at))
}

type EntryRow = (i64, i64, Option<i64>, i64, i64);

/// Copies what the journal held of the steps of this cursor when it was stored.
async fn copy_entries(
    tx: &mut SqliteConnection,
    from: i64,
    to: i64,
    seq: i64,
    cursor: &Cursor,
) -> Done<()> {
    let active: Vec<&str> =
        cursor.active.iter().map(|activation| activation.step.as_str()).collect();
    let rows: Vec<EntryRow> = sqlx::query_as(
        "SELECT n, begun_after, finished_after, reserved_usd, reserved_tokens FROM effects \
         WHERE run = ?1 AND step IN (SELECT value FROM json_each(?2)) ORDER BY n",
    )
    .bind(from)
    .bind(row::text(&active)?)
    .fetch_all(&mut *tx)
    .await?;
    let (mut results, mut intents) = (Vec::new(), Vec::new());
    for (n, begun_after, finished_after, usd, tokens) in rows {
        let reserved = Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) };
        match (Written { begun_after, finished_after }).before(seq, reserved) {
            Taken::Nothing => {}
            Taken::Intent => intents.push(n),
            Taken::Result => results.push(n),
        }
    }
    let mut all: Vec<i64> = results.iter().chain(&intents).copied().collect();
    all.sort_unstable();
    sqlx::query(
        "INSERT INTO effects (run, step, key, reserved_usd, reserved_tokens, spent_usd, \
         spent_tokens, begun_at, finished_at, intent, result, begun_after, finished_after) \
         SELECT ?1, e.step, e.key, e.reserved_usd, e.reserved_tokens, \
         iif(done.value IS NULL, 0, e.spent_usd), iif(done.value IS NULL, 0, e.spent_tokens), \
         e.begun_at, iif(done.value IS NULL, NULL, e.finished_at), e.intent, \
         iif(done.value IS NULL, NULL, e.result), -1, iif(done.value IS NULL, NULL, -1) \
         FROM json_each(?2) wanted JOIN effects e ON e.n = wanted.value \
         LEFT JOIN json_each(?3) done ON done.value = e.n ORDER BY e.n",
    )
    .bind(to)
    .bind(row::text(&all)?)
    .bind(row::text(&results)?)
    .execute(tx)
    .await?;
    Ok(())
}

/// Edits a state. A refusal is a value here: it has written nothing to be undone.
async fn edit(
    tx: &mut SqliteConnection,
    edit: Edit,
    at: Timestamp,
) -> Done<std::result::Result<u64, EditError>> {
    let found = find(tx, &edit.run).await?;
    let seq = match rules::check_edit(&edit, &found.record, found.last) {
        Ok(seq) => seq,
        Err(refusal) => return Ok(Err(refusal)),
    };
    rules::check_format(&edit.run, found.format)?;
    let event = rules::edited(&edit, seq);
    let mut script = Script::new();
    let place = SamePlace { run: &edit.run, run_seq: found.seq, seq, by: Some(&edit.by) };
    place.write(tx, &mut script, edit.deltas, |cursor| cursor, at).await?;
    tell(&mut script, &edit.run, found.seq, found.event_seq, event, at)?;
    script.statement("UPDATE runs SET event_seq = event_seq + 1, updated_at = ");
    script.bind(at.as_millis()).sql(", checkpoint_seq = ").bind(int(seq));
    script.sql(", checkpoint_format = ").bind(FORMAT).sql(" WHERE seq = ").bind(found.seq);
    script.run(tx).await?;
    Ok(Ok(seq))
}

/// One more checkpoint at the same place.
struct SamePlace<'e> {
    run: &'e RunId,
    run_seq: i64,
    /// Its number.
    seq: u64,
    by: Option<&'e str>,
}

impl SamePlace<'_> {
    /// Steps that ended since the last checkpoint are still to be taken by a claim, so it is not
    /// this checkpoint that covers them.
    async fn write(
        self,
        tx: &mut SqliteConnection,
        script: &mut Script,
        deltas: Vec<ChannelDelta>,
        change: impl FnOnce(Cursor) -> Cursor,
        at: Timestamp,
    ) -> Done<()> {
        let cursor: String =
            sqlx::query_scalar("SELECT cursor FROM checkpoints WHERE run = ?1 AND seq = ?2")
                .bind(self.run_seq)
                .bind(int(self.seq) - 1)
                .fetch_one(&mut *tx)
                .await?;
        let cursor = change(row::json("checkpoint", self.run.as_str(), &cursor)?);
        sqlx::query("UPDATE steps SET covered_by = ?2 + 1 WHERE run = ?1 AND covered_by = ?2")
            .bind(self.run_seq)
            .bind(int(self.seq))
            .execute(&mut *tx)
            .await?;
        let write = CheckpointWrite { seq: self.seq, cursor, deltas };
        let heads = Head::of(tx, self.run, self.run_seq, &write).await?;
        let on = checkpoint::On { run: self.run, run_seq: self.run_seq, heads: &heads };
        checkpoint::write_on(tx, script, &on, &write, self.by, at).await
    }
}

async fn copy(tx: &mut SqliteConnection, copy: &CopyRun, at: Timestamp) -> Done<bool> {
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
    let created = sqlx::query(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, status, epoch, \
         limit_usd, limit_tokens, spent_usd, spent_tokens, forked_from, forked_seq, \
         checkpoint_seq, checkpoint_format, event_seq, created_at, updated_at, ended_at) \
         SELECT ?2, graph, graph_hash, queue, priority, labels, ?3, epoch, limit_usd, \
         limit_tokens, spent_usd, spent_tokens, forked_from, forked_seq, checkpoint_seq, \
         checkpoint_format, event_seq + 1, created_at, ?4, ?5 FROM runs WHERE seq = ?1",
    )
    .bind(from.seq)
    .bind(copy.id.as_str())
    .bind(new_status)
    .bind(at.as_millis())
    .bind(ended_at.map(Timestamp::as_millis))
    .execute(&mut *tx)
    .await?;
    let run = created.last_insert_rowid();
    for statement in COPIES {
        sqlx::query(*statement).bind(from.seq).bind(run).execute(&mut *tx).await?;
    }
    let mut script = Script::new();
    let mut active = BTreeSet::new();
    if let (true, Some(last)) = (copy.claimable, from.last) {
        let seq = last + 1;
        let place = SamePlace { run: &copy.id, run_seq: run, seq, by: None };
        let keep = |cursor: Cursor| {
            active.extend(cursor.active.iter().map(|activation| activation.step.to_string()));
            cursor.begun_anew()
        };
        place.write(tx, &mut script, Vec::new(), keep, at).await?;
        script.statement("UPDATE runs SET checkpoint_seq = ").bind(int(seq));
        script.sql(", checkpoint_format = ").bind(FORMAT).sql(" WHERE seq = ").bind(run);
    }
    tell(&mut script, &copy.id, run, from.event_seq, rules::copied(&copy.from), at)?;
    script.run(tx).await?;
    copy_blocks(tx, from.seq, run, copy, &active).await?;
    Ok(true)
}

/// What is copied as it is, from run ?1 to run ?2.
const COPIES: &[&str] = &[
    "INSERT INTO run_data (run, input, output, failure) \
     SELECT ?2, input, output, failure FROM run_data WHERE run = ?1",
    "INSERT INTO checkpoints (run, seq, format, at, edited_by, cursor) \
     SELECT ?2, seq, format, at, edited_by, cursor FROM checkpoints WHERE run = ?1",
    "INSERT INTO channel_deltas (run, channel, seq, base, merges, shape, change, value) \
     SELECT ?2, channel, seq, base, merges, shape, change, value \
     FROM channel_deltas WHERE run = ?1",
    "INSERT INTO steps (run, step, attempt, node, seq, covered_by, started_at, ended_at, ending) \
     SELECT ?2, step, attempt, node, seq, covered_by, started_at, ended_at, ending \
     FROM steps WHERE run = ?1 ORDER BY n",
    "INSERT INTO effects (run, step, key, reserved_usd, reserved_tokens, spent_usd, \
     spent_tokens, begun_at, finished_at, intent, result, begun_after, finished_after) \
     SELECT ?2, step, key, reserved_usd, reserved_tokens, spent_usd, spent_tokens, begun_at, \
     finished_at, intent, result, begun_after, finished_after FROM effects WHERE run = ?1 \
     AND (result IS NOT NULL OR (reserved_usd = 0 AND reserved_tokens = 0)) ORDER BY n",
    "INSERT INTO events (run, seq, at, kind, step, data) \
     SELECT ?2, seq, at, kind, step, data FROM events WHERE run = ?1",
];

/// Copies the questions except those of these steps; open ones are withdrawn.
async fn copy_blocks(
    tx: &mut SqliteConnection,
    from: i64,
    to: i64,
    copy: &CopyRun,
    without: &BTreeSet<String>,
) -> Done<()> {
    let blocks: Vec<(String, String)> =
        sqlx::query_as("SELECT id, step FROM blocks WHERE run = ?1 ORDER BY n")
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
             SELECT ?2, ?3, step, iif(status = 'open', 'withdrawn', status), ask, asked_at, \
             remind_at, answer, answered_by, answered_at FROM blocks WHERE id = ?1 \
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

//! Forks, edits and copies: new histories out of old ones, by statements that move rows inside
//! the file.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::params;
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

use super::super::rules::{self, Taken};
use super::checkpoint::Written;
use super::claim::no_run;
use super::row::{self, amount, int, uint};
use super::tx::{Tx, scalar, tuple};
use super::{Done, SqliteStore, checkpoint, commit, prune};

#[async_trait]
impl Archive for SqliteStore {
    async fn fork(&self, fork: Fork, at: Timestamp) -> Result<bool> {
        self.write(move |tx| self::fork(tx, &fork, at)).await
    }

    async fn edit(&self, edit: Edit, at: Timestamp) -> std::result::Result<u64, EditError> {
        self.write(move |tx| self::edit(tx, edit, at)).await?
    }

    async fn copy_run(&self, copy: CopyRun, at: Timestamp) -> Result<bool> {
        self.write(move |tx| self::copy(tx, &copy, at)).await
    }

    async fn delete_run(&self, run: &RunId) -> std::result::Result<u64, DeleteError> {
        let run = run.clone();
        self.write(move |tx| prune::delete(tx, &run)).await?
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

fn find(tx: &Tx<'_>, run: &RunId) -> Done<Found> {
    let numbers: Option<(i64, Option<i64>, i64, u16)> = tx.find(
        "SELECT seq, checkpoint_seq, event_seq, checkpoint_format FROM runs WHERE id = ?1",
        params![run.as_str()],
        tuple,
    )?;
    let (seq, last, event_seq, format) = numbers.ok_or_else(|| no_run(run))?;
    let record = commit::record(tx, seq)?;
    Ok(Found { seq, record, last: last.map(uint), format, event_seq })
}

fn exists(tx: &Tx<'_>, run: &RunId) -> Done<bool> {
    tx.one("SELECT EXISTS (SELECT 1 FROM runs WHERE id = ?1)", params![run.as_str()], scalar)
}

fn fork(tx: &Tx<'_>, fork: &Fork, at: Timestamp) -> Done<bool> {
    let from = find(tx, &fork.from)?;
    if exists(tx, &fork.id)? {
        return Ok(false);
    }
    let first = checkpoint::read(tx, &fork.from, from.seq, int(fork.seq))?;
    let first = first.ok_or_else(|| rules::no_checkpoint(&fork.from, fork.seq))?;
    rules::check_fork(fork, from.record.status, from.last, &first.cursor)?;
    tx.execute(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, limit_usd, \
         limit_tokens, forked_from, forked_seq, checkpoint_seq, checkpoint_format, event_seq, \
         created_at, updated_at) \
         SELECT ?2, graph, coalesce(?11, graph_hash), ?3, ?4, ?5, ?6, ?7, id, ?8, 0, ?9, 1, ?10, \
         ?10 \
         FROM runs WHERE seq = ?1",
        params![
            from.seq,
            fork.id.as_str(),
            fork.queue.as_str(),
            fork.priority,
            row::text(&fork.labels)?,
            fork.limit.usd.map(|usd| amount(usd.0)),
            fork.limit.tokens.map(amount),
            int(fork.seq),
            FORMAT,
            at.as_millis(),
            fork.graph.as_ref().map(|graph| &*graph.0)
        ],
    )?;
    let run = tx.last_row();
    tx.execute(
        "INSERT INTO run_data (run, input) SELECT ?2, input FROM run_data WHERE run = ?1",
        params![from.seq, run],
    )?;
    let deltas = first.state.0.iter().map(|(channel, value)| ChannelDelta {
        channel: channel.clone(),
        change: Change::Full(value.clone()),
    });
    let write =
        CheckpointWrite { seq: 0, cursor: first.cursor.begun_anew(), deltas: deltas.collect() };
    let on = checkpoint::On { run: &fork.id, run_seq: run };
    checkpoint::write(tx, on, &Written::new(write)?, None, at)?;
    tell(tx, on, 0, rules::forked(fork), at)?;
    copy_entries(tx, from.seq, run, int(fork.seq), &first.cursor)?;
    Ok(true)
}

/// Adds an event after the `last` one; the caller counts it.
fn tell(
    tx: &Tx<'_>,
    on: checkpoint::On<'_>,
    last: i64,
    event: NewEvent,
    at: Timestamp,
) -> Done<()> {
    let events = vec![event];
    let texts = commit::event_texts(&events)?;
    commit::put_events(tx, on.run_seq, &commit::number(on.run, last, events, at), &texts)
}

type EntryRow = (i64, i64, Option<i64>, i64, i64);

/// Copies what the journal held of the steps of this cursor when it was stored.
fn copy_entries(tx: &Tx<'_>, from: i64, to: i64, seq: i64, cursor: &Cursor) -> Done<()> {
    let active: Vec<&str> =
        cursor.active.iter().map(|activation| activation.step.as_str()).collect();
    let rows: Vec<EntryRow> = tx.all(
        "SELECT n, begun_after, finished_after, reserved_usd, reserved_tokens FROM effects \
         WHERE run = ?1 AND step IN (SELECT value FROM json_each(?2)) ORDER BY n",
        params![from, row::text(&active)?],
        tuple,
    )?;
    let (mut results, mut intents) = (Vec::new(), Vec::new());
    for (n, begun_after, finished_after, usd, tokens) in rows {
        let reserved = Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) };
        match (rules::Written { begun_after, finished_after }).before(seq, reserved) {
            Taken::Nothing => {}
            Taken::Intent => intents.push(n),
            Taken::Result => results.push(n),
        }
    }
    let mut all: Vec<i64> = results.iter().chain(&intents).copied().collect();
    all.sort_unstable();
    tx.execute(
        "INSERT INTO effects (run, step, key, reserved_usd, reserved_tokens, spent_usd, \
         spent_tokens, begun_at, finished_at, intent, result, begun_after, finished_after) \
         SELECT ?1, e.step, e.key, e.reserved_usd, e.reserved_tokens, \
         iif(done.value IS NULL, 0, e.spent_usd), iif(done.value IS NULL, 0, e.spent_tokens), \
         e.begun_at, iif(done.value IS NULL, NULL, e.finished_at), e.intent, \
         iif(done.value IS NULL, NULL, e.result), -1, iif(done.value IS NULL, NULL, -1) \
         FROM json_each(?2) wanted JOIN effects e ON e.n = wanted.value \
         LEFT JOIN json_each(?3) done ON done.value = e.n ORDER BY e.n",
        params![to, row::text(&all)?, row::text(&results)?],
    )?;
    Ok(())
}

/// Edits a state. A refusal is a value here: it has written nothing to be undone.
fn edit(tx: &Tx<'_>, edit: Edit, at: Timestamp) -> Done<std::result::Result<u64, EditError>> {
    let found = find(tx, &edit.run)?;
    let seq = match rules::check_edit(&edit, &found.record, found.last) {
        Ok(seq) => seq,
        Err(refusal) => return Ok(Err(refusal)),
    };
    rules::check_format(&edit.run, found.format)?;
    let event = rules::edited(&edit, seq);
    let on = checkpoint::On { run: &edit.run, run_seq: found.seq };
    let place = SamePlace { on, seq, by: Some(&edit.by) };
    place.write(tx, edit.deltas, |cursor| cursor, at)?;
    tell(tx, on, found.event_seq, event, at)?;
    tx.execute(
        "UPDATE runs SET event_seq = event_seq + 1, updated_at = ?2, checkpoint_seq = ?3, \
         checkpoint_format = ?4 WHERE seq = ?1",
        (found.seq, at.as_millis(), int(seq), FORMAT),
    )?;
    Ok(Ok(seq))
}

/// One more checkpoint at the same place.
struct SamePlace<'e> {
    on: checkpoint::On<'e>,
    /// Its number.
    seq: u64,
    by: Option<&'e str>,
}

impl SamePlace<'_> {
    /// Steps that ended since the last checkpoint are still to be taken by a claim, so it is not
    /// this checkpoint that covers them.
    fn write(
        self,
        tx: &Tx<'_>,
        deltas: Vec<ChannelDelta>,
        change: impl FnOnce(Cursor) -> Cursor,
        at: Timestamp,
    ) -> Done<()> {
        let cursor: String = tx.one(
            "SELECT cursor FROM checkpoints WHERE run = ?1 AND seq = ?2",
            params![self.on.run_seq, int(self.seq) - 1],
            scalar,
        )?;
        let cursor = change(row::json("checkpoint", self.on.run.as_str(), &cursor)?);
        tx.execute(
            "UPDATE steps SET covered_by = ?2 + 1 WHERE run = ?1 AND covered_by = ?2",
            params![self.on.run_seq, int(self.seq)],
        )?;
        let write = CheckpointWrite { seq: self.seq, cursor, deltas };
        checkpoint::write(tx, self.on, &Written::new(write)?, self.by, at)
    }
}

fn copy(tx: &Tx<'_>, copy: &CopyRun, at: Timestamp) -> Done<bool> {
    let from = find(tx, &copy.from)?;
    if exists(tx, &copy.id)? {
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
    tx.execute(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, status, epoch, \
         limit_usd, limit_tokens, spent_usd, spent_tokens, forked_from, forked_seq, \
         checkpoint_seq, checkpoint_format, event_seq, created_at, updated_at, ended_at) \
         SELECT ?2, graph, graph_hash, queue, priority, labels, ?3, epoch, limit_usd, \
         limit_tokens, spent_usd, spent_tokens, forked_from, forked_seq, checkpoint_seq, \
         checkpoint_format, event_seq + 1, created_at, ?4, ?5 FROM runs WHERE seq = ?1",
        params![
            from.seq,
            copy.id.as_str(),
            new_status,
            at.as_millis(),
            ended_at.map(Timestamp::as_millis)
        ],
    )?;
    let run = tx.last_row();
    for statement in COPIES {
        tx.execute(statement, params![from.seq, run])?;
    }
    let on = checkpoint::On { run: &copy.id, run_seq: run };
    let mut active = BTreeSet::new();
    if let (true, Some(last)) = (copy.claimable, from.last) {
        let seq = last + 1;
        let place = SamePlace { on, seq, by: None };
        let keep = |cursor: Cursor| {
            active.extend(cursor.active.iter().map(|activation| activation.step.to_string()));
            cursor.begun_anew()
        };
        place.write(tx, Vec::new(), keep, at)?;
        let sql = "UPDATE runs SET checkpoint_seq = ?2, checkpoint_format = ?3 WHERE seq = ?1";
        tx.execute(sql, (run, int(seq), FORMAT))?;
    }
    tell(tx, on, from.event_seq, rules::copied(&copy.from), at)?;
    copy_blocks(tx, from.seq, run, copy, &active)?;
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
fn copy_blocks(
    tx: &Tx<'_>,
    from: i64,
    to: i64,
    copy: &CopyRun,
    without: &BTreeSet<String>,
) -> Done<()> {
    let blocks: Vec<(String, String)> =
        tx.all("SELECT id, step FROM blocks WHERE run = ?1 ORDER BY n", params![from], tuple)?;
    for (id, step) in blocks {
        if without.contains(&step) {
            continue;
        }
        let new = rules::copied_block(&row::id("block id", &id)?, &copy.from, &copy.id)?;
        let put = tx.execute(
            "INSERT INTO blocks (id, run, step, status, ask, asked_at, remind_at, answer, \
             answered_by, answered_at) \
             SELECT ?2, ?3, step, iif(status = 'open', 'withdrawn', status), ask, asked_at, \
             remind_at, answer, answered_by, answered_at FROM blocks WHERE id = ?1 \
             ON CONFLICT (id) DO NOTHING",
            params![&id, new.as_str(), to],
        )?;
        if put == 0 {
            return Err(rules::block_taken(&new).into());
        }
    }
    Ok(())
}

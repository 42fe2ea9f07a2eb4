//! Commits: everything that a worker writes about its run, in one transaction.
//!
//! Nothing here undoes anything: a refusal half way rolls back the savepoint that the writer put
//! around it. Texts are made before the writer is asked, because there is only one.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::params;
use swarm_core::checkpoint::{FORMAT, StepRecord};
use swarm_core::escalation::Block;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::store::{
    Claim, Commit, Commits, Committed, Outgoing, Recipient, Release, Result, Signal, SignalKind,
};
use swarm_core::run::{Limit, NewRun, RunRecord};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::checkpoint::Written;
use super::claim::{self, Held, no_run};
use super::row::{self, amount, int, select_runs, uint};
use super::signal::{self, Woken};
use super::tx::{Tx, scalar, tuple};
use super::{Done, SqliteStore, checkpoint, question, release};

#[async_trait]
impl Commits for SqliteStore {
    async fn create_run(&self, run: NewRun, at: Timestamp) -> Result<bool> {
        self.write(move |tx| create(tx, &run, at)).await
    }

    async fn create_claimed(
        &self,
        run: NewRun,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let worker = worker.clone();
        self.write(move |tx| {
            if !create(tx, &run, now)? {
                return Ok(None);
            }
            let taken = claim::take(tx, tx.last_row(), &worker, now, ttl)?;
            let record = record(tx, taken.0)?;
            Ok(Some(Claim { run: record, checkpoint: None, finished: Vec::new() }))
        })
        .await
    }

    async fn commit(&self, mut commit: Commit) -> Result<Committed> {
        let texts = Texts::of(&mut commit)?;
        self.write(move |tx| write(tx, commit, texts)).await
    }

    async fn raise_limit(&self, run: &RunId, limit: Limit, at: Timestamp) -> Result<Limit> {
        let run = run.clone();
        self.write(move |tx| raise(tx, &run, limit, at)).await
    }

    async fn signals(&self, run: &RunId) -> Result<Vec<Signal>> {
        self.untaken(run).await
    }

    async fn signal(
        &self,
        run: &RunId,
        key: Option<&str>,
        kind: SignalKind,
        at: Timestamp,
    ) -> Result<bool> {
        let (run, key) = (run.clone(), key.map(str::to_owned));
        self.write(move |tx| signal::send_from_outside(tx, &run, key.as_deref(), &kind, at)).await
    }
}

/// Starts a run; `false` if it is there already.
fn create(tx: &Tx<'_>, new: &NewRun, at: Timestamp) -> Done<bool> {
    let parent = match &new.parent {
        Some(parent) => match parent_seq(tx, &parent.run)? {
            Some(seq) => Some(seq),
            None if signal::find(tx, &new.id).is_ok() => return Ok(false),
            None => return Err(rules::no_parent(&parent.run).into()),
        },
        None => None,
    };
    let created = tx.execute(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, parent, parent_step, \
         parent_awaits, limit_usd, limit_tokens, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12) \
         ON CONFLICT (id) DO NOTHING",
        params![
            new.id.as_str(),
            new.graph.as_str(),
            &*new.graph_hash.0,
            new.queue.as_str(),
            new.priority,
            row::text(&new.labels)?,
            parent,
            new.parent.as_ref().map(|parent| parent.step.as_str()),
            new.parent.as_ref().map(|parent| parent.awaited),
            new.limit.usd.map(|usd| amount(usd.0)),
            new.limit.tokens.map(amount),
            at.as_millis()
        ],
    )?;
    if created == 0 {
        return Ok(false);
    }
    let sql = "INSERT INTO run_data (run, input) VALUES (?1, ?2)";
    tx.execute(sql, (tx.last_row(), row::text(&new.input)?))?;
    Ok(true)
}

fn parent_seq(tx: &Tx<'_>, parent: &RunId) -> Done<Option<i64>> {
    tx.find("SELECT seq FROM runs WHERE id = ?1", [parent.as_str()], scalar)
}

fn raise(tx: &Tx<'_>, run: &RunId, limit: Limit, at: Timestamp) -> Done<Limit> {
    let old: Option<(Option<i64>, Option<i64>)> = tx.find(
        "SELECT limit_usd, limit_tokens FROM runs WHERE id = ?1",
        params![run.as_str()],
        tuple,
    )?;
    let (usd, tokens) = old.ok_or_else(|| no_run(run))?;
    let raised = rules::raised(row::limit(usd, tokens), limit);
    tx.execute(
        "UPDATE runs SET limit_usd = ?2, limit_tokens = ?3, updated_at = ?4 WHERE id = ?1",
        params![
            run.as_str(),
            raised.usd.map(|usd| amount(usd.0)),
            raised.tokens.map(amount),
            at.as_millis()
        ],
    )?;
    Ok(raised)
}

/// The texts of a commit.
struct Texts {
    /// Whether the commit contradicts itself: told only to who holds the run.
    sound: Result<()>,
    first: Option<Written>,
    checkpoint: Option<Written>,
    endings: Vec<String>,
    events: Vec<String>,
}

impl Texts {
    /// Takes the checkpoints out of the commit.
    fn of(commit: &mut Commit) -> Result<Self> {
        Ok(Self {
            sound: rules::check_commit(commit),
            first: commit.first.take().map(Written::new).transpose()?,
            checkpoint: commit.checkpoint.take().map(Written::new).transpose()?,
            endings: commit
                .steps
                .iter()
                .map(|step| row::text(&step.ending))
                .collect::<Result<_>>()?,
            events: event_texts(&commit.events)?,
        })
    }
}

/// Writes one commit.
fn write(tx: &Tx<'_>, commit: Commit, texts: Texts) -> Done<Committed> {
    let held = Held::check(tx, &commit.run, commit.epoch)?;
    let Texts { sound, first, checkpoint, endings, events } = texts;
    sound?;
    let at = commit.at;
    let written = [first.as_ref(), checkpoint.as_ref()];
    let last = put_checkpoints(tx, &commit.run, &held, written, at)?;
    let has_checkpoint = checkpoint.is_some();
    let covered_by = last.map_or(0, |last| if has_checkpoint { last } else { last + 1 });
    for (step, ending) in commit.steps.iter().zip(&endings) {
        put_step(tx, held.seq, covered_by, step, ending)?;
    }
    let questions_change = !commit.blocks.is_empty() || !commit.withdrawn.is_empty();
    let asked = put_blocks(tx, held.seq, commit.blocks)?;
    question::withdraw(tx, held.seq, &commit.withdrawn)?;
    take_signals(tx, held.seq, &commit.taken, at)?;
    let mut woken = Woken::default();
    for child in commit.children {
        if create(tx, &child, at)? {
            woken.add(child.id);
        }
    }
    for Outgoing { to, kind } in &commit.outgoing {
        let to = recipients(tx, &held, to)?;
        signal::send(tx, &to, kind, at, &mut woken)?;
    }
    if !asked.is_empty() && held.has_parent {
        tell_asked(tx, held.seq, &asked, at, &mut woken)?;
    }
    let data = events;
    let events = number(&commit.run, held.event_seq, commit.events, at);
    put_events(tx, held.seq, &events, &data)?;
    let format = if last == held.checkpoint_seq { held.checkpoint_format } else { FORMAT };
    tx.execute(
        "UPDATE runs SET updated_at = ?2, event_seq = ?3, checkpoint_seq = ?4, \
         checkpoint_format = ?5 WHERE seq = ?1",
        (
            held.seq,
            at.as_millis(),
            held.event_seq + int(events.len() as u64),
            last.map(int),
            format,
        ),
    )?;
    if let Some(limit) = commit.limit {
        let (usd, tokens) = (limit.usd.map(|usd| amount(usd.0)), limit.tokens.map(amount));
        let sql = "UPDATE runs SET limit_usd = ?2, limit_tokens = ?3 WHERE seq = ?1";
        tx.execute(sql, (held.seq, usd, tokens))?;
    }
    if let Some(graph) = &commit.graph {
        tx.execute("UPDATE runs SET graph_hash = ?2 WHERE seq = ?1", (held.seq, &*graph.0))?;
    }
    let ends = matches!(commit.release, Some(Release::Ended { .. }));
    if (questions_change || commit.release.is_some()) && !ends {
        release::reserve(tx, held.seq)?;
    }
    if let Some(release) = commit.release {
        release::let_go(tx, &commit.run, &held, release, at, &mut woken)?;
    }
    Ok(Committed { events, woken: woken.0 })
}

/// Stores the checkpoints of a commit; returns the number of the last one there is.
fn put_checkpoints(
    tx: &Tx<'_>,
    run: &RunId,
    held: &Held,
    written: [Option<&Written>; 2],
    at: Timestamp,
) -> Done<Option<u64>> {
    let mut last = held.checkpoint_seq;
    for written in written.into_iter().flatten() {
        rules::check_seq(run, last, written.seq())?;
        let on = checkpoint::On { run, run_seq: held.seq };
        checkpoint::write(tx, on, written, None, at)?;
        last = Some(written.seq());
    }
    Ok(last)
}

fn put_step(tx: &Tx<'_>, run: i64, covered_by: u64, step: &StepRecord, ending: &str) -> Done<()> {
    tx.execute(
        "INSERT INTO steps \
         (run, step, attempt, node, seq, covered_by, started_at, ended_at, ending) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
         ON CONFLICT (run, step, attempt) DO NOTHING",
        (
            run,
            step.step.as_str(),
            step.attempt,
            step.node.as_str(),
            int(step.seq),
            int(covered_by),
            step.started_at.as_millis(),
            step.ended_at.as_millis(),
            ending,
        ),
    )?;
    Ok(())
}

/// Stores the questions that are new, and returns them.
fn put_blocks(tx: &Tx<'_>, run: i64, blocks: Vec<Block>) -> Done<Vec<Block>> {
    let mut new = Vec::new();
    for block in blocks {
        let put = tx.execute(
            "INSERT INTO blocks (id, run, step, status, ask, asked_at, remind_at) \
             VALUES (?1, ?2, ?3, 'open', ?4, ?5, ?6) ON CONFLICT (id) DO NOTHING",
            params![
                block.id.as_str(),
                run,
                block.step.as_str(),
                row::text(&block.ask)?,
                block.asked_at.as_millis(),
                block.remind_at.map(Timestamp::as_millis)
            ],
        )?;
        if put == 1 {
            new.push(block);
            continue;
        }
        let owner: i64 =
            tx.one("SELECT run FROM blocks WHERE id = ?1", params![block.id.as_str()], scalar)?;
        if owner != run {
            return Err(rules::foreign_block(&block).into());
        }
    }
    Ok(new)
}

fn take_signals(tx: &Tx<'_>, run: i64, taken: &[u64], at: Timestamp) -> Done<()> {
    if taken.is_empty() {
        return Ok(());
    }
    tx.execute(
        "UPDATE signals SET taken_at = ?3 WHERE id IN (SELECT value FROM json_each(?2)) \
         AND run = ?1 AND taken_at IS NULL",
        params![run, row::text(&taken)?, at.as_millis()],
    )?;
    Ok(())
}

fn recipients(tx: &Tx<'_>, held: &Held, to: &Recipient) -> Done<Vec<i64>> {
    match to {
        Recipient::Run(run) => Ok(vec![signal::find(tx, run)?]),
        Recipient::Ancestors => signal::ancestors(tx, held.seq),
        Recipient::Children => signal::children(tx, held.seq),
    }
}

fn tell_asked(
    tx: &Tx<'_>,
    run: i64,
    asked: &[Block],
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    let record = record(tx, run)?;
    let ancestors = signal::ancestors(tx, run)?;
    for block in asked {
        signal::send(tx, &ancestors, &rules::blocked(&record.start, block), at, woken)?;
    }
    Ok(())
}

/// Events with their numbers, after the `last` one.
pub(super) fn number(run: &RunId, last: i64, events: Vec<NewEvent>, at: Timestamp) -> Vec<Event> {
    let seqs = uint(last) + 1..;
    let numbered = events.into_iter().zip(seqs).map(|(event, seq)| {
        let NewEvent { kind, step, data } = event;
        Event { run: run.clone(), seq, at, kind, step, data }
    });
    numbered.collect()
}

/// The data of events as text.
pub(super) fn event_texts(events: &[NewEvent]) -> Result<Vec<String>> {
    events.iter().map(|event| row::text(&event.data)).collect()
}

/// Stores events; the caller writes the new last number to the run.
pub(super) fn put_events(tx: &Tx<'_>, run: i64, events: &[Event], texts: &[String]) -> Done<()> {
    for (event, data) in events.iter().zip(texts) {
        let step = event.step.as_ref().map(|step| step.as_str());
        tx.execute(
            "INSERT INTO events (run, seq, at, kind, step, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (run, int(event.seq), event.at.as_millis(), event.kind.as_str(), step, data),
        )?;
    }
    Ok(())
}

/// A whole run.
pub(super) fn record(tx: &Tx<'_>, run: i64) -> Done<RunRecord> {
    tx.one(select_runs!("WHERE r.seq = ?1"), [run], |row| Ok(row::run(row)?.record))
}

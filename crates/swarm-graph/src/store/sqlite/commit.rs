//! Commits: everything that a worker writes about its run, in one transaction.
//!
//! What most commits are made of is sent as one [`Script`]; the rest is rare. Nothing here undoes
//! anything: a refusal half way rolls back the savepoint that the writer put around it.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use swarm_core::checkpoint::{FORMAT, StepRecord};
use swarm_core::escalation::Block;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::store::{
    Claim, Commit, Commits, Committed, Outgoing, Recipient, Result, Signal, SignalKind,
};
use swarm_core::run::{Limit, NewRun, RunRecord};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::checkpoint::Head;
use super::claim::{self, Held, no_run};
use super::row::{self, amount, int, select_runs, uint};
use super::script::Script;
use super::signal::{self, Woken};
use super::{Done, SqliteStore, checkpoint, question, release};

#[async_trait]
impl Commits for SqliteStore {
    async fn create_run(&self, run: NewRun, at: Timestamp) -> Result<bool> {
        self.write(move |tx| Box::pin(async move { create(tx, &run, at).await })).await
    }

    async fn create_claimed(
        &self,
        run: NewRun,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let worker = worker.clone();
        let taken = self
            .write(move |tx| {
                Box::pin(async move {
                    if !create(tx, &run, now).await? {
                        return Ok(None);
                    }
                    let seq = signal::find(tx, &run.id).await?;
                    claim::take(tx, seq, &worker, now, ttl).await.map(Some)
                })
            })
            .await?;
        self.bring(taken).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.write(move |tx| Box::pin(async move { write(tx, commit).await })).await
    }

    async fn raise_limit(&self, run: &RunId, limit: Limit, at: Timestamp) -> Result<Limit> {
        let run = run.clone();
        self.write(move |tx| Box::pin(async move { raise(tx, &run, limit, at).await })).await
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
        self.write(move |tx| {
            Box::pin(
                async move { signal::send_from_outside(tx, &run, key.as_deref(), &kind, at).await },
            )
        })
        .await
    }
}

/// Starts a run; `false` if it is there already.
async fn create(tx: &mut SqliteConnection, new: &NewRun, at: Timestamp) -> Done<bool> {
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM runs WHERE id = ?1)")
        .bind(new.id.as_str())
        .fetch_one(&mut *tx)
        .await?;
    if known {
        return Ok(false);
    }
    let parent = match &new.parent {
        Some(parent) => Some(parent_seq(tx, &parent.run).await?),
        None => None,
    };
    let created = sqlx::query(
        "INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, parent, parent_step, \
         parent_awaits, limit_usd, limit_tokens, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)",
    )
    .bind(new.id.as_str())
    .bind(new.graph.as_str())
    .bind(&*new.graph_hash.0)
    .bind(new.queue.as_str())
    .bind(new.priority)
    .bind(row::text(&new.labels)?)
    .bind(parent)
    .bind(new.parent.as_ref().map(|parent| parent.step.as_str()))
    .bind(new.parent.as_ref().map(|parent| parent.awaited))
    .bind(new.limit.usd.map(|usd| amount(usd.0)))
    .bind(new.limit.tokens.map(amount))
    .bind(at.as_millis())
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO run_data (run, input) VALUES (?1, ?2)")
        .bind(created.last_insert_rowid())
        .bind(row::text(&new.input)?)
        .execute(tx)
        .await?;
    Ok(true)
}

async fn parent_seq(tx: &mut SqliteConnection, parent: &RunId) -> Done<i64> {
    sqlx::query_scalar("SELECT seq FROM runs WHERE id = ?1")
        .bind(parent.as_str())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| rules::no_parent(parent).into())
}

async fn raise(tx: &mut SqliteConnection, run: &RunId, limit: Limit, at: Timestamp) -> Done<Limit> {
    let old: Option<(Option<i64>, Option<i64>)> =
        sqlx::query_as("SELECT limit_usd, limit_tokens FROM runs WHERE id = ?1")
            .bind(run.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    let (usd, tokens) = old.ok_or_else(|| no_run(run))?;
    let raised = rules::raised(row::limit(usd, tokens), limit);
    sqlx::query("UPDATE runs SET limit_usd = ?2, limit_tokens = ?3, updated_at = ?4 WHERE id = ?1")
        .bind(run.as_str())
        .bind(raised.usd.map(|usd| amount(usd.0)))
        .bind(raised.tokens.map(amount))
        .bind(at.as_millis())
        .execute(tx)
        .await?;
    Ok(raised)
}

/// Writes one commit.
async fn write(tx: &mut SqliteConnection, commit: Commit) -> Done<Committed> {
    let channels = commit.checkpoint.as_ref().map(checkpoint::changed).unwrap_or_default();
    let mut held = Held::check_with(tx, &commit.run, commit.epoch, &channels).await?;
    rules::check_commit(&commit)?;
    let at = commit.at;
    if let Some(first) = &commit.first {
        let mut script = Script::new();
        checkpoint::write(tx, &mut script, &commit.run, &held, first, at).await?;
        script.run(tx).await?;
        held.checkpoint_seq = Some(first.seq);
        if let Some(next) = &commit.checkpoint {
            held.heads = Head::of(tx, &commit.run, held.seq, next).await?;
        }
    }
    let next = held.checkpoint_seq.map_or(0, |last| last + 1);
    let mut script = Script::new();
    if let Some(checkpoint) = &commit.checkpoint {
        checkpoint::write(tx, &mut script, &commit.run, &held, checkpoint, at).await?;
    }
    put_steps(&mut script, held.seq, next, &commit.steps)?;
    let questions_change = !commit.blocks.is_empty() || !commit.withdrawn.is_empty();
    let asked = put_blocks(tx, held.seq, commit.blocks).await?;
    question::withdraw(tx, held.seq, &commit.withdrawn).await?;
    take_signals(tx, held.seq, &commit.taken, at).await?;
    let mut woken = Woken::default();
    for child in commit.children {
        if create(tx, &child, at).await? {
            woken.add(child.id);
        }
    }
    for Outgoing { to, kind } in &commit.outgoing {
        let to = recipients(tx, &held, to).await?;
        signal::send(tx, &to, kind, at, &mut woken).await?;
    }
    if !asked.is_empty() && held.has_parent {
        tell_asked(tx, held.seq, &asked, at, &mut woken).await?;
    }
    let events = number(&commit.run, held.event_seq, commit.events, at);
    put_events(&mut script, held.seq, &events)?;
    script.statement("UPDATE runs SET updated_at = ").bind(at.as_millis());
    script.sql(", event_seq = ").bind(held.event_seq + int(events.len() as u64));
    if let Some(checkpoint) = commit.checkpoint.as_ref().or(commit.first.as_ref()) {
        script.sql(", checkpoint_seq = ").bind(int(checkpoint.seq));
        script.sql(", checkpoint_format = ").bind(FORMAT);
    }
    if let Some(limit) = commit.limit {
        script.sql(", limit_usd = ").bind(limit.usd.map(|usd| amount(usd.0)));
        script.sql(", limit_tokens = ").bind(limit.tokens.map(amount));
    }
    if let Some(graph) = &commit.graph {
        script.sql(", graph_hash = ").bind(graph.0.to_string());
    }
    script.sql(" WHERE seq = ").bind(held.seq);
    script.run(tx).await?;
    if questions_change || commit.release.is_some() {
        release::reserve(tx, held.seq).await?;
    }
    if let Some(release) = commit.release {
        release::let_go(tx, &commit.run, &held, release, at, &mut woken).await?;
    }
    Ok(Committed { events, woken: woken.0 })
}

fn put_steps(script: &mut Script, run: i64, covered_by: u64, steps: &[StepRecord]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let endings: Vec<String> =
        steps.iter().map(|step| row::text(&step.ending)).collect::<Result<_>>()?;
    script
        .statement(
            "INSERT INTO steps \
             (run, step, attempt, node, seq, covered_by, started_at, ended_at, ending) ",
        )
        .values(steps.iter().zip(endings), |mut to, (step, ending)| {
            to.push_bind(run).push_bind(step.step.as_str()).push_bind(step.attempt);
            to.push_bind(step.node.as_str()).push_bind(int(step.seq)).push_bind(int(covered_by));
            to.push_bind(step.started_at.as_millis()).push_bind(step.ended_at.as_millis());
            to.push_bind(ending);
        })
        .sql(" ON CONFLICT (run, step, attempt) DO NOTHING");
    Ok(())
}

/// Stores the questions that are new, and returns them.
async fn put_blocks(tx: &mut SqliteConnection, run: i64, blocks: Vec<Block>) -> Done<Vec<Block>> {
    let mut new = Vec::new();
    for block in blocks {
        let put = sqlx::query(
            "INSERT INTO blocks (id, run, step, status, ask, asked_at, remind_at) \
             VALUES (?1, ?2, ?3, 'open', ?4, ?5, ?6) ON CONFLICT (id) DO NOTHING",
        )
        .bind(block.id.as_str())
        .bind(run)
        .bind(block.step.as_str())
        .bind(row::text(&block.ask)?)
        .bind(block.asked_at.as_millis())
        .bind(block.remind_at.map(Timestamp::as_millis))
        .execute(&mut *tx)
        .await?;
        if put.rows_affected() == 1 {
            new.push(block);
            continue;
        }
        let owner: i64 = sqlx::query_scalar("SELECT run FROM blocks WHERE id = ?1")
            .bind(block.id.as_str())
            .fetch_one(&mut *tx)
            .await?;
        if owner != run {
            return Err(rules::foreign_block(&block).into());
        }
    }
    Ok(new)
}

async fn take_signals(
    tx: &mut SqliteConnection,
    run: i64,
    taken: &[u64],
    at: Timestamp,
) -> Done<()> {
    if taken.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE signals SET taken_at = ?3 WHERE id IN (SELECT value FROM json_each(?2)) \
         AND run = ?1 AND taken_at IS NULL",
    )
    .bind(run)
    .bind(row::text(&taken)?)
    .bind(at.as_millis())
    .execute(tx)
    .await?;
    Ok(())
}

async fn recipients(tx: &mut SqliteConnection, held: &Held, to: &Recipient) -> Done<Vec<i64>> {
    match to {
        Recipient::Run(run) => Ok(vec![signal::find(tx, run).await?]),
        Recipient::Ancestors => signal::ancestors(tx, held.seq).await,
        Recipient::Children => signal::children(tx, held.seq).await,
    }
}

async fn tell_asked(
    tx: &mut SqliteConnection,
    run: i64,
    asked: &[Block],
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    let record = record(tx, run).await?;
    let ancestors = signal::ancestors(tx, run).await?;
    for block in asked {
        signal::send(tx, &ancestors, &rules::blocked(&record.start, block), at, woken).await?;
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

/// Stores events; the caller writes the new last number to the run.
pub(super) fn put_events(script: &mut Script, run: i64, events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let data: Vec<String> =
        events.iter().map(|event| row::text(&event.data)).collect::<Result<_>>()?;
    script.statement("INSERT INTO events (run, seq, at, kind, step, data) ").values(
        events.iter().zip(data),
        |mut to, (event, data)| {
            to.push_bind(run).push_bind(int(event.seq)).push_bind(event.at.as_millis());
            to.push_bind(event.kind.as_str());
            to.push_bind(event.step.as_ref().map(|step| step.as_str())).push_bind(data);
        },
    );
    Ok(())
}

/// A whole run.
pub(super) async fn record(tx: &mut SqliteConnection, run: i64) -> Done<RunRecord> {
    let found = sqlx::query(select_runs!("WHERE r.seq = ?1")).bind(run).fetch_one(tx).await?;
    Ok(row::run(&found)?.record)
}

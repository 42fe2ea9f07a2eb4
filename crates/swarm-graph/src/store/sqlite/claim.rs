//! Claims: which run is next, and whose it is.
//!
//! Looking for work costs no write: the pool is asked first, and only if it sees a run the writer
//! looks again under its lock. What a claim brings back is read after it is durable: from then on
//! only the new owner can change it, and if even newer owners do, their epoch shuts us out.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use swarm_core::checkpoint::FORMAT;
use swarm_core::id::{ChannelName, QueueName, RunId, WorkerId};
use swarm_core::port::store::{Claim, Error, Leases, Result};
use swarm_core::run::{Epoch, RunStatus};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::checkpoint::Head;
use super::row::{self, backend, column, select_runs, uint};
use super::{Done, SqliteStore};

/// A run and the epoch under which it is now ours.
pub(super) type Taken = (i64, Epoch);

#[async_trait]
impl Leases for SqliteStore {
    async fn claim_next(
        &self,
        worker: &WorkerId,
        queues: &[QueueName],
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let queues = row::text(&queues)?;
        let mut reader = self.readers.acquire().await.map_err(backend)?;
        if next(&mut reader, &queues, now).await?.is_none() {
            return Ok(None);
        }
        drop(reader);
        let worker = worker.clone();
        let taken = self
            .write(move |tx| {
                Box::pin(async move {
                    match next(tx, &queues, now).await? {
                        Some(run) => take(tx, run, &worker, now, ttl).await.map(Some),
                        None => Ok(None),
                    }
                })
            })
            .await?;
        self.bring(taken).await
    }

    async fn claim(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.claim_one(run, worker, now, ttl, rules::is_claimable).await
    }

    async fn claim_idle(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let is_idle = |status, lease_until, _, now| rules::is_idle(status, lease_until, now);
        self.claim_one(run, worker, now, ttl, is_idle).await
    }

    async fn renew(&self, run: &RunId, epoch: Epoch, now: Timestamp, ttl: Duration) -> Result<()> {
        let run = run.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let held = Held::check(tx, &run, epoch).await?;
                sqlx::query("UPDATE runs SET lease_until = ?2 WHERE seq = ?1")
                    .bind(held.seq)
                    .bind((now + ttl).as_millis())
                    .execute(tx)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}

/// Whether a run of this status, lease and timer may be claimed now.
type May = fn(RunStatus, Option<Timestamp>, Option<Timestamp>, Timestamp) -> bool;

impl SqliteStore {
    async fn claim_one(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
        may: May,
    ) -> Result<Option<Claim>> {
        let (run, worker) = (run.clone(), worker.clone());
        let taken = self
            .write(move |tx| {
                Box::pin(async move {
                    match claimable(tx, &run, now, may).await? {
                        Some(run) => take(tx, run, &worker, now, ttl).await.map(Some),
                        None => Ok(None),
                    }
                })
            })
            .await?;
        self.bring(taken).await
    }

    /// What a claim brings back.
    pub(super) async fn bring(&self, taken: Option<Taken>) -> Result<Option<Claim>> {
        let Some((seq, epoch)) = taken else { return Ok(None) };
        let mut reader = self.readers.acquire().await.map_err(backend)?;
        let found = sqlx::query(select_runs!("WHERE r.seq = ?1"))
            .bind(seq)
            .fetch_one(&mut *reader)
            .await
            .map_err(backend)?;
        let mut stored = row::run(&found)?;
        stored.record.epoch = epoch;
        let run = &stored.record.start.id;
        let checkpoint = match stored.checkpoint_seq {
            Some(last) => super::checkpoint::read(&mut reader, run, seq, last).await?,
            None => None,
        };
        let next = stored.checkpoint_seq.map_or(0, |last| last + 1);
        let finished = super::history::steps(&mut reader, run, seq, next).await?;
        Ok(Some(Claim { run: stored.record, checkpoint, finished }))
    }
}

/// The most urgent claimable run of these queues, a JSON list. Each kind of claimable run has an
/// index of its own, so the cost does not grow with the number of runs.
async fn next(
    connection: &mut SqliteConnection,
    queues: &str,
    now: Timestamp,
) -> Result<Option<i64>> {
    sqlx::query_scalar(
        "WITH wanted (queue) AS (SELECT value FROM json_each(?1)), \
         found (seq) AS ( \
           SELECT (SELECT r.seq FROM runs r \
                   WHERE r.status = 'ready' AND r.queue = wanted.queue \
                     AND r.checkpoint_format <= ?3 \
                   ORDER BY r.priority DESC, r.seq LIMIT 1) FROM wanted \
           UNION ALL \
           SELECT seq FROM runs WHERE status = 'running' AND lease_until <= ?2 \
             AND checkpoint_format <= ?3 AND queue IN wanted \
           UNION ALL \
           SELECT seq FROM runs WHERE status = 'waiting' AND wake_at <= ?2 \
             AND checkpoint_format <= ?3 AND queue IN wanted) \
         SELECT r.seq FROM found JOIN runs r ON r.seq = found.seq \
         ORDER BY r.priority DESC, r.seq LIMIT 1",
    )
    .bind(queues)
    .bind(now.as_millis())
    .bind(FORMAT)
    .fetch_optional(connection)
    .await
    .map_err(backend)
}

/// This run, if it can be claimed now.
async fn claimable(
    tx: &mut SqliteConnection,
    run: &RunId,
    now: Timestamp,
    may: May,
) -> Done<Option<i64>> {
    type Found = (i64, String, Option<i64>, Option<i64>, u16);
    let found: Option<Found> = sqlx::query_as(
        "SELECT seq, status, lease_until, wake_at, checkpoint_format FROM runs WHERE id = ?1",
    )
    .bind(run.as_str())
    .fetch_optional(tx)
    .await?;
    let Some((seq, status, lease_until, wake_at, format)) = found else {
        return Err(no_run(run).into());
    };
    let status = row::status(run.as_str(), &status)?;
    let (lease_until, wake_at) = (lease_until.map(Timestamp), wake_at.map(Timestamp));
    if !may(status, lease_until, wake_at, now) {
        return Ok(None);
    }
    rules::check_format(run, format)?;
    Ok(Some(seq))
}

pub(super) async fn take(
    tx: &mut SqliteConnection,
    run: i64,
    worker: &WorkerId,
    now: Timestamp,
    ttl: Duration,
) -> Done<Taken> {
    let epoch: i64 = sqlx::query_scalar(
        "UPDATE runs SET status = 'running', epoch = epoch + 1, lease_owner = ?2, \
         lease_until = ?3, reserved_by = NULL, wake_at = NULL, updated_at = ?4 \
         WHERE seq = ?1 RETURNING epoch",
    )
    .bind(run)
    .bind(worker.as_str())
    .bind((now + ttl).as_millis())
    .bind(now.as_millis())
    .fetch_one(tx)
    .await?;
    Ok((run, Epoch(uint(epoch))))
}

/// A run that a claim still holds, with what a writer of it needs to know.
pub(super) struct Held {
    pub(super) seq: i64,
    pub(super) checkpoint_seq: Option<u64>,
    pub(super) event_seq: i64,
    pub(super) has_parent: bool,
    /// Where the channels stand that were asked for.
    pub(super) heads: HashMap<String, Head>,
}

impl Held {
    /// The fence: refuses a writer whose claim is over. Every write of a worker begins here.
    pub(super) async fn check(tx: &mut SqliteConnection, run: &RunId, epoch: Epoch) -> Done<Self> {
        Self::check_with(tx, run, epoch, &[]).await
    }

    /// The fence, and the heads of these channels of the run in the same call.
    pub(super) async fn check_with(
        tx: &mut SqliteConnection,
        run: &RunId,
        epoch: Epoch,
        channels: &[&ChannelName],
    ) -> Done<Self> {
        // The joins are outer ones, so that SQLite keeps their order.
        let rows = sqlx::query(
            "SELECT r.seq, r.status, r.epoch, r.checkpoint_seq, r.event_seq, \
             r.parent IS NOT NULL AS has_parent, d.channel, d.base, d.merges, d.shape \
             FROM runs r LEFT JOIN json_each(?2) wanted LEFT JOIN channel_deltas d \
             ON d.run = r.seq AND d.channel = wanted.value AND d.seq = ( \
               SELECT max(l.seq) FROM channel_deltas l \
               WHERE l.run = r.seq AND l.channel = wanted.value) \
             WHERE r.id = ?1",
        )
        .bind(run.as_str())
        .bind(row::text(&channels)?)
        .fetch_all(tx)
        .await?;
        let Some(first) = rows.first() else { return Err(no_run(run).into()) };
        let status: RunStatus = row::status(run.as_str(), column(first, "status")?)?;
        rules::fence(run, status, Epoch(uint(column(first, "epoch")?)), epoch)?;
        let heads = rows.iter().filter_map(|row| Head::read(run, row).transpose());
        Ok(Self {
            seq: column(first, "seq")?,
            checkpoint_seq: column::<Option<i64>>(first, "checkpoint_seq")?.map(uint),
            event_seq: column(first, "event_seq")?,
            has_parent: column(first, "has_parent")?,
            heads: heads.collect::<Result<_>>()?,
        })
    }
}

pub(super) fn no_run(run: &RunId) -> Error {
    Error::NotFound { what: "run", id: run.to_string() }
}

//! Claims: which run is next, and whose it is.
//!
//! Looking for work costs no write: the pool is asked first, and only if it sees a run the writer
//! looks again under its lock. What a claim brings back is read after it is durable: from then on
//! only the new owner can change it, and if even newer owners do, their epoch shuts us out.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::params;
use swarm_core::checkpoint::FORMAT;
use swarm_core::id::{QueueName, RunId, WorkerId};
use swarm_core::port::store::{Claim, Error, Leases, Result};
use swarm_core::run::{Epoch, RunStatus};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::row::{self, select_runs, uint};
use super::tx::{Tx, scalar, tuple};
use super::{Done, SqliteStore, checkpoint, history};

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
        let sought = queues.clone();
        if self.read(move |tx| next(tx, &sought, now)).await?.is_none() {
            return Ok(None);
        }
        let worker = worker.clone();
        let taken = self
            .write(move |tx| {
                let found = next(tx, &queues, now)?;
                found.map(|run| take(tx, run, &worker, now, ttl)).transpose()
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
            let held = Held::check(tx, &run, epoch)?;
            tx.execute(
                "UPDATE runs SET lease_until = ?2 WHERE seq = ?1",
                params![held.seq, (now + ttl).as_millis()],
            )?;
            Ok(())
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
                let found = claimable(tx, &run, now, may)?;
                found.map(|run| take(tx, run, &worker, now, ttl)).transpose()
            })
            .await?;
        self.bring(taken).await
    }

    /// What a claim brings back.
    async fn bring(&self, taken: Option<Taken>) -> Result<Option<Claim>> {
        let Some((seq, epoch)) = taken else { return Ok(None) };
        self.read(move |tx| bring(tx, seq, epoch).map(Some)).await
    }
}

fn bring(tx: &Tx<'_>, seq: i64, epoch: Epoch) -> Done<Claim> {
    let stored = tx.one(select_runs!("WHERE r.seq = ?1"), [seq], |row| Ok(row::run(row)?))?;
    let mut run = stored.record;
    run.epoch = epoch;
    let checkpoint = match stored.checkpoint_seq {
        Some(last) => checkpoint::read(tx, &run.start.id, seq, last)?,
        None => None,
    };
    let next = stored.checkpoint_seq.map_or(0, |last| last + 1);
    let finished = history::steps(tx, &run.start.id, seq, next)?;
    Ok(Claim { run, checkpoint, finished })
}

/// The most urgent claimable run of these queues, a JSON list. Each kind of claimable run has an
/// index of its own, so the cost does not grow with the number of runs.
fn next(tx: &Tx<'_>, queues: &str, now: Timestamp) -> Done<Option<i64>> {
    tx.find(
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
        params![queues, now.as_millis(), FORMAT],
        scalar,
    )
}

/// This run, if it can be claimed now.
fn claimable(tx: &Tx<'_>, run: &RunId, now: Timestamp, may: May) -> Done<Option<i64>> {
    type Found = (i64, String, Option<i64>, Option<i64>, u16);
    let found: Option<Found> = tx.find(
        "SELECT seq, status, lease_until, wake_at, checkpoint_format FROM runs WHERE id = ?1",
        params![run.as_str()],
        tuple,
    )?;
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

pub(super) fn take(
    tx: &Tx<'_>,
    run: i64,
    worker: &WorkerId,
    now: Timestamp,
    ttl: Duration,
) -> Done<Taken> {
    let epoch: i64 = tx.one(
        "UPDATE runs SET status = 'running', epoch = epoch + 1, lease_owner = ?2, \
         lease_until = ?3, reserved_by = NULL, wake_at = NULL, updated_at = ?4 \
         WHERE seq = ?1 RETURNING epoch",
        params![run, worker.as_str(), (now + ttl).as_millis(), now.as_millis()],
        scalar,
    )?;
    Ok((run, Epoch(uint(epoch))))
}

/// A run that a claim still holds, with what a writer of it needs to know.
pub(super) struct Held {
    pub(super) seq: i64,
    pub(super) checkpoint_seq: Option<u64>,
    pub(super) checkpoint_format: u16,
    pub(super) event_seq: i64,
    pub(super) has_parent: bool,
}

impl Held {
    /// The fence: refuses a writer whose claim is over. Every write of a worker begins here.
    pub(super) fn check(tx: &Tx<'_>, run: &RunId, epoch: Epoch) -> Done<Self> {
        let held = tx.find(
            "SELECT seq, status, epoch, checkpoint_seq, checkpoint_format, event_seq, \
             parent IS NOT NULL FROM runs WHERE id = ?1",
            [run.as_str()],
            |row| {
                let status: RunStatus = row::status(run.as_str(), row::word(row, 1)?)?;
                rules::fence(run, status, Epoch(uint(row.get(2)?)), epoch)?;
                Ok(Self {
                    seq: row.get(0)?,
                    checkpoint_seq: row.get::<_, Option<i64>>(3)?.map(uint),
                    checkpoint_format: row.get(4)?,
                    event_seq: row.get(5)?,
                    has_parent: row.get(6)?,
                })
            },
        )?;
        held.ok_or_else(|| no_run(run).into())
    }
}

pub(super) fn no_run(run: &RunId) -> Error {
    Error::NotFound { what: "run", id: run.to_string() }
}

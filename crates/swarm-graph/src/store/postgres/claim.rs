//! Claims: which run is next, and whose it is.
//!
//! A claim and all that it brings back are one round trip. Whoever another claimer is about to take
//! is passed over, so claimers never wait for each other.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use swarm_core::checkpoint::FORMAT;
use swarm_core::id::{QueueName, RunId, WorkerId};
use swarm_core::port::store::{Claim, Leases, Result};
use swarm_core::run::Epoch;
use swarm_core::time::Timestamp;

use super::call::{Again, refusal};
use super::row::{self, column, int};
use super::{PostgresStore, args};

#[async_trait]
impl Leases for PostgresStore {
    async fn claim_next(
        &self,
        worker: &WorkerId,
        queues: &[QueueName],
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let queues: Vec<&str> = queues.iter().map(QueueName::as_str).collect();
        let until = (now + ttl).as_millis();
        let sql = "SELECT * FROM claim_next($1, $2, $3, $4, $5)";
        let rows = self
            .pool()
            .rows(Again::Same, sql, |_| {
                args!(worker.as_str(), &queues, now.as_millis(), until, i32::from(FORMAT))
            })
            .await?;
        self.claimed(&rows)
    }

    async fn claim(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.claim_one(run, worker, now, ttl, false).await
    }

    async fn claim_idle(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.claim_one(run, worker, now, ttl, true).await
    }

    async fn renew(&self, run: &RunId, epoch: Epoch, now: Timestamp, ttl: Duration) -> Result<()> {
        let until = (now + ttl).as_millis();
        let sql = "SELECT renew_lease($1, $2, $3)";
        let call = self.pool().ask(Again::Same, sql, |_| args!(run.as_str(), int(epoch.0), until));
        call.await.map_err(|fault| refusal(fault, run, epoch))?;
        Ok(())
    }
}

impl PostgresStore {
    async fn claim_one(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
        idle: bool,
    ) -> Result<Option<Claim>> {
        let until = (now + ttl).as_millis();
        let sql = "SELECT * FROM claim_one($1, $2, $3, $4, $5, $6)";
        let call = self.pool().ask(Again::Same, sql, |_| {
            args!(run.as_str(), worker.as_str(), now.as_millis(), until, i32::from(FORMAT), idle)
        });
        let rows = call.await.map_err(|fault| refusal(fault, run, Epoch(0)))?;
        self.claimed(&rows)
    }

    /// What a claim brought back.
    pub(super) fn claimed(&self, rows: &[PgRow]) -> Result<Option<Claim>> {
        let Some(found) = rows.first() else { return Ok(None) };
        let run = row::run(found)?;
        let id = &run.start.id;
        let checkpoint = match column::<Option<i64>>(found, "checkpoint_seq")? {
            Some(last) => row::checkpoint(id, last, found)?,
            None => None,
        };
        let finished = row::steps(id, found)?;
        self.remember(&run.start);
        Ok(Some(Claim { run, checkpoint, finished }))
    }
}

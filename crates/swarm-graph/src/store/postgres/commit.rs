//! Commits: how they begin and what is checked before they travel.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Arguments as _;
use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::store::{Claim, Commit, Commits, Committed, Result, Signal, SignalKind};
use swarm_core::run::{Epoch, Limit, NewRun};
use swarm_core::time::Timestamp;

use super::call::{Again, Args, refusal};
use super::row::{self, column, limits, uint};
use super::{PostgresStore, args, lanes, lists};
use crate::store::rules;

#[async_trait]
impl Commits for PostgresStore {
    async fn create_run(&self, run: NewRun, at: Timestamp) -> Result<bool> {
        let new = New::of(&run)?;
        let sql = "SELECT create_run($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)";
        let call = self.pool().ask(Again::Same, sql, |again| new.args(at, again));
        let rows = call.await.map_err(|fault| refusal(fault, &run.id, Epoch(0)))?;
        let is_new = row::scalar(&rows)?.unwrap_or(false);
        if is_new {
            self.0.bell.ring();
        }
        Ok(is_new)
    }

    async fn create_claimed(
        &self,
        run: NewRun,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let new = New::of(&run)?;
        let until = (now + ttl).as_millis();
        let sql = "SELECT * FROM create_claimed(\
                   $1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16)";
        let call = self.pool().ask(Again::Same, sql, |again| {
            let mut args = new.args(now, again)?;
            args.add(worker.as_str())?;
            args.add(until)?;
            Ok(args)
        });
        let rows = call.await.map_err(|fault| refusal(fault, &run.id, Epoch(0)))?;
        self.claimed(&rows)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        if let Err(refusal) = rules::check_commit(&commit) {
            self.fence(&commit.run, commit.epoch).await?;
            return Err(refusal);
        }
        let start =
            if lists::is_heard_above(&commit) { self.start_of(&commit.run).await? } else { None };
        let (run, lets_go) = (commit.run.clone(), commit.release.is_some());
        let committed = lanes::write(&self.0, commit, mark(), start).await?;
        if lets_go {
            self.0.starts.lock().expect("no panic while locked").remove(&run);
        }
        if !committed.woken.is_empty() {
            self.0.bell.ring();
        }
        Ok(committed)
    }

    async fn raise_limit(&self, run: &RunId, limit: Limit, at: Timestamp) -> Result<Limit> {
        let (usd, tokens) = limits(limit);
        let sql = "UPDATE runs SET \
             limit_usd = CASE WHEN limit_usd IS NOT NULL AND $2::bigint IS NOT NULL \
                THEN greatest(limit_usd, $2) END, \
             limit_tokens = CASE WHEN limit_tokens IS NOT NULL AND $3::bigint IS NOT NULL \
                THEN greatest(limit_tokens, $3) END, \
             updated_at = $4 WHERE id = $1 RETURNING limit_usd, limit_tokens";
        let call = self
            .pool()
            .rows(Again::Same, sql, |_| args!(run.as_str(), usd, tokens, at.as_millis()));
        let rows = call.await?;
        let raised = rows.first().ok_or_else(|| row::no_run(run))?;
        Ok(row::limit(column(raised, "limit_usd")?, column(raised, "limit_tokens")?))
    }

    async fn signals(&self, run: &RunId) -> Result<Vec<Signal>> {
        let sql = "SELECT s.id, s.at, s.kind FROM runs r JOIN signals s ON s.run = r.seq \
                   WHERE r.id = $1 AND s.taken_at IS NULL ORDER BY s.id";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(run.as_str())).await?;
        let signal = |row| {
            let kind = row::json("signal", run.as_str(), column(row, "kind")?)?;
            let at = Timestamp(column(row, "at")?);
            Ok(Signal { id: uint(column(row, "id")?), run: run.clone(), kind, at })
        };
        rows.iter().map(signal).collect()
    }

    async fn signal(
        &self,
        run: &RunId,
        key: Option<&str>,
        kind: SignalKind,
        at: Timestamp,
    ) -> Result<bool> {
        let kind = row::text(&kind)?;
        let again = if key.is_some() { Again::Same } else { Again::Never };
        let sql = "SELECT send_signal($1, $2, $3, $4)";
        let call = self
            .pool()
            .ask(again, sql, |_| args!(run.as_str(), key, kind.as_str(), at.as_millis()));
        let rows = call.await.map_err(|fault| refusal(fault, run, Epoch(0)))?;
        let sent: i32 = row::scalar(&rows)?.unwrap_or(0);
        if sent == 2 {
            self.0.bell.ring();
        }
        Ok(sent > 0)
    }
}

/// A run to be started, ready to be sent.
struct New<'r> {
    run: &'r NewRun,
    labels: Vec<String>,
    input: String,
}

impl<'r> New<'r> {
    fn of(run: &'r NewRun) -> Result<Self> {
        Ok(Self { run, labels: row::labels(&run.labels)?, input: row::text(&run.input)? })
    }

    fn args(&self, at: Timestamp, again: bool) -> Args {
        let run = self.run;
        let (limit_usd, limit_tokens) = limits(run.limit);
        let parent = run.parent.as_ref();
        args!(
            run.id.as_str(),
            run.graph.as_str(),
            &*run.graph_hash.0,
            run.queue.as_str(),
            run.priority,
            &self.labels,
            parent.map(|parent| parent.run.as_str()),
            parent.map(|parent| parent.step.as_str()),
            parent.map(|parent| parent.awaited),
            limit_usd,
            limit_tokens,
            self.input.as_str(),
            at.as_millis(),
            again,
        )
    }
}

/// The mark of a commit: unlike any other of any process.
fn mark() -> i64 {
    static NEXT: LazyLock<AtomicI64> =
        LazyLock::new(|| AtomicI64::new(RandomState::new().build_hasher().finish().cast_signed()));
    loop {
        let mark = NEXT.fetch_add(1, Ordering::Relaxed);
        if mark != 0 {
            return mark;
        }
    }
}

impl PostgresStore {
    /// Refuses a writer whose claim is over.
    async fn fence(&self, run: &RunId, ours: Epoch) -> Result<()> {
        let sql = "SELECT status, epoch FROM runs WHERE id = $1";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(run.as_str())).await?;
        let found = rows.first().ok_or_else(|| row::no_run(run))?;
        let status = row::status(run.as_str(), column(found, "status")?)?;
        rules::fence(run, status, Epoch(uint(column(found, "epoch")?)), ours)
    }

    /// What a run was started with; `None` if there is no such run.
    pub(super) async fn start_of(&self, run: &RunId) -> Result<Option<Arc<NewRun>>> {
        let known = self.0.starts.lock().expect("no panic while locked").get(run).cloned();
        if known.is_some() {
            return Ok(known);
        }
        Ok(self.find_run(run).await?.map(|found| Arc::new(found.start)))
    }
}

//! Deleting runs and pruning histories.
//!
//! A prune looks first for what is to go, and decides again under a lock, a few runs at a time,
//! so that no claim waits long behind it.

use sqlx::Row as _;
use swarm_core::id::RunId;
use swarm_core::port::store::{DeleteError, GRAPH_GRACE, Keep, Pruned, Result, Retention};
use swarm_core::time::Timestamp;

use super::call::Again;
use super::row::{self, int, uint};
use super::{Done, PostgresStore, Tx, args};
use crate::store::rules;

/// How many runs are pruned in one transaction.
const BATCH: usize = 32;

/// Deletes a run and all below it. A refusal is a value here: it has written nothing.
pub(super) async fn delete(
    tx: &mut Tx,
    run: &RunId,
) -> Done<std::result::Result<u64, DeleteError>> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM runs WHERE id = $1")
        .bind(run.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(seq) = seq else { return Ok(Ok(0)) };
    lock_tree(tx, seq).await?;
    let live: Option<(String, String)> = sqlx::query_as(
        "SELECT r.id, r.status FROM tree($1) t JOIN runs r ON r.seq = t.seq \
         WHERE r.ended_at IS NULL ORDER BY r.seq LIMIT 1",
    )
    .bind(seq)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some((id, status)) = live {
        let status = row::status(&id, &status)?;
        return Ok(Err(DeleteError::Live { run: row::id("run id", &id)?, status }));
    }
    let above: Option<String> = sqlx::query_scalar(
        "SELECT r.id FROM lineage($1) l JOIN runs r ON r.seq = l.seq \
         WHERE l.depth > 0 AND r.ended_at IS NULL ORDER BY l.depth LIMIT 1",
    )
    .bind(seq)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(by) = above {
        let (run, by) = (run.clone(), row::id("run id", &by)?);
        return Ok(Err(DeleteError::Needed { run, by }));
    }
    Ok(Ok(remove(tx, seq).await?))
}

async fn lock_tree(tx: &mut Tx, root: i64) -> Done<()> {
    sqlx::query(
        "SELECT r.seq FROM runs r WHERE r.seq IN (SELECT t.seq FROM tree($1) t) \
         ORDER BY r.seq FOR UPDATE",
    )
    .bind(root)
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes a tree whose runs have all ended and are locked; returns how many they were.
async fn remove(tx: &mut Tx, root: i64) -> Done<u64> {
    let tree: Vec<i64> =
        sqlx::query_scalar("SELECT seq FROM tree($1)").bind(root).fetch_all(&mut *tx).await?;
    for statement in [
        "DELETE FROM run_data WHERE run = ANY ($1)",
        "DELETE FROM checkpoints WHERE run = ANY ($1)",
        "DELETE FROM channel_deltas WHERE run = ANY ($1)",
        "DELETE FROM steps WHERE run = ANY ($1)",
        "DELETE FROM effects WHERE run = ANY ($1)",
        "DELETE FROM blocks WHERE run = ANY ($1)",
        "DELETE FROM signals WHERE run = ANY ($1)",
        "DELETE FROM events WHERE run = ANY ($1)",
        "DELETE FROM runs WHERE seq = ANY ($1)",
    ] {
        sqlx::query(statement).bind(&tree).execute(&mut *tx).await?;
    }
    Ok(tree.len() as u64)
}

/// What a prune asks for.
#[derive(Clone, Copy)]
struct Asked {
    retention: Retention,
    now: Timestamp,
}

impl Asked {
    fn oldest(&self) -> Option<i64> {
        rules::cut_off(self.now, self.retention.remove_after).map(Timestamp::as_millis)
    }
}

impl PostgresStore {
    pub(super) async fn prune_all(
        &self,
        retention: Retention,
        only: Option<&[RunId]>,
        now: Timestamp,
    ) -> Result<Pruned> {
        let asked = Asked { retention, now };
        let only: Option<Vec<&str>> = only.map(|only| only.iter().map(RunId::as_str).collect());
        let mut pruned = Pruned::default();
        let trees = self.trees(asked, only.as_deref()).await?;
        for batch in trees.chunks(BATCH) {
            let removed = self.pool().transact(|tx| {
                let batch = batch.to_vec();
                Box::pin(async move { remove_over(tx, &batch, asked).await })
            });
            pruned.runs += removed.await?;
        }
        let runs = self.with_spare(asked, only.as_deref()).await?;
        for batch in runs.chunks(BATCH) {
            let cut = self.pool().transact(|tx| {
                let batch = batch.to_vec();
                Box::pin(async move {
                    let mut checkpoints = 0;
                    for run in batch {
                        checkpoints += cut(tx, run, asked).await?;
                    }
                    Ok(checkpoints)
                })
            });
            pruned.checkpoints += cut.await?;
        }
        if only.is_none() {
            let graphs =
                self.pool().transact(|tx| Box::pin(async move { prune_graphs(tx, now).await }));
            pruned.graphs = graphs.await?;
        }
        Ok(pruned)
    }

    /// Roots that may be old enough to go.
    async fn trees(&self, asked: Asked, only: Option<&[&str]>) -> Result<Vec<i64>> {
        let Some(oldest) = asked.oldest() else { return Ok(Vec::new()) };
        let sql = "SELECT seq FROM runs WHERE parent IS NULL AND ended_at IS NOT NULL \
                   AND ended_at <= $1 AND ($2::text[] IS NULL OR id = ANY ($2)) ORDER BY seq";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(oldest, only)).await?;
        numbers(&rows)
    }

    /// Runs with more than one checkpoint, where their retention says anything at all.
    async fn with_spare(&self, asked: Asked, only: Option<&[&str]>) -> Result<Vec<i64>> {
        let Retention { live, ended, .. } = asked.retention;
        if live == Keep::ALL && ended == Keep::ALL {
            return Ok(Vec::new());
        }
        let sql = "SELECT r.seq FROM runs r WHERE ($1::text[] IS NULL OR r.id = ANY ($1)) \
                   AND CASE WHEN r.ended_at IS NULL THEN $2 ELSE $3 END \
                   AND (SELECT min(c.seq) FROM checkpoints c WHERE c.run = r.seq) \
                       < r.checkpoint_seq \
                   ORDER BY r.seq";
        let rows = self
            .pool()
            .rows(Again::Read, sql, |_| args!(only, live != Keep::ALL, ended != Keep::ALL))
            .await?;
        numbers(&rows)
    }
}

fn numbers(rows: &[sqlx::postgres::PgRow]) -> Result<Vec<i64>> {
    rows.iter().map(|found| row::column(found, "seq")).collect()
}

/// Removes those of these trees that are old enough as a whole.
async fn remove_over(tx: &mut Tx, roots: &[i64], asked: Asked) -> Done<u64> {
    let mut removed = 0;
    for &root in roots {
        lock_tree(tx, root).await?;
        let is_over: Option<bool> = sqlx::query_scalar(
            "SELECT bool_and(coalesce(r.ended_at <= $2, false)) \
             FROM tree($1) t JOIN runs r ON r.seq = t.seq",
        )
        .bind(root)
        .bind(asked.oldest())
        .fetch_one(&mut *tx)
        .await?;
        if is_over == Some(true) {
            removed += remove(tx, root).await?;
        }
    }
    Ok(removed)
}

/// Removes the checkpoints of a run that are not kept; returns how many.
async fn cut(tx: &mut Tx, run: i64, asked: Asked) -> Done<u64> {
    let found: Option<(Option<i64>, bool)> = sqlx::query_as(
        "SELECT checkpoint_seq, ended_at IS NOT NULL FROM runs WHERE seq = $1 FOR NO KEY UPDATE",
    )
    .bind(run)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((Some(last), is_over)) = found else { return Ok(0) };
    let keep = if is_over { asked.retention.ended } else { asked.retention.live };
    let rows = sqlx::query("SELECT seq, at FROM checkpoints WHERE run = $1 ORDER BY seq")
        .bind(run)
        .fetch_all(&mut *tx)
        .await?;
    let mut numbered = Vec::with_capacity(rows.len());
    for found in rows {
        numbered.push((uint(found.try_get(0)?), Timestamp(found.try_get(1)?)));
    }
    let first = int(rules::first_kept(keep, asked.now, numbered, uint(last)));
    let removed = sqlx::query("DELETE FROM checkpoints WHERE run = $1 AND seq < $2")
        .bind(run)
        .bind(first)
        .execute(&mut *tx)
        .await?
        .rows_affected();
    if removed == 0 {
        return Ok(0);
    }
    for statement in [
        // Of each channel, all from the full value on that the first one left needs.
        "DELETE FROM channel_deltas d USING ( \
           SELECT DISTINCT ON (h.channel) h.channel, h.base FROM channel_deltas h \
           WHERE h.run = $1 AND h.seq <= $2 ORDER BY h.channel, h.seq DESC) needed \
         WHERE d.run = $1 AND d.channel = needed.channel AND d.seq < needed.base",
        "DELETE FROM effects WHERE run = $1 AND step IN ( \
           SELECT step FROM steps WHERE run = $1 AND covered_by <= $2)",
    ] {
        sqlx::query(statement).bind(run).bind(first).execute(&mut *tx).await?;
    }
    sqlx::query("DELETE FROM signals WHERE run = $1 AND taken_at IS NOT NULL AND key IS NULL")
        .bind(run)
        .execute(tx)
        .await?;
    Ok(removed)
}

async fn prune_graphs(tx: &mut Tx, now: Timestamp) -> Done<u64> {
    let grace = i64::try_from(GRAPH_GRACE.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE graphs g SET unneeded_since = n.since FROM ( \
           SELECT x.hash, CASE WHEN NOT EXISTS (SELECT 1 FROM runs r WHERE r.graph_hash = x.hash) \
             THEN coalesce(x.unneeded_since, $1) END AS since FROM graphs x) n \
         WHERE g.hash = n.hash AND g.unneeded_since IS DISTINCT FROM n.since",
    )
    .bind(now.as_millis())
    .execute(&mut *tx)
    .await?;
    Ok(sqlx::query("DELETE FROM graphs WHERE unneeded_since + $2 <= $1")
        .bind(now.as_millis())
        .bind(grace)
        .execute(tx)
        .await?
        .rows_affected())
}

//! Deleting runs and pruning histories.
//!
//! A prune looks for what is to go by the readers, and lets the writer decide again, a few runs
//! at a time, so that no claim waits long behind it.

use rusqlite::params;
use swarm_core::id::RunId;
use swarm_core::port::store::{DeleteError, GRAPH_GRACE, Keep, Pruned, Result, Retention};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::row::{self, int};
use super::tx::{Tx, scalar, tuple};
use super::{Done, SqliteStore};

/// How many runs are pruned in one transaction.
const BATCH: usize = 32;

/// The runs of the tree below run ?1, itself included, as the head of a statement.
macro_rules! with_tree {
    ($rest:literal) => {
        concat!(
            "WITH RECURSIVE tree (seq) AS (SELECT ?1 UNION ALL \
             SELECT r.seq FROM tree JOIN runs r ON r.parent = tree.seq) ",
            $rest
        )
    };
}

/// Deletes a run and all below it. A refusal is a value here: it has written nothing.
pub(super) fn delete(tx: &Tx<'_>, run: &RunId) -> Done<std::result::Result<u64, DeleteError>> {
    let seq: Option<i64> =
        tx.find("SELECT seq FROM runs WHERE id = ?1", params![run.as_str()], scalar)?;
    let Some(seq) = seq else { return Ok(Ok(0)) };
    let live: Option<(String, String)> = tx.find(
        with_tree!(
            "SELECT r.id, r.status FROM tree JOIN runs r ON r.seq = tree.seq \
         WHERE r.ended_at IS NULL ORDER BY r.seq LIMIT 1"
        ),
        params![seq],
        tuple,
    )?;
    if let Some((id, status)) = live {
        let status = row::status(&id, &status)?;
        return Ok(Err(DeleteError::Live { run: row::id("run id", &id)?, status }));
    }
    // A parent is always older than its child, so the nearest has the highest number.
    let above: Option<String> = tx.find(
        "WITH RECURSIVE up (seq) AS (SELECT parent FROM runs WHERE seq = ?1 UNION ALL \
         SELECT r.parent FROM up JOIN runs r ON r.seq = up.seq WHERE r.parent IS NOT NULL) \
         SELECT r.id FROM up JOIN runs r ON r.seq = up.seq WHERE r.ended_at IS NULL \
         ORDER BY r.seq DESC LIMIT 1",
        params![seq],
        scalar,
    )?;
    if let Some(by) = above {
        let (run, by) = (run.clone(), row::id("run id", &by)?);
        return Ok(Err(DeleteError::Needed { run, by }));
    }
    Ok(Ok(remove(tx, seq)?))
}

/// Removes a tree whose runs have all ended; returns how many they were.
fn remove(tx: &Tx<'_>, root: i64) -> Done<u64> {
    let tree: Vec<i64> =
        tx.all(with_tree!("SELECT seq FROM tree ORDER BY seq DESC"), params![root], scalar)?;
    let all = row::text(&tree)?;
    for statement in [
        "DELETE FROM run_data WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM checkpoints WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM channel_deltas WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM steps WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM effects WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM blocks WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM signals WHERE run IN (SELECT value FROM json_each(?1))",
        "DELETE FROM events WHERE run IN (SELECT value FROM json_each(?1))",
    ] {
        tx.execute(statement, params![&all])?;
    }
    // Those below first, for they refer to those above.
    for run in &tree {
        tx.execute("DELETE FROM runs WHERE seq = ?1", params![run])?;
    }
    Ok(tree.len() as u64)
}

/// What a prune asks for, ready to be bound.
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

impl SqliteStore {
    pub(super) async fn prune_all(
        &self,
        retention: Retention,
        only: Option<&[RunId]>,
        now: Timestamp,
    ) -> Result<Pruned> {
        let asked = Asked { retention, now };
        let only = only.map(|only| row::text(&only)).transpose()?;
        let mut pruned = Pruned::default();
        let trees = self.trees(asked, only.clone()).await?;
        for batch in trees.chunks(BATCH) {
            let batch = batch.to_vec();
            let removed = self.write(move |tx| remove_over(tx, &batch, asked));
            pruned.runs += removed.await?;
        }
        let runs = self.with_spare(asked, only.clone()).await?;
        for batch in runs.chunks(BATCH) {
            let batch = batch.to_vec();
            let cut = self.write(move |tx| {
                let mut checkpoints = 0;
                for run in batch {
                    checkpoints += cut(tx, run, asked)?;
                }
                Ok(checkpoints)
            });
            pruned.checkpoints += cut.await?;
        }
        if only.is_none() {
            pruned.graphs = self.write(move |tx| prune_graphs(tx, now)).await?;
        }
        Ok(pruned)
    }

    /// Roots that may be old enough to go.
    async fn trees(&self, asked: Asked, only: Option<String>) -> Result<Vec<i64>> {
        let Some(oldest) = asked.oldest() else { return Ok(Vec::new()) };
        self.read(move |tx| {
            tx.all(
                "SELECT seq FROM runs WHERE parent IS NULL AND ended_at IS NOT NULL \
             AND ended_at <= ?1 \
             AND (?2 IS NULL OR id IN (SELECT value FROM json_each(?2))) ORDER BY seq",
                params![oldest, only],
                scalar,
            )
        })
        .await
    }

    /// Runs with more than one checkpoint, where their retention says anything at all.
    async fn with_spare(&self, asked: Asked, only: Option<String>) -> Result<Vec<i64>> {
        let Retention { live, ended, .. } = asked.retention;
        if live == Keep::ALL && ended == Keep::ALL {
            return Ok(Vec::new());
        }
        self.read(move |tx| {
            tx.all(
                "SELECT r.seq FROM runs r \
             WHERE (?1 IS NULL OR r.id IN (SELECT value FROM json_each(?1))) \
             AND iif(r.ended_at IS NULL, ?2, ?3) \
             AND (SELECT min(c.seq) FROM checkpoints c WHERE c.run = r.seq) < r.checkpoint_seq \
             ORDER BY r.seq",
                params![only, live != Keep::ALL, ended != Keep::ALL],
                scalar,
            )
        })
        .await
    }
}

/// Removes those of these trees that are old enough as a whole.
fn remove_over(tx: &Tx<'_>, roots: &[i64], asked: Asked) -> Done<u64> {
    let mut removed = 0;
    for &root in roots {
        let is_over: bool = tx.one(
            with_tree!(
                "SELECT count(*) > 0 AND count(*) = sum(coalesce(r.ended_at <= ?2, 0)) \
             FROM tree JOIN runs r ON r.seq = tree.seq"
            ),
            params![root, asked.oldest()],
            scalar,
        )?;
        if is_over {
            removed += remove(tx, root)?;
        }
    }
    Ok(removed)
}

/// Removes the checkpoints of a run that are not kept; returns how many.
fn cut(tx: &Tx<'_>, run: i64, asked: Asked) -> Done<u64> {
    let found: Option<(Option<i64>, bool)> = tx.find(
        "SELECT checkpoint_seq, ended_at IS NOT NULL FROM runs WHERE seq = ?1",
        params![run],
        tuple,
    )?;
    let Some((Some(last), is_over)) = found else { return Ok(0) };
    let keep = if is_over { asked.retention.ended } else { asked.retention.live };
    let rows: Vec<(i64, i64)> =
        tx.all("SELECT seq, at FROM checkpoints WHERE run = ?1 ORDER BY seq", params![run], tuple)?;
    let numbered = rows.iter().map(|&(seq, at)| (row::uint(seq), Timestamp(at)));
    let first = int(rules::first_kept(keep, asked.now, numbered, row::uint(last)));
    let removed =
        tx.execute("DELETE FROM checkpoints WHERE run = ?1 AND seq < ?2", params![run, first])?;
    if removed == 0 {
        return Ok(0);
    }
    for statement in [
        // Of each channel, all from the full value on that the first one left needs.
        "WITH RECURSIVE channels (channel) AS ( \
           SELECT min(channel) FROM channel_deltas WHERE run = ?1 \
           UNION ALL \
           SELECT (SELECT min(d.channel) FROM channel_deltas d \
                   WHERE d.run = ?1 AND d.channel > channels.channel) \
           FROM channels WHERE channels.channel IS NOT NULL), \
         needed (channel, base) AS MATERIALIZED ( \
           SELECT channel, (SELECT h.base FROM channel_deltas h \
             WHERE h.run = ?1 AND h.channel = channels.channel AND h.seq <= ?2 \
             ORDER BY h.seq DESC LIMIT 1) FROM channels) \
         DELETE FROM channel_deltas WHERE run = ?1 AND EXISTS ( \
           SELECT 1 FROM needed n \
           WHERE n.channel = channel_deltas.channel AND channel_deltas.seq < n.base)",
        "DELETE FROM effects WHERE run = ?1 AND step IN ( \
           SELECT step FROM steps WHERE run = ?1 AND covered_by <= ?2)",
    ] {
        tx.execute(statement, params![run, first])?;
    }
    tx.execute(
        "DELETE FROM signals WHERE run = ?1 AND taken_at IS NOT NULL AND key IS NULL",
        params![run],
    )?;
    Ok(removed as u64)
}

fn prune_graphs(tx: &Tx<'_>, now: Timestamp) -> Done<u64> {
    let grace = i64::try_from(GRAPH_GRACE.as_millis()).unwrap_or(i64::MAX);
    tx.execute("UPDATE graphs SET unneeded_since = iif( \
           EXISTS (SELECT 1 FROM runs WHERE graph_hash = hash), NULL, coalesce(unneeded_since, ?1))", params![now.as_millis()])?;
    let sql = "DELETE FROM graphs WHERE unneeded_since + ?2 <= ?1";
    Ok(tx.execute(sql, (now.as_millis(), grace))? as u64)
}

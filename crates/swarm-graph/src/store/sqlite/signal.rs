//! Signals: sending them, waking who waits, and who is above whom.

use sqlx::sqlite::SqliteConnection;
use swarm_core::id::RunId;
use swarm_core::port::store::{Signal, SignalKind};
use swarm_core::time::Timestamp;

use super::claim::no_run;
use super::row::{self, backend, uint};
use super::{Done, SqliteStore};

/// Runs that became claimable, each once.
#[derive(Default)]
pub(super) struct Woken(pub(super) Vec<RunId>);

impl Woken {
    pub(super) fn add(&mut self, run: RunId) {
        if !self.0.contains(&run) {
            self.0.push(run);
        }
    }
}

/// Puts a signal into the mailboxes of these runs, in their order, except of those that ended,
/// and wakes those that wait.
pub(super) async fn send(
    tx: &mut SqliteConnection,
    to: &[i64],
    kind: &SignalKind,
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    if to.is_empty() {
        return Ok(());
    }
    let to = row::text(&to)?;
    sqlx::query(
        "INSERT INTO signals (run, at, kind) \
         SELECT r.seq, ?2, ?3 FROM json_each(?1) wanted JOIN runs r ON r.seq = wanted.value \
         WHERE r.status IN ('ready', 'running', 'waiting') ORDER BY wanted.key",
    )
    .bind(&to)
    .bind(at.as_millis())
    .bind(row::text(kind)?)
    .execute(&mut *tx)
    .await?;
    wake(tx, &to, at, woken).await
}

/// Makes those of these runs, a JSON list, ready that wait.
async fn wake(tx: &mut SqliteConnection, runs: &str, at: Timestamp, woken: &mut Woken) -> Done<()> {
    let ids: Vec<String> = sqlx::query_scalar(
        "UPDATE runs SET status = 'ready', wake_at = NULL, updated_at = ?2 \
         WHERE seq IN (SELECT value FROM json_each(?1)) AND status = 'waiting' RETURNING id",
    )
    .bind(runs)
    .bind(at.as_millis())
    .fetch_all(tx)
    .await?;
    for id in ids {
        woken.add(row::id("run id", &id)?);
    }
    Ok(())
}

/// The runs above this one, nearest first.
pub(super) async fn ancestors(tx: &mut SqliteConnection, run: i64) -> Done<Vec<i64>> {
    Ok(sqlx::query_scalar(
        "WITH RECURSIVE up (seq, depth) AS ( \
           SELECT parent, 1 FROM runs WHERE seq = ?1 AND parent IS NOT NULL \
           UNION ALL \
           SELECT r.parent, up.depth + 1 FROM up JOIN runs r ON r.seq = up.seq \
           WHERE r.parent IS NOT NULL) \
         SELECT seq FROM up ORDER BY depth",
    )
    .bind(run)
    .fetch_all(tx)
    .await?)
}

/// The runs that this one started, oldest first.
pub(super) async fn children(tx: &mut SqliteConnection, run: i64) -> Done<Vec<i64>> {
    Ok(sqlx::query_scalar("SELECT seq FROM runs WHERE parent = ?1 ORDER BY seq")
        .bind(run)
        .fetch_all(tx)
        .await?)
}

/// The number of a run.
pub(super) async fn find(tx: &mut SqliteConnection, run: &RunId) -> Done<i64> {
    sqlx::query_scalar("SELECT seq FROM runs WHERE id = ?1")
        .bind(run.as_str())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| no_run(run).into())
}

/// Sends a signal from outside; `false` if it was sent before or the run has ended.
pub(super) async fn send_from_outside(
    tx: &mut SqliteConnection,
    run: &RunId,
    key: Option<&str>,
    kind: &SignalKind,
    at: Timestamp,
) -> Done<bool> {
    let seq = find(tx, run).await?;
    // Not by `ON CONFLICT`: a signal that is not sent shall use up no number.
    let sent = sqlx::query(
        "INSERT INTO signals (run, key, at, kind) \
         SELECT seq, ?2, ?3, ?4 FROM runs \
         WHERE seq = ?1 AND status IN ('ready', 'running', 'waiting') \
         AND NOT EXISTS (SELECT 1 FROM signals WHERE run = ?1 AND key = ?2)",
    )
    .bind(seq)
    .bind(key)
    .bind(at.as_millis())
    .bind(row::text(kind)?)
    .execute(&mut *tx)
    .await?;
    if sent.rows_affected() == 0 {
        return Ok(false);
    }
    wake(tx, &row::text(&[seq])?, at, &mut Woken::default()).await?;
    Ok(true)
}

impl SqliteStore {
    /// Signals not yet taken, oldest first.
    pub(super) async fn untaken(
        &self,
        run: &RunId,
    ) -> swarm_core::port::store::Result<Vec<Signal>> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT s.id, s.at, s.kind FROM runs r JOIN signals s ON s.run = r.seq \
             WHERE r.id = ?1 AND s.taken_at IS NULL ORDER BY s.id",
        )
        .bind(run.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(backend)?;
        rows.into_iter()
            .map(|(id, at, kind)| {
                let kind = row::json("signal", run.as_str(), &kind)?;
                Ok(Signal { id: uint(id), run: run.clone(), kind, at: Timestamp(at) })
            })
            .collect()
    }
}

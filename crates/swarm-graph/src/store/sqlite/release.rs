//! Letting go of a run: handed back, parked, or ended, and what the end means to others.

use sqlx::sqlite::SqliteConnection;
use swarm_core::id::RunId;
use swarm_core::port::store::{Release, SignalKind};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::super::rules;
use super::claim::Held;
use super::row::{self, int};
use super::signal::{self, Woken};
use super::{Done, commit, journal, question};

/// Keeps the worker's slot for the run as long as a question of it is open.
pub(super) async fn reserve(tx: &mut SqliteConnection, run: i64) -> Done<()> {
    sqlx::query(
        "UPDATE runs SET reserved_by = iif(EXISTS \
           (SELECT 1 FROM blocks WHERE run = ?1 AND status = 'open'), lease_owner, NULL) \
         WHERE seq = ?1",
    )
    .bind(run)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn let_go(
    tx: &mut SqliteConnection,
    run: &RunId,
    held: &Held,
    release: Release,
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    match release {
        Release::Ready => {
            sqlx::query(
                "UPDATE runs SET status = 'ready', lease_owner = NULL, lease_until = NULL \
                 WHERE seq = ?1",
            )
            .bind(held.seq)
            .execute(tx)
            .await?;
            woken.add(run.clone());
            Ok(())
        }
        Release::Waiting { wake_at, seen } => {
            let ready = park(tx, held.seq, wake_at, seen).await?;
            if ready {
                woken.add(run.clone());
            }
            Ok(())
        }
        Release::Ended { status, output, failure } => {
            end(tx, held.seq, status, at).await?;
            sqlx::query("UPDATE run_data SET output = ?2, failure = ?3 WHERE run = ?1")
                .bind(held.seq)
                .bind(output.map(|output| row::text(&output)).transpose()?)
                .bind(failure.map(|failure| row::text(&failure)).transpose()?)
                .execute(&mut *tx)
                .await?;
            tell_ended(tx, held, at, woken).await
        }
    }
}

/// Parks a run, or makes it ready if a signal that was not seen is there; says which.
async fn park(
    tx: &mut SqliteConnection,
    run: i64,
    wake_at: Option<Timestamp>,
    seen: u64,
) -> Done<bool> {
    Ok(sqlx::query_scalar(
        "WITH unseen (there) AS (SELECT EXISTS \
           (SELECT 1 FROM signals WHERE run = ?1 AND taken_at IS NULL AND id > ?3)) \
         UPDATE runs SET lease_owner = NULL, lease_until = NULL, \
         status = iif(unseen.there, 'ready', 'waiting'), wake_at = iif(unseen.there, NULL, ?2) \
         FROM unseen WHERE seq = ?1 RETURNING status = 'ready'",
    )
    .bind(run)
    .bind(wake_at.map(Timestamp::as_millis))
    .bind(int(seen))
    .fetch_one(tx)
    .await?)
}

async fn end(tx: &mut SqliteConnection, run: i64, status: RunStatus, at: Timestamp) -> Done<()> {
    sqlx::query(
        "UPDATE runs SET status = ?2, lease_owner = NULL, lease_until = NULL, \
         reserved_by = NULL, ended_at = ?3 WHERE seq = ?1",
    )
    .bind(run)
    .bind(status.as_str())
    .bind(at.as_millis())
    .execute(&mut *tx)
    .await?;
    question::withdraw_all(tx, run).await?;
    let left = journal::unfinished(tx, run).await?;
    journal::book(tx, run, left, Spend::default()).await
}

/// Tells those above a run that it has ended.
async fn tell_ended(
    tx: &mut SqliteConnection,
    held: &Held,
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    if !held.has_parent {
        return Ok(());
    }
    let RunRecord { start, status, output, failure, .. } = commit::record(tx, held.seq).await?;
    let ancestors = signal::ancestors(tx, held.seq).await?;
    if start.parent.as_ref().is_some_and(|parent| parent.awaited) {
        let (run, output, failure) = (start.id.clone(), output.clone(), failure.clone());
        let ended = SignalKind::ChildEnded { run, status, output, failure };
        signal::send(tx, &ancestors[..1], &ended, at, woken).await?;
    }
    let finished = rules::finished(&start, status, output.as_ref(), failure.as_ref());
    signal::send(tx, &ancestors, &finished, at, woken).await
}

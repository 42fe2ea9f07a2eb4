//! Letting go of a run: handed back, parked, or ended, and what the end means to others.

use rusqlite::params;
use swarm_core::id::RunId;
use swarm_core::port::store::{Release, SignalKind};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::super::rules;
use super::claim::Held;
use super::row::{self, int};
use super::signal::{self, Woken};
use super::tx::{Tx, scalar};
use super::{Done, commit, journal, question};

/// Keeps the worker's slot for the run as long as a question of it is open.
pub(super) fn reserve(tx: &Tx<'_>, run: i64) -> Done<()> {
    tx.execute(
        "UPDATE runs SET reserved_by = iif(EXISTS \
           (SELECT 1 FROM blocks WHERE run = ?1 AND status = 'open'), lease_owner, NULL) \
         WHERE seq = ?1",
        params![run],
    )?;
    Ok(())
}

pub(super) fn let_go(
    tx: &Tx<'_>,
    run: &RunId,
    held: &Held,
    release: Release,
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    match release {
        Release::Ready => {
            tx.execute(
                "UPDATE runs SET status = 'ready', lease_owner = NULL, lease_until = NULL \
                 WHERE seq = ?1",
                params![held.seq],
            )?;
            woken.add(run.clone());
            Ok(())
        }
        Release::Waiting { wake_at, seen } => {
            let ready = park(tx, held.seq, wake_at, seen)?;
            if ready {
                woken.add(run.clone());
            }
            Ok(())
        }
        Release::Ended { status, output, failure } => {
            end(tx, held.seq, status, at)?;
            tx.execute(
                "UPDATE run_data SET output = ?2, failure = ?3 WHERE run = ?1",
                params![
                    held.seq,
                    output.map(|output| row::text(&output)).transpose()?,
                    failure.map(|failure| row::text(&failure)).transpose()?
                ],
            )?;
            tell_ended(tx, held, at, woken)
        }
    }
}

/// Parks a run, or makes it ready if a signal that was not seen is there; says which.
fn park(tx: &Tx<'_>, run: i64, wake_at: Option<Timestamp>, seen: u64) -> Done<bool> {
    tx.one(
        "WITH unseen (there) AS (SELECT EXISTS \
           (SELECT 1 FROM signals WHERE run = ?1 AND taken_at IS NULL AND id > ?3)) \
         UPDATE runs SET lease_owner = NULL, lease_until = NULL, \
         status = iif(unseen.there, 'ready', 'waiting'), wake_at = iif(unseen.there, NULL, ?2) \
         FROM unseen WHERE seq = ?1 RETURNING status = 'ready'",
        params![run, wake_at.map(Timestamp::as_millis), int(seen)],
        scalar,
    )
}

fn end(tx: &Tx<'_>, run: i64, status: RunStatus, at: Timestamp) -> Done<()> {
    tx.execute(
        "UPDATE runs SET status = ?2, lease_owner = NULL, lease_until = NULL, \
         reserved_by = NULL, ended_at = ?3 WHERE seq = ?1",
        params![run, status.as_str(), at.as_millis()],
    )?;
    question::withdraw_all(tx, run)?;
    let left = journal::unfinished(tx, run)?;
    journal::book(tx, run, left, Spend::default())
}

/// Tells those above a run that it has ended.
fn tell_ended(tx: &Tx<'_>, held: &Held, at: Timestamp, woken: &mut Woken) -> Done<()> {
    if !held.has_parent {
        return Ok(());
    }
    let RunRecord { start, status, output, failure, .. } = commit::record(tx, held.seq)?;
    let ancestors = signal::ancestors(tx, held.seq)?;
    if start.parent.as_ref().is_some_and(|parent| parent.awaited) {
        let (run, output, failure) = (start.id.clone(), output.clone(), failure.clone());
        let ended = SignalKind::ChildEnded { run, status, output, failure };
        signal::send(tx, &ancestors[..1], &ended, at, woken)?;
    }
    let finished = rules::finished(&start, status, output.as_ref(), failure.as_ref());
    signal::send(tx, &ancestors, &finished, at, woken)
}

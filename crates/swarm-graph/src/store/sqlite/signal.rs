//! Signals: sending them, waking who waits, and who is above whom.

use rusqlite::params;
use swarm_core::id::RunId;
use swarm_core::port::store::{Result, Signal, SignalKind};
use swarm_core::time::Timestamp;

use super::claim::no_run;
use super::row::{self, uint};
use super::tx::{Tx, scalar};
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
pub(super) fn send(
    tx: &Tx<'_>,
    to: &[i64],
    kind: &SignalKind,
    at: Timestamp,
    woken: &mut Woken,
) -> Done<()> {
    if to.is_empty() {
        return Ok(());
    }
    let to = row::text(&to)?;
    tx.execute(
        "INSERT INTO signals (run, at, kind) \
         SELECT r.seq, ?2, ?3 FROM json_each(?1) wanted JOIN runs r ON r.seq = wanted.value \
         WHERE r.status IN ('ready', 'running', 'waiting') ORDER BY wanted.key",
        params![&to, at.as_millis(), row::text(kind)?],
    )?;
    wake(tx, &to, at, woken)
}

/// Makes those of these runs, a JSON list, ready that wait.
fn wake(tx: &Tx<'_>, runs: &str, at: Timestamp, woken: &mut Woken) -> Done<()> {
    let ids: Vec<String> = tx.all(
        "UPDATE runs SET status = 'ready', wake_at = NULL, updated_at = ?2 \
         WHERE seq IN (SELECT value FROM json_each(?1)) AND status = 'waiting' RETURNING id",
        params![runs, at.as_millis()],
        scalar,
    )?;
    for id in ids {
        woken.add(row::id("run id", &id)?);
    }
    Ok(())
}

/// The runs above this one, nearest first.
pub(super) fn ancestors(tx: &Tx<'_>, run: i64) -> Done<Vec<i64>> {
    tx.all(
        "WITH RECURSIVE up (seq, depth) AS ( \
           SELECT parent, 1 FROM runs WHERE seq = ?1 AND parent IS NOT NULL \
           UNION ALL \
           SELECT r.parent, up.depth + 1 FROM up JOIN runs r ON r.seq = up.seq \
           WHERE r.parent IS NOT NULL) \
         SELECT seq FROM up ORDER BY depth",
        params![run],
        scalar,
    )
}

/// The runs that this one started, oldest first.
pub(super) fn children(tx: &Tx<'_>, run: i64) -> Done<Vec<i64>> {
    tx.all("SELECT seq FROM runs WHERE parent = ?1 ORDER BY seq", params![run], scalar)
}

/// The number of a run.
pub(super) fn find(tx: &Tx<'_>, run: &RunId) -> Done<i64> {
    tx.find("SELECT seq FROM runs WHERE id = ?1", params![run.as_str()], scalar)?
        .ok_or_else(|| no_run(run).into())
}

/// Sends a signal from outside; `false` if it was sent before or the run has ended.
pub(super) fn send_from_outside(
    tx: &Tx<'_>,
    run: &RunId,
    key: Option<&str>,
    kind: &SignalKind,
    at: Timestamp,
) -> Done<bool> {
    let seq = find(tx, run)?;
    // Not by `ON CONFLICT`: a signal that is not sent shall use up no number.
    let sent = tx.execute(
        "INSERT INTO signals (run, key, at, kind) \
         SELECT seq, ?2, ?3, ?4 FROM runs \
         WHERE seq = ?1 AND status IN ('ready', 'running', 'waiting') \
         AND NOT EXISTS (SELECT 1 FROM signals WHERE run = ?1 AND key = ?2)",
        params![seq, key, at.as_millis(), row::text(kind)?],
    )?;
    if sent == 0 {
        return Ok(false);
    }
    wake(tx, &row::text(&[seq])?, at, &mut Woken::default())?;
    Ok(true)
}

impl SqliteStore {
    /// Signals not yet taken, oldest first.
    pub(super) async fn untaken(&self, run: &RunId) -> Result<Vec<Signal>> {
        let run = run.clone();
        self.read(move |tx| {
            tx.all(
                "SELECT s.id, s.at, s.kind FROM runs r JOIN signals s ON s.run = r.seq \
                 WHERE r.id = ?1 AND s.taken_at IS NULL ORDER BY s.id",
                [run.as_str()],
                |row| {
                    let kind = row::json("signal", run.as_str(), row::word(row, 2)?)?;
                    let (id, at) = (uint(row.get(0)?), Timestamp(row.get(1)?));
                    Ok(Signal { id, run: run.clone(), kind, at })
                },
            )
        })
        .await
    }
}

//! The journal, and the money that goes with it.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Row, params};
use serde_json::Value;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{RunId, StepId};
use swarm_core::port::store::{Begun, Entry, EntryKey, Journal, Result};
use swarm_core::run::{Epoch, Limit};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

use super::claim::Held;
use super::row::{self, AMOUNT_MAX, amount, int, uint};
use super::tx::{Tx, tuple};
use super::{Done, SqliteStore, commit};

#[async_trait]
impl Journal for SqliteStore {
    async fn entries(&self, run: &RunId, step: &StepId) -> Result<Vec<Entry>> {
        let (run, step) = (run.clone(), step.clone());
        self.read(move |tx| {
            tx.all(
                "SELECT e.key, e.intent, e.reserved_usd, e.reserved_tokens, e.result \
                 FROM runs r JOIN effects e ON e.run = r.seq \
                 WHERE r.id = ?1 AND e.step = ?2 ORDER BY e.n",
                [run.as_str(), step.as_str()],
                |row| entry(&run, row),
            )
        })
        .await
    }

    async fn begin(
        &self,
        key: EntryKey,
        intent: Value,
        reserve: Spend,
        at: Timestamp,
    ) -> Result<Begun> {
        self.write(move |tx| begin(tx, &key, &intent, reserve, at)).await
    }

    async fn finish(
        &self,
        key: EntryKey,
        result: Arc<Value>,
        spend: Spend,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        self.write(move |tx| finish(tx, &key, &result, spend, events, at)).await
    }

    async fn note(
        &self,
        run: &RunId,
        epoch: Epoch,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        let run = run.clone();
        self.write(move |tx| {
            let held = Held::check(tx, &run, epoch)?;
            note(tx, &run, &held, events, at)
        })
        .await
    }
}

fn entry(run: &RunId, row: &Row<'_>) -> Done<Entry> {
    let result = row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    Ok(Entry {
        key: row.get(0)?,
        intent: row::json("journal", run.as_str(), row::word(row, 1)?)?,
        reserved: Spend { usd: UsdMicros(uint(row.get(2)?)), tokens: uint(row.get(3)?) },
        result: result.map(|text| row::json("journal", run.as_str(), text)).transpose()?,
    })
}

fn begin(
    tx: &Tx<'_>,
    key: &EntryKey,
    intent: &Value,
    reserve: Spend,
    at: Timestamp,
) -> Done<Begun> {
    let held = Held::check(tx, &key.run, key.epoch)?;
    if reserve != Spend::default() {
        if let Some(entry) = find(tx, key, held.seq)? {
            return Ok(Begun::Existing(entry));
        }
        if let Some(over) = over_limit(tx, held.seq, reserve)? {
            return Ok(over);
        }
        reserve_up(tx, held.seq, reserve)?;
    }
    let put = tx.execute("INSERT INTO effects (run, step, key, intent, reserved_usd, reserved_tokens, begun_at, \
         begun_after) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (run, step, key) DO NOTHING", params![held.seq, key.step.as_str(), &key.key, row::text(intent)?, amount(reserve.usd.0), amount(reserve.tokens), at.as_millis(), after(&held)])?;
    if put == 1 {
        return Ok(Begun::New);
    }
    let there = find(tx, key, held.seq)?;
    there.map(Begun::Existing).ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
}

/// The last checkpoint as the journal tells time; -1 before the first.
fn after(held: &Held) -> i64 {
    held.checkpoint_seq.map_or(-1, int)
}

/// The entry of this key.
fn find(tx: &Tx<'_>, key: &EntryKey, run: i64) -> Done<Option<Entry>> {
    tx.find(
        "SELECT key, intent, reserved_usd, reserved_tokens, result FROM effects \
         WHERE run = ?1 AND step = ?2 AND key = ?3",
        (run, key.step.as_str(), &key.key),
        |row| entry(&key.run, row),
    )
}

/// A run and those above it, as a statement's last part that begins a `WHERE seq`.
macro_rules! lineage {
    ($head:literal) => {
        concat!(
            $head,
            " IN (WITH RECURSIVE up (seq) AS (SELECT ?1 UNION ALL \
             SELECT r.parent FROM up JOIN runs r ON r.seq = up.seq WHERE r.parent IS NOT NULL) \
             SELECT seq FROM up)"
        )
    };
}

/// The nearest limit that does not allow the reservation.
fn over_limit(tx: &Tx<'_>, run: i64, reserve: Spend) -> Done<Option<Begun>> {
    type Found = (String, Option<i64>, Option<i64>, i64, i64);
    // A parent is always older than its child, so the nearest has the highest number.
    let rows: Vec<Found> = tx.all(
        concat!(
            lineage!(
                "SELECT id, limit_usd, limit_tokens, spent_usd + reserved_usd, \
             spent_tokens + reserved_tokens FROM runs WHERE seq"
            ),
            " AND (limit_usd IS NOT NULL OR limit_tokens IS NOT NULL) ORDER BY seq DESC"
        ),
        params![run],
        tuple,
    )?;
    for (id, usd, tokens, used_usd, used_tokens) in rows {
        let limit: Limit = row::limit(usd, tokens);
        let used = Spend { usd: UsdMicros(uint(used_usd)), tokens: uint(used_tokens) };
        if !limit.allows(used + reserve) {
            return Ok(Some(Begun::OverLimit { run: row::id("run id", &id)?, limit, used }));
        }
    }
    Ok(None)
}

fn reserve_up(tx: &Tx<'_>, run: i64, reserve: Spend) -> Done<()> {
    tx.execute(
        lineage!(
            "UPDATE runs SET reserved_usd = min(reserved_usd + ?2, ?4), \
         reserved_tokens = min(reserved_tokens + ?3, ?4) WHERE seq"
        ),
        params![run, amount(reserve.usd.0), amount(reserve.tokens), AMOUNT_MAX],
    )?;
    Ok(())
}

/// Frees a reservation and books what was spent, up the tree.
pub(super) fn book(tx: &Tx<'_>, run: i64, reserved: Spend, spent: Spend) -> Done<()> {
    if reserved == Spend::default() && spent == Spend::default() {
        return Ok(());
    }
    tx.execute(
        lineage!(
            "UPDATE runs SET reserved_usd = max(reserved_usd - ?2, 0), \
         reserved_tokens = max(reserved_tokens - ?3, 0), \
         spent_usd = min(spent_usd + ?4, ?6), spent_tokens = min(spent_tokens + ?5, ?6) \
         WHERE seq"
        ),
        params![
            run,
            amount(reserved.usd.0),
            amount(reserved.tokens),
            amount(spent.usd.0),
            amount(spent.tokens),
            AMOUNT_MAX
        ],
    )?;
    Ok(())
}

/// What entries without a result reserve.
pub(super) fn unfinished(tx: &Tx<'_>, run: i64) -> Done<Spend> {
    let (usd, tokens): (i64, i64) = tx.one(
        "SELECT coalesce(sum(reserved_usd), 0), coalesce(sum(reserved_tokens), 0) \
         FROM effects WHERE run = ?1 AND result IS NULL",
        params![run],
        tuple,
    )?;
    Ok(Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) })
}

fn finish(
    tx: &Tx<'_>,
    key: &EntryKey,
    result: &Arc<Value>,
    spend: Spend,
    events: Vec<NewEvent>,
    at: Timestamp,
) -> Done<Vec<Event>> {
    let held = Held::check(tx, &key.run, key.epoch)?;
    let reserved: Option<(i64, i64)> = tx.find(
        "INSERT INTO effects (run, step, key, intent, reserved_usd, reserved_tokens, \
         begun_at, finished_at, result, spent_usd, spent_tokens, begun_after, finished_after) \
         VALUES (?1, ?2, ?3, 'null', 0, 0, ?4, ?4, ?5, ?6, ?7, ?8, ?8) \
         ON CONFLICT (run, step, key) DO UPDATE SET finished_at = excluded.finished_at, \
         result = excluded.result, spent_usd = excluded.spent_usd, \
         spent_tokens = excluded.spent_tokens, finished_after = excluded.finished_after \
         WHERE result IS NULL \
         RETURNING reserved_usd, reserved_tokens",
        params![
            held.seq,
            key.step.as_str(),
            &key.key,
            at.as_millis(),
            row::text(result)?,
            amount(spend.usd.0),
            amount(spend.tokens),
            after(&held)
        ],
        tuple,
    )?;
    let Some((usd, tokens)) = reserved else { return Ok(Vec::new()) };
    let reserved = Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) };
    book(tx, held.seq, reserved, spend)?;
    note(tx, &key.run, &held, events, at)
}

fn note(
    tx: &Tx<'_>,
    run: &RunId,
    held: &Held,
    events: Vec<NewEvent>,
    at: Timestamp,
) -> Done<Vec<Event>> {
    let texts = commit::event_texts(&events)?;
    let events = commit::number(run, held.event_seq, events, at);
    if let Some(last) = events.last() {
        commit::put_events(tx, held.seq, &events, &texts)?;
        let sql = "UPDATE runs SET event_seq = ?2 WHERE seq = ?1";
        tx.execute(sql, (held.seq, int(last.seq)))?;
    }
    Ok(events)
}

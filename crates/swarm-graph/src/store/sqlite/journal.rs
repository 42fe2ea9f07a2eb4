//! The journal, and the money that goes with it.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{RunId, StepId};
use swarm_core::port::store::{Begun, Entry, EntryKey, Journal, Result};
use swarm_core::run::{Epoch, Limit};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

use super::claim::Held;
use super::row::{self, AMOUNT_MAX, amount, backend, int, uint};
use super::script::Script;
use super::{Done, SqliteStore, commit};

#[async_trait]
impl Journal for SqliteStore {
    async fn entries(&self, run: &RunId, step: &StepId) -> Result<Vec<Entry>> {
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT e.key, e.intent, e.reserved_usd, e.reserved_tokens, e.result \
             FROM runs r JOIN effects e ON e.run = r.seq \
             WHERE r.id = ?1 AND e.step = ?2 ORDER BY e.n",
        )
        .bind(run.as_str())
        .bind(step.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(backend)?;
        rows.into_iter().map(|row| entry(run, row)).collect()
    }

    async fn begin(
        &self,
        key: EntryKey,
        intent: Value,
        reserve: Spend,
        at: Timestamp,
    ) -> Result<Begun> {
        self.write(move |tx| Box::pin(async move { begin(tx, &key, &intent, reserve, at).await }))
            .await
    }

    async fn finish(
        &self,
        key: EntryKey,
        result: Arc<Value>,
        spend: Spend,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        self.write(move |tx| {
            Box::pin(async move { finish(tx, &key, &result, spend, events, at).await })
        })
        .await
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
            Box::pin(async move {
                let held = Held::check(tx, &run, epoch).await?;
                note(tx, &run, &held, events, at).await
            })
        })
        .await
    }
}

type EntryRow = (String, String, i64, i64, Option<String>);

fn entry(run: &RunId, row: EntryRow) -> Result<Entry> {
    let (key, intent, usd, tokens, result) = row;
    Ok(Entry {
        intent: row::json("journal", run.as_str(), &intent)?,
        result: result.map(|text| row::json("journal", run.as_str(), &text)).transpose()?,
        reserved: Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) },
        key,
    })
}

async fn begin(
    tx: &mut SqliteConnection,
    key: &EntryKey,
    intent: &Value,
    reserve: Spend,
    at: Timestamp,
) -> Done<Begun> {
    let held = Held::check(tx, &key.run, key.epoch).await?;
    if reserve != Spend::default() {
        if let Some(entry) = find(tx, key, held.seq).await? {
            return Ok(Begun::Existing(entry));
        }
        if let Some(over) = over_limit(tx, held.seq, reserve).await? {
            return Ok(over);
        }
        reserve_up(tx, held.seq, reserve).await?;
    }
    let put = sqlx::query(
        "INSERT INTO effects (run, step, key, intent, reserved_usd, reserved_tokens, begun_at, \
         begun_after) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (run, step, key) DO NOTHING",
    )
    .bind(held.seq)
    .bind(key.step.as_str())
    .bind(&key.key)
    .bind(row::text(intent)?)
    .bind(amount(reserve.usd.0))
    .bind(amount(reserve.tokens))
    .bind(at.as_millis())
    .bind(after(&held))
    .execute(&mut *tx)
    .await?;
    if put.rows_affected() == 1 {
        return Ok(Begun::New);
    }
    let there = find(tx, key, held.seq).await?;
    there.map(Begun::Existing).ok_or_else(|| sqlx::Error::RowNotFound.into())
}

/// The last checkpoint as the journal tells time; -1 before the first.
fn after(held: &Held) -> i64 {
    held.checkpoint_seq.map_or(-1, int)
}

/// The entry of this key.
async fn find(tx: &mut SqliteConnection, key: &EntryKey, run: i64) -> Done<Option<Entry>> {
    let found: Option<EntryRow> = sqlx::query_as(
        "SELECT key, intent, reserved_usd, reserved_tokens, result FROM effects \
         WHERE run = ?1 AND step = ?2 AND key = ?3",
    )
    .bind(run)
    .bind(key.step.as_str())
    .bind(&key.key)
    .fetch_optional(tx)
    .await?;
    Ok(found.map(|row| entry(&key.run, row)).transpose()?)
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
async fn over_limit(tx: &mut SqliteConnection, run: i64, reserve: Spend) -> Done<Option<Begun>> {
    type Found = (String, Option<i64>, Option<i64>, i64, i64);
    // A parent is always older than its child, so the nearest has the highest number.
    let rows: Vec<Found> = sqlx::query_as(concat!(
        lineage!(
            "SELECT id, limit_usd, limit_tokens, spent_usd + reserved_usd, \
             spent_tokens + reserved_tokens FROM runs WHERE seq"
        ),
        " AND (limit_usd IS NOT NULL OR limit_tokens IS NOT NULL) ORDER BY seq DESC"
    ))
    .bind(run)
    .fetch_all(tx)
    .await?;
    for (id, usd, tokens, used_usd, used_tokens) in rows {
        let limit: Limit = row::limit(usd, tokens);
        let used = Spend { usd: UsdMicros(uint(used_usd)), tokens: uint(used_tokens) };
        if !limit.allows(used + reserve) {
            return Ok(Some(Begun::OverLimit { run: row::id("run id", &id)?, limit, used }));
        }
    }
    Ok(None)
}

async fn reserve_up(tx: &mut SqliteConnection, run: i64, reserve: Spend) -> Done<()> {
    sqlx::query(lineage!(
        "UPDATE runs SET reserved_usd = min(reserved_usd + ?2, ?4), \
         reserved_tokens = min(reserved_tokens + ?3, ?4) WHERE seq"
    ))
    .bind(run)
    .bind(amount(reserve.usd.0))
    .bind(amount(reserve.tokens))
    .bind(AMOUNT_MAX)
    .execute(tx)
    .await?;
    Ok(())
}

/// Frees a reservation and books what was spent, up the tree.
pub(super) async fn book(
    tx: &mut SqliteConnection,
    run: i64,
    reserved: Spend,
    spent: Spend,
) -> Done<()> {
    if reserved == Spend::default() && spent == Spend::default() {
        return Ok(());
    }
    sqlx::query(lineage!(
        "UPDATE runs SET reserved_usd = max(reserved_usd - ?2, 0), \
         reserved_tokens = max(reserved_tokens - ?3, 0), \
         spent_usd = min(spent_usd + ?4, ?6), spent_tokens = min(spent_tokens + ?5, ?6) \
         WHERE seq"
    ))
    .bind(run)
    .bind(amount(reserved.usd.0))
    .bind(amount(reserved.tokens))
    .bind(amount(spent.usd.0))
    .bind(amount(spent.tokens))
    .bind(AMOUNT_MAX)
    .execute(tx)
    .await?;
    Ok(())
}

/// What entries without a result reserve.
pub(super) async fn unfinished(tx: &mut SqliteConnection, run: i64) -> Done<Spend> {
    let (usd, tokens): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(reserved_usd), 0), coalesce(sum(reserved_tokens), 0) \
         FROM effects WHERE run = ?1 AND result IS NULL",
    )
    .bind(run)
    .fetch_one(tx)
    .await?;
    Ok(Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) })
}

async fn finish(
    tx: &mut SqliteConnection,
    key: &EntryKey,
    result: &Arc<Value>,
    spend: Spend,
    events: Vec<NewEvent>,
    at: Timestamp,
) -> Done<Vec<Event>> {
    let held = Held::check(tx, &key.run, key.epoch).await?;
    let reserved: Option<(i64, i64)> = sqlx::query_as(
        "INSERT INTO effects (run, step, key, intent, reserved_usd, reserved_tokens, \
         begun_at, finished_at, result, spent_usd, spent_tokens, begun_after, finished_after) \
         VALUES (?1, ?2, ?3, 'null', 0, 0, ?4, ?4, ?5, ?6, ?7, ?8, ?8) \
         ON CONFLICT (run, step, key) DO UPDATE SET finished_at = excluded.finished_at, \
         result = excluded.result, spent_usd = excluded.spent_usd, \
         spent_tokens = excluded.spent_tokens, finished_after = excluded.finished_after \
         WHERE result IS NULL \
         RETURNING reserved_usd, reserved_tokens",
    )
    .bind(held.seq)
    .bind(key.step.as_str())
    .bind(&key.key)
    .bind(at.as_millis())
    .bind(row::text(result)?)
    .bind(amount(spend.usd.0))
    .bind(amount(spend.tokens))
    .bind(after(&held))
    .fetch_optional(&mut *tx)
    .await?;
    let Some((usd, tokens)) = reserved else { return Ok(Vec::new()) };
    let reserved = Spend { usd: UsdMicros(uint(usd)), tokens: uint(tokens) };
    book(tx, held.seq, reserved, spend).await?;
    note(tx, &key.run, &held, events, at).await
}

async fn note(
    tx: &mut SqliteConnection,
    run: &RunId,
    held: &Held,
    events: Vec<NewEvent>,
    at: Timestamp,
) -> Done<Vec<Event>> {
    let events = commit::number(run, held.event_seq, events, at);
    if let Some(last) = events.last() {
        let mut script = Script::new();
        commit::put_events(&mut script, held.seq, &events)?;
        script.statement("UPDATE runs SET event_seq = ").bind(int(last.seq));
        script.sql(" WHERE seq = ").bind(held.seq);
        script.run(tx).await?;
    }
    Ok(events)
}

//! The journal, and the money that goes with it.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{RunId, StepId};
use swarm_core::port::store::{Begun, Entry, EntryKey, Journal, Result};
use swarm_core::run::Epoch;
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::call::{Again, refusal};
use super::row::{self, amount, column, int, uint};
use super::{PostgresStore, args, lanes};

#[async_trait]
impl Journal for PostgresStore {
    async fn entries(&self, run: &RunId, step: &StepId) -> Result<Vec<Entry>> {
        let sql = "SELECT e.key, e.intent, e.reserved_usd, e.reserved_tokens, e.result \
                   FROM runs r JOIN effects e ON e.run = r.seq \
                   WHERE r.id = $1 AND e.step = $2 ORDER BY e.n";
        let rows =
            self.pool().rows(Again::Read, sql, |_| args!(run.as_str(), step.as_str())).await?;
        let entry = |row| {
            let result: Option<&str> = column(row, "result")?;
            Ok(Entry {
                key: column(row, "key")?,
                intent: row::json("journal", run.as_str(), column(row, "intent")?)?,
                reserved: row::spend(column(row, "reserved_usd")?, column(row, "reserved_tokens")?),
                result: result.map(|text| row::json("journal", run.as_str(), text)).transpose()?,
            })
        };
        rows.iter().map(entry).collect()
    }

    async fn begin(
        &self,
        key: EntryKey,
        intent: Value,
        reserve: Spend,
        at: Timestamp,
    ) -> Result<Begun> {
        let intent = row::text(&intent)?;
        let sql = "SELECT * FROM begin_entry($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let call = self.pool().ask(Again::Same, sql, |again| {
            args!(
                key.run.as_str(),
                int(key.epoch.0),
                key.step.as_str(),
                key.key.as_str(),
                intent.as_str(),
                amount(reserve.usd.0),
                amount(reserve.tokens),
                at.as_millis(),
                again,
            )
        });
        let rows = call.await.map_err(|fault| refusal(fault, &key.run, key.epoch))?;
        let Some(said) = rows.first() else { return Ok(Begun::New) };
        let text: Option<&str> = column(said, "text")?;
        let text = text.unwrap_or_default();
        match column(said, "what")? {
            1 => {
                let result: Option<&str> = column(said, "result")?;
                let run = key.run.as_str();
                Ok(Begun::Existing(Entry {
                    intent: row::json("journal", run, text)?,
                    reserved: row::spend(column(said, "usd")?, column(said, "tokens")?),
                    result: result.map(|text| row::json("journal", run, text)).transpose()?,
                    key: key.key,
                }))
            }
            2 => Ok(Begun::OverLimit {
                run: row::id("run id", text)?,
                limit: row::limit(column(said, "usd")?, column(said, "tokens")?),
                used: row::spend(column(said, "used_usd")?, column(said, "used_tokens")?),
            }),
            _ => Ok(Begun::New),
        }
    }

    async fn finish(
        &self,
        key: EntryKey,
        result: Arc<Value>,
        spend: Spend,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        let result = row::text(&result)?;
        let parts = Parts::of(&events)?;
        let sql = "SELECT finish_entry($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let call = self.pool().ask(Again::Same, sql, |_| {
            args!(
                key.run.as_str(),
                int(key.epoch.0),
                key.step.as_str(),
                key.key.as_str(),
                result.as_str(),
                amount(spend.usd.0),
                amount(spend.tokens),
                at.as_millis(),
                &parts.kinds,
                &parts.steps,
                &parts.data,
            )
        });
        let rows = call.await.map_err(|fault| refusal(fault, &key.run, key.epoch))?;
        match row::scalar::<i64>(&rows)? {
            Some(last) if last >= 0 => Ok(lanes::number_events(&key.run, uint(last), &events, at)),
            _ => Ok(Vec::new()),
        }
    }

    async fn note(
        &self,
        run: &RunId,
        epoch: Epoch,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        let parts = Parts::of(&events)?;
        let sql = "SELECT note_events($1, $2, $3, $4, $5, $6)";
        let call = self.pool().ask(Again::Never, sql, |_| {
            args!(
                run.as_str(),
                int(epoch.0),
                at.as_millis(),
                &parts.kinds,
                &parts.steps,
                &parts.data
            )
        });
        let rows = call.await.map_err(|fault| refusal(fault, run, epoch))?;
        let last = row::scalar::<i64>(&rows)?.map_or(0, uint);
        Ok(lanes::number_events(run, last, &events, at))
    }
}

/// Events as lists.
struct Parts<'e> {
    kinds: Vec<&'e str>,
    steps: Vec<Option<&'e str>>,
    data: Vec<String>,
}

impl<'e> Parts<'e> {
    fn of(events: &'e [NewEvent]) -> Result<Self> {
        Ok(Self {
            kinds: events.iter().map(|event| event.kind.as_str()).collect(),
            steps: events
                .iter()
                .map(|event| event.step.as_ref().map(|step| step.as_str()))
                .collect(),
            data: events.iter().map(|event| row::text(&event.data)).collect::<Result<_>>()?,
        })
    }
}

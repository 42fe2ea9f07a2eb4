//! The journal and its money in memory.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{RunId, StepId};
use swarm_core::port::store::{Begun, Entry, EntryKey, Journal, Result};
use swarm_core::run::Epoch;
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::super::rules::{self, Written};
use super::run::Journaled;
use super::{Inner, MemoryStore};

#[async_trait]
impl Journal for MemoryStore {
    async fn entries(&self, run: &RunId, step: &StepId) -> Result<Vec<Entry>> {
        let inner = self.lock();
        let Ok(at) = inner.find(run) else { return Ok(Vec::new()) };
        let entries = inner.runs[at].entries.iter();
        Ok(entries
            .filter(|((of, _), _)| of == step)
            .map(|(_, journaled)| journaled.entry.clone())
            .collect())
    }

    async fn begin(
        &self,
        key: EntryKey,
        intent: Value,
        reserve: Spend,
        _at: Timestamp,
    ) -> Result<Begun> {
        let mut inner = self.lock();
        let at = inner.fenced(&key.run, key.epoch)?;
        let place = (key.step, key.key.clone());
        if let Some(journaled) = inner.runs[at].entries.get(&place) {
            return Ok(Begun::Existing(journaled.entry.clone()));
        }
        if let Some(over) = inner.over_limit(at, reserve) {
            return Ok(over);
        }
        inner.reserve(at, reserve);
        let entry = Entry { key: key.key, intent, reserved: reserve, result: None };
        let run = &mut inner.runs[at];
        let written = Written { begun_after: run.after(), finished_after: None };
        run.entries.insert(place, Journaled { entry, written });
        Ok(Begun::New)
    }

    async fn finish(
        &self,
        key: EntryKey,
        result: Arc<Value>,
        spend: Spend,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        let now = at;
        let mut inner = self.lock();
        let at = inner.fenced(&key.run, key.epoch)?;
        let run = &mut inner.runs[at];
        let after = run.after();
        let Journaled { entry, written } =
            run.entries.entry((key.step, key.key.clone())).or_insert_with(|| Journaled {
                entry: Entry {
                    key: key.key,
                    intent: Value::Null,
                    reserved: Spend::default(),
                    result: None,
                },
                written: Written { begun_after: after, finished_after: None },
            });
        if entry.result.is_some() {
            return Ok(Vec::new());
        }
        written.finished_after = Some(after);
        entry.result = Some(result);
        let reserved = entry.reserved;
        inner.book(at, reserved, spend);
        Ok(inner.runs[at].tell(events, now))
    }

    async fn note(
        &self,
        run: &RunId,
        epoch: Epoch,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        let mut inner = self.lock();
        let of = inner.fenced(run, epoch)?;
        Ok(inner.runs[of].tell(events, at))
    }
}

impl Inner {
    /// The nearest limit that does not allow the reservation.
    fn over_limit(&self, at: usize, reserve: Spend) -> Option<Begun> {
        if reserve == Spend::default() {
            return None;
        }
        self.lineage(at).find_map(|at| {
            let record = &self.runs[at].record;
            let limit = record.start.limit;
            let used = record.spent + record.reserved;
            let run = record.start.id.clone();
            (!limit.allows(used + reserve)).then_some(Begun::OverLimit { run, limit, used })
        })
    }

    fn reserve(&mut self, at: usize, amount: Spend) {
        for at in self.lineage(at).collect::<Vec<_>>() {
            self.runs[at].record.reserved += amount;
        }
    }

    /// Frees a reservation and books what was spent, up the tree.
    pub(super) fn book(&mut self, at: usize, reserved: Spend, spent: Spend) {
        for at in self.lineage(at).collect::<Vec<_>>() {
            let record = &mut self.runs[at].record;
            record.reserved = rules::less(record.reserved, reserved);
            record.spent += spent;
        }
    }
}

//! One run in memory with all that belongs to it.
//!
//! Channels are kept as deltas, as in the durable stores: a commit costs what changed, a read
//! puts the state together.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use indexmap::IndexMap;
use swarm_core::checkpoint::{Change, Checkpoint, Cursor, FORMAT, State, StepRecord};
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{BlockId, ChannelName, StepId, WorkerId};
use swarm_core::port::store::{Entry, Result, Signal};
use swarm_core::run::{Epoch, NewRun, RunRecord, RunStatus};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::super::rules::{self, Shape, Written};

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) record: RunRecord,
    /// The index of the run that started it.
    pub(super) parent: Option<usize>,
    /// The indexes of the runs that it started, oldest first.
    pub(super) children: Vec<usize>,
    /// The number of the first checkpoint that is left.
    pub(super) first_seq: u64,
    /// By number, from the first one left.
    pub(super) checkpoints: Vec<Stored>,
    pub(super) channels: BTreeMap<ChannelName, Vec<Delta>>,
    /// Each with the number of the checkpoint that covers it, which may not be there yet.
    pub(super) steps: Vec<(u64, StepRecord)>,
    pub(super) known_steps: HashSet<(StepId, u32)>,
    pub(super) entries: IndexMap<(StepId, String), Journaled>,
    /// Its questions, oldest first.
    pub(super) asked: Vec<BlockId>,
    pub(super) events: Vec<Event>,
    /// Not yet taken.
    pub(super) signals: BTreeMap<u64, Signal>,
    /// Keys of signals that were sent, taken or not.
    pub(super) signal_keys: HashSet<String>,
}

/// A journal entry and when it was written.
#[derive(Clone, Debug)]
pub(super) struct Journaled {
    pub(super) entry: Entry,
    pub(super) written: Written,
}

/// A checkpoint without its state.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) format: u16,
    pub(super) at: Timestamp,
    pub(super) edited_by: Option<String>,
    pub(super) cursor: Cursor,
}

/// A change of a channel, by the checkpoint that brought it.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    pub(super) seq: u64,
    pub(super) change: Change,
    pub(super) shape: Shape,
}

impl Run {
    pub(super) fn new(start: NewRun, parent: Option<usize>, now: Timestamp) -> Self {
        Self {
            record: RunRecord {
                start,
                forked_from: None,
                status: RunStatus::Ready,
                epoch: Epoch::default(),
                lease_owner: None,
                lease_until: None,
                reserved_by: None,
                wake_at: None,
                spent: Spend::default(),
                reserved: Spend::default(),
                output: None,
                failure: None,
                created_at: now,
                updated_at: now,
                ended_at: None,
            },
            parent,
            children: Vec::new(),
            first_seq: 0,
            checkpoints: Vec::new(),
            channels: BTreeMap::new(),
            steps: Vec::new(),
            known_steps: HashSet::new(),
            entries: IndexMap::new(),
            asked: Vec::new(),
            events: Vec::new(),
            signals: BTreeMap::new(),
            signal_keys: HashSet::new(),
        }
    }

    pub(super) fn is_claimable(&self, now: Timestamp) -> bool {
        let record = &self.record;
        rules::is_claimable(record.status, record.lease_until, record.wake_at, now)
    }

    pub(super) fn claim(&mut self, worker: &WorkerId, now: Timestamp, ttl: Duration) {
        let record = &mut self.record;
        record.status = RunStatus::Running;
        record.epoch.0 += 1;
        record.lease_owner = Some(worker.clone());
        record.lease_until = Some(now + ttl);
        record.reserved_by = None;
        record.wake_at = None;
        record.updated_at = now;
    }

    /// Makes a waiting run ready; `false` if it does not wait.
    pub(super) fn wake(&mut self, now: Timestamp) -> bool {
        let record = &mut self.record;
        if record.status != RunStatus::Waiting {
            return false;
        }
        record.status = RunStatus::Ready;
        record.wake_at = None;
        record.updated_at = now;
        true
    }

    /// The number of the last checkpoint.
    pub(super) fn seq(&self) -> Option<u64> {
        self.next_seq().checked_sub(1)
    }

    /// The number of the next checkpoint.
    pub(super) fn next_seq(&self) -> u64 {
        self.first_seq + self.checkpoints.len() as u64
    }

    /// The last checkpoint as the journal tells time; -1 before the first.
    pub(super) fn after(&self) -> i64 {
        self.seq().map_or(-1, |seq| i64::try_from(seq).unwrap_or(i64::MAX))
    }

    pub(super) fn stored(&self, seq: u64) -> Option<&Stored> {
        let at = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.checkpoints.get(at)
    }

    pub(super) fn check_format(&self) -> Result<()> {
        let format = self.checkpoints.last().map_or(FORMAT, |checkpoint| checkpoint.format);
        rules::check_format(&self.record.start.id, format)
    }

    pub(super) fn checkpoint(&self, seq: Option<u64>) -> Result<Option<Checkpoint>> {
        let Some(seq) = seq.or(self.seq()) else { return Ok(None) };
        let Some(stored) = self.stored(seq) else { return Ok(None) };
        let run = &self.record.start.id;
        rules::check_format(run, stored.format)?;
        let mut state = State::default();
        for (channel, deltas) in &self.channels {
            let deltas = &deltas[..deltas.partition_point(|delta| delta.seq <= seq)];
            if deltas.is_empty() {
                continue;
            }
            let full = deltas.iter().rposition(|delta| matches!(delta.change, Change::Full(_)));
            let deltas = &deltas[full.unwrap_or(0)..];
            let changes = deltas.iter().map(|delta| delta.change.clone());
            state.set(channel.clone(), rules::rebuild(run, channel, changes)?);
        }
        let cursor = stored.cursor.clone();
        Ok(Some(Checkpoint { format: stored.format, seq, state, cursor }))
    }

    /// Steps that ended after the last checkpoint.
    pub(super) fn finished(&self) -> Vec<StepRecord> {
        let next = self.next_seq();
        self.steps
            .iter()
            .filter(|(covered_by, _)| *covered_by >= next)
            .map(|(_, step)| step.clone())
            .collect()
    }

    pub(super) fn tell(&mut self, events: Vec<NewEvent>, now: Timestamp) -> Vec<Event> {
        let before = self.events.len();
        for NewEvent { kind, step, data } in events {
            let seq = self.events.len() as u64 + 1;
            let run = self.record.start.id.clone();
            self.events.push(Event { run, seq, at: now, kind, step, data });
        }
        self.events[before..].to_vec()
    }
}

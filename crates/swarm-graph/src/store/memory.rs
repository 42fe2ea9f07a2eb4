//! A store in memory: for tests, and for embedding where a restart may forget.
//!
//! One mutex guards all of it, so each call is a transaction. A call checks everything first and
//! changes things only then: that is what makes a commit whole or absent here.

mod archive;
mod commit;
mod journal;
mod read;
mod run;
mod runs;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde_json::Value;
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::id::{BlockId, GraphHash, QueueName, RunId, WorkerId};
use swarm_core::port::records::{self, Record, Records};
use swarm_core::port::store::{
    Claim, Error, GraphText, Graphs, Leases, Result, Signal, SignalKind,
};
use swarm_core::run::{Epoch, NewRun};
use swarm_core::time::Timestamp;

use self::run::Run;
use self::runs::Runs;
use super::rules;

/// A whole store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Pretends that the last checkpoint of a run was written in this format.
    #[cfg(feature = "testkit")]
    pub fn set_checkpoint_format(&self, run: &RunId, format: u16) {
        let mut inner = self.lock();
        if let Ok(at) = inner.find(run)
            && let Some(checkpoint) = inner.runs[at].checkpoints.last_mut()
        {
            checkpoint.format = format;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the store")
    }
}

#[derive(Debug, Default)]
struct Inner {
    runs: Runs,
    blocks: IndexMap<BlockId, Block>,
    signals_last: u64,
    graphs: HashMap<GraphHash, Kept>,
    records: BTreeMap<(String, String), Record>,
}

/// A graph text, and since when a prune knows that no run needs it.
#[derive(Debug)]
struct Kept {
    text: GraphText,
    unneeded_since: Option<Timestamp>,
}

impl Inner {
    fn find(&self, run: &RunId) -> Result<usize> {
        self.runs.find(run).ok_or_else(|| Error::NotFound { what: "run", id: run.to_string() })
    }

    /// The run, if this claim still holds it.
    fn fenced(&self, run: &RunId, epoch: Epoch) -> Result<usize> {
        let at = self.find(run)?;
        let record = &self.runs[at].record;
        rules::fence(run, record.status, record.epoch, epoch)?;
        Ok(at)
    }

    /// The run itself and its ancestors, nearest first.
    fn lineage(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(at), |&at| self.runs[at].parent)
    }

    fn create(&mut self, new: NewRun, now: Timestamp) -> Result<bool> {
        if self.runs.find(&new.id).is_some() {
            return Ok(false);
        }
        let parent = match &new.parent {
            Some(parent) => {
                Some(self.find(&parent.run).map_err(|_| rules::no_parent(&parent.run))?)
            }
            None => None,
        };
        self.runs.add(Run::new(new, parent, now));
        Ok(true)
    }

    /// Puts a signal into a run's mailbox, unless the run has ended; `true` if that woke it.
    fn send(&mut self, to: usize, kind: SignalKind, now: Timestamp) -> bool {
        let run = &mut self.runs[to];
        if run.record.status.is_final() {
            return false;
        }
        self.signals_last += 1;
        let id = self.signals_last;
        let signal = Signal { id, run: run.record.start.id.clone(), kind, at: now };
        run.signals.insert(id, signal);
        self.wake(to, now)
    }

    /// Makes a waiting run ready; `false` if it does not wait.
    fn wake(&mut self, at: usize, now: Timestamp) -> bool {
        let woken = self.runs[at].wake(now);
        self.runs.changed(at);
        woken
    }

    /// Sends a signal to every ancestor; returns those that woke.
    fn send_up(&mut self, from: usize, kind: &SignalKind, now: Timestamp) -> Vec<usize> {
        let ancestors: Vec<usize> = self.lineage(from).skip(1).collect();
        ancestors.into_iter().filter(|&to| self.send(to, kind.clone(), now)).collect()
    }

    fn has_open_blocks(&self, at: usize) -> bool {
        let mut asked = self.runs[at].asked.iter();
        asked.any(|block| self.blocks[block].status == BlockStatus::Open)
    }

    fn claim(
        &mut self,
        at: usize,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Claim> {
        self.runs[at].check_format()?;
        self.runs[at].claim(worker, now, ttl);
        self.runs.changed(at);
        let run = &self.runs[at];
        Ok(Claim {
            run: run.record.clone(),
            checkpoint: run.checkpoint(None)?,
            finished: run.finished(),
        })
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn claim_next(
        &self,
        worker: &WorkerId,
        queues: &[QueueName],
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let mut inner = self.lock();
        let next = inner.runs.next(queues, now);
        next.map(|at| inner.claim(at, worker, now, ttl)).transpose()
    }

    async fn claim(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let mut inner = self.lock();
        let at = inner.find(run)?;
        if !inner.runs[at].is_claimable(now) {
            return Ok(None);
        }
        inner.claim(at, worker, now, ttl).map(Some)
    }

    async fn claim_idle(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let mut inner = self.lock();
        let at = inner.find(run)?;
        let record = &inner.runs[at].record;
        if !rules::is_idle(record.status, record.lease_until, now) {
            return Ok(None);
        }
        inner.claim(at, worker, now, ttl).map(Some)
    }

    async fn renew(&self, run: &RunId, epoch: Epoch, now: Timestamp, ttl: Duration) -> Result<()> {
        let mut inner = self.lock();
        let at = inner.fenced(run, epoch)?;
        inner.runs[at].record.lease_until = Some(now + ttl);
        inner.runs.changed(at);
        Ok(())
    }
}

#[async_trait]
impl Graphs for MemoryStore {
    async fn put_graph(&self, graph: GraphText) -> Result<()> {
        let mut inner = self.lock();
        let kept = inner.graphs.entry(graph.hash.clone());
        kept.or_insert(Kept { text: graph, unneeded_since: None }).unneeded_since = None;
        Ok(())
    }

    async fn graph(&self, hash: &GraphHash) -> Result<Option<GraphText>> {
        Ok(self.lock().graphs.get(hash).map(|kept| kept.text.clone()))
    }
}

#[async_trait]
impl Records for MemoryStore {
    async fn get(
        &self,
        namespace: &str,
        key: &str,
    ) -> std::result::Result<Option<Record>, records::Error> {
        Ok(self.lock().records.get(&(namespace.to_owned(), key.to_owned())).cloned())
    }

    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> std::result::Result<u64, records::Error> {
        let mut inner = self.lock();
        let place = (namespace.to_owned(), key.to_owned());
        let found = inner.records.get(&place).map_or(0, |record| record.version);
        if found != expected {
            return Err(records::Error::Conflict { key: key.to_owned(), expected, found });
        }
        let version = expected + 1;
        inner.records.insert(place, Record { key: key.to_owned(), version, value });
        Ok(version)
    }

    async fn list(
        &self,
        namespace: &str,
        prefix: &str,
    ) -> std::result::Result<Vec<Record>, records::Error> {
        let inner = self.lock();
        let from = (namespace.to_owned(), prefix.to_owned());
        Ok(inner
            .records
            .range(from..)
            .take_while(|((space, key), _)| space == namespace && key.starts_with(prefix))
            .map(|(_, record)| record.clone())
            .collect())
    }
}

//! A store that dies, or stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::checkpoint::{Checkpoint, StepRecord};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{BlockId, GraphHash, QueueName, RunId, StepId, WorkerId};
use swarm_core::port::clock::Entropy as _;
use swarm_core::port::records::{self, Record, Records};
use swarm_core::port::store::{
    AnswerError, Archive, Begun, CheckpointFilter, CheckpointInfo, Claim, Commit, Commits,
    Committed, CopyRun, DeleteError, Edit, EditError, Entry, EntryKey, Error, Fork, GraphText,
    Graphs, History, Journal, Leases, Pruned, Questions, Result, Retention, RunFilter, Signal,
    SignalKind, Store,
};
use swarm_core::run::{Epoch, Limit, NewRun, RunRecord};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;
use tokio::sync::watch;

use super::SeededEntropy;

/// When a [`MortalStore`] dies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Death {
    /// Before the write of this number (from 1) takes effect.
    Before(u64),
    /// After it took effect, before anyone hears of it.
    After(u64),
    /// Never.
    Never,
}

/// A store in front of another that dies at a chosen write: from then on, every call fails, as
/// if the process were gone. What lies beneath keeps what had taken effect.
///
/// A [`stalling`](Self::stalling) one only stops there, as a process does that its machine does
/// not let run, and goes on when woken: late, and perhaps no longer the one who has the run.
pub struct MortalStore {
    inner: Arc<dyn Store>,
    death: Death,
    writes: AtomicU64,
    /// With a stalling store: how far it has come.
    stall: Option<watch::Sender<Stall>>,
    jitter: Option<SeededEntropy>,
    /// Told of each commit that was written.
    observer: Option<Observer>,
}

type Observer = Box<dyn Fn(&Commit) + Send + Sync>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stall {
    Before,
    Stalled,
    Woken,
}

impl std::fmt::Debug for MortalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MortalStore")
            .field("death", &self.death)
            .field("writes", &self.writes())
            .finish()
    }
}

impl MortalStore {
    /// A mortal front of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, death: Death) -> Self {
        Self { inner, death, writes: AtomicU64::new(0), stall: None, jitter: None, observer: None }
    }

    /// Stalls at its moment instead of dying, until [`wake`](Self::wake).
    #[must_use]
    pub fn stalling(mut self) -> Self {
        self.stall = Some(watch::Sender::new(Stall::Before));
        self
    }

    /// Lets others run before and after each write, as often as the seed says: moments at which
    /// a caller may be dropped.
    #[must_use]
    pub fn jittered(mut self, entropy: SeededEntropy) -> Self {
        self.jitter = Some(entropy);
        self
    }

    /// Tells of each commit, once it is written and before anyone else hears of it: a moment at
    /// which a test may drain or halt its worker.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(&Commit) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Returns once it stalls; never, if it does not.
    pub async fn stalled(&self) {
        if let Some(stall) = &self.stall
            && stall.subscribe().wait_for(|stage| *stage == Stall::Stalled).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Ends the stall, now or in advance.
    pub fn wake(&self) {
        if let Some(stall) = &self.stall {
            stall.send_replace(Stall::Woken);
        }
    }

    /// How many writes were tried.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Whether it has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        match self.death {
            Death::Before(last) | Death::After(last) => {
                self.stall.is_none() && self.writes() >= last
            }
            Death::Never => false,
        }
    }

    /// Waits while it is stalled; `begins` the stall.
    async fn hold(&self, begins: bool) {
        let Some(stall) = &self.stall else { return };
        if begins {
            stall.send_if_modified(|stage| {
                let is_first = *stage == Stall::Before;
                if is_first {
                    *stage = Stall::Stalled;
                }
                is_first
            });
        }
        // The sender is ours: it is not closed while we wait.
        let _ = stall.subscribe().wait_for(|stage| *stage != Stall::Stalled).await;
    }

    async fn shake(&self) {
        let Some(jitter) = &self.jitter else { return };
        for _ in 0..jitter.next_u64() % 3 {
            tokio::task::yield_now().await;
        }
    }

    fn read(&self) -> Result<()> {
        if self.is_dead() { Err(dead()) } else { Ok(()) }
    }

    /// Counts a write and does it, if the store lives long enough.
    async fn write<T>(&self, act: impl Future<Output = T>) -> Result<T> {
        self.shake().await;
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.stall.is_some() {
            self.hold(self.death == Death::Before(number)).await;
            let done = act.await;
            self.hold(self.death == Death::After(number)).await;
            self.shake().await;
            return Ok(done);
        }
        let done = self.live_or_die(number, act).await;
        self.shake().await;
        done
    }

    async fn live_or_die<T>(&self, number: u64, act: impl Future<Output = T>) -> Result<T> {
        match self.death {
            Death::Before(last) if number >= last => Err(dead()),
            Death::After(last) if number > last => Err(dead()),
            Death::After(last) if number == last => {
                act.await;
                Err(dead())
            }
            Death::Before(_) | Death::After(_) | Death::Never => Ok(act.await),
        }
    }
}

fn dead() -> Error {
    Error::Backend("the store has died".into())
}

#[async_trait]
impl Leases for MortalStore {
    async fn claim_next(
        &self,
        worker: &WorkerId,
        queues: &[QueueName],
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.write(self.inner.claim_next(worker, queues, now, ttl)).await?
    }

    async fn claim(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.write(self.inner.claim(run, worker, now, ttl)).await?
    }

    async fn claim_idle(
        &self,
        run: &RunId,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.write(self.inner.claim_idle(run, worker, now, ttl)).await?
    }

    async fn renew(&self, run: &RunId, epoch: Epoch, now: Timestamp, ttl: Duration) -> Result<()> {
        self.read()?;
        self.hold(false).await;
        self.inner.renew(run, epoch, now, ttl).await
    }
}

#[async_trait]
impl Commits for MortalStore {
    async fn create_run(&self, run: NewRun, at: Timestamp) -> Result<bool> {
        self.write(self.inner.create_run(run, at)).await?
    }

    async fn create_claimed(
        &self,
        run: NewRun,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        self.write(self.inner.create_claimed(run, worker, now, ttl)).await?
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        let Some(observer) = &self.observer else {
            return self.write(self.inner.commit(commit)).await?;
        };
        let committed = self.write(self.inner.commit(commit.clone())).await??;
        observer(&commit);
        Ok(committed)
    }

    async fn raise_limit(&self, run: &RunId, limit: Limit, at: Timestamp) -> Result<Limit> {
        self.write(self.inner.raise_limit(run, limit, at)).await?
    }

    async fn signals(&self, run: &RunId) -> Result<Vec<Signal>> {
        self.read()?;
        self.inner.signals(run).await
    }

    async fn signal(
        &self,
        run: &RunId,
        key: Option<&str>,
        kind: SignalKind,
        at: Timestamp,
    ) -> Result<bool> {
        self.write(self.inner.signal(run, key, kind, at)).await?
    }
}

#[async_trait]
impl Journal for MortalStore {
    async fn entries(&self, run: &RunId, step: &StepId) -> Result<Vec<Entry>> {
        self.read()?;
        self.inner.entries(run, step).await
    }

    async fn begin(
        &self,
        key: EntryKey,
        intent: Value,
        reserve: Spend,
        at: Timestamp,
    ) -> Result<Begun> {
        self.write(self.inner.begin(key, intent, reserve, at)).await?
    }

    async fn finish(
        &self,
        key: EntryKey,
        result: Arc<Value>,
        spend: Spend,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        self.write(self.inner.finish(key, result, spend, events, at)).await?
    }

    async fn note(
        &self,
        run: &RunId,
        epoch: Epoch,
        events: Vec<NewEvent>,
        at: Timestamp,
    ) -> Result<Vec<Event>> {
        self.write(self.inner.note(run, epoch, events, at)).await?
    }
}

#[async_trait]
impl Questions for MortalStore {
    async fn answer(
        &self,
        block: &BlockId,
        value: Arc<Value>,
        by: Answerer,
        at: Timestamp,
    ) -> std::result::Result<Block, AnswerError> {
        self.write(self.inner.answer(block, value, by, at)).await?
    }

    async fn block(&self, block: &BlockId) -> Result<Option<Block>> {
        self.read()?;
        self.inner.block(block).await
    }

    async fn blocks(&self, run: Option<&RunId>, status: Option<BlockStatus>) -> Result<Vec<Block>> {
        self.read()?;
        self.inner.blocks(run, status).await
    }
}

#[async_trait]
impl History for MortalStore {
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>> {
        self.read()?;
        self.inner.run(run).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        self.read()?;
        self.inner.runs(filter).await
    }

    async fn events(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        self.read()?;
        self.inner.events(run, after, limit).await
    }

    async fn checkpoint(&self, run: &RunId, seq: Option<u64>) -> Result<Option<Checkpoint>> {
        self.read()?;
        self.inner.checkpoint(run, seq).await
    }

    async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> Result<Vec<CheckpointInfo>> {
        self.read()?;
        self.inner.checkpoints(run, filter).await
    }

    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>> {
        self.read()?;
        self.inner.steps(run).await
    }
}

#[async_trait]
impl Archive for MortalStore {
    async fn fork(&self, fork: Fork, at: Timestamp) -> Result<bool> {
        self.write(self.inner.fork(fork, at)).await?
    }

    async fn edit(&self, edit: Edit, at: Timestamp) -> std::result::Result<u64, EditError> {
        self.write(self.inner.edit(edit, at)).await?
    }

    async fn copy_run(&self, copy: CopyRun, at: Timestamp) -> Result<bool> {
        self.write(self.inner.copy_run(copy, at)).await?
    }

    async fn delete_run(&self, run: &RunId) -> std::result::Result<u64, DeleteError> {
        self.write(self.inner.delete_run(run)).await?
    }

    async fn prune(
        &self,
        retention: &Retention,
        only: Option<&[RunId]>,
        now: Timestamp,
    ) -> Result<Pruned> {
        self.write(self.inner.prune(retention, only, now)).await?
    }
}

#[async_trait]
impl Graphs for MortalStore {
    async fn put_graph(&self, graph: GraphText) -> Result<()> {
        self.write(self.inner.put_graph(graph)).await?
    }

    async fn graph(&self, hash: &GraphHash) -> Result<Option<GraphText>> {
        self.read()?;
        self.inner.graph(hash).await
    }
}

#[async_trait]
impl Records for MortalStore {
    async fn get(
        &self,
        namespace: &str,
        key: &str,
    ) -> std::result::Result<Option<Record>, records::Error> {
        self.read().map_err(|error| records::Error::Store(Box::new(error)))?;
        self.inner.get(namespace, key).await
    }

    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> std::result::Result<u64, records::Error> {
        let written = self.write(self.inner.put(namespace, key, expected, value)).await;
        written.map_err(|error| records::Error::Store(Box::new(error)))?
    }

    async fn list(
        &self,
        namespace: &str,
        prefix: &str,
    ) -> std::result::Result<Vec<Record>, records::Error> {
        self.read().map_err(|error| records::Error::Store(Box::new(error)))?;
        self.inner.list(namespace, prefix).await
    }
}

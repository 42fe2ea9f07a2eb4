//! The engine: starts runs, works on them, hears answers, signals and cancellations.
//!
//! An [`Engine`] is a handle: clone it freely. Several engines, in one process or many, may work
//! on one store; a run belongs to whoever holds its lease.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use swarm_core::escalation::{Answerer, Block};
use swarm_core::id::{BlockId, GraphHash, GraphName, InvalidId, QueueName, RunId, WorkerId};
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::port::store::{self, AnswerError, Claim, Commit, GraphText, SignalKind, Store};
use swarm_core::run::{Limit, NewRun, RunRecord, RunStatus};
use swarm_core::time::Timestamp;
use thiserror::Error;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::drive::Session;
use crate::graph::Graph;
use crate::library::{self, Library};
use crate::live::{Live, LiveEvent};
use crate::pool::Pools;
use crate::signal;
use crate::system::{SystemClock, SystemEntropy};
use crate::worker::POLL;

/// The lease's length unless set otherwise; renewed at three tenths, given up at eight.
pub const LEASE_TTL: Duration = Duration::from_secs(10);

/// How long a text that was put into the store is taken to be there: far less than what a prune
/// leaves to whoever is about to start a run of it.
const KEEP_AGAIN: Duration = Duration::from_secs(60 * 60);

/// Runs graphs on a store.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Parts>,
}

struct Parts {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    library: Arc<Library>,
    live: Live,
    pools: Pools,
    /// Changes whenever a run may have become claimable.
    woken: watch::Sender<u64>,
    lease_ttl: Duration,
    /// Versions whose text is known to be in the store, and when it was last put there.
    kept: Mutex<BTreeMap<GraphHash, Timestamp>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("graphs", &self.parts.library.names())
            .finish_non_exhaustive()
    }
}

/// How to start a run.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The queue whose workers may claim it.
    pub queue: QueueName,
    /// Higher is claimed first.
    pub priority: i32,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// Narrows the graph's own budget; `None` leaves it.
    pub limit: Option<Limit>,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            queue: QueueName::new("default").expect("`default` is a queue name"),
            priority: 0,
            labels: BTreeMap::new(),
            limit: None,
        }
    }
}

/// Stops a worker: gently, or at once.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// No new superstep begins; what is at work may end.
    pub drain: CancellationToken,
    /// What is at work is stopped, and its run handed back.
    pub halt: CancellationToken,
}

/// How work on a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Driven {
    /// It waits for an answer, a signal, a child or a moment.
    Waiting {
        /// When it wakes in any case.
        wake_at: Option<Timestamp>,
    },
    /// It ended.
    Ended(RunStatus),
    /// It was handed back: the worker drains.
    Released,
    /// Another worker has it.
    Lost,
}

/// Why a run was not started or worked on.
#[derive(Debug, Error)]
pub enum Error {
    /// The input does not fit the graph.
    #[error("{0}")]
    BadInput(String),
    /// No graph of this name is loaded.
    #[error("no graph named `{name}`; known: {}", .known.join(", "))]
    UnknownGraph {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The version that a run is pinned to is not in the store.
    #[error("run `{run}` is pinned to graph version {hash}, which the store does not hold")]
    MissingVersion {
        /// The run.
        run: RunId,
        /// The version.
        hash: GraphHash,
    },
    /// The version that a run is pinned to does not load with the node kinds of this program.
    #[error("run `{run}` is pinned to a graph version that does not load here")]
    Unloadable {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        defects: Box<crate::defect::Defects>,
    },
    /// An id cannot be made.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why an answer was not taken.
#[derive(Debug, Error)]
pub enum AnswerRefused {
    /// It does not fit the question's schema; the block stays open.
    #[error("the answer does not fit the question: {0}")]
    Misfit(String),
    /// The block cannot take it.
    #[error(transparent)]
    Block(#[from] AnswerError),
}

/// Why a signal was not sent.
#[derive(Debug, Error)]
pub enum SignalRefused {
    /// The run's graph declares its signals, and this is none of them.
    #[error("graph `{graph}` knows no signal `{name}`{}", .help.as_ref().map(|help| format!(": {help}")).unwrap_or_default())]
    Unknown {
        /// The graph.
        graph: GraphName,
        /// The name.
        name: String,
        /// What would be right.
        help: Option<String>,
    },
    /// The payload does not fit what the graph declares.
    #[error("the payload does not fit signal `{name}` of graph `{graph}`: {why}")]
    Misfit {
        /// The graph.
        graph: GraphName,
        /// The name.
        name: String,
        /// What does not fit, each with its place.
        why: String,
    },
    /// The run's graph cannot be had, or the store failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl From<store::Error> for SignalRefused {
    fn from(error: store::Error) -> Self {
        Self::Engine(Error::Store(error))
    }
}

impl Engine {
    /// An engine over these parts, with leases of [`LEASE_TTL`].
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        library: Arc<Library>,
    ) -> Self {
        Self::with_lease(store, clock, entropy, library, LEASE_TTL)
    }

    /// An engine on a store, with this machine's clock and chance.
    #[must_use]
    pub fn on(store: impl Store + 'static, library: Library) -> Self {
        Self::new(
            Arc::new(store),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy),
            Arc::new(library),
        )
    }

    /// As [`new`](Self::new), with leases of `lease_ttl`.
    #[must_use]
    pub fn with_lease(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        library: Arc<Library>,
        lease_ttl: Duration,
    ) -> Self {
        let parts = Parts {
            store,
            clock,
            entropy,
            library,
            live: Live::default(),
            pools: Pools::default(),
            woken: watch::Sender::new(0),
            lease_ttl,
            kept: Mutex::default(),
        };
        Self { parts: Arc::new(parts) }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.parts.clock
    }

    /// The loaded graphs.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.parts.library
    }

    /// A reader of all that happens in this engine from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<LiveEvent> {
        self.parts.live.subscribe()
    }

    /// Starts a run of the newest version of a graph. `false`: a run of this id is there already.
    ///
    /// # Errors
    /// [`Error::UnknownGraph`], [`Error::BadInput`], or the store's failure.
    pub async fn start(
        &self,
        id: RunId,
        graph: &str,
        input: Value,
        options: StartOptions,
    ) -> Result<bool, Error> {
        let new = self.new_run(id, graph, input, options).await?;
        let is_new = self.parts.store.create_run(new, self.parts.clock.now()).await?;
        crash_point!("start:created");
        self.wake();
        Ok(is_new)
    }

    async fn new_run(
        &self,
        id: RunId,
        graph: &str,
        input: Value,
        options: StartOptions,
    ) -> Result<NewRun, Error> {
        let library = self.library();
        let graph = library.named(graph).ok_or_else(|| Error::UnknownGraph {
            name: graph.to_owned(),
            known: library.names(),
        })?;
        library::check_input(&graph, &input).map_err(Error::BadInput)?;
        self.keep(&graph).await?;
        crash_point!("start:graph-kept");
        Ok(NewRun {
            id,
            graph: graph.name().clone(),
            graph_hash: graph.hash().clone(),
            queue: options.queue,
            input: Arc::new(input),
            parent: None,
            priority: options.priority,
            labels: options.labels,
            limit: options.limit.unwrap_or_else(|| library::limit_of(&graph)),
        })
    }

    /// Starts a run and works on it until it rests: [`start`](Self::start) and
    /// [`work_on`](Self::work_on), but created and claimed in one transaction, so that no other
    /// worker gets it meanwhile. A run of this id that is there already is worked on as it is.
    ///
    /// # Errors
    /// Those of both.
    pub async fn run(
        &self,
        id: RunId,
        graph: &str,
        input: Value,
        options: StartOptions,
        worker: &WorkerId,
        control: &Control,
    ) -> Result<Driven, Error> {
        let new = self.new_run(id.clone(), graph, input, options).await?;
        let (store, now) = (&self.parts.store, self.parts.clock.now());
        let claim = store.create_claimed(new, worker, now, self.parts.lease_ttl).await?;
        crash_point!("run:created");
        if let Some(claim) = claim {
            match self.drive(claim, control.clone()).await? {
                Driven::Lost => {}
                rest => return Ok(rest),
            }
        }
        self.work_on(&id, worker, control).await
    }

    /// Claims the most urgent run of these queues.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn claim_next(
        &self,
        worker: &WorkerId,
        queues: &[QueueName],
    ) -> store::Result<Option<Claim>> {
        let now = self.parts.clock.now();
        let claim = self.parts.store.claim_next(worker, queues, now, self.parts.lease_ttl).await;
        crash_point!("claim:claimed");
        claim
    }

    /// Claims this run, if it is claimable.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn claim(&self, run: &RunId, worker: &WorkerId) -> store::Result<Option<Claim>> {
        let now = self.parts.clock.now();
        let claim = self.parts.store.claim(run, worker, now, self.parts.lease_ttl).await;
        crash_point!("claim:claimed");
        claim
    }

    /// Works on a claimed run until it rests.
    ///
    /// # Errors
    /// When its graph cannot be had, or the store fails; the run is then free again once its
    /// lease ends.
    pub async fn drive(&self, claim: Claim, control: Control) -> Result<Driven, Error> {
        let graph = self.graph_of(&claim.run).await?;
        Ok(Box::pin(Session::new(self, graph, claim, control).drive()).await?)
    }

    /// Works on one run until it rests: claims it as soon as that is possible, which after the
    /// death of another worker is when its lease ends, and drives it. A run that waits for a
    /// moment rests as well: call again at its `wake_at`. Runs that it starts are left to whoever
    /// serves their queues, such as a [`Worker`](crate::worker::Worker).
    ///
    /// # Errors
    /// As for [`drive`](Self::drive); [`store::Error::NotFound`] when there is no such run.
    pub async fn work_on(
        &self,
        run: &RunId,
        worker: &WorkerId,
        control: &Control,
    ) -> Result<Driven, Error> {
        let mut woken = self.woken();
        loop {
            woken.mark_unchanged();
            if let Some(claim) = self.claim(run, worker).await? {
                match self.drive(claim, control.clone()).await? {
                    Driven::Lost => {}
                    rest => return Ok(rest),
                }
            }
            let found = self.store().run(run).await?;
            let found =
                found.ok_or_else(|| store::Error::NotFound { what: "run", id: run.to_string() })?;
            match found.status {
                RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => {
                    return Ok(Driven::Ended(found.status));
                }
                RunStatus::Waiting => return Ok(Driven::Waiting { wake_at: found.wake_at }),
                RunStatus::Ready | RunStatus::Running => {}
            }
            tokio::select! {
                _ = woken.changed() => {}
                () = self.clock().sleep(POLL) => {}
                () = control.drain.cancelled() => return Ok(Driven::Released),
            }
        }
    }

    /// Answers a question. The answer must fit the question's schema.
    ///
    /// # Errors
    /// [`AnswerRefused`] when it does not fit, or when the block is unknown, withdrawn, or was
    /// answered differently before.
    pub async fn answer(
        &self,
        block: &BlockId,
        value: Value,
        by: Answerer,
    ) -> Result<Block, AnswerRefused> {
        let store = &self.parts.store;
        let asked = store
            .block(block)
            .await
            .map_err(AnswerError::from)?
            .ok_or_else(|| AnswerError::Unknown(block.clone()))?;
        library::fits(&asked.ask.answer_schema, &value).map_err(AnswerRefused::Misfit)?;
        crash_point!("answer:checked");
        let answered = store.answer(block, Arc::new(value), by, self.parts.clock.now()).await?;
        crash_point!("answer:stored");
        self.wake();
        Ok(answered)
    }

    /// Sends a signal to a run. `key` makes it idempotent. `false`: sent before, or the run has
    /// ended.
    ///
    /// # Errors
    /// [`SignalRefused`] when the run's graph declares its signals and this is none of them, or
    /// when the store fails.
    pub async fn signal(
        &self,
        run: &RunId,
        key: Option<&str>,
        name: &str,
        payload: Value,
    ) -> Result<bool, SignalRefused> {
        if let Some(graph) = self.typed_graph_of(run).await?
            && let Some(signals) = graph.signals()
        {
            let (graph, name) = (graph.name().clone(), name.to_owned());
            signal::check(signals, &name, &payload).map_err(|misfit| match misfit {
                signal::Misfit::Unknown(help) => {
                    SignalRefused::Unknown { graph: graph.clone(), name: name.clone(), help }
                }
                signal::Misfit::Payload(why) => {
                    SignalRefused::Misfit { graph: graph.clone(), name: name.clone(), why }
                }
            })?;
        }
        let kind = SignalKind::Named { name: name.to_owned(), payload: Arc::new(payload) };
        Ok(self.send(run, key, kind).await?)
    }

    /// The graph of a run, if it declares signals: others need not load in this program.
    async fn typed_graph_of(&self, run: &RunId) -> Result<Option<Arc<Graph>>, Error> {
        let found = self.parts.store.run(run).await?;
        let found =
            found.ok_or_else(|| store::Error::NotFound { what: "run", id: run.to_string() })?;
        if self.library().by_hash(&found.start.graph_hash).is_none() {
            let text = self.parts.store.graph(&found.start.graph_hash).await?;
            if text.is_some_and(|graph| !crate::check::signals::declares_any(&graph.text)) {
                return Ok(None);
            }
        }
        self.graph_of(&found).await.map(Some)
    }

    /// Asks a run and all it started to stop; [`end_cancelled`](Self::end_cancelled) ends those
    /// that nobody works on. `false`: it has ended.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn cancel(&self, run: &RunId, by: &str) -> store::Result<bool> {
        self.send(run, Some("cancel"), SignalKind::Cancel { by: by.to_owned() }).await
    }

    /// Changes whenever a run may have become claimable by something in this process. What
    /// happens between two looks is not missed.
    #[must_use]
    pub fn woken(&self) -> watch::Receiver<u64> {
        self.parts.woken.subscribe()
    }

    /// Tells the workers of this process that a run may have become claimable elsewhere, such as
    /// when a store hears it from another process.
    pub fn wake(&self) {
        self.parts.woken.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn send(&self, run: &RunId, key: Option<&str>, kind: SignalKind) -> store::Result<bool> {
        let sent = self.parts.store.signal(run, key, kind, self.parts.clock.now()).await?;
        crash_point!("signal:stored");
        self.wake();
        Ok(sent)
    }

    /// The version that a run is pinned to.
    pub(crate) async fn graph_of(&self, run: &RunRecord) -> Result<Arc<Graph>, Error> {
        let hash = &run.start.graph_hash;
        if let Some(graph) = self.library().by_hash(hash) {
            return Ok(graph);
        }
        let id = || run.start.id.clone();
        let text = self
            .parts
            .store
            .graph(hash)
            .await?
            .ok_or_else(|| Error::MissingVersion { run: id(), hash: hash.clone() })?;
        let graph = crate::check::load_text(&text.text, self.library().registry())
            .map_err(|defects| Error::Unloadable { run: id(), defects: Box::new(defects) })?;
        Ok(self.library().add_version(graph))
    }

    /// Makes sure that the store holds this version's text.
    pub(crate) async fn keep(&self, graph: &Graph) -> store::Result<()> {
        let now = self.parts.clock.now();
        let kept =
            self.parts.kept.lock().expect("no panic while locked").get(graph.hash()).copied();
        if kept.is_some_and(|kept| now.since(kept) < KEEP_AGAIN) {
            return Ok(());
        }
        let text = GraphText {
            hash: graph.hash().clone(),
            name: graph.name().clone(),
            version: graph.version().to_owned(),
            text: graph.text().to_owned(),
        };
        self.parts.store.put_graph(text).await?;
        self.parts.kept.lock().expect("no panic while locked").insert(graph.hash().clone(), now);
        Ok(())
    }

    pub(crate) async fn commit(&self, commit: Commit) -> store::Result<()> {
        let committed = self.parts.store.commit(commit).await?;
        self.parts.live.stored(committed.events);
        if !committed.woken.is_empty() {
            self.wake();
        }
        Ok(())
    }

    pub(crate) fn live(&self) -> &Live {
        &self.parts.live
    }

    pub(crate) fn pools(&self) -> &Pools {
        &self.parts.pools
    }

    pub(crate) fn lease_ttl(&self) -> Duration {
        self.parts.lease_ttl
    }

    /// A random number in 0..=1, for jitter.
    #[expect(clippy::cast_precision_loss, reason = "53 random bits are exact")]
    pub(crate) fn chance(&self) -> f64 {
        (self.parts.entropy.next_u64() >> 11) as f64 / ((1_u64 << 53) - 1) as f64
    }
}

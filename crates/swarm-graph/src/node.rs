//! Nodes: what they implement and what they are given.
//!
//! A node is run again from its first line after a crash, a retry or an answer. What must not
//! happen twice goes through its [`NodeContext`]: [`memo`](NodeContext::memo) for anything costly
//! or non-deterministic, [`spend`](NodeContext::spend) for what costs money,
//! [`effect`](NodeContext::effect) for what changes the world, [`ask`](NodeContext::ask) for what
//! only a person knows. Each returns at once what an earlier attempt stored under the same key.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::escalation::{Answerer, Ask, Block, BlockStatus, Reason, Request};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, NodeName, RunId, StepId};
use swarm_core::port::clock::Clock;
use swarm_core::port::store::{self, Begun, Entry, EntryKey, Store};
use swarm_core::run::{Epoch, Limit};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::first::First;
use crate::information::Flow;
use crate::live::Live;

/// The code behind a node, found by its kind.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// The name that `uses:` gives, such as `swarm/plan`.
    const KIND: &'static str;

    /// To be raised when the same input gives another output than before: what a `cache` keeps of
    /// lower versions is not used.
    const VERSION: u32 = 1;

    /// What it does with information; the loader refuses graphs in which that could let a secret
    /// out, or acts without a person's leave.
    const FLOW: Flow = Flow::NONE;

    /// What `config:` holds; decoded when the graph is loaded.
    type Config: DeserializeOwned + JsonSchema + Send;
    /// What `with:` gives.
    type Input: DeserializeOwned + JsonSchema + Send;
    /// What it returns: each field that names a channel of the state updates that channel,
    /// unless the node has a `set:`.
    type Output: Serialize + JsonSchema + Send;

    /// Does the work of one step.
    async fn run(&self, ctx: &NodeContext, input: Self::Input) -> Result<Self::Output, NodeError>;
}

/// `config:` of a node kind that has nothing to set: any key in it is a defect.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// How a node ends when not with an output.
#[derive(Debug)]
pub enum NodeError {
    /// It failed; retry and `catch` decide what follows.
    Failed(Failure),
    /// It asked a person and waits. Only passed on.
    Asked,
    /// The run is being cancelled, drained or was lost to another worker. Only passed on.
    Cancelled,
    /// The store failed. Only passed on.
    Store(store::Error),
}

impl From<Failure> for NodeError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<std::io::Error> for NodeError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<store::Error> for NodeError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Fenced { .. } => Self::Cancelled,
            store::Error::NotFound { .. }
            | store::Error::Invalid { .. }
            | store::Error::Corrupt { .. }
            | store::Error::Unknown(_)
            | store::Error::Backend(_) => Self::Store(error),
        }
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::Asked => f.write_str("waits for a person"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for NodeError {}

/// What a probe found out about an effect whose result was lost.
#[derive(Debug)]
pub enum Probe<T> {
    /// It happened, and gave this.
    Landed(T),
    /// It did not happen.
    DidNotHappen,
    /// Nobody can tell; a person is asked. Holds what makes it doubtful.
    InDoubt(String),
}

/// What is the same for all steps of a claimed run.
pub(crate) struct RunScope {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) live: Live,
    pub(crate) run: RunId,
    pub(crate) epoch: Epoch,
    /// From this moment (in milliseconds) on another worker may have the run, unless the lease
    /// is renewed before.
    pub(crate) fence_at: AtomicI64,
    /// Whether the run's first checkpoint is stored: what a step writes by itself comes after it.
    pub(crate) first: First,
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether a call over the limit asks a person, or fails.
    pub(crate) asks_when_over_budget: bool,
}

/// What a node is given: its place, its journal, its voice.
pub struct NodeContext {
    scope: Arc<RunScope>,
    step: StepId,
    node: NodeName,
    visit: u32,
    attempt: u32,
    cancelled: CancellationToken,
    journal: tokio::sync::Mutex<Option<HashMap<String, Entry>>>,
    asked: Mutex<Vec<Block>>,
    active_at: AtomicI64,
    /// Whether it changed the world or asked a person: then its output is its own alone.
    has_acted: AtomicBool,
}

impl fmt::Debug for NodeContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeContext")
            .field("run", &self.scope.run)
            .field("step", &self.step)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl NodeContext {
    pub(crate) fn new(
        scope: Arc<RunScope>,
        step: StepId,
        node: NodeName,
        visit: u32,
        attempt: u32,
        cancelled: CancellationToken,
    ) -> Self {
        let now = scope.clock.now().as_millis();
        Self {
            scope,
            step,
            node,
            visit,
            attempt,
            cancelled,
            journal: tokio::sync::Mutex::new(None),
            asked: Mutex::new(Vec::new()),
            active_at: AtomicI64::new(now),
            has_acted: AtomicBool::new(false),
        }
    }

    /// The run.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.scope.run
    }

    /// The run that no other run started, above this one or itself.
    #[must_use]
    pub fn root_id(&self) -> RunId {
        let text = self.scope.run.as_str();
        let root = text.split_once('.').map_or(text, |(root, _)| root);
        RunId::new(root).expect("a part of a run id up to its first dot is a run id")
    }

    /// The step: the same over attempts, restarts and machines.
    #[must_use]
    pub fn step(&self) -> &StepId {
        &self.step
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The how-manieth activation of the node in this run, from 1.
    #[must_use]
    pub fn visit(&self) -> u32 {
        self.visit
    }

    /// The how-manieth attempt of this step, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The run's labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.scope.labels
    }

    /// This moment. Not journaled: use [`memo`](Self::memo) where it must stay the same.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.scope.clock.now()
    }

    /// Fires when the step must stop: cancelled, drained, timed out or fenced.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// The result of `f`, computed once: a later attempt gets the stored one.
    ///
    /// # Errors
    /// What `f` returns, which is not stored; or the store's failure.
    pub async fn memo<T, F, Fut>(&self, key: &str, f: F) -> Result<T, NodeError>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, NodeError>>,
    {
        if let Some(stored) = self.stored(key).await? {
            return self.decode(key, &stored);
        }
        let value = f().await?;
        crash_point!("memo:computed");
        self.finish(key, &value, Spend::default()).await?;
        crash_point!("memo:stored");
        Ok(value)
    }

    /// The result of `f`, computed and paid once. `reserve` is what it may cost at the most;
    /// `f` returns what it did cost. When a limit does not allow the reservation, a person is
    /// asked to raise it, and the run waits.
    ///
    /// # Errors
    /// As for [`memo`](Self::memo), and [`NodeError::Asked`] while over the limit.
    pub async fn spend<T, F, Fut>(&self, key: &str, reserve: Spend, f: F) -> Result<T, NodeError>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<(T, Spend), NodeError>>,
    {
        if let Some(stored) = self.stored(key).await? {
            return self.decode(key, &stored);
        }
        self.scope.first.stored().await;
        let mut raised = 0_u32;
        loop {
            let begun = self
                .scope
                .store
                .begin(self.entry_key(key), Value::Null, reserve, self.now())
                .await?;
            match begun {
                Begun::New | Begun::Existing(Entry { result: None, .. }) => break,
                Begun::Existing(Entry { result: Some(result), .. }) => {
                    return self.decode(key, &result);
                }
                Begun::OverLimit { run, .. } if !self.scope.asks_when_over_budget => {
                    return Err(
                        Failure::fatal("budget", format!("run `{run}` is over its limit")).into()
                    );
                }
                Begun::OverLimit { run, limit, used } => {
                    self.ask_for_budget(
                        &format!("budget/{key}/{raised}"),
                        &run,
                        limit,
                        used,
                        reserve,
                    )
                    .await?;
                    raised += 1;
                }
            }
        }
        crash_point!("spend:reserved");
        self.check_fence()?;
        let (value, spent) = f().await?;
        crash_point!("spend:spent");
        self.finish(key, &value, spent).await?;
        crash_point!("spend:booked");
        Ok(value)
    }

    /// A change of the world that happens once. `intent` says what is meant to be done and is
    /// durable before `act` begins. After a crash between the two, `probe` finds out whether it
    /// happened; only if it did not is `act` called again; if nobody can tell, a person is asked.
    ///
    /// # Errors
    /// What `probe` or `act` return; [`NodeError::Asked`] while in doubt; the store's failure.
    pub async fn effect<T, P, PF, A, AF>(
        &self,
        key: &str,
        intent: Value,
        probe: P,
        act: A,
    ) -> Result<T, NodeError>
    where
        T: Serialize + DeserializeOwned,
        P: FnOnce() -> PF,
        PF: Future<Output = Result<Probe<T>, NodeError>>,
        A: FnOnce() -> AF,
        AF: Future<Output = Result<T, NodeError>>,
    {
        self.has_acted.store(true, Ordering::Relaxed);
        if let Some(stored) = self.stored(key).await? {
            return self.decode(key, &stored);
        }
        self.scope.first.stored().await;
        let begun = self
            .scope
            .store
            .begin(self.entry_key(key), intent, Spend::default(), self.now())
            .await?;
        crash_point!("effect:intended");
        let value = match begun {
            Begun::New => {
                self.check_fence()?;
                act().await?
            }
            Begun::Existing(Entry { result: Some(result), .. }) => {
                return self.decode(key, &result);
            }
            Begun::Existing(Entry { result: None, intent, .. }) => match probe().await? {
                Probe::Landed(value) => value,
                Probe::DidNotHappen => {
                    self.check_fence()?;
                    act().await?
                }
                Probe::InDoubt(why) => {
                    self.ask_about_doubt(key, &intent, &why).await?;
                    self.check_fence()?;
                    act().await?
                }
            },
            Begun::OverLimit { .. } => {
                return Err(Failure::fatal("budget", "the run is over its limit").into());
            }
        };
        crash_point!("effect:acted");
        self.finish(key, &value, Spend::default()).await?;
        crash_point!("effect:stored");
        Ok(value)
    }

    /// Asks a person and stops until the answer is there; then the node is run again from its
    /// start and this returns the answer. The answer fits the question's schema.
    ///
    /// # Errors
    /// [`NodeError::Asked`] until answered; a fatal failure of class `bad_answer` when the answer
    /// does not decode as `T`.
    pub async fn ask<T: DeserializeOwned>(&self, key: &str, ask: Ask) -> Result<T, NodeError> {
        self.ask_person(key, ask).await.map(|(answer, _)| answer)
    }

    /// As [`ask`](Self::ask), with who answered.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub async fn ask_person<T: DeserializeOwned>(
        &self,
        key: &str,
        ask: Ask,
    ) -> Result<(T, Answerer), NodeError> {
        self.has_acted.store(true, Ordering::Relaxed);
        let id = BlockId::new(format!("{}.{}:{key}", self.scope.run, self.step))
            .map_err(|error| Failure::fatal("bad_key", error.to_string()))?;
        let block = match self.scope.store.block(&id).await? {
            Some(Block { status: BlockStatus::Answered, answer, answered_by, .. }) => {
                let answer = answer.unwrap_or_default();
                let by = answered_by.ok_or_else(|| {
                    Failure::fatal("bad_answer", format!("block `{id}` is answered by nobody"))
                })?;
                let answer = serde_json::from_value(answer).map_err(|error| {
                    Failure::fatal(
                        "bad_answer",
                        format!("the answer to `{id}` does not decode: {error}"),
                    )
                })?;
                return Ok((answer, by));
            }
            Some(Block { status: BlockStatus::Withdrawn, .. }) => {
                return Err(
                    Failure::fatal("withdrawn", format!("block `{id}` was withdrawn")).into()
                );
            }
            Some(open) => open,
            None => Block::open(id, self.scope.run.clone(), self.step.clone(), ask, self.now()),
        };
        crash_point!("ask:asked");
        self.asked.lock().expect("no panic while locked").push(block);
        Err(NodeError::Asked)
    }

    /// Stores an event and streams it.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn emit(&self, kind: &'static str, data: Value) -> Result<(), NodeError> {
        self.touch();
        self.scope.first.stored().await;
        let event = NewEvent::step(EventKind::of(kind), &self.step, data);
        let events = self
            .scope
            .store
            .note(&self.scope.run, self.scope.epoch, vec![event], self.now())
            .await?;
        self.scope.live.stored(events);
        Ok(())
    }

    /// Streams a piece of text, such as a model's, without storing it.
    pub fn token(&self, text: &str) {
        self.touch();
        self.scope.first.want();
        self.scope.live.token(&self.scope.run, &self.step, text);
    }

    /// When the step last showed a sign of life: what an idle timeout is measured from.
    pub(crate) fn active_at(&self) -> Timestamp {
        Timestamp(self.active_at.load(Ordering::Relaxed))
    }

    /// Whether the attempt made no effect and asked nobody.
    pub(crate) fn is_pure(&self) -> bool {
        !self.has_acted.load(Ordering::Relaxed)
    }

    /// The questions that this attempt ran into.
    pub(crate) fn take_asked(&self) -> Vec<Block> {
        std::mem::take(&mut *self.asked.lock().expect("no panic while locked"))
    }

    /// Refuses to act for a run that may be another's by now: a process that stood still does
    /// not know what happened meanwhile, and the store cannot undo what it would do outside.
    fn check_fence(&self) -> Result<(), NodeError> {
        if self.now().as_millis() >= self.scope.fence_at.load(Ordering::SeqCst) {
            return Err(NodeError::Cancelled);
        }
        Ok(())
    }

    pub(crate) fn touch(&self) {
        self.active_at.store(self.now().as_millis(), Ordering::Relaxed);
    }

    fn entry_key(&self, key: &str) -> EntryKey {
        EntryKey {
            run: self.scope.run.clone(),
            epoch: self.scope.epoch,
            step: self.step.clone(),
            key: key.to_owned(),
        }
    }

    /// The result stored under a key. The step's journal is read once per attempt.
    async fn stored(&self, key: &str) -> Result<Option<Arc<Value>>, NodeError> {
        self.touch();
        if self.cancelled.is_cancelled() {
            return Err(NodeError::Cancelled);
        }
        let mut journal = self.journal.lock().await;
        if journal.is_none() {
            let entries = self.scope.store.entries(&self.scope.run, &self.step).await?;
            *journal = Some(entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect());
        }
        Ok(journal
            .as_ref()
            .and_then(|journal| journal.get(key))
            .and_then(|entry| entry.result.clone()))
    }

    async fn finish<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        spent: Spend,
    ) -> Result<(), NodeError> {
        let value = serde_json::to_value(value).map_err(|error| {
            Failure::fatal("unserialisable", format!("the result of `{key}` is no JSON: {error}"))
        })?;
        let result = Arc::new(value);
        self.scope.first.stored().await;
        let now = self.now();
        self.scope
            .store
            .finish(self.entry_key(key), result.clone(), spent, Vec::new(), now)
            .await?;
        self.touch();
        if let Some(journal) = self.journal.lock().await.as_mut() {
            let entry = Entry {
                key: key.to_owned(),
                intent: Value::Null,
                reserved: Spend::default(),
                result: Some(result),
            };
            journal.insert(key.to_owned(), entry);
        }
        Ok(())
    }

    fn decode<T: DeserializeOwned>(&self, key: &str, stored: &Value) -> Result<T, NodeError> {
        T::deserialize(stored).map_err(|error| {
            Failure::fatal(
                "journal_mismatch",
                format!("what `{}` stored under `{key}` does not decode: {error}", self.step),
            )
            .into()
        })
    }

    async fn ask_for_budget(
        &self,
        key: &str,
        run: &RunId,
        limit: Limit,
        used: Spend,
        reserve: Spend,
    ) -> Result<(), NodeError> {
        let answer: BudgetAnswer = self.ask(key, budget_ask(run, limit, used, reserve)).await?;
        let BudgetChoice::Raise = answer.choice else {
            return Err(Failure::fatal("budget", format!("run `{run}` is over its limit")).into());
        };
        let raised = Limit {
            usd: limit
                .usd
                .map(|old| answer.usd.map_or(UsdMicros(old.0 * 2), UsdMicros::from_dollars)),
            tokens: limit.tokens.map(|old| answer.tokens.unwrap_or(old * 2)),
        };
        self.scope.store.raise_limit(run, raised, self.now()).await?;
        Ok(())
    }

    async fn ask_about_doubt(&self, key: &str, intent: &Value, why: &str) -> Result<(), NodeError> {
        let question = format!(
            "The effect `{key}` of step `{}` was begun before a crash, and whether it happened cannot be \
             told: {why}. Look at the other side, then choose: `repeat` does it again, `stop` fails the step.",
            self.step
        );
        let ask = Ask::choice(Reason::EffectInDoubt, question, &["repeat", "stop"])
            .with_context(json!({ "intent": intent, "why": why }));
        // An answer allows one repetition. The repetition leaves an intent of its own, so that a
        // crash in it asks again.
        for nth in 1_u32.. {
            let name = format!("in-doubt/{key}/{nth}");
            let answer: DoubtAnswer = self.ask(&name, ask.clone()).await?;
            if let DoubtChoice::Stop = answer.choice {
                let message = format!("effect `{key}` stopped by a person");
                return Err(Failure::fatal("in_doubt", message).into());
            }
            let begin = self.scope.store.begin(
                self.entry_key(&name),
                Value::Null,
                Spend::default(),
                self.now(),
            );
            if !matches!(begin.await?, Begun::Existing(_)) {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct BudgetAnswer {
    choice: BudgetChoice,
    usd: Option<f64>,
    tokens: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum BudgetChoice {
    Raise,
    Stop,
}

#[derive(Deserialize)]
struct DoubtAnswer {
    choice: DoubtChoice,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum DoubtChoice {
    Repeat,
    Stop,
}

fn budget_ask(run: &RunId, limit: Limit, used: Spend, reserve: Spend) -> Ask {
    let usd = limit.usd.map_or("no limit".to_owned(), |usd| usd.to_string());
    let tokens = limit.tokens.map_or("no limit".to_owned(), |tokens| format!("{tokens} tokens"));
    let question = format!(
        "Run `{run}` has used {} and {} tokens of its limit ({usd}, {tokens}); the next call may need {} and {} \
         tokens. `raise` takes the new limits in total from `usd` and `tokens`, or doubles them; `stop` fails the step.",
        used.usd, used.tokens, reserve.usd, reserve.tokens
    );
    Ask {
        reason: Reason::Budget,
        requested_input: vec![Request::Decision {
            question: question.clone(),
            choices: vec!["raise".to_owned(), "stop".to_owned()],
        }],
        question,
        answer_schema: json!({
            "type": "object",
            "properties": {
                "choice": { "type": "string", "enum": ["raise", "stop"] },
                "usd": { "type": "number", "exclusiveMinimum": 0 },
                "tokens": { "type": "integer", "minimum": 1 },
                "comment": { "type": "string" }
            },
            "required": ["choice"],
            "additionalProperties": false
        }),
        context: json!({ "run": run, "limit": limit, "used": used, "reserve": reserve }),
    }
}

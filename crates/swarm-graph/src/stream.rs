//! What happens in a run, as it happens or later, in the modes of LangGraph: values, updates,
//! events, tokens.
//!
//! What a newcomer gets wrong: a stream reads the store, at the reader's pace. What is told live
//! only wakes it; so a slow reader slows no run and misses nothing that is stored, and a stream
//! that is opened after the run has ended gives the same as one that was there from the start,
//! except for tokens, which are never stored.
//!
//! ```
//! # use std::sync::Arc;
//! # use serde_json::{Value, json};
//! # use swarm_graph::engine::{Control, Engine, StartOptions};
//! # use swarm_graph::library::Library;
//! # use swarm_graph::registry::Registry;
//! # use swarm_graph::store::memory::MemoryStore;
//! # use swarm_graph::swarm_core::id::{RunId, WorkerId};
//! use swarm_graph::stream::{Mode, Part, Position};
//!
//! # const TEXT: &str = r#"
//! # dsl: 1
//! # graph: { name: nap, version: 1.0.0 }
//! # state: { channels: { naps: { schema: { type: integer }, reducer: sum, default: 0 } } }
//! # entry: nap
//! # nodes:
//! #   nap: { wait: { timeout: 1ms }, set: { naps: 1 }, next: $end }
//! # "#;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let registry = Registry::new();
//! # let graph = swarm_graph::check::load_text(TEXT, &registry)?;
//! # let engine = Engine::on(MemoryStore::new(), Library::new(registry).with(graph));
//! # let run = RunId::new("r")?;
//! # engine.start(run.clone(), "nap", Value::Null, StartOptions::default()).await?;
//! # for _ in 0..2 {
//! #     engine.work_on(&run, &WorkerId::new("me")?, &Control::default()).await?;
//! #     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
//! # }
//! let mut stream = engine.stream(&run, &[Mode::Values], Position::default());
//! let mut states = Vec::new();
//! while let Some(streamed) = stream.next().await? {
//!     // Kept somewhere, the position lets another stream go on behind this part.
//!     let _position = streamed.position.to_string();
//!     if let Part::Values { state, .. } = streamed.part {
//!         states.push(state["naps"].clone());
//!     }
//! }
//! assert_eq!(states.last(), Some(&json!(1)));
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use swarm_core::checkpoint::{State, StepEnding};
use swarm_core::event::{Event, EventKind};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, RunId, StepId};
use swarm_core::port::store;
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::engine::Engine;
use crate::live::LiveEvent;
use crate::worker::POLL;

/// How many events are read at once.
const BATCH: usize = 256;

/// What a stream gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The whole state after each superstep.
    Values,
    /// What each step gave, as it ends.
    Updates,
    /// Every stored event.
    Events,
    /// Pieces of text of steps at work in this process, as they come.
    Tokens,
}

/// How far a stream has been read: all that is stored up to here.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// The number of the last event.
    pub event: u64,
    /// How many checkpoints.
    pub checkpoints: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.event, self.checkpoints)
    }
}

/// A text that is no position.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is no position: write two numbers joined by `-`, as a stream gave them")]
pub struct NoPosition(String);

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let parsed = text.split_once('-').and_then(|(event, checkpoints)| {
            Some(Self { event: event.parse().ok()?, checkpoints: checkpoints.parse().ok()? })
        });
        parsed.ok_or_else(|| NoPosition(text.to_owned()))
    }
}

/// One thing that a stream gives.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// Where a later stream goes on behind it.
    pub position: Position,
    /// What it is.
    pub part: Part,
}

/// What a stream gives.
#[derive(Clone, Debug)]
pub enum Part {
    /// The state of the run's own graph after a superstep.
    Values {
        /// The number of the checkpoint.
        seq: u64,
        /// Each channel's value.
        state: Value,
    },
    /// A step has ended.
    Update {
        /// The step.
        step: StepId,
        /// Its output, the answer or the signal; or how it failed.
        result: Result<Arc<Value>, Failure>,
    },
    /// A stored event.
    Event(Arc<Event>),
    /// A piece of text.
    Token {
        /// The step.
        step: StepId,
        /// The text.
        text: Arc<str>,
    },
    /// The reader was so slow that this many live entries of all runs were dropped, perhaps
    /// tokens of this one among them. Nothing stored is missed.
    Missed(u64),
}

/// What happens in one run.
#[derive(Debug)]
pub struct RunStream {
    engine: Engine,
    run: RunId,
    modes: Vec<Mode>,
    position: Position,
    live: broadcast::Receiver<LiveEvent>,
    ready: VecDeque<Streamed>,
}

impl Engine {
    /// What happens in a run from `from` on, its beginning by default, until it ends. The run may
    /// be worked on here or elsewhere, may have ended, or may be started later.
    #[must_use]
    pub fn stream(&self, run: &RunId, modes: &[Mode], from: Position) -> RunStream {
        RunStream {
            engine: self.clone(),
            run: run.clone(),
            modes: modes.to_vec(),
            position: from,
            live: self.subscribe(),
            ready: VecDeque::new(),
        }
    }
}

impl RunStream {
    /// The next part; waits for it. `None` once the run has ended and all was given. Safe to drop
    /// while it waits.
    ///
    /// # Errors
    /// The store's failure; the next call tries again.
    pub async fn next(&mut self) -> store::Result<Option<Streamed>> {
        loop {
            if let Some(streamed) = self.ready.pop_front() {
                self.position = streamed.position;
                return Ok(Some(streamed));
            }
            // Asked first: what is stored after the end was stored with it.
            let has_ended = self.has_ended().await?;
            let before = self.position;
            self.read().await?;
            if !self.ready.is_empty() || self.position != before {
                continue;
            }
            if !has_ended {
                self.wait().await;
                continue;
            }
            self.hear_all();
            if self.ready.is_empty() {
                return Ok(None);
            }
        }
    }

    /// How far it was read.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    fn has(&self, mode: Mode) -> bool {
        self.modes.contains(&mode)
    }

    async fn has_ended(&self) -> store::Result<bool> {
        let run = self.engine.store().run(&self.run).await?;
        Ok(run.is_some_and(|run| run.status.is_final()))
    }

    /// Reads what was stored since. The position moves on with each part that is taken, and at
    /// once past events of which nothing is wanted.
    async fn read(&mut self) -> store::Result<()> {
        let mut position = self.position;
        let mut ready = VecDeque::new();
        if self.has(Mode::Events) || self.has(Mode::Updates) {
            let events = self.engine.store().events(&self.run, position.event, BATCH).await?;
            let outputs = self.outputs(&events).await?;
            for event in events {
                position.event = event.seq;
                let update = match self.has(Mode::Updates) {
                    true => self.update(&event, &outputs).await?,
                    false => None,
                };
                if self.has(Mode::Events) {
                    ready.push_back(Streamed { position, part: Part::Event(Arc::new(event)) });
                }
                ready.extend(update.map(|part| Streamed { position, part }));
            }
        }
        if self.has(Mode::Values) {
            while let Some((seq, state)) = self.values(position.checkpoints).await? {
                position.checkpoints = seq + 1;
                ready.push_back(Streamed { position, part: Part::Values { seq, state } });
                if ready.len() >= BATCH {
                    break;
                }
            }
        }
        if ready.is_empty() {
            self.position = position;
        }
        self.ready = ready;
        Ok(())
    }

    /// The state at the checkpoint of this number, or at the last one if that was pruned.
    async fn values(&self, seq: u64) -> store::Result<Option<(u64, Value)>> {
        let store = self.engine.store();
        let mut found = store.checkpoint(&self.run, Some(seq)).await?;
        if found.is_none() {
            let last = store.checkpoint(&self.run, None).await?;
            found = last.filter(|last| last.seq > seq);
        }
        Ok(found.map(|checkpoint| (checkpoint.seq, own(&checkpoint.state))))
    }

    /// How the steps of some events ended, as far as they are stored by themselves.
    async fn outputs(&self, events: &[Event]) -> store::Result<Vec<(StepId, StepEnding)>> {
        let is_end = |event: &Event| event.kind == EventKind::NODE_FINISHED;
        if !self.has(Mode::Updates) || !events.iter().any(is_end) {
            return Ok(Vec::new());
        }
        let steps = self.engine.store().steps(&self.run).await?;
        Ok(steps.into_iter().map(|record| (record.step, record.ending)).collect())
    }

    /// What the step of an event gave, if it has ended with it.
    async fn update(
        &self,
        event: &Event,
        outputs: &[(StepId, StepEnding)],
    ) -> store::Result<Option<Part>> {
        let Some(step) = event.step.clone() else { return Ok(None) };
        let store = self.engine.store();
        let text = |key: &str| event.data.get(key).and_then(Value::as_str);
        let result = if event.kind == EventKind::NODE_FINISHED {
            let found = outputs.iter().rev().find(|(other, _)| *other == step);
            match found {
                Some((_, StepEnding::Output(output))) => Ok(output.clone()),
                Some((_, StepEnding::Failed(failure))) => Err(failure.clone()),
                None => return Ok(None),
            }
        } else if event.kind == EventKind::NODE_FAILED && event.data.get("retry_at").is_none() {
            match serde_json::from_value(event.data["error"].clone()) {
                Ok(failure) => Err(failure),
                Err(_) => return Ok(None),
            }
        } else if event.kind == EventKind::SIGNAL_TAKEN {
            Ok(event.data.clone())
        } else if event.kind == EventKind::TIMER_FIRED {
            Ok(Arc::default())
        } else if event.kind == EventKind::QUESTION_ANSWERED {
            let Some(Ok(id)) = text("id").map(BlockId::new) else { return Ok(None) };
            let block = store.block(&id).await?;
            Ok(Arc::new(block.and_then(|block| block.answer).unwrap_or_default()))
        } else if event.kind == EventKind::CHILD_ENDED {
            let Some(Ok(id)) = text("run").map(RunId::new) else { return Ok(None) };
            let Some(child) = store.run(&id).await? else { return Ok(None) };
            match (child.output, child.failure) {
                (_, Some(failure)) => Err(failure),
                (Some(output), None) => Ok(output),
                (None, None) => Ok(Arc::new(json!({ "status": child.status }))),
            }
        } else {
            return Ok(None);
        };
        Ok(Some(Part::Update { step, result }))
    }

    /// Returns when there may be more, with tokens that have come meanwhile.
    async fn wait(&mut self) {
        let clock = self.engine.clock().clone();
        let entry = tokio::select! {
            entry = self.live.recv() => entry,
            () = clock.sleep(POLL) => return,
        };
        self.hear(entry);
        // What else is there already is heard at once, so that tokens do not each cost a look.
        self.hear_all();
    }

    fn hear_all(&mut self) {
        while self.ready.len() < BATCH {
            match self.live.try_recv() {
                Ok(entry) => self.hear(Ok(entry)),
                Err(TryRecvError::Lagged(missed)) => self.hear(Err(RecvError::Lagged(missed))),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn hear(&mut self, entry: Result<LiveEvent, RecvError>) {
        let position = self.position;
        let part = match entry {
            Ok(LiveEvent::Token { run, step, text }) if run == self.run => {
                Part::Token { step, text }
            }
            Err(RecvError::Lagged(missed)) => Part::Missed(missed),
            Ok(LiveEvent::Token { .. } | LiveEvent::Stored(_)) | Err(RecvError::Closed) => return,
        };
        if self.has(Mode::Tokens) {
            self.ready.push_back(Streamed { position, part });
        }
    }
}

/// The channels of the run's own graph.
fn own(state: &State) -> Value {
    let own = state.0.iter().filter(|(name, _)| name.frame().is_none());
    Value::Object(
        own.map(|(name, value)| (name.to_string(), (**value).clone())).collect::<Map<_, _>>(),
    )
}

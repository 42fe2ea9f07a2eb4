//! The live stream: stored events and passing tokens, to anyone who listens.
//!
//! A slow reader loses the oldest entries and is told how many; it never slows a run. What it
//! lost of the stored events it finds in the store.

use std::fmt;
use std::sync::Arc;

use swarm_core::event::Event;
use swarm_core::id::{RunId, StepId};
use tokio::sync::broadcast;

/// How many entries a reader may lag behind before it loses some.
const BACKLOG: usize = 4096;

/// One entry of the stream.
#[derive(Clone, Debug)]
pub enum LiveEvent {
    /// A stored event.
    Stored(Arc<Event>),
    /// A piece of text from a step at work; not stored.
    Token {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// The text.
        text: Arc<str>,
    },
}

/// The sending side, shared by all runs of an engine.
#[derive(Clone)]
pub struct Live {
    sender: broadcast::Sender<LiveEvent>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("readers", &self.sender.receiver_count()).finish()
    }
}

impl Default for Live {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }
}

impl Live {
    /// A reader of everything from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<LiveEvent> {
        self.sender.subscribe()
    }

    pub(crate) fn stored(&self, events: Vec<Event>) {
        if self.sender.receiver_count() > 0 {
            for event in events {
                // Fails only when the last reader has just gone.
                let _ = self.sender.send(LiveEvent::Stored(Arc::new(event)));
            }
        }
    }

    pub(crate) fn token(&self, run: &RunId, step: &StepId, text: &str) {
        if self.sender.receiver_count() > 0 {
            let _ = self.sender.send(LiveEvent::Token {
                run: run.clone(),
                step: step.clone(),
                text: text.into(),
            });
        }
    }
}

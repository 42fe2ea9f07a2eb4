//! Whether the checkpoint that a superstep began from is stored.
//!
//! The first one rides in the first commit, which saves a transaction for each run whose first
//! superstep is short; with `durability: exit` later ones are held back, too. What a newcomer gets wrong: only the session stores it. A step that writes by itself, as
//! the journal and `emit` do, asks for it and waits, so that the start of the run is always told
//! before what happens in it.

use std::time::Duration;

use tokio::sync::watch;

/// How long a run's start may stay untold while its first superstep is at work.
pub(crate) const FIRST_WITHIN: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Unstored,
    Wanted,
    Stored,
}

/// Tells the session that the checkpoint is wanted, and the steps that it is there.
#[derive(Debug)]
pub(crate) struct First(watch::Sender<Stage>);

impl First {
    pub(crate) fn new(is_stored: bool) -> Self {
        Self(watch::Sender::new(if is_stored { Stage::Stored } else { Stage::Unstored }))
    }

    /// Says that it is there.
    pub(crate) fn set_stored(&self) {
        self.0.send_replace(Stage::Stored);
    }

    /// Says that there is a newer one, which is not.
    pub(crate) fn set_unstored(&self) {
        self.0.send_replace(Stage::Unstored);
    }

    /// Asks for it, without waiting.
    pub(crate) fn want(&self) {
        self.0.send_if_modified(|stage| {
            let is_unstored = *stage == Stage::Unstored;
            if is_unstored {
                *stage = Stage::Wanted;
            }
            is_unstored
        });
    }

    /// Asks for it, and returns once it is there.
    pub(crate) async fn stored(&self) {
        self.want();
        self.reaches(Stage::Stored).await;
    }

    /// Returns once somebody asks for it; never, if it is there.
    pub(crate) async fn wanted(&self) {
        self.reaches(Stage::Wanted).await;
    }

    async fn reaches(&self, wanted: Stage) {
        if *self.0.borrow() == wanted {
            return;
        }
        // The sender is ours: it is not closed while we wait.
        let _ = self.0.subscribe().wait_for(|stage| *stage == wanted).await;
    }
}

//! Follows a run and everything below it, wherever it is worked on.
//!
//! Events are read from the store, so a run is followed the same way when another process works
//! on it. What the engine of this process says is only a hint to look sooner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::event::{Event, EventKind};
use swarm_core::id::RunId;
use swarm_core::port::store::{self, Store};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::time::Timestamp;

/// A run that wakes by itself within this time does not wait for a person only.
const SOON: Duration = Duration::from_secs(30);

/// How far a root run and all below it have come.
#[derive(Clone, Debug, PartialEq)]
pub enum Rest {
    /// Someone works on it, or will.
    Moving,
    /// Nothing goes on until a person answers these, oldest first; never empty.
    Asks(Vec<Block>),
    /// It ended.
    Ended(Box<RunRecord>),
}

/// Reads the events of a run and everything below it, each once.
pub struct Follower {
    store: Arc<dyn Store>,
    root: RunId,
    seen: BTreeMap<RunId, u64>,
    over: Vec<RunId>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Follower {
    /// A follower that has read nothing yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, root: RunId) -> Self {
        let seen = BTreeMap::from([(root.clone(), 0)]);
        Self { store, root, seen, over: Vec::new() }
    }

    /// The run and all runs below it that are known so far, parents first.
    pub fn runs(&self) -> impl Iterator<Item = &RunId> {
        self.seen.keys()
    }

    /// The events that came since the last call, in the order of their time; those of a run that
    /// was started among them follow at once.
    ///
    /// # Errors
    /// The store's failure; what was read of this call comes again with the next.
    pub async fn read(&mut self) -> store::Result<Vec<Event>> {
        let mut found = Vec::new();
        let mut seen = self.seen.clone();
        let mut ended = Vec::new();
        let mut queue: Vec<RunId> =
            seen.keys().filter(|run| !self.over.contains(run)).cloned().collect();
        while let Some(run) = queue.pop() {
            let after = seen.get(&run).copied().unwrap_or(0);
            for event in self.store.events(&run, after, 0).await? {
                seen.insert(run.clone(), event.seq);
                if event.kind == EventKind::CHILD_STARTED
                    && let Some(child) = event.data["run"].as_str()
                    && let Ok(child) = RunId::new(child)
                    && !seen.contains_key(&child)
                {
                    seen.insert(child.clone(), 0);
                    queue.push(child);
                }
                if is_last(&event.kind) {
                    ended.push(run.clone());
                }
                found.push(event);
            }
        }
        self.seen = seen;
        self.over.extend(ended);
        found.sort_by(|one, other| {
            (one.at, &one.run, one.seq).cmp(&(other.at, &other.run, other.seq))
        });
        Ok(found)
    }

    /// How far it has come by `now`, judged on the runs read so far.
    ///
    /// # Errors
    /// The store's failure, or [`store::Error::NotFound`] for the root run.
    pub async fn rest(&self, now: Timestamp) -> store::Result<Rest> {
        let not_found = || store::Error::NotFound { what: "run", id: self.root.to_string() };
        let root = self.store.run(&self.root).await?.ok_or_else(not_found)?;
        if root.status.is_final() {
            return Ok(Rest::Ended(Box::new(root)));
        }
        let mut blocks = Vec::new();
        for run in self.seen.keys().filter(|run| !self.over.contains(run)) {
            blocks.extend(self.store.blocks(Some(run), Some(BlockStatus::Open)).await?);
            let Some(record) = self.store.run(run).await? else { continue };
            let wakes_soon = record.wake_at.is_some_and(|wake_at| wake_at <= now + SOON);
            match record.status {
                RunStatus::Ready | RunStatus::Running => return Ok(Rest::Moving),
                RunStatus::Waiting if wakes_soon => return Ok(Rest::Moving),
                RunStatus::Waiting
                | RunStatus::Succeeded
                | RunStatus::Failed
                | RunStatus::Cancelled => {}
            }
        }
        blocks.sort_by_key(|block| block.asked_at);
        Ok(if blocks.is_empty() { Rest::Moving } else { Rest::Asks(blocks) })
    }
}

fn is_last(kind: &EventKind) -> bool {
    [EventKind::RUN_SUCCEEDED, EventKind::RUN_FAILED, EventKind::RUN_CANCELLED].contains(kind)
}

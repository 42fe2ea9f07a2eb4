//! Histories through the engine: checkpoints, forks, edits, copies, deletion, pruning.
//!
//! The store does the work; what needs a graph is decided here. An edit goes through the reducers
//! and schemas of the version that its run is pinned to, not of the newest one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use swarm_core::checkpoint::Checkpoint;
use swarm_core::event::EventKind;
use swarm_core::id::{GraphHash, QueueName, RunId, WorkerId};
use swarm_core::port::store::{
    self, CheckpointFilter, CheckpointInfo, CopyRun, DeleteError, Edit, EditError, Fork, Pruned,
    Retention,
};
use swarm_core::run::{Limit, RunRecord};
use thiserror::Error;

use crate::engine::{Engine, Error};
use crate::graph::Graph;
use crate::library::fits;
use crate::replay::Recording;
use crate::settle;

/// What a fork does not take from its source.
#[derive(Clone, Debug, Default)]
pub struct ForkOptions {
    /// The queue whose workers may claim it; `None` is the source's.
    pub queue: Option<QueueName>,
    /// Higher is claimed first; `None` is as the source.
    pub priority: Option<i32>,
    /// Its labels; `None` are the source's.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its limit, under which nothing is spent yet; `None` is the source's.
    pub limit: Option<Limit>,
}

/// Why a state was not edited; nothing was changed.
#[derive(Debug, Error)]
pub enum EditRefused {
    /// The graph has no such channel.
    #[error("graph `{graph}` has no channel `{channel}`; it has {}", .known.join(", "))]
    UnknownChannel {
        /// The graph.
        graph: String,
        /// The channel.
        channel: String,
        /// The channels there are.
        known: Vec<String>,
    },
    /// The reducer does not take the update, or what it makes of it does not fit the schema.
    #[error("channel `{channel}` does not take the update: {why}")]
    Misfit {
        /// The channel.
        channel: String,
        /// What was found, and what would be right.
        why: String,
    },
    /// The run's graph cannot be had.
    #[error(transparent)]
    Graph(#[from] Error),
    /// The run is being worked on, has ended, or has moved on; or the store failed.
    #[error(transparent)]
    Run(#[from] EditError),
}

impl From<store::Error> for EditRefused {
    fn from(error: store::Error) -> Self {
        Self::Run(EditError::Store(error))
    }
}

impl Engine {
    /// Checkpoints of a run, newest first.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> store::Result<Vec<CheckpointInfo>> {
        self.store().checkpoints(run, filter).await
    }

    /// A run as it was recorded, and the version of its graph that it is pinned to: what
    /// [`replay`](crate::replay::replay) takes.
    ///
    /// # Errors
    /// The store's failure; when there is no such run, or its graph cannot be had.
    pub async fn recorded(&self, run: &RunId) -> Result<(Arc<Graph>, Recording), Error> {
        let graph = self.graph_of(&self.record(run).await?).await?;
        let recording = Recording::read(&**self.store(), run).await?;
        let recording =
            recording.ok_or_else(|| store::Error::NotFound { what: "run", id: run.to_string() })?;
        Ok((graph, recording))
    }

    /// Starts a run where another one was at checkpoint `seq`. What the fork shares with its
    /// source and what not says [`Archive::fork`](store::Archive::fork). `false`: a run of this id
    /// is there already.
    ///
    /// # Errors
    /// The store's failure; [`store::Error::NotFound`] and [`store::Error::Invalid`] where there is
    /// nothing to begin from.
    pub async fn fork(
        &self,
        from: &RunId,
        seq: u64,
        id: RunId,
        options: ForkOptions,
    ) -> store::Result<bool> {
        let start = self.record(from).await?.start;
        let graph = self.version_at(from, seq).await?;
        let fork = Fork {
            from: from.clone(),
            seq,
            id,
            graph,
            queue: options.queue.unwrap_or(start.queue),
            priority: options.priority.unwrap_or(start.priority),
            labels: options.labels.unwrap_or(start.labels),
            limit: options.limit.unwrap_or(start.limit),
        };
        let is_new = self.store().fork(fork, self.clock().now()).await?;
        self.wake();
        Ok(is_new)
    }

    /// The version that a run was pinned to at a checkpoint, if it was moved to another since.
    async fn version_at(&self, run: &RunId, seq: u64) -> store::Result<Option<GraphHash>> {
        let events = self.store().events(run, 0, 0).await?;
        let later = events.into_iter().find(|event| {
            event.kind == EventKind::RUN_MIGRATED
                && event.data["seq"].as_u64().is_some_and(|first| seq < first)
        });
        Ok(later.and_then(|event| event.data["from"].as_str().map(|hash| GraphHash(hash.into()))))
    }

    /// Changes the state of a run that nobody works on, each channel by its reducer. `expected` is
    /// the number of the checkpoint that the person has looked at. Returns the new one's.
    ///
    /// # Errors
    /// [`EditRefused`].
    pub async fn edit_state(
        &self,
        run: &RunId,
        expected: u64,
        updates: Map<String, Value>,
        by: &str,
    ) -> Result<u64, EditRefused> {
        let record = self.record(run).await?;
        let graph = self.graph_of(&record).await?;
        let found = self.store().checkpoint(run, None).await?;
        let checkpoint = match found {
            Some(checkpoint) if checkpoint.seq == expected => checkpoint,
            found => {
                let found = found.map(|checkpoint| checkpoint.seq);
                return Err(EditError::Moved { run: run.clone(), expected, found }.into());
            }
        };
        let deltas = reduced(&graph, checkpoint, updates)?;
        let edit = Edit { run: run.clone(), expected, deltas, by: by.to_owned() };
        Ok(self.store().edit(edit, self.clock().now()).await?)
    }

    /// Copies a run with its whole history; see [`Archive::copy_run`](store::Archive::copy_run).
    /// `false`: a run of this id is there already.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn copy_run(&self, from: &RunId, id: RunId, claimable: bool) -> store::Result<bool> {
        let copy = CopyRun { from: from.clone(), id, claimable };
        let is_new = self.store().copy_run(copy, self.clock().now()).await?;
        self.wake();
        Ok(is_new)
    }

    /// Deletes a run that has ended, and all below it; returns how many they were.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete_run(&self, run: &RunId) -> Result<u64, DeleteError> {
        self.store().delete_run(run).await
    }

    /// Cancels a run and all below it, ends those that nobody works on as `worker`, and deletes
    /// them all.
    ///
    /// # Errors
    /// [`DeleteError::Live`] while some are still at work: they end when their workers see it, so
    /// try again then.
    pub async fn cancel_and_delete_run(
        &self,
        run: &RunId,
        by: &str,
        worker: &WorkerId,
    ) -> Result<u64, DeleteError> {
        if self.store().run(run).await?.is_some() {
            self.cancel(run, by).await?;
            self.end_cancelled(run, worker).await?;
        }
        self.store().delete_run(run).await
    }

    /// Removes what a retention does not keep.
    ///
    /// # Errors
    /// The store's failure; what was removed until then is gone.
    pub async fn prune(&self, retention: &Retention) -> store::Result<Pruned> {
        self.store().prune(retention, None, self.clock().now()).await
    }

    async fn record(&self, run: &RunId) -> store::Result<RunRecord> {
        let found = self.store().run(run).await?;
        found.ok_or_else(|| store::Error::NotFound { what: "run", id: run.to_string() })
    }
}

/// What the reducers make of a person's updates.
fn reduced(
    graph: &Graph,
    mut checkpoint: Checkpoint,
    updates: Map<String, Value>,
) -> Result<Vec<swarm_core::checkpoint::ChannelDelta>, EditRefused> {
    let mut deltas = Vec::with_capacity(updates.len());
    for (name, update) in updates {
        let Some((name, channel)) = graph.channels.get_key_value(name.as_str()) else {
            return Err(EditRefused::UnknownChannel {
                graph: graph.name().to_string(),
                channel: name,
                known: graph.channels.keys().map(ToString::to_string).collect(),
            });
        };
        let misfit = |why: String| EditRefused::Misfit { channel: name.to_string(), why };
        let values = Arc::make_mut(&mut checkpoint.state.0);
        let value = values.entry(name.clone()).or_default();
        let change = settle::apply(channel, value, update).map_err(misfit)?;
        fits(&channel.schema, value).map_err(misfit)?;
        deltas.push(swarm_core::checkpoint::ChannelDelta { channel: name.clone(), change });
    }
    Ok(deltas)
}

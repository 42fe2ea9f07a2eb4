//! Works on runs until told to stop: all runs of some queues, or one run with everything below.
//!
//! A stop comes in two steps. Draining claims nothing new and lets nodes at work end; halting
//! hands them back. In both cases another worker goes on where this one stopped, so stopping
//! never loses work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::clock::Entropy;
use swarm_core::port::store::{self, RunFilter, Store};
use swarm_graph::engine::{Control, Engine};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};

/// An id for this process: two processes on one data directory never share one.
#[must_use]
pub fn worker_id(entropy: &dyn Entropy) -> WorkerId {
    let chance = entropy.next_u64();
    WorkerId::new(format!("host-{}-{chance:016x}", std::process::id()))
        .expect("digits and dashes are a worker id")
}

/// Drains at the first SIGTERM or SIGINT, halts after `grace` or at the second one.
///
/// # Errors
/// When the process cannot listen to signals.
pub fn stop_on_signals(control: &Control, grace: Duration) -> std::io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let control = control.clone();
    Ok(tokio::spawn(async move {
        first_of(&mut terminate, &mut interrupt).await;
        tracing::info!("Draining: nothing new is begun.");
        control.drain.cancel();
        tokio::select! {
            () = first_of(&mut terminate, &mut interrupt) => {}
            () = tokio::time::sleep(grace) => {}
        }
        tracing::info!("Halting: what is at work is handed back.");
        control.halt.cancel();
    }))
}

async fn first_of(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Works on one root run and everything below it, and on nothing else: other runs of the same
/// data directory may be meant for other models.
#[derive(Clone, Debug)]
pub struct TreeWorker {
    engine: Engine,
    id: WorkerId,
    root: RunId,
    slots: usize,
    poll: Duration,
}

impl TreeWorker {
    /// A worker with `slots` runs at once that looks into the store every `poll`.
    #[must_use]
    pub fn new(engine: Engine, id: WorkerId, root: RunId, slots: usize, poll: Duration) -> Self {
        Self { engine, id, root, slots: slots.max(1), poll }
    }

    /// Serves until `control` drains it, then until nothing is at work. When this returns, the
    /// worker holds no run.
    pub async fn serve(self, control: Control) {
        let mut woken = self.engine.woken();
        let mut at_work: JoinSet<RunId> = JoinSet::new();
        let mut held: BTreeMap<RunId, ()> = BTreeMap::new();
        while !control.drain.is_cancelled() {
            woken.mark_unchanged();
            match self.claimable(&held).await {
                Ok(runs) => {
                    for run in runs {
                        if at_work.len() < self.slots
                            && self.take(&run, &control, &mut at_work).await
                        {
                            held.insert(run, ());
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "Looking for work failed."
                    );
                }
            }
            tokio::select! {
                Some(ended) = at_work.join_next(), if !at_work.is_empty() => {
                    match ended {
                        Ok(run) => drop(held.remove(&run)),
                        // Which run it was is not known; its lease ends by itself.
                        Err(error) => tracing::error!(%error, "A run's task broke off."),
                    }
                }
                _ = woken.changed() => {}
                () = self.engine.clock().sleep(self.poll) => {}
                () = control.drain.cancelled() => {}
            }
        }
        while at_work.join_next().await.is_some() {}
    }

    /// The runs of the tree that have not ended and are not at work here, parents first.
    async fn claimable(&self, held: &BTreeMap<RunId, ()>) -> store::Result<Vec<RunId>> {
        let store: &Arc<dyn Store> = self.engine.store();
        let mut found = Vec::new();
        let mut queue = vec![self.root.clone()];
        while let Some(id) = queue.pop() {
            let filter = RunFilter { parent: Some(id.clone()), ..RunFilter::default() };
            queue.extend(store.runs(&filter).await?.into_iter().map(|run| run.start.id));
            if held.contains_key(&id) {
                continue;
            }
            if store.run(&id).await?.is_some_and(|run| !run.status.is_final()) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Claims the run and begins to work on it; `false` when it is not claimable now.
    async fn take(&self, run: &RunId, control: &Control, at_work: &mut JoinSet<RunId>) -> bool {
        let claim = match self.engine.claim(run, &self.id).await {
            Ok(Some(claim)) => claim,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%run, error = &error as &dyn std::error::Error, "Claim failed.");
                return false;
            }
        };
        let (engine, control, run) = (self.engine.clone(), control.clone(), run.clone());
        at_work.spawn(async move {
            match engine.drive(claim, control).await {
                Ok(driven) => tracing::info!(run_id = %run, ?driven, "Run rests."),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(run_id = %run, error, "Run cannot be worked on.");
                }
            }
            run
        });
        true
    }
}

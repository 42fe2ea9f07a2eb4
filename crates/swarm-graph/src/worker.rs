//! A worker: claims runs of its queues, as many at once as it has slots, and works on them.

use std::time::Duration;

use swarm_core::id::{QueueName, WorkerId};
use tokio::task::JoinSet;

use crate::engine::{Control, Driven, Engine, Error};

/// How often the store is asked when nobody in this process says that something is to be done.
pub const POLL: Duration = Duration::from_millis(500);

/// Works on the runs of some queues.
#[derive(Clone, Debug)]
pub struct Worker {
    engine: Engine,
    id: WorkerId,
    queues: Vec<QueueName>,
    slots: usize,
    poll: Duration,
}

impl Worker {
    /// A worker with `slots` runs at once.
    #[must_use]
    pub fn new(engine: Engine, id: WorkerId, queues: Vec<QueueName>, slots: usize) -> Self {
        Self { engine, id, queues, slots: slots.max(1), poll: POLL }
    }

    /// With another interval between looks into the store.
    #[must_use]
    pub fn poll_every(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Serves until `control` drains it; then lets what is at work end, or, once halted, hands
    /// it back. When this returns, the worker holds no run.
    pub async fn serve(&self, control: Control) {
        let mut at_work = JoinSet::new();
        let mut woken = self.engine.woken();
        let clock = self.engine.clock().clone();
        while !control.drain.is_cancelled() {
            woken.mark_unchanged();
            let mut found_nothing = at_work.len() >= self.slots;
            while at_work.len() < self.slots && !control.drain.is_cancelled() {
                match self.engine.claim_next(&self.id, &self.queues).await {
                    Ok(Some(claim)) => {
                        let (engine, control) = (self.engine.clone(), control.clone());
                        let run = claim.run.start.id.clone();
                        at_work.spawn(async move { (run, engine.drive(claim, control).await) });
                    }
                    Ok(None) => {
                        found_nothing = true;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(worker = %self.id, error = &error as &dyn std::error::Error, "Claim failed.");
                        found_nothing = true;
                        break;
                    }
                }
            }
            if !found_nothing {
                continue;
            }
            tokio::select! {
                Some(ended) = at_work.join_next(), if !at_work.is_empty() => log(ended),
                _ = woken.changed(), if at_work.len() < self.slots => {}
                () = clock.sleep(self.poll), if at_work.len() < self.slots => {}
                () = control.drain.cancelled() => {}
            }
        }
        while let Some(ended) = at_work.join_next().await {
            log(ended);
        }
    }
}

type Ended = Result<(swarm_core::id::RunId, Result<Driven, Error>), tokio::task::JoinError>;

fn log(ended: Ended) {
    match ended {
        Ok((run_id, Ok(driven))) => tracing::info!(%run_id, ?driven, "Run rests."),
        Ok((run_id, Err(error))) => {
            tracing::error!(%run_id, error = &error as &dyn std::error::Error, "Run cannot be worked on.");
        }
        Err(error) => tracing::error!(%error, "A run's task broke off; its lease will end."),
    }
}

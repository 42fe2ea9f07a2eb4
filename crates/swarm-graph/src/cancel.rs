//! Cancelling without a worker: a run that only waits has nothing to stop, and needs no graph to
//! end.
//!
//! A run at work ends by itself, through its worker; ending it here would only wait for that.

use serde_json::json;
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::store::{
    self, Claim, Commit, Outgoing, Recipient, Release, RunFilter, Signal, SignalKind,
};
use swarm_core::run::RunStatus;

use crate::engine::Engine;

/// The commit that ends a claimed run because someone wants it to stop; its children are told.
pub(crate) fn ended(mut commit: Commit, by: &str) -> Commit {
    commit.events.push(NewEvent::run(EventKind::RUN_CANCELLED, json!({ "by": by })));
    let kind = SignalKind::Cancel { by: commit.run.to_string() };
    commit.outgoing.push(Outgoing { to: Recipient::Children, kind });
    let status = RunStatus::Cancelled;
    commit.release = Some(Release::Ended { status, output: None, failure: None });
    commit
}

/// Who wants a run to stop, and the number of the signal that says so.
pub(crate) fn wish(signals: Vec<Signal>) -> Option<(u64, String)> {
    signals.into_iter().find_map(|signal| match signal.kind {
        SignalKind::Cancel { by } => Some((signal.id, by)),
        SignalKind::Named { .. } | SignalKind::Answered { .. } | SignalKind::ChildEnded { .. } => {
            None
        }
    })
}

impl Engine {
    /// Ends a run that was [cancelled](Engine::cancel) and that nobody works on, and so on with
    /// those below it. `false`: some of them are at work, and end when their workers see it.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn end_cancelled(&self, run: &RunId, worker: &WorkerId) -> store::Result<bool> {
        let mut left = vec![run.clone()];
        let mut has_ended = true;
        while let Some(run) = left.pop() {
            if let Some(claim) = self.claim(&run, worker).await? {
                self.end_claimed(claim).await?;
            }
            let found = self.store().run(&run).await?;
            if found.is_some_and(|run| !run.status.is_final()) {
                has_ended = false;
                continue;
            }
            let filter = RunFilter { parent: Some(run), ..RunFilter::default() };
            left.extend(self.store().runs(&filter).await?.into_iter().map(|run| run.start.id));
        }
        Ok(has_ended)
    }

    /// Ends a claimed run if someone wants that, else hands it back.
    async fn end_claimed(&self, claim: Claim) -> store::Result<()> {
        let run = claim.run.start.id;
        let wish = wish(self.store().signals(&run).await?);
        let mut commit = Commit::new(run, claim.run.epoch, self.clock().now());
        let commit = match wish {
            Some((signal, by)) => {
                commit.taken.push(signal);
                ended(commit, &by)
            }
            None => {
                commit.release = Some(Release::Ready);
                commit
            }
        };
        self.commit(commit).await
    }
}

//! Retention: histories that the configuration no longer wants are removed, every so often, by
//! whoever serves.
//!
//! Several processes may do it at once: the store decides again under its lock what goes.

use std::time::Duration;

use swarm_core::port::store::{self, Pruned};
use swarm_graph::engine::Engine;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Keep, Retention};

/// What the configuration says, in the store's words.
#[must_use]
pub fn retention(file: &Retention) -> store::Retention {
    let keep = |keep: Keep| store::Keep { last: keep.last, max_age: keep.max_age.map(|age| age.0) };
    store::Retention {
        live: keep(file.live),
        ended: keep(file.ended),
        remove_after: file.remove_after.map(|span| span.0),
    }
}

/// Prunes now and then every so often, until the handle is dropped.
pub fn watch(engine: &Engine, file: &Retention) -> AbortOnDropHandle<()> {
    let (engine, wanted) = (engine.clone(), retention(file));
    let every = file.every.0.max(Duration::from_secs(1));
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            match engine.prune(&wanted).await {
                Ok(pruned) if pruned == Pruned::default() => {}
                Ok(Pruned { checkpoints, runs, graphs }) => {
                    tracing::info!(checkpoints, runs, graphs, "Pruned.");
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "Old histories are not pruned yet.");
                }
            }
            engine.clock().sleep(every).await;
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use swarm_core::id::{QueueName, RunId, WorkerId};
    use swarm_core::port::store::{Commit, Release};
    use swarm_core::run::RunStatus;
    use swarm_core::time::Timestamp;
    use swarm_graph::engine::Engine;
    use swarm_graph::library::Library;
    use swarm_graph::registry::Registry;
    use swarm_graph::store::memory::MemoryStore;
    use swarm_graph::testkit::{SeededEntropy, VirtualClock};

    use super::*;

    #[test]
    fn what_is_not_said_keeps_all_of_live_runs_and_removes_ended_ones_after_90_days() {
        let day = Duration::from_secs(24 * 60 * 60);
        let unsaid = retention(&Retention::default());
        assert_eq!(unsaid.live, store::Keep::ALL);
        assert_eq!(unsaid.ended, store::Keep { last: None, max_age: Some(day * 7) });
        assert_eq!(unsaid.remove_after, Some(day * 90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_serves_removes_what_is_old() {
        let clock = VirtualClock::at(Timestamp(0));
        let library = Library::new(Registry::new());
        let entropy = Arc::new(SeededEntropy::new(1));
        let engine =
            Engine::new(Arc::new(MemoryStore::new()), Arc::new(clock), entropy, Arc::new(library));
        let id = RunId::new("r").unwrap();
        let start = serde_json::from_value(json!({
            "id": id, "graph": "g", "graph_hash": "h", "queue": "q", "input": null,
            "parent": null, "priority": 0, "labels": {}, "limit": {},
        }));
        let store = engine.store();
        store.create_run(start.unwrap(), Timestamp(0)).await.unwrap();
        let queues = [QueueName::new("q").unwrap()];
        let worker = WorkerId::new("w").unwrap();
        let claim = engine.claim_next(&worker, &queues).await.unwrap().unwrap();
        let mut commit = Commit::new(id.clone(), claim.run.epoch, Timestamp(0));
        let status = RunStatus::Succeeded;
        commit.release = Some(Release::Ended { status, output: None, failure: None });
        store.commit(commit).await.unwrap();
        let watching = watch(&engine, &Retention::default());
        while store.run(&id).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_secs(60 * 60)).await;
            assert!(engine.clock().now() < Timestamp(0) + Duration::from_secs(91 * 86_400));
        }
        drop(watching);
        assert!(engine.clock().now() >= Timestamp(0) + Duration::from_secs(90 * 86_400));
    }
}

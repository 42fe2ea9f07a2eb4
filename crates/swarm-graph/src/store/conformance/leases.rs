//! Clauses about claims and leases.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::RunId;
use swarm_core::port::store::{Error, Release, Store};
use swarm_core::run::{Epoch, NewRun, RunStatus};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// A claimed run is running, and nobody else gets it.
pub async fn a_run_is_claimed_by_one_worker_at_a_time(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    store.create_run(new_run("r"), t(0)).await?;
    let claim = store.claim_next(&worker("w1"), &[queue("q")], t(5), TTL).await?;
    let claim = claim.expect("the run is ready");
    assert_eq!(claim.run.start, new_run("r"));
    assert_eq!(claim.run.status, RunStatus::Running);
    assert_eq!(claim.run.epoch, Epoch(1));
    assert_eq!(claim.run.lease_owner, Some(worker("w1")));
    assert_eq!(claim.run.lease_until, Some(t(5 + TTL_MS)));
    assert!(claim.checkpoint.is_none() && claim.finished.is_empty());
    assert_eq!(store.run(&run("r")).await?, Some(claim.run));
    assert!(store.claim_next(&worker("w2"), &[queue("q")], t(6), TTL).await?.is_none());
    assert!(store.claim(&run("r"), &worker("w2"), t(6), TTL).await?.is_none());
    Ok(Verdict::Held)
}

/// Priority first, then the order of creation.
pub async fn the_most_urgent_and_then_the_oldest_run_is_claimed_first(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    for (id, priority) in [("low", -1), ("a", 0), ("b", 0), ("high", 7)] {
        store.create_run(NewRun { priority, ..new_run(id) }, t(0)).await?;
    }
    // An expired lease and a due timer count like a fresh run of their priority and age.
    let lost = NewRun { priority: 5, queue: queue("p"), ..new_run("lost") };
    store.create_run(lost, t(0)).await?;
    claim(&*store, "lost").await?;
    let mut order = Vec::new();
    let queues = [queue("q"), queue("p")];
    while let Some(claim) = store.claim_next(&worker("w"), &queues, t(TTL_MS), TTL).await? {
        order.push(claim.run.start.id.to_string());
    }
    assert_eq!(order, ["high", "lost", "a", "b", "low"]);
    Ok(Verdict::Held)
}

/// Other queues are others' work.
pub async fn a_claim_takes_only_from_its_queues(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    store.create_run(NewRun { queue: queue("dev"), ..new_run("r") }, t(0)).await?;
    assert!(store.claim_next(&worker("w"), &[queue("ops")], t(0), TTL).await?.is_none());
    assert!(store.claim_next(&worker("w"), &[], t(0), TTL).await?.is_none());
    let both = [queue("ops"), queue("dev")];
    assert!(store.claim_next(&worker("w"), &both, t(0), TTL).await?.is_some());
    Ok(Verdict::Held)
}

/// `lease_until` is the first moment at which the lease is no longer held.
pub async fn an_expired_lease_is_free_at_the_moment_it_ends(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    claimed(&*store, "r").await?;
    let (w2, queues) = (worker("w2"), [queue("q")]);
    assert!(store.claim_next(&w2, &queues, t(TTL_MS - 1), TTL).await?.is_none());
    let claim = store.claim_next(&w2, &queues, t(TTL_MS), TTL).await?.expect("it is free");
    assert_eq!((claim.run.epoch, claim.run.lease_owner), (Epoch(2), Some(w2)));
    let again = store.claim(&run("r"), &worker("w3"), t(2 * TTL_MS), TTL).await?;
    assert_eq!(again.expect("it is free again").run.epoch, Epoch(3));
    Ok(Verdict::Held)
}

/// A renewal moves the end.
pub async fn a_renewed_lease_keeps_others_out(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.renew(&run("r"), claim.run.epoch, t(3000), TTL).await?;
    assert!(store.claim(&run("r"), &worker("w2"), t(TTL_MS + 2999), TTL).await?.is_none());
    assert!(store.claim(&run("r"), &worker("w2"), t(TTL_MS + 3000), TTL).await?.is_some());
    Ok(Verdict::Held)
}

/// A slow worker that nobody replaced goes on.
pub async fn an_expired_lease_that_nobody_took_is_still_renewed(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.renew(&run("r"), claim.run.epoch, t(5 * TTL_MS), TTL).await?;
    assert!(store.claim(&run("r"), &worker("w2"), t(5 * TTL_MS), TTL).await?.is_none());
    store.commit(commit(&claim)).await?;
    Ok(Verdict::Held)
}

/// A timer needs nobody to fire it.
pub async fn a_waiting_run_is_claimable_once_its_timer_is_due(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let parked = Release::Waiting { wake_at: Some(t(500)), seen: 0 };
    store.commit(release(&claim, parked)).await?;
    let record = store.run(&run("r")).await?.expect("it is there");
    assert_eq!((record.status, record.wake_at), (RunStatus::Waiting, Some(t(500))));
    assert_eq!((record.lease_owner, record.lease_until), (None, None));
    let (w2, queues) = (worker("w2"), [queue("q")]);
    assert!(store.claim_next(&w2, &queues, t(499), TTL).await?.is_none());
    let claim = store.claim_next(&w2, &queues, t(500), TTL).await?.expect("its timer is due");
    assert_eq!((claim.run.epoch, claim.run.wake_at), (Epoch(2), None));
    store.commit(release(&claim, waiting())).await?;
    assert!(store.claim_next(&w2, &queues, t(1_000_000), TTL).await?.is_none(), "no timer");
    Ok(Verdict::Held)
}

/// For a change that is not work, a run need not be claimable; but nobody may be at work on it.
pub async fn an_idle_run_is_claimed_even_while_it_waits(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let first = claimed(&*store, "r").await?;
    let (id, w2) = (run("r"), worker("w2"));
    assert!(store.claim_idle(&id, &w2, t(TTL_MS - 1), TTL).await?.is_none(), "it is at work");
    store.commit(release(&first, waiting())).await?;
    assert!(store.claim(&id, &w2, t(5), TTL).await?.is_none(), "it waits");
    let idle = store.claim_idle(&id, &w2, t(5), TTL).await?.expect("nobody works on it");
    assert_eq!((idle.run.status, idle.run.epoch), (RunStatus::Running, Epoch(2)));
    assert_eq!(
        (&idle.run.lease_owner, idle.run.lease_until),
        (&Some(w2.clone()), Some(t(5 + TTL_MS)))
    );
    assert!(store.claim_idle(&id, &worker("w3"), t(6), TTL).await?.is_none(), "it is claimed");
    let late = store.commit(commit(&first)).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    store.commit(release(&idle, Release::Ready)).await?;
    let ready = store.claim_idle(&id, &w2, t(7), TTL).await?.expect("a ready run is idle, too");
    let lost = store.claim_idle(&id, &worker("w3"), t(7 + TTL_MS), TTL).await?;
    let lost = lost.expect("its lease has ended");
    assert_eq!((ready.run.epoch, lost.run.epoch), (Epoch(3), Epoch(4)));
    store.commit(release(&lost, succeeded(serde_json::json!(1)))).await?;
    assert!(store.claim_idle(&id, &w2, t(1_000_000), TTL).await?.is_none(), "it has ended");
    let unknown = store.claim_idle(&run("nobody"), &w2, t(8), TTL).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
    Ok(Verdict::Held)
}

/// Claims race; runs are not shared.
pub async fn of_many_claimers_each_run_has_one_winner(ground: &mut dyn Ground) -> Outcome {
    const RUNS: usize = 8;
    let store = ground.store();
    for n in 0..RUNS {
        store.create_run(new_run(&format!("r{n}")), t(0)).await?;
    }
    let claimers = (0..4 * RUNS).map(|n| {
        let store: Arc<dyn Store> = Arc::clone(&store);
        tokio::spawn(async move {
            let (worker, queues) = (worker(&format!("w{n}")), [queue("q")]);
            // Half of them want whatever is next, half of them a certain run.
            if n % 2 == 0 {
                store.claim_next(&worker, &queues, t(0), TTL).await
            } else {
                store.claim(&run(&format!("r{}", n % RUNS)), &worker, t(0), TTL).await
            }
        })
    });
    let mut winners: Vec<RunId> = Vec::new();
    for claimer in futures::future::join_all(claimers).await {
        winners.extend(claimer??.map(|claim| claim.run.start.id));
    }
    let distinct: HashSet<&RunId> = winners.iter().collect();
    assert_eq!(distinct.len(), winners.len(), "no run was claimed twice");
    while let Some(claim) = store.claim_next(&worker("w"), &[queue("q")], t(0), TTL).await? {
        winners.push(claim.run.start.id);
    }
    assert_eq!(winners.len(), RUNS, "every run was claimed once");
    Ok(Verdict::Held)
}

/// Clocks of machines disagree and are set back; order and safety do not depend on them.
pub async fn a_clock_that_steps_back_frees_no_lease_and_breaks_no_order(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    store.create_run(new_run("first"), t(1_000_000)).await?;
    store.create_run(new_run("second"), t(0)).await?;
    let next = store.claim_next(&worker("w1"), &[queue("q")], t(1_000_000), TTL).await?;
    let claim = next.expect("two are ready");
    assert_eq!(claim.run.start.id, run("first"), "the order of creation, not of clocks");
    assert!(store.claim(&run("first"), &worker("w2"), t(0), TTL).await?.is_none());
    store.renew(&run("first"), claim.run.epoch, t(5), Duration::from_millis(1)).await?;
    let events = vec![event("late"), event("later")];
    let told =
        store.commit(swarm_core::port::store::Commit { at: t(-1000), events, ..commit(&claim) });
    assert_eq!(told.await?.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    let back = store.claim(&run("first"), &worker("w2"), t(6), TTL).await?;
    assert_eq!(back.expect("the lease of 1 ms is over").run.epoch, Epoch(2));
    let listed = store.runs(&swarm_core::port::store::RunFilter::default()).await?;
    assert_eq!(listed[0].start.id, run("second"), "newest first, not by clocks");
    Ok(Verdict::Held)
}

/// A typo is not an empty queue.
pub async fn claiming_an_unknown_run_is_an_error(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = store.claim(&run("nobody"), &worker("w"), t(0), TTL).await;
    assert!(matches!(claim, Err(Error::NotFound { what: "run", .. })), "{claim:?}");
    let renewed = store.renew(&run("nobody"), Epoch(1), t(0), TTL).await;
    assert!(matches!(renewed, Err(Error::NotFound { what: "run", .. })), "{renewed:?}");
    Ok(Verdict::Held)
}

/// The end is the end.
pub async fn a_run_that_ended_is_never_claimed(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.commit(release(&claim, succeeded(serde_json::json!(1)))).await?;
    let later = t(100 * TTL_MS);
    assert!(store.claim(&run("r"), &worker("w"), later, TTL).await?.is_none());
    assert!(store.claim_next(&worker("w"), &[queue("q")], later, TTL).await?.is_none());
    Ok(Verdict::Held)
}

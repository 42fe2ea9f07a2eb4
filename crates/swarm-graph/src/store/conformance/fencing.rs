//! Clauses about late writers.

use std::sync::Arc;

use serde_json::json;
use swarm_core::port::store::{Claim, Commit, Error, Release, Result, Store};
use swarm_core::run::Epoch;

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// Tries every write of a worker, and that each is refused and leaves nothing.
async fn all_refused(store: &dyn Store, late: &Claim, found: Epoch) -> Result<()> {
    let before = everything(store).await?;
    let id = &late.run.start.id;
    let big = Commit {
        checkpoint: Some(checkpoint(0, vec![full("plan", json!(1))])),
        steps: vec![ended_step("work#1", 0)],
        blocks: vec![block("late", id.as_str())],
        children: vec![child("late-child", id.as_str(), true)],
        events: vec![event("late")],
        release: Some(succeeded(json!(1))),
        ..commit(late)
    };
    let refusals = [
        ("renew", store.renew(id, late.run.epoch, t(1), TTL).await.err()),
        ("empty commit", store.commit(commit(late)).await.err()),
        ("commit", store.commit(big).await.err()),
        ("begin", store.begin(key(late, "k"), json!(1), usd(1), t(1)).await.err()),
        (
            "finish",
            store
                .finish(key(late, "k"), Arc::new(json!(1)), usd(1), vec![event("late")], t(1))
                .await
                .err(),
        ),
        ("note", store.note(id, late.run.epoch, vec![event("late")], t(1)).await.err()),
    ];
    for (write, refusal) in refusals {
        let fenced = matches!(
            &refusal,
            Some(Error::Fenced { run, ours, found: there })
                if run == id && *ours == late.run.epoch && *there == found
        );
        assert!(fenced, "{write}: {refusal:?}");
    }
    assert_eq!(everything(store).await?, before);
    Ok(())
}

/// Whoever lost the run can change nothing of it.
pub async fn a_stale_epoch_is_refused_by_every_write(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let late = claimed(&*store, "r").await?;
    let new = store.claim(&run("r"), &worker("w2"), t(TTL_MS), TTL).await?;
    let new = new.expect("the lease has expired");
    all_refused(&*store, &late, new.run.epoch).await?;
    store.commit(commit(&new)).await?;
    Ok(Verdict::Held)
}

/// Letting go ends the right to write, before anyone else has taken the run.
pub async fn a_claim_that_let_go_writes_no_more(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for (id, how) in
        [("ready", Release::Ready), ("waiting", waiting()), ("ended", succeeded(json!("done")))]
    {
        let claim = claimed(&*store, id).await?;
        store.commit(release(&claim, how)).await?;
        all_refused(&*store, &claim, claim.run.epoch).await?;
    }
    Ok(Verdict::Held)
}

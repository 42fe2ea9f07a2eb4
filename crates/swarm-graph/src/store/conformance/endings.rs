//! Clauses about the end of a run and what it means to others.

use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::escalation::BlockStatus;
use swarm_core::failure::Failure;
use swarm_core::port::store::{Commit, Release, SignalKind};
use swarm_core::run::RunStatus;
use swarm_core::spend::Spend;

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

fn payload(kind: &SignalKind, wanted: &str) -> Option<Value> {
    match kind {
        SignalKind::Named { name, payload } if name == wanted => Some((**payload).clone()),
        SignalKind::Named { .. }
        | SignalKind::Answered { .. }
        | SignalKind::ChildEnded { .. }
        | SignalKind::Cancel { .. } => None,
    }
}

/// The step that waits gets the outcome; one that does not wait gets nothing of the kind.
pub async fn an_awaiting_parent_hears_that_its_child_ended(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let parent = claimed(&*store, "p").await?;
    let children = vec![child("p.a", "p", true), child("p.b", "p", false)];
    store.commit(Commit { children, ..release(&parent, waiting()) }).await?;
    let detached = claim(&*store, "p.b").await?;
    store.commit(release(&detached, succeeded(json!("b")))).await?;
    assert_eq!(mailbox(&*store, "p").await?.len(), 1, "only worker.finished");
    let parent = claim(&*store, "p").await?;
    let taken: Vec<u64> = store.signals(&run("p")).await?.iter().map(|signal| signal.id).collect();
    store.commit(Commit { taken, ..release(&parent, waiting()) }).await?;
    let awaited = claim(&*store, "p.a").await?;
    let failure = Failure::fatal("tests", "3 of 7 fail");
    let end =
        Release::Ended { status: RunStatus::Failed, output: None, failure: Some(failure.clone()) };
    let done = store.commit(release(&awaited, end)).await?;
    assert_eq!(done.woken, [run("p")]);
    assert_eq!(status(&*store, "p").await?, RunStatus::Ready);
    let ended = SignalKind::ChildEnded {
        run: run("p.a"),
        status: RunStatus::Failed,
        output: None,
        failure: Some(failure.clone()),
    };
    assert_eq!(mailbox(&*store, "p").await?[0], ended);
    let record = store.run(&run("p.a")).await?.expect("there");
    assert_eq!((record.status, record.failure), (RunStatus::Failed, Some(failure)));
    assert_eq!((record.ended_at, record.lease_owner), (Some(t(1)), None));
    Ok(Verdict::Held)
}

/// A manager hears of all below it.
pub async fn all_ancestors_hear_that_a_run_finished(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for start in [new_run("top"), child("mid", "top", true), child("leaf", "mid", false)] {
        store.create_run(start, t(0)).await?;
    }
    let leaf = claim(&*store, "leaf").await?;
    store.commit(release(&leaf, succeeded(json!({ "pr": 7 })))).await?;
    let expected = json!({
        "run": "leaf", "graph": "g", "status": "succeeded", "output": { "pr": 7 },
        "failure": null, "labels": { "issue": "leaf" },
    });
    for above in ["top", "mid"] {
        let heard: Vec<_> = mailbox(&*store, above)
            .await?
            .iter()
            .filter_map(|kind| payload(kind, "worker.finished"))
            .collect();
        assert_eq!(heard, std::slice::from_ref(&expected), "{above}");
    }
    assert!(mailbox(&*store, "leaf").await?.is_empty());
    let output = store.run(&run("leaf")).await?.expect("there").output;
    assert_eq!(output.as_deref(), Some(&json!({ "pr": 7 })));
    Ok(Verdict::Held)
}

/// Nobody is asked for the dead, and their money is free.
pub async fn the_end_withdraws_questions_and_frees_reservations(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    store.create_run(new_run("p"), t(0)).await?;
    store.create_run(child("r", "p", false), t(0)).await?;
    let claim = claim(&*store, "r").await?;
    let blocks = vec![block("open", "r"), block("closed", "r")];
    store.commit(Commit { blocks, ..commit(&claim) }).await?;
    let left = Arc::new(json!({ "choice": "left" }));
    store.answer(&block_id("closed"), left, person("ann"), t(2)).await?;
    store.begin(key(&claim, "done"), json!(1), usd(10), t(2)).await?;
    store.finish(key(&claim, "done"), Arc::new(json!(1)), usd(3), vec![], t(2)).await?;
    store.begin(key(&claim, "cut off"), json!(1), usd(100), t(2)).await?;
    assert_eq!(store.run(&run("p")).await?.expect("there").reserved, usd(100));
    store.commit(release(&claim, succeeded(json!(1)))).await?;
    for (id, expected) in [("open", BlockStatus::Withdrawn), ("closed", BlockStatus::Answered)] {
        assert_eq!(store.block(&block_id(id)).await?.expect("there").status, expected);
    }
    for id in ["p", "r"] {
        let record = store.run(&run(id)).await?.expect("there");
        assert_eq!((record.reserved, record.spent), (Spend::default(), usd(3)), "{id}");
        assert_eq!(record.reserved_by, None);
    }
    Ok(Verdict::Held)
}

/// A manager hears that a worker is stuck, and that it is no longer.
pub async fn ancestors_hear_of_a_question_and_of_its_answer(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for start in [new_run("top"), child("mid", "top", false), child("leaf", "mid", true)] {
        store.create_run(start, t(0)).await?;
    }
    let top = claim(&*store, "top").await?;
    store.commit(release(&top, waiting())).await?;
    let leaf = claim(&*store, "leaf").await?;
    let ask = || Commit { blocks: vec![block("q", "leaf")], ..commit(&leaf) };
    assert_eq!(store.commit(ask()).await?.woken, [run("top")]);
    store.commit(ask()).await?;
    let left = Arc::new(json!({ "choice": "left" }));
    store.answer(&block_id("q"), left, person("ann"), t(2)).await?;
    let expected = json!({
        "run": "leaf", "graph": "g", "block": "q", "reason": "ambiguous_spec",
        "question": "Which way?", "requested_input": block("q", "leaf").ask.requested_input,
        "labels": { "issue": "leaf" },
    });
    for above in ["top", "mid"] {
        let heard = mailbox(&*store, above).await?;
        assert_eq!(names(&*store, above).await?, ["worker.blocked", "worker.answered"], "{above}");
        assert_eq!(payload(&heard[0], "worker.blocked"), Some(expected.clone()));
        assert_eq!(payload(&heard[1], "worker.answered"), Some(expected.clone()));
    }
    Ok(Verdict::Held)
}

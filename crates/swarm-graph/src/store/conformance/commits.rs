//! Clauses about commits: whole or absent.

use std::sync::Arc;

use serde_json::json;
use swarm_core::escalation::BlockStatus;
use swarm_core::event::Event;
use swarm_core::port::store::{Claim, Commit, Error, Outgoing, Recipient, Release, RunFilter};
use swarm_core::run::{Epoch, Limit, NewRun, RunStatus};
use swarm_core::spend::UsdMicros;

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// The id decides; the first one wins.
pub async fn creating_a_run_twice_creates_it_once(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    assert!(store.create_run(new_run("r"), t(7)).await?);
    let again = NewRun { priority: 9, ..new_run("r") };
    assert!(!store.create_run(again, t(8)).await?);
    let record = store.run(&run("r")).await?.expect("it is there");
    assert_eq!((record.start, record.created_at), (new_run("r"), t(7)));
    assert_eq!(store.runs(&RunFilter::default()).await?.len(), 1);
    Ok(Verdict::Held)
}

/// Nothing hangs in the air.
pub async fn a_run_whose_parent_is_unknown_is_refused(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let refusal = store.create_run(child("c", "nobody", true), t(0)).await;
    assert!(matches!(refusal, Err(Error::NotFound { what: "parent run", .. })), "{refusal:?}");
    assert!(store.run(&run("c")).await?.is_none());
    Ok(Verdict::Held)
}

/// As if it had been started and claimed, and nobody came between.
pub async fn a_run_is_created_and_claimed_at_once(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = store.create_claimed(new_run("r"), &worker("w1"), t(5), TTL).await?;
    let claim = claim.expect("there was no such run");
    assert_eq!((claim.run.status, claim.run.epoch), (RunStatus::Running, Epoch(1)));
    assert_eq!(claim.run.lease_owner, Some(worker("w1")));
    assert_eq!(claim.run.lease_until, Some(t(5 + TTL_MS)));
    assert!(claim.checkpoint.is_none() && claim.finished.is_empty());
    assert_eq!(store.run(&run("r")).await?.as_ref(), Some(&claim.run));
    assert!(store.create_claimed(new_run("r"), &worker("w2"), t(6), TTL).await?.is_none());
    assert!(store.claim_next(&worker("w2"), &[queue("q")], t(6), TTL).await?.is_none());
    store.commit(release(&claim, Release::Ready)).await?;
    // What is there is not claimed by this, even when it could be.
    assert!(store.create_claimed(new_run("r"), &worker("w2"), t(7), TTL).await?.is_none());
    let taken = store.claim(&run("r"), &worker("w2"), t(7), TTL).await?.expect("it is ready");
    assert_eq!(taken.run.epoch, Epoch(2));
    let orphan = child("c", "nobody", true);
    let refusal = store.create_claimed(orphan, &worker("w1"), t(8), TTL).await;
    assert!(matches!(refusal, Err(Error::NotFound { what: "parent run", .. })), "{refusal:?}");
    assert!(store.run(&run("c")).await?.is_none());
    Ok(Verdict::Held)
}

/// Both are there, in their order, or neither is.
pub async fn the_first_checkpoint_comes_with_the_next(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let first = || Some(checkpoint(0, vec![full("log", json!(["a"])), full("flag", json!(true))]));
    let claim = claimed(&*store, "r").await?;
    let with = |seq, deltas| Commit {
        first: first(),
        checkpoint: Some(checkpoint(seq, deltas)),
        steps: vec![ended_step("work#1", 0)],
        ..commit(&claim)
    };
    let before = everything(&*store).await?;
    for (what, bad) in [
        ("the next one left out", with(2, vec![])),
        ("the next one again", with(0, vec![])),
        ("an append to a flag", with(1, vec![append("flag", json!([1]))])),
        ("a first that is none", Commit { first: Some(checkpoint(1, vec![])), ..commit(&claim) }),
    ] {
        let refusal = store.commit(bad).await;
        assert!(matches!(refusal, Err(Error::Invalid { .. })), "{what}: {refusal:?}");
        assert_eq!(everything(&*store).await?, before, "{what}");
    }
    store.commit(with(1, vec![append("log", json!(["b"])), merge("map", json!({"x": 1}))])).await?;
    let state = async |seq| {
        let checkpoint = store.checkpoint(&run("r"), seq).await?.expect("it was written");
        Ok::<_, Error>((checkpoint.seq, checkpoint.cursor, checkpoint.state.to_value()))
    };
    let log = json!({ "flag": true, "log": ["a"] });
    assert_eq!(state(Some(0)).await?, (0, cursor(0), log));
    let log = json!({ "flag": true, "log": ["a", "b"], "map": { "x": 1 } });
    assert_eq!(state(None).await?, (1, cursor(1), log));
    let again = Commit { first: first(), ..commit(&claim) };
    assert!(matches!(store.commit(again).await, Err(Error::Invalid { .. })), "it has one");
    // By itself, with a step that ended after it.
    let claim = claimed(&*store, "s").await?;
    let alone = Commit { first: first(), steps: vec![ended_step("x#1", 0)], ..commit(&claim) };
    store.commit(alone).await?;
    store.commit(release(&claim, Release::Ready)).await?;
    let claim = self::claim(&*store, "s").await?;
    assert_eq!(claim.checkpoint.expect("the first").seq, 0);
    assert_eq!(claim.finished, [ended_step("x#1", 0)]);
    Ok(Verdict::Held)
}

/// A commit that uses every field.
fn big(claim: &Claim, seq: u64) -> Commit {
    let id = claim.run.start.id.as_str();
    Commit {
        checkpoint: Some(checkpoint(seq, vec![full("plan", json!({ "seq": seq }))])),
        steps: vec![ended_step("work#1", seq), ended_step("work#2", seq)],
        blocks: vec![block(&format!("{id}.q"), id)],
        children: vec![child(&format!("{id}.c"), id, true)],
        outgoing: vec![Outgoing {
            to: Recipient::Run(claim.run.start.id.clone()),
            kind: named("me"),
        }],
        limit: Some(Limit { usd: Some(UsdMicros(5)), tokens: None }),
        events: vec![event("one"), event("two")],
        ..commit(claim)
    }
}

/// Every part can be read at once.
pub async fn a_commit_is_there_whole(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let done = store.commit(big(&claim, 0)).await?;
    assert_eq!(done.woken, [run("r.c")]);
    let events = store.events(&run("r"), 0, 0).await?;
    assert_eq!(done.events, events);
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((events[1].at, &*events[1].data), (t(1), &json!({ "word": "two" })));
    let checkpoint = store.checkpoint(&run("r"), None).await?.expect("it was written");
    assert_eq!((checkpoint.seq, &checkpoint.cursor), (0, &cursor(0)));
    assert_eq!(checkpoint.state.get("plan").map(|plan| &**plan), Some(&json!({ "seq": 0 })));
    let steps = store.steps(&run("r")).await?;
    assert_eq!(steps, [ended_step("work#1", 0), ended_step("work#2", 0)]);
    assert_eq!(store.block(&block_id("r.q")).await?, Some(block("r.q", "r")));
    assert_eq!(store.run(&run("r.c")).await?.expect("started").start, child("r.c", "r", true));
    assert_eq!(mailbox(&*store, "r").await?, [named("me")]);
    let record = store.run(&run("r")).await?.expect("it is there");
    assert_eq!(record.status, RunStatus::Running, "not released");
    assert_eq!(record.start.limit.usd, Some(UsdMicros(5)));
    assert_eq!(record.updated_at, t(1));
    Ok(Verdict::Held)
}

/// One bad part, and none of the good ones is there.
pub async fn a_commit_with_an_invalid_part_leaves_nothing(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let other = claimed(&*store, "other").await?;
    store.commit(Commit { blocks: vec![block("taken", "other")], ..commit(&other) }).await?;
    let claim = claimed(&*store, "r").await?;
    let first = checkpoint(0, vec![full("list", json!([])), full("flag", json!(true))]);
    store.commit(Commit { checkpoint: Some(first), ..commit(&claim) }).await?;
    let good = || big(&claim, 1);
    let at = |seq, deltas| Commit { checkpoint: Some(checkpoint(seq, deltas)), ..good() };
    let ended = Release::Ended { status: RunStatus::Waiting, output: None, failure: None };
    let mut closed = block("closed", "r");
    closed.status = BlockStatus::Answered;
    let nobody = Outgoing { to: Recipient::Run(run("nobody")), kind: named("x") };
    let bad = [
        ("a checkpoint again", at(0, vec![])),
        ("a checkpoint left out", at(2, vec![])),
        ("a channel twice", at(1, vec![full("a", json!(1)), full("a", json!(2))])),
        ("a merge into a list", at(1, vec![full("a", json!(1)), merge("list", json!({}))])),
        ("an append to a flag", at(1, vec![append("flag", json!([1]))])),
        ("an append of no list", at(1, vec![append("list", json!(1))])),
        ("a block of another run", Commit { blocks: vec![block("b", "other")], ..good() }),
        ("a block's id taken", Commit { blocks: vec![block("taken", "r")], ..good() }),
        ("a new block not open", Commit { blocks: vec![closed], ..good() }),
        ("a child of nobody", Commit { children: vec![child("c", "nobody", true)], ..good() }),
        ("a signal to nobody", Commit { outgoing: vec![nobody], ..good() }),
        ("an end that is none", Commit { release: Some(ended), ..good() }),
    ];
    let before = everything(&*store).await?;
    for (what, commit) in bad {
        let refusal = store.commit(commit).await;
        assert!(
            matches!(refusal, Err(Error::Invalid { .. } | Error::NotFound { .. })),
            "{what}: {refusal:?}"
        );
        assert_eq!(everything(&*store).await?, before, "{what}");
    }
    store.commit(good()).await?;
    Ok(Verdict::Held)
}

/// A replayed start starts nothing.
pub async fn a_child_is_started_once(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let start = || Commit { children: vec![child("r.c", "r", false)], ..commit(&claim) };
    assert_eq!(store.commit(start()).await?.woken, [run("r.c")]);
    let child = self::claim(&*store, "r.c").await?;
    store.commit(release(&child, succeeded(json!(1)))).await?;
    assert!(store.commit(start()).await?.woken.is_empty());
    assert_eq!(status(&*store, "r.c").await?, RunStatus::Succeeded);
    Ok(Verdict::Held)
}

/// A sibling that finished before a crash is not run again; a checkpoint ends that.
pub async fn steps_after_the_last_checkpoint_come_back_with_the_claim(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let one = claimed(&*store, "r").await?;
    let early = Commit { steps: vec![ended_step("a#1", 0)], ..commit(&one) };
    store.commit(early).await?;
    let two = store.claim(&run("r"), &worker("w2"), t(TTL_MS), TTL).await?.expect("expired");
    assert_eq!(two.finished, [ended_step("a#1", 0)], "before the first checkpoint");
    let covered = Commit {
        checkpoint: Some(checkpoint(0, vec![])),
        steps: vec![ended_step("b#1", 0)],
        ..commit(&two)
    };
    store.commit(covered).await?;
    let later = Commit { steps: vec![ended_step("c#1", 0), ended_step("d#1", 0)], ..commit(&two) };
    store.commit(later).await?;
    let three = store.claim(&run("r"), &worker("w3"), t(2 * TTL_MS), TTL).await?.expect("expired");
    assert_eq!(three.finished, [ended_step("c#1", 0), ended_step("d#1", 0)]);
    assert_eq!(three.checkpoint.as_ref().map(|checkpoint| checkpoint.seq), Some(0));
    let next = Commit { checkpoint: Some(checkpoint(1, vec![])), ..commit(&three) };
    store.commit(Commit { release: Some(Release::Ready), ..next }).await?;
    assert!(claim(&*store, "r").await?.finished.is_empty());
    assert_eq!(store.steps(&run("r")).await?.len(), 4);
    Ok(Verdict::Held)
}

/// History is not rewritten.
pub async fn a_step_written_twice_is_kept_as_first_written(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let mut other = ended_step("a#1", 0);
    other.ended_at = t(99);
    let mut second_try = ended_step("a#1", 0);
    second_try.attempt = 2;
    store.commit(Commit { steps: vec![ended_step("a#1", 0)], ..commit(&claim) }).await?;
    store.commit(Commit { steps: vec![other, second_try.clone()], ..commit(&claim) }).await?;
    assert_eq!(store.steps(&run("r")).await?, [ended_step("a#1", 0), second_try]);
    Ok(Verdict::Held)
}

/// 1, 2, 3, whatever wrote them, and whatever failed in between.
pub async fn events_are_numbered_without_gaps(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let other = claimed(&*store, "other").await?;
    let seqs = |events: &[Event]| events.iter().map(|event| event.seq).collect::<Vec<_>>();
    let told =
        store.commit(Commit { events: vec![event("a"), event("b")], ..commit(&claim) }).await?;
    assert_eq!(seqs(&told.events), [1, 2]);
    let bad = Commit {
        events: vec![event("lost")],
        checkpoint: Some(checkpoint(9, vec![])),
        ..commit(&claim)
    };
    assert!(store.commit(bad).await.is_err());
    store.note(&run("other"), other.run.epoch, vec![event("theirs")], t(1)).await?;
    let noted = store.note(&run("r"), claim.run.epoch, vec![event("c")], t(2)).await?;
    assert_eq!(seqs(&noted), [3]);
    assert!(store.note(&run("r"), claim.run.epoch, vec![], t(2)).await?.is_empty());
    let result = Arc::new(json!(1));
    let finished = store.finish(key(&claim, "k"), result, usd(0), vec![event("d")], t(3)).await?;
    assert_eq!(seqs(&finished), [4]);
    let all = store.events(&run("r"), 0, 0).await?;
    assert_eq!(seqs(&all), [1, 2, 3, 4]);
    assert_eq!(all[2].step, Some(step("work#1")));
    Ok(Verdict::Held)
}

/// A draining worker hands over without waiting for its lease to end.
pub async fn a_released_run_is_claimable_at_once(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let done = store.commit(release(&claim, Release::Ready)).await?;
    assert_eq!(done.woken, [run("r")]);
    let next = store.claim_next(&worker("w2"), &[queue("q")], t(1), TTL).await?;
    assert_eq!(next.expect("it is ready").run.lease_owner, Some(worker("w2")));
    Ok(Verdict::Held)
}

/// A person's raise never takes away.
pub async fn a_limit_is_set_by_a_commit_and_raised_by_a_person(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let limit = |usd: Option<u64>, tokens| Limit { usd: usd.map(UsdMicros), tokens };
    store.commit(Commit { limit: Some(limit(Some(5), Some(10))), ..commit(&claim) }).await?;
    let raised = store.raise_limit(&run("r"), limit(Some(8), Some(4)), t(2)).await?;
    assert_eq!(raised, limit(Some(8), Some(10)));
    let lifted = store.raise_limit(&run("r"), limit(Some(1), None), t(3)).await?;
    assert_eq!(lifted, limit(Some(8), None));
    assert_eq!(store.run(&run("r")).await?.expect("there").start.limit, lifted);
    let unknown = store.raise_limit(&run("nobody"), lifted, t(3)).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "run", .. })), "{unknown:?}");
    Ok(Verdict::Held)
}

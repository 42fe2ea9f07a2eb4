//! Clauses about deleting and pruning.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::id::GraphHash;
use swarm_core::port::store::{
    CheckpointFilter, Commit, DeleteError, GRAPH_GRACE, GraphText, Keep, Pruned, Release, Result,
    Retention, Store,
};
use swarm_core::run::{NewRun, RunStatus};
use swarm_core::time::Timestamp;

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

async fn seqs(store: &dyn Store, id: &str) -> Result<Vec<u64>> {
    let listed = store.checkpoints(&run(id), &CheckpointFilter::default()).await?;
    Ok(listed.iter().rev().map(|info| info.seq).collect())
}

fn keep_last(count: u64) -> Retention {
    let keep = Keep { last: Some(count), max_age: None };
    Retention { live: keep, ended: keep, remove_after: None }
}

/// A run with checkpoints 0..count at moments 0, 1000, 2000 and so on; returns each state.
async fn history(store: &dyn Store, id: &str, count: u64) -> Result<Vec<Value>> {
    let claim = claimed(store, id).await?;
    let mut states = Vec::new();
    for seq in 0..count {
        let mut deltas =
            vec![append("log", json!([seq])), merge("map", json!({format!("k{}", seq % 3): seq}))];
        if seq % 5 == 0 {
            deltas.push(full("plan", json!(seq)));
        }
        if seq == 6 {
            deltas.push(full("late", json!("from now on")));
        }
        let at = t(i64::try_from(seq).expect("few") * 1000);
        store
            .commit(Commit { checkpoint: Some(checkpoint(seq, deltas)), at, ..commit(&claim) })
            .await?;
        let checkpoint = store.checkpoint(&run(id), None).await?.expect("just written");
        states.push(checkpoint.state.to_value());
    }
    store.commit(release(&claim, Release::Ready)).await?;
    Ok(states)
}

async fn assert_reads(store: &dyn Store, id: &str, states: &[Value], from: u64) -> Result<()> {
    for (seq, state) in (0..).zip(states) {
        let found = store.checkpoint(&run(id), Some(seq)).await?;
        let found = found.map(|checkpoint| checkpoint.state.to_value());
        assert_eq!(found.as_ref(), (seq >= from).then_some(state), "{id} at {seq}");
    }
    Ok(())
}

/// Whatever full value, list or object they are made of.
pub async fn checkpoints_that_are_left_read_as_before(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for count in [1, 2, 3, 5, 8, 11, 99] {
        let id = format!("r{count}");
        let states = history(&*store, &id, 12).await?;
        let only = [run(&id)];
        let pruned = store.prune(&keep_last(count), Some(&only), t(0)).await?;
        let first = 12_u64.saturating_sub(count);
        assert_eq!(pruned, Pruned { checkpoints: first, ..Pruned::default() });
        assert_reads(&*store, &id, &states, first).await?;
        assert_eq!(seqs(&*store, &id).await?, (first..12).collect::<Vec<_>>());
        let again = store.prune(&keep_last(count), Some(&only), t(0)).await?;
        assert_eq!(again, Pruned::default(), "nothing is left to do");
        // The run goes on, and so does pruning.
        let claim = claim(&*store, &id).await?;
        assert_eq!(
            claim.checkpoint.as_ref().map(|last| last.state.to_value()),
            states.last().cloned()
        );
        for seq in 12..16 {
            let deltas = vec![append("log", json!([seq])), merge("map", json!({"k0": seq}))];
            store
                .commit(Commit { checkpoint: Some(checkpoint(seq, deltas)), ..commit(&claim) })
                .await?;
        }
        store.prune(&keep_last(1), Some(&only), t(0)).await?;
        let last = store.checkpoint(&run(&id), None).await?.expect("the last one always is");
        assert_eq!(last.seq, 15);
        let log = last.state.get("log").map(|log| (**log).clone());
        assert_eq!(log, Some(json!((0..16).collect::<Vec<_>>())), "claimed or not");
    }
    Ok(Verdict::Held)
}

/// Nothing happens to others, or for nothing.
pub async fn pruning_touches_only_what_it_was_given(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    history(&*store, "a", 6).await?;
    history(&*store, "b", 6).await?;
    store.create_run(new_run("new"), t(0)).await?;
    let before = everything(&*store).await?;
    for only in [&[][..], &[run("nobody")], &[run("new")]] {
        assert_eq!(store.prune(&keep_last(1), Some(only), t(9)).await?, Pruned::default());
    }
    assert_eq!(
        store.prune(&Retention::default(), None, t(i64::from(u32::MAX))).await?,
        Pruned::default()
    );
    assert_eq!(everything(&*store).await?, before);
    store.prune(&keep_last(2), Some(&[run("a"), run("a")]), t(9)).await?;
    assert_eq!((seqs(&*store, "a").await?, seqs(&*store, "b").await?.len()), (vec![4, 5], 6));
    store.prune(&keep_last(2), None, t(9)).await?;
    assert_eq!(seqs(&*store, "b").await?, [4, 5]);
    Ok(Verdict::Held)
}

/// By age as by count, for runs that go on and those that ended each in their own way.
pub async fn checkpoints_go_by_age_and_the_last_one_stays(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let states = history(&*store, "live", 10).await?;
    history(&*store, "over", 10).await?;
    let claim = claim(&*store, "over").await?;
    store.commit(release(&claim, succeeded(json!(1)))).await?;
    let young = |secs| Keep { last: None, max_age: Some(Duration::from_secs(secs)) };
    let retention = Retention { live: young(5), ended: young(2), remove_after: None };
    store.prune(&retention, None, t(10_000)).await?;
    assert_eq!(seqs(&*store, "live").await?, [5, 6, 7, 8, 9]);
    assert_eq!(seqs(&*store, "over").await?, [8, 9]);
    assert_reads(&*store, "live", &states, 5).await?;
    store.prune(&retention, None, t(1_000_000)).await?;
    assert_eq!((seqs(&*store, "live").await?, seqs(&*store, "over").await?), (vec![9], vec![9]));
    assert_reads(&*store, "live", &states, 9).await?;
    Ok(Verdict::Held)
}

/// The journal is what keeps effects from being done twice.
pub async fn pruning_leaves_the_journal_and_questions_of_what_goes_on(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let over = swarm_core::port::store::EntryKey { step: step("over#1"), ..key(&claim, "m") };
    store.finish(over, Arc::new(json!(1)), usd(2), vec![], t(1)).await?;
    store.finish(key(&claim, "m"), Arc::new(json!(2)), usd(2), vec![], t(1)).await?;
    store.begin(key(&claim, "act"), json!("intent"), usd(3), t(1)).await?;
    for seq in 0..4 {
        let steps = if seq == 1 { vec![ended_step("over#1", 0)] } else { vec![] };
        let blocks = if seq == 0 { vec![block("q", "r")] } else { vec![] };
        let checkpoint = Some(checkpoint(seq, vec![]));
        store
            .commit(Commit {
                checkpoint,
                steps,
                blocks,
                events: vec![event("said")],
                ..commit(&claim)
            })
            .await?;
    }
    let early = Commit { steps: vec![ended_step("early#1", 3)], ..release(&claim, waiting()) };
    store.commit(early).await?;
    let record = store.run(&run("r")).await?;
    store.prune(&keep_last(1), None, t(9)).await?;
    assert!(store.entries(&run("r"), &step("over#1")).await?.is_empty(), "it is over");
    assert_eq!(store.entries(&run("r"), &step("work#1")).await?.len(), 2);
    assert_eq!(store.steps(&run("r")).await?.len(), 2);
    assert_eq!(store.events(&run("r"), 0, 0).await?.len(), 4);
    assert_eq!(store.run(&run("r")).await?, record, "not a change of the run");
    store.answer(&block_id("q"), Arc::new(json!("left")), person("ann"), t(10)).await?;
    let next = self::claim(&*store, "r").await?;
    let finished: Vec<&str> = next.finished.iter().map(|record| record.step.as_str()).collect();
    assert_eq!(finished, ["early#1"]);
    Ok(Verdict::Held)
}

/// A fork stands by itself, and a survivor can still be forked.
pub async fn pruning_breaks_no_fork(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let states = history(&*store, "r", 10).await?;
    let fork = |seq: u64, id: &str| swarm_core::port::store::Fork {
        from: run("r"),
        seq,
        id: run(id),
        graph: None,
        queue: queue("q"),
        priority: 0,
        labels: std::collections::BTreeMap::new(),
        limit: swarm_core::run::Limit::default(),
    };
    store.fork(fork(3, "old"), t(0)).await?;
    store.prune(&keep_last(2), None, t(0)).await?;
    assert_reads(&*store, "old", &states[3..4], 0).await?;
    let gone = store.fork(fork(3, "again"), t(0)).await;
    assert!(gone.is_err(), "{gone:?}");
    store.fork(fork(8, "new"), t(0)).await?;
    assert_reads(&*store, "new", &states[8..9], 0).await?;
    Ok(Verdict::Held)
}

async fn end(store: &dyn Store, id: &str, at: Timestamp) -> Result<()> {
    let claim = store.claim(&run(id), &worker("w1"), t(0), TTL).await?.expect("claimable");
    let ended = Commit { at, ..release(&claim, succeeded(json!(id))) };
    store.commit(ended).await.map(|_| ())
}

/// A tree goes as a whole, once the last of it has been over for long enough.
pub async fn ended_runs_are_removed_by_whole_trees(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for start in [
        new_run("a"),
        child("a.b", "a", true),
        child("a.b.c", "a.b", false),
        new_run("live"),
        child("live.x", "live", true),
        new_run("half"),
        child("half.x", "half", false),
    ] {
        store.create_run(start, t(0)).await?;
    }
    for (id, ms) in [("a", 1000), ("a.b", 2000), ("a.b.c", 3000), ("live.x", 0), ("half", 0)] {
        end(&*store, id, t(ms)).await?;
    }
    let remove = Retention { remove_after: Some(Duration::from_secs(10)), ..Retention::default() };
    for (now, runs, left) in [(12_999, 0, 7), (13_000, 3, 4), (1_000_000, 0, 4)] {
        let pruned = store.prune(&remove, None, t(now)).await?;
        assert_eq!(pruned, Pruned { runs, ..Pruned::default() }, "at {now}");
        assert_eq!(store.runs(&Default::default()).await?.len(), left, "at {now}");
    }
    end(&*store, "half.x", t(2_000_000)).await?;
    let only = [run("half.x")];
    assert_eq!(store.prune(&remove, Some(&only), t(9_000_000)).await?.runs, 0, "not from below");
    assert_eq!(store.prune(&remove, Some(&[run("half")]), t(9_000_000)).await?.runs, 2);
    Ok(Verdict::Held)
}

/// Kept for whoever may just be about to start its run.
pub async fn a_graph_text_goes_a_day_after_its_last_run(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let text = |hash: &str| GraphText {
        hash: GraphHash(hash.into()),
        name: graph("g"),
        version: "1".to_owned(),
        text: hash.to_owned(),
    };
    for hash in ["used", "unused", "again"] {
        store.put_graph(text(hash)).await?;
    }
    let used = NewRun { graph_hash: GraphHash("used".into()), ..new_run("r") };
    store.create_run(used, t(0)).await?;
    let all = Retention::default();
    let grace = i64::try_from(GRAPH_GRACE.as_millis())?;
    assert_eq!(store.prune(&all, None, t(0)).await?.graphs, 0);
    store.put_graph(text("again")).await?;
    assert_eq!(store.prune(&all, None, t(grace - 1)).await?.graphs, 0);
    assert_eq!(store.prune(&all, None, t(grace)).await?.graphs, 1);
    assert!(store.graph(&GraphHash("unused".into())).await?.is_none());
    assert!(store.graph(&GraphHash("again".into())).await?.is_some());
    end(&*store, "r", t(0)).await?;
    store.delete_run(&run("r")).await?;
    assert_eq!(store.prune(&all, None, t(grace * 2)).await?.graphs, 1, "again");
    assert!(store.graph(&GraphHash("used".into())).await?.is_some());
    assert_eq!(store.prune(&all, None, t(grace * 3)).await?.graphs, 1, "used");
    Ok(Verdict::Held)
}

/// All of it, and nothing of others; the ids are free again.
pub async fn a_deleted_run_is_gone_with_all_below_it(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let fill = async |id: &str| -> Result<()> {
        let claim = store.claim(&run(id), &worker("w1"), t(0), TTL).await?.expect("claimable");
        store
            .finish(key(&claim, "m"), Arc::new(json!(1)), usd(1), vec![event("said")], t(1))
            .await?;
        let commit = Commit {
            checkpoint: Some(checkpoint(0, vec![full("plan", json!(id))])),
            steps: vec![ended_step("work#1", 0)],
            blocks: vec![block(&format!("{id}.q"), id)],
            ..release(&claim, Release::Ready)
        };
        store.commit(commit).await?;
        store.signal(&run(id), Some("key"), named("push"), t(1)).await?;
        Ok(())
    };
    store.create_run(new_run("other"), t(0)).await?;
    fill("other").await?;
    let others = everything(&*store).await?;
    for start in [new_run("r"), child("r.a", "r", true), child("r.a.b", "r.a", true)] {
        let id = start.id.clone();
        store.create_run(start, t(0)).await?;
        fill(id.as_str()).await?;
    }
    for id in ["r.a.b", "r.a", "r"] {
        end(&*store, id, t(5)).await?;
    }
    assert_eq!(store.delete_run(&run("nobody")).await?, 0);
    assert_eq!(store.delete_run(&run("r")).await?, 3);
    assert_eq!(everything(&*store).await?, others);
    for id in ["r", "r.a", "r.a.b"] {
        assert!(store.run(&run(id)).await?.is_none());
        assert!(store.checkpoint(&run(id), None).await?.is_none());
        assert!(store.events(&run(id), 0, 0).await?.is_empty());
        assert!(store.steps(&run(id)).await?.is_empty());
        assert!(store.entries(&run(id), &step("work#1")).await?.is_empty());
        assert!(store.block(&block_id(&format!("{id}.q"))).await?.is_none());
        assert!(store.signals(&run(id)).await?.is_empty());
    }
    assert_eq!(store.delete_run(&run("r")).await?, 0, "twice is once");
    assert!(store.create_run(new_run("r"), t(9)).await?);
    assert!(store.signal(&run("r"), Some("key"), named("push"), t(9)).await?, "no key is left");
    fill("r").await?;
    Ok(Verdict::Held)
}

/// Neither what somebody may still work on, nor what would be started again.
pub async fn a_run_is_not_deleted_while_it_or_one_above_is_live(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    for start in [new_run("r"), child("r.a", "r", true), child("r.b", "r", false)] {
        store.create_run(start, t(0)).await?;
    }
    let refused = store.delete_run(&run("r")).await;
    let is_live = |found: &std::result::Result<u64, DeleteError>, id: &str, wanted: RunStatus| matches!(found, Err(DeleteError::Live { run: live, status }) if *live == run(id) && *status == wanted);
    assert!(is_live(&refused, "r", RunStatus::Ready), "{refused:?}");
    end(&*store, "r.a", t(1)).await?;
    let needed = store.delete_run(&run("r.a")).await;
    assert!(
        matches!(&needed, Err(DeleteError::Needed { run: of, by }) if *of == run("r.a") && *by == run("r")),
        "{needed:?}"
    );
    end(&*store, "r", t(2)).await?;
    let refused = store.delete_run(&run("r")).await;
    assert!(is_live(&refused, "r.b", RunStatus::Ready), "{refused:?}");
    let claim = claim(&*store, "r.b").await?;
    let refused = store.delete_run(&run("r.b")).await;
    assert!(is_live(&refused, "r.b", RunStatus::Running), "{refused:?}");
    store.commit(release(&claim, waiting())).await?;
    let refused = store.delete_run(&run("r.b")).await;
    assert!(is_live(&refused, "r.b", RunStatus::Waiting), "{refused:?}");
    end_waiting(&*store).await?;
    assert_eq!(store.delete_run(&run("r.a")).await?, 1, "a branch of what is over");
    assert_eq!(store.delete_run(&run("r")).await?, 2);
    Ok(Verdict::Held)
}

async fn end_waiting(store: &dyn Store) -> Result<()> {
    store.signal(&run("r.b"), None, named("go"), t(3)).await?;
    end(store, "r.b", t(3)).await
}

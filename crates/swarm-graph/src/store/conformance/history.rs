//! Clauses about what is read, and about what is still there after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use swarm_core::id::GraphHash;
use swarm_core::port::store::{Commit, Error, GraphText, Result, RunFilter, Store};
use swarm_core::run::{NewRun, RunStatus};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

async fn list(store: &dyn Store, filter: RunFilter) -> Result<String> {
    let runs = store.runs(&filter).await?;
    Ok(runs.iter().map(|record| record.start.id.as_str()).collect::<Vec<_>>().join(" "))
}

/// Filters narrow, the cursor goes on.
pub async fn runs_are_listed_newest_first_with_filters(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let a = NewRun { labels: labels(&[("repo", "x"), ("issue", "1")]), ..new_run("a") };
    let b = NewRun { labels: labels(&[("repo", "x"), ("issue", "2")]), ..new_run("b") };
    let c = NewRun { graph: graph("h"), labels: labels(&[]), ..child("c", "a", true) };
    let d = NewRun { labels: labels(&[("repo\"", "y'\\")]), ..child("d", "a", false) };
    for start in [a, b, c, d] {
        store.create_run(start, t(0)).await?;
    }
    let claim = claim(&*store, "b").await?;
    store.commit(release(&claim, waiting())).await?;
    self::claim(&*store, "c").await?;
    let all = RunFilter::default();
    let pairs = |pairs: &[(&str, &str)]| labels(pairs).into_iter().collect::<Vec<_>>();
    let before = |id: &str| Some(run(id));
    for (filter, expected) in [
        (all.clone(), "d c b a"),
        (RunFilter { limit: 2, ..all.clone() }, "d c"),
        (RunFilter { limit: 2, before: before("c"), ..all.clone() }, "b a"),
        (RunFilter { before: before("a"), ..all.clone() }, ""),
        (RunFilter { status: vec![RunStatus::Ready], ..all.clone() }, "d a"),
        (RunFilter { status: vec![RunStatus::Running, RunStatus::Waiting], ..all.clone() }, "c b"),
        (RunFilter { graph: Some(graph("h")), ..all.clone() }, "c"),
        (RunFilter { parent: Some(run("a")), ..all.clone() }, "d c"),
        (RunFilter { parent: Some(run("nobody")), ..all.clone() }, ""),
        (RunFilter { only_roots: true, ..all.clone() }, "b a"),
        (RunFilter { labels: pairs(&[("repo", "x")]), ..all.clone() }, "b a"),
        (RunFilter { labels: pairs(&[("repo", "x"), ("issue", "2")]), ..all.clone() }, "b"),
        (RunFilter { labels: pairs(&[("repo", "z")]), ..all.clone() }, ""),
        (RunFilter { labels: pairs(&[("repo\"", "y'\\")]), ..all.clone() }, "d"),
        (RunFilter { parent: Some(run("a")), before: before("d"), limit: 1, ..all.clone() }, "c"),
    ] {
        assert_eq!(list(&*store, filter.clone()).await?, expected, "{filter:?}");
    }
    let unknown = store.runs(&RunFilter { before: before("nobody"), ..all }).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "run", .. })), "{unknown:?}");
    Ok(Verdict::Held)
}

/// A reader goes on where it stopped.
pub async fn events_are_read_from_a_number_on(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    for word in ["a", "b", "c", "d"] {
        store.note(&run("r"), claim.run.epoch, vec![event(word)], t(1)).await?;
    }
    for (after, limit, expected) in [
        (0, 0, vec![1, 2, 3, 4]),
        (2, 0, vec![3, 4]),
        (1, 2, vec![2, 3]),
        (4, 0, vec![]),
        (u64::MAX, 1, vec![]),
    ] {
        let events = store.events(&run("r"), after, limit).await?;
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, expected, "after {after}, at most {limit}");
    }
    Ok(Verdict::Held)
}

/// Reading is not refused for want of a run.
pub async fn an_unknown_run_reads_as_empty(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let nobody = run("nobody");
    assert!(store.run(&nobody).await?.is_none());
    assert!(store.events(&nobody, 0, 0).await?.is_empty());
    assert!(store.checkpoint(&nobody, None).await?.is_none());
    assert!(store.steps(&nobody).await?.is_empty());
    assert!(store.signals(&nobody).await?.is_empty());
    assert!(store.entries(&nobody, &step("work#1")).await?.is_empty());
    assert!(store.block(&block_id("nobody")).await?.is_none());
    store.create_run(new_run("new"), t(0)).await?;
    assert!(store.checkpoint(&run("new"), None).await?.is_none());
    assert!(store.checkpoint(&run("new"), Some(0)).await?.is_none());
    Ok(Verdict::Held)
}

/// By content: the same hash is the same text.
pub async fn a_graph_is_kept_under_its_hash(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let text = GraphText {
        hash: GraphHash("abc".into()),
        name: graph("g"),
        version: "1.0.0".to_owned(),
        text: "dsl: 1\n".to_owned(),
    };
    assert!(store.graph(&text.hash).await?.is_none());
    store.put_graph(text.clone()).await?;
    store.put_graph(GraphText { text: "other".to_owned(), ..text.clone() }).await?;
    assert_eq!(store.graph(&text.hash).await?, Some(text));
    Ok(Verdict::Held)
}

/// `Ok` means durable, for every kind of write.
pub async fn what_was_acknowledged_is_there_after_a_restart(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let everything_of_a_commit = Commit {
        checkpoint: Some(checkpoint(0, vec![full("plan", json!("x")), append("log", json!([1]))])),
        steps: vec![ended_step("work#1", 0)],
        blocks: vec![block("q", "r")],
        children: vec![child("r.c", "r", true)],
        events: vec![event("said")],
        ..commit(&claim)
    };
    store.commit(everything_of_a_commit).await?;
    store.commit(Commit { steps: vec![ended_step("work#2", 0)], ..commit(&claim) }).await?;
    store.begin(key(&claim, "k"), json!("intent"), usd(5), t(2)).await?;
    store.finish(key(&claim, "m"), Arc::new(json!("memo")), usd(1), vec![], t(2)).await?;
    store.answer(&block_id("q"), Arc::new(json!("yes")), person("ann"), t(3)).await?;
    store.signal(&run("r"), Some("d1"), named("push"), t(3)).await?;
    let text = GraphText {
        hash: GraphHash("h".into()),
        name: graph("g"),
        version: "1".to_owned(),
        text: "t".to_owned(),
    };
    store.put_graph(text.clone()).await?;
    store.put("issues", "1", 0, json!({ "title": "T" })).await?;
    let before = everything(&*store).await?;
    drop(store);
    if !ground.reopen().await {
        return Ok(Verdict::DoesNotApply);
    }
    let store = ground.store();
    assert_eq!(everything(&*store).await?, before);
    assert_eq!(store.graph(&text.hash).await?, Some(text));
    assert_eq!(store.get("issues", "1").await?.map(|record| record.version), Some(1));
    assert!(!store.signal(&run("r"), Some("d1"), named("push"), t(4)).await?);
    // The claim, too: its holder may have survived the restart of the store.
    store.commit(Commit { checkpoint: Some(checkpoint(1, vec![])), ..commit(&claim) }).await?;
    let next = store.claim(&run("r"), &worker("w2"), t(TTL_MS), TTL).await?.expect("expired");
    let state = next.checkpoint.expect("there").state.to_value();
    assert_eq!(state, json!({ "log": [1], "plan": "x" }));
    Ok(Verdict::Held)
}

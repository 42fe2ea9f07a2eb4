//! Clauses about the journal and its money.

use std::sync::Arc;

use serde_json::json;
use swarm_core::port::store::{Begun, Commit, Entry, Store};
use swarm_core::run::{Limit, NewRun};
use swarm_core::spend::{Spend, UsdMicros};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

fn entry(key: &str, reserved: Spend) -> Entry {
    Entry { key: key.to_owned(), intent: json!({ "do": key }), reserved, result: None }
}

/// The key decides; what was meant first stays.
pub async fn an_intent_is_written_once(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let begin = |name: &'static str, reserve| {
        let (store, key) = (Arc::clone(&store), key(&claim, name));
        async move { store.begin(key, json!({ "do": name }), reserve, t(1)).await }
    };
    assert_eq!(begin("push", usd(5)).await?, Begun::New);
    assert_eq!(begin("comment", usd(0)).await?, Begun::New);
    assert_eq!(begin("push", usd(7)).await?, Begun::Existing(entry("push", usd(5))));
    assert_eq!(store.run(&run("r")).await?.expect("there").reserved, usd(5), "reserved once");
    let entries = store.entries(&run("r"), &step("work#1")).await?;
    assert_eq!(entries, [entry("push", usd(5)), entry("comment", usd(0))]);
    assert!(store.entries(&run("r"), &step("work#2")).await?.is_empty());
    // The next owner finds it too.
    let next = store.claim(&run("r"), &worker("w2"), t(TTL_MS), TTL).await?.expect("expired");
    let begun = store.begin(key(&next, "push"), json!(0), usd(1), t(1)).await?;
    assert_eq!(begun, Begun::Existing(entry("push", usd(5))));
    Ok(Verdict::Held)
}

/// The first result stays, its cost is booked once.
pub async fn a_result_is_written_once_and_needs_no_intent(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let finish = |name: &'static str, result: i32, spend| {
        let (store, key) = (Arc::clone(&store), key(&claim, name));
        async move { store.finish(key, Arc::new(json!(result)), spend, vec![event("done")], t(2)).await }
    };
    store.begin(key(&claim, "push"), json!({ "do": "push" }), usd(5), t(1)).await?;
    assert_eq!(finish("push", 1, usd(2)).await?.len(), 1);
    assert!(finish("push", 2, usd(9)).await?.is_empty());
    assert_eq!(finish("memo", 3, usd(1)).await?.len(), 1);
    let record = store.run(&run("r")).await?.expect("there");
    assert_eq!((record.reserved, record.spent), (usd(0), usd(3)));
    assert_eq!(store.events(&run("r"), 0, 0).await?.len(), 2);
    let entries = store.entries(&run("r"), &step("work#1")).await?;
    let push = Entry { result: Some(Arc::new(json!(1))), ..entry("push", usd(5)) };
    let memo = Entry {
        key: "memo".to_owned(),
        intent: json!(null),
        reserved: usd(0),
        result: Some(Arc::new(json!(3))),
    };
    assert_eq!(entries, [push.clone(), memo]);
    let begun = store.begin(key(&claim, "push"), json!(0), usd(1), t(3)).await?;
    assert_eq!(begun, Begun::Existing(push));
    Ok(Verdict::Held)
}

/// The nearest limit that is too low is named, and nothing is written.
pub async fn a_reservation_respects_every_limit_above_it(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let limit = |usd: u64, tokens: u64| Limit { usd: Some(UsdMicros(usd)), tokens: Some(tokens) };
    store.create_run(NewRun { limit: limit(100, 1000), ..new_run("top") }, t(0)).await?;
    store.create_run(child("mid", "top", true), t(0)).await?;
    let leaf = NewRun { limit: limit(60, 1000), ..child("leaf", "mid", true) };
    store.create_run(leaf, t(0)).await?;
    store.create_run(child("sibling", "mid", true), t(0)).await?;
    let (leaf, sibling) = (claim(&*store, "leaf").await?, claim(&*store, "sibling").await?);
    let begin = |claim, name: &str, reserve| {
        let (store, key) = (Arc::clone(&store), key(claim, name));
        async move { store.begin(key, json!(0), reserve, t(1)).await }
    };
    assert_eq!(begin(&sibling, "a", usd(50)).await?, Begun::New);
    assert_eq!(begin(&leaf, "b", usd(40)).await?, Begun::New);
    let own = Begun::OverLimit { run: run("leaf"), limit: limit(60, 1000), used: usd(40) };
    assert_eq!(begin(&leaf, "c", usd(21)).await?, own);
    let above = Begun::OverLimit { run: run("top"), limit: limit(100, 1000), used: usd(90) };
    assert_eq!(begin(&leaf, "c", usd(11)).await?, above);
    assert_eq!(begin(&sibling, "c", usd(11)).await?, above);
    let tokens = Spend { usd: UsdMicros(0), tokens: 1001 };
    assert!(matches!(begin(&sibling, "c", tokens).await?, Begun::OverLimit { .. }));
    assert_eq!(begin(&leaf, "c", usd(10)).await?, Begun::New, "up to the limit itself");
    assert_eq!(begin(&leaf, "free", usd(0)).await?, Begun::New, "nothing is always allowed");
    let keys: Vec<String> = store
        .entries(&run("leaf"), &step("work#1"))
        .await?
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["b", "c", "free"]);
    for (id, reserved) in [("top", 100), ("mid", 100), ("leaf", 50), ("sibling", 50)] {
        assert_eq!(store.run(&run(id)).await?.expect("there").reserved, usd(reserved), "{id}");
    }
    let raise = Commit { limit: Some(limit(1000, 1000)), ..commit(&leaf) };
    store.commit(raise).await?;
    assert!(matches!(begin(&leaf, "d", usd(1)).await?, Begun::OverLimit { run, .. }
        if run.as_str() == "top"));
    Ok(Verdict::Held)
}

/// Two that fit alone but not together are not both let through.
pub async fn of_many_reservations_only_those_that_fit_succeed(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let limit = Limit { usd: Some(UsdMicros(10)), tokens: None };
    store.create_run(NewRun { limit, ..new_run("top") }, t(0)).await?;
    let mut tries = Vec::new();
    for n in 0..40 {
        let id = format!("kid{n}");
        store.create_run(child(&id, "top", false), t(0)).await?;
        let claim = claim(&*store, &id).await?;
        let store: Arc<dyn Store> = Arc::clone(&store);
        tries.push(tokio::spawn(async move {
            store.begin(key(&claim, "call"), json!(0), usd(1), t(1)).await
        }));
    }
    let mut fit = 0;
    for one in tries {
        match one.await?? {
            Begun::New => fit += 1,
            Begun::OverLimit { used, .. } => assert_eq!(used, usd(10)),
            Begun::Existing(entry) => panic!("a new key: {entry:?}"),
        }
    }
    assert_eq!(fit, 10);
    assert_eq!(store.run(&run("top")).await?.expect("there").reserved, usd(10));
    Ok(Verdict::Held)
}

/// What a child spends, its parents have spent.
pub async fn spend_is_booked_up_the_tree(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for start in [
        new_run("top"),
        child("mid", "top", false),
        child("leaf", "mid", true),
        child("other", "top", true),
    ] {
        store.create_run(start, t(0)).await?;
    }
    // An ancestor that has ended keeps the books all the same.
    let mid = claim(&*store, "mid").await?;
    store.commit(release(&mid, succeeded(json!(1)))).await?;
    let spent = Spend { usd: UsdMicros(7), tokens: 900 };
    for (id, key_name) in [("leaf", "a"), ("other", "b")] {
        let claim = claim(&*store, id).await?;
        store.begin(key(&claim, key_name), json!(0), usd(20), t(1)).await?;
        // More than was reserved: reality wins.
        store.finish(key(&claim, key_name), Arc::new(json!(0)), spent, vec![], t(1)).await?;
    }
    for (id, times) in [("leaf", 1), ("other", 1), ("mid", 1), ("top", 2)] {
        let record = store.run(&run(id)).await?.expect("there");
        let expected = Spend { usd: UsdMicros(7 * times), tokens: 900 * times };
        assert_eq!((record.spent, record.reserved), (expected, Spend::default()), "{id}");
    }
    Ok(Verdict::Held)
}

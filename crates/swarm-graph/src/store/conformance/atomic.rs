//! Each write fails at each of its statements in turn, and none of it is there.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::json;
use swarm_core::port::store::{Commit, CopyRun, Edit, Fork, Outgoing, Recipient, Store};
use swarm_core::run::{Limit, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// A write by its name.
type Write = (&'static str, fn(Arc<dyn Store>) -> BoxFuture<'static, Result<String, String>>);

/// How far a write may be from its end before something is wrong with the count.
const STATEMENTS_MAX: u64 = 500;

fn told<T: Debug, E: Debug>(result: Result<T, E>) -> Result<String, String> {
    result.map(|done| format!("{done:?}")).map_err(|error| format!("{error:?}"))
}

macro_rules! writes {
    ($($name:literal: |$store:ident| $work:expr;)*) => {
        const WRITES: &[Write] = &[$(($name, |$store| Box::pin(async move { told($work.await) }))),*];
    };
}

// In an order in which each finds what those before it have left.
writes! {
    "create_run": |store| store.create_run(new_run("new"), t(1));
    "create_run of a child": |store| store.create_run(child("new.c", "new", true), t(1));
    "create_claimed": |store| store.create_claimed(new_run("own"), &worker("w1"), t(1), TTL);
    "claim": |store| store.claim(&run("new"), &worker("w1"), t(1), TTL);
    "claim_next": |store| store.claim_next(&worker("w1"), &[queue("q")], t(1), TTL);
    "renew": |store| store.renew(&run("r"), swarm_core::run::Epoch(1), t(2), TTL);
    "commit": |store| store.commit(whole());
    "signal": |store| store.signal(&run("r"), Some("key"), named("outside"), t(2));
    "begin": |store| store.begin(at_work("begun"), json!("intent"), usd(7), t(2));
    "finish": |store| store.finish(at_work("begun"), Arc::new(json!(1)), usd(3), vec![event("done")], t(2));
    "note": |store| store.note(&run("r"), swarm_core::run::Epoch(1), vec![event("noted")], t(2));
    "raise_limit": |store| store.raise_limit(&run("r"), Limit { usd: Some(UsdMicros(90)), tokens: None }, t(2));
    "answer": |store| store.answer(&block_id("r.q"), Arc::new(json!({ "choice": "left" })), person("ada"), t(3));
    "fork": |store| store.fork(forked(), t(3));
    "copy_run": |store| store.copy_run(CopyRun { from: run("r"), id: run("copy"), claimable: false }, t(3));
    "edit": |store| store.edit(edited(), t(3));
    "commit that waits": |store| store.commit(Commit { release: Some(waiting()), ..of_r() });
    "claim_idle": |store| store.claim_idle(&run("r"), &worker("w2"), t(4), TTL);
    "commit that ends": |store| store.commit(Commit { epoch: swarm_core::run::Epoch(2), release: Some(succeeded(json!("out"))), ..of_r() });
    "delete_run": |store| store.delete_run(&run("copy"));
}

fn of_r() -> Commit {
    Commit::new(run("r"), swarm_core::run::Epoch(1), t(2))
}

fn at_work(key: &str) -> swarm_core::port::store::EntryKey {
    let epoch = swarm_core::run::Epoch(1);
    swarm_core::port::store::EntryKey {
        run: run("r"),
        epoch,
        step: step("work#1"),
        key: key.to_owned(),
    }
}

/// A commit of a new run that uses every part.
fn whole() -> Commit {
    Commit {
        first: Some(checkpoint(0, vec![full("log", json!(["a"])), full("map", json!({}))])),
        checkpoint: Some(checkpoint(
            1,
            vec![append("log", json!(["b"])), merge("map", json!({"k": 1}))],
        )),
        steps: vec![ended_step("work#1", 0), ended_step("work#2", 0)],
        blocks: vec![block("r.q", "r"), block("r.p", "r")],
        withdrawn: vec![block_id("r.p")],
        children: vec![child("r.c", "r", true)],
        outgoing: vec![
            Outgoing { to: Recipient::Run(run("r")), kind: named("me") },
            Outgoing { to: Recipient::Ancestors, kind: named("above") },
            Outgoing { to: Recipient::Children, kind: named("below") },
        ],
        limit: Some(Limit { usd: Some(UsdMicros(50)), tokens: None }),
        events: vec![event("one"), event("two")],
        ..of_r()
    }
}

fn forked() -> Fork {
    Fork {
        from: run("r"),
        seq: 1,
        id: run("fork"),
        graph: None,
        queue: queue("q"),
        priority: 0,
        labels: BTreeMap::new(),
        limit: Limit::default(),
    }
}

fn edited() -> Edit {
    Edit {
        run: run("fork"),
        expected: 0,
        deltas: vec![full("log", json!(["c"]))],
        by: "ada".to_owned(),
    }
}

/// A write that fails at any of its statements leaves nothing of itself, and can be done again.
pub async fn a_write_that_fails_at_any_statement_leaves_nothing(
    ground: &mut dyn Ground,
) -> Outcome {
    if !ground.fail_at(0) {
        return Ok(Verdict::DoesNotApply);
    }
    let store = ground.store();
    store.create_run(new_run("top"), t(0)).await?;
    store.create_run(child("r", "top", true), t(0)).await?;
    store.claim(&run("r"), &worker("w1"), t(0), TTL).await?.expect("nobody has it");
    for (name, write) in WRITES {
        let before = everything(&*store).await?;
        for statement in 1.. {
            assert!(statement < STATEMENTS_MAX, "`{name}` never comes to its end");
            ground.fail_at(statement);
            if let Ok(done) = write(Arc::clone(&store)).await {
                ground.fail_at(0);
                assert!(statement > 1, "`{name}` has a statement: {done}");
                assert!(!matches!(done.as_str(), "None" | "false"), "`{name}` does something");
                break;
            }
            assert_eq!(everything(&*store).await?, before, "`{name}`, statement {statement}");
        }
    }
    assert_eq!(status(&*store, "r").await?, RunStatus::Succeeded);
    let spent = store.run(&run("r")).await?.expect("it is there").spent;
    assert_eq!(spent, Spend { usd: UsdMicros(3), tokens: 0 });
    Ok(Verdict::Held)
}

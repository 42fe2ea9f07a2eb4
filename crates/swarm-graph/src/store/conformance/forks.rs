//! Clauses about forks, edits and copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Change, ChannelDelta, Cursor, Phase, Wall};
use swarm_core::escalation::BlockStatus;
use swarm_core::event::EventKind;
use swarm_core::failure::Failure;
use swarm_core::port::store::{
    CheckpointFilter, CheckpointWrite, Commit, CopyRun, Edit, EditError, Error, Fork, Release,
    Result, Store,
};
use swarm_core::run::{Limit, Origin, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

fn fork(from: &str, seq: u64, id: &str) -> Fork {
    Fork {
        from: run(from),
        seq,
        id: run(id),
        graph: None,
        queue: queue("forks"),
        priority: 7,
        labels: BTreeMap::from([("why".to_owned(), "try".to_owned())]),
        limit: Limit { usd: Some(UsdMicros(9)), tokens: None },
    }
}

fn edit(of: &str, expected: u64, deltas: Vec<ChannelDelta>) -> Edit {
    Edit { run: run(of), expected, deltas, by: "ann".to_owned() }
}

fn copy(from: &str, id: &str, claimable: bool) -> CopyRun {
    CopyRun { from: run(from), id: run(id), claimable }
}

fn doing(node: &str, phase: Phase) -> Activation {
    Activation {
        step: step(&format!("{node}#1")),
        node: self::node(node),
        visit: 1,
        item: None,
        frame: None,
        attempts: 2,
        phase,
        error: None,
    }
}

async fn state(store: &dyn Store, id: &str, seq: Option<u64>) -> Result<Value> {
    let checkpoint = store.checkpoint(&run(id), seq).await?.expect("the checkpoint is there");
    Ok(checkpoint.state.to_value())
}

async fn kinds(store: &dyn Store, id: &str) -> Result<Vec<String>> {
    let events = store.events(&run(id), 0, 0).await?;
    Ok(events.into_iter().map(|event| event.kind.to_string()).collect())
}

/// Everything of one run, read as if it had another id.
async fn history(store: &dyn Store, id: &str) -> Result<String> {
    let of = run(id);
    let listed = store.checkpoints(&of, &CheckpointFilter::default()).await?;
    let mut checkpoints = Vec::new();
    for info in &listed {
        checkpoints.push(store.checkpoint(&of, Some(info.seq)).await?);
    }
    let mut events = store.events(&of, 0, 0).await?;
    events.retain(|event| event.kind != EventKind::RUN_COPIED);
    let events: Vec<_> =
        events.iter().map(|event| (event.seq, event.at, &event.kind, &event.data)).collect();
    let blocks = store.blocks(Some(&of), None).await?;
    let blocks: Vec<_> = blocks.iter().map(|block| (&block.ask, &block.answer)).collect();
    let steps = store.steps(&of).await?;
    let entries = store.entries(&of, &step("work#1")).await?;
    let record = store.run(&of).await?.expect("the run is there");
    let start = (&record.start.input, &record.start.labels, &record.start.graph_hash);
    let ends = (&record.output, &record.failure, record.spent, record.created_at);
    Ok(format!(
        "{listed:?}\n{checkpoints:?}\n{events:?}\n{blocks:?}\n{steps:?}\n{entries:?}\n{start:?}\n{ends:?}"
    ))
}

/// Its state, its place begun anew, its graph and input; nothing that belongs to the source.
pub async fn a_fork_begins_where_its_source_was(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let cursor = Cursor {
        active: vec![
            doing("ask", Phase::Answer { blocks: vec![block_id("q")] }),
            doing("child", Phase::Child { run: run("r.child#1") }),
            doing("wait", Phase::Signal { name: Some("go".to_owned()), until: Some(t(9)) }),
            doing("again", Phase::Backoff { until: t(5) }),
        ],
        visits: BTreeMap::from([(node("ask"), 1)]),
        taken: BTreeMap::from([("ask.routes[0]".to_owned(), 3)]),
        supersteps: 4,
        wall: Wall { granted_secs: 60, asked: 2, block: Some(block_id("w")) },
        ..Cursor::default()
    };
    let first = checkpoint(0, vec![append("log", json!([1])), merge("map", json!({"a": 1}))]);
    store.commit(Commit { checkpoint: Some(first), ..commit(&claim) }).await?;
    let deltas = vec![append("log", json!([2])), full("plan", json!("x"))];
    let second = CheckpointWrite { seq: 1, cursor: cursor.clone(), deltas };
    let asking = Commit {
        checkpoint: Some(second),
        blocks: vec![block("q", "r")],
        steps: vec![ended_step("work#1", 0)],
        children: vec![child("r.child#1", "r", true)],
        events: vec![event("said")],
        ..commit(&claim)
    };
    store.commit(asking).await?;
    store.finish(key(&claim, "k"), Arc::new(json!(1)), usd(5), vec![], t(2)).await?;
    let third = Commit {
        checkpoint: Some(checkpoint(2, vec![full("log", json!(["later"]))])),
        release: Some(waiting()),
        ..commit(&claim)
    };
    store.commit(third).await?;
    store.signal(&run("r"), Some("once"), named("push"), t(3)).await?;
    let before = everything(&*store).await?;

    assert!(store.fork(fork("r", 1, "f"), t(50)).await?);
    assert!(!store.fork(fork("r", 0, "f"), t(51)).await?, "the same id once");
    let record = store.run(&run("f")).await?.expect("there");
    let source = store.run(&run("r")).await?.expect("there");
    assert_eq!(record.forked_from, Some(Origin { run: run("r"), seq: 1 }));
    assert_eq!((record.status, record.epoch.0, record.created_at), (RunStatus::Ready, 0, t(50)));
    assert_eq!(record.start.parent, None);
    assert_eq!(record.start.graph_hash, source.start.graph_hash);
    assert_eq!(record.start.input, source.start.input);
    assert_eq!((record.start.queue, record.start.priority), (queue("forks"), 7));
    assert_eq!(record.start.labels.get("why").map(String::as_str), Some("try"));
    assert_eq!((record.start.labels.len(), record.start.limit.usd), (1, Some(UsdMicros(9))));
    assert_eq!((record.spent, record.reserved), (Spend::default(), Spend::default()));

    let begun = store.checkpoint(&run("f"), None).await?.expect("there");
    assert_eq!(begun.seq, 0);
    assert_eq!(begun.state.to_value(), json!({"log": [1, 2], "map": {"a": 1}, "plan": "x"}));
    assert_eq!(begun.cursor, cursor.begun_anew());
    let doing: Vec<&str> = begun.cursor.places().iter().map(|place| place.doing.as_str()).collect();
    assert_eq!(doing, ["due", "due", "due", "backoff"]);
    assert_eq!((begun.cursor.supersteps, begun.cursor.wall), (4, Wall::default()));
    assert_eq!(begun.cursor.taken, cursor.taken);

    assert!(store.blocks(Some(&run("f")), None).await?.is_empty());
    assert!(store.signals(&run("f")).await?.is_empty());
    assert!(store.steps(&run("f")).await?.is_empty());
    let events = store.events(&run("f"), 0, 0).await?;
    let told: Vec<_> = events.iter().map(|event| (event.seq, &event.kind, &*event.data)).collect();
    assert_eq!(told, [(1, &EventKind::RUN_FORKED, &json!({"run": "r", "seq": 1}))]);
    assert!(store.signal(&run("f"), Some("once"), named("push"), t(52)).await?, "own keys");

    // The source has not noticed.
    let after = everything(&*store).await?;
    let of_source = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains("\"f\"")).map(str::to_owned).collect()
    };
    assert!(of_source(&before).iter().all(|line| after.contains(line.as_str())));
    let next = store.claim_next(&worker("w"), &[queue("forks")], t(60), TTL).await?;
    let next = next.expect("a fork is claimable");
    assert_eq!((next.run.start.id, next.finished), (run("f"), vec![]));
    Ok(Verdict::Held)
}

/// There must be a checkpoint, and something left to do at it.
pub async fn a_fork_that_leads_nowhere_is_refused(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let unknown = store.fork(fork("nobody", 0, "f"), t(0)).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "run", .. })), "{unknown:?}");
    let claim = claimed(&*store, "r").await?;
    let none = store.fork(fork("r", 0, "f"), t(0)).await;
    assert!(matches!(none, Err(Error::NotFound { what: "checkpoint", .. })), "{none:?}");
    store.commit(Commit { checkpoint: Some(checkpoint(0, vec![])), ..commit(&claim) }).await?;
    let end = CheckpointWrite { seq: 1, cursor: Cursor::default(), deltas: vec![] };
    let ended = Commit { checkpoint: Some(end), ..release(&claim, succeeded(json!(1))) };
    store.commit(ended).await?;
    let over = store.fork(fork("r", 1, "f"), t(0)).await;
    assert!(matches!(over, Err(Error::Invalid { what: "fork", .. })), "{over:?}");
    assert!(store.fork(fork("r", 0, "f"), t(0)).await?, "an earlier one");

    let claim = claimed(&*store, "bad").await?;
    store.commit(Commit { checkpoint: Some(checkpoint(0, vec![])), ..commit(&claim) }).await?;
    let failed = Release::Ended {
        status: RunStatus::Failed,
        output: None,
        failure: Some(Failure::fatal("io", "broke")),
    };
    let last = Some(checkpoint(1, vec![]));
    store.commit(Commit { checkpoint: last, ..release(&claim, failed) }).await?;
    let failed = store.fork(fork("bad", 1, "g"), t(0)).await;
    assert!(matches!(failed, Err(Error::Invalid { what: "fork", .. })), "{failed:?}");
    assert!(store.run(&run("g")).await?.is_none());
    assert!(store.fork(fork("bad", 0, "g"), t(0)).await?, "before it failed");
    Ok(Verdict::Held)
}

/// What was done before is not done again; what came later is the fork's own.
pub async fn a_fork_takes_the_journal_as_it_was_at_its_checkpoint(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let put = |seq: u64| Commit { checkpoint: Some(checkpoint(seq, vec![])), ..commit(&claim) };
    let over = |name: &str| {
        let key = key(&claim, name);
        swarm_core::port::store::EntryKey { step: step("over#1"), ..key }
    };
    let result = |text: &str| Arc::new(json!(text));
    store.commit(put(0)).await?;
    store.finish(key(&claim, "memo"), result("before"), usd(3), vec![], t(1)).await?;
    store.finish(over("memo"), result("not of the cursor"), usd(3), vec![], t(1)).await?;
    store.begin(key(&claim, "effect"), json!("act"), usd(0), t(1)).await?;
    store.begin(key(&claim, "paid"), json!("call"), usd(8), t(1)).await?;
    store.begin(key(&claim, "half"), json!("halfway"), usd(0), t(1)).await?;
    store.commit(put(1)).await?;
    store.finish(key(&claim, "half"), result("after"), usd(0), vec![], t(2)).await?;
    store.finish(key(&claim, "late"), result("after"), usd(1), vec![], t(2)).await?;
    store.commit(put(2)).await?;
    for (seq, expected) in [
        (0, vec![]),
        (1, vec![("memo", Some("before")), ("effect", None), ("half", None)]),
        (
            2,
            vec![
                ("memo", Some("before")),
                ("effect", None),
                ("half", Some("after")),
                ("late", Some("after")),
            ],
        ),
    ] {
        let id = format!("f{seq}");
        store.fork(fork("r", seq, &id), t(5)).await?;
        let entries = store.entries(&run(&id), &step("work#1")).await?;
        let found: Vec<_> = entries
            .iter()
            .map(|entry| {
                let result = entry.result.as_ref().and_then(|value| value.as_str());
                (entry.key.as_str(), result)
            })
            .collect();
        assert_eq!(found, expected, "at {seq}");
        assert!(store.entries(&run(&id), &step("over#1")).await?.is_empty());
        let record = store.run(&run(&id)).await?.expect("there");
        assert_eq!((record.spent, record.reserved), (Spend::default(), Spend::default()));
    }
    // A fork of a fork has them as well.
    store.fork(fork("f1", 0, "ff"), t(6)).await?;
    assert_eq!(store.entries(&run("ff"), &step("work#1")).await?.len(), 3);
    Ok(Verdict::Held)
}

/// Neither sees what the other does, and a fork outlives its source.
pub async fn a_fork_and_its_source_go_their_own_ways(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let first = checkpoint(0, vec![append("log", json!([1])), merge("map", json!({"a": 1}))]);
    store.commit(Commit { checkpoint: Some(first), ..commit(&claim) }).await?;
    store.fork(fork("r", 0, "f"), t(5)).await?;
    let of_fork = self::claim(&*store, "f").await?;
    for (who, word) in [(&claim, "r"), (&of_fork, "f")] {
        let deltas = vec![append("log", json!([word])), merge("map", json!({word: 2}))];
        let next = Some(checkpoint(1, deltas));
        store
            .commit(Commit {
                checkpoint: next,
                blocks: vec![block(&format!("{word}.q"), word)],
                ..commit(who)
            })
            .await?;
    }
    assert_eq!(state(&*store, "r", None).await?, json!({"log": [1, "r"], "map": {"a": 1, "r": 2}}));
    assert_eq!(state(&*store, "f", None).await?, json!({"log": [1, "f"], "map": {"a": 1, "f": 2}}));
    store.commit(release(&claim, succeeded(json!(1)))).await?;
    assert_eq!(store.delete_run(&run("r")).await?, 1);
    assert_eq!(state(&*store, "f", Some(0)).await?, json!({"log": [1], "map": {"a": 1}}));
    let record = store.run(&run("f")).await?.expect("there");
    assert_eq!(record.forked_from, Some(Origin { run: run("r"), seq: 0 }));
    assert_eq!(store.blocks(Some(&run("f")), Some(BlockStatus::Open)).await?.len(), 1);
    Ok(Verdict::Held)
}

/// One checkpoint more, the place the same, and everyone can see who did it.
pub async fn an_edit_is_one_checkpoint_with_its_author(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let first = checkpoint(0, vec![append("log", json!([1])), full("plan", json!("x"))]);
    let parked = Release::Waiting { wake_at: Some(t(99)), seen: 0 };
    store.commit(Commit { checkpoint: Some(first), ..release(&claim, parked) }).await?;
    let deltas = vec![append("log", json!([2])), full("plan", json!("y"))];
    assert_eq!(store.edit(edit("r", 0, deltas), t(7)).await?, 1);
    assert_eq!(state(&*store, "r", None).await?, json!({"log": [1, 2], "plan": "y"}));
    assert_eq!(state(&*store, "r", Some(0)).await?, json!({"log": [1], "plan": "x"}));
    assert_eq!(store.edit(edit("r", 1, vec![append("log", json!([3]))]), t(8)).await?, 2);
    let record = store.run(&run("r")).await?.expect("there");
    assert_eq!(
        (record.status, record.wake_at, record.updated_at),
        (RunStatus::Waiting, Some(t(99)), t(8))
    );
    assert_eq!(record.epoch, claim.run.epoch);
    let listed = store.checkpoints(&run("r"), &CheckpointFilter::default()).await?;
    let by: Vec<_> = listed.iter().map(|info| (info.seq, info.edited_by.as_deref())).collect();
    assert_eq!(by, [(2, Some("ann")), (1, Some("ann")), (0, None)]);
    let events = store.events(&run("r"), 0, 0).await?;
    let told: Vec<_> = events.iter().map(|event| (&event.kind, &*event.data)).collect();
    let one = json!({"by": "ann", "seq": 1, "channels": ["log", "plan"]});
    let two = json!({"by": "ann", "seq": 2, "channels": ["log"]});
    assert_eq!(told, [(&EventKind::STATE_EDITED, &one), (&EventKind::STATE_EDITED, &two)]);
    let next = store.claim(&run("r"), &worker("w"), t(99), TTL).await?.expect("its timer is due");
    let last = next.checkpoint.clone().expect("there");
    assert_eq!((last.seq, last.cursor), (2, cursor(0)));
    let on = Some(checkpoint(3, vec![append("log", json!([4]))]));
    store.commit(Commit { checkpoint: on, ..commit(&next) }).await?;
    assert_eq!(state(&*store, "r", None).await?["log"], json!([1, 2, 3, 4]));
    Ok(Verdict::Held)
}

/// Whoever works on a run, or was faster, is not overruled.
pub async fn an_edit_is_refused_while_claimed_or_ended_or_moved_on(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let plan = || vec![full("plan", json!("mine"))];
    let unknown = store.edit(edit("nobody", 0, plan()), t(0)).await;
    assert!(matches!(unknown, Err(EditError::Store(Error::NotFound { .. }))), "{unknown:?}");
    store.create_run(new_run("r"), t(0)).await?;
    let new = store.edit(edit("r", 0, plan()), t(0)).await;
    assert!(matches!(new, Err(EditError::Moved { expected: 0, found: None, .. })), "{new:?}");
    let claim = claim(&*store, "r").await?;
    let first = Some(checkpoint(0, vec![full("plan", json!("x"))]));
    store.commit(Commit { checkpoint: first, ..commit(&claim) }).await?;
    let claimed = store.edit(edit("r", 0, plan()), t(0)).await;
    assert!(
        matches!(&claimed, Err(EditError::Claimed { by: Some(by), .. }) if *by == worker("w1")),
        "{claimed:?}"
    );
    store.commit(release(&claim, Release::Ready)).await?;
    for expected in [1, 9] {
        let moved = store.edit(edit("r", expected, plan()), t(0)).await;
        assert!(matches!(moved, Err(EditError::Moved { found: Some(0), .. })), "{moved:?}");
    }
    let twice = vec![full("plan", json!(1)), full("plan", json!(2))];
    let change = Change::Append(Arc::new(json!([1])));
    let misfit = vec![ChannelDelta { channel: channel("plan"), change }];
    for deltas in [twice, misfit] {
        let bad = store.edit(edit("r", 0, deltas), t(0)).await;
        let is_refused =
            matches!(&bad, Err(EditError::Store(Error::Invalid { what: "checkpoint", .. })));
        assert!(is_refused, "{bad:?}");
    }
    assert_eq!(state(&*store, "r", None).await?, json!({"plan": "x"}));
    assert!(kinds(&*store, "r").await?.is_empty());
    let claim = self::claim(&*store, "r").await?;
    store.commit(release(&claim, succeeded(json!(1)))).await?;
    let ended = store.edit(edit("r", 0, plan()), t(0)).await;
    let is_ended = matches!(ended, Err(EditError::Ended { status: RunStatus::Succeeded, .. }));
    assert!(is_ended, "{ended:?}");
    Ok(Verdict::Held)
}

/// An edit in between does not make a finished step run again.
pub async fn steps_that_ended_before_an_edit_come_back_with_the_claim(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.commit(Commit { checkpoint: Some(checkpoint(0, vec![])), ..commit(&claim) }).await?;
    let early = Commit { steps: vec![ended_step("work#1", 0)], ..release(&claim, Release::Ready) };
    store.commit(early).await?;
    for expected in [0, 1] {
        store.edit(edit("r", expected, vec![full("plan", json!(expected))]), t(2)).await?;
    }
    let next = self::claim(&*store, "r").await?;
    let finished: Vec<&str> = next.finished.iter().map(|record| record.step.as_str()).collect();
    assert_eq!(finished, ["work#1"]);
    store
        .commit(Commit {
            checkpoint: Some(checkpoint(3, vec![])),
            ..release(&next, Release::Ready)
        })
        .await?;
    assert!(self::claim(&*store, "r").await?.finished.is_empty());
    Ok(Verdict::Held)
}

/// A run with a bit of everything, parked at checkpoint 2.
async fn full_life(store: &dyn Store, id: &str) -> Result<()> {
    let claim = claimed(store, id).await?;
    for seq in 0..3 {
        let deltas = vec![append("log", json!([seq])), merge("map", json!({"k": seq}))];
        let commit = Commit {
            checkpoint: Some(checkpoint(seq, deltas)),
            steps: vec![ended_step(&format!("over#{seq}"), seq)],
            events: vec![event("said")],
            blocks: vec![block(&format!("{id}.work#1:{seq}"), id)],
            ..commit(&claim)
        };
        store.commit(commit).await?;
    }
    let first = block_id(&format!("{id}.work#1:0"));
    let answered = store.answer(&first, Arc::new(json!("a")), person("ann"), t(2)).await;
    assert!(answered.is_ok(), "{answered:?}");
    store.finish(key(&claim, "memo"), Arc::new(json!("m")), usd(4), vec![], t(2)).await?;
    store.begin(key(&claim, "act"), json!("intent"), usd(0), t(2)).await?;
    store.commit(release(&claim, waiting())).await?;
    Ok(())
}

/// Record by record; what is not history is not there.
pub async fn a_copy_reads_as_its_source_did(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let unknown = store.copy_run(copy("nobody", "c", false), t(0)).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "run", .. })), "{unknown:?}");
    full_life(&*store, "r").await?;
    let before = history(&*store, "r").await?;
    assert!(store.copy_run(copy("r", "c", false), t(50)).await?);
    assert!(!store.copy_run(copy("r", "c", true), t(51)).await?, "the same id once");
    assert_eq!(history(&*store, "c").await?, before);
    assert_eq!(history(&*store, "r").await?, before, "the source is as it was");
    assert_eq!(kinds(&*store, "c").await?.last().map(String::as_str), Some("run.copied"));
    assert!(store.signals(&run("c")).await?.is_empty());
    let blocks = store.blocks(Some(&run("c")), None).await?;
    let ids: Vec<_> = blocks.iter().map(|block| (block.id.as_str(), block.status)).collect();
    let (answered, withdrawn) = (BlockStatus::Answered, BlockStatus::Withdrawn);
    assert_eq!(
        ids,
        [("c.work#1:0", answered), ("c.work#1:1", withdrawn), ("c.work#1:2", withdrawn)]
    );
    let open = store.blocks(Some(&run("r")), Some(BlockStatus::Open)).await?;
    assert_eq!(open.len(), 2, "the source still asks");

    // A copy of what has ended has ended in the same way.
    let claim = claim(&*store, "r").await?;
    store.commit(release(&claim, succeeded(json!("done")))).await?;
    store.copy_run(copy("r", "d", false), t(60)).await?;
    assert_eq!(history(&*store, "d").await?, history(&*store, "r").await?);
    assert_eq!(status(&*store, "d").await?, RunStatus::Succeeded);
    store.delete_run(&run("r")).await?;
    assert_eq!(history(&*store, "c").await?, before, "it stands by itself");
    Ok(Verdict::Held)
}

/// Two runs would else do the same work.
pub async fn a_copy_is_claimed_only_if_that_was_asked_for(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    full_life(&*store, "r").await?;
    store.copy_run(copy("r", "kept", false), t(50)).await?;
    let kept = store.run(&run("kept")).await?.expect("there");
    assert_eq!((kept.status, kept.ended_at), (RunStatus::Cancelled, Some(t(50))));
    assert!(store.claim(&run("kept"), &worker("w"), t(99), TTL).await?.is_none());

    store.copy_run(copy("r", "live", true), t(50)).await?;
    let live = store.claim(&run("live"), &worker("w"), t(60), TTL).await?.expect("claimable");
    let last = live.checkpoint.clone().expect("there");
    assert_eq!((last.seq, last.cursor), (3, cursor(2).begun_anew()));
    assert_eq!(last.state.to_value(), json!({"log": [0, 1, 2], "map": {"k": 2}}));
    assert!(live.finished.is_empty());
    let blocks = store.blocks(Some(&run("live")), None).await?;
    assert!(blocks.is_empty(), "questions of a step that is not over are asked anew: {blocks:?}");
    assert_eq!(store.entries(&run("live"), &step("work#1")).await?.len(), 2);
    let on = Some(checkpoint(4, vec![append("log", json!(["mine"]))]));
    let done = Commit { checkpoint: on, ..release(&live, succeeded(json!(1))) };
    store.commit(done).await?;
    assert_eq!(state(&*store, "live", None).await?["log"], json!([0, 1, 2, "mine"]));
    assert_eq!(state(&*store, "r", None).await?["log"], json!([0, 1, 2]));
    let over = store.copy_run(copy("live", "again", true), t(70)).await;
    assert!(matches!(over, Err(Error::Invalid { what: "copy", .. })), "{over:?}");
    Ok(Verdict::Held)
}

/// A copy is of one moment.
pub async fn a_copy_is_whole_while_its_source_is_written(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let writing = async {
        for seq in 0..40_u64 {
            let checkpoint = Some(checkpoint(seq, vec![append("log", json!([seq]))]));
            let commit = Commit {
                checkpoint,
                events: vec![event("said")],
                steps: vec![ended_step(&format!("over#{seq}"), seq)],
                ..commit(&claim)
            };
            store.commit(commit).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Error>(())
    };
    let copying = async {
        for n in 0..8 {
            store.copy_run(copy("r", &format!("c{n}"), false), t(3)).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Error>(())
    };
    let (written, copied) = tokio::join!(writing, copying);
    written?;
    copied?;
    for n in 0..8 {
        let id = format!("c{n}");
        let listed = store.checkpoints(&run(&id), &CheckpointFilter::default()).await?;
        let count = listed.len();
        assert_eq!(store.steps(&run(&id)).await?.len(), count, "{id}");
        assert_eq!(kinds(&*store, &id).await?.len(), count + 1, "{id}");
        if count > 0 {
            let log = state(&*store, &id, None).await?["log"].clone();
            assert_eq!(log, json!((0..count).collect::<Vec<_>>()), "{id}");
        }
    }
    Ok(Verdict::Held)
}

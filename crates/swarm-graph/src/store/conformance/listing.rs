//! Clauses about lists: every combination of arguments, against a list that is filtered here.
//!
//! The arguments are crossed, so that no pair of them can be wrong together unseen.

use std::sync::Arc;

use serde_json::json;
use swarm_core::checkpoint::{Activation, Cursor, Phase};
use swarm_core::port::store::{
    CheckpointFilter, CheckpointWrite, Commit, Edit, Release, Result, RunFilter, Store,
};
use swarm_core::run::{NewRun, RunRecord, RunStatus};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// A checkpoint as this clause knows it.
struct Known {
    seq: u64,
    ms: i64,
    active: Vec<&'static str>,
    ended: Vec<&'static str>,
}

/// A run whose checkpoints are at nodes that come and go; nodes named `wait` leave no step.
async fn walk(store: &dyn Store, id: &str, places: &[&[&'static str]]) -> Result<Vec<Known>> {
    let claim = claimed(store, id).await?;
    let mut known = Vec::new();
    let mut before: &[&str] = &[];
    for (seq, active) in (0_u64..).zip(places) {
        let at = |name: &&'static str| Activation {
            step: step(&format!("{name}#1")),
            node: node(name),
            visit: 1,
            item: None,
            frame: None,
            attempts: 0,
            phase: Phase::Due,
            error: None,
        };
        let gone: Vec<&'static str> =
            before.iter().filter(|name| !active.contains(name)).copied().collect();
        let steps = gone.iter().filter(|name| **name != "wait").map(|name| {
            let record = ended_step(&format!("{name}#1"), seq.saturating_sub(1));
            swarm_core::checkpoint::StepRecord { node: node(name), ..record }
        });
        let ms = i64::try_from(seq).expect("few") * 10;
        let cursor = Cursor { active: active.iter().map(at).collect(), ..Cursor::default() };
        let write = CheckpointWrite { seq, cursor, deltas: vec![append("log", json!([seq]))] };
        let commit =
            Commit { checkpoint: Some(write), steps: steps.collect(), at: t(ms), ..commit(&claim) };
        store.commit(commit).await?;
        known.push(Known { seq, ms, active: active.to_vec(), ended: gone });
        before = active;
    }
    store.commit(release(&claim, Release::Ready)).await?;
    Ok(known)
}

/// Checkpoints: three runs, and each filter absent, fitting and not.
pub async fn every_combination_of_checkpoint_filters_lists_what_fits(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let many: &[&[&'static str]] =
        &[&["a"], &["a", "b"], &["b", "wait"], &["wait"], &["c", "wait"], &["c"], &["a"], &[]];
    let many = walk(&*store, "many", many).await?;
    let few = walk(&*store, "few", &[&["a"], &["b"]]).await?;
    let mut tried = 0;
    for (id, known) in [("many", &many[..]), ("few", &few[..]), ("nobody", &[])] {
        for active in [None, Some("a"), Some("wait"), Some("never")] {
            for ended in [None, Some("a"), Some("wait"), Some("never")] {
                for (since, until) in
                    [(None, None), (Some(20), None), (None, Some(50)), (Some(20), Some(50))]
                {
                    for before in [None, Some(0), Some(4), Some(99)] {
                        for limit in [0, 1, 3, 99] {
                            let filter = CheckpointFilter {
                                active: active.map(node),
                                ended: ended.map(node),
                                since: since.map(t),
                                until: until.map(t),
                                before,
                                limit,
                            };
                            let fits = |one: &&Known| {
                                active.is_none_or(|name| one.active.contains(&name))
                                    && ended.is_none_or(|name| one.ended.contains(&name))
                                    && since.is_none_or(|since| one.ms >= since)
                                    && until.is_none_or(|until| one.ms < until)
                                    && before.is_none_or(|before| one.seq < before)
                            };
                            let most = if limit == 0 { usize::MAX } else { limit };
                            let expected: Vec<u64> = known
                                .iter()
                                .rev()
                                .filter(fits)
                                .take(most)
                                .map(|one| one.seq)
                                .collect();
                            let listed = store.checkpoints(&run(id), &filter).await?;
                            let found: Vec<u64> = listed.iter().map(|info| info.seq).collect();
                            assert_eq!(found, expected, "{id} {filter:?}");
                            tried += 1;
                        }
                    }
                }
            }
        }
    }
    Ok(Verdict::HeldFor(tried))
}

/// What a list says of a checkpoint is what the checkpoint says.
pub async fn a_listed_checkpoint_says_what_it_holds(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let history = [
        vec![full("plan", json!(1)), append("log", json!([1]))],
        vec![],
        vec![merge("map", json!({"a": 1})), append("log", json!([2]))],
    ];
    for (seq, deltas) in (0..).zip(history) {
        let at = t(i64::try_from(seq)? * 10);
        store
            .commit(Commit { checkpoint: Some(checkpoint(seq, deltas)), at, ..commit(&claim) })
            .await?;
    }
    store.commit(release(&claim, Release::Ready)).await?;
    let edit = Edit {
        run: run("r"),
        expected: 2,
        deltas: vec![full("a", json!(0))],
        by: "ann".to_owned(),
    };
    store.edit(edit, t(30)).await?;
    let listed = store.checkpoints(&run("r"), &CheckpointFilter::default()).await?;
    let said: Vec<String> = listed
        .iter()
        .map(|info| {
            let changed: Vec<&str> = info.changed.iter().map(|name| name.as_str()).collect();
            let places: Vec<String> = info
                .active
                .iter()
                .map(|place| format!("{} {} {}", place.step, place.node, place.doing.as_str()))
                .collect();
            format!(
                "{} at {} after {} by {:?}: {changed:?} {places:?}",
                info.seq,
                info.at.since(t(0)).as_millis(),
                info.supersteps,
                info.edited_by
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            r#"3 at 30 after 2 by Some("ann"): ["a"] ["work#1 work due"]"#,
            r#"2 at 20 after 2 by None: ["log", "map"] ["work#1 work due"]"#,
            r#"1 at 10 after 1 by None: [] ["work#1 work due"]"#,
            r#"0 at 0 after 0 by None: ["log", "plan"] ["work#1 work due"]"#,
        ]
    );
    for info in listed {
        let checkpoint = store.checkpoint(&run("r"), Some(info.seq)).await?.expect("listed");
        assert_eq!(checkpoint.cursor.places(), info.active);
    }
    Ok(Verdict::Held)
}

/// Runs: status, graph, parent, roots, labels, cursor and limit.
pub async fn every_combination_of_run_filters_lists_what_fits(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for n in 0..12_u32 {
        let id = format!("r{n}");
        let parent = (n % 3 == 2).then(|| format!("r{}", n - 2));
        let start = match &parent {
            Some(parent) => child(&id, parent, n % 2 == 0),
            None => new_run(&id),
        };
        let labels = [("repo", n % 2), ("kind", n % 4)];
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_string()));
        let of = if n % 4 == 0 { "h" } else { "g" };
        store
            .create_run(NewRun { graph: graph(of), labels: labels.collect(), ..start }, t(0))
            .await?;
        match n % 5 {
            1 => drop(claim(&*store, &id).await?),
            2 => {
                let claim = claim(&*store, &id).await?;
                store.commit(release(&claim, waiting())).await?;
            }
            3 => {
                let claim = claim(&*store, &id).await?;
                store.commit(release(&claim, succeeded(json!(n)))).await?;
            }
            _ => {}
        }
    }
    let all = store.runs(&RunFilter::default()).await?;
    let labels = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let mut tried = 0;
    for status in [vec![], vec![RunStatus::Ready], vec![RunStatus::Running, RunStatus::Succeeded]] {
        for of in [None, Some("h"), Some("nothing")] {
            for parent in [None, Some("r0"), Some("nobody")] {
                for only_roots in [false, true] {
                    for labels in [
                        labels(&[]),
                        labels(&[("repo", "1")]),
                        labels(&[("repo", "1"), ("kind", "3")]),
                    ] {
                        for before in [None, Some("r11"), Some("r4")] {
                            for limit in [0, 1, 5] {
                                let filter = RunFilter {
                                    status: status.clone(),
                                    graph: of.map(graph),
                                    parent: parent.map(run),
                                    only_roots,
                                    labels: labels.clone(),
                                    before: before.map(run),
                                    limit,
                                };
                                let most = if limit == 0 { usize::MAX } else { limit };
                                let expected: Vec<&RunRecord> = all
                                    .iter()
                                    .filter(|one| fits(&filter, one, &all))
                                    .take(most)
                                    .collect();
                                let found = store.runs(&filter).await?;
                                assert_eq!(
                                    found.iter().collect::<Vec<_>>(),
                                    expected,
                                    "{filter:?}"
                                );
                                tried += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(Verdict::HeldFor(tried))
}

fn fits(filter: &RunFilter, one: &RunRecord, all: &[RunRecord]) -> bool {
    let place = |id: &swarm_core::id::RunId| all.iter().position(|other| other.start.id == *id);
    let parent = one.start.parent.as_ref().map(|parent| &parent.run);
    (filter.status.is_empty() || filter.status.contains(&one.status))
        && filter.graph.as_ref().is_none_or(|graph| *graph == one.start.graph)
        && filter.parent.as_ref().is_none_or(|wanted| parent == Some(wanted))
        && !(filter.only_roots && parent.is_some())
        && filter.labels.iter().all(|(key, value)| one.start.labels.get(key) == Some(value))
        && filter.before.as_ref().is_none_or(|before| place(&one.start.id) > place(before))
}

/// A step whose checkpoint the crash has taken is not run again.
pub async fn a_step_without_its_checkpoint_survives_a_restart(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.commit(Commit { checkpoint: Some(checkpoint(0, vec![])), ..commit(&claim) }).await?;
    store.commit(Commit { steps: vec![ended_step("work#1", 0)], ..commit(&claim) }).await?;
    store.finish(key(&claim, "m"), Arc::new(json!(1)), usd(1), vec![], t(2)).await?;
    drop(store);
    if !ground.reopen().await {
        return Ok(Verdict::DoesNotApply);
    }
    let store = ground.store();
    let next = store.claim(&run("r"), &worker("w2"), t(TTL_MS), TTL).await?.expect("expired");
    assert_eq!(next.checkpoint.map(|checkpoint| checkpoint.seq), Some(0));
    assert_eq!(next.finished.len(), 1);
    assert_eq!(store.entries(&run("r"), &step("work#1")).await?.len(), 1);
    Ok(Verdict::Held)
}

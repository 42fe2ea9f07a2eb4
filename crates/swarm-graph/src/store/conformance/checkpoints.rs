//! Clauses about state: deltas in, state out.

use serde_json::{Value, json};
use swarm_core::checkpoint::{ChannelDelta, FORMAT};
use swarm_core::port::store::{Claim, Commit, Error, Release, Result, Store};

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

async fn write(
    store: &dyn Store,
    claim: &Claim,
    seq: u64,
    deltas: Vec<ChannelDelta>,
) -> Result<()> {
    let checkpoint = Some(checkpoint(seq, deltas));
    store.commit(Commit { checkpoint, ..commit(claim) }).await.map(|_| ())
}

async fn state(store: &dyn Store, id: &str, seq: Option<u64>) -> Result<Value> {
    let checkpoint = store.checkpoint(&run(id), seq).await?.expect("the checkpoint is there");
    Ok(checkpoint.state.to_value())
}

/// Each checkpoint of the past stays what it was.
pub async fn a_checkpoint_is_read_back_at_every_number(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let history = [
        (vec![], json!({})),
        (
            vec![full("plan", json!("a")), append("log", json!([1]))],
            json!({"log": [1], "plan": "a"}),
        ),
        (
            vec![append("log", json!([2, 3])), merge("map", json!({"x": 1}))],
            json!({"log": [1, 2, 3], "map": {"x": 1}, "plan": "a"}),
        ),
        (
            vec![full("plan", Value::Null), merge("map", json!({"y": {"z": 1}, "x": 2}))],
            json!({"log": [1, 2, 3], "map": {"x": 2, "y": {"z": 1}}, "plan": null}),
        ),
        (
            vec![full("log", json!([9])), merge("map", json!({"y": 0}))],
            json!({"log": [9], "map": {"x": 2, "y": 0}, "plan": null}),
        ),
        (
            vec![append("log", json!([])), append("plan", json!(["now a list"]))],
            json!({"log": [9], "map": {"x": 2, "y": 0}, "plan": ["now a list"]}),
        ),
    ];
    for (seq, (deltas, expected)) in (0..).zip(&history) {
        write(&*store, &claim, seq, deltas.clone()).await?;
        assert_eq!(state(&*store, "r", None).await?, *expected, "as the last, {seq}");
    }
    for (seq, (_, expected)) in (0..).zip(&history) {
        assert_eq!(state(&*store, "r", Some(seq)).await?, *expected, "as the past, {seq}");
        let checkpoint = store.checkpoint(&run("r"), Some(seq)).await?.expect("there");
        assert_eq!((checkpoint.seq, checkpoint.format), (seq, FORMAT));
        assert_eq!(checkpoint.cursor, cursor(u32::try_from(seq)?));
    }
    assert!(store.checkpoint(&run("r"), Some(99)).await?.is_none());
    store.commit(release(&claim, Release::Ready)).await?;
    let claimed = self::claim(&*store, "r").await?.checkpoint.expect("it has some");
    assert_eq!(claimed.state.to_value(), history[5].1);
    Ok(Verdict::Held)
}

/// Folding is not seen.
pub async fn many_merges_add_up_to_the_same_value(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let mut expected = serde_json::Map::new();
    let mut history = Vec::new();
    for seq in 0..200_u64 {
        let entry = json!({ format!("k{}", seq % 7): seq });
        expected.extend(entry.as_object().cloned().unwrap_or_default());
        history.push(json!({ "list": (0..=seq).collect::<Vec<_>>(), "map": expected.clone() }));
        let deltas = vec![merge("map", entry), append("list", json!([seq]))];
        write(&*store, &claim, seq, deltas).await?;
    }
    for seq in [0, 1, 63, 64, 65, 66, 128, 129, 130, 199] {
        assert_eq!(state(&*store, "r", Some(seq)).await?, history[usize::try_from(seq)?], "{seq}");
    }
    Ok(Verdict::Held)
}

/// 16 MiB in one channel.
pub async fn a_large_value_survives(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let large = json!("x\"\n".repeat(16 * 1024 * 1024 / 3 + 1));
    write(&*store, &claim, 0, vec![full("large", large.clone()), full("small", json!(0))]).await?;
    for seq in 1..20 {
        write(&*store, &claim, seq, vec![full("small", json!(seq))]).await?;
    }
    let checkpoint = store.checkpoint(&run("r"), None).await?.expect("there");
    assert!(checkpoint.state.get("large").is_some_and(|value| **value == large));
    assert_eq!(checkpoint.state.get("small").map(|value| &**value), Some(&json!(19)));
    Ok(Verdict::Held)
}

/// What JSON allows comes back as it went in.
pub async fn odd_values_survive(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let odd = json!({
        "": null,
        "zero byte": "a\u{0}b",
        "quotes": "\"'\\`; DROP TABLE runs; --",
        "people": "日本語 🛑 e\u{301}",
        "numbers": [u64::MAX, i64::MIN, 0.5, -0.25, 1e300, 31.245270191439438, 0.1 + 0.2],
        "z before a": {"z": 1, "a": 2},
        "nested": [[[[]]], {}],
    });
    write(&*store, &claim, 0, vec![full("odd", odd.clone())]).await?;
    let read = store.checkpoint(&run("r"), None).await?.expect("there");
    let read = read.state.get("odd").expect("there").to_string();
    assert_eq!(read, odd.to_string(), "also the order of keys");
    Ok(Verdict::Held)
}

/// An old program does not guess, and does not keep a newer one from the work.
pub async fn a_checkpoint_of_a_newer_format_is_refused_and_passed_over(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "new").await?;
    write(&*store, &claim, 0, vec![full("a", json!(1))]).await?;
    store.commit(release(&claim, Release::Ready)).await?;
    ground.set_checkpoint_format(&run("new"), FORMAT + 1).await;
    store.create_run(new_run("old"), t(0)).await?;
    let read = store.checkpoint(&run("new"), None).await;
    assert!(matches!(&read, Err(Error::Corrupt { what: "checkpoint", .. })), "{read:?}");
    let taken = store.claim(&run("new"), &worker("w"), t(5), TTL).await;
    assert!(matches!(&taken, Err(Error::Corrupt { what: "checkpoint", .. })), "{taken:?}");
    assert_eq!(store.run(&run("new")).await?.expect("there").epoch, claim.run.epoch);
    let next = store.claim_next(&worker("w"), &[queue("q")], t(5), TTL).await?;
    assert_eq!(next.expect("the other run is free").run.start.id, run("old"));
    assert!(store.claim_next(&worker("w"), &[queue("q")], t(5), TTL).await?.is_none());
    Ok(Verdict::Held)
}

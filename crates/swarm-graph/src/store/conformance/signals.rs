//! Clauses about signals: who gets them, and whom they wake.

use serde_json::json;
use swarm_core::port::store::{Commit, Error, Outgoing, Recipient, Release, SignalKind};
use swarm_core::run::RunStatus;

use super::fixture::*;
use super::{Ground, Outcome, Verdict};

/// A parked run is ready again, whatever its timer says.
pub async fn a_signal_wakes_a_waiting_run(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    let parked = Release::Waiting { wake_at: Some(t(1_000_000)), seen: 0 };
    store.commit(release(&claim, parked)).await?;
    assert!(store.signal(&run("r"), None, named("go"), t(2)).await?);
    let record = store.run(&run("r")).await?.expect("there");
    assert_eq!((record.status, record.wake_at), (RunStatus::Ready, None));
    let cancel = SignalKind::Cancel { by: "ann".to_owned() };
    assert!(store.signal(&run("r"), None, cancel.clone(), t(3)).await?);
    let signals = store.signals(&run("r")).await?;
    assert_eq!(
        signals.iter().map(|signal| &signal.kind).collect::<Vec<_>>(),
        [&named("go"), &cancel]
    );
    assert!(signals[0].id < signals[1].id && signals[0].id > 0);
    assert_eq!((signals[1].at, &signals[1].run), (t(3), &run("r")));
    let unknown = store.signal(&run("nobody"), None, named("go"), t(2)).await;
    assert!(matches!(unknown, Err(Error::NotFound { what: "run", .. })), "{unknown:?}");
    Ok(Verdict::Held)
}

/// What came between the worker's look and its parking is not slept through.
pub async fn an_unseen_signal_keeps_a_run_from_parking(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.signal(&run("r"), None, named("first"), t(0)).await?;
    let seen = store.signals(&run("r")).await?[0].id;
    store.signal(&run("r"), None, named("second"), t(0)).await?;
    let parked = Release::Waiting { wake_at: Some(t(50)), seen };
    let done = store.commit(Commit { taken: vec![seen], ..release(&claim, parked) }).await?;
    assert_eq!(done.woken, [run("r")]);
    assert_eq!(status(&*store, "r").await?, RunStatus::Ready);
    assert_eq!(names(&*store, "r").await?, ["second"]);
    // A signal that the very commit sends to its own run is unseen, too.
    let claim = self::claim(&*store, "r").await?;
    let seen = store.signals(&run("r")).await?[0].id;
    let to_self = Outgoing { to: Recipient::Run(run("r")), kind: named("third") };
    let parked = Release::Waiting { wake_at: None, seen };
    store.commit(Commit { outgoing: vec![to_self], ..release(&claim, parked) }).await?;
    assert_eq!(status(&*store, "r").await?, RunStatus::Ready);
    Ok(Verdict::Held)
}

/// A signal for a later wait does not make the run spin.
pub async fn a_seen_signal_stays_and_does_not_wake(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.signal(&run("r"), None, named("for later"), t(0)).await?;
    let seen = store.signals(&run("r")).await?[0].id;
    let done = store.commit(release(&claim, Release::Waiting { wake_at: None, seen })).await?;
    assert!(done.woken.is_empty());
    assert_eq!(status(&*store, "r").await?, RunStatus::Waiting);
    assert_eq!(names(&*store, "r").await?, ["for later"]);
    Ok(Verdict::Held)
}

/// A webhook delivered twice wakes once, even after the signal was taken.
pub async fn a_keyed_signal_is_sent_once(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let claim = claimed(&*store, "r").await?;
    store.create_run(new_run("other"), t(0)).await?;
    assert!(store.signal(&run("r"), Some("delivery-1"), named("push"), t(0)).await?);
    assert!(!store.signal(&run("r"), Some("delivery-1"), named("push"), t(1)).await?);
    assert!(store.signal(&run("other"), Some("delivery-1"), named("push"), t(1)).await?);
    let taken = vec![store.signals(&run("r")).await?[0].id];
    let parked = Release::Waiting { wake_at: None, seen: taken[0] };
    store.commit(Commit { taken, ..release(&claim, parked) }).await?;
    assert!(!store.signal(&run("r"), Some("delivery-1"), named("push"), t(2)).await?);
    assert_eq!(status(&*store, "r").await?, RunStatus::Waiting, "a double does not wake");
    assert!(store.signal(&run("r"), Some("delivery-2"), named("push"), t(2)).await?);
    assert!(store.signal(&run("r"), None, named("push"), t(2)).await?);
    assert!(store.signal(&run("r"), None, named("push"), t(2)).await?);
    assert_eq!(store.signals(&run("r")).await?.len(), 3);
    Ok(Verdict::Held)
}

/// A run takes from its own mailbox only.
pub async fn a_taken_signal_is_gone_and_only_its_own_run_takes_it(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    let (mine, theirs) = (claimed(&*store, "mine").await?, claimed(&*store, "theirs").await?);
    for name in ["a", "b", "c"] {
        store.signal(&run("mine"), None, named(name), t(0)).await?;
    }
    let ids: Vec<u64> = store.signals(&run("mine")).await?.iter().map(|signal| signal.id).collect();
    store.commit(Commit { taken: ids.clone(), ..commit(&theirs) }).await?;
    assert_eq!(names(&*store, "mine").await?, ["a", "b", "c"]);
    store.commit(Commit { taken: vec![ids[1], 999_999], ..commit(&mine) }).await?;
    assert_eq!(names(&*store, "mine").await?, ["a", "c"]);
    store.commit(Commit { taken: ids.clone(), ..commit(&mine) }).await?;
    store.signal(&run("mine"), None, named("d"), t(0)).await?;
    let last = store.signals(&run("mine")).await?;
    assert!(last.len() == 1 && last[0].id > ids[2], "numbers are not used again");
    Ok(Verdict::Held)
}

/// Nothing piles up behind the end.
pub async fn a_signal_to_a_run_that_ended_is_dropped(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let ended = claimed(&*store, "ended").await?;
    store.commit(release(&ended, succeeded(json!(1)))).await?;
    assert!(!store.signal(&run("ended"), Some("k"), named("late"), t(9)).await?);
    let claim = claimed(&*store, "r").await?;
    let late = Outgoing { to: Recipient::Run(run("ended")), kind: named("late") };
    let done = store.commit(Commit { outgoing: vec![late], ..commit(&claim) }).await?;
    assert!(done.woken.is_empty());
    assert!(mailbox(&*store, "ended").await?.is_empty());
    assert_eq!(status(&*store, "ended").await?, RunStatus::Succeeded);
    Ok(Verdict::Held)
}

/// Up, down and across.
pub async fn a_commit_sends_to_a_run_to_ancestors_and_to_live_children(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    for start in [
        new_run("top"),
        child("middle", "top", false),
        child("me", "middle", false),
        child("kid", "me", false),
        child("dead-kid", "me", false),
        child("grandkid", "kid", false),
        new_run("stranger"),
    ] {
        store.create_run(start, t(0)).await?;
    }
    for parked in ["top", "kid", "stranger"] {
        let claim = claim(&*store, parked).await?;
        store.commit(release(&claim, waiting())).await?;
    }
    let dead = claim(&*store, "dead-kid").await?;
    let end = Release::Ended { status: RunStatus::Cancelled, output: None, failure: None };
    store.commit(release(&dead, end)).await?;
    let me = claim(&*store, "me").await?;
    // What the end of the dead kid has sent up is not of interest here.
    let seen: Vec<u64> = store.signals(&run("me")).await?.iter().map(|signal| signal.id).collect();
    let outgoing = vec![
        Outgoing { to: Recipient::Run(run("stranger")), kind: named("across") },
        Outgoing { to: Recipient::Ancestors, kind: named("up") },
        Outgoing { to: Recipient::Children, kind: named("down") },
    ];
    let mut woken = store.commit(Commit { outgoing, taken: seen, ..commit(&me) }).await?.woken;
    woken.sort();
    // `top` was woken by the end of the dead kid already.
    assert_eq!(woken, [run("kid"), run("stranger")]);
    assert_eq!(names(&*store, "stranger").await?, ["across"]);
    assert_eq!(names(&*store, "top").await?, ["worker.finished", "up"]);
    assert_eq!(names(&*store, "middle").await?, ["worker.finished", "up"]);
    assert_eq!(names(&*store, "kid").await?, ["down"]);
    for silent in ["me", "dead-kid", "grandkid"] {
        assert!(names(&*store, silent).await?.is_empty(), "{silent}");
    }
    Ok(Verdict::Held)
}

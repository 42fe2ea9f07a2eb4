//! Questions that wait long: reminders, expiry, and what a waiting run holds meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::escalation::BlockStatus;
use swarm_core::port::store::Store;
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;
use swarm_graph::engine::Driven;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{Death, MortalStore, VirtualClock};

use crate::rig::{Rig, World, graph, id, output, registry};
use crate::shop::{defects, graph as shop};

const DAY: Duration = Duration::from_secs(86_400);

const ASKS: &str = r#"
entry: ask
nodes:
  ask:
    gate: { ask: "Well?", answer: Choice, remind: 1d, expires: 90d }
    set: { log: ["${{ answer.choice }}"] }
    catch: [ { when: "${{ error.class == 'expired' }}", to: late, set: { log: ["${{ error.message }}"] } } ]
    next: $end
  late: { uses: test/deed, with: { name: late }, next: $end }
"#;

fn rig_on(store: Arc<dyn Store>, world: &World, clock: VirtualClock) -> Rig {
    let registry = registry(world);
    Rig::on_clock(store, vec![graph(ASKS, &registry)], registry, clock)
}

fn rig() -> Rig {
    let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
    rig_on(Arc::new(MemoryStore::new()), &World::default(), clock)
}

async fn count(rig: &Rig, kind: &str) -> usize {
    rig.events("r").await.iter().filter(|event| event.starts_with(kind)).count()
}

#[tokio::test(start_paused = true)]
async fn ninety_days_pass_with_a_reminder_each_day_and_then_the_question_expires() {
    let rig = rig();
    rig.start("r", "main", json!({})).await.unwrap();
    for day in 0..90 {
        assert!(matches!(rig.work().await.unwrap(), Some(Driven::Waiting { wake_at: Some(_) })));
        let run = rig.run("r").await;
        assert_eq!((run.status, run.lease_owner), (RunStatus::Waiting, None));
        assert_eq!(count(&rig, "question.reminded").await, day);
        // Nothing is to be done in between.
        tokio::time::sleep(DAY / 2).await;
        assert_eq!(rig.work().await.unwrap(), None);
        tokio::time::sleep(DAY / 2).await;
    }
    rig.work().await.unwrap();
    let log = output(&rig.run("r").await)["log"].clone();
    assert_eq!(log, json!(["nobody answered within 90d", "late 42 true"]));
    let block = rig.store.blocks(None, None).await.unwrap().remove(0);
    assert_eq!(block.status, BlockStatus::Withdrawn);
    assert_eq!(count(&rig, "question.expired").await, 1);
}

#[tokio::test(start_paused = true)]
async fn reminders_that_were_missed_are_told_once_and_an_answer_ends_them() {
    let rig = rig();
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    tokio::time::sleep(DAY * 10 + DAY / 2).await;
    let Some(Driven::Waiting { wake_at: Some(wake_at) }) = rig.work().await.unwrap() else {
        panic!("it waits");
    };
    assert_eq!(wake_at.as_millis() / 1000, 1_800_000_000 + 11 * 86_400);
    assert_eq!(count(&rig, "question.reminded").await, 1);
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "yes" })).await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["yes"]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_stored_in_time_counts_though_the_run_wakes_late() {
    let rig = rig();
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    tokio::time::sleep(DAY * 89).await;
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "yes" })).await;
    tokio::time::sleep(DAY * 9).await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["yes"]));
}

async fn play(rig: &Rig) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    rig.start("r", "main", json!({})).await.map_err(|error| text(&error))?;
    for _ in 0..10 {
        rig.work().await.map_err(|error| text(&error))?;
        let run = rig.store.run(&id("r")).await.map_err(|error| text(&error))?.ok_or("no run")?;
        if run.status.is_final() {
            return Ok(());
        }
        tokio::time::sleep(DAY * 40).await;
    }
    Err("the run does not end".to_owned())
}

async fn facts(rig: &Rig, world: &World) -> Value {
    let blocks = rig.store.blocks(None, None).await.unwrap();
    json!({
        "output": output(&rig.run("r").await),
        "effects": world.effects(),
        "questions": blocks.iter().map(|block| block.status).collect::<Vec<_>>(),
        "reminded": count(rig, "question.reminded").await,
        "expired": count(rig, "question.expired").await,
    })
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_neither_loses_an_expiry_nor_repeats_it() {
    let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
    let world = World::default();
    let undisturbed = Arc::new(MortalStore::new(Arc::new(MemoryStore::new()), Death::Never));
    let first = rig_on(undisturbed.clone(), &world, clock);
    play(&first).await.unwrap();
    let expected = facts(&first, &world).await;
    assert_eq!((&expected["expired"], &expected["reminded"]), (&json!(1), &json!(2)));
    let writes = undisturbed.writes();
    assert!(writes > 10, "only {writes} writes");
    for number in 1..=writes {
        for death in [Death::Before(number), Death::After(number)] {
            let world = World::default();
            let beneath: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let mortal = Arc::new(MortalStore::new(beneath.clone(), death));
            let doomed = play(&rig_on(mortal.clone(), &world, clock)).await;
            assert!(mortal.is_dead(), "{death:?}: {doomed:?}");
            tokio::time::sleep(Duration::from_secs(11)).await;
            let heir = rig_on(beneath, &world, clock);
            play(&heir).await.unwrap_or_else(|error| panic!("{death:?}: {error}"));
            assert_eq!(facts(&heir, &world).await, expected, "{death:?}");
        }
    }
}

#[test]
fn a_reminder_after_the_expiry_is_a_defect() {
    let nodes = r#"
  start: { gate: { ask: "?", choices: [ a ], remind: 2d, expires: 1d }, next: b }
  b: { gate: { ask: "?", choices: [ a ], expire: 1d, expires: 0s }, next: $end }
"#;
    insta::assert_snapshot!(defects(&shop(nodes.trim_start_matches('\n'))).join("\n"), @r"
    bad-limit 13:46 `remind` is not before `expires`, so it never reminds anyone
    unknown-key 14:42 `gate` has no key `expire` (perhaps `expires`; known: answer, ask, choices, context, expires, reason, remind, requested_input, schema)
    bad-duration 14:63 the duration is zero
    ");
}

//! A process that dies at any write loses nothing and repeats no effect.
//!
//! One graph uses all that is durable: memo, spend, effect, retry, parallel siblings, a loop of
//! children, a gate, a signal. It is run once undisturbed, to count its writes, and then once for
//! each write and each side of it, with a process that dies there and an heir that goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::port::store::Store;
use swarm_core::time::Timestamp;
use swarm_graph::registry::Registry;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{Death, MortalStore, VirtualClock};

use crate::rig::{Rig, World, graph, graph_named, id, output, registry};

const MAIN: &str = r#"
policies:
  retry: { twice: { max_attempts: 3, backoff: { initial: 1s, factor: 2, max: 5s } } }
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [left, right, flaky] }
  left: { uses: test/deed, with: { name: left }, next: join }
  right: { uses: test/work, with: { name: right, ms: 50 }, next: join }
  flaky: { uses: test/fail, config: { times: 1 }, retry: twice, next: join }
  join: { uses: test/put, when_all: [left, right, flaky], with: { log: ["joined"] }, next: each }
  each:
    foreach: { in: "${{ ['x', 'y', 'z'] }}", as: item, max_parallel: 2 }
    run: { graph: child, input: { name: "${{ item }}" } }
    next: ask
  ask:
    gate: { ask: "Go on?", answer: Choice }
    set: { log: "${{ [answer.choice] }}" }
    next: wait
  wait: { wait: { signal: go }, set: { log: "${{ [signal.payload] }}" }, next: last }
  last: { uses: test/deed, with: { name: last }, next: $end }
"#;

const CHILD: &str = r#"
entry: deed
output: { schema: { type: object }, value: { log: "${{ state.log }}" } }
nodes:
  deed: { uses: test/deed, with: { name: "${{ input.name }}" }, next: $end }
"#;

fn rig(store: Arc<dyn Store>, world: &World, clock: VirtualClock) -> Rig {
    let registry: Registry = registry(world);
    let graphs = vec![graph(MAIN, &registry), graph_named("child", CHILD, &registry)];
    Rig::on_clock(store, graphs, registry, clock)
}

/// Plays a person and the outside until the run ends or the store dies.
async fn play(rig: &Rig) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    rig.start("r", "main", json!({})).await.map_err(|error| failed(&error))?;
    for _ in 0..100 {
        rig.work().await.map_err(|error| failed(&error))?;
        let run = rig.store.run(&id("r")).await.map_err(|error| failed(&error))?.ok_or("no run")?;
        if run.status.is_final() {
            return Ok(());
        }
        let blocks = rig.store.blocks(None, Some(swarm_core::escalation::BlockStatus::Open)).await;
        for block in blocks.map_err(|error| failed(&error))? {
            let answer = json!({ "choice": "on" });
            rig.engine
                .answer(&block.id, answer, crate::rig::person("ada"))
                .await
                .map_err(|error| failed(&error))?;
        }
        rig.engine
            .signal(&id("r"), Some("go"), "go", json!("went"))
            .await
            .map_err(|error| failed(&error))?;
        // Backoffs pass, and the leases of the dead end.
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    Err("the run does not end".to_owned())
}

type Counts = BTreeMap<String, u32>;

/// What must be the same however often the process died, and what may be done once more.
fn facts(world: &World, out: Value) -> (Value, Counts, Counts, Counts) {
    (out, world.all("effect "), world.all("memo "), world.all("paid "))
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_write_changes_nothing() {
    let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
    let world = World::default();
    let undisturbed = Arc::new(MortalStore::new(Arc::new(MemoryStore::new()), Death::Never));
    let first = rig(undisturbed.clone(), &world, clock);
    play(&first).await.unwrap();
    let run = first.run("r").await;
    let spent = run.spent;
    let expected = facts(&world, output(&run));
    assert!(expected.1.values().all(|count| *count == 1), "{:?}", expected.1);
    assert_eq!(expected.1.len(), 6);

    let writes = undisturbed.writes();
    assert!(writes > 40, "only {writes} writes");
    for number in 1..=writes {
        for death in [Death::Before(number), Death::After(number)] {
            let world = World::default();
            let beneath: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let mortal = Arc::new(MortalStore::new(beneath.clone(), death));
            let doomed = play(&rig(mortal.clone(), &world, clock)).await;
            assert!(doomed.is_err() && mortal.is_dead(), "{death:?}: {doomed:?}");
            tokio::time::sleep(Duration::from_secs(11)).await;

            let heir = rig(beneath, &world, clock);
            play(&heir).await.unwrap_or_else(|error| panic!("{death:?}: {error}"));
            let run = heir.run("r").await;
            let (out, effects, memos, paid) = facts(&world, output(&run));
            assert_eq!((&out, &effects), (&expected.0, &expected.1), "{death:?}");
            // A call whose result was not stored may have been made again, once.
            assert!(
                memos.values().chain(paid.values()).all(|count| *count <= 2),
                "{death:?}: {memos:?} {paid:?}"
            );
            assert_eq!(run.spent, spent, "{death:?}: paid twice in the books");
        }
    }
}

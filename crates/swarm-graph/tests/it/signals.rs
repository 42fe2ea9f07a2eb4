//! Typed signals: what a graph declares is checked when it is loaded and when a signal is sent.

use std::sync::Arc;

use serde_json::json;
use swarm_core::port::store::{self, SignalKind};
use swarm_core::run::RunStatus;
use swarm_graph::engine::{Error, SignalRefused};
use swarm_graph::store::memory::MemoryStore;

use crate::rig::{Rig, World, graph, graph_named, id, output, registry};
use crate::shop::{defects, graph as shop};

const TYPED: &str = r#"
signals:
  price.set: { schema: { type: object, properties: { cents: { type: integer } }, required: [ cents ] } }
  choice: { type: Choice }
entry: start
nodes:
  start: { wait: { signal: price.* }, set: { n: "${{ signal.payload.cents * 2 }}" }, next: choose }
  choose: { wait: { signal: choice }, set: { log: ["${{ signal.payload.choice }}"] }, next: $end }
"#;

fn rig(rest: &str) -> Rig {
    let registry = registry(&World::default());
    let main = graph(rest, &registry);
    let child = graph_named(
        "child",
        "entry: ask\nnodes:\n  ask: { gate: { ask: \"Well?\", answer: Choice }, next: $end }\n",
        &registry,
    );
    Rig::new(Arc::new(MemoryStore::new()), vec![main, child], registry)
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_does_not_fit_is_refused_and_changes_nothing() {
    let rig = rig(TYPED);
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let unknown = rig.engine.signal(&id("r"), None, "price.sett", json!({})).await.unwrap_err();
    insta::assert_snapshot!(unknown, @r"graph `main` knows no signal `price.sett`: perhaps `price.set`; known: choice, price.set, worker.answered, worker.blocked, worker.finished");
    assert!(matches!(unknown, SignalRefused::Unknown { .. }));
    let payload = json!({ "cents": "many" });
    let misfit = rig.engine.signal(&id("r"), None, "price.set", payload).await.unwrap_err();
    insta::assert_snapshot!(misfit, @r#"the payload does not fit signal `price.set` of graph `main`: /cents: "many" is not of type "integer""#);
    assert!(matches!(misfit, SignalRefused::Misfit { .. }));
    let nobody = rig.engine.signal(&id("nobody"), None, "price.set", json!({})).await.unwrap_err();
    let not_found = |error: &SignalRefused| {
        matches!(error, SignalRefused::Engine(Error::Store(store::Error::NotFound { .. })))
    };
    assert!(not_found(&nobody), "{nobody}");
    assert!(rig.store.signals(&id("r")).await.unwrap().is_empty());
    assert_eq!(rig.run("r").await.status, RunStatus::Waiting);

    let fitting = json!({ "cents": 21 });
    assert!(rig.engine.signal(&id("r"), None, "price.set", fitting).await.unwrap());
    assert!(rig.engine.signal(&id("r"), None, "choice", json!({ "choice": "a" })).await.unwrap());
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await), json!({ "log": ["a"], "n": 42 }));
}

#[tokio::test(start_paused = true)]
async fn what_runs_send_by_themselves_fits_what_graphs_are_told_of_it() {
    let rig = rig(r#"
signals: { go: { schema: { type: "null" } } }
entry: start
nodes:
  start: { run: { graph: child, detach: true }, set: {}, next: hear }
  hear:
    wait: { signal: worker.* }
    set: { log: ["${{ signal.name }} ${{ signal.payload.run }} of ${{ signal.payload.graph }}"] }
    routes: [ { when: "${{ signal.name != 'worker.finished' }}", to: hear, max: 9 }, { to: $end } ]
"#);
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "a" })).await;
    // Held against the declared types while it is still there to be seen.
    let graph = rig.engine.library().named("main").unwrap();
    let mut seen = Vec::new();
    for signal in rig.store.signals(&id("r")).await.unwrap() {
        if let SignalKind::Named { name, payload } = signal.kind {
            let schema = &graph.signals().unwrap()[&name];
            assert!(jsonschema::is_valid(schema, &payload), "{name}: {payload}");
            seen.push(name);
        }
    }
    assert_eq!(seen, ["worker.answered"]);
    rig.work().await.unwrap();
    insta::assert_json_snapshot!(output(&rig.run("r").await)["log"], @r#"
    [
      "worker.blocked r.start#1 of child",
      "worker.answered r.start#1 of child",
      "worker.finished r.start#1 of child"
    ]
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_graph_without_signals_takes_any() {
    let rig = rig(r#"
entry: start
nodes:
  start: { wait: { signal: any.* }, set: { log: ["${{ signal.payload.deep.er }}"] }, next: $end }
"#);
    rig.start("r", "main", json!({})).await.unwrap();
    let payload = json!({ "deep": { "er": "yes" } });
    assert!(rig.engine.signal(&id("r"), None, "any.thing", payload).await.unwrap());
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["yes"]));
}

#[test]
fn signals_are_held_against_what_is_declared() {
    let nodes = r#"
  start: { wait: { signal: prices }, next: b }
  b: { wait: { signal: wroker.* }, next: c }
  c: { wait: { signal: worker.finised }, next: d }
  d: { wait: { signal: price }, set: { spent: "${{ signal.payload.cent }}", verdict: "${{ signal.payload.cents }}" }, next: e }
  e: { wait: { signal: worker.finished }, routes: [ { when: "${{ signal.payload.status == 'done' }}", to: $end }, { to: f } ] }
  f: { wait: { signal: price, timeout: 1s }, set: { verdict: "${{ signal.payload }}" }, next: g }
  g: { wait: { signal: worker.* }, set: { verdict: "${{ signal.payload.run }}" }, next: $end }
signals:
  price: { schema: { type: object, properties: { cents: { type: integer } }, required: [ cents ] } }
  "no name": { schema: {} }
  all.*: { schema: {} }
  worker.finished: { schema: {} }
  none: {}
  both: { type: Verdict, schema: {} }
  typo: { type: Verdikt }
"#;
    insta::assert_snapshot!(defects(&shop(nodes.trim_start_matches('\n'))).join("\n"), @r"
    unknown-signal 13:28 no signal `prices` is declared (perhaps `price`; known: both, none, price, typo, worker.answered, worker.blocked, worker.finished)
    unknown-signal 14:24 no signal `wroker.*` is declared (perhaps `worker.*`; known: both, none, price, typo, worker.*, worker.answered, worker.blocked, worker.finished)
    unknown-signal 15:24 no signal `worker.finised` is declared (perhaps `worker.finished`; known: both, none, price, typo, worker.answered, worker.blocked, worker.finished)
    unknown-field 16:67 no field `cent` in `payload` (perhaps `cents`; known: cents)
    type-mismatch 16:86 `set.verdict`: expected a string, found a whole number
    type-mismatch 17:92 `==` is always false: 'done' is none of its values (known: cancelled, failed, succeeded)
    type-mismatch 18:62 `set.verdict`: expected a string, found an object with cents
    bad-name 22:3 `no name` cannot be the name of a signal (write words joined by dots, such as `worker.finished`)
    bad-name 23:3 `all.*` cannot be the name of a signal (write words joined by dots, such as `worker.finished`)
    duplicate-name 24:3 `worker.finished` is a signal that runs send by themselves (leave it out: its payload is known)
    key-clash 25:9 the signal `none` has none of `type`, `schema` (give exactly one)
    key-clash 26:26 the signal `both` has both `type` and `schema` (give exactly one of `type`, `schema`)
    unknown-type 27:17 no type named `Verdikt` is registered (perhaps `Verdict`; known: ShopInput, ShopState, Verdict)
    ");
}

#[test]
fn what_a_graph_may_be_told_is_told_of_it_in_words() {
    let told = swarm_graph::explain::in_words(&graph(TYPED, &registry(&World::default())));
    let from = told.find("What it may be told from outside:").expect("it has such a part");
    let part: Vec<&str> = told[from..].lines().take(4).collect();
    assert_eq!(
        part,
        [
            "What it may be told from outside:",
            "",
            "- `choice`, with `choice`.",
            "- `price.set`, with `cents`."
        ]
    );
}

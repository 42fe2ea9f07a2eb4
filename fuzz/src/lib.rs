//! What is fuzzed: bytes from outside go in, and nothing may panic, abort or take long.
//!
//! `tests/it/corpus.rs` of `swarm-graph` includes this very file and runs it on the stable
//! toolchain; `cargo fuzz run graph` goes on from the same corpus for as long as you like.

use serde_json::json;
use swarm_core::checkpoint::{Change, Checkpoint, Cursor, State, StepEnding, StepRecord};
use swarm_core::escalation::Block;
use swarm_core::event::Event;
use swarm_core::port::store::SignalKind;
use swarm_core::run::{NewRun, RunRecord};
use swarm_graph::check;
use swarm_graph::expr::{Expr, Scope};
use swarm_graph::registry::Registry;
use swarm_graph::replay::Recording;

/// The text of a graph: loads, or says why not; what loads can be drawn and told.
pub fn graph(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match check::load_text(text, &Registry::new()) {
        Ok(graph) => {
            assert!(!swarm_graph::dot::svg(&graph).is_empty());
            let again = check::load_text(graph.text(), &Registry::new());
            let again = again.expect("what was loaded loads again");
            assert_eq!(again.hash(), graph.hash());
        }
        Err(defects) => assert!(!defects.to_string().is_empty()),
    }
}

/// An expression: parses, or says why not; what parses has a value, or says why not.
pub fn expr(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(expr) = Expr::parse(source) else { return };
    let vars = [
        ("a", json!(2)),
        ("s", json!("xyz")),
        ("l", json!([1, "x", null, [2]])),
        ("m", json!({ "k": 4, "l": [1, 2] })),
    ];
    let scope = vars.iter().fold(Scope::new(), |scope, (name, value)| scope.var(name, value));
    if let Err(error) = expr.eval(&scope) {
        assert!(!error.to_string().is_empty());
    }
}

/// Stored bytes, read as everything that a store keeps as JSON; what can be read is written and
/// read again.
pub fn stored(data: &[u8]) {
    macro_rules! each {
        ($($kind:ty),*) => {$(
            if let Ok(value) = serde_json::from_slice::<$kind>(data) {
                let text = serde_json::to_string(&value).expect("what was read is written");
                let again: $kind = serde_json::from_str(&text).expect("what was written is read");
                assert_eq!(again, value);
            }
        )*};
    }
    each!(
        Checkpoint, Cursor, State, Change, StepRecord, StepEnding, Block, Event, SignalKind,
        NewRun, RunRecord, Recording
    );
}

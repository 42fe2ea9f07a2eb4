//! The order graph with a crash at every point.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use swarm_graph::testkit::{World, crash_everywhere};
use test_your_graph::{Outside, library};

/// A world that counts instead of doing.
struct Counted(World);

#[async_trait]
impl Outside for Counted {
    async fn act(&self, key: &str, what: &str) -> Result<(), String> {
        self.0.effect(format!("{key}: {what}"));
        Ok(())
    }

    async fn was_done(&self, key: &str) -> Result<bool, String> {
        Ok(self.0.effects().keys().any(|effect| effect.starts_with(key)))
    }
}

#[test]
fn an_order_is_paid_and_sent_once_wherever_the_process_dies() {
    let order = json!({ "item": "piano", "cents": 250_000 });
    let report = crash_everywhere("order", order, |world| {
        library(Arc::new(Counted(world.clone()))).expect("the graph loads")
    })
    .answering(|_question| json!({ "choice": "send" }))
    .run();
    assert_eq!((report.effects, report.questions), (2, 1), "{report}");
}

#[test]
fn a_cheap_order_asks_nobody() {
    let order = json!({ "item": "pen", "cents": 120 });
    let report = crash_everywhere("order", order, |world| {
        library(Arc::new(Counted(world.clone()))).expect("the graph loads")
    })
    .run();
    assert_eq!((report.effects, report.questions), (2, 0), "{report}");
}

#[test]
fn the_readme_shows_the_test_as_it_is_and_it_is_short() {
    let (this, readme) = (include_str!("main.rs"), include_str!("../../README.md"));
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    let shown = shown.expect("the README shows Rust");
    assert!(this.contains(shown), "the README shows another test");
    assert!(shown.lines().count() < 20);
}

//! `demo`: the whole swarm on a real repository, with nothing but the model's words replayed.

use serde_json::json;

use crate::bench::{Bench, git};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_a_merged_change_and_shows_it() {
    let bench = Bench::new();
    let done = bench.run(&["demo", "--yes", "--dir", "demo"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    for words in [
        "Only the model's words are replayed",
        "cargo test: failed, 3 of 4 tests",
        "cargo test: passed, 4 of 4 tests",
        "Merged pull request #2",
        "What happened",
        "+    Some((lower + upper) / 2.0)",
        "Where everything is",
    ] {
        assert!(done.stdout.contains(words), "{words}: {done:?}");
    }
    let repository = bench.path().join("demo/tally.git");
    assert_eq!(git(&repository, &["rev-list", "--merges", "--count", "main"]), "1");
    assert_eq!(git(&repository, &["diff", "--name-only", "main^1", "main"]), "src/lib.rs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_without_a_terminal_waits_for_the_approval_and_goes_on_after_it() {
    let bench = Bench::new();
    let demo = ["demo", "--dir", "demo", "--json"];
    let waiting = bench.run(&demo).await;
    let last = waiting.last();
    assert_eq!((waiting.code, &last["outcome"]), (3, &json!("waiting")), "{waiting:?}");
    let repository = bench.path().join("demo/tally.git");
    assert_eq!(git(&repository, &["rev-list", "--count", "main"]), "1", "nothing is merged yet");

    let data = bench.path().join("demo/data");
    let data = data.to_str().expect("UTF-8");
    let approved = bench.run(&["--data-dir", data, "approve", "#2"]).await;
    assert_eq!(approved.code, 0, "{approved:?}");
    let merged = bench.run(&demo).await;
    assert_eq!((merged.code, &merged.last()["outcome"]), (0, &json!("merged")), "{merged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_does_not_care_about_anyones_configuration() {
    let bench = Bench::new();
    bench.write(
        "swarm.yaml",
        "repositories: []\nmodels: { default: { provider: anthropic, name: x } }\n",
    );
    let done = bench.run(&["demo", "--yes", "--dir", "demo"]).await;
    assert_eq!(done.code, 0, "{done:?}");
}

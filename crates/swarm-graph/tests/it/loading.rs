//! From text to a graph, or to everything that is wrong with it.

use std::time::Duration;

use serde_json::{Value, json};
use swarm_graph::check::{self, Files, Memory};
use swarm_graph::graph::{Exits, OnError, OnExceed, Target, Work};
use swarm_graph::schema;

use crate::shop::{POLICIES, WHOLE, graph, load, registry, whole};

#[test]
fn a_graph_that_uses_most_of_the_format_loads() {
    let graph = check::load(&whole(), "graphs/shop.yaml", &registry()).unwrap();
    assert_eq!(graph.warnings(), []);
    assert_eq!((graph.name().as_str(), graph.version()), ("shop", "1.0.0"));
    assert_eq!(graph.entry().as_str(), "plan");
    assert_eq!(graph.limits().visits_per_node, 20);
    let budget = graph.budget().unwrap();
    assert_eq!((budget.usd, budget.on_exceed), (Some(2.5), OnExceed::Fail));
    assert_eq!(budget.wall, Some(Duration::from_secs(8 * 3600)));

    let reducers: Vec<(&str, &str)> = graph
        .channels()
        .iter()
        .map(|(name, channel)| (name.as_str(), channel.reducer.name()))
        .collect();
    assert_eq!(
        reducers,
        [
            ("plan", "replace"),
            ("findings", "append"),
            ("tasks", "merge_by_key"),
            ("spent", "sum"),
            ("facts", "merge"),
            ("verdict", "replace"),
            ("best", "longest"),
        ]
    );
    assert_eq!(*graph.channels()["findings"].default, json!([]));
    assert_eq!(*graph.channels()["best"].default, json!(""));
    assert!(graph.channels()["best"].custom.is_some());

    let plan = graph.node("plan").unwrap();
    assert_eq!(plan.retry().unwrap().attempts_max, 2);
    assert_eq!(plan.retry().unwrap().initial, Duration::from_millis(500));
    assert_eq!(plan.timeout().run, Some(Duration::from_secs(900)));
    assert_eq!(plan.timeout().idle, Some(Duration::from_secs(300)));
    assert_eq!(plan.catch()[0].max, Some(2));
    let Exits::Routes(routes) = plan.exits() else { panic!("{:?}", plan.exits()) };
    assert_eq!(routes[2].to.iter().map(Target::to_string).collect::<Vec<_>>(), ["say", "judge"]);

    let look = graph.node("look").unwrap();
    assert_eq!(look.foreach().unwrap().on_error, OnError::Collect);
    assert_eq!(look.retry().unwrap().attempts_max, 5, "the default is an imported policy");
    let both = graph.node("both").unwrap();
    assert_eq!(both.when_all().len(), 2);
    assert!(matches!(both.work(), Work::Run { detach: true, .. }));
    assert!(
        matches!(graph.node("report").unwrap().exits(), Exits::Next(to) if to == &[Target::End])
    );
    assert!(graph.node("wait").unwrap().retry().is_none(), "nothing retries a wait");
}

#[test]
fn the_text_of_a_graph_loads_again_to_the_same_graph() {
    let graph = check::load(&whole(), "graphs/shop.yaml", &registry()).unwrap();
    let again = check::load_text(graph.text(), &registry()).unwrap();
    assert_eq!(graph.hash(), again.hash());
    assert_eq!(graph.text(), again.text());
    assert_eq!(format!("{:?}", graph.nodes()), format!("{:?}", again.nodes()));
    assert_eq!(
        graph.channels().keys().collect::<Vec<_>>(),
        again.channels().keys().collect::<Vec<_>>()
    );
    assert!(graph.text().contains("org.transient") && !graph.text().contains("org.unused"));
}

#[test]
fn the_hash_is_of_what_a_graph_says_and_not_of_how() {
    let hash = |text: &str| {
        let sources = Memory::one("g.yaml", text).with("policies.yaml", POLICIES);
        check::load(&sources, "g.yaml", &registry()).unwrap().hash().clone()
    };
    let first = hash(WHOLE);
    assert_eq!(first.0.len(), 64);
    assert_eq!(first, hash(&WHOLE.replace("next: wait\n", "next:   \"wait\" # then\n\n")));
    assert_eq!(first, hash(&WHOLE.replace("usd: 2.5, tokens: 1000", "tokens: 1000, usd: 2.5")));
    assert_ne!(first, hash(&WHOLE.replace("max: 12", "max: 13")));
    let swapped = WHOLE
        .replace("  judge: { uses: shop/judge, next: both }\n", "")
        .replace("  say: {", "  judge: { uses: shop/judge, next: both }\n  say: {");
    assert_ne!(first, hash(&swapped), "updates are applied in the order of the nodes");
}

#[test]
fn a_policy_that_nothing_uses_does_not_make_another_graph() {
    let hash = |policies: &str| {
        let sources = Memory::one("g.yaml", WHOLE).with("policies.yaml", policies);
        check::load(&sources, "g.yaml", &registry()).unwrap().hash().clone()
    };
    assert_eq!(hash(POLICIES), hash(&POLICIES.replace("max_attempts: 9", "max_attempts: 8")));
    assert_ne!(hash(POLICIES), hash(&POLICIES.replace("max_attempts: 5", "max_attempts: 6")));
}

#[test]
fn graphs_load_from_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.yaml"), WHOLE).unwrap();
    std::fs::write(dir.path().join("policies.yaml"), POLICIES).unwrap();
    let files = Files::below(dir.path());
    let from_files = check::load(&files, "shop.yaml", &registry()).unwrap();
    let from_memory = check::load(&whole(), "graphs/shop.yaml", &registry()).unwrap();
    assert_eq!(from_files.hash(), from_memory.hash());
    let missing = check::load(&files, "none.yaml", &registry()).unwrap_err();
    assert_eq!(missing.list[0].code.as_str(), "unreadable-file");
}

#[test]
fn anchors_and_aliases_stand_for_what_they_repeat() {
    let text = graph(
        "  start: { uses: shop/judge, timeout: &t { run: 5m }, next: end }\n  end: { uses: shop/judge, timeout: *t, next: $end }\n",
    );
    let graph = load(&text).unwrap();
    assert_eq!(graph.node("end").unwrap().timeout().run, Some(Duration::from_secs(300)));
    assert_eq!(check::load_text(graph.text(), &registry()).unwrap().hash(), graph.hash());
}

#[test]
fn a_gate_with_choices_has_an_answer_of_one_of_them() {
    let text = graph(
        "  start:\n    gate: { ask: \"Push ${{ input.issue }}?\", choices: [ go, stop ] }\n    routes:\n      - { when: \"${{ answer.choice == 'go' }}\", to: $end }\n      - { to: $end }\n",
    );
    let graph = load(&text).unwrap();
    let Work::Gate(gate) = graph.node("start").unwrap().work() else { panic!() };
    assert_eq!(gate.answer_schema.pointer("/properties/choice/enum"), Some(&json!(["go", "stop"])));
}

#[test]
fn the_shipped_schema_is_the_one_of_the_types_that_load_a_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../graphs/swarm-graph.v1.schema.json");
    let fresh = serde_json::to_string_pretty(&schema::graph_file()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == fresh, "`{path}` is stale: run this test again with UPDATE_SCHEMA=1");
}

#[test]
fn the_schema_takes_what_the_loader_takes() {
    let validator = jsonschema::validator_for(&schema::graph_file()).unwrap();
    let graph = check::load(&whole(), "graphs/shop.yaml", &registry()).unwrap();
    let data: Value = serde_json::from_str(graph.text()).unwrap();
    let errors: Vec<String> = validator.iter_errors(&data).map(|error| error.to_string()).collect();
    assert_eq!(errors, [""; 0]);
    let wrong =
        json!({ "dsl": 1, "graph": { "name": "x" }, "entry": "a", "nodes": {}, "node": {} });
    assert_eq!(validator.iter_errors(&wrong).count(), 2);
}

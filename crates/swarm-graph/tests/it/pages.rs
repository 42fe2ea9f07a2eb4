//! The pages about graph files: every example loads, and every key is explained.

use std::collections::BTreeSet;

use serde_json::Value;
use swarm_graph::schema;

use crate::shop::load;

const PAGE: &str = include_str!("../../../../docs/graphs.md");

/// The examples of a page, each with the line that it begins in.
fn examples() -> Vec<(usize, String)> {
    let mut examples = Vec::new();
    let mut current: Option<(usize, String)> = None;
    for (number, line) in PAGE.lines().enumerate() {
        match (&mut current, line) {
            (None, "```yaml") => current = Some((number + 2, String::new())),
            (Some(_), "```") => examples.extend(current.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    examples
}

/// An example with what it leaves out.
fn completed(example: &str) -> String {
    let mut text = String::new();
    for (key, given) in [
        ("dsl:", "dsl: 1\n"),
        ("graph:", "graph: { name: shop, version: 1.0.0 }\n"),
        ("input:", "input: { type: ShopInput }\n"),
        (
            "state:",
            "state: { type: ShopState, channels: { findings: { reducer: append }, facts: { reducer: merge } } }\n",
        ),
        ("entry:", "entry: start\n"),
        ("nodes:", "nodes: { start: { uses: shop/judge, next: $end } }\n"),
    ] {
        if !example.lines().any(|line| line.starts_with(key)) {
            text.push_str(given);
        }
    }
    text + example
}

#[test]
fn every_example_of_the_page_loads() {
    let examples = examples();
    assert!(examples.len() > 8, "only {} examples", examples.len());
    for (line, example) in examples {
        if let Err(defects) = load(&completed(&example)) {
            panic!("docs/graphs.md:{line}:\n{defects}");
        }
    }
}

fn keys<'s>(schema: &'s Value, found: &mut BTreeSet<&'s str>) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries {
                if let (true, Value::Object(properties)) = (key == "properties", value) {
                    found.extend(properties.keys().map(String::as_str));
                }
                keys(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_page_explains_every_key() {
    let schema = schema::graph_file();
    let mut known = BTreeSet::new();
    keys(&schema, &mut known);
    assert!(known.len() > 50, "{known:?}");
    let is_said = |key: &str| {
        ["`", ":"].iter().any(|end| PAGE.contains(&format!("`{key}{end}")))
            || PAGE.contains(&format!(" `{key} "))
    };
    let missing: Vec<&str> = known.into_iter().filter(|key| !is_said(key)).collect();
    assert!(missing.is_empty(), "docs/graphs.md does not explain {missing:?}");
}

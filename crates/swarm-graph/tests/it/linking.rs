//! Graphs that start runs of each other.

use swarm_graph::check::{self, Memory};
use swarm_graph::defect::Defects;
use swarm_graph::graph::Graph;

use crate::shop::registry;

const CHILD: &str = "dsl: 1
graph: { name: child, version: 1.0.0 }
input: { schema: { type: object, properties: { task: { type: string }, size: { type: integer } }, required: [ task ], additionalProperties: false } }
output:
  schema: { type: object, properties: { verdict: { type: string }, cost: { type: number } } }
  value: { verdict: \"${{ input.task }}\", cost: 1 }
entry: a
nodes:
  a: { wait: { timeout: 1s }, next: $end }
";

fn parent(nodes: &str) -> String {
    format!(
        "dsl: 1\ngraph: {{ name: parent, version: 1.0.0 }}\nstate: {{ schema: {{ type: object, properties: {{ verdict: {{ type: string }}, cost: {{ type: integer }} }} }} }}\nentry: a\nnodes:\n{nodes}"
    )
}

fn check(nodes: &str) -> String {
    let sources = Memory::one("child.yaml", CHILD).with("parent.yaml", parent(nodes));
    let loaded = check::load_all(&sources, &["parent.yaml", "child.yaml"], &registry());
    assert_eq!(said(&loaded[1]), "child");
    said(&loaded[0])
}

fn said(result: &Result<Graph, Defects>) -> String {
    match result {
        Ok(graph) => graph.name().to_string(),
        Err(defects) => defects
            .list
            .iter()
            .map(|d| {
                let help = d.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                format!("{} {}:{}:{} {}{help}", d.code, d.file, d.line, d.column, d.message)
            })
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[test]
fn graphs_that_fit_each_other_load_together() {
    let text = "  a: { run: { graph: child, input: { task: x } }, set: { verdict: \"${{ output.verdict }}\" }, next: $end }\n";
    assert_eq!(check(text), "parent");
}

#[test]
fn a_graph_that_nothing_has_is_refused_with_the_nearest_one() {
    let text = "  a: { run: { graph: chidl, input: { task: x } }, next: $end }\n";
    insta::assert_snapshot!(check(text), @"unknown-graph parent.yaml:6:22 no graph named `chidl` (perhaps `child`; known: child, parent)");
}

#[test]
fn what_a_child_is_given_and_gives_has_its_types() {
    let text = "  a: { run: { graph: child, input: { size: big, more: 1 } }, next: b }\n  b: { run: { graph: child }, set: { verdict: \"${{ output.verdct }}\" }, next: $end }\n";
    insta::assert_snapshot!(check(text), @r"
    type-mismatch parent.yaml:6:22 `child` writes channel `cost`: expected a whole number, found a number
    missing-field parent.yaml:6:36 `input` needs a field `task`: a string
    type-mismatch parent.yaml:6:44 `input.size`: expected a whole number, found the string 'big'
    unknown-field parent.yaml:6:49 `input` has no field `more` (known: size, task)
    missing-field parent.yaml:7:13 `input` needs a field `task`: a string
    unknown-field parent.yaml:7:59 no field `verdct` in `output` (perhaps `verdict`; known: cost, verdict)
    ");
}

#[test]
fn a_child_with_defects_is_known_by_its_name() {
    let sources = Memory::one("child.yaml", CHILD.replace("next: $end", "next: nowhere"))
        .with("parent.yaml", parent("  a: { run: { graph: child, input: {} }, next: $end }\n"));
    let loaded = check::load_all(&sources, &["parent.yaml", "child.yaml"], &registry());
    assert!(loaded[0].is_ok() && loaded[1].is_err());
}

#[test]
fn two_graphs_of_one_name_are_refused() {
    let sources = Memory::one("child.yaml", CHILD).with("other.yaml", CHILD);
    let loaded = check::load_all(&sources, &["child.yaml", "other.yaml"], &registry());
    assert_eq!(said(&loaded[0]), "child");
    insta::assert_snapshot!(said(&loaded[1]), @"duplicate-name other.yaml:2:16 `child.yaml` has a graph named `child`, too");
}

//! Graphs printed for people.

use swarm_graph::{check, dot};

use crate::shop::{graph, load, registry, whole};

fn shop() -> swarm_graph::graph::Graph {
    check::load(&whole(), "graphs/shop.yaml", &registry()).unwrap()
}

#[test]
fn a_graph_is_drawn_in_mermaid() {
    insta::assert_snapshot!(dot::mermaid(&shop()), @r#"
    flowchart TD
      begin(( )) --> n0
      n0["plan<br/>shop/plan"]
      n1["look<br/>shop/look, for each task"]
      n2(["wait<br/>waits for worker.*, at most 15m"])
      n3{{"ask<br/>asks: Ambiguous specification"}}
      n4["say<br/>shop/say"]
      n5["judge<br/>shop/judge"]
      n6[["both<br/>starts child, joins"]]
      n7["report<br/>shop/report"]
      n8((("end")))
      n0 -->|"state.plan.ambiguous"| n3
      n0 -->|"state.plan.tasks.exists#40;t, t.status == 'ope…"| n1
      n0 --> n4
      n0 --> n5
      n0 -.->|"error.class == 'invalid_plan', max 2"| n0
      n0 -.->|"any failure"| n3
      n1 --> n2
      n2 -->|"size#40;state.facts#41; #62; 2 || 'stop' in state.fa…"| n4
      n2 -->|"size#40;state.facts#41; #62; 2 || 'stop' in state.fa…"| n5
      n2 -->|"max 12"| n2
      n2 --> n3
      n3 -->|"answer.choice == 'replan', max 3"| n0
      n3 --> n7
      n4 --> n6
      n5 --> n6
      n6 --> n7
      n7 --> n8
    "#);
}

#[test]
fn a_graph_is_drawn_in_dot() {
    insta::assert_snapshot!(dot::dot(&shop()), @r#"
    digraph "shop 1.0.0" {
      node [shape=box, fontname="sans-serif"];
      edge [fontname="sans-serif", fontsize=10];
      begin [shape=point];
      begin -> n0;
      n0 [shape=box, label="plan\nshop/plan"];
      n1 [shape=box, label="look\nshop/look, for each task"];
      n2 [shape=box, style=rounded, label="wait\nwaits for worker.*, at most 15m"];
      n3 [shape=hexagon, label="ask\nasks: Ambiguous specification"];
      n4 [shape=box, label="say\nshop/say"];
      n5 [shape=box, label="judge\nshop/judge"];
      n6 [shape=box, peripheries=2, label="both\nstarts child, joins"];
      n7 [shape=box, label="report\nshop/report"];
      n8 [shape=doublecircle, label="end"];
      n0 -> n3 [label="state.plan.ambiguous"];
      n0 -> n1 [label="state.plan.tasks.exists(t, t.status == 'ope…"];
      n0 -> n4 [label=""];
      n0 -> n5 [label=""];
      n0 -> n0 [label="error.class == 'invalid_plan', max 2", style=dashed];
      n0 -> n3 [label="any failure", style=dashed];
      n1 -> n2 [label=""];
      n2 -> n4 [label="size(state.facts) > 2 || 'stop' in state.fa…"];
      n2 -> n5 [label="size(state.facts) > 2 || 'stop' in state.fa…"];
      n2 -> n2 [label="max 12"];
      n2 -> n3 [label=""];
      n3 -> n0 [label="answer.choice == 'replan', max 3"];
      n3 -> n7 [label=""];
      n4 -> n6 [label=""];
      n5 -> n6 [label=""];
      n6 -> n7 [label=""];
      n7 -> n8 [label=""];
    }
    "#);
}

#[test]
fn a_picture_shows_every_node_and_every_condition() {
    let graph = shop();
    let picture = dot::svg(&graph);
    for name in graph.nodes().keys() {
        assert!(picture.contains(&format!("data-node=\"{name}\"")), "{name}");
    }
    assert!(picture.contains("state.plan.ambiguous"));
    assert!(picture.contains("any failure"));
    let coloured = dot::svg_with(&graph, |name| if name == "plan" { "active" } else { "" });
    assert!(coloured.contains("class=\"node uses active\" data-node=\"plan\""));
}

#[test]
fn labels_are_text_and_never_markup() {
    let text = graph(
        "  start:\n    uses: shop/judge\n    routes:\n      - { when: \"${{ state.verdict == '</text><script>\\\"' }}\", to: $end }\n      - { to: $end }\n",
    );
    let graph = load(&text).unwrap();
    for drawn in [dot::svg(&graph), dot::mermaid(&graph)] {
        assert!(!drawn.contains("<script"), "{drawn}");
    }
    assert!(dot::dot(&graph).contains("'</text><script>\\\"'"));
}

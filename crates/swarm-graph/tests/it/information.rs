//! Where untrusted text, a secret and a way out meet, and where an effect comes before its gate.

use swarm_graph::check::{self, Memory};
use swarm_graph::defect::Code;

use crate::shop::{load, registry};

/// The codes of a graph with these nodes, whose entry is `a`, and what is said of them.
fn found(nodes: &str) -> Vec<String> {
    let text = format!("dsl: 1\ngraph: {{ name: g, version: 1.0.0 }}\nentry: a\nnodes:\n{nodes}");
    match load(&text) {
        Ok(_) => Vec::new(),
        Err(defects) => defects
            .list
            .iter()
            .map(|defect| format!("{}: {}", defect.code, defect.message))
            .collect(),
    }
}

#[test]
fn any_two_of_the_three_are_no_defect() {
    for two in [["read_mail", "accounts"], ["read_mail", "send"], ["accounts", "send"]] {
        let nodes = format!(
            "  a: {{ uses: shop/{}, next: b }}\n  b: {{ uses: shop/{}, next: $end }}\n",
            two[0], two[1]
        );
        assert_eq!(found(&nodes), [""; 0], "{two:?}");
    }
}

#[test]
fn the_order_of_reading_does_not_matter_and_sending_before_reading_does_no_harm() {
    let chain = |kinds: [&str; 3]| {
        let [a, b, c] = kinds;
        format!(
            "  a: {{ uses: shop/{a}, next: b }}\n  b: {{ uses: shop/{b}, next: c }}\n  c: {{ uses: shop/{c}, next: $end }}\n"
        )
    };
    let said = found(&chain(["accounts", "read_mail", "send"]));
    assert_eq!(
        said,
        [
            "unguarded-flow: node `c` can send out what is secret, on behalf of text that strangers wrote: a → b → c"
        ]
    );
    assert_eq!(found(&chain(["send", "accounts", "read_mail"])), [""; 0]);
    assert_eq!(found(&chain(["accounts", "send", "read_mail"])), [""; 0]);
}

#[test]
fn a_loop_brings_back_what_was_read_later() {
    let said = found(
        "  a: { uses: shop/accounts, next: b }
  b: { uses: shop/send, next: c }
  c: { wait: { signal: more, timeout: 1d }, routes: [ { when: \"${{ signal == null }}\", to: $end }, { to: d, max: 3 }, { to: $end } ] }
  d: { uses: shop/read_mail, next: b }
",
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].ends_with("a → b → c → d → b"), "{said:?}");
}

#[test]
fn what_routes_exclude_does_not_meet() {
    let said = found(
        "  a: { wait: { signal: which, timeout: 1d }, routes: [ { when: \"${{ signal == null }}\", to: b }, { to: c } ] }
  b: { uses: shop/read_mail, next: d }
  c: { uses: shop/accounts, next: d }
  d: { uses: shop/send, next: $end }
",
    );
    assert_eq!(said, [""; 0]);
}

#[test]
fn lines_that_run_at_the_same_time_share_what_they_read() {
    let beside = "  a: { wait: { signal: go, timeout: 1d }, next: [ b, c ] }
  b: { uses: shop/read_mail, next: $end }
  c: { uses: shop/accounts, next: d }
  d: { uses: shop/send, next: $end }
";
    assert!(found(beside)[0].starts_with("unguarded-flow: node `d`"), "{:?}", found(beside));
    let joined = "  a: { wait: { signal: go, timeout: 1d }, next: [ b, c ] }
  b: { uses: shop/read_mail, next: d }
  c: { uses: shop/accounts, next: d }
  d: { when_all: [ b, c ], uses: shop/send, next: $end }
";
    assert!(found(joined)[0].starts_with("unguarded-flow: node `d`"), "{:?}", found(joined));
}

#[test]
fn a_gate_that_expires_has_let_nobody_look() {
    let nodes = |to: &str| {
        format!(
            "  a: {{ uses: shop/read_mail, next: b }}
  b: {{ uses: shop/accounts, next: c }}
  c: {{ gate: {{ ask: \"Send?\", choices: [ yes ], expires: 1d }}, catch: [ {{ to: {to} }} ], next: d }}
  d: {{ uses: shop/send, next: $end }}
"
        )
    };
    assert_eq!(found(&nodes("$end")), [""; 0]);
    assert!(found(&nodes("d"))[0].starts_with("unguarded-flow: node `d`"));
}

#[test]
fn one_leave_is_for_one_time() {
    let nodes = |back: &str| {
        format!(
            "  a: {{ gate: {{ ask: \"Pay?\", choices: [ yes ] }}, next: b }}
  b: {{ uses: shop/refund, next: c }}
  c: {{ wait: {{ signal: more, timeout: 1d }}, routes: [ {{ when: \"${{{{ signal == null }}}}\", to: $end }}, {{ to: {back}, max: 3 }}, {{ to: $end }} ] }}
"
        )
    };
    assert_eq!(found(&nodes("a")), [""; 0]);
    assert_eq!(
        found(&nodes("b")),
        ["effect-before-gate: node `b` needs a gate, and none is on the way a → b → c → b"]
    );
}

#[test]
fn a_run_that_is_started_brings_what_it_reads_and_sends_what_it_is_given() {
    let child = |name: &str, kind: &str| {
        format!(
            "dsl: 1\ngraph: {{ name: {name}, version: 1.0.0 }}\nentry: x\nnodes:\n  x: {{ uses: shop/{kind}, next: $end }}\n"
        )
    };
    let parent = |order: [&str; 3], gate: bool| {
        let [a, b, c] = order;
        let (to, gate) = if gate {
            ("ask", "  ask: { gate: { ask: \"Go on?\", choices: [ yes ] }, next: c }\n")
        } else {
            ("c", "")
        };
        format!(
            "dsl: 1\ngraph: {{ name: parent, version: 1.0.0 }}\nentry: a\nnodes:\n  a: {{ run: {{ graph: {a} }}, next: b }}\n  b: {{ run: {{ graph: {b} }}, next: {to} }}\n{gate}  c: {{ run: {{ graph: {c} }}, next: $end }}\n"
        )
    };
    let codes = |text: String| {
        let files = Memory::one("p.yaml", text)
            .with("m.yaml", child("mail", "read_mail"))
            .with("k.yaml", child("keys", "accounts"))
            .with("s.yaml", child("post", "send"));
        let loaded =
            check::load_all(&files, &["p.yaml", "m.yaml", "k.yaml", "s.yaml"], &registry());
        loaded
            .into_iter()
            .flat_map(|graph| graph.err().into_iter().flat_map(|defects| defects.list))
            .map(|defect| (defect.file.to_string(), defect.code))
            .collect::<Vec<_>>()
    };
    let refused = [("p.yaml".to_owned(), Code::UnguardedFlow)];
    assert_eq!(codes(parent(["mail", "keys", "post"], false)), refused);
    assert_eq!(codes(parent(["keys", "mail", "post"], false)), refused);
    assert_eq!(codes(parent(["mail", "keys", "post"], true)), []);
    assert_eq!(codes(parent(["mail", "post", "keys"], false)), []);
}

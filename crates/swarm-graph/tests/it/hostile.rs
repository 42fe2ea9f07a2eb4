//! Texts that nobody meant: the loader never panics and soon has an answer.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use swarm_graph::check::{self, Memory};

use crate::shop::{POLICIES, WHOLE, registry};

/// Loads a text; what comes out must print, and a graph must load again.
fn load(text: &str) {
    let sources = Memory::one("g.yaml", text).with("policies.yaml", POLICIES);
    match check::load(&sources, "g.yaml", &registry()) {
        Ok(graph) => {
            let again = check::load_text(graph.text(), &registry());
            assert_eq!(again.map(|again| again.hash().clone()), Ok(graph.hash().clone()));
            assert!(!swarm_graph::dot::svg(&graph).is_empty());
        }
        Err(defects) => {
            assert!(defects.errors() > 0);
            assert!(defects.list.iter().all(|defect| defect.line > 0 && defect.column > 0));
            assert!(!defects.to_string().is_empty());
        }
    }
}

/// What is put into a graph's text to break it.
fn splinter() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "${{",
            "}}",
            "$${{",
            "{",
            "}",
            "[",
            "]",
            ":",
            ": ",
            "\n",
            "\n  ",
            "- ",
            "&a ",
            "*a",
            "!!str ",
            "|",
            "> ",
            "'",
            "\"",
            "#",
            "~",
            "0",
            "-1",
            "1e999",
            ".inf",
            "true",
            "$end",
            "plan",
            "<<: ",
            "\u{0}",
            "\t",
            "\u{2028}",
            "é",
            "🛑",
            "%YAML 9\n---\n",
            "\n---\n",
            "...\n",
            "? ",
            "@",
            "`",
            "state",
            "input.x",
            "99999999999999999999",
            "[[[[[[[[",
            "!!binary ",
            "max: 0",
            "when: ",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

/// The whole graph with a few places cut out, put in, or swapped.
fn broken() -> impl Strategy<Value = String> {
    let cut = (any::<prop::sample::Index>(), 0_usize..40, splinter());
    prop::collection::vec(cut, 1..6).prop_map(|cuts| {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, len, splinter) in cuts {
            let start = at.index(text.len());
            let end = (start + len).min(text.len());
            text.splice(start..end, splinter.chars());
        }
        text.into_iter().collect()
    })
}

/// The whole graph with one line taken out, doubled or moved: mostly still YAML.
fn shuffled() -> impl Strategy<Value = String> {
    let index = any::<prop::sample::Index>;
    prop::collection::vec((index(), index(), 0..3_u8), 1..4).prop_map(|moves| {
        let mut lines: Vec<String> = WHOLE.lines().map(str::to_owned).collect();
        for (from, to, what) in moves {
            let line = lines[from.index(lines.len())].clone();
            match what {
                0 => drop(lines.remove(from.index(lines.len()))),
                1 => lines.insert(to.index(lines.len()), line),
                _ => {
                    let last = lines.len();
                    lines.swap(from.index(last), to.index(last));
                }
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_broken_text_makes_the_loader_panic(text in broken()) {
        load(&text);
    }

    #[test]
    fn no_shuffled_lines_make_the_loader_panic(text in shuffled()) {
        load(&text);
    }

    #[test]
    fn no_text_at_all_makes_the_loader_panic(text in "[\\PC\\n ]{0,400}") {
        load(&text);
    }
}

#[test]
fn bombs_and_deep_nesting_end_quickly_with_a_defect() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        aliases = [aliases, format!("a{level}: &a{level} [{below}]\n")].concat();
    }
    let nested_nodes = format!("nodes: {}{}", "{ a: ".repeat(5000), "}".repeat(5000));
    let many: String =
        (0..6000).map(|n| format!("  n{n}: {{ uses: x, next: n{} }}\n", n + 1)).collect();
    let expression = format!(
        "  start: {{ uses: shop/judge, routes: [ {{ when: \"${{{{ {} }}}}\", to: $end }}, {{ to: $end }} ] }}\n",
        "(".repeat(1900)
    );
    for text in [
        aliases,
        "[".repeat(200_000),
        "{a: ".repeat(50_000),
        "- ".repeat(100_000),
        "? ".repeat(50_000),
        nested_nodes,
        crate::shop::graph(&many),
        crate::shop::graph(&expression),
        "x".repeat(2_000_000),
        "\"".to_owned() + &"\\u0041".repeat(150_000),
        "%".repeat(1000),
        "&a ".repeat(10_000),
    ] {
        let begun = Instant::now();
        load(&text);
        // Generous: debug builds on a busy machine. What must not happen is minutes.
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", &text[..20]);
    }
}

#[test]
fn a_large_graph_loads() {
    let mut nodes: String = (0..400)
        .map(|n| format!("  n{n}: {{ uses: shop/say, set: {{}}, next: [ n{} ] }}\n", n + 1))
        .collect();
    nodes += "  n400: { uses: shop/judge, next: $end }\n";
    let text = crate::shop::graph(&nodes).replace("entry: start", "entry: n0");
    let graph = crate::shop::load(&text).unwrap();
    assert_eq!(graph.nodes().len(), 401);
    assert_eq!(check::load_text(graph.text(), &registry()).unwrap().hash(), graph.hash());
}

//! The pages in `docs/errors/`: each shows a graph that has its defect, exactly what is printed
//! for it, and the graph mended.
//!
//! What is printed and the index are written by these tests when `UPDATE_SCHEMA=1` is set;
//! everything else on a page is written by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use swarm_graph::check::{self, Memory};
use swarm_graph::defect::{Code, Defects};
use swarm_graph::graph::Graph;

use crate::shop::registry;

/// The name of the graph's file on every page.
const FILE: &str = "order.yaml";

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors"))
}

fn is_updating() -> bool {
    std::env::var_os("UPDATE_SCHEMA").is_some()
}

/// What stands in the fence that opens with this line.
fn fenced<'p>(page: &'p str, opening: &str) -> Option<&'p str> {
    let start = page.find(&format!("\n```{opening}\n"))? + opening.len() + 5;
    Some(&page[start..start + page[start..].find("```\n")?])
}

/// The files that lie beside a page's graph, as the page shows them for this case.
fn beside<'p>(page: &'p str, case: &str) -> Vec<(&'p str, &'p str)> {
    let named = page.lines().filter_map(|line| line.strip_prefix("```yaml ")?.split_once(' '));
    named
        .filter(|(word, _)| *word == "beside" || *word == case)
        .map(|(word, name)| (name, fenced(page, &format!("yaml {word} {name}")).unwrap()))
        .collect()
}

/// Loads one of a page's graphs together with those beside it.
fn load(page: &str, case: &str) -> Result<Graph, Defects> {
    let graph = fenced(page, &format!("yaml {case}")).expect("the page has this graph");
    let files = beside(page, case);
    let sources =
        files.iter().fold(Memory::one(FILE, graph), |all, (name, text)| all.with(*name, *text));
    let graphs = files.iter().filter(|(_, text)| text.contains("\ngraph:"));
    let paths: Vec<&str> = [FILE].into_iter().chain(graphs.map(|(name, _)| *name)).collect();
    check::load_all(&sources, &paths, &registry()).swap_remove(0)
}

/// What is printed for a page's refused graph, and the codes in it.
fn printed(page: &str) -> (String, Vec<Code>) {
    match load(page, "refused") {
        Ok(graph) => {
            let warnings = graph.warnings();
            let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            (lines.join("\n\n"), warnings.iter().map(|warning| warning.code).collect())
        }
        Err(defects) => {
            (defects.to_string(), defects.list.iter().map(|defect| defect.code).collect())
        }
    }
}

/// The whole page, with what is printed now.
fn fresh(page: &str) -> String {
    let kept = fenced(page, "text").expect("the page shows what is printed");
    page.replacen(&format!("```text\n{kept}```"), &format!("```text\n{}\n```", printed(page).0), 1)
}

fn read(code: Code) -> String {
    fs::read_to_string(folder().join(format!("{code}.md"))).expect("every code has a page")
}

#[test]
fn every_page_shows_exactly_what_is_printed() {
    for code in Code::ALL {
        let page = read(*code);
        let fresh = fresh(&page);
        if is_updating() {
            fs::write(folder().join(format!("{code}.md")), &fresh).unwrap();
        }
        let (said, codes) = printed(&page);
        assert!(codes.contains(code), "{code}: {said}");
        assert!(
            is_updating() || page == fresh,
            "{code}.md is stale: run this test again with UPDATE_SCHEMA=1\n{said}"
        );
    }
}

#[test]
fn a_page_s_refused_graph_has_one_defect_unless_one_brings_another() {
    for code in Code::ALL {
        let (said, codes) = printed(&read(*code));
        let expected: &[Code] = match code {
            // Whatever never ends goes round.
            Code::NoWayToEnd => &[Code::NoWayToEnd, Code::NoWayToEnd, Code::UnboundedCycle],
            _ => &[*code],
        };
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{said}");
    }
}

#[test]
fn every_mended_graph_loads_without_a_word() {
    for code in Code::ALL {
        match load(&read(*code), "mended") {
            Ok(graph) => assert_eq!(graph.warnings(), [], "{code}"),
            Err(defects) => panic!("{code}: {defects}"),
        }
    }
}

#[test]
fn every_page_opens_with_its_code_and_meaning_and_is_compiled_in() {
    for code in Code::ALL {
        let page = read(*code);
        let opening = format!("# {code}\n\n{}\n\n", code.meaning());
        assert!(page.starts_with(&opening), "{code}.md does not open with:\n{opening}");
        assert!(is_updating() || page == code.page(), "{code}");
        assert_eq!(Code::named(code.as_str()), Some(*code));
    }
    assert_eq!(Code::named("unknown"), None);
}

#[test]
fn no_page_is_left_over() {
    let known: BTreeSet<String> =
        Code::ALL.iter().map(|code| format!("{code}.md")).chain(["README.md".to_owned()]).collect();
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, known);
}

#[test]
fn the_index_lists_every_page() {
    let rows =
        Code::ALL.iter().map(|code| format!("| [`{code}`]({code}.md) | {} |\n", code.meaning()));
    let fresh = format!(
        "# Defects of a graph file\n\n\
         `swarm-host graph check` prints each defect with one of these codes, its place, and what would be right; all of them come at once.\n\
         `swarm-host graph explain CODE` prints the page of a code, which shows a graph that has the defect, what is printed for it, and the graph mended.\n\
         In the examples, `shop/…` are node kinds of a program that embeds the engine.\n\n\
         | Code | Meaning |\n| --- | --- |\n{}",
        rows.collect::<String>()
    );
    let path = folder().join("README.md");
    if is_updating() {
        fs::write(&path, &fresh).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == fresh, "{} is stale: run this test again with UPDATE_SCHEMA=1", path.display());
}

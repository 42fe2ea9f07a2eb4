//! The pages that people read, held to the code where that is cheap.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;
use swarm_core::escalation::Reason;
use swarm_host::cli::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("the page is there")
}

/// Every page in Markdown: those of the root and those of `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [root(), root().join("docs")]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).expect("it is there"))
        .map(|entry| entry.expect("it is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    pages
}

/// Every reason for which a person is needed.
fn reasons() -> Vec<Reason> {
    let schema = schemars::schema_for!(Reason).to_value();
    let one_of = schema["oneOf"].as_array().expect("each reason has words of its own").iter();
    let reasons: Vec<Reason> = one_of
        .map(|one| serde_json::from_value(one["const"].clone()).expect("it is a reason"))
        .collect();
    assert!(reasons.contains(&Reason::Approval));
    reasons
}

#[test]
fn every_reason_has_its_part_in_the_runbook_and_its_row_in_the_design() {
    let (runbook, design) = (read("docs/runbook.md"), read("docs/design.md"));
    for reason in reasons() {
        let name = serde_json::to_value(reason).unwrap();
        let name = name.as_str().unwrap();
        let heading = format!("\n### `{name}`: {}\n", reason.title());
        assert!(runbook.contains(&heading), "{heading}");
        assert!(design.contains(&format!("\n| `{name}` | ")), "{name}");
    }
}

/// The commands in a page: lines of its blocks, and what stands between backticks elsewhere.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            commands.push(line.trim_start_matches("$ ").trim().to_owned());
        } else {
            commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    commands.retain(|text| text.starts_with("swarm-host "));
    commands
}

/// The words of a command, quotes taken off, as far as a comment.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), false);
    for c in command.chars() {
        match c {
            '\'' => quote = !quote,
            '#' if word.is_empty() && !quote => break,
            ' ' if !quote => {
                words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()))
            }
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[test]
fn every_command_in_the_pages_is_one_that_the_program_takes() {
    let mut count = 0;
    for page in pages() {
        for command in commands(&std::fs::read_to_string(&page).unwrap()) {
            if let Err(error) = Cli::try_parse_from(words(&command)) {
                // A command may be spoken of without its arguments, and a group without one of it.
                let is_spoken_of =
                    !error.use_stderr() || error.kind() == ErrorKind::MissingRequiredArgument;
                assert!(is_spoken_of, "{}: `{command}`: {error}", page.display());
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_link_from_one_page_to_a_file_leads_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().expect("a page lies somewhere").join(target);
            assert!(path.exists(), "{}: {target}", page.display());
        }
    }
}

#[test]
fn every_shipped_graph_names_the_schema_of_graphs_and_fits_it() {
    let schema = serde_json::from_str(&read("graphs/swarm-graph.v1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for (name, text) in swarm_host::defaults::GRAPHS {
        // What is only imported, such as policies, is no graph.
        if !text.contains("\ngraph:") {
            continue;
        }
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(first, "# yaml-language-server: $schema=./swarm-graph.v1.schema.json", "{name}");
        let graph: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let errors: Vec<String> = schema
            .iter_errors(&graph)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// The names of all keys that a schema knows, at any depth.
fn keys(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(entries) => {
            if let Some(properties) = entries.get("properties").and_then(|some| some.as_object()) {
                found.extend(properties.keys().cloned());
            }
            entries.values().for_each(|value| keys(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_configuration_is_in_the_example() {
    let example = read("swarm.example.yaml");
    let mut known = BTreeSet::new();
    keys(&swarm_host::config::schema(), &mut known);
    assert!(known.len() > 50, "{known:?}");
    for key in known {
        let is_there = example.match_indices(&format!("{key}:")).any(|(at, _)| {
            !example[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        });
        assert!(is_there, "{key}");
    }
}

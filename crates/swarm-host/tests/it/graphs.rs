//! The shipped graphs and prompts, as they are part of the program.

use serde_json::json;
use swarm_core::escalation::Reason;
use swarm_host::defaults;
use swarm_tools::prompt::Prompts;

use crate::rig::{Rig, Setup, finish, mend, no_findings, one_task};

#[tokio::test]
async fn every_shipped_graph_is_without_a_defect() {
    // The rig loads them all, with the real registry, and fails with every defect at once.
    let rig = Rig::new(Setup::default(), |_| no_findings());
    let mut names = rig.engine.library().names();
    names.sort();
    assert_eq!(names, ["deliver", "dev", "manager", "ops", "reviewer"]);
}

#[test]
fn every_shipped_file_is_part_of_the_program() {
    for (folder, known) in [("graphs", defaults::GRAPHS), ("prompts", defaults::PROMPTS)] {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "yaml" || kind == "md") {
                    found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        let known: Vec<&str> = known.iter().map(|(path, _)| *path).collect();
        assert_eq!(found, known, "{folder}");
    }
}

#[test]
fn every_shipped_prompt_is_without_a_defect() {
    Prompts::embedded(defaults::PROMPTS.iter().copied()).unwrap();
}

#[tokio::test]
async fn a_gate_that_someone_writes_before_push_stops_the_flow_there() {
    let edit = |path: &str, text: &str| {
        if path != "dev.yaml" {
            return text.to_owned();
        }
        let gate = "  may_push:\n    gate: { reason: decision, ask: \"May I push?\", choices: [ retry, stop ] }\n    \
                    routes:\n      - { when: \"${{ answer.choice == 'retry' }}\", to: push }\n      \
                    - { to: $end }\n\n  push:\n";
        let edited = text.replacen("    next: push\n", "    next: may_push\n", 1);
        edited.replacen("  push:\n", gate, 1)
    };
    let setup = Setup { edit, ..Setup::default() };
    let rig = Rig::new(setup, |request| match (request.role.as_str(), request.turn()) {
        ("manager", _) => one_task(),
        ("dev", 0) => mend(),
        ("dev", _) => finish("Add"),
        _ => no_findings(),
    });
    rig.run("The sum is wrong").await;
    assert_eq!(rig.question().await.ask.question, "May I push?");
    assert_eq!(rig.repo.branches(), ["main"]);
    rig.answer(json!({ "choice": "retry" })).await;
    assert_eq!(rig.question().await.ask.reason, Reason::Approval);
    assert_eq!(rig.repo.branches().len(), 2);
}

//! The example as a program, on the demo's repository: from the issue to the merge, with the
//! changelog's line in what is merged. Only the models' words are replayed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Lets the program work on the demo in `dir`, with nothing of this process's configuration.
fn program(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_custom-worker"))
        .args(arguments)
        .current_dir(dir)
        .env("SWARM_DATA_DIR", dir.join("demo/data"))
        .env_remove("SWARM_CONFIG")
        .env_remove("RUST_LOG")
        .output()
        .expect("it starts")
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output();
    let output = output.expect("git is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_merged_change_has_a_line_in_the_changelog_from_a_worker_of_its_own() {
    let dir = TempDir::new().expect("a temporary directory");
    let done = program(dir.path(), &["demo", "--yes", "--dir", "demo"]);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));

    let repository = dir.path().join("demo/tally.git");
    assert_eq!(
        git(&repository, &["show", "main:CHANGELOG.md"]),
        "## Unreleased\n\n- Take the mean of both middle values as the median (#2)\n"
    );
    assert_eq!(
        git(&repository, &["diff", "--name-only", "main^1", "main"]),
        "CHANGELOG.md\nsrc/lib.rs\n"
    );
    assert_eq!(
        git(&repository, &["log", "--format=%s", "main^1..main^2"]),
        "Note #2 in CHANGELOG.md\nTake the mean of both middle values as the median\n"
    );
    // It is a run of its own, on a queue of its own, below the run of the task.
    let runs = program(dir.path(), &["runs", "list", "--all", "--json"]);
    let runs: Vec<serde_json::Value> = serde_json::from_slice(&runs.stdout).expect("JSON");
    let ours: Vec<_> = runs.iter().filter(|run| run["graph"] == "changelog").collect();
    assert_eq!(ours.len(), 1, "{runs:?}");
    assert_eq!(ours[0]["status"], "succeeded", "{runs:?}");
}

#[test]
fn the_changed_graph_is_the_shipped_one_with_the_diff_of_the_readme() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
    let readme = read(&here.join("README.md"));
    let (_, rest) = readme.split_once("```diff\n").expect("the README shows the diff");
    let (diff, _) = rest.split_once("```\n").expect("the diff ends");
    let shipped = swarm_host::defaults::GRAPHS.iter().find(|(name, _)| *name == "deliver.yaml");
    let (_, shipped) = shipped.expect("it is shipped");
    let patch = diffy::Patch::from_str(diff).expect("it is a diff");
    let patched = diffy::apply(shipped, &patch).expect("it fits the shipped graph");
    assert_eq!(patched, read(&here.join("graphs/deliver.yaml")));
}

//! The shipped program with this folder's graphs, on the demo's repository: the question comes
//! before the push. Only the models' words are replayed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for one demo, with the changed graph in its data directory.
struct Demo {
    dir: TempDir,
}

impl Demo {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let graphs = dir.path().join("data/graphs");
        std::fs::create_dir_all(&graphs).expect("writable");
        std::fs::copy(here().join("graphs/dev.yaml"), graphs.join("dev.yaml")).expect("writable");
        Self { dir }
    }

    /// Works on the demo until it rests: the exit code, and the final object.
    fn work(&self) -> (Option<i32>, Value) {
        let output = program(self.dir.path(), &["demo", "--dir", ".", "--json"]).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = said.trim().lines().next_back().unwrap_or_default();
        let last = serde_json::from_str(last).unwrap_or_else(|error| {
            panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code(), last)
    }

    /// What a command says that succeeds.
    fn says(&self, arguments: &[&str]) -> String {
        let output = program(self.dir.path(), arguments).output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The question that is open.
    fn question(&self) -> String {
        let blocks = self.says(&["blocks", "list", "--json"]);
        let blocks: Value = serde_json::from_str(&blocks).expect("JSON");
        assert_eq!(blocks.as_array().map(Vec::len), Some(1), "{blocks}");
        blocks[0]["ask"]["question"].as_str().expect("a question").to_owned()
    }

    fn branches(&self) -> usize {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.dir.path().join("tally.git"))
            .args(["branch", "--list"])
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().count()
    }
}

/// The program, with nothing of this process's configuration.
fn program(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_changed-flow"));
    command.args(arguments).current_dir(dir).env("SWARM_DATA_DIR", dir.join("data"));
    command.env_remove("SWARM_CONFIG").env_remove("RUST_LOG");
    command
}

#[test]
fn the_question_comes_before_the_push_and_the_rest_after_its_answer() {
    let demo = Demo::new();
    let (code, last) = demo.work();
    assert_eq!((code, last["outcome"].as_str()), (Some(3), Some("waiting")), "{last}");
    assert!(demo.question().starts_with("May the branch `devinswarm/"), "{}", demo.question());
    assert_eq!((demo.branches(), &last["pr"]), (1, &Value::Null), "nothing has been pushed");
    let run = last["run"].as_str().expect("a run");
    let events = demo.says(&["runs", "events", run]);
    assert!(events.contains("verify_again"), "the tests were run twice: {events}");

    demo.says(&["answer", "before_push", "--choice", "push"]);
    let (code, last) = demo.work();
    assert_eq!((code, last["pr"].as_u64()), (Some(3), Some(2)), "{last}");
    assert_eq!(demo.branches(), 2, "the branch has been pushed");

    demo.says(&["approve", "#2"]);
    let (code, last) = demo.work();
    assert_eq!((code, last["outcome"].as_str()), (Some(0), Some("merged")), "{last}");
}

#[test]
fn a_stop_at_the_question_ends_the_task_and_nothing_is_pushed() {
    let demo = Demo::new();
    demo.work();
    demo.says(&["answer", "before_push", "--choice", "stop"]);
    let (_, last) = demo.work();
    assert_eq!(last["outcome"].as_str(), Some("stopped"), "{last}");
    assert_eq!(demo.branches(), 1);
}

#[test]
fn the_configuration_of_this_folder_loads_the_changed_graph() {
    let dir = TempDir::new().expect("a temporary directory");
    let config = here().join("swarm.yaml");
    let config = config.to_str().expect("UTF-8");
    let shown = program(dir.path(), &["graph", "show", "dev", "--config", config]).output();
    let shown = shown.expect("it starts");
    assert!(shown.status.success(), "{shown:?}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("before_push"), "{shown:?}");
}

#[test]
fn the_changed_graph_is_the_shipped_one_with_the_diff_of_the_readme() {
    let read = |path: &str| std::fs::read_to_string(here().join(path)).expect("it is there");
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```diff\n").expect("the README shows the diff");
    let (diff, _) = rest.split_once("```\n").expect("the diff ends");
    let shipped = swarm_host::defaults::GRAPHS.iter().find(|(name, _)| *name == "dev.yaml");
    let (_, shipped) = shipped.expect("it is shipped");
    let patch = diffy::Patch::from_str(diff).expect("it is a diff");
    let patched = diffy::apply(shipped, &patch).expect("it fits the shipped graph");
    assert_eq!(patched, read("graphs/dev.yaml"));
}

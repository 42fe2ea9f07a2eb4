//! What the tests of the command line share: the real program in a place of its own, small real
//! repositories, and a model server that follows a script.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use swarm_tools::model::testkit::{ScriptedServer, Step, WireRequest};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// The last line as JSON: the final object.
    pub(crate) fn last(&self) -> Value {
        let line = self.stdout.trim().lines().next_back().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// All of it as one JSON value.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A directory for everything of one test: data, repositories, configuration.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is in the directory")).expect("writable");
        std::fs::write(&path, text).expect("writable");
        path
    }

    /// Lets every role ask `server`, each as a model of its own name.
    pub(crate) fn ask(&self, server: &ScriptedServer) {
        self.ask_with(server, "");
    }

    /// The same, with more of a configuration.
    pub(crate) fn ask_with(&self, server: &ScriptedServer, more: &str) {
        let yaml = format!(
            "\
models:
  default:
    {{ provider: openai, name: default, base_url: '{}', price: {{ input: 1, output: 10 }},
       retries: {{ attempts_max: 2, initial: 1ms, max: 5ms }} }}
  roles: {{ manager: {{ name: manager }}, dev: {{ name: dev }}, reviewer: {{ name: reviewer }} }}
people: {{ owner: owner }}
{more}",
            server.openai_base_url()
        );
        self.write("swarm.yaml", &yaml);
    }

    /// The program, with nothing of this process's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarm-host"));
        for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"]
        {
            command.env_remove(name);
        }
        for name in ["SWARM_MODEL", "SWARM_CONFIG", "RUST_LOG", "XDG_STATE_HOME", "DATABASE_URL"] {
            command.env_remove(name);
        }
        command
            .env("SWARM_DATA_DIR", self.data())
            .env("OPENAI_API_KEY", "sk-test")
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0")
            .current_dir(self.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments).spawn().expect("it starts")).await
    }

    /// A bare git repository with one commit of these files on `main`.
    pub(crate) fn repository(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let work = self.path().join(format!("{name}.work"));
        for (path, text) in files {
            self.write(&format!("{name}.work/{path}"), text);
        }
        let bare = self.path().join(format!("{name}.git"));
        let bare_text = bare.to_str().expect("UTF-8");
        git(&work, &["init", "--quiet", "--initial-branch=main"]);
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--message=Begin"]);
        git(&work, &["clone", "--quiet", "--bare", ".", bare_text]);
        bare
    }
}

pub(crate) async fn finish(child: Child) -> Done {
    let output = child.wait_with_output().await.expect("it ends");
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What git says in `dir`, without anyone's configuration.
pub(crate) fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=Someone", "-c", "user.email=someone@example.org"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git is installed");
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The plan that the scripts' manager makes.
pub(crate) fn plan() -> Step {
    Step::json(json!({
        "summary": "Mend it.", "ambiguous": false, "questions": [],
        "tasks": [{
            "id": "t1", "title": "Mend the sum", "goal": "Make the failing test pass.",
            "acceptance": ["the tests pass"], "files": []
        }]
    }))
}

/// The review that the scripts' reviewer writes.
pub(crate) fn review() -> Step {
    Step::json(json!({ "summary": "It does what the task asks.", "findings": [] }))
}

/// The call that ends the developer's work.
pub(crate) fn done() -> Step {
    Step::tool(
        "finish",
        json!({ "summary": "The sum is a sum again.", "commit_title": "Mend the sum" }),
    )
}

/// A server on which manager and reviewer do their work, and the developer follows `dev`.
pub(crate) async fn server(
    dev: impl Fn(&WireRequest) -> Step + Send + Sync + 'static,
) -> ScriptedServer {
    ScriptedServer::start(Box::new(move |request: &WireRequest| match request.model() {
        "manager" => plan(),
        "reviewer" => review(),
        _ => dev(request),
    }))
    .await
}

/// The developer who makes one edit, runs a command and is done.
pub(crate) fn one_edit(
    path: &'static str,
    old: &'static str,
    new: &'static str,
    test: &'static str,
) -> impl Fn(&WireRequest) -> Step + Send + Sync + 'static {
    move |request| match request.turn() {
        0 => Step::tool("read", json!({ "path": path })),
        1 => Step::tool("edit", json!({ "path": path, "old_text": old, "new_text": new })),
        2 => Step::tool("shell", json!({ "command": test })),
        _ => done(),
    }
}

/// A Python repository whose only test fails.
pub(crate) const PYTHON: &[(&str, &str)] = &[
    ("sums.py", "def add(a, b):\n    return a - b\n"),
    (
        "test_sums.py",
        "import unittest\n\nfrom sums import add\n\n\nclass Sums(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(2, 3), 5)\n",
    ),
    (".gitignore", "__pycache__/\n"),
];

/// The developer who mends [`PYTHON`].
pub(crate) fn mend_python() -> impl Fn(&WireRequest) -> Step + Send + Sync + 'static {
    one_edit("sums.py", "return a - b", "return a + b", "python3 -m unittest")
}

/// A Rust repository whose only test fails.
pub(crate) const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", "[package]\nname = \"sums\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
    (
        "src/lib.rs",
        "pub fn add(a: i32, b: i32) -> i32 {\n    a - b\n}\n\n#[test]\nfn two_and_three_are_five() {\n    assert_eq!(add(2, 3), 5);\n}\n",
    ),
    (".gitignore", "/target\n"),
];

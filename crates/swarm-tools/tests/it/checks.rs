//! Checks of real repositories, run for real: no network, no canned output.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stdout, reason = "a test says aloud what it skips")]

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use swarm_core::port::sandbox::{Command, Error, Exit, Finished, Level, Limits, Network, Sandbox};
use swarm_tools::checks::{
    Cause, Check, ChecksConfig, ConfiguredCheck, Counts, Kind, Options, Outcome, Report, compare,
    detect_at, run,
};
use tempfile::TempDir;

use crate::toolbox_sandbox::{Missing, sandbox};

fn repository(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    dir
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn found(dir: &TempDir) -> Vec<Check> {
    detect_at(dir.path(), &ChecksConfig::default()).unwrap()
}

/// A check a line: kind, name, command, why.
fn listed(dir: &TempDir) -> String {
    let line = |check: &Check| {
        format!("{:?} {}: {} ({})", check.kind, check.name, check.argv.join(" "), check.why)
    };
    found(dir).iter().map(line).collect::<Vec<_>>().join("\n")
}

fn the(dir: &TempDir, kind: Kind) -> Check {
    let mut checks = found(dir);
    checks.retain(|check| check.kind == kind);
    assert_eq!(checks.len(), 1, "{checks:?}");
    checks.remove(0)
}

async fn ran(dir: &TempDir, check: &Check) -> Report {
    run(check, sandbox().as_ref(), dir.path(), &Options::default()).await
}

fn counts(passed: u64, failed: u64, skipped: u64) -> Option<Counts> {
    Some(Counts { passed, failed, skipped })
}

fn names(report: &Report) -> Vec<&str> {
    report.failures.iter().map(|failure| failure.name.as_str()).collect()
}

const CARGO: &str =
    "[package]\nname = \"demo\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n";

#[tokio::test]
async fn a_rust_repository_is_tested_before_and_after() {
    let lib = "pub fn add(a: i32, b: i32) -> i32 {\n    a - b\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn adds() {\n        assert_eq!(super::add(1, 2), 3);\n    }\n\n    #[test]\n    fn adds_nothing() {\n        assert_eq!(super::add(1, 0), 1);\n    }\n}\n";
    let dir = repository(&[("Cargo.toml", CARGO), ("src/lib.rs", lib)]);
    let test = found(&dir).into_iter().find(|check| check.kind == Kind::Test).unwrap();
    assert_eq!(test.name, "cargo test");
    let before = ran(&dir, &test).await;
    assert_eq!(before.outcome, Outcome::Failed, "{before:?}");
    assert_eq!(before.exit, Some(Exit::Code(101)));
    assert_eq!(before.counts, counts(1, 1, 0));
    assert_eq!(names(&before), ["tests::adds"]);
    let failure = &before.failures[0];
    assert_eq!((failure.file.as_deref(), failure.line), (Some("src/lib.rs"), Some(9)));
    assert!(failure.message.contains("left: -1"), "{failure:?}");

    write(dir.path(), "src/lib.rs", &lib.replace("a - b", "a + b"));
    let after = ran(&dir, &test).await;
    assert_eq!((&after.outcome, after.counts), (&Outcome::Passed, counts(2, 0, 0)));
    let comparison = compare(&[before], &[after]);
    assert_eq!(comparison.fixed[0].test.as_deref(), Some("tests::adds"));
    assert!(!comparison.is_worse() && comparison.still_failing.is_empty());

    // What cargo makes is no part of the change.
    assert_eq!(std::fs::read_to_string(dir.path().join("target/.gitignore")).unwrap(), "*\n");
    assert!(!dir.path().join("Cargo.lock").exists());
}

#[tokio::test]
async fn rust_that_does_not_compile_fails_with_what_the_compiler_says() {
    let dir = repository(&[("Cargo.toml", CARGO), ("src/lib.rs", "fn x() -> u8 { \"\" }\n")]);
    let test = found(&dir).into_iter().find(|check| check.kind == Kind::Test).unwrap();
    let report = ran(&dir, &test).await;
    assert_eq!((&report.outcome, report.counts), (&Outcome::Failed, None));
    assert!(report.tail.contains("mismatched types"), "{}", report.tail);
}

#[tokio::test]
async fn rust_without_a_test_is_no_success() {
    let dir = repository(&[("Cargo.toml", CARGO), ("src/lib.rs", "pub fn x() {}\n")]);
    let test = found(&dir).into_iter().find(|check| check.kind == Kind::Test).unwrap();
    let report = ran(&dir, &test).await;
    assert_eq!((report.exit, report.outcome), (Some(Exit::Code(0)), Outcome::NoTests));
}

#[tokio::test]
async fn rust_linters_find_file_and_line() {
    let lib = "pub fn x(v: &[u8]) -> bool {\n    v.len() == 0\n}\n\nfn  unused() {}\n";
    let dir = repository(&[("Cargo.toml", CARGO), ("src/lib.rs", lib)]);
    let mut lines = Vec::new();
    for check in found(&dir).iter().filter(|check| check.kind == Kind::Lint) {
        let report = ran(&dir, check).await;
        if matches!(report.outcome, Outcome::Skipped { .. }) {
            println!("skipped: {report:?}");
            continue;
        }
        assert_eq!(report.outcome.passed(), check.name == "cargo clippy", "{report:?}");
        assert!(!report.tail.starts_with('{'), "{}", report.tail);
        lines.extend(
            report.findings.into_iter().map(|f| format!("{}:{} {}", f.path, f.line, f.rule)),
        );
    }
    assert_eq!(
        lines,
        ["src/lib.rs:5 dead_code", "src/lib.rs:2 clippy::len_zero", "src/lib.rs:2 rustfmt"]
            .map(|line| line.replace("src/lib.rs:2 rustfmt", &rustfmt_line(&lines)))
    );
}

/// rustfmt begins a difference some lines before it, and which depends on its version.
fn rustfmt_line(lines: &[String]) -> String {
    lines
        .iter()
        .find(|line| line.starts_with("src/lib.rs:") && line.ends_with(" rustfmt"))
        .unwrap()
        .clone()
}

#[tokio::test]
async fn python_is_tested_by_unittest_without_pytest() {
    let test = "import unittest\nfrom calc import add\n\n\nclass Adds(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n\n    @unittest.skip('later')\n    def test_later(self):\n        pass\n";
    for directory in ["", "tests/", "pkg_tests/"] {
        let directory = if directory == "pkg_tests/" { "tests/" } else { directory };
        let dir = repository(&[
            ("calc.py", "def add(a, b):\n    return a - b\n"),
            (&format!("{directory}test_calc.py"), test),
        ]);
        let mut check = the(&dir, Kind::Test);
        // The way of a machine without pytest, whatever this one has.
        check.probe = vec!["false".to_owned()];
        check.fallbacks.retain(|way| way.argv.contains(&"unittest".to_owned()));
        let before = ran(&dir, &check).await;
        assert_eq!(
            (&before.outcome, before.counts),
            (&Outcome::Failed, counts(0, 1, 1)),
            "{before:?}"
        );
        let failure = &before.failures[0];
        assert!(failure.name.starts_with("test_add "), "{failure:?}");
        assert_eq!(failure.file.as_deref(), Some(format!("{directory}test_calc.py").as_str()));
        assert_eq!((failure.line, failure.message.as_str()), (Some(7), "AssertionError: -1 != 3"));
        write(dir.path(), "calc.py", "def add(a, b):\n    return a + b\n");
        let after = ran(&dir, &check).await;
        assert_eq!(
            (&after.outcome, after.counts),
            (&Outcome::Passed, counts(1, 0, 1)),
            "{after:?}"
        );
        assert_eq!(compare(&[before], &[after]).fixed.len(), 1);
        assert!(!dir.path().join("__pycache__").exists(), "no litter");
    }
}

#[tokio::test]
async fn unittest_that_finds_nothing_is_no_success() {
    let dir = repository(&[("test_calc.py", "x = 1\n")]);
    let mut check = the(&dir, Kind::Test);
    check.probe = vec!["false".to_owned()];
    check.fallbacks.retain(|way| way.argv.contains(&"unittest".to_owned()));
    assert_eq!(ran(&dir, &check).await.outcome, Outcome::NoTests);
}

#[tokio::test]
async fn pytest_is_run_where_it_is_configured() {
    let test = "from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n\n\ndef test_zero():\n    assert add(1, 0) == 1\n";
    let dir = repository(&[
        ("calc.py", "def add(a, b):\n    return a - b\n"),
        ("pytest.ini", "[pytest]\n"),
        ("test_calc.py", test),
    ]);
    let check = the(&dir, Kind::Test);
    let before = ran(&dir, &check).await;
    if let Outcome::Broken { cause, why } = &before.outcome {
        // Never unittest instead: what is configured is what counts.
        assert_eq!(*cause, Cause::MissingTool);
        assert!(why.starts_with("`pytest` is not available in the sandbox"), "{why}");
        assert_eq!(before.failure().unwrap().class, "missing_tool");
        println!("pytest is not installed: only its absence was tested");
        return;
    }
    assert_eq!((&before.outcome, before.counts), (&Outcome::Failed, counts(1, 1, 0)), "{before:?}");
    assert_eq!(names(&before), ["test_calc.py::test_add"]);
    assert_eq!(before.failures[0].line, Some(5));
    write(dir.path(), "calc.py", "def add(a, b):\n    return a + b\n");
    assert_eq!(ran(&dir, &check).await.outcome, Outcome::Passed);
    write(dir.path(), "test_calc.py", "");
    let none = ran(&dir, &check).await;
    assert_eq!((none.exit, none.outcome), (Some(Exit::Code(5)), Outcome::NoTests));
}

const NODE_TEST: &str = "const test = require('node:test');\nconst assert = require('node:assert');\nconst { add } = require('../calc.js');\n\ntest('adds', () => {\n  assert.strictEqual(add(1, 2), 3);\n});\n\ntest('adds nothing', () => {\n  assert.strictEqual(add(1, 0), 1);\n});\n";

#[tokio::test]
async fn javascript_is_tested_by_node_or_by_its_script() {
    let package = r#"{"name": "demo", "scripts": {"test": "node --test"}}"#;
    for (package, name) in [(Some(package), "npm test"), (None, "node --test")] {
        let dir = repository(&[
            ("calc.js", "exports.add = (a, b) => a - b;\n"),
            ("test/calc.test.js", NODE_TEST),
        ]);
        if let Some(package) = package {
            write(dir.path(), "package.json", package);
        }
        let check = the(&dir, Kind::Test);
        assert_eq!(check.name, name);
        let before = ran(&dir, &check).await;
        assert_eq!(
            (&before.outcome, before.counts),
            (&Outcome::Failed, counts(1, 1, 0)),
            "{before:?}"
        );
        let failure = &before.failures[0];
        assert_eq!(failure.name, "adds", "{before:?}");
        assert_eq!(failure.file.as_deref(), Some("test/calc.test.js"), "{before:?}");
        write(dir.path(), "calc.js", "exports.add = (a, b) => a + b;\n");
        let after = ran(&dir, &check).await;
        assert_eq!(
            (&after.outcome, after.counts),
            (&Outcome::Passed, counts(2, 0, 0)),
            "{after:?}"
        );
        assert_eq!(compare(&[before], &[after]).fixed[0].test.as_deref(), Some("adds"));
    }
}

#[tokio::test]
async fn a_script_that_runs_no_test_is_no_success() {
    let dir = repository(&[("package.json", r#"{"scripts": {"test": "node --test"}}"#)]);
    let report = ran(&dir, &the(&dir, Kind::Test)).await;
    assert_eq!(report.outcome, Outcome::NoTests, "{report:?}");
}

#[tokio::test]
async fn a_makefile_is_believed_by_its_exit_code_alone() {
    let make = "test:\n\t@echo 'test result: ok. 9 passed; 0 failed; 0 ignored'; exit 1\n\nlint:\n\t@echo 'src/a.c:3:5: warning: unused'\n";
    let dir = repository(&[("Makefile", make)]);
    let report = ran(&dir, &the(&dir, Kind::Test)).await;
    assert_eq!((report.exit, &report.outcome), (Some(Exit::Code(2)), &Outcome::Failed));
    write(dir.path(), "Makefile", "test:\n\t@echo 'FAILED (failures=3)'\n");
    let report = ran(&dir, &the(&dir, Kind::Test)).await;
    assert_eq!((&report.outcome, report.counts), (&Outcome::Passed, None));
}

#[tokio::test]
async fn a_linters_findings_are_read_from_a_makefile() {
    let dir =
        repository(&[("Makefile", "lint:\n\t@echo './src/a.c:3:5: warning: unused'; exit 1\n")]);
    let report = ran(&dir, &the(&dir, Kind::Lint)).await;
    assert_eq!(report.outcome, Outcome::Failed);
    let finding = &report.findings[0];
    assert_eq!(
        (finding.path.as_str(), finding.line, finding.message.as_str()),
        ("src/a.c", 3, "unused")
    );
}

#[tokio::test]
async fn a_missing_linter_is_skipped_and_a_missing_runner_is_not() {
    let dir =
        repository(&[("ruff.toml", ""), ("Makefile", "test:\n\t@no-such-program-anywhere\n")]);
    let mut lint = the(&dir, Kind::Lint);
    lint.argv[0] = "no-such-linter".to_owned();
    lint.fallbacks.clear();
    let report = ran(&dir, &lint).await;
    insta::assert_json_snapshot!(report.outcome, @r#"
    {
      "is": "skipped",
      "why": "`no-such-linter` is not available in the sandbox"
    }
    "#);
    let mut test = the(&dir, Kind::Test);
    let script = ran(&dir, &test).await;
    assert_eq!(script.outcome, Outcome::Failed, "make itself is there: {script:?}");
    test.argv[0] = "no-such-runner".to_owned();
    let report = ran(&dir, &test).await;
    assert_eq!(report.failure().unwrap().class, "missing_tool");
    insta::assert_snapshot!(report.failure().unwrap(), @"missing_tool: `make test`: `no-such-runner` is not available in the sandbox: install it on the host, in a directory of PATH");
}

#[tokio::test]
async fn a_check_that_does_not_end_is_broken() {
    let dir = repository(&[("Makefile", "test:\n\t@echo begun; exec sleep 600\n")]);
    let options =
        Options { limits: Limits { wall_secs: 1, ..Limits::default() }, ..Options::default() };
    let report = run(&the(&dir, Kind::Test), sandbox().as_ref(), dir.path(), &options).await;
    assert!(matches!(report.outcome, Outcome::Broken { cause: Cause::TimedOut, .. }), "{report:?}");
    assert_eq!(report.failure().unwrap().class, "timeout");
    assert_eq!(report.tail, "begun");
}

#[tokio::test]
async fn without_a_sandbox_nothing_is_run() {
    let dir = repository(&[("Makefile", "test:\n\ttouch ran\n")]);
    let report = run(&the(&dir, Kind::Test), &Missing, dir.path(), &Options::default()).await;
    assert_eq!(report.failure().unwrap().class, "sandbox_unavailable");
    assert!(!dir.path().join("ran").exists());
}

/// Passes commands on, and keeps what each could reach.
struct Recording(Mutex<Vec<(String, Network)>>);

#[async_trait]
impl Sandbox for Recording {
    fn level(&self) -> Result<Level, Error> {
        sandbox().level()
    }

    async fn run(&self, command: Command) -> Result<Finished, Error> {
        let line = command.argv.join(" ");
        self.0.lock().unwrap().push((line, command.network));
        sandbox().run(command).await
    }
}

#[tokio::test]
async fn only_a_set_up_can_have_the_network_and_only_by_policy() {
    let dir = repository(&[("x", "")]);
    let command = |word: &str| {
        vec![ConfiguredCheck {
            name: None,
            argv: vec!["echo".to_owned(), word.to_owned()],
            dir: ".".to_owned(),
        }]
    };
    let config = ChecksConfig {
        setup: Some(command("setup")),
        tests: Some(command("test")),
        linters: Some(command("lint")),
    };
    for policy in [Network::None, Network::Host] {
        let recording = Recording(Mutex::default());
        let options = Options { setup_network: policy, ..Options::default() };
        for check in detect_at(dir.path(), &config).unwrap() {
            run(&check, &recording, dir.path(), &options).await;
        }
        let mut commands = recording.0.into_inner().unwrap();
        commands.retain(|(line, _)| line.starts_with("echo"));
        let of = |word: &str| (format!("echo {word}"), Network::None);
        assert_eq!(commands, [("echo setup".to_owned(), policy), of("test"), of("lint")]);
    }
}

#[tokio::test]
async fn a_script_whose_program_is_missing_is_broken_or_as_a_linter_skipped() {
    let package = r#"{"scripts": {"test": "no-such-jest", "lint": "no-such-eslint"}}"#;
    let dir = repository(&[("package.json", package)]);
    let test = ran(&dir, &the(&dir, Kind::Test)).await;
    assert_eq!(test.failure().unwrap().class, "missing_tool", "{test:?}");
    let lint = ran(&dir, &the(&dir, Kind::Lint)).await;
    assert!(matches!(lint.outcome, Outcome::Skipped { .. }), "{lint:?}");
}

#[tokio::test]
async fn a_set_up_that_cannot_install_is_told_and_not_fatal() {
    let dir = repository(&[
        ("pyproject.toml", "[project]\nname = \"demo\"\nversion = \"1\"\ndependencies = []\n"),
        (
            "test_a.py",
            "import unittest\n\nclass T(unittest.TestCase):\n    def test_a(self):\n        pass\n",
        ),
    ]);
    let setup = the(&dir, Kind::Setup);
    let mut offline = setup.clone();
    offline.argv = vec![
        "sh".to_owned(),
        "-c".to_owned(),
        "mkdir .venv; echo no network >&2; exit 1".to_owned(),
    ];
    let report = ran(&dir, &offline).await;
    assert_eq!((&report.outcome, report.tail.as_str()), (&Outcome::Failed, "no network"));
    assert_eq!(std::fs::read_to_string(dir.path().join(".venv/.gitignore")).unwrap(), "*\n");
    // The tests run without what could not be installed.
    assert_eq!(ran(&dir, &the(&dir, Kind::Test)).await.outcome, Outcome::Passed);
}

#[tokio::test]
async fn python_linters_find_file_line_and_rule() {
    let dir = repository(&[
        ("ruff.toml", ""),
        (".flake8", "[flake8]\n"),
        ("src/a.py", "x = 1\nimport os\n"),
    ]);
    for check in found(&dir) {
        let report = ran(&dir, &check).await;
        if let Outcome::Skipped { why } = &report.outcome {
            assert!(why.contains(&check.name), "{why}");
            println!("{} is not installed: only its absence was tested", check.name);
            continue;
        }
        assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
        let found = report.findings.iter().find(|finding| finding.rule == "F401").unwrap();
        assert_eq!((found.path.as_str(), found.line), ("src/a.py", 2), "{report:?}");
        assert!(found.message.contains("imported but unused"), "{found:?}");
    }
}

#[test]
fn what_files_say_is_what_is_found() {
    let rust = repository(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n"),
        ("Cargo.lock", "[[package]]\nname = \"x\"\nsource = \"registry\"\n"),
        (".config/nextest.toml", ""),
    ]);
    insta::assert_snapshot!(listed(&rust), @"
    Setup cargo fetch: cargo fetch --locked (Cargo.toml)
    Test cargo nextest: cargo nextest run --no-fail-fast --workspace (.config/nextest.toml)
    Lint cargo clippy: cargo clippy --all-targets --message-format=json --workspace (Cargo.toml)
    Lint cargo fmt: cargo fmt --all --check (Cargo.toml)
    ");
    let node = repository(&[
        (
            "package.json",
            r#"{"scripts": {"test": "jest", "lint": "eslint ."}, "devDependencies": {"jest": "1"}}"#,
        ),
        ("yarn.lock", ""),
    ]);
    insta::assert_snapshot!(listed(&node), @"
    Setup yarn install: yarn install --frozen-lockfile (package.json has dependencies)
    Test yarn test: yarn test (package.json has the script `test`: jest)
    Lint yarn run lint: yarn run lint (package.json has the script `lint`: eslint .)
    ");
    let npm = repository(&[
        (
            "package.json",
            r#"{"scripts": {"test": "echo \"Error: no test specified\" && exit 1"}, "dependencies": {"x": "1"}}"#,
        ),
        ("package-lock.json", "{}"),
        ("src/a.test.mjs", ""),
        ("eslint.config.js", ""),
    ]);
    insta::assert_snapshot!(listed(&npm), @"
    Setup npm ci: npm ci --no-audit --no-fund (package.json has dependencies)
    Test node --test: node --test (package.json and test files)
    Lint eslint: node_modules/.bin/eslint --format json . (eslint.config.js)
    ");
    let python = repository(&[
        (
            "pyproject.toml",
            "[project]\nname = \"x\"\n[project.optional-dependencies]\ntest = [\"pytest>=8\"]\n[tool.ruff]\n",
        ),
        ("requirements-dev.txt", "mock\n"),
        ("setup.cfg", "[flake8]\n"),
    ]);
    insta::assert_snapshot!(listed(&python), @"
    Setup pip install: sh -c python3 -m venv --system-site-packages .venv && .venv/bin/python -m pip install -r ./requirements-dev.txt -e '.[test]' pytest (a Python package)
    Test pytest: .venv/bin/python -m pytest (pyproject.toml names pytest)
    Lint ruff: .venv/bin/ruff check --output-format concise . (pyproject.toml)
    Lint flake8: .venv/bin/python -m flake8 --exclude=.venv (setup.cfg)
    ");
    let go = repository(&[
        ("go.mod", "module x\n\nrequire y v1.0.0\n"),
        ("Makefile", "test: build\n\tgo test\nbuild:\n"),
    ]);
    insta::assert_snapshot!(listed(&go), @"
    Setup go mod download: go mod download (go.mod)
    Test go test: go test -v ./... (go.mod)
    Lint go vet: go vet ./... (go.mod)
    ");
    let make = repository(&[
        ("Makefile", "CHECK := x\n.PHONY: test\ncheck lint: all\n"),
        (".pre-commit-config.yaml", "repos: []\n"),
    ]);
    let listed = listed(&make);
    assert!(listed.starts_with("Test make check: make check (Makefile has the target `check`)\nLint make lint: make lint"), "{listed}");
    assert!(listed.contains("Lint pre-commit: "), "{listed}");
}

#[test]
fn a_repository_without_tests_has_none() {
    assert_eq!(found(&repository(&[("README.md", "hello")])), []);
    let deep = repository(&[
        ("web/package.json", r#"{"scripts": {"test": "node --test"}}"#),
        ("api/go.mod", "module x\n"),
        ("node_modules/x/package.json", r#"{"scripts": {"test": "node --test"}}"#),
    ]);
    let names: Vec<String> = found(&deep).into_iter().map(|check| check.name).collect();
    assert_eq!(names, ["go test (api)", "npm test (web)", "go vet (api)"]);
}

#[tokio::test]
async fn a_check_in_a_directory_names_files_from_the_root() {
    let dir = repository(&[
        ("web/package.json", r#"{"scripts": {"test": "node --test"}}"#),
        ("web/calc.js", "exports.add = (a, b) => a - b;\n"),
        ("web/test/calc.test.js", NODE_TEST),
    ]);
    let report = ran(&dir, &the(&dir, Kind::Test)).await;
    assert_eq!(report.failures[0].file.as_deref(), Some("web/test/calc.test.js"), "{report:?}");
}

#[tokio::test]
async fn the_configuration_wins() {
    let dir = repository(&[("Cargo.toml", CARGO), ("sub/x", "")]);
    let config = ChecksConfig {
        tests: Some(vec![ConfiguredCheck {
            name: None,
            argv: vec!["sh".to_owned(), "-c".to_owned(), "test -e x".to_owned()],
            dir: "sub".to_owned(),
        }]),
        linters: Some(Vec::new()),
        setup: None,
    };
    let checks = detect_at(dir.path(), &config).unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["cargo fetch", "sh -c test -e x (sub)"]);
    let report = ran(&dir, &checks[1]).await;
    assert_eq!((&report.outcome, report.command.as_str()), (&Outcome::Passed, "sh -c 'test -e x'"));
    let yaml = serde_json::json!({"tests": [{"argv": ["true"]}], "linterz": []});
    assert!(serde_json::from_value::<ChecksConfig>(yaml).is_err());
}

#[test]
fn reports_and_checks_survive_being_stored() {
    let dir = repository(&[("Cargo.toml", CARGO)]);
    let checks = found(&dir);
    let stored = serde_json::to_value(&checks).unwrap();
    assert_eq!(serde_json::from_value::<Vec<Check>>(stored).unwrap(), checks);
    let schema = schemars::schema_for!(Report);
    assert!(jsonschema::validator_for(schema.as_value()).is_ok());
}

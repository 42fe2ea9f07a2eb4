//! The tools as a model meets them: answers, and errors that help.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::port::sandbox;
use swarm_core::port::tool::ToolResult;
use swarm_tools::toolbox::control::{self, AskPerson, Finish};
use swarm_tools::toolbox::{Access, Limits, Toolbox};
use tempfile::TempDir;

use crate::toolbox_sandbox::{self, sandbox};

/// A workspace in a directory of its own, with something beside it that no tool may reach.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) toolbox: Toolbox,
}

impl Bench {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, Limits::default(), &[])
    }

    pub(crate) fn with(files: &[(&str, &str)], limits: Limits, forbidden: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("ws")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret.txt"), "SECRET\n").unwrap();
        let root = dir.path().join("ws");
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let forbidden: Vec<String> = forbidden.iter().map(|&glob| glob.to_owned()).collect();
        let toolbox =
            Toolbox::new(&root, Access::ReadWrite, sandbox(), limits, &forbidden).unwrap();
        Self { dir, toolbox }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("ws")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> ToolResult {
        self.toolbox.call(name, arguments).await.unwrap()
    }

    pub(crate) async fn ok(&self, name: &str, arguments: Value) -> String {
        let result = self.call(name, arguments).await;
        assert!(!result.is_error, "{}", result.text);
        result.text
    }

    pub(crate) async fn refused(&self, name: &str, arguments: Value) -> String {
        let result = self.call(name, arguments).await;
        assert!(result.is_error, "{}", result.text);
        result.text
    }

    /// Everything in the workspace, files with their content.
    pub(crate) fn snapshot(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        gather(&self.root(), &self.root(), &mut found);
        found.sort();
        found
    }
}

fn gather(root: &Path, dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() && !path.is_symlink() {
            gather(root, &path, found);
        } else {
            found.push((name, std::fs::read_to_string(&path).unwrap_or_default()));
        }
    }
}

#[tokio::test]
async fn a_read_only_toolbox_can_only_look() {
    let dir = tempfile::tempdir().unwrap();
    let make =
        |access| Toolbox::new(dir.path(), access, sandbox(), Limits::default(), &[]).unwrap();
    let look = make(Access::ReadOnly);
    assert_eq!(look.names().collect::<Vec<_>>(), ["read", "list", "search"]);
    let all = make(Access::ReadWrite);
    assert_eq!(
        all.names().collect::<Vec<_>>(),
        ["read", "list", "search", "write", "edit", "apply_patch", "shell"]
    );
    for toolbox in [&look, &all] {
        for name in toolbox.names() {
            let mutates = !["read", "list", "search"].contains(&name);
            assert_eq!(toolbox.get(name).unwrap().mutates(), mutates, "{name}");
        }
    }
    let result = look.call("write", json!({"path": "a", "content": ""})).await.unwrap();
    assert!(result.is_error && !dir.path().join("a").exists());
}

#[test]
fn every_schema_stands_alone_and_is_closed() {
    let bench = Bench::new(&[]);
    let specs =
        bench.toolbox.specs().into_iter().chain([control::finish_spec(), control::ask_spec()]);
    for spec in specs {
        let text = spec.arguments.to_string();
        assert!(!text.contains("$ref") && !text.contains("$defs"), "{text}");
        assert_eq!(spec.arguments["type"], "object", "{}", spec.name);
        assert_eq!(spec.arguments["additionalProperties"], false, "{}", spec.name);
        assert!(jsonschema::validator_for(&spec.arguments).is_ok(), "{}", spec.name);
        for (name, property) in spec.arguments["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{}.{name}", spec.name);
        }
    }
}

#[test]
fn control_calls_are_read_as_their_schema_says() {
    let finish = json!({"summary": "s", "commit_title": "t"});
    assert!(jsonschema::is_valid(&control::finish_spec().arguments, &finish));
    assert_eq!(serde_json::from_value::<Finish>(finish).unwrap().commit_body, "");
    let ask = json!({
        "reason": "missing_secret",
        "question": "which key?",
        "requested_input": [{"kind": "secret", "name": "K", "create_at": "https://x", "scopes": ["r"], "paste_into": "settings"}]
    });
    assert!(jsonschema::is_valid(&control::ask_spec().arguments, &ask));
    assert_eq!(serde_json::from_value::<AskPerson>(ask).unwrap().requested_input.len(), 1);
    let forged = json!({"reason": "approval", "question": "?"});
    assert!(!jsonschema::is_valid(&control::ask_spec().arguments, &forged));
}

#[tokio::test]
async fn calls_that_do_not_fit_say_what_would() {
    let bench = Bench::new(&[("a.txt", "a\n")]);
    insta::assert_snapshot!(bench.refused("raed", json!({})).await, @"there is no tool `raed`, perhaps `read`; known: read, list, search, write, edit, apply_patch, shell");
    insta::assert_snapshot!(bench.refused("read", json!({})).await, @"the arguments do not fit: missing field `path`");
    insta::assert_snapshot!(bench.refused("read", json!({"path": "a.txt", "lines": 3})).await, @"the arguments do not fit: unknown field `lines`, expected one of `path`, `start_line`, `end_line`");
    insta::assert_snapshot!(bench.refused("shell", json!("ls")).await, @r#"the arguments do not fit: invalid type: string "ls", expected struct Shell"#);
}

#[tokio::test]
async fn a_file_is_read_with_numbers_and_in_parts() {
    let limits = Limits { read_lines: 3, line_chars: 8, ..Limits::default() };
    let bench =
        Bench::with(&[("a.txt", "one\r\ntwo\r\nthree\r\nfour four four\r\nfive")], limits, &[]);
    insta::assert_snapshot!(bench.ok("read", json!({"path": "a.txt"})).await, @"
    a.txt: lines 1 to 3 of 5, line endings CRLF (kept by the editing tools)
         1	one
         2	two
         3	three
    (2 more lines: go on with start_line 4)
    ");
    insta::assert_snapshot!(bench.ok("read", json!({"path": "./a.txt", "start_line": 4})).await, @"
    a.txt: lines 4 to 5 of 5, line endings CRLF (kept by the editing tools), no newline at the end
         4	four fou … (6 more characters)
         5	five
    ");
    insta::assert_snapshot!(bench.refused("read", json!({"path": "a.txt", "start_line": 9})).await, @"`a.txt` has 5 lines; there is no line 9");
    insta::assert_snapshot!(bench.refused("read", json!({"path": "a.txt", "start_line": 3, "end_line": 2})).await, @"the last line (2) is before the first (3)");
}

#[tokio::test]
async fn what_is_not_there_is_answered_with_what_is() {
    let bench =
        Bench::new(&[("src/main.rs", "fn main() {}\n"), ("src/lib.rs", ""), ("README.md", "")]);
    insta::assert_snapshot!(bench.refused("read", json!({"path": "src/mian.rs"})).await, @"there is no `src/mian.rs`, perhaps `src/main.rs`; `src` holds: lib.rs, main.rs");
    insta::assert_snapshot!(bench.refused("read", json!({"path": "scr/main.rs"})).await, @"there is no `scr/main.rs`, perhaps `src`; `.` holds: README.md, src");
    insta::assert_snapshot!(bench.refused("read", json!({"path": "src"})).await, @"`src` is a directory; use `list`");
    insta::assert_snapshot!(bench.refused("list", json!({"path": "README.md"})).await, @"`README.md` is not a directory");
    insta::assert_snapshot!(bench.refused("read", json!({"path": "README.md/x"})).await, @"`README.md/x`: `README.md` is not a directory, so nothing is below it");
    insta::assert_snapshot!(bench.ok("read", json!({"path": "src/lib.rs"})).await, @"src/lib.rs is empty");
}

#[tokio::test]
async fn only_text_of_a_bounded_size_is_read_or_edited() {
    let limits = Limits { file_bytes: 100, ..Limits::default() };
    let bench = Bench::with(&[], limits, &[]);
    std::fs::write(bench.path("binary"), b"a\0b").unwrap();
    std::fs::write(bench.path("latin"), b"caf\xe9").unwrap();
    std::fs::write(bench.path("huge"), "x".repeat(101)).unwrap();
    for path in ["binary", "latin", "huge"] {
        let before = std::fs::read(bench.path(path)).unwrap();
        bench.refused("read", json!({"path": path})).await;
        bench.refused("edit", json!({"path": path, "old_text": "a", "new_text": "b"})).await;
        assert_eq!(std::fs::read(bench.path(path)).unwrap(), before);
    }
    bench.refused("write", json!({"path": "new", "content": "x".repeat(101)})).await;
    bench.refused("write", json!({"path": "new", "content": "a\u{0}b"})).await;
    assert!(!bench.path("new").exists());
}

#[tokio::test]
async fn a_listing_honours_ignore_files_and_its_limits() {
    let bench = Bench::new(&[
        (".gitignore", "/target\n*.log\n!keep.log\n"),
        ("target/debug/big", ""),
        ("a.log", ""),
        ("keep.log", ""),
        ("src/deep/er/x.rs", ""),
        ("src/.ignore", "secret.rs\n"),
        ("src/secret.rs", ""),
        (".git/config", ""),
    ]);
    std::os::unix::fs::symlink("src", bench.path("link")).unwrap();
    insta::assert_snapshot!(bench.ok("list", json!({})).await, @"
    .gitignore
    keep.log
    link -> src
    src/
    src/.ignore
    src/deep/ (1 entries)
    ");
    insta::assert_snapshot!(bench.ok("list", json!({"path": "src/deep", "depth": 9})).await, @"
    src/deep/er/
    src/deep/er/x.rs
    ");
    let all = bench.ok("list", json!({"include_ignored": true})).await;
    assert!(all.contains("a.log") && all.contains("target/") && !all.contains(".git/"), "{all}");
    let few = Bench::with(
        &[("a", ""), ("b", ""), ("c", "")],
        Limits { entries: 2, ..Limits::default() },
        &[],
    );
    insta::assert_snapshot!(few.ok("list", json!({})).await, @"
    a
    b
    (cut off after 2 entries: list a directory below it)
    ");
}

#[tokio::test]
async fn ignore_files_above_the_start_count_too() {
    let bench = Bench::new(&[
        (".gitignore", "*.tmp\n/src/gen/\n"),
        ("src/a.tmp", ""),
        ("src/b.rs", ""),
        ("src/gen/c.rs", ""),
    ]);
    insta::assert_snapshot!(bench.ok("list", json!({"path": "src"})).await, @"src/b.rs");
}

#[tokio::test]
async fn a_search_shows_lines_with_context() {
    let bench = Bench::new(&[
        ("src/a.rs", "one\nfn two() {}\nthree\nfour\nfn five() {}\nsix\n"),
        ("b.py", "def two(): pass\n"),
        ("ignored.log", "two\n"),
        (".gitignore", "*.log\n"),
    ]);
    insta::assert_snapshot!(bench.ok("search", json!({"pattern": "two"})).await, @"
    b.py:1: def two(): pass
    src/a.rs:2: fn two() {}
    (2 matching lines in 2 files)
    ");
    insta::assert_snapshot!(bench.ok("search", json!({"pattern": "^FN ", "ignore_case": true, "context": 1, "glob": "*.rs"})).await, @"
    src/a.rs-1- one
    src/a.rs:2: fn two() {}
    src/a.rs-3- three
    src/a.rs-4- four
    src/a.rs:5: fn five() {}
    src/a.rs-6- six
    (2 matching lines in 1 files)
    ");
    insta::assert_snapshot!(bench.ok("search", json!({"pattern": "two", "path": "src/a.rs"})).await, @"
    src/a.rs:2: fn two() {}
    (1 matching lines in 1 files)
    ");
    insta::assert_snapshot!(bench.ok("search", json!({"pattern": "nowhere", "glob": "src/**"})).await, @"no match");
}

#[tokio::test]
async fn a_search_is_bounded_whatever_the_expression() {
    let bench = Bench::with(
        &[("a.txt", &"a\n".repeat(50))],
        Limits { matches: 3, ..Limits::default() },
        &[],
    );
    let found = bench.ok("search", json!({"pattern": "a"})).await;
    assert_eq!(found.lines().count(), 4);
    assert!(found.contains("cut off"), "{found}");
    for pattern in ["(", "(?=a)", "(((a{1000}){1000}){1000})", "\\1"] {
        let words = bench.refused("search", json!({"pattern": pattern})).await;
        assert!(words.starts_with("`pattern` cannot be used"), "{words}");
    }
    bench.refused("search", json!({"pattern": "a", "glob": "["})).await;
}

#[tokio::test]
async fn a_written_file_keeps_what_it_replaces_but_the_text() {
    let bench = Bench::new(&[("run.sh", "#!/bin/sh\r\necho a\r\n")]);
    std::fs::set_permissions(bench.path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    insta::assert_snapshot!(bench.ok("write", json!({"path": "run.sh", "content": "#!/bin/sh\necho b\n"})).await, @"replaced run.sh (2 lines, before 2)");
    assert_eq!(bench.text("run.sh"), "#!/bin/sh\r\necho b\r\n");
    bench
        .ok("edit", json!({"path": "run.sh", "old_text": "sh\necho b", "new_text": "sh\n\necho c"}))
        .await;
    assert_eq!(bench.text("run.sh"), "#!/bin/sh\r\n\r\necho c\r\n");
    let patch = "--- a/run.sh\n+++ b/run.sh\n@@ -3 +3,2 @@\n-echo c\n+echo d\n+echo e\n";
    bench.ok("apply_patch", json!({"patch": patch})).await;
    assert_eq!(bench.text("run.sh"), "#!/bin/sh\r\n\r\necho d\r\necho e\r\n");
    let mode = std::fs::metadata(bench.path("run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    insta::assert_snapshot!(bench.ok("write", json!({"path": "a/b/c.txt", "content": "x"})).await, @"made a/b/c.txt (1 lines)");
    assert_eq!(bench.snapshot().len(), 2, "no draft is left: {:?}", bench.snapshot());
}

#[tokio::test]
async fn an_edit_that_is_not_exact_says_where_it_might_be() {
    let bench = Bench::new(&[("a.rs", "fn one() {\n    1\n}\n\nfn two() {\n    1\n}\n")]);
    let edit = |old: &str, new: &str| json!({"path": "a.rs", "old_text": old, "new_text": new});
    insta::assert_snapshot!(bench.refused("edit", edit("    1\n", "    2\n")).await, @"`old_text` is in `a.rs` 2 times, at lines 2, 6: take in more of what is around the one that is meant, or set `replace_all`");
    insta::assert_snapshot!(bench.refused("edit", edit("fn one() {\n  1\n}", "")).await, @"
    `old_text` is not in `a.rs`; only white space differs here:
         1	fn one() {
         2	    1
         3	}
    ");
    insta::assert_snapshot!(bench.refused("edit", edit("fn too() {\n", "")).await, @"
    `old_text` is not in `a.rs`; the most similar lines are:
         5	fn two() {
    ");
    insta::assert_snapshot!(bench.refused("edit", edit("struct Zebra;", "")).await, @"`old_text` is not in `a.rs`");
    insta::assert_snapshot!(bench.refused("edit", edit("", "x")).await, @"`old_text` is empty; use `write` to make a file");
    insta::assert_snapshot!(bench.refused("edit", edit("1", "1")).await, @"`old_text` and `new_text` are the same");
    let all =
        json!({"path": "a.rs", "old_text": "    1\n", "new_text": "    2\n", "replace_all": true});
    insta::assert_snapshot!(bench.ok("edit", all).await, @"changed a.rs 2 times, at lines 2, 6");
    assert_eq!(bench.text("a.rs"), "fn one() {\n    2\n}\n\nfn two() {\n    2\n}\n");
}

#[tokio::test]
async fn a_patch_makes_changes_renames_and_deletes() {
    let bench = Bench::new(&[
        ("a.txt", "1\n2\n3\n"),
        ("old.txt", "x\ny\n"),
        ("gone.txt", "bye\n"),
        ("empty", ""),
    ]);
    let patch = "Some words first.\n\
        diff --git a/a.txt b/a.txt\nindex 1..2 100644\n--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n\
        diff --git a/old.txt b/dir/new.txt\nsimilarity index 50%\nrename from old.txt\nrename to dir/new.txt\n--- a/old.txt\n+++ b/dir/new.txt\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n\
        diff --git a/gone.txt b/gone.txt\ndeleted file mode 100644\n--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n\
        diff --git a/empty b/empty\ndeleted file mode 100644\n\
        diff --git a/tool.sh b/tool.sh\nnew file mode 100755\n--- /dev/null\n+++ b/tool.sh\n@@ -0,0 +1 @@\n+#!/bin/sh\n";
    insta::assert_snapshot!(bench.ok("apply_patch", json!({"patch": patch})).await, @"
    changed a.txt (1 hunks)
    renamed old.txt to dir/new.txt
    deleted gone.txt
    deleted empty
    made tool.sh
    ");
    let files: Vec<_> =
        [("a.txt", "1\ntwo\n3\n"), ("dir/new.txt", "x\nz\n"), ("tool.sh", "#!/bin/sh\n")]
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .into();
    assert_eq!(bench.snapshot(), files);
    let mode = std::fs::metadata(bench.path("tool.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[tokio::test]
async fn a_patch_is_applied_whole_or_not_at_all() {
    let bench = Bench::new(&[("a.txt", "1\n"), ("b.txt", "2\n")]);
    let before = bench.snapshot();
    let good = "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-1\n+one\n";
    let bads = [
        "--- a/b.txt\n+++ b/b.txt\n@@ -1 +1 @@\n-3\n+three\n",
        "--- a/c.txt\n+++ b/c.txt\n@@ -1 +1 @@\n-3\n+three\n",
        "--- /dev/null\n+++ b/b.txt\n@@ -0,0 +1 @@\n+three\n",
        "--- a/b.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-3\n",
        "--- /dev/null\n+++ b/../outside/x\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/b.txt b/.GIT/x\nrename from b.txt\nrename to .GIT/x\n",
        "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n",
        // Found only while writing: `d` is a file by then.
        "--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+x\n--- /dev/null\n+++ b/d/e\n@@ -0,0 +1 @@\n+x\n",
    ];
    for bad in bads {
        let words = bench.refused("apply_patch", json!({"patch": format!("{good}{bad}")})).await;
        assert_eq!(bench.snapshot(), before, "{bad}: {words}");
    }
    insta::assert_snapshot!(bench.refused("apply_patch", json!({"patch": format!("{good}{}", bads[0])})).await, @"nothing was applied: hunk 1 of 1 for `b.txt` (`@@ -1 +1 @@`) does not apply: its old lines are not in the file");
}

#[tokio::test]
async fn a_shell_command_is_told_with_its_code_and_output() {
    let bench = Bench::new(&[("src/x", "")]);
    insta::assert_snapshot!(bench.ok("shell", json!({"command": "echo out; echo err >&2; ls", "dir": "src"})).await, @"
    exit code 0
    --- stdout
    out
    x
    --- stderr
    err
    ");
    insta::assert_snapshot!(bench.refused("shell", json!({"command": "exit 3"})).await, @"
    exit code 3
    (no output)
    ");
    insta::assert_snapshot!(bench.refused("shell", json!({"command": "exec sleep 600", "timeout_secs": 1})).await, @"
    stopped after 1 seconds: it had not ended
    (no output)
    ");
    for dir in ["..", "/", "../outside", ".git", "nowhere"] {
        bench.refused("shell", json!({"command": "true", "dir": dir})).await;
    }
    insta::assert_snapshot!(bench.refused("shell", json!({"command": "  "})).await, @"the command is empty");
}

#[tokio::test]
async fn a_model_cannot_have_more_time_than_the_limits_give() {
    let limits = Limits {
        shell: sandbox::Limits { wall_secs: 1, ..sandbox::Limits::default() },
        ..Limits::default()
    };
    let bench = Bench::with(&[], limits, &[]);
    let words =
        bench.refused("shell", json!({"command": "exec sleep 600", "timeout_secs": 500})).await;
    assert!(words.starts_with("stopped after 1 seconds"), "{words}");
}

#[tokio::test]
async fn without_a_sandbox_a_command_is_a_failure_and_no_result() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Arc::new(toolbox_sandbox::Missing);
    let toolbox =
        Toolbox::new(dir.path(), Access::ReadWrite, missing, Limits::default(), &[]).unwrap();
    let failure = toolbox.call("shell", json!({"command": "true"})).await.unwrap_err();
    assert_eq!(failure.class, "sandbox_unavailable");
    assert!(failure.message.contains("install bubblewrap"), "{failure}");
}

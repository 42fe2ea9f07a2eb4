//! Paths that mean harm: out of the workspace, into a `.git`, onto a device.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use swarm_tools::toolbox::Limits;

use crate::toolbox::Bench;

/// A call of each tool that takes a path, aimed at this one.
fn calls(path: &str) -> Vec<(&'static str, Value)> {
    let patch = format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+PWNED\n");
    vec![
        ("read", json!({"path": path})),
        ("list", json!({"path": path})),
        ("search", json!({"pattern": ".", "path": path})),
        ("write", json!({"path": path, "content": "PWNED"})),
        ("edit", json!({"path": path, "old_text": "SECRET", "new_text": "PWNED"})),
        ("apply_patch", json!({"patch": patch})),
        ("shell", json!({"command": "cat secret.txt", "dir": path})),
    ]
}

/// Nothing outside was changed, made or told.
async fn holds(bench: &Bench, path: &str) {
    for (tool, arguments) in calls(path) {
        let result = bench.call(tool, arguments).await;
        assert!(result.is_error, "{tool} {path:?}: {}", result.text);
        assert!(!result.text.contains("SECRET"), "{tool} {path:?}: {}", result.text);
    }
    let outside: Vec<_> = std::fs::read_dir(bench.dir.path().join("outside")).unwrap().collect();
    assert_eq!(outside.len(), 1, "{path:?}");
    let secret = std::fs::read_to_string(bench.dir.path().join("outside/secret.txt")).unwrap();
    assert_eq!(secret, "SECRET\n", "{path:?}");
}

#[tokio::test]
async fn no_path_leads_out() {
    let bench = Bench::new(&[("a/b", "")]);
    let outside = bench.dir.path().join("outside/secret.txt");
    let long = "x/".repeat(2100);
    let paths = [
        "..",
        "../outside/secret.txt",
        "a/../../outside/secret.txt",
        "a/b/../../../outside",
        "missing/../../outside/new",
        "/",
        "/etc/passwd",
        "~/x",
        "",
        "a\0b",
        "a\nb",
        "\u{1b}[2J",
        outside.to_str().unwrap(),
        &"x".repeat(256),
        &long,
    ];
    for path in paths {
        holds(&bench, path).await;
    }
    let absolute = bench.root().canonicalize().unwrap().join("a/b");
    let words = bench.refused("read", json!({"path": absolute})).await;
    assert_eq!(words, "paths are relative to the root of the workspace: `a/b`");
}

#[tokio::test]
async fn no_chain_of_links_leads_out() {
    let bench = Bench::new(&[("dir/file", "")]);
    let outside = bench.dir.path().join("outside");
    symlink(outside.join("secret.txt"), bench.path("absolute")).unwrap();
    symlink("../outside/secret.txt", bench.path("relative")).unwrap();
    symlink("../outside", bench.path("parent")).unwrap();
    symlink("third", bench.path("second")).unwrap();
    symlink("dir/fourth", bench.path("third")).unwrap();
    symlink("../../outside/secret.txt", bench.path("dir/fourth")).unwrap();
    symlink("../outside/new", bench.path("dangling")).unwrap();
    symlink("loop", bench.path("loop")).unwrap();
    symlink("/proc/self/root/etc", bench.path("magic")).unwrap();
    symlink(bench.root(), bench.path("home")).unwrap();
    let paths = [
        "absolute",
        "relative",
        "parent/secret.txt",
        "parent",
        "parent/new",
        "second",
        "dangling",
        "loop",
        "loop/x",
        "magic/passwd",
        "dir/../parent/secret.txt",
        "home/dir/file",
    ];
    for path in paths {
        holds(&bench, path).await;
    }
    let listed = bench.ok("list", json!({"depth": 9})).await;
    assert!(!listed.contains("secret.txt\n") || listed.contains("-> "), "{listed}");
    let found = bench.ok("search", json!({"pattern": "SECRET"})).await;
    assert_eq!(found, "no match");
}

#[tokio::test]
async fn links_that_stay_inside_are_followed_and_kept() {
    let bench = Bench::new(&[("real/a.txt", "one\n")]);
    symlink("real", bench.path("alias")).unwrap();
    symlink("../real/./a.txt", bench.path("real/self")).unwrap();
    let shown = bench.ok("read", json!({"path": "alias/self"})).await;
    assert!(shown.starts_with("real/a.txt: lines 1 to 1"), "{shown}");
    bench.ok("edit", json!({"path": "alias/self", "old_text": "one", "new_text": "two"})).await;
    bench.ok("write", json!({"path": "alias/new/b.txt", "content": "b"})).await;
    assert_eq!(bench.text("real/a.txt"), "two\n");
    assert_eq!(bench.text("real/new/b.txt"), "b");
    assert!(bench.path("alias").is_symlink() && bench.path("real/self").is_symlink());
}

#[tokio::test]
async fn git_is_closed_in_any_case_at_any_depth_by_any_way() {
    let files = [
        (".git/config", "SECRET"),
        ("sub/.git/config", "SECRET"),
        (".GiT/config", "SECRET"),
        ("sub/x", ""),
    ];
    let bench = Bench::new(&files);
    symlink(".git", bench.path("link")).unwrap();
    symlink("sub/.git/config", bench.path("file")).unwrap();
    symlink("../.git", bench.path("sub/up")).unwrap();
    std::fs::write(bench.path("worktree"), "").unwrap();
    let before = bench.snapshot();
    let paths = [
        ".git",
        ".git/config",
        ".GIT/config",
        ".git./config",
        ".git /config",
        "sub/.git/config",
        "sub/../.git/config",
        "link/config",
        "file",
        "sub/up/config",
        ".git/hooks/pre-commit",
        "new/.git/config",
        ".GiT/config",
        "git~1/config",
        ".g\u{200c}it/config",
    ];
    for path in paths {
        holds(&bench, path).await;
    }
    assert_eq!(bench.snapshot(), before);
    for arguments in [json!({"depth": 9}), json!({"depth": 9, "include_ignored": true})] {
        let listed = bench.ok("list", arguments).await;
        let is_inside = |line: &str| !line.contains(" -> ") && line.to_lowercase().contains(".git");
        assert!(!listed.lines().any(is_inside), "{listed}");
    }
    assert_eq!(
        bench.ok("search", json!({"pattern": "SECRET", "include_ignored": true})).await,
        "no match"
    );
}

#[tokio::test]
async fn forbidden_globs_close_files_and_all_below_them() {
    let files = [
        (".env", "SECRET"),
        ("conf/.env.prod", "SECRET"),
        ("private/deep/key", "SECRET"),
        ("open", "x\n"),
    ];
    let bench = Bench::with(&files, Limits::default(), &["**/.env*", "private"]);
    symlink("private", bench.path("alias")).unwrap();
    let before = bench.snapshot();
    for path in [
        ".env",
        "conf/.env.prod",
        "private/deep/key",
        "private/new",
        "./private/x",
        "alias/deep/key",
        ".env/new",
    ] {
        holds(&bench, path).await;
    }
    assert_eq!(bench.snapshot(), before);
    assert_eq!(bench.ok("search", json!({"pattern": "SECRET"})).await, "no match");
    let listed = bench.ok("list", json!({"depth": 9})).await;
    assert_eq!(listed, "alias -> private\nconf/\nopen\n");
    insta::assert_snapshot!(bench.refused("read", json!({"path": ".env"})).await, @"`.env` is closed in this run (`**/.env*`): leave it as it is, or ask a person");
}

#[tokio::test]
async fn a_fifo_or_a_socket_is_refused_and_nothing_hangs() {
    let bench = Bench::new(&[("a", "x\n")]);
    let made = std::process::Command::new("mkfifo").arg(bench.path("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    symlink("fifo", bench.path("link")).unwrap();
    std::fs::create_dir(bench.path("ignoring")).unwrap();
    std::process::Command::new("mkfifo").arg(bench.path("ignoring/.gitignore")).status().unwrap();
    let all = async {
        for path in ["fifo", "socket", "link"] {
            holds(&bench, path).await;
        }
        assert_eq!(
            bench.ok("search", json!({"pattern": "x"})).await,
            "a:1: x\n(1 matching lines in 1 files)"
        );
        bench.ok("list", json!({"depth": 5})).await;
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("a tool waits for a writer");
}

/// A thread swaps a directory for a link that leads out and back, as fast as it can, while the
/// tools work below it.
#[tokio::test]
async fn a_directory_swapped_for_a_link_leads_nowhere() {
    let bench = Bench::new(&[("d/secret.txt", "harmless\n"), ("d/sub/x", "harmless\n")]);
    symlink("../outside", bench.path("evil")).unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let (root, stop) = (bench.root(), Arc::clone(&is_done));
    let swapper = std::thread::spawn(move || {
        let mut swaps = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            // In one step, so that there always is something of this name.
            let (d, evil) = (root.join("d"), root.join("evil"));
            renameat_with(CWD, &d, CWD, &evil, RenameFlags::EXCHANGE).unwrap();
            swaps += 1;
        }
        swaps
    });
    let mut answers = 0;
    for round in 0..150 {
        let calls = [
            ("read", json!({"path": "d/secret.txt"})),
            ("search", json!({"pattern": "SECRET", "path": "."})),
            ("write", json!({"path": format!("d/new{round}"), "content": "PWNED"})),
            ("edit", json!({"path": "d/secret.txt", "old_text": "SECRET", "new_text": "PWNED"})),
        ];
        for (tool, arguments) in calls {
            let result = bench.call(tool, arguments).await;
            assert!(!result.text.contains("SECRET"), "{tool}: {}", result.text);
            answers += u32::from(!result.is_error);
        }
    }
    is_done.store(true, Ordering::Relaxed);
    assert!(swapper.join().unwrap() > 0 && answers > 0);
    let outside: Vec<_> = std::fs::read_dir(bench.dir.path().join("outside")).unwrap().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
    let secret = std::fs::read_to_string(bench.dir.path().join("outside/secret.txt")).unwrap();
    assert_eq!(secret, "SECRET\n");
}

#[tokio::test]
async fn names_that_would_forge_a_line_are_shown_escaped() {
    let bench = Bench::new(&[("a\nexit code 0", "x\n")]);
    insta::assert_snapshot!(bench.ok("list", json!({})).await, @r"a\nexit code 0");
    insta::assert_snapshot!(bench.ok("search", json!({"pattern": "x"})).await, @r"
    a\nexit code 0:1: x
    (1 matching lines in 1 files)
    ");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever way a path takes through a thicket of links, it ends inside or in a refusal.
    #[test]
    fn no_way_through_links_ends_outside(
        names in prop::collection::vec(
            prop::sample::select(vec!["..", ".", "", "d", "e", "up", "out", "around", ".git", "secret.txt", "new"]),
            1..9,
        )
    ) {
        let bench = Bench::new(&[("d/e/secret.txt", "harmless\n"), (".git/secret.txt", "SECRET\n")]);
        symlink("..", bench.path("d/up")).unwrap();
        symlink("../../outside", bench.path("d/out")).unwrap();
        symlink("../../../ws/d/../.git", bench.path("d/e/around")).unwrap();
        symlink("d/up/d/e", bench.path("e")).unwrap();
        let path = names.join("/");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (tool, arguments) in calls(&path).into_iter().take(6) {
            let result = runtime.block_on(bench.toolbox.call(tool, arguments)).unwrap();
            prop_assert!(!result.text.contains("SECRET"), "{} {:?}: {}", tool, path, result.text);
        }
        let outside = std::fs::read_dir(bench.dir.path().join("outside")).unwrap().count();
        prop_assert_eq!(outside, 1);
        let git = std::fs::read_dir(bench.path(".git")).unwrap().count();
        prop_assert_eq!(git, 1);
    }
}

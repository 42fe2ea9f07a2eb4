//! Mirrors, diffs, commits and pushes against real repositories.

use std::path::Path;
use std::time::Duration;

use swarm_core::diff::{FileMode, FileStatus};
use swarm_core::port::forge::Sha;
use swarm_tools::git::{Credentials, Error, Git, Merged, NewCommit, Person};

use crate::repo::{Bench, NOW, git, make_executable, write};

fn bot() -> Person {
    Person { name: "devinswarm[bot]".to_owned(), email: "bot@devinswarm.invalid".to_owned() }
}

fn none() -> Credentials {
    Credentials::none()
}

/// A commit with the files of another, on top of it.
async fn commit_on(mirror: &swarm_tools::git::Mirror, parent: &Sha, message: &str) -> Sha {
    let new = NewCommit {
        tree: mirror.tree_of(parent).await.expect("nothing stands in the way"),
        parents: vec![parent.clone()],
        author: bot(),
        committer: bot(),
        at: NOW,
        message: message.to_owned(),
    };
    mirror.commit(new).await.expect("nothing stands in the way")
}

#[tokio::test]
async fn a_mirror_follows_the_origin_and_keeps_what_is_ours() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    bench.branch("old", &[("b.txt", "two\n")]);
    let mirror = bench.mirror().await;
    let first = mirror.branch("main").await.unwrap();
    assert_eq!(first, bench.sha("main"));
    let old = mirror.branch("old").await.unwrap();
    mirror.set_reference("refs/devinswarm/snapshots/run/1", None, &old).await.unwrap();

    git(&bench.origin, ["branch", "-D", "old"]);
    // A branch may become a folder of branches.
    git(&bench.origin, ["branch", "old/er"]);
    let second = bench.commit("second", &[("a.txt", "two\n")]);
    let mirror = bench.mirror().await;
    assert_eq!(mirror.branch("main").await.unwrap(), second);
    assert_eq!(mirror.branch("old/er").await.unwrap(), first);
    assert!(matches!(mirror.branch("old").await, Err(Error::NotFound { .. })));
    let kept = mirror.reference("refs/devinswarm/snapshots/run/1").await.unwrap();
    assert_eq!(kept, Some(old));
}

#[tokio::test]
async fn two_fetches_of_the_same_mirror_at_once_both_succeed() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    // Separate `Mirrors` have separate open lock files, as separate processes do.
    let fetches = (0..6).map(|_| {
        let (mirrors, url) = (bench.mirrors(), bench.url());
        tokio::spawn(async move {
            mirrors.mirror(&url, &none()).await.map(|mirror| mirror.path().to_owned())
        })
    });
    let mut paths = Vec::new();
    for fetch in fetches.collect::<Vec<_>>() {
        paths.push(fetch.await.unwrap().unwrap());
    }
    paths.dedup();
    assert_eq!(paths.len(), 1);
    git(&paths[0], ["fsck", "--strict"]);
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleared_away() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mirror = bench.mirror().await;
    let draft = mirror.path().with_extension("git.draft");
    // Killed while fetching: git leaves the lock of a reference.
    write(&mirror.path().join("refs/remotes/origin/main.lock"), "");
    // Killed while moving our reference.
    write(&mirror.path().join("refs/devinswarm/work/1.lock"), "");
    let second = bench.commit("second", &[]);
    let mirror = bench.mirror().await;
    assert_eq!(mirror.branch("main").await.unwrap(), second);
    mirror.set_reference("refs/devinswarm/work/1", None, &second).await.unwrap();
    // Killed while making the mirror.
    std::fs::remove_dir_all(mirror.path()).unwrap();
    write(&draft.join("HEAD"), "half a");
    assert_eq!(bench.mirror().await.branch("main").await.unwrap(), second);
    assert!(!draft.exists());
}

#[tokio::test]
async fn fetching_and_pushing_runs_no_hook_of_the_origin() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mark = bench.set_traps();
    git(&bench.origin, ["config", "uploadpack.packObjectsHook", "touch hooked;"]);
    git(&bench.origin, ["config", "core.fsmonitor", ".git/hooks/fsmonitor-watchman"]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let new = commit_on(&mirror, &main, "work").await;
    mirror.push("devinswarm/1", None, &new, &none()).await.unwrap();
    assert_eq!(bench.sha("devinswarm/1"), new);
    assert!(!mark.exists(), "ran: {}", std::fs::read_to_string(&mark).unwrap_or_default());
    // The traps do work.
    git(&bench.origin, ["commit", "--allow-empty", "-m", "by hand"]);
    assert!(mark.exists());
}

#[tokio::test]
async fn a_push_moves_the_branch_from_where_we_left_it_or_not_at_all() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let first = commit_on(&mirror, &main, "first").await;
    let second = commit_on(&mirror, &first, "second").await;
    mirror.push("work", None, &first, &none()).await.unwrap();
    // Pushed before, and its answer was lost.
    mirror.push("work", None, &first, &none()).await.unwrap();
    mirror.push("work", Some(&first), &second, &none()).await.unwrap();
    mirror.push("work", Some(&first), &second, &none()).await.unwrap();
    // Someone else works there, too.
    git(&bench.origin, ["update-ref", "refs/heads/work", &main.0]);
    let refused = mirror.push("work", Some(&first), &second, &none()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::ForeignBranch { found: Some(found), .. } if *found == main),
        "{refused}"
    );
    let refused = mirror.push("work", None, &second, &none()).await.unwrap_err();
    assert!(matches!(refused, Error::ForeignBranch { expected: None, .. }), "{refused}");
    assert_eq!(bench.sha("work"), main);
    // Deleted there: not what we left either.
    git(&bench.origin, ["update-ref", "-d", "refs/heads/work"]);
    let refused = mirror.push("work", Some(&second), &first, &none()).await.unwrap_err();
    assert!(matches!(refused, Error::ForeignBranch { found: None, .. }), "{refused}");
    // History may be rewritten as long as it is ours.
    mirror.push("work", None, &second, &none()).await.unwrap();
    mirror.push("work", Some(&second), &main, &none()).await.unwrap();
    assert_eq!(bench.sha("work"), main);
}

#[tokio::test]
async fn a_branch_that_is_checked_out_in_the_origin_is_not_pushed_to() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let new = commit_on(&mirror, &main, "work").await;
    let refused = mirror.push("main", Some(&main), &new, &none()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { why, .. } if why.contains("checked out")),
        "{refused}"
    );
}

#[tokio::test]
async fn names_that_look_like_options_never_reach_git() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    for name in ["--upload-pack=touch pwned", "-f", "a:refs/heads/main", "a b", "../main", "+main"]
    {
        let is_refused = |error: &Error| matches!(error, Error::InvalidName { .. });
        if name == "+main" {
            // A plus is a fine character in a name; it must only mean nothing.
            mirror.push(name, None, &main, &none()).await.unwrap();
            assert_eq!(bench.sha("refs/heads/+main"), main);
            continue;
        }
        assert!(is_refused(&mirror.branch(name).await.unwrap_err()), "{name}");
        assert!(is_refused(&mirror.push(name, None, &main, &none()).await.unwrap_err()), "{name}");
    }
    let outside = mirror.set_reference("refs/heads/main", None, &main).await.unwrap_err();
    assert!(matches!(outside, Error::InvalidName { .. }), "{outside}");
}

#[tokio::test]
async fn the_same_commit_has_the_same_id_and_git_finds_it_sound() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let one = commit_on(&mirror, &main, "Fix it\n\nBecause.\n\nRun: r1").await;
    assert_eq!(commit_on(&mirror, &main, "Fix it\n\nBecause.\n\nRun: r1\n").await, one);
    let shown = git(
        mirror.path(),
        ["show", "--no-patch", "--date=raw", "--format=%an <%ae> %ad %cn %cd%n%B", &one.0],
    );
    insta::assert_snapshot!(shown, @r"
    devinswarm[bot] <bot@devinswarm.invalid> 1795000000 +0000 devinswarm[bot] 1795000000 +0000
    Fix it

    Because.

    Run: r1
    ");
    git(mirror.path(), ["fsck", "--strict"]);
    let forged = Person { name: "A\nauthor B <b@c> 1 +0000".to_owned(), email: "a@b".to_owned() };
    let new = NewCommit {
        tree: mirror.tree_of(&main).await.unwrap(),
        parents: Vec::new(),
        author: forged,
        committer: bot(),
        at: NOW,
        message: String::new(),
    };
    assert!(matches!(mirror.commit(new).await, Err(Error::InvalidPerson { .. })));
}

#[tokio::test]
async fn a_reference_of_ours_moves_only_from_where_it_was_seen() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let (one, two) =
        (commit_on(&mirror, &main, "one").await, commit_on(&mirror, &main, "two").await);
    let name = "refs/devinswarm/work/1";
    mirror.set_reference(name, None, &one).await.unwrap();
    mirror.set_reference(name, None, &one).await.unwrap();
    let late = mirror.set_reference(name, None, &two).await.unwrap_err();
    assert!(matches!(&late, Error::RefMoved { found: Some(found), .. } if *found == one), "{late}");
    let late = mirror.set_reference(name, Some(&main), &two).await.unwrap_err();
    assert!(matches!(late, Error::RefMoved { .. }), "{late}");
    mirror.set_reference(name, Some(&one), &two).await.unwrap();
    assert_eq!(mirror.reference(name).await.unwrap(), Some(two));
    let gone = mirror.set_reference("refs/devinswarm/x", Some(&one), &main).await.unwrap_err();
    assert!(matches!(gone, Error::RefMoved { found: None, .. }), "{gone}");
}

#[tokio::test]
async fn files_are_read_from_a_commit_and_only_files() {
    let bench = Bench::new(&[("AGENTS.md", "be kind\n"), ("docs/CODEOWNERS", "* @ada\n")]);
    std::os::unix::fs::symlink("/etc/passwd", bench.origin.join("link")).unwrap();
    std::fs::write(bench.origin.join("big"), vec![b'x'; 2 * 1024 * 1024]).unwrap();
    let first = bench.commit("link", &[]);
    let mirror = bench.mirror().await;
    let read = async |path: &str| mirror.read_file(&first, path).await;
    assert_eq!(read("AGENTS.md").await.unwrap(), Some(b"be kind\n".to_vec()));
    assert_eq!(read("docs/CODEOWNERS").await.unwrap(), Some(b"* @ada\n".to_vec()));
    for path in
        ["none", "docs", "docs/none", "AGENTS.md/x", "link", "", "/", "../x", "docs//CODEOWNERS"]
    {
        assert_eq!(read(path).await.unwrap(), None, "{path}");
    }
    assert!(matches!(read("big").await, Err(Error::TooLarge { .. })));
    let unknown = mirror.read_file(&Sha("0".repeat(40)), "AGENTS.md").await.unwrap_err();
    assert!(matches!(unknown, Error::NotFound { .. }), "{unknown}");
    let short = mirror.read_file(&Sha(first.short().to_owned()), "AGENTS.md").await.unwrap_err();
    assert!(matches!(short, Error::NotFound { .. }), "{short}");
}

#[tokio::test]
async fn one_file_of_a_tree_is_made_or_replaced_and_never_through_a_link() {
    let bench = Bench::new(&[("a.txt", "a\n"), ("docs/run.sh", "#!/bin/sh\n")]);
    std::os::unix::fs::symlink("/etc", bench.origin.join("link")).unwrap();
    make_executable(&bench.origin.join("docs/run.sh"));
    let first = bench.commit("link", &[]);
    let mirror = bench.mirror().await;
    let made = mirror.with_file(&first, "docs/new/b.txt", "b\n").await.unwrap();
    let replaced = mirror.with_file(&made, "docs/run.sh", "#!/bin/sh\nexit\n").await.unwrap();
    assert_eq!(mirror.read_file(&replaced, "docs/new/b.txt").await.unwrap(), Some(b"b\n".to_vec()));
    let diff = mirror.diff(&first, &replaced).await.unwrap();
    let changed: Vec<_> =
        diff.files.iter().map(|file| (file.path.as_str(), file.new_mode)).collect();
    assert_eq!(
        changed,
        [("docs/new/b.txt", Some(FileMode::File)), ("docs/run.sh", Some(FileMode::Executable))]
    );
    for path in ["", "/x", "../x", "docs", "link", "link/x", "a.txt/x", ".git/config", "d/.GIT/x"] {
        let refused = mirror.with_file(&first, path, "x").await.unwrap_err();
        assert!(matches!(refused, Error::InvalidName { .. }), "{path}: {refused}");
    }
}

#[tokio::test]
async fn a_diff_says_what_changed_where_under_any_name() {
    let long: String = (1..=40).map(|n| format!("line {n}\n")).collect();
    let bench = Bench::new(&[
        ("a.txt", &long),
        ("gone.txt", "gone\n"),
        ("moved.txt", "these\nlines\nstay\nwhere\nthey\nare\n"),
        ("run.sh", "echo\n"),
        ("blob", "text\n"),
        // A change must not be able to hide itself.
        (".gitattributes", "*.txt binary -diff\n*.secret -text diff=none\n"),
    ]);
    let old = bench.sha("HEAD");
    std::fs::remove_file(bench.origin.join("gone.txt")).unwrap();
    std::fs::rename(bench.origin.join("moved.txt"), bench.origin.join("new name.txt")).unwrap();
    make_executable(&bench.origin.join("run.sh"));
    std::os::unix::fs::symlink("a.txt", bench.origin.join("link")).unwrap();
    std::fs::write(bench.origin.join("blob"), b"\0binary").unwrap();
    let changed = long.replace("line 3\n", "line three\n").replace("line 30\n", "");
    bench.write(&[
        ("a.txt", &changed),
        ("-x", "dash\n"),
        ("ü\n\"q\"", "odd\n"),
        ("x.secret", "s\n"),
    ]);
    std::fs::write(bench.origin.join("huge.json"), "x\n".repeat(2_000_000)).unwrap();
    let new = bench.commit("change", &[]);
    let mirror = bench.mirror().await;
    let diff = mirror.diff(&old, &new).await.unwrap();

    let rows: Vec<String> = diff
        .files
        .iter()
        .map(|file| {
            format!(
                "{:?} {:?} {:?} {:?}->{:?} +{} -{} {}{}",
                file.status,
                file.path,
                file.old_path,
                file.old_mode,
                file.new_mode,
                file.added,
                file.removed,
                if file.is_binary { "binary" } else { "text" },
                if file.is_cut { " cut" } else { "" },
            )
        })
        .collect();
    insta::assert_snapshot!(rows.join("\n"), @r#"
    Added "-x" None None->Some(File) +1 -0 text
    Modified "a.txt" None Some(File)->Some(File) +1 -2 text
    Modified "blob" None Some(File)->Some(File) +0 -0 binary
    Deleted "gone.txt" None Some(File)->None +0 -1 text
    Added "huge.json" None None->Some(File) +0 -0 text cut
    Added "link" None None->Some(Symlink) +1 -0 text
    Renamed "new name.txt" Some("moved.txt") Some(File)->Some(File) +0 -0 text
    Modified "run.sh" None Some(File)->Some(Executable) +0 -0 text
    Added "x.secret" None None->Some(File) +1 -0 text
    Added "ü\n\"q\"" None None->Some(File) +1 -0 text
    "#);
    assert_eq!(diff.base_files, 6);
    let file = diff.file("a.txt").unwrap();
    assert_eq!(file.added_lines().collect::<Vec<_>>(), [(3, "line three")]);
    assert!(diff.has_line("a.txt", 1) && diff.has_line("a.txt", 32));
    assert!(!diff.has_line("a.txt", 20) && !diff.has_line("gone.txt", 1));
    assert_eq!(diff.file("link").unwrap().added_lines().next(), Some((1, "a.txt")));
    assert_eq!(diff.file("link").unwrap().new_mode, Some(FileMode::Symlink));
    assert_eq!(diff.file("gone.txt").unwrap().status, FileStatus::Deleted);
    assert!(diff.paths().contains(&"moved.txt".to_owned()));
    assert!(diff.patch.contains("+line three\n") && !diff.is_patch_cut);
    assert!(mirror.diff(&new, &new).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_merge_without_a_work_tree_is_clean_or_names_the_conflicts() {
    let bench = Bench::new(&[("a.txt", "one\n"), ("b.txt", "one\n")]);
    let side = bench.branch("side", &[("a.txt", "side\n")]);
    let other = bench.branch("other", &[("b.txt", "other\n")]);
    let clash = bench.branch("clash", &[("a.txt", "clash\n")]);
    let mirror = bench.mirror().await;
    let Merged::Clean(tree) = mirror.merge(&side, &other).await.unwrap() else {
        panic!("they do not touch the same file");
    };
    assert_eq!(mirror.read_file(&tree, "a.txt").await.unwrap(), Some(b"side\n".to_vec()));
    assert_eq!(mirror.read_file(&tree, "b.txt").await.unwrap(), Some(b"other\n".to_vec()));
    let conflict = mirror.merge(&side, &clash).await.unwrap();
    assert_eq!(conflict, Merged::Conflict(vec!["a.txt".to_owned()]));
    let base = mirror.merge_base(&side, &other).await.unwrap();
    assert_eq!(base, Some(bench.sha("main")));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_and_no_process_is_left() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    // Takes connections into its backlog and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
    let mirrors = bench.mirrors().with_timeout(Duration::from_millis(700));
    let error = mirrors.mirror(&format!("http://{address}/x.git"), &none()).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while is_mentioned_by_a_process(&address) {
        assert!(std::time::Instant::now() < deadline, "git is still running");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_mentioned_by_a_process(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("it can be read").flatten();
    processes.into_iter().any(|process| {
        std::fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
}

#[tokio::test]
async fn git_says_what_is_wrong_with_an_origin_and_keeps_credentials_to_itself() {
    let bench = Bench::new(&[("a.txt", "one\n")]);
    let empty = bench.path("no-repository");
    std::fs::create_dir(&empty).unwrap();
    let secret = "hunter2-hunter2";
    let credentials = Credentials::none().with("GIT_DIR_NAME", secret.into());
    let error = bench.mirrors().mirror(empty.to_str().unwrap(), &credentials).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("fetching from `/") && text.contains("not appear to be a git repository"),
        "{text}"
    );
    assert!(!format!("{credentials:?}").contains(secret));
}

#[test]
fn git_is_only_taken_from_absolute_folders() {
    assert!(matches!(Git::find("relative:.:".as_ref()), Err(Error::NoGit)));
    assert!(Git::find("/usr/bin:/usr/local/bin:/bin".as_ref()).unwrap().program().is_absolute());
    assert!(!Path::new("git").is_absolute());
}

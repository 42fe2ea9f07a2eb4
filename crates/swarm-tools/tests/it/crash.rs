//! A whole round of work in a process of its own, killed again and again.
//!
//! The test starts this same binary once more, for the same test, with a folder to work in; the
//! child does the round and ends, or is killed on the way. It knows itself by that variable.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use swarm_core::port::forge::Sha;
use swarm_tools::git::{Credentials, Git, Mirrors, NewCommit, Person};
use swarm_tools::workspace::Workspaces;

use crate::repo::{Bench, NOW, git, write};

const FOLDER: &str = "SWARM_TEST_ROUND_IN";
const NAME: &str = "crash::a_round_of_work_ends_the_same_however_often_it_was_killed";

/// Clones, checks out, edits, captures, commits, pushes, keeps and cleans up.
async fn round(data: &Path, origin: &str) -> Sha {
    let path = std::env::var_os("PATH").expect("there is a PATH");
    let mirrors = Mirrors::new(data.join("mirrors"), Git::find(&path).expect("git is installed"));
    let none = Credentials::none();
    let mirror = mirrors.mirror(origin, &none).await.expect("cloning");
    let main = mirror.branch("main").await.expect("it has `main`");
    let workspace = Workspaces::new(data.join("workspaces")).at("run");
    workspace.checkout(&mirror, &main, NOW).await.expect("checking out");
    for number in 0..40 {
        write(
            &workspace.tree().join(format!("src/{}/{number}.rs", number % 7)),
            format!("{number}\n"),
        );
    }
    let _ = std::fs::remove_file(workspace.tree().join("a.txt"));
    let tree = workspace.capture(&mirror).await.expect("capturing").tree;
    let bot = Person { name: "bot".to_owned(), email: "bot@example.org".to_owned() };
    let commit = NewCommit {
        tree,
        parents: vec![main],
        author: bot.clone(),
        committer: bot,
        at: NOW,
        message: "work".to_owned(),
    };
    let commit = mirror.commit(commit).await.expect("committing");
    mirror.push("work", None, &commit, &none).await.expect("pushing");
    workspace.remove(&mirror, NOW).await.expect("cleaning up");
    commit
}

#[tokio::test]
async fn a_round_of_work_ends_the_same_however_often_it_was_killed() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = Path::new(&folder);
        round(&folder.join("data"), folder.join("origin").to_str().expect("a plain path")).await;
        return;
    }
    let bench = Bench::new(&[("a.txt", "a\n"), ("b/c.txt", "c\n")]);
    let folder = bench.path("");
    let mut killed = 0;
    for delay in (0..24).map(|step| Duration::from_millis(step * 12)) {
        let mut child = Command::new(std::env::current_exe().expect("this is a program"))
            .args(["--exact", NAME])
            .env(FOLDER, &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        tokio::time::sleep(delay).await;
        killed += usize::from(child.try_wait().expect("it is ours").is_none());
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }
    assert!(killed >= 5, "only {killed} were killed while they worked");
    let commit = round(&bench.path("data"), &bench.url()).await;
    assert_eq!(bench.sha("work"), commit);
    // A round that was never killed, elsewhere, makes the very same commit.
    let fresh = bench.path("fresh");
    assert_eq!(round(&fresh, &bench.url()).await, commit);
    git(&bench.origin, ["fsck", "--strict", "--no-dangling"]);
    let mirror = bench.mirror().await;
    git(mirror.path(), ["fsck", "--strict", "--no-dangling"]);
    let kept =
        git(mirror.path(), ["for-each-ref", "--format=%(tree)", "refs/devinswarm/snapshots/"]);
    let tree = git(&bench.origin, ["rev-parse", "work^{tree}"]);
    assert!(kept.lines().any(|line| line == tree), "{kept}");
    let left: Vec<_> = std::fs::read_dir(bench.path("data/workspaces"))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["locks"]);
}

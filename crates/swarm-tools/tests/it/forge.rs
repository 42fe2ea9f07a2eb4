//! The local forge over real repositories, with owners who work in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::port::clock::Clock;
use swarm_core::port::forge::{
    Actor, CheckState, Error, ForgeMerge, ForgeRead, ForgeWrite, LineComment, MergeRequest,
    NewIssue, NewPullRequest, NewReview, NewStatus, Permission, PullState, RepoId, Sha, Verdict,
};
use swarm_core::port::records::{self, Record, Records};
use swarm_core::time::Timestamp;
use swarm_tools::forge::local::{Config, LocalForge, Member};

use crate::repo::{Bench, NOW, git, write};

/// Records in memory. They can be made to fail, as if the process had been killed there.
#[derive(Default)]
struct Shelf {
    documents: Mutex<BTreeMap<(String, String), Record>>,
    /// How many more writes succeed; huge for all.
    writes_left: AtomicUsize,
}

#[async_trait]
impl Records for Shelf {
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Record>, records::Error> {
        let documents = self.documents.lock().expect("no thread panicked");
        Ok(documents.get(&(namespace.to_owned(), key.to_owned())).cloned())
    }

    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> Result<u64, records::Error> {
        let left = self.writes_left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(records::Error::Store("killed here".into()));
        }
        self.writes_left.store(left - 1, Ordering::SeqCst);
        let mut documents = self.documents.lock().expect("no thread panicked");
        let place = (namespace.to_owned(), key.to_owned());
        let found = documents.get(&place).map_or(0, |record| record.version);
        if found != expected {
            return Err(records::Error::Conflict { key: key.to_owned(), expected, found });
        }
        documents.insert(place, Record { key: key.to_owned(), version: found + 1, value });
        Ok(found + 1)
    }

    async fn list(&self, namespace: &str, prefix: &str) -> Result<Vec<Record>, records::Error> {
        let documents = self.documents.lock().expect("no thread panicked");
        Ok(documents
            .iter()
            .filter(|((space, key), _)| space == namespace && key.starts_with(prefix))
            .map(|(_, record)| record.clone())
            .collect())
    }
}

/// A clock that moves on by a second each time someone looks.
struct Ticks(AtomicI64);

#[async_trait]
impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp(NOW.0 + 1000 * self.0.fetch_add(1, Ordering::SeqCst))
    }
    async fn sleep(&self, _: Duration) {}
}

struct Town {
    bench: Bench,
    shelf: Arc<Shelf>,
    forge: LocalForge,
    repo: RepoId,
}

const CODE: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";

impl Town {
    fn new() -> Self {
        Self::of(Bench::new(&[("code.txt", CODE), ("other.txt", "other\n")]))
    }

    fn of(bench: Bench) -> Self {
        let shelf = Arc::new(Shelf::default());
        shelf.writes_left.store(usize::MAX, Ordering::SeqCst);
        let mut config = Config::new("ada");
        config.members.push(Member {
            login: "reader".to_owned(),
            permission: Permission::Read,
            emails: vec!["reader@example.org".to_owned()],
        });
        let forge = LocalForge::new(shelf.clone(), Arc::new(Ticks(AtomicI64::new(0))), config);
        let repo = RepoId(bench.url());
        Self { bench, shelf, forge, repo }
    }

    /// A branch `work` that changes the third line, and its pull request.
    async fn pull(&self) -> (u64, Sha) {
        let head = self.bench.branch("work", &[("code.txt", &CODE.replace("three", "3"))]);
        (self.open("work").await.expect("nothing stands in the way").number, head)
    }

    async fn open(&self, head: &str) -> Result<swarm_core::port::forge::PullRequest, Error> {
        let pull = NewPullRequest {
            head: head.to_owned(),
            base: "main".to_owned(),
            title: "Fix it".to_owned(),
            body: "Because.".to_owned(),
            author: bot(),
        };
        self.forge.open_pull_request(&self.repo, pull).await
    }

    async fn merge(&self, number: u64, head: &Sha) -> Result<Sha, Error> {
        self.forge.merge(&self.repo, request(number, head)).await
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.bench.origin.join(name)).expect("it can be read")
    }

    fn status(&self) -> String {
        git(&self.bench.origin, ["status", "--porcelain"])
    }
}

fn request(number: u64, head: &Sha) -> MergeRequest {
    MergeRequest {
        number,
        expected_head: head.clone(),
        expected_base: None,
        message: format!("Merge pull request #{number}"),
        at: NOW,
    }
}

fn bot() -> Actor {
    Actor { login: "devinswarm[bot]".to_owned(), is_bot: true }
}

fn person(login: &str) -> Actor {
    Actor { login: login.to_owned(), is_bot: false }
}

fn review(author: Actor, verdict: Verdict, commit: &Sha, key: &str) -> NewReview {
    NewReview {
        author,
        verdict,
        commit: commit.clone(),
        body: "seen".to_owned(),
        comments: Vec::new(),
        key: key.to_owned(),
    }
}

fn issue(key: &str) -> NewIssue {
    NewIssue {
        title: "It is broken".to_owned(),
        body: "Mend it.".to_owned(),
        author: person("ada"),
        key: key.to_owned(),
    }
}

#[tokio::test]
async fn issues_and_pull_requests_share_their_numbers_and_a_key_opens_once() {
    let town = Town::new();
    let first = town.forge.open_issue(&town.repo, issue("a")).await.unwrap();
    let again = town.forge.open_issue(&town.repo, issue("a")).await.unwrap();
    let second = town.forge.open_issue(&town.repo, issue("b")).await.unwrap();
    let (pull, _) = town.pull().await;
    assert_eq!((first.number, again.number, second.number, pull), (1, 1, 2, 3));
    assert_eq!(first, again);
    // The same repository under another name.
    let alias = RepoId(format!("file://{}/.git", town.bench.url()));
    assert_eq!(town.forge.issue(&alias, 2).await.unwrap().title, "It is broken");
    assert_eq!(town.forge.issue(&town.repo, 3).await.unwrap().title, "Fix it");
    let missing = town.forge.issue(&town.repo, 4).await.unwrap_err();
    assert_eq!(missing.to_string(), "issue or pull request #4 not found");
    let not_a_pull = town.forge.pull_request(&town.repo, 1).await.unwrap_err();
    assert!(matches!(not_a_pull, Error::NotFound { .. }), "{not_a_pull}");
    town.forge.close(&town.repo, 1).await.unwrap();
    assert!(!town.forge.issue(&town.repo, 1).await.unwrap().is_open);
}

#[tokio::test]
async fn an_issue_is_opened_once_wherever_the_process_is_killed() {
    let town = Town::new();
    for writes in 0..4 {
        let key = format!("killed after {writes}");
        town.shelf.writes_left.store(writes, Ordering::SeqCst);
        let outcome = town.forge.open_issue(&town.repo, issue(&key)).await;
        assert_eq!(outcome.is_err(), writes < 3, "{outcome:?}");
        town.shelf.writes_left.store(usize::MAX, Ordering::SeqCst);
        let found = town.forge.open_issue(&town.repo, issue(&key)).await.unwrap();
        let again = town.forge.open_issue(&town.repo, issue(&key)).await.unwrap();
        assert_eq!(found.number, again.number);
    }
}

#[tokio::test]
async fn several_openers_at_once_open_one_of_each() {
    let town = Town::new();
    town.bench.branch("work", &[("code.txt", "x\n")]);
    let town = Arc::new(town);
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let town = town.clone();
            tokio::spawn(async move {
                let issue = town.forge.open_issue(&town.repo, issue("same")).await.unwrap();
                (issue.number, town.open("work").await.unwrap().number)
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap());
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    let open = town.forge.pull_request_of(&town.repo, "work").await.unwrap().unwrap();
    assert_eq!((open.number, open.state), (numbers[0].1, PullState::Open));
}

#[tokio::test]
async fn a_pull_request_needs_a_branch_with_something_new_and_is_read_live() {
    let town = Town::new();
    let missing = town.open("nowhere").await.unwrap_err();
    assert_eq!(missing.to_string(), "branch `nowhere` not found");
    git(&town.bench.origin, ["branch", "same"]);
    let nothing = town.open("same").await.unwrap_err();
    assert_eq!(nothing.to_string(), "refused: `same` has no commit that `main` lacks");
    assert!(matches!(town.open("-x").await.unwrap_err(), Error::Refused(_)));

    let (number, head) = town.pull().await;
    let pull = town.forge.pull_request(&town.repo, number).await.unwrap();
    assert_eq!(
        (pull.state, &pull.head_sha, &pull.base_sha),
        (PullState::Open, &head, &town.bench.sha("main"))
    );
    assert_eq!((pull.mergeable, pull.behind_by), (Some(true), Some(0)));
    let committers: Vec<_> =
        pull.committers.iter().map(|c| (c.name.as_str(), c.login.as_deref())).collect();
    assert_eq!(committers, [("Ada", None)]);

    // The base moves, with a conflict; the head moves, by someone we know.
    let base = town.bench.commit("conflict", &[("code.txt", &CODE.replace("three", "drei"))]);
    git(&town.bench.origin, ["checkout", "--quiet", "work"]);
    let args = [
        "-c",
        "user.name=R",
        "-c",
        "user.email=Reader@Example.org",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "more",
        "--author=R <reader@example.org>",
    ];
    git(&town.bench.origin, args);
    git(&town.bench.origin, ["checkout", "--quiet", "main"]);
    let objects = || git(&town.bench.origin, ["count-objects"]);
    let before = objects();
    let pull = town.forge.pull_request(&town.repo, number).await.unwrap();
    assert_eq!((&pull.head_sha, &pull.base_sha), (&town.bench.sha("work"), &base));
    assert_eq!((pull.mergeable, pull.behind_by), (Some(false), Some(1)));
    assert!(pull.committers.iter().any(|c| c.login.as_deref() == Some("reader")));
    assert_eq!(objects(), before, "reading must not write to the owner's repository");

    // One open pull request for each head; opening it again brings its text up to date.
    let again = NewPullRequest {
        head: "work".to_owned(),
        base: "main".to_owned(),
        title: "Better".to_owned(),
        body: "New".to_owned(),
        author: bot(),
    };
    let found = town.forge.open_pull_request(&town.repo, again.clone()).await.unwrap();
    assert_eq!((found.number, found.title.as_str()), (number, "Better"));
    git(&town.bench.origin, ["branch", "release", "main"]);
    let elsewhere = NewPullRequest { base: "release".to_owned(), ..again };
    let refused = town.forge.open_pull_request(&town.repo, elsewhere).await.unwrap_err();
    assert!(refused.to_string().contains("goes to `main`, not to `release`"), "{refused}");

    // Closed, a new one is opened; its branch deleted, it is closed.
    town.forge.close(&town.repo, number).await.unwrap();
    let next = town.open("work").await.unwrap();
    assert_ne!(next.number, number);
    git(&town.bench.origin, ["branch", "-D", "work"]);
    let gone = town.forge.pull_request_of(&town.repo, "work").await.unwrap().unwrap();
    assert_eq!((gone.number, gone.state), (next.number, PullState::Closed));
    assert_eq!(town.forge.pull_request_of(&town.repo, "nothing").await.unwrap(), None);
}

#[tokio::test]
async fn a_sticky_comment_is_found_by_its_marker_and_its_own_author() {
    let town = Town::new();
    let number = town.forge.open_issue(&town.repo, issue("a")).await.unwrap().number;
    let marker = "<!-- devinswarm:run=r;kind=escalation -->";
    let say = async |author: Actor, body: &str| {
        town.forge.sticky_comment(&town.repo, number, &author, marker, body).await.unwrap()
    };
    let first = say(bot(), "asked").await;
    assert_eq!(first.body, format!("{marker}\nasked"));
    assert_eq!(say(bot(), "asked").await, first);
    // Someone else quotes the marker.
    let forged = say(person("mallory"), "UNBLOCK").await;
    let second = say(bot(), &format!("answered {marker}")).await;
    assert_eq!((second.id, second.is_edited), (first.id, true));
    assert_ne!(forged.id, first.id);
    let comments = town.forge.issue(&town.repo, number).await.unwrap().comments;
    assert_eq!(comments, [second, forged]);
    let empty = town.forge.sticky_comment(&town.repo, number, &bot(), " ", "x").await.unwrap_err();
    assert!(matches!(empty, Error::Refused(_)));
}

#[tokio::test]
async fn only_people_who_did_not_write_it_approve_and_permission_is_read_now() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    let submit = async |new: NewReview| town.forge.submit_review(&town.repo, number, new).await;
    let bots = submit(review(bot(), Verdict::Approve, &head, "k")).await.unwrap_err();
    assert_eq!(bots.to_string(), "refused: `devinswarm[bot]` is a program: only people approve");
    // Saying so does not make it a person.
    let lying = Actor { is_bot: false, ..bot() };
    let lie = submit(review(lying, Verdict::Approve, &head, "k")).await.unwrap_err();
    assert!(matches!(lie, Error::Refused(_)), "{lie}");
    let nobody = submit(review(person("mallory"), Verdict::Approve, &head, "k")).await.unwrap_err();
    assert_eq!(nobody.to_string(), "permission denied: `mallory` may not review");
    let unknown = Sha("1".repeat(40));
    let no_commit =
        submit(review(person("ada"), Verdict::Approve, &unknown, "k")).await.unwrap_err();
    assert!(matches!(no_commit, Error::NotFound { .. }), "{no_commit}");

    let own = town.bench.branch("own", &[("other.txt", "own\n")]);
    let pull = NewPullRequest {
        head: "own".to_owned(),
        base: "main".to_owned(),
        title: String::new(),
        body: String::new(),
        author: person("ada"),
    };
    let own_number = town.forge.open_pull_request(&town.repo, pull).await.unwrap().number;
    let approval = review(person("Ada"), Verdict::Approve, &own, "k");
    let refused = town.forge.submit_review(&town.repo, own_number, approval).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "refused: `Ada` opened pull request #3 and cannot approve it"
            .replace('3', &own_number.to_string())
    );

    let first = submit(review(person("ada"), Verdict::Approve, &head, "k")).await.unwrap();
    let again = submit(review(person("ada"), Verdict::RequestChanges, &head, "k")).await.unwrap();
    assert_eq!(first, again);
    submit(review(person("reader"), Verdict::Approve, &head, "k")).await.unwrap();
    let reviews = town.forge.reviews(&town.repo, number).await.unwrap();
    let seen: Vec<_> =
        reviews.iter().map(|r| (r.author.login.as_str(), r.permission, r.id)).collect();
    assert_eq!(seen[0].1, Permission::Admin);
    assert_eq!((seen[1].0, seen[1].1), ("reader", Permission::Read));
    assert_ne!(seen[0].2, seen[1].2);
    // Another day, another configuration, the same records.
    let later = LocalForge::new(
        town.shelf.clone(),
        Arc::new(Ticks(AtomicI64::new(0))),
        Config::new("someone-else"),
    );
    let reviews = later.reviews(&town.repo, number).await.unwrap();
    assert!(reviews.iter().all(|review| review.permission == Permission::None));
}

#[tokio::test]
async fn remarks_lie_in_the_change_or_are_refused_by_line() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    let remark =
        |path: &str, line| LineComment { path: path.to_owned(), line, body: "why?".to_owned() };
    let submit = async |comments: Vec<LineComment>| {
        let new = NewReview { comments, ..review(bot(), Verdict::Comment, &head, "k") };
        town.forge.submit_review(&town.repo, number, new).await
    };
    let outside =
        submit(vec![remark("code.txt", 3), remark("code.txt", 9), remark("other.txt", 1)]).await;
    assert_eq!(
        outside.unwrap_err().to_string(),
        "refused: remarks on lines outside of the change: code.txt:9, other.txt:1"
    );
    let fine = submit(vec![remark("code.txt", 3), remark("code.txt", 6)]).await.unwrap();
    assert_eq!(fine.comments.len(), 2);
    // Once merged there is no change any more, but what was submitted stands.
    town.merge(number, &head).await.unwrap();
    assert_eq!(submit(vec![remark("code.txt", 3)]).await.unwrap(), fine);
}

#[tokio::test]
async fn a_status_belongs_to_a_commit_and_the_latest_of_each_source_counts() {
    let town = Town::new();
    let (_, head) = town.pull().await;
    let set = async |name: &str, state, source: Actor, commit: &Sha| {
        let status = NewStatus {
            name: name.to_owned(),
            state,
            summary: "x".repeat(500),
            commit: commit.clone(),
            source,
        };
        town.forge.set_status(&town.repo, status).await
    };
    set("tests", CheckState::Pending, bot(), &head).await.unwrap();
    set("tests", CheckState::Success, bot(), &head).await.unwrap();
    set("tests", CheckState::Failure, person("ada"), &head).await.unwrap();
    let denied = set("tests", CheckState::Success, person("reader"), &head).await.unwrap_err();
    assert_eq!(denied.to_string(), "permission denied: `reader` may not set a status");
    let unknown = set("tests", CheckState::Success, bot(), &Sha("1".repeat(40))).await.unwrap_err();
    assert!(matches!(unknown, Error::NotFound { .. }), "{unknown}");
    let checks = town.forge.checks(&town.repo, &head).await.unwrap();
    let rows: Vec<_> =
        checks.iter().map(|c| (c.source.as_str(), c.state, c.summary.len())).collect();
    assert_eq!(
        rows,
        [("devinswarm[bot]", CheckState::Success, 140), ("ada", CheckState::Failure, 140)]
    );
    assert_eq!(town.forge.checks(&town.repo, &town.bench.sha("main")).await.unwrap(), []);
}

#[tokio::test]
async fn permissions_are_those_of_the_configuration_and_nothing_for_others() {
    let town = Town::new();
    for (login, permission) in [
        ("Ada", Permission::Admin),
        ("reader", Permission::Read),
        ("devinswarm[bot]", Permission::Write),
        ("mallory", Permission::None),
        ("", Permission::None),
    ] {
        assert_eq!(town.forge.permission(&town.repo, login).await.unwrap(), permission, "{login}");
    }
    let repo = town.forge.repo(&town.repo).await.unwrap();
    assert_eq!((repo.clone_url, repo.default_branch.as_str()), (town.bench.url(), "main"));
    for id in ["relative", "https://host/x", "/nowhere/at/all", "/tmp"] {
        assert!(town.forge.repo(&RepoId(id.to_owned())).await.is_err(), "{id}");
    }
}

#[tokio::test]
async fn a_merge_brings_branch_and_clean_work_tree_along_and_touches_nothing_else() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    let base = town.bench.sha("main");
    town.bench.write(&[("untracked.txt", "mine\n")]);
    let mark = town.bench.set_traps();
    let merged = town.merge(number, &head).await.unwrap();
    assert!(!mark.exists(), "ran: {}", std::fs::read_to_string(&mark).unwrap_or_default());

    assert_eq!(town.bench.sha("main"), merged);
    assert_eq!(town.bench.sha("main^1"), base);
    assert_eq!(town.bench.sha("main^2"), head);
    assert_eq!(town.bench.sha("main^{tree}"), town.bench.sha("work^{tree}"));
    assert_eq!(town.text("code.txt"), CODE.replace("three", "3"));
    assert_eq!(town.text("untracked.txt"), "mine\n");
    assert_eq!(town.status(), "?? untracked.txt");
    git(&town.bench.origin, ["fsck", "--strict"]);

    let pull = town.forge.pull_request(&town.repo, number).await.unwrap();
    assert_eq!((pull.state, pull.merge_sha.as_ref()), (PullState::Merged, Some(&merged)));
    assert_eq!((&pull.head_sha, &pull.base_sha), (&head, &base));
    assert_eq!(town.merge(number, &head).await.unwrap(), merged);
    let other = town.merge(number, &base).await.unwrap_err();
    assert!(matches!(other, Error::HeadMoved { .. }), "{other}");
}

#[tokio::test]
async fn a_bare_repository_and_a_branch_that_is_not_checked_out_are_merged_as_well() {
    let bench = Bench::new(&[("code.txt", CODE)]);
    let head = bench.branch("work", &[("code.txt", &CODE.replace("three", "3"))]);
    let bare = bench.path("bare.git");
    git(&bench.origin, ["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let mut town = Town::of(bench);
    town.repo = RepoId(bare.to_str().unwrap().to_owned());
    let number = town.open("work").await.unwrap().number;
    let merged = town.merge(number, &head).await.unwrap();
    assert_eq!(git(&bare, ["rev-parse", "main"]), merged.0);

    let town = Town::new();
    let (number, head) = town.pull().await;
    git(&town.bench.origin, ["checkout", "--quiet", "-b", "elsewhere"]);
    town.bench.write(&[("code.txt", "someone is at work\n")]);
    town.merge(number, &head).await.unwrap();
    assert_eq!(town.text("code.txt"), "someone is at work\n");
    assert_eq!(town.status(), " M code.txt");
}

#[tokio::test]
async fn a_work_tree_in_which_someone_works_stops_the_merge_and_is_left_alone() {
    type Work = fn(&Town);
    let cases: Vec<(&str, Work, &str)> = vec![
        (
            "unstaged",
            |t| t.bench.write(&[("other.txt", "busy\n")]),
            "it has uncommitted changes to `other.txt`",
        ),
        (
            "staged",
            |t| {
                t.bench.write(&[("new.txt", "busy\n")]);
                git(&t.bench.origin, ["add", "new.txt"]);
            },
            "it has uncommitted changes to `new.txt`",
        ),
        (
            "deleted",
            |t| std::fs::remove_file(t.bench.origin.join("code.txt")).unwrap(),
            "it has uncommitted changes to `code.txt`",
        ),
        (
            "as if merged already",
            |t| t.bench.write(&[("code.txt", &CODE.replace("three", "3"))]),
            "it has uncommitted changes to `code.txt`",
        ),
        (
            "in the way",
            |t| t.bench.write(&[("added/file.txt", "precious\n")]),
            "files that git does not track there would be overwritten: `added/file.txt`",
        ),
        (
            "a file where a folder must be",
            |t| t.bench.write(&[("added", "precious\n")]),
            "files that git does not track there would be overwritten: `added`",
        ),
        (
            "ignored and in the way",
            |t| {
                t.bench
                    .write(&[(".git/info/exclude", "added/\n"), ("added/file.txt", "precious\n")]);
            },
            "files that git does not track there would be overwritten: `added/file.txt`",
        ),
        (
            "in a rebase",
            |t| t.bench.write(&[(".git/MERGE_HEAD", &format!("{}\n", t.bench.sha("work")))]),
            "an operation is unfinished there (Merge)",
        ),
        ("locked", |t| t.bench.write(&[(".git/index.lock", "")]), "another git is at work there"),
        (
            "sparse",
            |t| {
                git(&t.bench.origin, ["update-index", "--skip-worktree", "other.txt"]);
            },
            "it is a sparse checkout",
        ),
        (
            "filtered",
            |t| {
                t.bench.write(&[(".git/info/attributes", "*.txt filter=lfs\n")]);
                git(&t.bench.origin, ["config", "filter.lfs.smudge", "touch evil; cat"]);
            },
            "its configuration runs a program over `added/file.txt`, `code.txt`",
        ),
    ];
    for (name, work, expected) in cases {
        let town = Town::new();
        let files =
            [("code.txt", CODE.replace("three", "3")), ("added/file.txt", "new\n".to_owned())];
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let head = town.bench.branch("work", &files);
        let number = town.open("work").await.unwrap().number;
        work(&town);
        let snapshot = || {
            let list = std::process::Command::new("find")
                .args([
                    ".", "-path", "./.git", "-prune", "-o", "-type", "f", "-exec", "sha1sum", "{}",
                    ";",
                ])
                .current_dir(&town.bench.origin)
                .output()
                .unwrap();
            let mut lines: Vec<String> =
                String::from_utf8(list.stdout).unwrap().lines().map(ToOwned::to_owned).collect();
            lines.sort();
            (lines, town.bench.sha("main"))
        };
        let before = snapshot();
        let error = town.merge(number, &head).await.expect_err(name);
        assert!(matches!(error, Error::NotMergeable(_)), "{name}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(expected)
                && text.contains("`main` is checked out in `/")
                && text.contains("try again"),
            "{name}: {text}"
        );
        assert_eq!(snapshot(), before, "{name}");
    }
}

#[tokio::test]
async fn a_linked_work_tree_is_brought_along_too() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    git(&town.bench.origin, ["checkout", "--quiet", "-b", "elsewhere"]);
    let linked = town.bench.path("linked");
    git(&town.bench.origin, ["worktree", "add", "--quiet", linked.to_str().unwrap(), "main"]);
    write(&linked.join("other.txt"), "busy\n");
    let error = town.merge(number, &head).await.unwrap_err();
    assert!(error.to_string().contains("/linked"), "{error}");
    git(&linked, ["checkout", "--quiet", "--", "other.txt"]);
    town.merge(number, &head).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(linked.join("code.txt")).unwrap(),
        CODE.replace("three", "3")
    );
    assert_eq!(git(&linked, ["status", "--porcelain"]), "");
    assert_eq!(town.text("code.txt"), CODE);
}

#[tokio::test]
async fn deleted_renamed_and_executable_files_arrive_in_the_work_tree() {
    let town = Town::new();
    git(&town.bench.origin, ["checkout", "--quiet", "-b", "work"]);
    git(&town.bench.origin, ["mv", "other.txt", "code.txt.d"]);
    std::fs::create_dir(town.bench.origin.join("dir")).unwrap();
    git(&town.bench.origin, ["mv", "code.txt.d", "dir/other.txt"]);
    std::os::unix::fs::symlink("dir", town.bench.origin.join("link")).unwrap();
    std::fs::remove_file(town.bench.origin.join("code.txt")).unwrap();
    write(&town.bench.origin.join("code.txt/now/a/folder"), "x\n");
    write(&town.bench.origin.join("-x\nü"), "odd\n");
    crate::repo::make_executable(&town.bench.origin.join("dir/other.txt"));
    let head = town.bench.commit("all kinds", &[]);
    git(&town.bench.origin, ["checkout", "--quiet", "main"]);
    let number = town.open("work").await.unwrap().number;
    town.merge(number, &head).await.unwrap();
    assert_eq!(town.status(), "");
    assert!(town.bench.origin.join("code.txt/now/a/folder").exists());
    assert!(!town.bench.origin.join("other.txt").exists());
}

#[tokio::test]
async fn only_the_approved_head_on_the_decided_base_is_merged() {
    let town = Town::new();
    let (number, approved) = town.pull().await;
    let main = town.bench.sha("main");
    git(&town.bench.origin, ["checkout", "--quiet", "work"]);
    let sneaked = town.bench.commit("sneaked in", &[("evil.txt", "evil\n")]);
    git(&town.bench.origin, ["checkout", "--quiet", "main"]);
    let error = town.merge(number, &approved).await.unwrap_err();
    assert!(
        matches!(&error, Error::HeadMoved { expected, found } if *expected == approved && *found == sneaked),
        "{error}"
    );
    let decided = MergeRequest { expected_base: Some(main.clone()), ..request(number, &sneaked) };
    let moved = town.bench.commit("the base moves", &[("base.txt", "x\n")]);
    let error = town.forge.merge(&town.repo, decided).await.unwrap_err();
    assert!(
        matches!(&error, Error::BaseMoved { expected, found } if *expected == main && *found == moved),
        "{error}"
    );
    assert_eq!(town.bench.sha("main"), moved);
    // Where the base may move, both changes are in the merge.
    town.merge(number, &sneaked).await.unwrap();
    assert_eq!(town.text("base.txt"), "x\n");
    assert_eq!(town.text("evil.txt"), "evil\n");
    assert_eq!(town.status(), "");
}

#[tokio::test]
async fn a_conflict_a_closed_one_and_a_missing_branch_are_not_merged() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    town.bench.commit("conflict", &[("code.txt", &CODE.replace("three", "drei"))]);
    let main = town.bench.sha("main");
    let error = town.merge(number, &head).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot merge: `work` and `main` conflict in `code.txt`");
    town.forge.close(&town.repo, number).await.unwrap();
    let error = town.merge(number, &head).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot merge: the pull request is closed");
    assert_eq!(town.bench.sha("main"), main);
    let other = town.bench.branch("gone", &[("other.txt", "x\n")]);
    let number = town.open("gone").await.unwrap().number;
    git(&town.bench.origin, ["branch", "-D", "gone"]);
    let error = town.merge(number, &other).await.unwrap_err();
    assert_eq!(error.to_string(), "branch `gone` not found");
}

#[tokio::test]
async fn a_merge_happens_once_wherever_the_process_is_killed() {
    // With a work tree a merge writes twice: the intent, and that it is done.
    for writes in 0..3 {
        let town = Town::new();
        let (number, head) = town.pull().await;
        town.shelf.writes_left.store(writes, Ordering::SeqCst);
        let outcome = town.merge(number, &head).await;
        assert_eq!(outcome.is_err(), writes < 2, "{outcome:?}");
        let is_moved = town.bench.sha("main^{tree}") == town.bench.sha("work^{tree}");
        assert_eq!(is_moved, writes >= 1);
        town.shelf.writes_left.store(usize::MAX, Ordering::SeqCst);
        if is_moved {
            // Seen as merged before it is recorded, as a merge by hand would be.
            let pull = town.forge.pull_request(&town.repo, number).await.unwrap();
            assert_eq!(pull.state, PullState::Merged);
        }
        let first = town.bench.sha("main");
        let merged = town.merge(number, &head).await.unwrap();
        assert_eq!(town.merge(number, &head).await.unwrap(), merged);
        if is_moved {
            assert_eq!(merged, first);
        }
        assert_eq!(town.bench.sha("main"), merged);
        assert_eq!(git(&town.bench.origin, ["rev-list", "--count", "--merges", "main"]), "1");
        assert_eq!(town.status(), "");
    }
}

/// A merge killed between the work tree and the branch, with these files brought along.
async fn half_merged(with_index: bool) -> (Town, u64, Sha) {
    let town = Town::new();
    git(&town.bench.origin, ["checkout", "--quiet", "-b", "work"]);
    std::fs::remove_file(town.bench.origin.join("other.txt")).expect("nothing stands in the way");
    let head = town
        .bench
        .commit("work", &[("code.txt", &CODE.replace("three", "3")), ("new.txt", "new\n")]);
    git(&town.bench.origin, ["checkout", "--quiet", "main"]);
    let main = town.bench.sha("main");
    let number = town.open("work").await.expect("nothing stands in the way").number;
    // The intent is stored and everything done but for the record; then the branch is put back.
    town.shelf.writes_left.store(1, Ordering::SeqCst);
    town.merge(number, &head).await.expect_err("it is killed");
    town.shelf.writes_left.store(usize::MAX, Ordering::SeqCst);
    git(&town.bench.origin, ["update-ref", "refs/heads/main", &main.0]);
    if !with_index {
        git(&town.bench.origin, ["read-tree", &main.0]);
        std::fs::write(town.bench.origin.join("code.txt"), CODE)
            .expect("nothing stands in the way");
    }
    assert_ne!(town.status(), "");
    (town, number, head)
}

#[tokio::test]
async fn a_merge_killed_in_the_work_tree_is_finished() {
    for with_index in [true, false] {
        let (town, number, head) = half_merged(with_index).await;
        let merged = town.merge(number, &head).await.unwrap();
        assert_eq!(town.bench.sha("main"), merged);
        assert_eq!(town.status(), "", "{with_index}");
        assert!(!town.bench.origin.join("other.txt").exists());
    }
}

#[tokio::test]
async fn a_merge_killed_in_the_work_tree_is_taken_back_when_the_head_moved_meanwhile() {
    let (town, number, head) = half_merged(true).await;
    let moved = git(
        &town.bench.origin,
        ["commit-tree", "-p", &head.0, "-m", "more", &format!("{head}^{{tree}}")],
    );
    git(&town.bench.origin, ["update-ref", "refs/heads/work", &moved]);
    let error = town.merge(number, &head).await.unwrap_err();
    assert!(matches!(error, Error::HeadMoved { .. }), "{error}");
    assert_eq!(town.status(), "");
    assert_eq!(town.text("code.txt"), CODE);
    assert!(Path::new(&town.bench.origin).join("other.txt").exists());
}

#[tokio::test]
async fn a_merge_killed_in_the_work_tree_does_not_overwrite_what_someone_wrote_since() {
    let (town, number, head) = half_merged(true).await;
    town.bench.write(&[("code.txt", "precious\n")]);
    let error = town.merge(number, &head).await.unwrap_err();
    assert!(error.to_string().contains("uncommitted changes to `code.txt`"), "{error}");
    assert_eq!(town.text("code.txt"), "precious\n");
}

#[tokio::test]
async fn several_merges_at_once_are_one_merge() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    let town = Arc::new(town);
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (town, head) = (town.clone(), head.clone());
            tokio::spawn(async move { town.merge(number, &head).await })
        })
        .collect();
    let mut merged = Vec::new();
    for task in tasks {
        merged.push(task.await.unwrap().unwrap());
    }
    merged.dedup();
    assert_eq!(merged, [town.bench.sha("main")]);
    assert_eq!(git(&town.bench.origin, ["rev-list", "--count", "--merges", "main"]), "1");
    assert_eq!(town.status(), "");
}

#[tokio::test]
async fn merges_of_several_pull_requests_at_once_all_arrive() {
    let town = Town::new();
    let mut pulls = Vec::new();
    for n in 0..4 {
        let (branch, file) = (format!("work-{n}"), format!("new-{n}.txt"));
        let head = town.bench.branch(&branch, &[(&file, "new\n")]);
        pulls.push((town.open(&branch).await.unwrap().number, head));
    }
    let town = Arc::new(town);
    let tasks: Vec<_> = pulls
        .into_iter()
        .map(|(number, head)| {
            let town = town.clone();
            tokio::spawn(async move { town.merge(number, &head).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(git(&town.bench.origin, ["rev-list", "--count", "--merges", "main"]), "4");
    assert_eq!(town.status(), "");
    for n in 0..4 {
        assert_eq!(town.text(&format!("new-{n}.txt")), "new\n");
    }
}

#[tokio::test]
async fn a_merge_by_the_owners_own_hand_is_seen() {
    let town = Town::new();
    let (number, head) = town.pull().await;
    git(&town.bench.origin, ["merge", "--quiet", "--no-ff", "-m", "by hand", "work"]);
    let by_hand = town.bench.sha("main");
    let pull = town.forge.pull_request(&town.repo, number).await.unwrap();
    assert_eq!((pull.state, pull.merge_sha), (PullState::Merged, Some(by_hand.clone())));
    assert_eq!(town.merge(number, &head).await.unwrap(), by_hand);
}

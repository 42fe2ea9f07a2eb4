//! What only a file can do: be shared by processes, outlive them, be too new.
//!
//! Tests that need other processes start this very test again with [`ROLE`] set; it then plays
//! the child's part instead of the parent's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use swarm_core::checkpoint::{Change, ChannelDelta, Cursor};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{ChannelName, GraphHash, GraphName, QueueName, RunId, StepId, WorkerId};
use swarm_core::port::store::{
    CheckpointWrite, Claim, Commit, Commits as _, Error, History as _, Leases as _, Release,
    RunFilter,
};
use swarm_core::run::{Epoch, Limit, NewRun, Parent, RunStatus};
use swarm_core::time::Timestamp;
use swarm_graph::store::sqlite::{OpenError, Options, SqliteStore};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Names the part that a started process plays.
const ROLE: &str = "SWARM_STORE_TEST_ROLE";
/// Where its file is.
const FILE: &str = "SWARM_STORE_TEST_FILE";

const TTL: Duration = Duration::from_secs(10);

fn run(id: &str) -> RunId {
    RunId::new(id).unwrap()
}

fn worker(id: &str) -> WorkerId {
    WorkerId::new(id).unwrap()
}

fn new_run(id: &str) -> NewRun {
    NewRun {
        id: run(id),
        graph: GraphName::new("g").unwrap(),
        graph_hash: GraphHash("h".into()),
        queue: QueueName::new("q").unwrap(),
        input: Arc::new(json!(null)),
        parent: None,
        priority: 0,
        labels: BTreeMap::new(),
        limit: Limit::default(),
    }
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Options::default()).await.unwrap()
}

async fn claimed(store: &SqliteStore, id: &str) -> Claim {
    store.create_run(new_run(id), Timestamp(0)).await.unwrap();
    store.claim(&run(id), &worker("w"), Timestamp(0), TTL).await.unwrap().unwrap()
}

/// The part that this process plays, and its file, if it was started for one.
fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(FILE)?.into()))
}

/// Starts this test binary again, for one test and one part.
fn start(test: &str, role: &str, file: &Path) -> Child {
    let (_, module) = module_path!().split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
        .env(ROLE, role)
        .env(FILE, file)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Tells the parent, at once. The mark tells it from what the test runner prints.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n@{line}").unwrap();
    stdout.flush().unwrap();
}

/// All that a child says until it ends.
async fn listen(child: &mut Child) -> Vec<String> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.extend(line.strip_prefix('@').map(str::to_owned));
    }
    said
}

/// Commit `seq` of a stream: a checkpoint that appends its number, and an event.
fn nth(run: &RunId, epoch: Epoch, seq: u64) -> Commit {
    let channel = ChannelName::new("log").unwrap();
    let change = Change::Append(Arc::new(json!([seq])));
    Commit {
        checkpoint: Some(CheckpointWrite {
            seq,
            cursor: Cursor::default(),
            deltas: vec![ChannelDelta { channel, change }],
        }),
        events: vec![NewEvent::run(EventKind::of("test.written"), json!(seq))],
        ..Commit::new(run.clone(), epoch, Timestamp(1))
    }
}

/// Commits for ever, and says each number once it is acknowledged.
async fn write_for_ever(file: &Path) {
    let store = open(file).await;
    let claim = claimed(&store, "r").await;
    for seq in 0.. {
        store.commit(nth(&run("r"), claim.run.epoch, seq)).await.unwrap();
        say(&seq.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if let Some((_, file)) = role() {
        return write_for_ever(&file).await;
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let test = "a_killed_process_loses_nothing_that_it_acknowledged";
    let mut child = start(test, "writer", &file);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged: Option<u64> = None;
    while let Some(line) = lines.next_line().await.unwrap() {
        let Some(seq) = line.strip_prefix('@') else { continue };
        acknowledged = Some(seq.parse().unwrap());
        if acknowledged == Some(40) {
            // SIGKILL, in the middle of the next commit. What it had said by then is read on.
            child.start_kill().unwrap();
        }
    }
    assert!(!child.wait().await.unwrap().success(), "it was killed");
    let acknowledged = acknowledged.expect("it wrote something");
    assert!(acknowledged >= 40);

    let store = open(&file).await;
    let checkpoint = store.checkpoint(&run("r"), None).await.unwrap().unwrap();
    assert!(checkpoint.seq >= acknowledged, "{} < {acknowledged}", checkpoint.seq);
    // What comes after the last acknowledged commit is whole, too, or absent.
    let expected: Vec<u64> = (0..=checkpoint.seq).collect();
    assert_eq!(checkpoint.state.to_value(), json!({ "log": expected }));
    let events = store.events(&run("r"), 0, 0).await.unwrap();
    let written: Vec<_> = events.iter().map(|event| event.data.as_u64().unwrap()).collect();
    assert_eq!(written, expected);
    // The successor goes on once the lease of the dead is over.
    let now = Timestamp(0) + TTL;
    let claim = store.claim(&run("r"), &worker("next"), now, TTL).await.unwrap().unwrap();
    store.commit(nth(&run("r"), claim.run.epoch, checkpoint.seq + 1)).await.unwrap();
}

/// Starts what all start, then takes and ends runs until none is left.
async fn take_all(role: &str, file: &Path) {
    let store = open(file).await;
    if store.create_run(new_run("shared"), Timestamp(0)).await.unwrap() {
        say("created");
    }
    for n in 0..10 {
        store.create_run(new_run(&format!("{role}-{n}")), Timestamp(0)).await.unwrap();
    }
    let (worker, queues) = (worker(role), [QueueName::new("q").unwrap()]);
    while let Some(claim) = store.claim_next(&worker, &queues, Timestamp(0), TTL).await.unwrap() {
        let id = claim.run.start.id;
        let (status, output) = (RunStatus::Succeeded, Some(Arc::new(json!(role))));
        let release = Some(Release::Ended { status, output, failure: None });
        let commit = Commit::new(id.clone(), claim.run.epoch, Timestamp(1));
        store.commit(Commit { release, ..commit }).await.unwrap();
        say(&format!("took {id}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_one_file_from_its_creation_on() {
    const PROCESSES: usize = 4;
    if let Some((role, file)) = role() {
        return take_all(&role, &file).await;
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let test = "processes_share_one_file_from_its_creation_on";
    // They all find no file, and all create and migrate it.
    let mut children: Vec<Child> =
        (0..PROCESSES).map(|n| start(test, &format!("p{n}"), &file)).collect();
    let said = futures::future::join_all(children.iter_mut().map(async |child| {
        let said = listen(child).await;
        assert!(child.wait().await.unwrap().success());
        said
    }))
    .await
    .concat();
    assert_eq!(said.iter().filter(|line| *line == "created").count(), 1);
    let taken: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("took ")).collect();
    assert_eq!(taken.len(), 1 + 10 * PROCESSES, "each run was taken");
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len(), "and by one only");
    let store = open(&file).await;
    let filter = RunFilter { status: vec![RunStatus::Succeeded], ..RunFilter::default() };
    assert_eq!(store.runs(&filter).await.unwrap().len(), taken.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_request_leaves_those_that_share_its_commit_alone() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("swarm.db")).await;
    let mut claims = Vec::new();
    for n in 0..64 {
        claims.push(claimed(&store, &format!("r{n}")).await);
    }
    let step = StepId::new("work#1").unwrap();
    let nobody = Parent { run: run("nobody"), step, awaited: true };
    // Polled together, all but the first wait while the first is written.
    let commits = claims.iter().enumerate().map(|(n, claim)| {
        let mut commit = nth(&claim.run.start.id, claim.run.epoch, 0);
        if n % 4 == 1 {
            // Refused only after its first child was written.
            let orphan = NewRun { parent: Some(nobody.clone()), ..new_run("orphan") };
            commit.children = vec![new_run(&format!("kid{n}")), orphan];
        }
        store.commit(commit)
    });
    let done = futures::future::join_all(commits).await;
    for (n, (done, claim)) in done.into_iter().zip(&claims).enumerate() {
        let id = &claim.run.start.id;
        let events = store.events(id, 0, 0).await.unwrap().len();
        let checkpoint = store.checkpoint(id, None).await.unwrap();
        if n % 4 == 1 {
            assert!(matches!(done, Err(Error::NotFound { .. })), "{n}: {done:?}");
            assert_eq!((events, checkpoint.is_some()), (0, false), "{n}");
            assert!(store.run(&run(&format!("kid{n}"))).await.unwrap().is_none(), "{n}");
        } else {
            assert!(done.is_ok(), "{n}: {done:?}");
            assert_eq!((events, checkpoint.is_some()), (1, true), "{n}");
        }
    }
}

#[tokio::test]
async fn a_write_goes_on_when_its_caller_stops_waiting() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let store = open(&file).await;
    {
        let mut write = std::pin::pin!(store.create_run(new_run("r"), Timestamp(0)));
        // Polled once, so that the request is on its way, and then dropped.
        assert!(futures::poll!(&mut write).is_pending());
    }
    store.close().await;
    let closed = store.create_run(new_run("s"), Timestamp(0)).await;
    assert!(matches!(closed, Err(Error::Backend(_))), "{closed:?}");
    let store = open(&file).await;
    assert!(store.run(&run("r")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_of_a_newer_schema_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    open(&file).await.close().await;
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute(
            "INSERT INTO _sqlx_migrations \
             (version, description, success, checksum, execution_time) \
             VALUES (7, 'from the future', TRUE, x'00', 0)",
            [],
        )
        .unwrap();
    drop(connection);
    let refusal = SqliteStore::open(&file, Options::default()).await.unwrap_err();
    assert!(matches!(refusal, OpenError::Newer { found: 7, known: 2, .. }), "{refusal:?}");
    let text = refusal.to_string().replace(&file.display().to_string(), "swarm.db");
    insta::assert_snapshot!(
        text,
        @"`swarm.db` has schema version 7, and this program knows up to 2: use a newer one"
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_name() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("notes.txt");
    let text = "buy milk\n".repeat(1000);
    std::fs::write(&file, &text).unwrap();
    let refusal = SqliteStore::open(&file, Options::default()).await.unwrap_err();
    assert!(matches!(&refusal, OpenError::Open { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("notes.txt"), "{refusal}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn a_channel_that_does_not_change_costs_nothing() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let store = open(&file).await;
    let claim = claimed(&store, "r").await;
    let mut first = nth(&run("r"), claim.run.epoch, 0);
    if let Some(checkpoint) = &mut first.checkpoint {
        let channel = ChannelName::new("large").unwrap();
        let change = Change::Full(Arc::new(json!("x".repeat(1024 * 1024))));
        checkpoint.deltas.push(ChannelDelta { channel, change });
    }
    store.commit(first).await.unwrap();
    for seq in 1..=100 {
        store.commit(nth(&run("r"), claim.run.epoch, seq)).await.unwrap();
    }
    store.close().await;
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size < 2 * 1024 * 1024, "100 steps beside a channel of 1 MiB took {size} bytes");
}

#[tokio::test]
async fn no_value_is_put_together_from_more_than_64_merges() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("swarm.db");
    let store = open(&file).await;
    let claim = claimed(&store, "r").await;
    for seq in 0..200 {
        let mut commit = nth(&run("r"), claim.run.epoch, seq);
        if let Some(checkpoint) = &mut commit.checkpoint {
            let channel = ChannelName::new("map").unwrap();
            let change = Change::Merge(Arc::new(json!({ format!("k{}", seq % 3): seq })));
            checkpoint.deltas = vec![ChannelDelta { channel, change }];
        }
        store.commit(commit).await.unwrap();
    }
    store.close().await;
    let connection = rusqlite::Connection::open(&file).unwrap();
    let (most, folded): (i64, i64) = connection
        .query_row(
            "SELECT max(seq - base), count(*) FILTER (WHERE change = 'full') FROM channel_deltas",
            [],
            |row| row.try_into(),
        )
        .unwrap();
    assert!(most <= 64, "{most}");
    assert_eq!(folded, 3, "and not at each of them");
}

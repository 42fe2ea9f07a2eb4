//! What PostgreSQL alone does to a store: it restarts, loses answers, is read-only for a while,
//! and is migrated by many programs at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use swarm_core::checkpoint::{Change, ChannelDelta, Cursor};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{ChannelName, GraphHash, GraphName, QueueName, RunId, StepId, WorkerId};
use swarm_core::port::records::Records as _;
use swarm_core::port::store::{
    Begun, CheckpointWrite, Claim, Commit, Commits as _, EntryKey, Error, History as _,
    Journal as _, Leases as _, Release, SignalKind,
};
use swarm_core::run::{Limit, NewRun};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;
use swarm_graph::store::postgres::{Options, PostgresStore};
use swarm_graph::testkit::postgres::{Durability, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

use crate::pg::{options, shared};

const TTL: Duration = Duration::from_secs(600);

fn new_run(id: &str) -> NewRun {
    NewRun {
        id: RunId::new(id).unwrap(),
        graph: GraphName::new("g").unwrap(),
        graph_hash: GraphHash("hash".into()),
        queue: QueueName::new("q").unwrap(),
        input: Arc::new(json!(null)),
        parent: None,
        priority: 0,
        labels: BTreeMap::new(),
        limit: Limit::default(),
    }
}

async fn claimed(store: &PostgresStore, id: &str) -> Claim {
    let worker = WorkerId::new("w").unwrap();
    store.create_claimed(new_run(id), &worker, Timestamp(0), TTL).await.unwrap().unwrap()
}

/// A commit that appends its number to a list and tells of it.
fn commit(claim: &Claim, seq: u64) -> Commit {
    let items = Change::Append(Arc::new(json!([seq])));
    let delta = ChannelDelta { channel: ChannelName::new("log").unwrap(), change: items };
    let write = CheckpointWrite { seq, cursor: Cursor::default(), deltas: vec![delta] };
    Commit {
        checkpoint: Some(write),
        events: vec![NewEvent::run(EventKind::of("test.said"), json!({ "n": seq }))],
        ..Commit::new(claim.run.start.id.clone(), claim.run.epoch, Timestamp(1))
    }
}

/// That these commits are there once each, and nothing else.
async fn assert_written(store: &PostgresStore, run: &RunId, count: u64) {
    let checkpoint = store.checkpoint(run, None).await.unwrap().unwrap();
    let expected: Vec<u64> = (0..count).collect();
    assert_eq!(checkpoint.state.to_value(), json!({ "log": expected }));
    let events = store.events(run, 0, 0).await.unwrap();
    let told: Vec<_> = events.iter().map(|event| (event.seq, event.data["n"].clone())).collect();
    let expected: Vec<_> = (0..count).map(|n| (n + 1, json!(n))).collect();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load_loses_and_doubles_nothing() {
    const RUNS: u64 = 8;
    let server = Arc::new(Server::private(Durability::Crash).unwrap());
    let url = server.database().await.unwrap();
    let patient = Options { patience: Duration::from_secs(60), ..options("swarm") };
    let store = PostgresStore::open(&url, patient).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (progress, mut seen) = tokio::sync::watch::channel(0_u64);
    let mut runs = tokio::task::JoinSet::new();
    for n in 0..RUNS {
        let (store, stop, progress) = (store.clone(), stop.clone(), progress.clone());
        runs.spawn(async move {
            let claim = claimed(&store, &format!("run{n}")).await;
            let mut seq = 0;
            loop {
                let committed = store.commit(commit(&claim, seq)).await.unwrap();
                assert_eq!(committed.events[0].seq, seq + 1);
                seq += 1;
                progress.send_modify(|count| *count += 1);
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
            (claim.run.start.id, seq)
        });
    }
    for _ in 0..3 {
        let server = server.clone();
        let crash = move || {
            server.stop().unwrap();
            server.start().unwrap();
        };
        tokio::task::spawn_blocking(crash).await.unwrap();
        let before = *seen.borrow();
        seen.wait_for(|count| *count >= before + 4 * RUNS).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let mut written = 0;
    while let Some(ended) = runs.join_next().await {
        let (run, count) = ended.unwrap();
        assert_written(&store, &run, count).await;
        written += count;
    }
    assert!(written >= 12 * RUNS, "{written}");
    store.close().await;
}

/// Stands between a store and its server, and swallows an answer when it is told to.
struct Between {
    url: String,
    swallows: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Between {
    async fn new(server: &Server, database_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = database_url.rsplit('/').next().unwrap();
        let url = format!("postgres://swarm@127.0.0.1:{port}/{database}?sslmode=disable");
        let swallows = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(pass(listener, server.socket(), swallows.clone()));
        Self { url, swallows, task }
    }

    /// Swallows the next answer, and cuts that connection.
    fn swallow(&self) {
        self.swallows.store(true, Ordering::SeqCst);
    }

    /// Whether an answer was swallowed since.
    fn has_swallowed(&self) -> bool {
        !self.swallows.load(Ordering::SeqCst)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(listener: TcpListener, socket: PathBuf, swallows: Arc<AtomicBool>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let server = UnixStream::connect(&socket).await.unwrap();
        let swallows = swallows.clone();
        connections.spawn(async move {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let there = async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            };
            let back = async move {
                let mut answer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut answer).await {
                    if swallows.swap(false, Ordering::SeqCst) {
                        return;
                    }
                    if to_client.write_all(&answer[..length]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = there => {}
                () = back => {}
            }
        });
    }
}

fn key(claim: &Claim, key: &str) -> EntryKey {
    let (run, epoch) = (claim.run.start.id.clone(), claim.run.epoch);
    EntryKey { run, epoch, step: StepId::new("work#1").unwrap(), key: key.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_done_once() {
    let server = shared();
    let database = server.database().await.unwrap();
    let between = Between::new(&server, &database).await;
    let store = PostgresStore::open(&between.url, options("swarm")).await.unwrap();
    let claim = claimed(&store, "r").await;
    let run = claim.run.start.id.clone();
    let (nothing, at) = (Spend::default(), Timestamp(2));
    // Each first once undisturbed, so that its statement is prepared and the next answer is that
    // of the write itself.
    store.commit(commit(&claim, 0)).await.unwrap();
    between.swallow();
    let committed = store.commit(commit(&claim, 1)).await.unwrap();
    assert!(between.has_swallowed());
    assert_eq!(committed.events[0].seq, 2);
    assert_written(&store, &run, 2).await;

    store.begin(key(&claim, "a"), json!(1), nothing, at).await.unwrap();
    between.swallow();
    let begun = store.begin(key(&claim, "b"), json!(1), nothing, at).await.unwrap();
    assert_eq!((begun, between.has_swallowed()), (Begun::New, true));
    // What another attempt began is not taken for ours.
    between.swallow();
    let begun = store.begin(key(&claim, "a"), json!(1), nothing, Timestamp(3)).await.unwrap();
    assert!(matches!(begun, Begun::Existing(_)), "{begun:?}");

    store.create_run(new_run("s"), at).await.unwrap();
    between.swallow();
    assert!(store.create_run(new_run("t"), at).await.unwrap(), "it is ours");
    between.swallow();
    assert!(!store.create_run(new_run("s"), Timestamp(3)).await.unwrap(), "it was there");

    store.put("space", "a", 0, json!(1)).await.unwrap();
    between.swallow();
    assert_eq!(store.put("space", "b", 0, json!(1)).await.unwrap(), 1);

    // What cannot be done twice is not: the caller looks.
    let named =
        |name: &str| SignalKind::Named { name: name.to_owned(), payload: Arc::new(json!(1)) };
    store.signal(&run, None, named("a"), at).await.unwrap();
    between.swallow();
    let unknown = store.signal(&run, None, named("b"), at).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    assert_eq!(store.signals(&run).await.unwrap().len(), 2);
    between.swallow();
    assert!(
        !store.signal(&run, Some("k"), named("c"), at).await.unwrap() || between.has_swallowed()
    );
    assert_eq!(store.signals(&run).await.unwrap().len(), 3);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_lets_go_is_found_after_its_answer_was_lost() {
    let server = shared();
    let database = server.database().await.unwrap();
    let between = Between::new(&server, &database).await;
    let store = PostgresStore::open(&between.url, options("swarm")).await.unwrap();
    let claim = claimed(&store, "r").await;
    store.commit(commit(&claim, 0)).await.unwrap();
    between.swallow();
    let last = Commit { release: Some(Release::Ready), ..commit(&claim, 1) };
    store.commit(last).await.unwrap();
    assert!(between.has_swallowed());
    assert_written(&store, &claim.run.start.id, 2).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_server_is_a_failure_in_which_nothing_was_done() {
    let server = Server::private(Durability::Crash).unwrap();
    let url = server.database().await.unwrap();
    let hasty = Options { patience: Duration::from_millis(50), ..options("swarm") };
    let store = PostgresStore::open(&url, hasty).await.unwrap();
    let claim = claimed(&store, "r").await;
    server.stop().unwrap();
    // The first call may find that its connection has died; then there is none at all.
    let _ = store.commit(commit(&claim, 0)).await;
    let refused = store.commit(commit(&claim, 0)).await;
    assert!(matches!(refused, Err(Error::Backend(_))), "{refused:?}");
    server.start().unwrap();
    store.commit(commit(&claim, 0)).await.unwrap();
    assert_written(&store, &claim.run.start.id, 1).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_read_only_for_a_while_is_waited_for() {
    let server = Server::private(Durability::Crash).unwrap();
    let url = server.database().await.unwrap();
    let patient = Options { patience: Duration::from_secs(60), ..options("swarm") };
    let store = PostgresStore::open(&url, patient).await.unwrap();
    let claim = claimed(&store, "r").await;
    let mut admin = server.connect("postgres").await.unwrap();
    let mut set = async |value: &str| {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        sqlx::query(AssertSqlSafe(set)).execute(&mut admin).await.unwrap();
        admin.execute("SELECT pg_reload_conf()").await.unwrap();
    };
    set("on").await;
    let (committed, ()) = tokio::join!(store.commit(commit(&claim, 0)), set("off"));
    committed.unwrap();
    assert_written(&store, &claim.run.start.id, 1).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_programs_that_start_at_once_migrate_once() {
    let server = shared();
    let url = server.database().await.unwrap();
    let before = PostgresStore::versions(&url, &options("swarm")).await.unwrap();
    let opened = (0..8).map(|_| PostgresStore::open(&url, options("swarm")));
    for store in futures::future::join_all(opened).await {
        store.unwrap().close().await;
    }
    let after = PostgresStore::versions(&url, &options("swarm")).await.unwrap();
    assert_eq!((before.0, after.0), (0, after.1));
}

/// Runs statements in a database.
async fn change(url: &str, sql: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    connection.close().await.unwrap();
}

async fn refusal(url: &str, options: Options) -> String {
    let error = PostgresStore::open(url, options).await.unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    let text = format!("{error}{}", source.unwrap_or_default());
    // Where in the migration it was.
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_fails_half_way_leaves_the_version_unchanged() {
    let server = shared();
    let url = server.database().await.unwrap();
    change(&url, "CREATE SCHEMA swarm; CREATE VIEW swarm.whole_runs AS SELECT 1").await;
    insta::assert_snapshot!(
        refusal(&url, options("swarm")).await,
        @r#"schema `swarm` cannot be brought to version 1: error returned from database: relation "whole_runs" already exists"#
    );
    assert_eq!(PostgresStore::versions(&url, &options("swarm")).await.unwrap().0, 0);
    change(&url, "DROP VIEW swarm.whole_runs").await;
    PostgresStore::open(&url, options("swarm")).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_not_for_this_program_is_refused() {
    let server = shared();
    let url = server.database().await.unwrap();
    insta::assert_snapshot!(
        refusal(&url, Options { migrate: false, ..options("swarm") }).await,
        @"schema `swarm` has version 0, and this program needs 1: run `swarm-host db migrate`"
    );
    PostgresStore::open(&url, options("swarm")).await.unwrap().close().await;
    let add = "INSERT INTO swarm.schema_versions (version, name, checksum, works_with) VALUES ";
    // A newer program said that this one may go on beside it.
    change(&url, &format!("{add} (98, 'later', 'x', 1)")).await;
    PostgresStore::open(&url, options("swarm")).await.unwrap().close().await;
    change(&url, &format!("{add} (99, 'much later', 'x', 99)")).await;
    insta::assert_snapshot!(
        refusal(&url, options("swarm")).await,
        @"schema `swarm` has version 99, and this program knows up to 1: use a newer one"
    );
    change(
        &url,
        "DELETE FROM swarm.schema_versions WHERE version > 1; \
                  UPDATE swarm.schema_versions SET checksum = 'x'",
    )
    .await;
    insta::assert_snapshot!(
        refusal(&url, options("swarm")).await,
        @"version 1 of schema `swarm` is not the one that this program knows: it was made by another program"
    );
    insta::assert_snapshot!(
        refusal(&url, options("Swarm; DROP")).await,
        @"`Swarm; DROP` is no name for a schema: use lower-case letters, digits and `_`, at most 40"
    );
    insta::assert_snapshot!(
        refusal("mysql://user:secret@host/db", options("swarm")).await.replace("secret", "LEAK"),
        @"the database URL cannot be read; it looks like `postgres://user@host:5432/name`: error with configuration: it is not PostgreSQL's"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_hears_that_there_is_work_also_after_it_lost_its_connection() {
    let server = shared();
    let url = server.database().await.unwrap();
    let one = PostgresStore::open(&url, options("swarm")).await.unwrap();
    let other = PostgresStore::open(&url, options("swarm")).await.unwrap();
    let (mut heard, own) = (other.woken(), one.woken());
    let mut hears = async || {
        let heard = tokio::time::timeout(Duration::from_secs(60), heard.changed()).await;
        heard.expect("it is told").unwrap();
    };
    // That it listens.
    hears().await;
    one.create_run(new_run("r"), Timestamp(0)).await.unwrap();
    hears().await;
    change(
        &url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE query LIKE 'LISTEN%' AND datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
    // That it listens again.
    hears().await;
    one.create_run(new_run("s"), Timestamp(0)).await.unwrap();
    hears().await;
    drop(own);
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarms_in_two_schemas_know_nothing_of_each_other() {
    let server = shared();
    let url = server.database().await.unwrap();
    let one = PostgresStore::open(&url, options("one")).await.unwrap();
    let two = PostgresStore::open(&url, options("two")).await.unwrap();
    one.create_run(new_run("r"), Timestamp(0)).await.unwrap();
    let queues = [QueueName::new("q").unwrap()];
    let worker = WorkerId::new("w").unwrap();
    assert!(two.claim_next(&worker, &queues, Timestamp(1), TTL).await.unwrap().is_none());
    assert!(two.run(&RunId::new("r").unwrap()).await.unwrap().is_none());
    assert!(one.claim_next(&worker, &queues, Timestamp(1), TTL).await.unwrap().is_some());
    one.close().await;
    two.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_looks_at_no_run_that_waits() {
    let server = shared();
    let url = server.database().await.unwrap();
    let store = PostgresStore::open(&url, options("swarm")).await.unwrap();
    store.create_run(new_run("r"), Timestamp(0)).await.unwrap();
    change(
        &url,
        "INSERT INTO swarm.runs (id, graph, graph_hash, queue, priority, labels, status, wake_at, \
         created_at, updated_at) \
         SELECT 'waiting' || n, 'g', 'h', 'q', 0, '{}', 'waiting', \
         CASE WHEN n % 2 = 0 THEN 1000000 END, 0, 0 FROM generate_series(1, 20000) n; \
         ANALYZE swarm.runs",
    )
    .await;
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    connection
        .execute("SET search_path = swarm; SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    // Counted inside of one transaction.
    connection.execute("BEGIN").await.unwrap();
    let claimed =
        connection.fetch_all("SELECT id FROM claim_next('w', '{q}', 5, 10, 99)").await.unwrap();
    let sql = "SELECT pg_stat_get_xact_tuples_fetched('swarm.runs'::regclass) \
               + pg_stat_get_xact_tuples_returned('swarm.runs'::regclass)";
    let after: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.execute("COMMIT").await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert!(after < 50, "{after} rows of 20,001 were looked at");
    store.close().await;
}

//! The conformance suite on each store of this crate.
//!
//! A store joins by a [`Ground`] and one test; what it must do stands in
//! [`swarm_graph::store::conformance`].

use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::id::RunId;
use swarm_core::port::store::Store;
use swarm_graph::store::conformance::{self, CLAUSES, COMBINATIONS, Ground, Report, peers};
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::store::postgres::PostgresStore;
use swarm_graph::store::sqlite::{Options, SqliteStore, Synchronous};
use tempfile::TempDir;

#[derive(Default)]
struct Memory(Arc<MemoryStore>);

#[async_trait]
impl Ground for Memory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0) as Arc<dyn Store>
    }

    async fn reopen(&mut self) -> bool {
        false
    }

    async fn set_checkpoint_format(&self, run: &RunId, format: u16) {
        self.0.set_checkpoint_format(run, format);
    }
}

struct Sqlite {
    directory: TempDir,
    options: Options,
    store: Arc<SqliteStore>,
}

impl Sqlite {
    async fn fresh(options: Options) -> Self {
        let directory = TempDir::new().unwrap();
        let store = SqliteStore::open(directory.path().join("swarm.db"), options.clone()).await;
        Self { directory, options, store: Arc::new(store.unwrap()) }
    }
}

#[async_trait]
impl Ground for Sqlite {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn reopen(&mut self) -> bool {
        self.store.close().await;
        let path = self.directory.path().join("swarm.db");
        self.store = Arc::new(SqliteStore::open(path, self.options.clone()).await.unwrap());
        true
    }

    async fn set_checkpoint_format(&self, run: &RunId, format: u16) {
        self.store.set_checkpoint_format(run, format).await.unwrap();
    }

    fn fail_at(&self, statement: u64) -> bool {
        self.store.fail_at(statement);
        true
    }
}

/// A schema of its own for each clause.
struct Postgres {
    url: String,
    options: swarm_graph::store::postgres::Options,
    store: PostgresStore,
}

impl Postgres {
    async fn fresh(url: &str, schema: &str) -> Self {
        let options = crate::pg::options(schema);
        let store = PostgresStore::open(url, options.clone()).await.unwrap();
        Self { url: url.to_owned(), options, store }
    }
}

#[async_trait]
impl Ground for Postgres {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn reopen(&mut self) -> bool {
        self.store.close().await;
        self.store = PostgresStore::open(&self.url, self.options.clone()).await.unwrap();
        true
    }

    async fn set_checkpoint_format(&self, run: &RunId, format: u16) {
        self.store.set_checkpoint_format(run, format).await.unwrap();
    }
}

#[expect(clippy::print_stdout, reason = "a suite says how much of it ran")]
fn assert_conforms(report: &Report, does_not_apply: &[&str]) {
    println!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    assert_eq!(report.does_not_apply, does_not_apply);
    assert_eq!(report.held.len() + does_not_apply.len(), CLAUSES.len());
    assert_eq!(report.combinations, COMBINATIONS);
}

#[test]
fn each_behaviour_of_langgraphs_suite_is_asked_for_or_does_not_apply() {
    assert_eq!(peers::LANGGRAPH.len(), 89);
    assert!(peers::dangling().is_empty(), "{:?}", peers::dangling());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_clause_but_forgets_with_the_process() {
    let report = conformance::check(async || Box::<Memory>::default() as Box<dyn Ground>).await;
    assert_conforms(
        &report,
        &[
            "a_write_that_fails_at_any_statement_leaves_nothing",
            "what_was_acknowledged_is_there_after_a_restart",
            "a_step_without_its_checkpoint_survives_a_restart",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_every_clause() {
    let report = conformance::check(async || {
        Box::new(Sqlite::fresh(Options::default()).await) as Box<dyn Ground>
    })
    .await;
    assert_conforms(&report, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_every_clause_without_syncing_each_commit() {
    let options = Options { synchronous: Synchronous::Normal, ..Options::default() };
    let report = conformance::check(async || {
        Box::new(Sqlite::fresh(options.clone()).await) as Box<dyn Ground>
    })
    .await;
    assert_conforms(&report, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_every_clause() {
    let server = crate::pg::shared();
    let url = server.database().await.unwrap();
    let number = std::sync::atomic::AtomicU32::new(0);
    let report = conformance::check(async || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::new(Postgres::fresh(&url, &format!("clause_{number}")).await) as Box<dyn Ground>
    })
    .await;
    assert_conforms(&report, &["a_write_that_fails_at_any_statement_leaves_nothing"]);
}

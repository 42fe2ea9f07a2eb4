//! The data directory, for this user alone, and the store: a file in it, or PostgreSQL.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use secrecy::ExposeSecret as _;
use swarm_core::port::records::Records;
use swarm_core::port::store::Store;
use swarm_graph::engine::Engine;
use swarm_graph::library::Library;
use swarm_graph::registry::Registry;
use swarm_graph::store::dump::Dump;
use swarm_graph::store::postgres::{self, PostgresStore};
use swarm_graph::store::sqlite::{Options, SqliteStore};
use swarm_graph::system::{SystemClock, SystemEntropy};
use tokio::sync::watch;

use crate::config::Settings;

/// The file with all runs, relative to the data directory.
const STORE_FILE: &str = "swarm.sqlite3";

/// An open data directory with its store. Several processes may have it open.
#[derive(Clone)]
pub struct Home {
    shared: Arc<dyn Store>,
    dump: Arc<dyn Dump>,
    /// Rings when another process has made runs claimable.
    woken: Option<watch::Receiver<u64>>,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

impl Home {
    /// Opens the data directory; makes it if it is missing, readable for its owner alone.
    ///
    /// # Errors
    /// When it cannot be made, or the store cannot be opened.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let dir = &settings.data_dir;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
            format!(
                "cannot make the data directory {}; name another with --data-dir",
                dir.display()
            )
        })?;
        let Some((url, from)) = settings.database()? else {
            let path = store_file(settings);
            let store = SqliteStore::open(&path, Options::default())
                .await
                .with_context(|| format!("cannot open the store {}", path.display()))?;
            let store = Arc::new(store);
            return Ok(Self { shared: store.clone(), dump: store, woken: None });
        };
        let store = PostgresStore::open(url.expose_secret(), postgres_options(settings))
            .await
            .with_context(|| format!("cannot open the store that {from} names"))?;
        let woken = Some(store.woken());
        let store = Arc::new(store);
        Ok(Self { shared: store.clone(), dump: store, woken })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared
    }

    /// The same store, for adapters that keep small documents.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        self.shared.clone()
    }

    /// The same store, to be dumped or filled.
    #[must_use]
    pub fn dump(&self) -> &dyn Dump {
        &*self.dump
    }

    /// Lets the workers of an engine look at once when another process has work for them.
    pub fn wakes(&self, engine: &Engine) {
        let Some(mut woken) = self.woken.clone() else { return };
        let engine = engine.clone();
        tokio::spawn(async move {
            while woken.changed().await.is_ok() {
                engine.wake();
            }
        });
    }

    /// An engine that can answer, signal and cancel, but knows no graphs to run.
    #[must_use]
    pub fn engine(&self) -> Engine {
        let library = Arc::new(Library::new(Registry::new()));
        Engine::new(self.shared.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), library)
    }
}

/// The file that is the store where no database is.
pub(crate) fn store_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join(STORE_FILE)
}

/// How PostgreSQL is opened as the store.
pub(crate) fn postgres_options(settings: &Settings) -> postgres::Options {
    let store = &settings.values.store;
    postgres::Options {
        schema: store.schema.clone(),
        migrate: store.migrate,
        connections: store.connections,
        ..postgres::Options::default()
    }
}

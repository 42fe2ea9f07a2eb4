//! The data directory: where everything is kept, for this user alone.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use swarm_core::port::records::Records;
use swarm_core::port::store::Store;
use swarm_graph::engine::Engine;
use swarm_graph::library::Library;
use swarm_graph::registry::Registry;
use swarm_graph::store::sqlite::{Options, SqliteStore};
use swarm_graph::system::{SystemClock, SystemEntropy};

use crate::config::Settings;

/// The file with all runs, relative to the data directory.
const STORE_FILE: &str = "swarm.sqlite3";

/// An open data directory. Several processes may have it open.
#[derive(Clone)]
pub struct Home {
    store: Arc<SqliteStore>,
    shared: Arc<dyn Store>,
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
    /// When it cannot be made, or its store cannot be opened.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let dir = &settings.data_dir;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
            format!(
                "cannot make the data directory {}; name another with --data-dir",
                dir.display()
            )
        })?;
        let path = dir.join(STORE_FILE);
        let store = SqliteStore::open(&path, Options::default())
            .await
            .with_context(|| format!("cannot open the store {}", path.display()))?;
        let store = Arc::new(store);
        Ok(Self { shared: store.clone(), store })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared
    }

    /// The same store, for adapters that keep small documents.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Records> {
        self.store.clone()
    }

    /// An engine that can answer, signal and cancel, but knows no graphs to run.
    #[must_use]
    pub fn engine(&self) -> Engine {
        let library = Arc::new(Library::new(Registry::new()));
        Engine::new(self.shared.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy), library)
    }
}

//! Lives: who of this data directory's processes still lives, so that the runs of a killed one are
//! free at once and not only when their leases end.
//!
//! A process holds a shared lock on a file named after its worker, and each warden that it starts
//! holds it, too; the kernel takes the locks away however they die. Whoever can lock the file alone
//! knows that nothing of that process is left. A lease stays the rule: where files cannot be locked,
//! nobody is ever declared dead.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::WorkerId;
use swarm_core::port::store::{self, RunFilter, Store};
use swarm_core::run::RunStatus;
use swarm_graph::engine::Engine;
use tokio_util::task::AbortOnDropHandle;

/// Where the files are, relative to the data directory.
const DIRECTORY: &str = "lives";

/// How the names of files begin that are not locked yet.
const DRAFT: &str = ".begin-";

/// This process's life; over when dropped.
#[derive(Debug)]
pub struct Life {
    worker: WorkerId,
    directory: PathBuf,
    held: Option<File>,
}

impl Life {
    /// Begins the life of a worker that has no lease yet.
    #[must_use]
    pub fn begin(data: &Path, worker: WorkerId) -> Self {
        let directory = data.join(DIRECTORY);
        let held = match hold(&directory, &worker) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(%error, "Without locks the runs of killed processes wait for their leases to end.");
                None
            }
        };
        Self { worker, directory, held }
    }

    /// Whose life it is.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// The file, for wardens to hold.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.held.as_ref().map(|_| self.directory.join(self.worker.as_str()))
    }

    /// Frees the runs of the dead every so often, until the handle is dropped.
    pub fn watch(self: &Arc<Self>, engine: &Engine, every: Duration) -> AbortOnDropHandle<()> {
        let (this, engine) = (Arc::clone(self), engine.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                if let Err(error) = this.bury(&engine).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "The runs of dead processes are not freed yet.");
                }
                engine.clock().sleep(every).await;
            }
        }))
    }

    async fn bury(&self, engine: &Engine) -> store::Result<()> {
        for dead in self.dead() {
            free(engine, &dead.worker).await?;
            // Its leases have ended; another process that looks just now finds the same.
            let _ = fs::remove_file(&dead.path);
        }
        Ok(())
    }

    fn dead(&self) -> Vec<Dead> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let others = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with(DRAFT));
            let worker = WorkerId::new(name?).ok()?;
            (worker != self.worker).then(|| (worker, entry.path()))
        });
        others
            .filter_map(|(worker, path)| {
                let lock = File::open(&path).ok()?;
                lock.try_lock().ok()?;
                Some(Dead { worker, path, _lock: lock })
            })
            .collect()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Whoever ends in good order holds no lease any more.
        if let Some(path) = self.path() {
            let _ = fs::remove_file(path);
        }
    }
}

/// A process that is gone for certain: while its file is locked, no warden of it can begin.
struct Dead {
    worker: WorkerId,
    path: PathBuf,
    _lock: File,
}

fn hold(directory: &Path, worker: &WorkerId) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    // Nobody looks at it before it has its name, and then it is locked.
    let draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(directory)?;
    draft.as_file().lock_shared()?;
    draft.persist(directory.join(worker.as_str())).map_err(|error| error.error)
}

/// Ends the leases of a worker. Each is fenced by its epoch: a run that someone else has claimed
/// since is not touched.
async fn free(engine: &Engine, worker: &WorkerId) -> store::Result<()> {
    let store: &Arc<dyn Store> = engine.store();
    let running = RunFilter { status: vec![RunStatus::Running], ..RunFilter::default() };
    for run in store.runs(&running).await? {
        if run.lease_owner.as_ref() != Some(worker) {
            continue;
        }
        let now = engine.clock().now();
        match store.renew(&run.start.id, run.epoch, now, Duration::ZERO).await {
            Ok(()) => tracing::info!(run_id = %run.start.id, %worker, "Freed of a dead worker."),
            Err(store::Error::Fenced { .. } | store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

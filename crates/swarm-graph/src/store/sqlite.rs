//! A store in one SQLite file: the default, and all that one machine needs.
//!
//! All writes of a process go through one thread, `writer`, which puts those that wait into one
//! transaction and one sync to disk; reads use a few connections beside it. Several processes may
//! open the same file: each transaction takes SQLite's write lock before it reads what it decides
//! on. The readers never write, and the writer never reads for the sake of reading: keep it so.

mod archive;
mod checkpoint;
mod claim;
mod commit;
mod dump;
#[cfg(feature = "testkit")]
mod fault;
mod history;
mod journal;
mod prune;
mod question;
mod readers;
mod record;
mod release;
mod row;
mod schema;
mod signal;
mod tx;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use swarm_core::port::store::{Error, Result};
use thiserror::Error;

use self::readers::Readers;
use self::schema::Place;
pub use self::schema::SchemaError;
use self::tx::Tx;
use self::writer::Writer;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// What an acknowledged write survives.
    pub synchronous: Synchronous,
    /// How many reads may be under way at once.
    pub readers: u32,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// How many waiting writes may share a transaction.
    pub batch_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            readers: 4,
            busy_timeout: Duration::from_secs(30),
            batch_max: 256,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Synchronous {
    /// The loss of power: each transaction is synced to disk before it is acknowledged.
    #[default]
    Full,
    /// The death of the process, but not of the machine: the last transactions may be lost.
    Normal,
}

/// Why a file was not opened as a store.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A newer program has been here; nothing was changed.
    #[error("`{}` has schema version {found}, and this program knows up to {known}: use a newer one", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The file has a schema that is not ours, or bringing it up to date failed.
    #[error("the schema of `{}` cannot be brought up to date", .path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: SchemaError,
    },
    /// The file cannot be opened or read.
    #[error("cannot open `{}` as a SQLite database", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start the thread that writes `{}`", .path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// A whole store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
}

impl SqliteStore {
    /// Opens a file, creates it if there is none, and brings its schema up to date. Needs a tokio
    /// runtime, whose threads for blocking work then read.
    ///
    /// # Errors
    /// [`OpenError`] says whether the file cannot be read, or is newer than this program.
    pub async fn open(
        path: impl AsRef<Path>,
        options: Options,
    ) -> std::result::Result<Self, OpenError> {
        let path = path.as_ref();
        let place = Place::new(path, &options);
        let first = {
            let place = place.clone();
            let opened = tokio::task::spawn_blocking(move || place.prepare()).await;
            opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?
        };
        let thread = |source| OpenError::Thread { path: path.to_owned(), source };
        let writer =
            Writer::start(first, place.clone(), options.batch_max.max(1)).map_err(thread)?;
        Ok(Self { writer, readers: Readers::new(place, options.readers.max(1)) })
    }

    /// Finishes the writes that wait and closes the file. Later calls fail. Without this, dropping
    /// the store does the same a moment later.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Pretends that the last checkpoint of a run was written in this format.
    ///
    /// # Errors
    /// Those of any write.
    #[cfg(feature = "testkit")]
    pub async fn set_checkpoint_format(
        &self,
        run: &swarm_core::id::RunId,
        format: u16,
    ) -> Result<()> {
        let run = run.to_string();
        self.write(move |tx| {
            tx.execute("UPDATE runs SET checkpoint_format = ?2 WHERE id = ?1", (&run, format))?;
            tx.execute(
                "UPDATE checkpoints SET format = ?2 WHERE (run, seq) = \
                 (SELECT seq, checkpoint_seq FROM runs WHERE id = ?1)",
                (&run, format),
            )?;
            Ok(())
        })
        .await
    }

    /// Lets the statement of this number (from 1, counted from now on) of the writer fail, once.
    #[cfg(feature = "testkit")]
    pub fn fail_at(&self, statement: u64) {
        self.writer.faults.fail_at(statement);
    }

    /// Runs `work` in a transaction of the writer; `Ok` once that is durable.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Done<T> + Send + 'static,
    {
        self.writer.write(work).await
    }

    /// Runs `work` in a transaction that only reads.
    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Done<T> + Send + 'static,
    {
        self.readers.read(work).await
    }
}

fn closed() -> Error {
    Error::Backend("the store is closed".into())
}

/// Why a piece of work in a transaction stopped: a refusal of ours, or a failure of SQLite's.
#[derive(Debug)]
enum Fault {
    Store(Error),
    Sql(rusqlite::Error),
}

/// The result of work in a transaction.
type Done<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => error,
            Fault::Sql(error) => Self::Backend(Box::new(error)),
        }
    }
}

//! A lock between processes: held as long as a file is open, gone when its holders are.
//!
//! The lock file stays where it is; deleting it would let two processes hold "the same" lock on
//! two files.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Error, Result};

/// An exclusive lock; let go when dropped and when no child has the file open any more.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Waits for the lock of a lock file, which is made when missing.
    pub(crate) async fn take(path: &Path, patience: Duration) -> Result<Self> {
        Self::wait(open(path)?, path, patience).await
    }

    /// Waits for the lock of a folder that is always there: nothing is written for it.
    pub(crate) async fn take_folder(path: &Path, patience: Duration) -> Result<Self> {
        let opening = format!("opening `{}`", path.display());
        Self::wait(File::open(path).map_err(Error::io(opening))?, path, patience).await
    }

    async fn wait(file: File, path: &Path, patience: Duration) -> Result<Self> {
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => return Err(timed_out(path, patience)),
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Io {
                        what: format!("locking `{}`", path.display()),
                        source,
                    });
                }
            }
        }
    }

    /// Waits for the lock on a thread that may block.
    pub(crate) fn take_blocking(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(Error::io(format!("locking `{}`", path.display())))?;
        Ok(Self { file })
    }

    /// The open file, for a child: while the child lives the lock is held, even if we are killed.
    pub(crate) fn for_child(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io("sharing a lock"))
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io(format!("opening the lock `{}`", path.display())))
}

fn timed_out(path: &Path, after: Duration) -> Error {
    Error::TimedOut { what: format!("waiting for the lock `{}`", path.display()), after }
}

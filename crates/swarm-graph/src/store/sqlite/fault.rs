//! Faults for tests: a statement that fails, a process that dies inside the writer.
//!
//! What a newcomer gets wrong: the writer is a thread of its own, and crash points belong to the
//! thread that lives the life. So the writer lives the life of whoever asked it last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{Done, Fault};
use crate::testkit::{LifeHandle, life};

/// What goes wrong, and when.
#[derive(Debug, Default)]
pub(super) struct Faults {
    life: Mutex<Option<LifeHandle>>,
    /// How many statements are left, the failing one included; 0 is no fault.
    left: AtomicU64,
}

impl Faults {
    /// Takes part in the life that this thread lives, if it lives one.
    pub(super) fn join(&self) {
        if let Some(life) = life() {
            *self.life() = Some(life);
        }
    }

    fn life(&self) -> MutexGuard<'_, Option<LifeHandle>> {
        self.life.lock().expect("nothing panics while it holds the life")
    }

    /// Lets the statement of this number (from 1) fail.
    pub(super) fn fail_at(&self, statement: u64) {
        self.left.store(statement, Ordering::SeqCst);
    }

    /// Passes a crash point; `true` if the process dies there, or has died.
    pub(super) fn dies_at(&self, point: &'static str) -> bool {
        self.life().as_ref().is_some_and(|life| life.reach(point))
    }

    /// Passes the place before a statement.
    pub(super) fn at_statement(&self) -> Done<()> {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 1 || self.dies_at("sqlite:statement") {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
            return Err(Fault::Sql(rusqlite::Error::SqliteFailure(code, None)));
        }
        Ok(())
    }

    /// Whether the process has died.
    pub(super) fn is_dead(&self) -> bool {
        self.life().as_ref().is_some_and(LifeHandle::has_crashed)
    }
}

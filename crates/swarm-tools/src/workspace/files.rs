//! Which files are unchanged since they were last read, without reading them.
//!
//! An agent can set a file's size and modification time as it likes, but not the change time that
//! the system keeps. A file that changed a moment ago is not remembered: it might change again
//! within the same tick of the system's clock.

use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use git2::Oid;
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::{Result, disk};

/// How long a file must have rested to be remembered. The system's clock ticks every 10 ms or less.
const REST_NANOS: i128 = 100_000_000;

/// What the system says of a file; the same means that it was not changed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Mark {
    size: i64,
    modified: i128,
    changed: i128,
    inode: u64,
}

impl Mark {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size,
            modified: nanos(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
            changed: nanos(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
            inode: stat.st_ino,
        }
    }
}

fn nanos(seconds: i64, nanos: i128) -> i128 {
    i128::from(seconds) * 1_000_000_000 + nanos
}

/// The files as they were last read.
#[derive(Debug, Default)]
pub(super) struct Known {
    before: HashMap<Vec<u8>, (Mark, Oid)>,
    now: HashMap<Vec<u8>, (Mark, Oid)>,
}

#[derive(Deserialize, Serialize)]
struct Row(String, Mark, String);

impl Known {
    /// Reads what was remembered. A file that cannot be read is as good as none.
    pub(super) fn load(path: &Path) -> Self {
        let rows: Vec<Row> = std::fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let before = rows
            .into_iter()
            .filter_map(|Row(path, mark, oid)| {
                Some((path.into_bytes(), (mark, Oid::from_str(&oid).ok()?)))
            })
            .collect();
        Self { before, now: HashMap::new() }
    }

    /// The content of a file that has not changed.
    pub(super) fn unchanged(&mut self, path: &[u8], mark: Mark) -> Option<Oid> {
        let (known, oid) = *self.before.get(path)?;
        (known == mark).then(|| {
            self.now.insert(path.to_owned(), (mark, oid));
            oid
        })
    }

    /// Remembers a file that was read. `mark` was taken before reading.
    pub(super) fn remember(&mut self, path: &[u8], mark: Mark, oid: Oid) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
        if now - mark.changed > REST_NANOS {
            self.now.insert(path.to_owned(), (mark, oid));
        }
    }

    /// Writes `files.json` in the workspace's folder, if it would be another one.
    pub(super) fn save(self, home: &Path) -> Result<()> {
        if self.now == self.before {
            return Ok(());
        }
        let rows: Vec<Row> = self
            .now
            .into_iter()
            .filter_map(|(path, (mark, oid))| {
                Some(Row(String::from_utf8(path).ok()?, mark, oid.to_string()))
            })
            .collect();
        let bytes = serde_json::to_vec(&rows).expect("marks are JSON");
        disk::replace(&home.join("files.json"), &bytes)
    }
}

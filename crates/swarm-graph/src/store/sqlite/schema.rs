//! The schema of the file, and bringing it up to date.
//!
//! A migration, once released, is never edited: SQLite files of that version are out there, and
//! its checksum is in them. Add a new file and a line below. The table of what was applied is the
//! one that sqlx made, which wrote the first files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _};
use sha2::{Digest as _, Sha384};
use thiserror::Error;

use super::{OpenError, Options, Synchronous};

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "runs", include_str!("migrations/0001_runs.sql")),
    (2, "history", include_str!("migrations/0002_history.sql")),
];

const APPLIED: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations ( \
    version BIGINT PRIMARY KEY, \
    description TEXT NOT NULL, \
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, \
    success BOOLEAN NOT NULL, \
    checksum BLOB NOT NULL, \
    execution_time BIGINT NOT NULL)";

fn known() -> i64 {
    MIGRATIONS.iter().map(|&(version, ..)| version).max().unwrap_or(0)
}

/// Why a schema cannot be brought up to date.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// A migration has been applied that is not the one we know by its number.
    #[error("migration {0} was applied in another form: the file is not one of this program's")]
    Foreign(i64),
    /// A migration was left half done.
    #[error("migration {0} was left half done")]
    Unfinished(i64),
    /// SQLite refused.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// Where a file is and how it is opened.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
    synchronous: Synchronous,
    patience: Duration,
}

impl Place {
    pub(super) fn new(path: &Path, options: &Options) -> Self {
        let (synchronous, patience) = (options.synchronous, options.busy_timeout);
        Self { path: path.to_owned(), synchronous, patience }
    }

    /// A connection that may write.
    pub(super) fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(self.patience)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match self.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        // What savepoints may undo is kept in memory.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", "-16000")?;
        connection.set_prepared_statement_cache_capacity(256);
        Ok(connection)
    }

    /// A connection that never writes.
    pub(super) fn connect_to_read(&self) -> rusqlite::Result<Connection> {
        let connection = self.connect()?;
        connection.pragma_update(None, "query_only", "ON")?;
        Ok(connection)
    }

    /// Opens a connection whose file has our schema.
    pub(super) fn prepare(&self) -> Result<Connection, OpenError> {
        let open = |source| OpenError::Open { path: self.path.clone(), source };
        let mut connection = self.connect_patiently().map_err(open)?;
        // The write lock keeps a second process from migrating at the same time.
        let immediate = rusqlite::TransactionBehavior::Immediate;
        let tx = connection.transaction_with_behavior(immediate).map_err(open)?;
        let found = version(&tx).map_err(open)?;
        if found > known() {
            return Err(OpenError::Newer { path: self.path.clone(), found, known: known() });
        }
        let schema = |source| OpenError::Schema { path: self.path.clone(), source };
        migrate(&tx).map_err(schema)?;
        tx.commit().map_err(open)?;
        Ok(connection)
    }

    /// Connects; while another process turns the same new file to WAL, SQLite refuses without
    /// waiting, so the waiting is here.
    fn connect_patiently(&self) -> rusqlite::Result<Connection> {
        let began = Instant::now();
        loop {
            match self.connect() {
                Err(error) if is_busy(&error) && began.elapsed() < self.patience => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => return result,
            }
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The newest migration that was ever applied; 0 for a new file.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let migrated: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
        [],
        |row| row.get(0),
    )?;
    if !migrated {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Applies the migrations that the file has not seen.
fn migrate(connection: &Connection) -> Result<(), SchemaError> {
    connection.execute(APPLIED, [])?;
    for &(version, name, sql) in MIGRATIONS {
        let checksum = Sha384::digest(sql.as_bytes()).to_vec();
        let applied: Option<(bool, Vec<u8>)> = connection
            .query_row(
                "SELECT success, checksum FROM _sqlx_migrations WHERE version = ?1",
                [version],
                |row| row.try_into(),
            )
            .optional()?;
        match applied {
            Some((false, _)) => return Err(SchemaError::Unfinished(version)),
            Some((true, found)) if found != checksum => return Err(SchemaError::Foreign(version)),
            Some((true, _)) => continue,
            None => {}
        }
        let began = Instant::now();
        connection.execute_batch(sql)?;
        let took = i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        connection.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (?1, ?2, TRUE, ?3, ?4)",
            (version, name, checksum, took),
        )?;
    }
    Ok(())
}

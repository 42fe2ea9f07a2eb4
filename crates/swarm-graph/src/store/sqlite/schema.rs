//! The schema of the file, and bringing it up to date.
//!
//! A migration, once released, is never edited: SQLite files of that version are out there, and
//! its checksum is in them. Add a new file and a line below.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _};

use super::OpenError;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "runs", include_str!("migrations/0001_runs.sql")),
    (2, "history", include_str!("migrations/0002_history.sql")),
];

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

fn known() -> i64 {
    MIGRATIONS.iter().map(|&(version, ..)| version).max().unwrap_or(0)
}

/// Opens a connection whose file has our schema.
pub(super) async fn prepare(
    path: &Path,
    options: &SqliteConnectOptions,
    patience: Duration,
) -> Result<SqliteConnection, OpenError> {
    let open = |source| OpenError::Open { path: path.to_owned(), source };
    let mut connection = connect(options, patience).await.map_err(open)?;
    // The write lock is what keeps a second process from migrating at the same time: sqlx's own
    // lock does nothing on SQLite. Inside, its transactions become savepoints of ours.
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(open)?;
    let found = version(&mut tx).await.map_err(open)?;
    if found > known() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: known() });
    }
    migrator()
        .run_direct(None, &mut *tx, false)
        .await
        .map_err(|source| OpenError::Schema { path: path.to_owned(), source: Box::new(source) })?;
    tx.commit().await.map_err(open)?;
    Ok(connection)
}

/// Connects; while another process turns the same new file to WAL, SQLite refuses without
/// waiting, so the waiting is here.
async fn connect(
    options: &SqliteConnectOptions,
    patience: Duration,
) -> Result<SqliteConnection, sqlx::Error> {
    let began = Instant::now();
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && began.elapsed() < patience => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

/// `SQLITE_BUSY` or `SQLITE_LOCKED`, with or without an extension.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The newest migration that was ever applied; 0 for a new file.
async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let migrated: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !migrated {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
}

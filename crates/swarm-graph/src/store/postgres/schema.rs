//! The schema of the database, and bringing it up to date.
//!
//! All migrations that are missing are applied in one transaction, under a lock of their own: of
//! many processes that start at once one migrates, and a failure leaves all as it was. A
//! migration, once released, is never edited: its checksum is in databases out there. Each says
//! which oldest program can still work on what it leaves: such a program may run beside newer
//! ones; an older one is refused when it opens, and its calls fail if it was open.

use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::{OpenError, Options};

struct Migration {
    version: i32,
    name: &'static str,
    /// The schema version that a program must know at least to work on this one.
    works_with: i32,
    sql: &'static [&'static str],
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "runs",
    works_with: 1,
    sql: &[include_str!("migrations/0001_runs.sql"), include_str!("migrations/0001_functions.sql")],
}];

fn known() -> i32 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

impl Migration {
    fn checksum(&self) -> String {
        let mut sum = Sha256::new();
        for part in self.sql {
            sum.update(part);
        }
        hex::encode(sum.finalize())
    }
}

/// A migration as the database remembers it: version, checksum, and the oldest that works with it.
type Applied = (i32, String, i32);

/// What is there: version 0 for nothing.
pub(super) async fn versions(
    connect: &PgConnectOptions,
    options: &Options,
) -> Result<(i32, i32), OpenError> {
    let mut connection = connect.connect().await.map_err(OpenError::Connect)?;
    let found = found(&mut connection, options).await?;
    // A server that closes first has closed as well.
    let _ = connection.close().await;
    Ok((found, known()))
}

/// Sees to it that the schema is one that this program can work on.
pub(super) async fn prepare(
    connect: &PgConnectOptions,
    options: &Options,
) -> Result<(), OpenError> {
    let mut connection = connect.connect().await.map_err(OpenError::Connect)?;
    let version = found(&mut connection, options).await?;
    if version < known() {
        if !options.migrate {
            let schema = options.schema.clone();
            return Err(OpenError::Older { schema, found: version, known: known() });
        }
        migrate(&mut connection, options).await?;
    }
    warn_of_loss(&mut connection, options).await.map_err(OpenError::Connect)?;
    // A server that closes first has closed as well.
    let _ = connection.close().await;
    Ok(())
}

/// The version there is, if this program can work on it.
async fn found(connection: &mut PgConnection, options: &Options) -> Result<i32, OpenError> {
    let schema = || options.schema.clone();
    // Not by `to_regclass`: it may answer from before a lock that was waited for.
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = 'schema_versions')",
    )
    .bind(&options.schema)
    .fetch_one(&mut *connection)
    .await
    .map_err(OpenError::Connect)?;
    if !there {
        return Ok(0);
    }
    let applied: Vec<Applied> = sqlx::query_as(
        "SELECT version, checksum, works_with FROM schema_versions ORDER BY version",
    )
    .fetch_all(connection)
    .await
    .map_err(OpenError::Connect)?;
    for (version, checksum, _) in &applied {
        let ours = MIGRATIONS.iter().find(|ours| ours.version == *version);
        if ours.is_some_and(|ours| ours.checksum() != *checksum) {
            return Err(OpenError::Foreign { schema: schema(), version: *version });
        }
    }
    let found = applied.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    let needed = applied.iter().map(|(.., works_with)| *works_with).max().unwrap_or(0);
    if needed > known() {
        return Err(OpenError::Newer { schema: schema(), found, known: known() });
    }
    Ok(found)
}

async fn migrate(connection: &mut PgConnection, options: &Options) -> Result<(), OpenError> {
    let failed = |version| {
        let schema = options.schema.clone();
        move |source| OpenError::Schema { schema, version, source }
    };
    let mut tx = connection.begin().await.map_err(failed(0))?;
    // However long another process migrates: this one has nothing to do before that.
    tx.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        .await
        .map_err(failed(0))?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('devinswarm ' || $1, 0))")
        .bind(&options.schema)
        .execute(&mut *tx)
        .await
        .map_err(failed(0))?;
    let version = found(&mut tx, options).await?;
    if version == 0 {
        // The name was checked to need no quotes.
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", options.schema);
        tx.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.map_err(failed(1))?;
        tx.execute(
            "CREATE TABLE schema_versions (version integer PRIMARY KEY, name text NOT NULL, \
             checksum text NOT NULL, works_with integer NOT NULL, \
             applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await
        .map_err(failed(1))?;
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > version) {
        for sql in migration.sql {
            tx.execute(sqlx::raw_sql(*sql)).await.map_err(failed(migration.version))?;
        }
        sqlx::query(
            "INSERT INTO schema_versions (version, name, checksum, works_with) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.checksum())
        .bind(migration.works_with)
        .execute(&mut *tx)
        .await
        .map_err(failed(migration.version))?;
    }
    tx.commit().await.map_err(failed(known()))
}

/// Says aloud when the server does not keep what it acknowledges.
async fn warn_of_loss(connection: &mut PgConnection, options: &Options) -> Result<(), sqlx::Error> {
    let (fsync, commit): (String, String) =
        sqlx::query_as("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
            .fetch_one(connection)
            .await?;
    let meant = options.synchronous == super::Synchronous::Off;
    if fsync == "off" || (commit == "off" && !meant) {
        tracing::warn!(
            fsync,
            synchronous_commit = commit,
            "PostgreSQL is set to acknowledge what a loss of power takes away."
        );
    }
    Ok(())
}

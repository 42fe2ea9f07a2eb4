//! A store in PostgreSQL: for many processes on many machines.
//!
//! Each write is one call of a function that lives in the database (`migrations/`), outside of any
//! transaction, so that its end is its commit: one round trip. The commits of runs that are at
//! work at once in this process travel together, see `lanes`. What can be done twice without harm
//! is done again when a connection breaks; a commit carries a mark, so that its second try finds
//! the first.
//!
//! A newcomer may look for the rules of a commit in Rust: what is decided from rows that another
//! process may change is decided in the functions, under the locks of those rows.

mod archive;
mod call;
mod claim;
mod commit;
mod dump;
mod history;
mod journal;
mod lanes;
mod lists;
mod prune;
mod question;
mod record;
mod row;
mod schema;
mod wake;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use swarm_core::id::RunId;
use swarm_core::port::store::Error;
use swarm_core::run::NewRun;
use thiserror::Error;
use tokio::sync::watch;

use self::call::Pool;
use self::lanes::Lanes;
use self::wake::Bell;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The PostgreSQL schema that holds the tables; made if it is missing. Swarms in different
    /// schemas of one database know nothing of each other.
    pub schema: String,
    /// Whether a schema that is missing or older is brought up to date.
    pub migrate: bool,
    /// What an acknowledged write survives.
    pub synchronous: Synchronous,
    /// How many connections this process opens at most; at least two.
    pub connections: u32,
    /// How many of them write commits at once.
    pub lanes: usize,
    /// How many commits of different runs may share a transaction.
    pub batch_max: usize,
    /// How long a call tries again while the server cannot be reached, restarts, or is read-only
    /// because another one takes over. Shorter than a lease, so that a worker hears in time.
    pub patience: Duration,
    /// How long a single statement may take, and the answer to it.
    pub statement_timeout: Duration,
    /// How long a statement waits for a row that another process holds.
    pub lock_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: "swarm".to_owned(),
            migrate: true,
            synchronous: Synchronous::Server,
            connections: 10,
            lanes: 2,
            batch_max: 128,
            patience: Duration::from_secs(6),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Synchronous {
    /// What the server is set to: by default the loss of its power, and with synchronous replicas
    /// that of the whole server.
    #[default]
    Server,
    /// The death of this process, but not of the server: the last transactions may be lost.
    Off,
}

/// Why a database was not opened as a store.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The URL is not one of a PostgreSQL database. It is not repeated here: it may hold a
    /// password.
    #[error("the database URL cannot be read; it looks like `postgres://user@host:5432/name`")]
    Url(#[source] sqlx::Error),
    /// The name of a schema would have to be quoted.
    #[error("`{0}` is no name for a schema: use lower-case letters, digits and `_`, at most 40")]
    SchemaName(String),
    /// The database cannot be reached, or refuses the user.
    #[error("cannot connect to PostgreSQL")]
    Connect(#[source] sqlx::Error),
    /// A newer program has been here; nothing was changed.
    #[error(
        "schema `{schema}` has version {found}, and this program knows up to {known}: use a newer one"
    )]
    Newer {
        /// The PostgreSQL schema.
        schema: String,
        /// Its version.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// The schema is older than this program, and was not to be changed.
    #[error(
        "schema `{schema}` has version {found}, and this program needs {known}: run `swarm-host db migrate`"
    )]
    Older {
        /// The PostgreSQL schema.
        schema: String,
        /// Its version; 0 for none at all.
        found: i32,
        /// The version that is needed.
        known: i32,
    },
    /// A migration was applied in another wording than this program knows.
    #[error(
        "version {version} of schema `{schema}` is not the one that this program knows: it was made by another program"
    )]
    Foreign {
        /// The PostgreSQL schema.
        schema: String,
        /// The version that differs.
        version: i32,
    },
    /// Bringing the schema up to date failed; its version is what it was.
    #[error("schema `{schema}` cannot be brought to version {version}")]
    Schema {
        /// The PostgreSQL schema.
        schema: String,
        /// The version that failed.
        version: i32,
        /// What PostgreSQL says.
        #[source]
        source: sqlx::Error,
    },
}

/// A whole store in one schema of a PostgreSQL database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PostgresStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    lanes: Lanes,
    bell: Bell,
    /// What runs in this process's hands were started with: what their ancestors hear is made of
    /// it.
    starts: Mutex<HashMap<RunId, Arc<NewRun>>>,
}

/// More runs than any process holds; beyond it, what was started is read again.
const STARTS_MAX: usize = 4096;

impl PostgresStore {
    /// Opens a schema of the database of this URL, and brings it up to date.
    ///
    /// # Errors
    /// [`OpenError`] says whether the server cannot be reached, or the schema is not ours.
    pub async fn open(url: &str, options: Options) -> Result<Self, OpenError> {
        let connect = connect_options(url, &options)?;
        schema::prepare(&connect, &options).await?;
        let pool = Pool::new(connect.clone(), &options);
        let inner = Inner {
            pool,
            lanes: Lanes::new(options.lanes.max(1), options.batch_max.max(1)),
            bell: Bell::new(connect, &options.schema),
            starts: Mutex::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// What version the schema has, 0 for none, and which one this program brings it to. Changes
    /// nothing.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn versions(url: &str, options: &Options) -> Result<(i32, i32), OpenError> {
        schema::versions(&connect_options(url, options)?, options).await
    }

    /// Rings whenever another process has made runs claimable, and when the connection that
    /// listens was lost in between. A hint: what it misses, the next look into the store finds.
    #[must_use]
    pub fn woken(&self) -> watch::Receiver<u64> {
        self.0.bell.listen()
    }

    /// Closes the connections that are not in use. Calls under way end; later ones fail.
    pub async fn close(&self) {
        self.0.bell.close();
        self.0.pool.close().await;
    }

    /// Pretends that the last checkpoint of a run was written in this format.
    ///
    /// # Errors
    /// Those of any write.
    #[cfg(feature = "testkit")]
    pub async fn set_checkpoint_format(
        &self,
        run: &RunId,
        format: u16,
    ) -> swarm_core::port::store::Result<()> {
        let sql = "WITH of AS (UPDATE runs SET checkpoint_format = $2 WHERE id = $1 \
                   RETURNING seq, checkpoint_seq) \
                   UPDATE checkpoints c SET format = $2 FROM of \
                   WHERE c.run = of.seq AND c.seq = of.checkpoint_seq";
        self.pool()
            .rows(call::Again::Same, sql, |_| args!(run.as_str(), i32::from(format)))
            .await?;
        Ok(())
    }

    fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Remembers what a claimed run was started with.
    fn remember(&self, start: &NewRun) {
        let mut starts = self.0.starts.lock().expect("no panic while locked");
        if starts.len() >= STARTS_MAX {
            starts.clear();
        }
        starts.insert(start.id.clone(), Arc::new(start.clone()));
    }
}

fn connect_options(url: &str, options: &Options) -> Result<PgConnectOptions, OpenError> {
    use sqlx::ConnectOptions as _;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let schema = &options.schema;
    let starts_well = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if schema.len() > 40 || !starts_well || !schema.chars().all(is_name) {
        return Err(OpenError::SchemaName(schema.clone()));
    }
    // The driver would take any.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Url(sqlx::Error::Configuration("it is not PostgreSQL's".into())));
    }
    let connect: PgConnectOptions = url.parse().map_err(OpenError::Url)?;
    let ms = |duration: Duration| duration.as_millis().to_string();
    let mut connect = connect
        .application_name("devinswarm")
        .statement_cache_capacity(256)
        .disable_statement_logging()
        .options([
            ("search_path", schema.clone()),
            ("statement_timeout", ms(options.statement_timeout)),
            ("lock_timeout", ms(options.lock_timeout)),
            ("idle_in_transaction_session_timeout", ms(options.statement_timeout)),
            // The statements are few and their plans never depend on the values.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("jit", "off".to_owned()),
        ]);
    if options.synchronous == Synchronous::Off {
        connect = connect.options([("synchronous_commit", "off")]);
    }
    Ok(connect)
}

/// The values of one call, in the order of their numbers.
macro_rules! args {
    ($($value:expr),* $(,)?) => {{
        let mut args = ::sqlx::postgres::PgArguments::default();
        $(::sqlx::Arguments::add(&mut args, $value)?;)*
        Ok(args)
    }};
}
use args;

/// Why a piece of work in a transaction stopped: a refusal of ours, or a failure of PostgreSQL's.
#[derive(Debug)]
enum Fault {
    Store(Error),
    Sql(sqlx::Error),
}

/// The result of work in a transaction.
type Done<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// A transaction under way.
type Tx = PgConnection;

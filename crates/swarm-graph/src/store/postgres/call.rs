//! Calls: a connection for each, and what a failure means.
//!
//! Three things can go wrong. The server says no: nothing was done, and the caller hears why. The
//! server cannot do it now (it restarts, is read-only, or two calls waited for each other):
//! nothing was done, and the call is tried again. The answer is lost: it may have been done, so
//! only what can be done twice is tried again, and the caller of anything else hears
//! [`Error::Unknown`].
//!
//! A connection whose call was broken off, by an error or because its caller went away, is never
//! used again: it may still hold the answer to that call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr, SqlStr};
use swarm_core::id::RunId;
use swarm_core::port::store::{Error, Result};
use swarm_core::run::Epoch;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Done, Fault, Options, Tx};
use crate::store::rules;

/// A connection that lay idle for longer is tested before it is used.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long such a test may take.
const TEST_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Whether a call may be made again when its answer was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Again {
    /// It changes nothing.
    Read,
    /// Doing it twice is the same as doing it once.
    Same,
    /// It is not.
    Never,
}

/// The values of one call.
pub(super) type Args = std::result::Result<PgArguments, sqlx::error::BoxDynError>;

/// The connections of a process.
#[derive(Debug)]
pub(super) struct Pool {
    connect: PgConnectOptions,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
    /// Counts broken connections: whoever was idle when one broke is tested.
    broken: AtomicU64,
    patience: Duration,
    timeout: Duration,
}

#[derive(Debug)]
struct Idle {
    connection: Box<PgConnection>,
    since: Instant,
    broken: u64,
}

/// A connection for one call.
struct Lent<'p> {
    pool: &'p Pool,
    connection: Box<PgConnection>,
    _permit: SemaphorePermit<'p>,
}

impl Lent<'_> {
    /// Gives it back: its call has ended well.
    fn keep(self) {
        let broken = self.pool.broken.load(Ordering::Relaxed);
        let idle = Idle { connection: self.connection, since: Instant::now(), broken };
        self.pool.idle.lock().expect("no panic while locked").push(idle);
    }

    /// Drops it: what it holds is unknown.
    fn discard(self) {
        self.pool.broken.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an error means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// The server said no.
    Refused,
    /// Two calls were in each other's way; nothing was done.
    Clash,
    /// This server cannot do it now; nothing was done.
    Elsewhere,
    /// Nobody knows.
    Lost,
}

fn judge(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("40001" | "40P01") => Verdict::Clash,
            // Read-only after a failover; too many connections; starting up.
            Some("25006" | "53300" | "57P03") => Verdict::Elsewhere,
            // Terminated, perhaps between the commit and its answer.
            Some("57P01" | "57P02" | "57P05") => Verdict::Lost,
            Some(code) if code.starts_with("08") => Verdict::Lost,
            _ => Verdict::Refused,
        },
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Verdict::Lost,
        _ => Verdict::Refused,
    }
}

/// Whether connecting may succeed a moment later.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        _ => matches!(judge(error), Verdict::Elsewhere | Verdict::Lost),
    }
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "PostgreSQL did not answer in time",
    ))
}

/// One call that is tried until it succeeds, is refused, or patience ends.
struct Trial {
    deadline: Instant,
    pause: Duration,
    again: Again,
    /// Whether an answer was lost.
    lost: bool,
}

impl Trial {
    /// Waits for the next try, or says that there is none.
    async fn after(&mut self, error: sqlx::Error, verdict: Verdict) -> Done<()> {
        self.lost |= verdict == Verdict::Lost && self.again != Again::Read;
        let must_stop = verdict == Verdict::Lost && self.again == Again::Never;
        if must_stop || Instant::now() + self.pause >= self.deadline {
            return Err(if self.lost {
                Error::Unknown(Box::new(error)).into()
            } else {
                Error::Backend(Box::new(error)).into()
            });
        }
        tracing::debug!(%error, ?verdict, "PostgreSQL is asked again.");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

impl Pool {
    pub(super) fn new(connect: PgConnectOptions, options: &Options) -> Self {
        Self {
            connect,
            idle: Mutex::default(),
            permits: Semaphore::new(options.connections.max(2) as usize),
            broken: AtomicU64::new(0),
            patience: options.patience,
            // The server ends a statement at its own timeout; this is for one that is gone.
            timeout: options.statement_timeout + Duration::from_secs(5),
        }
    }

    fn trial(&self, again: Again) -> Trial {
        let deadline = Instant::now() + self.patience;
        Trial { deadline, pause: PAUSE_MIN, again, lost: false }
    }

    /// Runs one statement and reads all of its answer. `args` is told whether this is a second
    /// try after a lost answer.
    pub(super) async fn rows(
        &self,
        again: Again,
        sql: impl SqlSafeStr + Send,
        args: impl Fn(bool) -> Args + Send + Sync,
    ) -> Result<Vec<PgRow>> {
        match self.ask(again, sql, args).await {
            Ok(rows) => Ok(rows),
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Sql(error)) => Err(Error::Backend(Box::new(error))),
        }
    }

    /// As [`rows`](Self::rows); a refusal of the server's comes back as [`Fault::Sql`].
    pub(super) async fn ask(
        &self,
        again: Again,
        sql: impl SqlSafeStr + Send,
        args: impl Fn(bool) -> Args + Send + Sync,
    ) -> Done<Vec<PgRow>> {
        let sql: SqlStr = sql.into_sql_str();
        let mut trial = self.trial(again);
        loop {
            let mut lent = match self.lend().await {
                Ok(lent) => lent,
                Err(Fault::Sql(error)) if is_passing(&error) => {
                    trial.after(error, Verdict::Elsewhere).await?;
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            let args = args(trial.lost).map_err(sqlx::Error::Encode)?;
            let call = lent.connection.fetch_all(sqlx::query_with(sql.clone(), args));
            let error = match tokio::time::timeout(self.timeout, call).await {
                Ok(Ok(rows)) => {
                    lent.keep();
                    return Ok(rows);
                }
                Ok(Err(error)) => error,
                Err(_) => timed_out(),
            };
            self.failed(lent, &mut trial, error).await?;
        }
    }

    /// After a failed call: an error if that was the last try.
    async fn failed(&self, lent: Lent<'_>, trial: &mut Trial, error: sqlx::Error) -> Done<()> {
        let verdict = judge(&error);
        match verdict {
            Verdict::Refused => {
                lent.keep();
                Err(Fault::Sql(error))
            }
            Verdict::Clash => {
                lent.keep();
                trial.after(error, verdict).await
            }
            Verdict::Elsewhere | Verdict::Lost => {
                lent.discard();
                trial.after(error, verdict).await
            }
        }
    }

    /// Runs `work` in a transaction of several round trips; `Ok` once that is durable. `work` may
    /// run more than once.
    pub(super) async fn transact<T, F>(&self, work: F) -> Result<T>
    where
        T: Send,
        F: for<'c> Fn(&'c mut Tx) -> BoxFuture<'c, Done<T>> + Send + Sync,
    {
        match self.try_transact(&work).await {
            Ok(value) => Ok(value),
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Sql(error)) => Err(Error::Backend(Box::new(error))),
        }
    }

    async fn try_transact<T, F>(&self, work: &F) -> Done<T>
    where
        T: Send,
        F: for<'c> Fn(&'c mut Tx) -> BoxFuture<'c, Done<T>> + Send + Sync,
    {
        // Until the commit is sent, nothing is done.
        let mut trial = self.trial(Again::Read);
        loop {
            let mut lent = match self.lend().await {
                Ok(lent) => lent,
                Err(Fault::Sql(error)) if is_passing(&error) => {
                    trial.after(error, Verdict::Elsewhere).await?;
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            let attempt = async {
                let connection = &mut lent.connection;
                connection.execute("BEGIN").await?;
                let value = work(connection).await?;
                Ok::<_, Fault>(value)
            };
            let done = tokio::time::timeout(self.timeout, attempt).await;
            let error = match done.unwrap_or_else(|_| Err(timed_out().into())) {
                Ok(value) => {
                    let commit = lent.connection.execute("COMMIT");
                    let ended = tokio::time::timeout(self.timeout, commit).await;
                    let Err(error) = ended.unwrap_or_else(|_| Err(timed_out())) else {
                        lent.keep();
                        return Ok(value);
                    };
                    if judge(&error) == Verdict::Lost {
                        lent.discard();
                        return Err(Error::Unknown(Box::new(error)).into());
                    }
                    error
                }
                Err(Fault::Store(refusal)) => {
                    // Without it the connection is of no use, and the transaction ends with it.
                    if lent.connection.execute("ROLLBACK").await.is_ok() {
                        lent.keep();
                    }
                    return Err(refusal.into());
                }
                Err(Fault::Sql(error)) => error,
            };
            if matches!(judge(&error), Verdict::Refused | Verdict::Clash)
                && lent.connection.execute("ROLLBACK").await.is_err()
            {
                lent.discard();
                return Err(Fault::Sql(error));
            }
            self.failed(lent, &mut trial, error).await?;
        }
    }

    /// A connection that works as far as we know.
    async fn lend(&self) -> Done<Lent<'_>> {
        let permit = tokio::time::timeout(self.timeout, self.permits.acquire()).await;
        let permit = match permit {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Error::Backend("the store is closed".into()).into()),
            Err(_) => return Err(Error::Backend("all connections are in use".into()).into()),
        };
        loop {
            let idle = self.idle.lock().expect("no panic while locked").pop();
            let Some(mut idle) = idle else { break };
            let broken = self.broken.load(Ordering::Relaxed);
            if idle.broken == broken && idle.since.elapsed() < TRUSTED
                || is_alive(&mut idle.connection).await
            {
                return Ok(Lent { pool: self, connection: idle.connection, _permit: permit });
            }
        }
        let connection = tokio::time::timeout(self.timeout, self.open()).await;
        let connection = connection.unwrap_or_else(|_| Err(timed_out()))?;
        Ok(Lent { pool: self, connection: Box::new(connection), _permit: permit })
    }

    /// Opens a connection to a server that writes.
    pub(super) async fn open(&self) -> std::result::Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect.connect().await?;
        let sql = "SELECT current_setting('transaction_read_only')::boolean";
        if sqlx::query_scalar(sql).fetch_one(&mut connection).await? {
            return Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::ReadOnlyFilesystem,
                "PostgreSQL is read-only: a replica, or a failover under way",
            )));
        }
        Ok(connection)
    }

    pub(super) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().expect("no panic while locked"));
        for idle in idle {
            // Gone already is closed as well.
            let _ = idle.connection.close().await;
        }
    }
}

async fn is_alive(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// What a refusal of a function's says about a run.
pub(super) fn refusal(fault: Fault, run: &RunId, ours: Epoch) -> Error {
    let error = match fault {
        Fault::Store(error) => return error,
        Fault::Sql(error) => error,
    };
    let Some(said) = error.as_database_error() else { return Error::Backend(Box::new(error)) };
    let text = said.message().to_owned();
    match said.code().as_deref() {
        Some("SW001") => Error::NotFound { what: "run", id: text },
        Some("SW002") => {
            let format = text.parse().unwrap_or(u16::MAX);
            rules::check_format(run, format)
                .err()
                .unwrap_or_else(|| Error::Backend(Box::new(error)))
        }
        Some("SW003") => {
            let found = Epoch(text.parse().unwrap_or(0));
            Error::Fenced { run: run.clone(), ours, found }
        }
        Some("SW004") => Error::NotFound { what: "parent run", id: text },
        Some("22021") => rules::invalid("text", run, "PostgreSQL stores no zero character"),
        _ => Error::Backend(Box::new(error)),
    }
}

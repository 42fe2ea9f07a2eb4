//! The one thread of a process that writes: it commits together what waits together.
//!
//! A sync to disk costs the same for one write as for fifty. While one is under way, requests
//! queue up; then the writer takes them all, runs each behind a savepoint, so that a failing one
//! leaves the others alone, commits once, and only then answers any of them. A caller that stops
//! waiting does not stop its write.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, ErrorCode};
use swarm_core::port::store::{Error, Result};
use tokio::sync::{oneshot, watch};

#[cfg(feature = "testkit")]
use super::fault::Faults;
use super::schema::Place;
use super::tx::Tx;
use super::{Done, closed};

/// The way to the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` once closed. What waits in the queue is bounded by who waits for an answer.
    requests: Mutex<Option<Sender<Box<dyn Request>>>>,
    /// Its sender goes when the thread ends.
    ended: watch::Receiver<()>,
    #[cfg(feature = "testkit")]
    pub(super) faults: Arc<Faults>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        connection: Connection,
        place: Place,
        batch_max: usize,
    ) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel();
        let (running, ended) = watch::channel(());
        #[cfg(feature = "testkit")]
        let faults = Arc::new(Faults::default());
        let desk = Desk {
            connection,
            place,
            batch_max,
            #[cfg(feature = "testkit")]
            faults: faults.clone(),
        };
        std::thread::Builder::new().name("sqlite-writer".to_owned()).spawn(move || {
            desk.serve(&queue);
            drop(running);
        })?;
        Ok(Self {
            requests: Mutex::new(Some(requests)),
            ended,
            #[cfg(feature = "testkit")]
            faults,
        })
    }

    /// Runs `work` in a transaction; `Ok` once that is durable.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Done<T> + Send + 'static,
    {
        #[cfg(feature = "testkit")]
        self.faults.join();
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Work { work: Some(work), done: None, reply });
        let is_sent = {
            let requests = self.requests.lock().expect("nothing panics while it holds the queue");
            requests.as_ref().is_some_and(|queue| queue.send(request).is_ok())
        };
        if is_sent && let Ok(answer) = answer.await {
            return answer;
        }
        // Who has died hears nothing any more.
        #[cfg(feature = "testkit")]
        if self.faults.is_dead() {
            std::future::pending::<()>().await;
        }
        Err(if is_sent {
            Error::Unknown("the writer ended before it answered".into())
        } else {
            closed()
        })
    }

    /// Finishes what waits, then ends the thread.
    pub(super) async fn close(&self) {
        self.requests.lock().expect("nothing panics while it holds the queue").take();
        // Nothing is ever sent: this returns when the sender goes.
        let _ = self.ended.clone().changed().await;
    }
}

/// How a transaction ended.
enum End {
    Committed,
    /// Nothing of it is there.
    Failed(Arc<rusqlite::Error>),
    /// The commit itself failed: it may be there or not.
    Unknown(Arc<rusqlite::Error>),
}

/// One caller's wish.
trait Request: Send {
    /// Does it inside a transaction; `false` if that part must be undone.
    fn run(&mut self, tx: &Tx<'_>) -> bool;

    /// Tells the caller.
    fn answer(self: Box<Self>, end: &End);
}

struct Work<T, F> {
    work: Option<F>,
    done: Option<Done<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Request for Work<T, F>
where
    T: Send,
    F: FnOnce(&Tx<'_>) -> Done<T> + Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let done = work(tx);
        let keep = done.is_ok();
        self.done = Some(done);
        keep
    }

    fn answer(self: Box<Self>, end: &End) {
        let answer = match (self.done, end) {
            (Some(Err(fault)), _) => Err(fault.into()),
            (Some(Ok(value)), End::Committed) => Ok(value),
            (Some(Ok(_)), End::Unknown(error)) => Err(Error::Unknown(Box::new(Arc::clone(error)))),
            (Some(Ok(_)) | None, End::Failed(error)) | (None, End::Unknown(error)) => {
                Err(Error::Backend(Box::new(Arc::clone(error))))
            }
            (None, End::Committed) => Err(Error::Backend("the request was not run".into())),
        };
        // Nobody waits for it any more: it is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// The thread's own things.
struct Desk {
    connection: Connection,
    place: Place,
    batch_max: usize,
    #[cfg(feature = "testkit")]
    faults: Arc<Faults>,
}

/// Passes a crash point of the writer: `None` from its function if the process dies there.
macro_rules! die {
    ($desk:expr, $point:literal) => {
        #[cfg(feature = "testkit")]
        {
            const { assert!(crate::testkit::is_crash_point($point), "not in CRASH_POINTS") };
            if $desk.faults.dies_at($point) {
                return None;
            }
        }
    };
}

impl Desk {
    fn serve(mut self, queue: &Receiver<Box<dyn Request>>) {
        let mut batch = Vec::new();
        while let Ok(first) = queue.recv() {
            batch.push(first);
            batch.extend(queue.try_iter().take(self.batch_max.saturating_sub(1)));
            // A process that died answers nobody, and its transaction is undone.
            let Some(end) = self.transact(&mut batch) else { return };
            for request in batch.drain(..) {
                request.answer(&end);
            }
            if !matches!(end, End::Committed) {
                self.reconnect();
            }
        }
        // The last one out folds the log into the file; a failure leaves it to the next opening.
        let _ = self.connection.close();
    }

    /// Runs all requests in one transaction.
    fn transact(&self, batch: &mut [Box<dyn Request>]) -> Option<End> {
        die!(self, "sqlite:before-begin");
        let failed = |error| Some(End::Failed(Arc::new(error)));
        if let Err(error) = self.control("BEGIN IMMEDIATE") {
            return failed(error);
        }
        die!(self, "sqlite:begun");
        let has_any = match self.run_all(batch) {
            Ok(has_any) => has_any,
            Err(error) => return failed(error),
        };
        #[cfg(feature = "testkit")]
        if self.faults.is_dead() {
            return None;
        }
        die!(self, "sqlite:before-commit");
        if !has_any {
            return self.control("ROLLBACK").map_or_else(failed, |()| Some(End::Committed));
        }
        let end = match self.control("COMMIT") {
            Ok(()) => End::Committed,
            Err(error) => self.not_committed(error),
        };
        die!(self, "sqlite:committed");
        Some(end)
    }

    /// Whether anything of the requests is to be kept.
    fn run_all(
        &self,
        batch: &mut [Box<dyn Request>],
    ) -> std::result::Result<bool, rusqlite::Error> {
        #[cfg(not(feature = "testkit"))]
        let tx = Tx::new(&self.connection);
        #[cfg(feature = "testkit")]
        let tx = Tx::faulty(&self.connection, &self.faults);
        if let [request] = batch {
            let keep = request.run(&tx);
            return self.still_open().map(|()| keep);
        }
        let mut has_any = false;
        for request in batch {
            self.control("SAVEPOINT request")?;
            let keep = request.run(&tx);
            self.still_open()?;
            if !keep {
                self.control("ROLLBACK TO request")?;
            }
            self.control("RELEASE request")?;
            has_any |= keep;
        }
        Ok(has_any)
    }

    /// When the disk is full or fails, SQLite undoes the whole transaction by itself; a request
    /// that ran after that would be committed alone.
    fn still_open(&self) -> std::result::Result<(), rusqlite::Error> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK);
        let why = "the file failed, and the transaction was undone".to_owned();
        Err(rusqlite::Error::SqliteFailure(code, Some(why)))
    }

    /// A full disk is told before the mark of the commit is written; after any other failure it
    /// may or may not be there.
    fn not_committed(&self, error: rusqlite::Error) -> End {
        let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        if is_full && (self.connection.is_autocommit() || self.control("ROLLBACK").is_ok()) {
            return End::Failed(Arc::new(error));
        }
        End::Unknown(Arc::new(error))
    }

    fn control(&self, sql: &'static str) -> std::result::Result<(), rusqlite::Error> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// After a failure of the file itself, a fresh connection is the one thing that may help.
    fn reconnect(&mut self) {
        match self.place.connect() {
            Ok(fresh) => self.connection = fresh,
            Err(error) => tracing::error!(%error, "The store cannot be opened again."),
        }
    }
}

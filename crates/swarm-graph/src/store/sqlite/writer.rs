//! The one task of a process that writes: it commits together what waits together.
//!
//! A sync to disk costs the same for one write as for fifty. While one is under way, requests
//! queue up; then the writer takes them all, runs each behind a savepoint, so that a failing one
//! leaves the others alone, commits once, and only then answers any of them. A caller that stops
//! waiting does not stop its write.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use swarm_core::port::store::{Error, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Done;

/// How many requests may wait before callers wait for a place in the queue.
const QUEUE_LEN: usize = 1024;

/// The way to the writing task.
#[derive(Debug)]
pub(super) struct Writer {
    requests: mpsc::Sender<Box<dyn Request>>,
    closing: CancellationToken,
    task: TaskTracker,
}

impl Writer {
    /// Starts the task.
    pub(super) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        batch_max: usize,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE_LEN);
        let closing = CancellationToken::new();
        let task = TaskTracker::new();
        let desk = Desk { connection, options, batch_max };
        task.spawn(desk.serve(queue, closing.clone()));
        task.close();
        Self { requests, closing, task }
    }

    /// Runs `work` in a transaction; `Ok` once that is durable.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Done<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Work { work: Some(work), done: None, reply };
        if self.requests.send(Box::new(request)).await.is_err() {
            return Err(Error::Backend("the store is closed".into()));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Error::Unknown("the writer ended before it answered".into())))
    }

    /// Finishes what waits, then ends the task.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }
}

/// How a transaction ended.
enum End {
    Committed,
    /// Nothing of it is there.
    Failed(Arc<sqlx::Error>),
    /// The commit itself failed: it may be there or not.
    Unknown(Arc<sqlx::Error>),
}

/// One caller's wish.
#[async_trait]
trait Request: Send {
    /// Does it inside a transaction; `false` if that part must be undone.
    async fn run(&mut self, tx: &mut SqliteConnection) -> bool;

    /// Tells the caller.
    fn answer(self: Box<Self>, end: &End);
}

struct Work<T, F> {
    work: Option<F>,
    done: Option<Done<T>>,
    reply: oneshot::Sender<Result<T>>,
}

#[async_trait]
impl<T, F> Request for Work<T, F>
where
    T: Send,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Done<T>> + Send,
{
    async fn run(&mut self, tx: &mut SqliteConnection) -> bool {
        let Some(work) = self.work.take() else { return false };
        let done = work(tx).await;
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

/// The task's own things.
struct Desk {
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    batch_max: usize,
}

impl Desk {
    async fn serve(
        mut self,
        mut queue: mpsc::Receiver<Box<dyn Request>>,
        closing: CancellationToken,
    ) {
        let mut batch = Vec::new();
        loop {
            let taken = tokio::select! {
                taken = queue.recv_many(&mut batch, self.batch_max) => taken,
                () = closing.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
            };
            if taken == 0 {
                break;
            }
            let end = self.transact(&mut batch).await;
            for request in batch.drain(..) {
                request.answer(&end);
            }
            if !matches!(end, End::Committed) {
                self.reconnect().await;
            }
        }
        // The last one out folds the log into the file; a failure leaves it to the next opening.
        let _ = self.connection.close().await;
    }

    /// Runs all requests in one transaction.
    async fn transact(&mut self, batch: &mut [Box<dyn Request>]) -> End {
        match self.attempt(batch).await {
            Ok(end) => end,
            Err(error) => End::Failed(Arc::new(error)),
        }
    }

    async fn attempt(
        &mut self,
        batch: &mut [Box<dyn Request>],
    ) -> std::result::Result<End, sqlx::Error> {
        let mut tx = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        if let [request] = batch {
            if !request.run(&mut tx).await {
                tx.rollback().await?;
                return Ok(End::Committed);
            }
        } else {
            for request in batch {
                let mut savepoint = tx.begin().await?;
                if request.run(&mut savepoint).await {
                    savepoint.commit().await?;
                } else {
                    savepoint.rollback().await?;
                }
            }
        }
        Ok(match tx.commit().await {
            Ok(()) => End::Committed,
            Err(error) => End::Unknown(Arc::new(error)),
        })
    }

    /// After a failure of the file itself, a fresh connection is the one thing that may help.
    async fn reconnect(&mut self) {
        match self.options.connect().await {
            Ok(fresh) => self.connection = fresh,
            Err(error) => tracing::error!(%error, "The store cannot be opened again."),
        }
    }
}

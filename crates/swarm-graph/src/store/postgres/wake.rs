//! The bell: what tells other processes that there is work, and hears it from them.
//!
//! A `NOTIFY` is sent beside the commits and not in them: PostgreSQL lets only one transaction at a
//! time commit a notification. One says what many would; a lost one is found by the next look.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// At most one notification in so long.
const COALESCE: Duration = Duration::from_millis(20);
/// How long a listener waits before it connects again.
const RETRY: Duration = Duration::from_millis(500);

/// Nobody is telling.
const SILENT: u8 = 0;
/// Somebody is.
const TELLING: u8 = 1;
/// Somebody is, and shall do it once more.
const AGAIN: u8 = 2;

#[derive(Debug)]
pub(super) struct Bell {
    parts: Arc<Parts>,
    heard: watch::Sender<u64>,
    listens: std::sync::Once,
}

#[derive(Debug)]
struct Parts {
    connect: PgConnectOptions,
    channel: String,
    /// Who we are: nobody listens to himself.
    own: String,
    telling: AtomicU8,
    connection: Mutex<Option<PgConnection>>,
    closing: CancellationToken,
}

impl Bell {
    pub(super) fn new(connect: PgConnectOptions, schema: &str) -> Self {
        let parts = Parts {
            connect: connect.options([("synchronous_commit", "off")]),
            channel: format!("{schema}_woken"),
            own: format!("{:016x}", RandomState::new().build_hasher().finish()),
            telling: AtomicU8::new(SILENT),
            connection: Mutex::new(None),
            closing: CancellationToken::new(),
        };
        Self {
            parts: Arc::new(parts),
            heard: watch::Sender::new(0),
            listens: std::sync::Once::new(),
        }
    }

    /// Tells the other processes, soon.
    pub(super) fn ring(&self) {
        let parts = &self.parts;
        if parts.closing.is_cancelled() {
            return;
        }
        if parts.telling.fetch_max(TELLING, Ordering::SeqCst) == SILENT {
            tokio::spawn(tell(parts.clone()));
        } else {
            parts.telling.store(AGAIN, Ordering::SeqCst);
        }
    }

    /// Listens from the first call on.
    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        self.listens.call_once(|| {
            tokio::spawn(listen(self.parts.clone(), self.heard.clone()));
        });
        self.heard.subscribe()
    }

    pub(super) fn close(&self) {
        self.parts.closing.cancel();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.close();
    }
}

async fn tell(parts: Arc<Parts>) {
    loop {
        parts.telling.store(TELLING, Ordering::SeqCst);
        if let Err(error) = notify(&parts).await {
            tracing::debug!(%error, "Other processes were not told; they will look.");
            *parts.connection.lock().await = None;
        }
        tokio::select! {
            () = tokio::time::sleep(COALESCE) => {}
            () = parts.closing.cancelled() => return,
        }
        let ended =
            parts.telling.compare_exchange(TELLING, SILENT, Ordering::SeqCst, Ordering::SeqCst);
        if ended.is_ok() {
            return;
        }
    }
}

async fn notify(parts: &Parts) -> Result<(), sqlx::Error> {
    let mut connection = parts.connection.lock().await;
    if connection.is_none() {
        *connection = Some(parts.connect.connect().await?);
    }
    if let Some(connection) = connection.as_mut() {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(&parts.channel)
            .bind(&parts.own)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Listens until the store is closed; what may have been missed while it was not connected is
/// taken for heard.
async fn listen(parts: Arc<Parts>, heard: watch::Sender<u64>) {
    let ring = || heard.send_modify(|count| *count += 1);
    loop {
        let lost = tokio::select! {
            lost = hear(&parts, &ring) => lost,
            () = parts.closing.cancelled() => break,
        };
        if let Err(error) = lost {
            tracing::debug!(%error, "Connecting the listener again.");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = parts.closing.cancelled() => break,
        }
    }
    if let Some(connection) = parts.connection.lock().await.take() {
        // Gone already is closed as well.
        let _ = connection.close().await;
    }
}

async fn hear(parts: &Parts, ring: &(impl Fn() + Sync)) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(parts.connect.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(&parts.channel).await?;
    ring();
    while let Some(said) = listener.try_recv().await? {
        if said.payload() != parts.own {
            ring();
        }
    }
    Ok(())
}

//! The heartbeat of a claimed run: renews its lease, and stops the work when the lease is lost
//! or someone cancels.
//!
//! A worker that cannot reach the store fences itself before its lease ends: another worker may
//! be given the run the moment after.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use swarm_core::port::store::{self, SignalKind};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Engine;
use crate::node::RunScope;

/// A beating heart; it stops when this is dropped.
pub(crate) struct Heartbeat {
    lost: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("lost", &self.is_lost()).finish()
    }
}

impl Heartbeat {
    /// Whether the run is no longer ours.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

/// Starts to renew the lease of a run; fires `stop` when the work must end.
pub(crate) fn start(engine: &Engine, scope: &Arc<RunScope>, stop: CancellationToken) -> Heartbeat {
    let lost = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn(beat(engine.clone(), scope.clone(), stop, lost.clone()));
    Heartbeat { lost, _task: AbortOnDropHandle::new(task) }
}

async fn beat(
    engine: Engine,
    scope: Arc<RunScope>,
    stop: CancellationToken,
    lost: Arc<AtomicBool>,
) {
    let run = &scope.run;
    let (store, clock, ttl) = (engine.store(), engine.clock(), engine.lease_ttl());
    let mut renewed_at = clock.now();
    loop {
        clock.sleep(ttl.mul_f64(0.3)).await;
        let now = clock.now();
        match store.renew(run, scope.epoch, now, ttl).await {
            Ok(()) => {
                renewed_at = now;
                let fence_at = now + ttl.mul_f64(0.8);
                scope.fence_at.store(fence_at.as_millis(), Ordering::SeqCst);
            }
            Err(store::Error::Fenced { .. } | store::Error::NotFound { .. }) => {
                tracing::warn!(run_id = %run, "Lease lost to another worker.");
                lost.store(true, Ordering::SeqCst);
                stop.cancel();
                return;
            }
            Err(error) if clock.now().since(renewed_at) >= ttl.mul_f64(0.8) => {
                tracing::warn!(run_id = %run, %error, "Lease not renewed in time; the work stops.");
                lost.store(true, Ordering::SeqCst);
                stop.cancel();
                return;
            }
            Err(error) => {
                tracing::warn!(run_id = %run, %error, "Lease not renewed; trying again.")
            }
        }
        // What cannot be read now is read with the next beat.
        let signals = store.signals(run).await.unwrap_or_default();
        if signals.iter().any(|signal| matches!(signal.kind, SignalKind::Cancel { .. })) {
            stop.cancel();
        }
    }
}

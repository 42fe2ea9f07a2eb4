//! Pools: how many attempts of nodes may be at work at once in this process, whichever runs they
//! belong to.
//!
//! What a newcomer gets wrong: a pool has no size of its own. It counts, and each graph says up to
//! which count its own attempts may begin; so two graphs that disagree both get what they say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::graph::Pool;

/// The pools of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    at_work: Mutex<BTreeMap<String, u32>>,
    freed: Notify,
}

/// A place in a pool; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pools: Pools,
    name: String,
}

impl Pools {
    /// Returns once there is a place.
    pub(crate) async fn enter(&self, pool: &Pool) -> Place {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // Whatever is freed from now on is heard.
            freed.as_mut().enable();
            if let Some(place) = self.try_enter(pool) {
                return place;
            }
            freed.await;
        }
    }

    fn try_enter(&self, pool: &Pool) -> Option<Place> {
        let mut at_work = self.0.at_work.lock().expect("no panic while locked");
        let count = at_work.entry(pool.name.clone()).or_default();
        if *count >= pool.limit {
            return None;
        }
        *count += 1;
        Some(Place { pools: self.clone(), name: pool.name.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.pools.0;
        if let Some(count) =
            shared.at_work.lock().expect("no panic while locked").get_mut(&self.name)
        {
            *count = count.saturating_sub(1);
        }
        shared.freed.notify_waiters();
    }
}

//! Virtual time and seeded chance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// A clock that follows tokio's: on a runtime with paused time, sleeping takes no real time and
/// moves the clock by exactly what was slept.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    started: Instant,
    base: Timestamp,
}

impl VirtualClock {
    /// A clock that shows `base` now.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time.
    #[must_use]
    pub fn at(base: Timestamp) -> Self {
        Self { started: Instant::now(), base }
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until it is advanced; a sleep ends once it has been advanced so far.
#[derive(Clone, Debug)]
pub struct ManualClock(watch::Sender<Timestamp>);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(watch::Sender::new(now))
    }

    /// Moves the clock; sleeps that are over by then end.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = *now + by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        // The sender is ours: it is not closed while we wait.
        let _ = self.0.subscribe().wait_for(|now| *now >= until).await;
    }
}

/// SplitMix64: a small generator of good quality, the same numbers from the same seed
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

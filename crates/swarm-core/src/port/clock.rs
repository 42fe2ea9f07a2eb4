//! Time, chance and their fakes' seam.

use std::time::Duration;

use async_trait::async_trait;

use crate::time::Timestamp;

/// What time it is, and waiting for it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// This moment.
    fn now(&self) -> Timestamp;

    /// Returns once `duration` has passed on this clock.
    async fn sleep(&self, duration: Duration);
}

/// Chance: jitter and fresh ids.
pub trait Entropy: Send + Sync + 'static {
    /// The next random number.
    fn next_u64(&self) -> u64;
}

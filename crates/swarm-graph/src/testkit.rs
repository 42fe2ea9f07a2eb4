//! Fakes and faults, for tests of your own nodes and graphs.
//!
//! - [`VirtualClock`] follows tokio's clock, which a test may pause: then waiting takes no time.
//! - [`SeededEntropy`] draws the same numbers from the same seed.
//! - [`MortalStore`] dies at a chosen write, before or after it took effect, as a process does.
//!   Run a graph with it, run it on with a new engine on the store beneath, and compare.

mod clock;
mod mortal;

pub use self::clock::{SeededEntropy, VirtualClock};
pub use self::mortal::{Death, MortalStore};

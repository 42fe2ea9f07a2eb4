//! Fakes and faults, for tests of your own nodes and graphs.
//!
//! - [`crash_everywhere`] tests a graph of yours with a crash at every point, in a few lines; its
//!   [`World`] counts what happens outside.
//! - [`VirtualClock`] follows tokio's clock, which a test may pause: then waiting takes no time.
//! - [`SeededEntropy`] draws the same numbers from the same seed.
//! - [`MortalStore`] dies at a chosen write, before or after it took effect, as a process does.
//!   Run a graph with it, run it on with a new engine on the store beneath, and compare.
//! - [`live`] runs a process until it crashes at one of [`CRASH_POINTS`]: the instructions of the
//!   engine after which something may be half done, finer than writes.
//! - [`ManualClock`] stands still until it is told, for stores that need real time themselves.
//! - `postgres::Server` (feature `postgres`) is a real server for the time of the tests.

mod clock;
mod crash;
mod everywhere;
mod mortal;
#[cfg(feature = "postgres")]
pub mod postgres;
mod world;

pub use self::clock::{ManualClock, SeededEntropy, VirtualClock};
#[cfg(feature = "sqlite")]
pub(crate) use self::crash::LifeHandle;
pub use self::crash::{CRASH_POINTS, Life, is_crash_point, live};
pub(crate) use self::crash::{life, reach};
pub use self::everywhere::{Broken, CrashTest, Disk, Report, crash_everywhere};
pub use self::mortal::{Death, MortalStore};
pub use self::world::World;

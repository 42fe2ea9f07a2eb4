//! The stores: where runs, checkpoints, effects, questions, signals and events are kept.
//!
//! [`memory`] forgets all with the process; [`sqlite`] is one file that survives it and may be
//! shared by processes of one machine; [`postgres`] is for many machines. What all must do is written down once, as the port's
//! documentation ([`swarm_core::port::store`]) and as clauses that any backend can be held to
//! ([`conformance`], feature `testkit`).

#[cfg(feature = "testkit")]
pub mod conformance;
pub mod dump;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
mod rules;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod stored;

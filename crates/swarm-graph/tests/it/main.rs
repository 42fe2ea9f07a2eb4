//! What the crate does, through its public interface. One module per theme.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod crash;
mod engine;
mod loading;
mod rig;
mod shop;
mod store;
mod store_history;
mod store_sqlite;

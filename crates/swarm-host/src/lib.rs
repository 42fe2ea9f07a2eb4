//! The host: node kinds of the roles, configuration, wiring, command line.
//!
//! It is a library with a small `main.rs`, so that a host of your own, with other node kinds or
//! other graphs, is about twenty lines. The rules are not here: what may merge, what needs a
//! person and what a run may spend is decided in `swarm-core`.

pub mod agent;
pub mod cli;
pub mod command;
pub mod config;
pub mod defaults;
pub mod dev;
pub mod handover;
pub mod life;
pub mod manager;
pub mod ops;
pub mod order;
pub mod parts;
pub mod progress;
pub mod reviewer;
mod start;
pub mod telemetry;
pub mod wire;
pub mod worker;

pub use start::start;
pub use wire::{Host, HostBuilder};

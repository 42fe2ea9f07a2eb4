//! Durable, typed, YAML-defined graphs for long-running agent work.

pub mod check;
pub mod defect;
pub mod dot;
mod drive;
pub mod engine;
pub mod expr;
pub mod graph;
mod heartbeat;
pub mod library;
pub mod live;
pub mod node;
mod plan;
mod question;
pub mod registry;
mod resume;
pub mod schema;
mod settle;
mod spec;
pub mod store;
pub mod system;
#[cfg(feature = "testkit")]
pub mod testkit;
mod timeout;
pub mod worker;

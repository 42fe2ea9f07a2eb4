//! Durable, typed, YAML-defined graphs for long-running agent work.

pub mod check;
pub mod defect;
pub mod dot;
pub mod engine;
pub mod expr;
pub mod graph;
pub mod live;
pub mod node;
pub mod plan;
pub mod registry;
pub mod resume;
pub mod schema;
pub mod spec;
pub mod store;

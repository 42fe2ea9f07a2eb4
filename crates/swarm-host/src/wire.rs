//! The one place that chooses implementations.

mod models;

pub use models::ModelSource;

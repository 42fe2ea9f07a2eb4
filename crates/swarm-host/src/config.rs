//! Configuration: one `swarm.yaml`, the environment over it, flags over both.
//!
//! This is the only reader of the environment. Secrets come from the environment or from files
//! of their own, never from `swarm.yaml`, and never leave [`secrecy::SecretString`] but for the
//! request that needs them.

mod check;
mod defect;
mod environment;
mod file;
mod model;
mod semantics;
mod settings;
mod tree;
mod value;

pub use check::nearest;
pub use defect::{Defect, Defects};
pub use environment::Environment;
pub use file::{
    Budget, Fallback, File, Keep, Model, Models, People, Policy, Price, Provider, Repository,
    Retention, Retries, Role, Roles, Sandbox, Timeouts, Worker,
};
pub use model::ModelChoice;
pub use settings::{Error, Overrides, Settings, Shown, load, schema};
pub use tree::Place;
pub use value::{Address, Span, Variable};

//! The tools against real peers: HTTP on loopback, git, sandboxes, files.

mod model;
mod model_record;

//! The tools against real peers: HTTP on loopback, git, sandboxes, files.

mod forge;
mod git;
mod model;
mod model_record;
mod repo;
mod workspace;

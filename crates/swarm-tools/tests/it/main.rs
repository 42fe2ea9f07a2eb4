//! The tools against real peers: HTTP on loopback, git, sandboxes, files.

mod forge;
mod git;
mod model;
mod model_record;
mod repo;
mod workspace;
mod checks;
mod model;
mod model_record;
mod toolbox;
mod toolbox_paths;
mod toolbox_sandbox;

//! The tools against real peers: HTTP on loopback, git, sandboxes, files.

mod checks;
mod model;
mod model_record;
mod toolbox;
mod toolbox_paths;
mod toolbox_sandbox;

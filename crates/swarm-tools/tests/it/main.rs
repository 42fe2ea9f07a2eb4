//! The tools against real peers: HTTP on loopback, git, sandboxes, files.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod checks;
mod crash;
mod forge;
mod git;
mod model;
mod model_record;
mod repo;
mod sandbox;
mod sandbox_life;
mod sandbox_limits;
mod sandbox_tools;
mod sandbox_walls;
mod toolbox;
mod toolbox_paths;
mod toolbox_sandbox;
mod workspace;

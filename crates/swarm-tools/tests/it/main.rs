//! The tools against real peers: HTTP on loopback, git, sandboxes, files.

mod model;
mod model_record;
mod sandbox;
mod sandbox_life;
mod sandbox_limits;
mod sandbox_tools;
mod sandbox_walls;

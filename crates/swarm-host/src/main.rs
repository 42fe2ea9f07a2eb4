//! `swarm-host`: the built-in graphs and node kinds, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    swarm_host::start(|host| host)
}

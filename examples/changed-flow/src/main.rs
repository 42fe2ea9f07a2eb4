//! The shipped program, word for word: what changes the flow is `graphs/dev.yaml` alone.
//!
//! It is here so that the test of this example runs it; whoever has `swarm-host` needs no Rust.

use std::process::ExitCode;

fn main() -> ExitCode {
    swarm_host::start(|host| host)
}

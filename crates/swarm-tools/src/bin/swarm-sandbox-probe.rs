//! The smallest program with the sandbox's entry: what tests name as `Config::entry`.

use std::process::ExitCode;

use swarm_tools::sandbox::{ENTRY, sandbox_exec_main};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ENTRY) {
        return sandbox_exec_main(arguments);
    }
    ExitCode::from(2)
}

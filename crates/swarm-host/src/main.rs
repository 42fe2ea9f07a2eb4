//! `swarm-host`: parse, run, print the error chain, exit code.

use clap::Parser as _;

fn main() {
    let _cli = swarm_host::cli::Cli::parse();
}

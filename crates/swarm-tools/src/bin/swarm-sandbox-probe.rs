//! The smallest program with the sandbox's entry: what tests name as `Config::entry`.
//!
//! `swarm-sandbox-probe run LEVEL DATA WORKSPACE ARGV...` runs one command as a host would, for
//! tests that kill a host.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use swarm_core::port::sandbox::{Command, Level};
use swarm_tools::sandbox::{Config, ENTRY, detect, sandbox_exec_main};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == ENTRY => sandbox_exec_main(arguments),
        Some(first) if first == "run" => {
            let words: Vec<String> = arguments.filter_map(|word| word.into_string().ok()).collect();
            run(&words).unwrap_or(ExitCode::FAILURE)
        }
        Some(_) | None => ExitCode::from(2),
    }
}

fn run(words: &[String]) -> Option<ExitCode> {
    let [level, data, workspace, argv @ ..] = words else { return None };
    let level = match level.as_str() {
        "bubblewrap" => Level::Bubblewrap,
        "landlock" => Level::Landlock,
        _ => return None,
    };
    let data = PathBuf::from(data);
    let mut config = Config::new(std::env::current_exe().ok()?, &data, std::env::vars_os());
    config.minimum = level;
    config.only = Some(level);
    let sandbox = detect(config);
    let runtime = tokio::runtime::Runtime::new().ok()?;
    writeln!(std::io::stdout(), "running").ok()?;
    let finished = runtime.block_on(sandbox.run(Command::new(workspace, argv.iter().cloned())));
    finished.ok().map(|finished| ExitCode::from(u8::from(!finished.succeeded())))
}

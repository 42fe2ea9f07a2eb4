//! What each subcommand does: one thin file each, and the choice between them.
//!
//! Commands that only read or answer open the store and nothing else, so they work on a machine
//! without sandbox, models or graphs, and while another process does the work.

use std::process::ExitCode;

use swarm_core::time::Timestamp;
use swarm_graph::engine::AnswerRefused;
use thiserror::Error;

pub mod answer;
pub mod approve;
pub mod archive;
pub mod blocks;
pub mod cancel;
pub mod config;
pub mod db;
pub mod demo;
pub mod doctor;
pub mod find;
pub mod follow;
pub mod graph;
pub mod out;
pub mod people;
pub mod run;
pub mod runs;
pub mod start;
pub mod submit;
pub mod versions;

/// Something was typed that cannot be meant: exit code 2.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The exit code of an error: 2 for wrong usage or configuration, else 1.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage = error.downcast_ref::<Usage>().is_some()
        || matches!(error.downcast_ref::<AnswerRefused>(), Some(AnswerRefused::Misfit(_)))
        || error.downcast_ref::<crate::config::Error>().is_some();
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// How long ago, in the largest unit.
fn age(now: Timestamp, then: Timestamp) -> String {
    let secs = now.since(then).as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..86_400 => format!("{} h", secs / 3_600),
        _ => format!("{} d", secs / 86_400),
    }
}

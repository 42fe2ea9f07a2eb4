//! A host of your own: everything of the shipped one, and one more worker.
//!
//! The two graphs are part of the program; `changelog.yaml` is new, and `deliver.yaml` takes the
//! place of the shipped one to start it. What a newcomer gets wrong: nothing is done before
//! `start`, because the sandbox starts this same program again to build its walls.

mod entry;

use std::process::ExitCode;
use std::sync::Arc;

use crate::entry::{ChangelogInput, ChangelogState, Entry};

fn main() -> ExitCode {
    swarm_host::start(|host| {
        host.graph("changelog.yaml", include_str!("../graphs/changelog.yaml"))
            .graph("deliver.yaml", include_str!("../graphs/deliver.yaml"))
            .register(|registry, parts| {
                let parts = Arc::clone(parts);
                registry
                    .ty_without_default::<ChangelogInput>("ChangelogInput")
                    .ty::<ChangelogState>("ChangelogState")
                    .node::<Entry>(move |config| Ok(Entry { parts: Arc::clone(&parts), config }))
            })
    })
}

//! The sandboxes that the tests of the toolbox and of checks run in.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use swarm_core::port::sandbox::{Command, Error, Finished, Level, Sandbox};
use swarm_tools::sandbox::{Config, detect};
use tempfile::TempDir;

/// The real one, the strongest of this machine, with a data directory of its own. It is set up
/// when first used: most tests of paths never come to run a command.
pub(crate) fn sandbox() -> Arc<dyn Sandbox> {
    Arc::new(Walled(OnceLock::new()))
}

struct Walled(OnceLock<(Arc<dyn Sandbox>, TempDir)>);

impl Walled {
    fn walls(&self) -> &dyn Sandbox {
        let (walls, _) = self.0.get_or_init(|| {
            let data = tempfile::tempdir().unwrap();
            let entry = env!("CARGO_BIN_EXE_swarm-sandbox-probe");
            let mut config = Config::new(entry, data.path(), std::env::vars_os());
            config.minimum = Level::Landlock;
            (detect(config), data)
        });
        &**walls
    }
}

#[async_trait]
impl Sandbox for Walled {
    fn level(&self) -> Result<Level, Error> {
        self.walls().level()
    }

    async fn run(&self, command: Command) -> Result<Finished, Error> {
        self.walls().run(command).await
    }
}

/// A sandbox that there is not.
pub(crate) struct Missing;

#[async_trait]
impl Sandbox for Missing {
    fn level(&self) -> Result<Level, Error> {
        Err(Error::Unavailable { missing: vec!["install bubblewrap".to_owned()] })
    }

    async fn run(&self, _: Command) -> Result<Finished, Error> {
        Err(self.level().unwrap_err())
    }
}

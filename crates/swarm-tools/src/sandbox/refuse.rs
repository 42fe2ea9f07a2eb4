//! The sandbox that runs nothing: where no walls stand, no command starts.

use async_trait::async_trait;
use swarm_core::port::sandbox::{Command, Error, Finished, Level, Sandbox};

use super::unavailable;

/// Refuses every command, with the reasons.
pub(super) struct Refusing {
    pub(super) missing: Vec<String>,
}

#[async_trait]
impl Sandbox for Refusing {
    fn level(&self) -> Result<Level, Error> {
        Err(unavailable(&self.missing))
    }

    async fn run(&self, _command: Command) -> Result<Finished, Error> {
        Err(unavailable(&self.missing))
    }
}

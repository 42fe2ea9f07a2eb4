//! Who gives an answer on this machine, and whether they may.

use anyhow::{Result, bail};
use swarm_core::escalation::Answerer;
use swarm_core::port::forge::Permission;

use super::Usage;
use crate::config::Settings;

/// The person of `--as`, else the owner. They need write permission.
///
/// # Errors
/// [`Usage`] when they have less.
pub fn answerer(settings: &Settings, login: Option<&str>) -> Result<Answerer> {
    let login = login.map_or_else(|| settings.owner(), str::to_owned);
    let permission = match settings.permission(&login) {
        Permission::Admin => "admin",
        Permission::Write => "write",
        Permission::Read | Permission::None => bail!(Usage(format!(
            "`{login}` may not answer: write permission is needed; give it in swarm.yaml with \
             people: {{ permissions: {{ {login}: write }} }}, or answer as `{}`",
            settings.owner()
        ))),
    };
    Ok(Answerer { login, via: "cli".to_owned(), permission: permission.to_owned() })
}

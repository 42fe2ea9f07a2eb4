//! Landlock: which files a process and its children may open.
//!
//! A right that no rule grants is refused; a path that no rule names cannot be opened, though
//! `stat` still tells that it exists. The kernel has no way to take back a part of what a rule
//! grants, which is why this level cannot mask a place inside the workspace.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
    make_bitflags,
};
use swarm_core::port::sandbox::{Level, Network};

use super::wire::Stage;

/// The least that is accepted: without it a file outside could be truncated.
const LEAST: ABI = ABI::V3;
/// What is used where the kernel has it.
const BEST: ABI = ABI::V6;

/// Whether Unix sockets may be made: only what Landlock or a namespace keeps inside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum UnixSockets {
    Inside,
    None,
}

/// Restricts this thread as its stage says.
pub(super) fn restrict(stage: &Stage) -> Result<UnixSockets, String> {
    match (stage.level, stage.network) {
        (Level::Landlock, _) => files(stage).map(|()| UnixSockets::None),
        // Its network namespace holds all abstract sockets that it can name.
        (Level::Bubblewrap, Network::None) => Ok(UnixSockets::Inside),
        (Level::Bubblewrap, Network::Host) => Ok(match scope_only() {
            Ok(()) => UnixSockets::Inside,
            Err(_) => UnixSockets::None,
        }),
    }
}

fn files(stage: &Stage) -> Result<(), String> {
    restrict_files(stage).map_err(|error| {
        format!(
            "Landlock: {error}: it needs Linux 6.2 or later with `landlock` among its security \
             modules (`lsm=` on the kernel's command line)"
        )
    })
}

fn restrict_files(stage: &Stage) -> Result<(), Box<dyn std::error::Error>> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(BEST))?
        .scope(Scope::from_all(BEST))?;
    if stage.network == Network::None {
        // Seccomp refuses sockets already; this stands where one slips through.
        ruleset = ruleset.handle_access(AccessNet::from_all(BEST))?;
    }
    let write =
        AccessFs::from_all(BEST) & !make_bitflags!(AccessFs::{ MakeChar | MakeBlock | IoctlDev });
    let mut created = ruleset.create()?;
    for (paths, rights) in
        [(&stage.grants.read, AccessFs::from_read(BEST)), (&stage.grants.write, write)]
    {
        for path in paths {
            created = created.add_rule(rule(path, rights)?)?;
        }
    }
    let status = created.restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err("the kernel enforces none of it".into()),
    }
}

fn rule(
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<PathBeneath<PathFd>, Box<dyn std::error::Error>> {
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(BEST) };
    let opened = PathFd::new(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(PathBeneath::new(opened, rights))
}

/// Only keeps abstract sockets and signals inside; namespaces do the rest.
fn scope_only() -> Result<(), Box<dyn std::error::Error>> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::from_all(BEST))?
        .create()?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => Err("partial".into()),
    }
}

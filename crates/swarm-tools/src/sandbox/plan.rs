//! A command, checked against the host and turned into a job.
//!
//! Every path is resolved here, on the host, before anything starts: a link in the workspace
//! that points out of it is refused, not followed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use cap_std::fs::Dir;
use sha2::{Digest as _, Sha256};
use swarm_core::port::sandbox::{Command, Cover, Error, Level, Mask, Network};

use super::Config;
use tempfile::TempDir;

use super::bubblewrap::{self, Room};
use super::view::{self, View};
use super::wire::{Grants, Job, Stage};

/// Files of `/proc` and `/sys` that tell of the machine and of nobody.
const MACHINE: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/sys/fs/file-max",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Variables of package managers, and where each keeps its cache.
const CACHES: &[(&str, &str)] = &[
    ("CARGO_HOME", "cargo"),
    ("GOCACHE", "go/build"),
    ("GOMODCACHE", "go/mod"),
    ("GRADLE_USER_HOME", "gradle"),
    ("PIP_CACHE_DIR", "pip"),
    ("UV_CACHE_DIR", "uv"),
    ("XDG_CACHE_HOME", "xdg"),
    ("YARN_CACHE_FOLDER", "yarn"),
    ("npm_config_cache", "npm"),
    ("npm_config_store_dir", "pnpm"),
];

/// Settings that package managers read from beside their caches. One command would rule the next by
/// them, and no diff would show it: they never last.
const SETTINGS: &[&str] = &[
    "cargo/config",
    "cargo/config.toml",
    "cargo/credentials",
    "cargo/credentials.toml",
    "gradle/gradle.properties",
    "gradle/init.d",
    "gradle/init.gradle",
    "gradle/init.gradle.kts",
];

/// What one level needs to plan.
#[derive(Debug)]
pub(super) struct Planner {
    pub(super) config: Config,
    pub(super) view: View,
    pub(super) level: Level,
    /// Where `bwrap` is; needed at its level.
    pub(super) bwrap: Option<PathBuf>,
}

/// A job for a warden.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) job: Job,
    scratch: Option<TempDir>,
}

impl Planned {
    /// The warden has the job: what was made for it is now the warden's to remove, who outlives
    /// the host if need be.
    pub(super) fn handed_over(self) {
        if let Some(scratch) = self.scratch {
            let _ = scratch.keep();
        }
    }
}

impl Planner {
    /// Checks `command` and makes what it needs.
    pub(super) fn plan(&self, command: &Command) -> Result<Planned, Error> {
        check_words(command)?;
        if command.network == Network::Host && !self.config.host_network {
            return Err(invalid(
                "the command wants the host's network, which the configuration does not allow",
            ));
        }
        let workspace = self.workspace(&command.workspace)?;
        let dir = inside(&workspace, &command.dir)?;
        let masks = masks(&workspace, &command.masked)?;
        let cache = self.cache(&command.cache)?;
        let (home, tmp, outer, scratch) = match self.level {
            Level::Bubblewrap => {
                let outer = self.outer(command, &workspace, &cache, &masks)?;
                (PathBuf::from(bubblewrap::HOME), PathBuf::from("/tmp"), outer, None)
            }
            Level::Landlock => {
                refuse_masks(&masks)?;
                let scratch = self.scratch()?;
                let path = scratch.path();
                (path.join("home"), path.join("tmp"), Vec::new(), Some(scratch))
            }
        };
        let grants = match &scratch {
            Some(scratch) => self.grants(command.network, [&workspace, &cache, scratch.path()]),
            None => Grants::default(),
        };
        let stage = Stage {
            argv: command.argv.clone(),
            env: self.environment(command, &home, &tmp, &cache)?,
            dir,
            level: self.level,
            network: command.network,
            memory_mib: command.limits.memory_mib,
            file_mib: command.limits.file_mib,
            tasks: None,
            guarded: Vec::new(),
            grants,
        };
        let job = Job {
            level: self.level,
            outer,
            stage,
            processes: command.limits.processes,
            scratch: scratch.as_ref().map(|scratch| scratch.path().to_owned()),
            is_caged: self.config.control_groups,
            life: self.config.life.clone(),
        };
        Ok(Planned { job, scratch })
    }

    /// The workspace as it really is. It must not hold what is hidden from it.
    fn workspace(&self, named: &Path) -> Result<PathBuf, Error> {
        if !named.is_absolute() {
            return Err(invalid(format!("the workspace `{}` is not absolute", named.display())));
        }
        let real = named.canonicalize().map_err(|error| {
            invalid(format!("the workspace `{}` cannot be used: {error}", named.display()))
        })?;
        if !real.is_dir() {
            return Err(invalid(format!("the workspace `{}` is no directory", named.display())));
        }
        let kernel = ["/proc", "/sys", "/dev"].iter().any(|place| real.starts_with(place));
        let own = [&self.config.caches, &self.config.scratch];
        let kept = self.view.hidden.iter().chain(self.config.home.iter()).chain(own);
        match kept.map(|path| view::real(path)).find(|path| path.starts_with(&real)) {
            Some(held) => Err(invalid(format!(
                "the workspace `{}` holds `{}`, which must stay out of sight",
                real.display(),
                held.display()
            ))),
            None if kernel => {
                Err(invalid(format!("the workspace `{}` is the kernel's", real.display())))
            }
            None => Ok(real),
        }
    }

    /// The directory of the caches that `name` names, made when missing.
    fn cache(&self, name: &str) -> Result<PathBuf, Error> {
        let plain: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' })
            .take(48)
            .collect();
        // Two names never share a directory, however alike they look.
        let hash = hex::encode(&Sha256::digest(name.as_bytes())[..6]);
        let cache = self.config.caches.join(format!("{plain}-{hash}"));
        fs::create_dir_all(&cache)?;
        // What is in it was made by commands: no link of theirs leads the host out of it.
        let inside = Dir::open_ambient_dir(&cache, cap_std::ambient_authority())?;
        for (_, place) in CACHES {
            make_directory(&inside, Path::new(place))?;
        }
        for place in SETTINGS {
            remove(&inside, Path::new(place))?;
        }
        Ok(cache.canonicalize()?)
    }

    fn scratch(&self) -> io::Result<TempDir> {
        let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&self.config.scratch)?;
        for place in ["home", "tmp"] {
            fs::create_dir(scratch.path().join(place))?;
        }
        Ok(scratch)
    }

    fn outer(
        &self,
        command: &Command,
        workspace: &Path,
        cache: &Path,
        masks: &[(PathBuf, Cover)],
    ) -> Result<Vec<String>, Error> {
        let room = Room {
            bwrap: self.bwrap.as_deref().unwrap_or(Path::new("bwrap")),
            entry: &self.config.entry,
            view: &self.view,
            workspace,
            cache,
            masks,
            network: command.network,
            tmp_mib: self.config.tmp_mib,
        };
        bubblewrap::arguments(&room)
            .ok_or_else(|| invalid("a path that is not UTF-8 cannot be shown inside"))
    }

    fn grants(&self, network: Network, write: [&Path; 3]) -> Grants {
        let view = &self.view;
        let linked = view.links.iter().filter_map(|(path, _)| path.canonicalize().ok());
        let networked = match network {
            Network::Host => view.network.as_slice(),
            Network::None => &[],
        };
        let read = view
            .read
            .iter()
            .cloned()
            .chain(linked)
            .chain(networked.iter().map(|(_, real)| real.clone()))
            .flat_map(|root| view::without(&root, &view.hidden))
            .chain(["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(PathBuf::from))
            .chain(MACHINE.iter().map(PathBuf::from))
            .filter(|path| path.exists())
            .collect();
        let devices = DEVICES.iter().map(PathBuf::from).filter(|path| path.exists());
        Grants { read, write: write.map(Path::to_owned).into_iter().chain(devices).collect() }
    }

    fn environment(
        &self,
        command: &Command,
        home: &Path,
        tmp: &Path,
        cache: &Path,
    ) -> Result<BTreeMap<String, String>, Error> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                invalid(format!("`{}` is not UTF-8 and cannot be a variable", path.display()))
            })
        };
        let mut env = self.view.env.clone();
        if command.network == Network::Host {
            env.extend(self.config.certificate_env.clone());
        }
        for (variable, place) in CACHES {
            env.insert((*variable).to_owned(), text(&cache.join(place))?);
        }
        let fixed = [
            ("PATH", self.config.path.clone()),
            ("HOME", text(home)?),
            ("TMPDIR", text(tmp)?),
            ("LANG", "C.UTF-8".to_owned()),
            ("USER", "agent".to_owned()),
            // The machine's own configuration may name helpers for credentials; it is out of sight.
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ];
        env.extend(fixed.map(|(key, value)| (key.to_owned(), value)));
        env.extend(command.env.clone());
        Ok(env)
    }
}

/// Makes a directory and those above it; what stands in its way, such as a link, is removed.
fn make_directory(inside: &Dir, place: &Path) -> io::Result<()> {
    for part in place.ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
        match inside.symlink_metadata(part) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => remove(inside, part)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match inside.create_dir(part) {
            // Another command of the same caches was faster.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Removes what is there, be it a link, a file or a directory with all that is in it.
fn remove(inside: &Dir, place: &Path) -> io::Result<()> {
    let removed = match inside.symlink_metadata(place) {
        Ok(found) if found.is_dir() => inside.remove_dir_all(place),
        Ok(_) => inside.remove_file(place),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn check_words(command: &Command) -> Result<(), Error> {
    let nul = |text: &String| text.contains('\0');
    if command.argv.first().is_none_or(String::is_empty) {
        return Err(invalid("there is no program to run"));
    }
    if command.argv.iter().any(nul) || command.env.values().any(nul) {
        return Err(invalid("an argument or a variable holds a NUL byte"));
    }
    if let Some(name) =
        command.env.keys().find(|name| name.is_empty() || nul(name) || name.contains('='))
    {
        return Err(invalid(format!("`{name}` cannot be a variable's name")));
    }
    Ok(())
}

/// Where `dir` really is; refused when that is not in the workspace.
fn inside(workspace: &Path, dir: &Path) -> Result<PathBuf, Error> {
    let outside =
        || invalid(format!("the directory `{}` lies outside of the workspace", dir.display()));
    if dir.is_absolute() {
        return Err(outside());
    }
    let real = workspace.join(dir).canonicalize().map_err(|error| {
        invalid(format!("the directory `{}` cannot be used: {error}", dir.display()))
    })?;
    match (real.starts_with(workspace), real.is_dir()) {
        (true, true) => Ok(real),
        (true, false) => Err(invalid(format!("`{}` is no directory", dir.display()))),
        (false, _) => Err(outside()),
    }
}

/// The masked places that exist. None may be reached by a link: what it points to would be
/// masked instead.
fn masks(workspace: &Path, masks: &[Mask]) -> Result<Vec<(PathBuf, Cover)>, Error> {
    let mut found = Vec::new();
    for Mask { path, cover } in masks {
        let bad = |what: &str| invalid(format!("the mask `{}` {what}", path.display()));
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return Err(bad("is not a plain path inside the workspace"));
        }
        let mut place = workspace.to_owned();
        let mut exists = true;
        for part in path.components() {
            place.push(part);
            match fs::symlink_metadata(&place) {
                Ok(data) if data.is_symlink() => return Err(bad("leads through a link")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => exists = false,
                Err(error) => return Err(bad(&format!("cannot be looked at: {error}"))),
            }
        }
        if exists {
            found.push((place, *cover));
        }
    }
    Ok(found)
}

fn refuse_masks(masks: &[(PathBuf, Cover)]) -> Result<(), Error> {
    match masks.first() {
        None => Ok(()),
        Some((path, _)) => Err(super::unavailable(&[format!(
            "bubblewrap: only it can keep a command from `{}` inside its workspace: install it, \
             or keep that place out of the workspace",
            path.display()
        )])),
    }
}

/// Removes a command's scratch directory, whatever it made of its permissions.
pub(super) fn remove_scratch(scratch: &Path) {
    if fs::remove_dir_all(scratch).is_ok() {
        return;
    }
    open_up(scratch);
    // What is left is left for the next to find; it is nobody's.
    let _ = fs::remove_dir_all(scratch);
}

/// Makes every directory below one that its owner can empty.
fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

fn invalid(what: impl Into<String>) -> Error {
    Error::Invalid(what.into())
}

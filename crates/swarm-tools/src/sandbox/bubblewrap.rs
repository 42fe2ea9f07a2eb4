//! Bubblewrap: the view as arguments of `bwrap`.
//!
//! Its root is an empty file system in memory, and later mounts cover earlier ones: first what is
//! private, then what is shown, then what is hidden in that, the workspace last.

use std::path::{Path, PathBuf};

use swarm_core::port::sandbox::{Cover, Network};

use super::view::View;
use super::{ENTRY, wire};

/// Where the stage's program is, inside.
const STAGE_PROGRAM: &str = "/.sandbox-exec";
/// The private home, inside.
pub(super) const HOME: &str = "/home/agent";

/// What differs from command to command.
#[derive(Debug)]
pub(super) struct Room<'a> {
    pub(super) bwrap: &'a Path,
    pub(super) entry: &'a Path,
    pub(super) view: &'a View,
    pub(super) workspace: &'a Path,
    pub(super) cache: &'a Path,
    pub(super) masks: &'a [(PathBuf, Cover)],
    pub(super) network: Network,
    pub(super) tmp_mib: u64,
}

/// `bwrap`, its arguments, and the stage's. Only paths that are UTF-8 can be given; any other
/// is `None`.
pub(super) fn arguments(room: &Room<'_>) -> Option<Vec<String>> {
    let mut arguments = Arguments(vec![Some(text(room.bwrap)?)]);
    arguments.words(&[
        "--unshare-user",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--hostname",
        "sandbox",
        "--cap-drop",
        "ALL",
        "--new-session",
        "--die-with-parent",
    ]);
    if room.network == Network::None {
        arguments.words(&["--unshare-net"]);
    }
    private(&mut arguments, room.tmp_mib);
    show(&mut arguments, room);
    let covers = hide(&mut arguments, room.view);
    for place in [room.cache, room.workspace] {
        arguments.pair("--bind", place, place);
    }
    let masks = mask(&mut arguments, room.masks);
    arguments.pair("--ro-bind", room.entry, Path::new(STAGE_PROGRAM));
    for cover in covers.iter().chain(&masks) {
        arguments.single("--remount-ro", cover);
    }
    arguments.words(&[
        "--remount-ro",
        "/",
        "--chdir",
        "/",
        "--",
        STAGE_PROGRAM,
        ENTRY,
        wire::STAGE,
    ]);
    arguments.0.into_iter().collect()
}

fn show(arguments: &mut Arguments, room: &Room<'_>) {
    for path in &room.view.read {
        arguments.pair("--ro-bind", path, path);
    }
    for (path, target) in &room.view.links {
        arguments.pair("--symlink", target, path);
    }
    let network = match room.network {
        Network::Host => room.view.network.as_slice(),
        Network::None => &[],
    };
    let made_up = room
        .view
        .accounts
        .iter()
        .filter(|(named, _)| !network.iter().any(|(theirs, _)| theirs == named));
    for (named, real) in room.view.aliases.iter().chain(network).chain(made_up) {
        // A name inside what is shown already leads there by the host's own links.
        if !room.view.read.iter().any(|shown| named.starts_with(shown)) {
            arguments.pair("--ro-bind", real, named);
        }
    }
}

/// Covers what is hidden inside what is shown; the directories among it are closed later,
/// when the workspace and the caches inside have found their places.
fn hide(arguments: &mut Arguments, view: &View) -> Vec<PathBuf> {
    let mut covers = Vec::new();
    for hidden in &view.hidden {
        let shown = view.read.iter().any(|shown| hidden.starts_with(shown));
        let covered = covers.iter().any(|cover| hidden.starts_with(cover));
        if !shown || covered {
            continue;
        }
        if hidden.is_dir() {
            arguments.words(&["--perms", "0755"]);
            arguments.single("--tmpfs", hidden);
            covers.push(hidden.clone());
        } else if hidden.exists() {
            arguments.pair("--ro-bind", Path::new("/dev/null"), hidden);
        }
    }
    covers
}

fn private(arguments: &mut Arguments, tmp_mib: u64) {
    let bytes = tmp_mib.saturating_mul(1024 * 1024).to_string();
    arguments.words(&["--proc", "/proc", "--dev", "/dev"]);
    for (place, permissions) in [("/tmp", "1777"), (HOME, "0755"), ("/dev/shm", "1777")] {
        arguments.words(&["--perms", permissions, "--size", &bytes, "--tmpfs", place]);
    }
}

fn mask(arguments: &mut Arguments, masks: &[(PathBuf, Cover)]) -> Vec<PathBuf> {
    let mut covers = Vec::new();
    for (path, cover) in masks {
        match cover {
            Cover::ReadOnly => arguments.pair("--ro-bind", path, path),
            Cover::Absent if path.is_dir() => {
                arguments.words(&["--perms", "0755"]);
                arguments.single("--tmpfs", path);
                covers.push(path.clone());
            }
            Cover::Absent => arguments.pair("--ro-bind", Path::new("/dev/null"), path),
        }
    }
    covers
}

/// Arguments, with a hole where a path is not UTF-8.
struct Arguments(Vec<Option<String>>);

impl Arguments {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| Some((*word).to_owned())));
    }

    fn single(&mut self, option: &str, path: &Path) {
        self.words(&[option]);
        self.0.push(text(path));
    }

    fn pair(&mut self, option: &str, from: &Path, to: &Path) {
        self.single(option, from);
        self.0.push(text(to));
    }
}

fn text(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}

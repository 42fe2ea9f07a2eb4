//! The workspace as the tools see it: one directory handle, walked name by name.
//!
//! No path is ever handed to the system whole. Each name is opened alone and without following
//! links; a link is read and its target walked by the same rules from where it stands. So no
//! chain of links, and no directory swapped for a link between two calls, leads out of the
//! workspace or into a `.git`, under whatever name it was asked for.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, Permissions, PermissionsExt as _};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::{Error, Trouble, nearest};

/// The longest path and the longest name in it, in bytes, as on Linux.
const PATH_BYTES: usize = 4095;
const NAME_BYTES: usize = 255;

/// The most links that are followed on the way to one file, and the deepest way.
const LINKS: usize = 16;
const DEPTH: usize = 128;

/// The workspace.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Dir,
    root_path: PathBuf,
    forbidden: GlobSet,
    globs: Vec<String>,
}

/// Where a path leads, links resolved.
#[derive(Debug)]
pub(crate) struct Place {
    /// The real path from the root, `/` between names, `.` for the root.
    pub(crate) path: String,
    /// The deepest directory on the way that exists.
    dir: Dir,
    /// What is there.
    pub(crate) found: Found,
}

/// What is at a place.
#[derive(Debug)]
pub(crate) enum Found {
    /// A directory, opened.
    Directory,
    /// Something else of this name in the opened directory.
    Entry(String),
    /// Nothing: these names, below the opened directory, do not exist.
    Nothing(Vec<String>),
}

/// A regular file, read whole.
#[derive(Debug)]
pub(crate) struct FileRead {
    /// The real path from the root.
    pub(crate) path: String,
    /// Its content.
    pub(crate) bytes: Vec<u8>,
    /// Its permission bits.
    pub(crate) mode: u32,
}

impl Tree {
    pub(crate) fn open(root: &Path, forbidden: &[String]) -> Result<Self, Error> {
        let failed = |source| Error::Root { path: root.display().to_string(), source };
        let root_path = root.canonicalize().map_err(failed)?;
        let dir =
            Dir::open_ambient_dir(&root_path, cap_std::ambient_authority()).map_err(failed)?;
        let mut set = GlobSetBuilder::new();
        for glob in forbidden {
            let parsed = GlobBuilder::new(glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|source| Error::Glob { glob: glob.clone(), source })?;
            set.add(parsed);
        }
        let forbidden_set =
            set.build().map_err(|source| Error::Glob { glob: forbidden.join(", "), source })?;
        Ok(Self { root: dir, root_path, forbidden: forbidden_set, globs: forbidden.to_vec() })
    }

    /// The workspace's real path on the host.
    pub(crate) fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Refuses a real or given path that no tool may touch.
    fn admit(&self, path: &str) -> Result<(), Trouble> {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            if let Some(&hit) = self.forbidden.matches(&path[..end]).first() {
                let glob = &self.globs[hit];
                return Err(Trouble::Refused(format!(
                    "`{path}` is closed in this run (`{glob}`): leave it as it is, or ask a person"
                )));
            }
        }
        Ok(())
    }

    /// Whether a path may be shown at all.
    pub(crate) fn admits(&self, path: &str) -> bool {
        self.admit(path).is_ok()
    }

    /// Where a path leads.
    pub(crate) fn place(&self, given: &str) -> Result<Place, Trouble> {
        self.check_given(given)?;
        let mut ahead: VecDeque<String> = given.split('/').map(str::to_owned).collect();
        let mut way: Vec<(String, Dir)> = Vec::new();
        let mut missing: Vec<String> = Vec::new();
        let mut last: Option<String> = None;
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name.is_empty() || name == "." {
                continue;
            }
            if let Some(file) = &last {
                return Err(Trouble::Refused(format!(
                    "`{given}`: `{file}` is not a directory, so nothing is below it"
                )));
            }
            if name == ".." {
                if missing.pop().is_none() && way.pop().is_none() {
                    return Err(Trouble::Refused(format!("`{given}` leads out of the workspace")));
                }
                continue;
            }
            check_name(&name)?;
            if !missing.is_empty() {
                missing.push(name);
                continue;
            }
            if way.len() >= DEPTH {
                return Err(Trouble::Refused(format!("`{given}` is too deep")));
            }
            let here = way.last().map_or(&self.root, |(_, dir)| dir);
            let kind = match here.symlink_metadata(&name) {
                Ok(metadata) => metadata.file_type(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    missing.push(name);
                    continue;
                }
                Err(error) => return Err(refusal(given, &error)),
            };
            if kind.is_symlink() {
                links += 1;
                let target = here.read_link_contents(&name).map_err(|e| refusal(given, &e))?;
                for part in self.link_target(given, &target, links)?.into_iter().rev() {
                    ahead.push_front(part);
                }
            } else if kind.is_dir() {
                let dir = open_dir(here, &name).map_err(|error| refusal(given, &error))?;
                way.push((name, dir));
            } else {
                last = Some(name);
            }
        }
        let mut names: Vec<&str> = way.iter().map(|(name, _)| name.as_str()).collect();
        names.extend(missing.iter().map(String::as_str));
        names.extend(last.as_deref());
        let path = if names.is_empty() { ".".to_owned() } else { names.join("/") };
        self.admit(&path)?;
        let dir = match way.pop() {
            Some((_, dir)) => dir,
            None => self.root.try_clone()?,
        };
        let found = match last {
            Some(name) => Found::Entry(name),
            None if missing.is_empty() => Found::Directory,
            None => Found::Nothing(missing),
        };
        Ok(Place { path, dir, found })
    }

    fn check_given(&self, given: &str) -> Result<(), Trouble> {
        if given.len() > PATH_BYTES {
            return Err(Trouble::Refused("the path is too long".to_owned()));
        }
        if given.chars().any(char::is_control) {
            return Err(Trouble::Refused(format!(
                "`{}`: control character in a path",
                given.escape_debug()
            )));
        }
        if given.is_empty() {
            return Err(Trouble::Refused("the path is empty; the root is `.`".to_owned()));
        }
        if given.starts_with('/') || given.starts_with('~') {
            let root = self.root_path.to_string_lossy();
            let inside = given.strip_prefix(&*root).map(|rest| rest.trim_start_matches('/'));
            return Err(Trouble::Refused(match inside {
                Some(rest) if !rest.is_empty() => {
                    format!("paths are relative to the root of the workspace: `{rest}`")
                }
                _ => format!(
                    "`{given}`: paths are relative to the root of the workspace, as `src/main.rs`"
                ),
            }));
        }
        let lexical: Vec<&str> =
            given.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        self.admit(&lexical.join("/"))
    }

    fn link_target(
        &self,
        given: &str,
        target: &Path,
        links: usize,
    ) -> Result<Vec<String>, Trouble> {
        let target = target
            .to_str()
            .ok_or_else(|| format!("`{given}` passes a symbolic link whose target is not UTF-8"))?;
        if links > LINKS {
            return Err(Trouble::Refused(format!("`{given}` passes too many symbolic links")));
        }
        if target.starts_with('/') {
            return Err(Trouble::Refused(format!(
                "`{given}` passes a symbolic link that leaves the workspace"
            )));
        }
        if target.chars().any(char::is_control) || target.len() > PATH_BYTES {
            return Err(Trouble::Refused(format!(
                "`{given}` passes a symbolic link with a bad target"
            )));
        }
        Ok(target.split('/').map(str::to_owned).collect())
    }

    /// The regular file at `given`, at most `max` bytes.
    pub(crate) fn read(&self, given: &str, max: u64) -> Result<FileRead, Trouble> {
        self.place(given)?.require(max)
    }

    /// The directory at `given`, opened, with its real path (`.` for the root).
    pub(crate) fn directory(&self, given: &str) -> Result<(Dir, String), Trouble> {
        let place = self.place(given)?;
        match &place.found {
            Found::Directory => Ok((place.dir, place.path)),
            Found::Nothing(_) => Err(Trouble::Refused(not_found(&place))),
            Found::Entry(_) => {
                Err(Trouble::Refused(format!("`{}` is not a directory", place.path)))
            }
        }
    }
}

impl Place {
    /// The regular file here, at most `max` bytes; `None` when there is nothing.
    pub(crate) fn read(&self, max: u64) -> Result<Option<FileRead>, Trouble> {
        match &self.found {
            Found::Nothing(_) => Ok(None),
            Found::Directory => {
                Err(Trouble::Refused(format!("`{}` is a directory; use `list`", self.path)))
            }
            Found::Entry(name) => read_entry(&self.dir, name, self.path.clone(), max).map(Some),
        }
    }

    /// The regular file here; that there is none is refused with what there is instead.
    pub(crate) fn require(&self, max: u64) -> Result<FileRead, Trouble> {
        self.read(max)?.ok_or_else(|| Trouble::Refused(not_found(self)))
    }

    /// Puts a file here, whole or not at all, in place of the regular file that there may be;
    /// missing directories are made.
    pub(crate) fn write(&self, bytes: &[u8], mode: u32) -> Result<(), Trouble> {
        let failed = |error: std::io::Error| refusal(&self.path, &error);
        match &self.found {
            Found::Directory => Err(Trouble::Refused(format!("`{}` is a directory", self.path))),
            Found::Entry(name) => put(&self.dir, name, bytes, mode).map_err(failed),
            Found::Nothing(names) => {
                let (name, parents) = names.split_last().expect("a missing place has a name");
                let mut dir = self.dir.try_clone()?;
                for parent in parents {
                    match dir.create_dir(parent) {
                        Ok(()) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(failed(error)),
                    }
                    dir = open_dir(&dir, parent).map_err(failed)?;
                }
                put(&dir, name, bytes, mode).map_err(failed)
            }
        }
    }

    /// Takes the file away.
    pub(crate) fn remove(&self) -> Result<(), Trouble> {
        match &self.found {
            Found::Entry(name) => {
                self.dir.remove_file(name).map_err(|error| refusal(&self.path, &error))
            }
            Found::Directory | Found::Nothing(_) => {
                Err(Trouble::Refused(format!("`{}` is not a file", self.path)))
            }
        }
    }
}

/// Opens a directory of this one name, never through a link.
pub(crate) fn open_dir(parent: &Dir, name: &str) -> std::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(Dir::from_std_file(std::fs::File::from(fd)))
}

/// Reads the regular file of this one name; never through a link, never waiting for a writer.
pub(crate) fn read_entry(
    dir: &Dir,
    name: &str,
    path: String,
    max: u64,
) -> Result<FileRead, Trouble> {
    let irregular = || Trouble::Refused(format!("`{path}` is not a regular file"));
    let failed = |error: std::io::Error| refusal(&path, &error);
    if !dir.symlink_metadata(name).map_err(failed)?.is_file() {
        return Err(irregular());
    }
    // It may have been swapped since: opening must not wait at a FIFO nor wake a device.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    let file = std::fs::File::from(fd);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(irregular());
    }
    let mut bytes = Vec::new();
    (&file).take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(Trouble::Refused(format!(
            "`{path}` is too large ({} bytes, at most {max}); use `shell` to look at parts of it",
            metadata.len().max(bytes.len() as u64)
        )));
    }
    let mode = cap_std::fs::Metadata::from_file(&file).map_err(failed)?.mode() & 0o777;
    Ok(FileRead { path, bytes, mode })
}

/// The name under which a file is written before it takes its place. It is the same for every
/// try, so that a call that was cut off and is made again leaves nothing behind.
fn draft_name(name: &str) -> String {
    let hash = hex::encode(Sha256::digest(name.as_bytes()));
    format!("{DRAFT_PREFIX}{}{DRAFT_SUFFIX}", &hash[..16])
}

const DRAFT_PREFIX: &str = ".devinswarm-";
const DRAFT_SUFFIX: &str = ".tmp";

/// Whether a name is that of a half-written file.
pub(crate) fn is_draft(name: &str) -> bool {
    name.starts_with(DRAFT_PREFIX) && name.ends_with(DRAFT_SUFFIX)
}

fn put(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let draft = draft_name(name);
    match dir.remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = (|| {
        let mut file = dir.open_with(&draft, OpenOptions::new().write(true).create_new(true))?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
        dir.rename(&draft, dir, name)
    })();
    if written.is_err() {
        let _ = dir.remove_file(&draft);
    }
    written
}

/// Refuses a name that no tool may touch or that no file system takes.
fn check_name(name: &str) -> Result<(), Trouble> {
    if name.len() > NAME_BYTES {
        return Err(Trouble::Refused(format!(
            "a name in the path is longer than {NAME_BYTES} bytes"
        )));
    }
    if is_git(name) {
        return Err(Trouble::Refused(
            "`.git` is closed: the host keeps the history and makes the commits".to_owned(),
        ));
    }
    Ok(())
}

/// Whether a file system somewhere would take this name for `.git`: any case, the characters
/// that HFS+ ignores, the endings that NTFS drops, its short name, its streams.
pub(crate) fn is_git(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| {
            !matches!(*c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
        })
        .flat_map(char::to_lowercase)
        .collect();
    let stem = plain.split(':').next().unwrap_or_default();
    matches!(stem.trim_end_matches(['.', ' ']), ".git" | "git~1")
}

/// What the system said, in words for the model, where it can do something about it.
fn refusal(path: &str, error: &std::io::Error) -> Trouble {
    use rustix::io::Errno;
    let words = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "vanished while it was being opened; look again",
        Some(Errno::ACCESS | Errno::PERM) => "may not be opened (its permission bits)",
        Some(Errno::LOOP | Errno::NOTDIR | Errno::INVAL | Errno::NXIO) => {
            "changed while it was being opened; look again"
        }
        Some(Errno::ISDIR) => "is a directory",
        Some(Errno::NAMETOOLONG) => "has a name that is too long",
        _ => {
            return Trouble::Failed(swarm_core::failure::Failure::retryable(
                "io",
                format!("`{path}` cannot be used: {error}"),
            ));
        }
    };
    Trouble::Refused(format!("`{path}` {words}"))
}

/// That there is nothing here, with what there is instead.
pub(crate) fn not_found(place: &Place) -> String {
    let Found::Nothing(missing) = &place.found else {
        return format!("`{}` is there", place.path);
    };
    let parent = match place.path.strip_suffix(&missing.join("/")) {
        None | Some("") => ".",
        Some(parent) => parent.trim_end_matches('/'),
    };
    let mut names: Vec<String> = place
        .dir
        .entries()
        .map(|entries| {
            entries
                .take(2000)
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| !is_git(name) && !is_draft(name))
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    let mut words = format!("there is no `{}`", place.path);
    if let Some(near) = nearest(&missing[0], names.iter().map(String::as_str)) {
        let near = if parent == "." { near.to_owned() } else { format!("{parent}/{near}") };
        let _ = write!(words, ", perhaps `{near}`");
    }
    let shown: Vec<String> =
        names.iter().take(20).map(|name| name.escape_debug().to_string()).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    let _ = match shown.len() {
        0 => write!(words, "; `{parent}` is empty"),
        _ => write!(words, "; `{parent}` holds: {}{more}", shown.join(", ")),
    };
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_system_takes_for_git_is_git() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git.",
            ".git ",
            ".git. .",
            "git~1",
            "GIT~1",
            ".g\u{200c}it",
            ".git::$INDEX_ALLOCATION",
        ] {
            assert!(is_git(name), "{name:?}");
        }
        for name in [".gitignore", ".github", "git", ".gitattributes", "a.git", ".git2"] {
            assert!(!is_git(name), "{name:?}");
        }
    }

    #[test]
    fn a_draft_is_named_alike_for_every_try() {
        assert_eq!(draft_name("a"), draft_name("a"));
        assert!(is_draft(&draft_name(&"x".repeat(255))));
        assert!(!is_draft(".devinswarm-notes"));
    }

    #[test]
    fn what_a_try_that_was_cut_off_left_is_gone_after_the_next() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "kept").unwrap();
        let root = dir.path().join("ws");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("../outside", root.join(draft_name("a"))).unwrap();
        let tree = Tree::open(&root, &[]).unwrap();
        tree.place("a").unwrap().write(b"new", 0o644).unwrap();
        let names: Vec<_> =
            std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("outside")).unwrap(), "kept");
    }
}

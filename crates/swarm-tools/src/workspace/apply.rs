//! A tree of the mirror, written to disk.
//!
//! Content is written as it is: no line endings are changed, no filter runs. A link is written as
//! a link and never followed, also when a repository has a folder of the same name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use git2::{Odb, Oid, Repository, Tree};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::walk::{
    DEPTH_MAX, EXECUTABLE, FILE, FOLDER, Folder, LINK, Node, SUBMODULE, Scan, join, text,
};
use super::{Error, Result, disk, names};
use crate::git::objects::failed;

/// Writes a tree into an empty folder of ours.
pub(super) fn write_new(repo: &Repository, tree: &Tree<'_>, root: &Path) -> Result<()> {
    let writer = Writer::new(repo)?;
    writer.check(tree, &[], 0)?;
    let root = disk::open_root(root)?;
    writer.fill(root.as_fd(), tree, &[])
}

/// Makes what was scanned equal a tree: what is not in it goes, what differs is written. Each
/// file is either the old or the new one at any moment.
pub(super) fn make_equal(
    repo: &Repository,
    scan: &Scan,
    target: &Tree<'_>,
    home: &Path,
) -> Result<()> {
    let writer = Writer::new(repo)?;
    writer.check(target, &[], 0)?;
    let (root, drafts) = (disk::open_root(&home.join("tree"))?, disk::open_root(home)?);
    writer.equalize(root.as_fd(), drafts.as_fd(), &scan.root, target, &[])
}

struct Writer<'r> {
    repo: &'r Repository,
    odb: Odb<'r>,
}

impl<'r> Writer<'r> {
    fn new(repo: &'r Repository) -> Result<Self> {
        Ok(Self { repo, odb: repo.odb().map_err(failed(repo, "opening the objects"))? })
    }

    fn subtree(&self, id: Oid) -> Result<Tree<'r>> {
        Ok(self.repo.find_tree(id).map_err(failed(self.repo, "reading a tree"))?)
    }

    fn content(&self, id: Oid) -> Result<Vec<u8>> {
        let object = self.odb.read(id).map_err(failed(self.repo, "reading a file's content"))?;
        Ok(object.data().to_vec())
    }

    /// Refuses a tree with a name that must not be written, before anything is.
    fn check(&self, tree: &Tree<'_>, path: &[u8], depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::TooDeep { path: text(path), max: DEPTH_MAX });
        }
        for entry in tree {
            let full = join(path, entry.name_bytes());
            if let Some(why) = names::refusal(entry.name_bytes()) {
                return Err(Error::BadName { path: text(&full), why });
            }
            match entry.filemode() {
                FOLDER => self.check(&self.subtree(entry.id())?, &full, depth + 1)?,
                FILE | EXECUTABLE | LINK | SUBMODULE | 0o100_664 => {}
                _ => return Err(Error::BadName { path: text(&full), why: "its kind is unknown" }),
            }
        }
        Ok(())
    }

    /// Writes a tree into a folder that has none of its names.
    fn fill(&self, dir: BorrowedFd<'_>, tree: &Tree<'_>, path: &[u8]) -> Result<()> {
        for entry in tree {
            let (name, full) = (entry.name_bytes(), join(path, entry.name_bytes()));
            match entry.filemode() {
                FOLDER => {
                    let inner = self.make_dir(dir, name, &full)?;
                    self.fill(inner.as_fd(), &self.subtree(entry.id())?, &full)?;
                }
                SUBMODULE => {
                    self.make_dir(dir, name, &full)?;
                }
                mode => {
                    let bytes = self.content(entry.id())?;
                    write_leaf(dir, name, mode, &bytes)
                        .map_err(disk::failed_at("writing", &full))?;
                }
            }
        }
        Ok(())
    }

    fn make_dir(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))
            .map_err(disk::failed_at("making the folder", path))?;
        disk::open_dir(dir, name).map_err(disk::failed_at("opening", path))
    }

    fn equalize(
        &self,
        dir: BorrowedFd<'_>,
        drafts: BorrowedFd<'_>,
        found: &Folder,
        target: &Tree<'_>,
        path: &[u8],
    ) -> Result<()> {
        for (name, node) in found {
            if target.get_name_bytes(name).is_none() {
                self.take_away(dir, name, node, &join(path, name))?;
            }
        }
        for entry in target {
            let (name, full) = (entry.name_bytes(), join(path, entry.name_bytes()));
            match (entry.filemode(), found.get(name)) {
                (FOLDER, Some(Node::Folder(inner))) => {
                    let open =
                        disk::open_dir(dir, name).map_err(disk::failed_at("opening", &full))?;
                    self.equalize(open.as_fd(), drafts, inner, &self.subtree(entry.id())?, &full)?;
                }
                (FOLDER, _) => {
                    let open = self.clear_dir(dir, name, &full)?;
                    let none = Folder::new();
                    self.equalize(open.as_fd(), drafts, &none, &self.subtree(entry.id())?, &full)?;
                }
                (SUBMODULE, _) => {
                    self.clear_dir(dir, name, &full)?;
                }
                (mode, Some(Node::Leaf(now, Some(oid)))) if *now == mode && *oid == entry.id() => {}
                (mode, _) => {
                    let bytes = self.content(entry.id())?;
                    replace_leaf(dir, drafts, name, mode, &bytes)
                        .map_err(disk::failed_at("writing", &full))?;
                }
            }
        }
        Ok(())
    }

    /// Removes what was scanned and nothing else: ignored files in the same folders stay.
    fn take_away(&self, dir: BorrowedFd<'_>, name: &[u8], node: &Node, path: &[u8]) -> Result<()> {
        match node {
            Node::Folder(inner) => {
                let open = disk::open_dir(dir, name).map_err(disk::failed_at("opening", path))?;
                for (name, node) in inner {
                    self.take_away(open.as_fd(), name, node, &join(path, name))?;
                }
                match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
                    Err(error) => Err(disk::failed_at("removing", path)(error)),
                }
            }
            // An empty folder stands for it, or nothing.
            Node::Leaf(SUBMODULE, _) => Ok(()),
            Node::Leaf(..) => disk::remove_at(dir, name).map_err(disk::failed_at("removing", path)),
        }
    }

    /// Opens the folder of a name; whatever else has the name goes.
    fn clear_dir(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        match disk::open_dir(dir, name) {
            Ok(open) => Ok(open),
            Err(Errno::NOENT) => self.make_dir(dir, name, path),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                disk::remove_at(dir, name).map_err(disk::failed_at("removing", path))?;
                self.make_dir(dir, name, path)
            }
            Err(error) => Err(disk::failed_at("opening", path)(error)),
        }
    }
}

fn write_leaf(dir: impl AsFd, name: &[u8], mode: i32, bytes: &[u8]) -> rustix::io::Result<()> {
    if mode == LINK {
        rustix::fs::symlinkat(bytes, dir, name)
    } else {
        disk::write_new(dir, name, bytes, mode == EXECUTABLE)
    }
}

/// Writes beside the tree, where the agent does not reach, and moves it over what is there.
fn replace_leaf(
    dir: BorrowedFd<'_>,
    drafts: BorrowedFd<'_>,
    name: &[u8],
    mode: i32,
    bytes: &[u8],
) -> rustix::io::Result<()> {
    let draft: &[u8] = b"leaf.draft";
    disk::remove_at(drafts, draft)?;
    write_leaf(drafts, draft, mode, bytes)?;
    match rustix::fs::renameat(drafts, draft, dir, name) {
        Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            disk::remove_at(dir, name)?;
            rustix::fs::renameat(drafts, draft, dir, name)
        }
        other => other,
    }
}

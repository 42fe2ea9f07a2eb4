//! Work trees in which the base branch is checked out: brought along with a merge, or left alone.
//!
//! The model is git's own `receive.denyCurrentBranch=updateInstead`: a clean work tree is updated,
//! one in which someone works stops the merge. Untracked files are never touched, no hook and no
//! filter driver runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{
    AttrCheckFlags, Delta, DiffOptions, ErrorCode, IndexEntryExtendedFlag, ObjectType, Oid,
    Repository, RepositoryState, Tree,
};
use swarm_core::port::forge::{Error, Sha};

use super::Result;
use super::merge::shown;
use crate::git::Treeish;
use crate::git::objects::{self, failed};

/// A work tree.
pub(super) struct WorkTree {
    repo: Repository,
    folder: PathBuf,
}

/// The work trees, the main one and linked ones, in which a branch is checked out.
pub(super) fn of_branch(repo: &Repository, branch: &str) -> Result<Vec<WorkTree>> {
    let mut candidates = Vec::new();
    // A linked work tree shares the git folder of the main one: begin there.
    let main = objects::open(repo.commondir())?;
    let names = main.worktrees().map_err(failed(&main, "listing work trees"))?;
    let linked: Vec<String> =
        names.iter().filter_map(|name| name.ok().flatten().map(ToOwned::to_owned)).collect();
    for name in linked {
        // One whose folder was deleted is nobody's work tree any more.
        let opened =
            main.find_worktree(&name).and_then(|tree| Repository::open_from_worktree(&tree));
        if let Ok(repo) = opened {
            candidates.push(repo);
        }
    }
    candidates.push(main);
    let wanted = format!("refs/heads/{branch}");
    let mut trees = Vec::new();
    for repo in candidates {
        let Some(folder) = repo.workdir().map(Path::to_owned) else { continue };
        let is_here = match repo.find_reference("HEAD") {
            Ok(head) => head.symbolic_target().ok().flatten() == Some(wanted.as_str()),
            Err(_) => false,
        };
        if is_here {
            trees.push(WorkTree { repo, folder });
        }
    }
    Ok(trees)
}

/// Mode and content of a path.
type Version = Option<(git2::FileMode, Oid)>;

impl WorkTree {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What keeps the work tree from being brought from one commit to another, and what to do
    /// about it; `None` if nothing does. With `is_begun` a file may be at either of the two.
    pub(super) fn obstacle(&self, old: &Sha, new: &Sha, is_begun: bool) -> Result<Option<String>> {
        if self.repo.state() != RepositoryState::Clean {
            return Ok(Some(format!(
                "an operation is unfinished there ({:?}): finish or abort it, then try again",
                self.repo.state()
            )));
        }
        if self.repo.path().join("index.lock").exists() {
            return Ok(Some(
                "another git is at work there (`index.lock`): try again when it is done".to_owned(),
            ));
        }
        let (old, new) = (self.tree(old)?, self.tree(new)?);
        let changes = self.changes(&old, &new)?;
        if self.is_sparse()? {
            return Ok(Some(
                "it is a sparse checkout, which is not updated from here: check out another branch \
                 there, try again, and check it out again"
                    .to_owned(),
            ));
        }
        let dirty = self.dirty(&old, &changes, is_begun)?;
        if !dirty.is_empty() {
            return Ok(Some(format!(
                "it has uncommitted changes to {}: commit or stash them, or check out another \
                 branch there, then try again",
                shown(&dirty)
            )));
        }
        let in_the_way = self.in_the_way(&changes, is_begun)?;
        if !in_the_way.is_empty() {
            return Ok(Some(format!(
                "files that git does not track there would be overwritten: {}; move them away, \
                 then try again",
                shown(&in_the_way)
            )));
        }
        let filtered = self.filtered(&changes)?;
        Ok((!filtered.is_empty()).then(|| {
            format!(
                "its configuration runs a program over {}, which is not run from here: check out \
                 another branch there, try again, and check it out again",
                shown(&filtered)
            )
        }))
    }

    /// Brings files and index from one commit to another. There is no obstacle.
    pub(super) fn update(&self, old: &Sha, new: &Sha, is_begun: bool) -> Result<()> {
        let (old, new) = (self.tree(old)?, self.tree(new)?);
        let mut checkout = CheckoutBuilder::new();
        checkout.overwrite_ignored(false).update_index(true).disable_pathspec_match(true);
        if is_begun {
            // Some files are there already, which a safe checkout takes for someone's changes. All
            // of these were found to be one of the two versions.
            let changes = self.changes(&old, &new)?;
            if changes.is_empty() {
                return Ok(());
            }
            checkout.force();
            for path in changes.keys() {
                checkout.path(path.as_slice());
            }
        } else {
            checkout.safe();
        }
        self.repo.checkout_tree(new.as_object(), Some(&mut checkout)).map_err(|error| {
            if error.code() == ErrorCode::Locked {
                Error::NotMergeable(format!(
                    "another git is at work in `{}`: try again when it is done",
                    self.folder.display()
                ))
            } else if error.code() == ErrorCode::Conflict {
                Error::NotMergeable(format!(
                    "someone works in `{}`: {}",
                    self.folder.display(),
                    error.message()
                ))
            } else {
                failed(&self.repo, "updating the work tree")(error).into()
            }
        })
    }

    fn tree(&self, commit: &Sha) -> Result<Tree<'_>> {
        Ok(objects::tree(&self.repo, &Treeish::from(commit))?)
    }

    /// What differs between two trees, by path.
    fn changes(
        &self,
        old: &Tree<'_>,
        new: &Tree<'_>,
    ) -> Result<BTreeMap<Vec<u8>, (Version, Version)>> {
        let mut options = DiffOptions::new();
        options.include_typechange(true);
        let diff = self
            .repo
            .diff_tree_to_tree(Some(old), Some(new), Some(&mut options))
            .map_err(failed(&self.repo, "comparing two trees"))?;
        let version =
            |file: git2::DiffFile<'_>, is_there: bool| is_there.then(|| (file.mode(), file.id()));
        Ok(diff
            .deltas()
            .filter_map(|delta| {
                let path =
                    delta.new_file().path_bytes().or(delta.old_file().path_bytes())?.to_vec();
                let old = version(delta.old_file(), delta.status() != Delta::Added);
                let new = version(delta.new_file(), delta.status() != Delta::Deleted);
                Some((path, (old, new)))
            })
            .collect())
    }

    fn is_sparse(&self) -> Result<bool> {
        let index = self.repo.index().map_err(failed(&self.repo, "reading the index"))?;
        let skip = IndexEntryExtendedFlag::SKIP_WORKTREE.bits();
        Ok(index.iter().any(|entry| entry.flags_extended & skip != 0))
    }

    /// Tracked files that are not as in `old`, in the index or on disk.
    fn dirty(
        &self,
        old: &Tree<'_>,
        changes: &BTreeMap<Vec<u8>, (Version, Version)>,
        is_begun: bool,
    ) -> Result<Vec<String>> {
        let mut options = DiffOptions::new();
        options.ignore_submodules(true).include_typechange(true);
        let staged = self
            .repo
            .diff_tree_to_index(Some(old), None, Some(&mut options))
            .map_err(failed(&self.repo, "comparing the index"))?;
        let unstaged = self
            .repo
            .diff_index_to_workdir(None, Some(&mut options))
            .map_err(failed(&self.repo, "comparing the work tree"))?;
        let mut dirty = std::collections::BTreeSet::new();
        for (diff, is_disk) in [(&staged, false), (&unstaged, true)] {
            for delta in diff.deltas() {
                let path = delta.new_file().path_bytes().or(delta.old_file().path_bytes());
                let Some(path) = path else { continue };
                let is_ours = is_begun
                    && changes.get(path).is_some_and(|(old, new)| {
                        if is_disk {
                            let found = self.on_disk(path);
                            found == content(*old) || found == content(*new)
                        } else {
                            let is_there = delta.status() != Delta::Deleted;
                            let found = is_there.then(|| delta.new_file().id());
                            found == content(*old) || found == content(*new)
                        }
                    });
                if !is_ours {
                    dirty.insert(String::from_utf8_lossy(path).into_owned());
                }
            }
        }
        Ok(dirty.into_iter().collect())
    }

    /// Untracked files where new ones would be written.
    fn in_the_way(
        &self,
        changes: &BTreeMap<Vec<u8>, (Version, Version)>,
        is_begun: bool,
    ) -> Result<Vec<String>> {
        let index = self.repo.index().map_err(failed(&self.repo, "reading the index"))?;
        let mut found = Vec::new();
        for (path, (old, new)) in changes {
            if old.is_some() || new.is_none() {
                continue;
            }
            let is_ours = is_begun && self.on_disk(path) == content(*new);
            if !is_ours && let Some(blocker) = self.blocker(&index, changes, path) {
                found.push(blocker);
            }
        }
        found.dedup();
        Ok(found)
    }

    /// What is on disk at a path, or instead of a folder on the way to it, and is not tracked.
    fn blocker(
        &self,
        index: &git2::Index,
        changes: &BTreeMap<Vec<u8>, (Version, Version)>,
        path: &[u8],
    ) -> Option<String> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let part = &path[..end];
            let Ok(found) = std::fs::symlink_metadata(self.folder.join(as_path(part))) else {
                return None;
            };
            let is_on_the_way = end < path.len() && found.is_dir();
            let is_tracked = index.get_path(as_path(part), 0).is_some()
                || changes.get(part).is_some_and(|(old, _)| old.is_some());
            // A tracked folder gives way to a file once all its files are gone.
            let is_tracked_dir = found.is_dir() && self.is_tracked_dir(index, part);
            if !is_on_the_way && !is_tracked && !is_tracked_dir {
                return Some(String::from_utf8_lossy(part).into_owned());
            }
        }
        None
    }

    fn is_tracked_dir(&self, index: &git2::Index, path: &[u8]) -> bool {
        let mut prefix = path.to_vec();
        prefix.push(b'/');
        index.find_prefix(prefix.as_slice()).is_ok()
    }

    /// The content of a file or link on disk, as it is, without any conversion.
    fn on_disk(&self, path: &[u8]) -> Option<Oid> {
        use std::os::unix::ffi::OsStrExt as _;
        let full = self.folder.join(as_path(path));
        let found = std::fs::symlink_metadata(&full).ok()?;
        let bytes = if found.is_symlink() {
            std::fs::read_link(&full).ok()?.as_os_str().as_bytes().to_vec()
        } else if found.is_file() {
            std::fs::read(&full).ok()?
        } else {
            return None;
        };
        Oid::hash_object(ObjectType::Blob, &bytes).ok()
    }

    /// Files that would go through a program that the owner has configured, such as Git LFS.
    fn filtered(&self, changes: &BTreeMap<Vec<u8>, (Version, Version)>) -> Result<Vec<String>> {
        let config = self.repo.config().map_err(failed(&self.repo, "reading the configuration"))?;
        let mut found = Vec::new();
        for (path, (_, new)) in changes {
            if new.is_none() {
                continue;
            }
            let filter = self
                .repo
                .get_attr(as_path(path), "filter", AttrCheckFlags::FILE_THEN_INDEX)
                .map_err(failed(&self.repo, "reading attributes"))?;
            let is_run = filter.is_some_and(|name| {
                ["smudge", "process"]
                    .iter()
                    .any(|kind| config.get_entry(&format!("filter.{name}.{kind}")).is_ok())
            });
            if is_run {
                found.push(String::from_utf8_lossy(path).into_owned());
            }
        }
        Ok(found)
    }
}

fn content(version: Version) -> Option<Oid> {
    version.map(|(_, oid)| oid)
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

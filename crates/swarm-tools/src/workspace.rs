//! A working tree of its own for each run.
//!
//! ```text
//! workspaces/<name>/tree/        what the agent sees and writes: files, and no `.git`
//!                  /state.json   the commit it was made from          } beside it, out of
//!                  /files.json   which files are unchanged            } the agent's reach
//! ```
//!
//! The host takes what the agent did out as data: it walks the tree name by name, never through a
//! symbolic link, and writes the files into the mirror's object database. What a newcomer gets
//! wrong: the tree is not a git repository. A `.git` that an agent makes is left alone and left
//! out, no attribute or filter has any effect, and a repository whose tests need its history
//! cannot run them here.

use std::path::{Path, PathBuf};

use git2::Repository;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use swarm_core::failure::Failure;
use swarm_core::port::forge::Sha;
use swarm_core::time::Timestamp;
use thiserror::Error;

use crate::git::{self, Lock, Mirror, NewCommit, Person, TreeId, Treeish, objects};

mod apply;
mod disk;
mod files;
mod ignores;
mod names;
mod walk;

/// How much of a tree is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files, ignored ones not counted.
    pub files_max: u64,
    /// Bytes of one file.
    pub file_max_bytes: u64,
    /// Bytes of all files that differ from the commit.
    pub changed_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            files_max: 300_000,
            file_max_bytes: 50 * 1024 * 1024,
            changed_max_bytes: 512 * 1024 * 1024,
        }
    }
}

/// Why a workspace could not be made, read or put back.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no workspace yet: check out first.
    #[error("there is no workspace `{key}`")]
    Missing {
        /// Its key.
        key: String,
    },
    /// The repository has a name that no checkout should write.
    #[error("refusing to write `{}`: {why}", .path.escape_debug())]
    BadName {
        /// The path in the repository.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More files than we are willing to take.
    #[error(
        "the tree has more than {max} files: delete what was generated, or ignore it in `.gitignore`"
    )]
    TooManyFiles {
        /// The limit.
        max: u64,
    },
    /// A file is larger than we are willing to take.
    #[error("`{}` has {bytes} bytes, at most {max} are taken: delete it, or ignore it in `.gitignore`", .path.escape_debug())]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The change is larger than we are willing to take.
    #[error(
        "the changed files have more than {max} bytes together: delete what was generated, or ignore it in `.gitignore`"
    )]
    ChangeTooLarge {
        /// The limit.
        max: u64,
    },
    /// Folders are nested deeper than we are willing to follow.
    #[error("`{}` is nested too deeply, at most {max} folders are followed", .path.escape_debug())]
    TooDeep {
        /// The folder.
        path: String,
        /// The limit.
        max: usize,
    },
    /// A file cannot be read, written or removed.
    #[error("{what} `{}`", .path.escape_debug())]
    Disk {
        /// What was done.
        what: &'static str,
        /// To which file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The mirror failed.
    #[error(transparent)]
    Git(#[from] git::Error),
}

impl From<Error> for Failure {
    /// The failure of a node: what the agent left in its tree is `workspace`.
    fn from(error: Error) -> Self {
        let message = git::chain(&error);
        match error {
            Error::Git(error) => error.into(),
            Error::Disk { .. } => Self::retryable("io", message),
            Error::Missing { .. }
            | Error::BadName { .. }
            | Error::TooManyFiles { .. }
            | Error::FileTooLarge { .. }
            | Error::ChangeTooLarge { .. }
            | Error::TooDeep { .. } => Self::fatal("workspace", message),
        }
    }
}

/// The result of a workspace call.
pub type Result<T> = std::result::Result<T, Error>;

/// A tree taken out of a workspace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TreeSnapshot {
    /// The files, in the mirror's object database. Nothing there is ever thrown away.
    pub tree: TreeId,
    /// How many there are.
    pub files: u64,
    /// What was left out although no rule ignores it.
    pub left_out: Vec<LeftOut>,
}

/// Something in a workspace that is not taken.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LeftOut {
    /// Where it is.
    pub path: String,
    /// Why it is not taken.
    pub why: String,
}

/// A tree that is kept under a reference of the mirror.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Kept {
    /// The reference, `refs/devinswarm/snapshots/<workspace>/<number>`.
    pub reference: String,
    /// The commit, on top of the commit that the workspace was made from.
    pub commit: Sha,
    /// Its files.
    pub tree: TreeId,
}

/// The folder of workspaces.
#[derive(Clone, Debug)]
pub struct Workspaces {
    root: PathBuf,
    limits: Limits,
}

impl Workspaces {
    /// Workspaces in `root`, which is made when the first is.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), limits: Limits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The workspace of a key, such as a run's id, whether or not it exists yet. The same key is
    /// the same workspace.
    #[must_use]
    pub fn at(&self, key: &str) -> Workspace {
        let name = folder_name(key);
        Workspace {
            key: key.to_owned(),
            home: self.root.join(&name),
            // A few locks for all workspaces, so that they do not pile up.
            lock: self.root.join("locks").join(&name[name.len() - 2..]),
            name,
            limits: self.limits,
            ignoring: Vec::new(),
        }
    }
}

/// One run's working tree.
#[derive(Clone, Debug)]
pub struct Workspace {
    key: String,
    name: String,
    home: PathBuf,
    lock: PathBuf,
    limits: Limits,
    ignoring: Vec<String>,
}

/// What is remembered beside the tree.
#[derive(Debug, Deserialize, Serialize)]
struct State {
    base: Sha,
}

impl Workspace {
    /// The same workspace, with more untracked files left out: lines as in a `.gitignore` at the
    /// root, weaker than the repository's own. For what setting up and testing left behind before
    /// the agent began.
    #[must_use]
    pub fn ignoring(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.ignoring.extend(lines);
        self
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The tree, the only part that a sandbox may see. Absolute if the data directory is.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.home.join("tree")
    }

    /// The commit it was made from; `None` if it does not exist.
    ///
    /// # Errors
    /// The disk.
    pub fn base(&self) -> Result<Option<Sha>> {
        let path = self.home.join("state.json");
        match std::fs::read(&path) {
            Ok(bytes) => {
                let state: State = serde_json::from_slice(&bytes)
                    .map_err(|error| disk::failed("reading", &path)(error.into()))?;
                Ok(Some(state.base))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk::failed("reading", &path)(error)),
        }
    }

    /// Makes the tree equal a commit. Afterwards the workspace exists whole, whatever was killed
    /// before; if it exists from that commit already, it is left as it is.
    ///
    /// A workspace from another commit is brought to this one; what it holds is kept under a
    /// reference first.
    ///
    /// # Errors
    /// [`Error::BadName`] if the repository has a name that must not be written, or the disk.
    pub async fn checkout(&self, mirror: &Mirror, commit: &Sha, at: Timestamp) -> Result<()> {
        let (this, wanted) = (self.clone(), commit.clone());
        let existing = self
            .locked(mirror, move |repo| match this.base()? {
                Some(base) => Ok(Some(base)),
                None => this.make(repo, &wanted).map(|()| None),
            })
            .await?;
        if existing.is_some_and(|base| base != *commit) {
            self.keep(mirror, at).await?;
            let (this, wanted) = (self.clone(), commit.clone());
            self.locked(mirror, move |repo| {
                let tree = TreeId(objects::tree(repo, &Treeish::from(&wanted))?.id().to_string());
                this.put_back(repo, &tree)?;
                this.write_state(&State { base: wanted })
            })
            .await?;
        }
        Ok(())
    }

    /// Takes the tree out as data. Files of the base commit are always taken, others unless they
    /// are ignored by the tree's own `.gitignore` files (where one was deleted, by the base's) or
    /// are well-known leftovers of builds. Cheap when little has changed.
    ///
    /// # Errors
    /// [`Error::Missing`], and what the agent left: too many or too large files.
    pub async fn capture(&self, mirror: &Mirror) -> Result<TreeSnapshot> {
        let this = self.clone();
        self.locked(mirror, move |repo| this.take(repo)).await
    }

    /// Makes the tree equal a captured one again, ignored files aside. Doing it twice does it once.
    ///
    /// # Errors
    /// [`Error::Missing`], or the disk.
    pub async fn restore(&self, mirror: &Mirror, tree: &TreeId) -> Result<()> {
        let (this, tree) = (self.clone(), tree.clone());
        self.locked(mirror, move |repo| this.put_back(repo, &tree)).await
    }

    /// Captures the tree and keeps it under a reference of the mirror. The same tree on the same
    /// commit is kept once.
    ///
    /// # Errors
    /// As [`Workspace::capture`].
    pub async fn keep(&self, mirror: &Mirror, at: Timestamp) -> Result<Kept> {
        let tree = self.capture(mirror).await?.tree;
        let base = self.base()?.ok_or_else(|| self.missing())?;
        self.keep_tree(mirror, &base, &tree, at).await
    }

    /// Keeps a tree that was captured before under a reference of the mirror.
    ///
    /// # Errors
    /// [`git::Error::NotFound`] if the commit or the tree is not in the mirror.
    pub async fn keep_tree(
        &self,
        mirror: &Mirror,
        base: &Sha,
        tree: &TreeId,
        at: Timestamp,
    ) -> Result<Kept> {
        let folder = format!("refs/devinswarm/snapshots/{}", self.name);
        let (base, tree, key) = (base.clone(), tree.clone(), self.key.clone());
        let kept =
            mirror.with_refs(move |repo| keep_in(repo, &folder, &key, &base, &tree, at)).await?;
        Ok(kept)
    }

    /// Removes the workspace once its tree is kept; `None` if there was none.
    ///
    /// # Errors
    /// As [`Workspace::capture`]; then nothing is removed.
    pub async fn remove(&self, mirror: &Mirror, at: Timestamp) -> Result<Option<Kept>> {
        let kept = match self.base()? {
            Some(_) => Some(self.keep(mirror, at).await?),
            None => None,
        };
        let this = self.clone();
        self.locked(mirror, move |_| this.discard()).await?;
        Ok(kept)
    }

    fn missing(&self) -> Error {
        Error::Missing { key: self.key.clone() }
    }

    /// Works as the only one on this workspace, on a thread that may block.
    async fn locked<T: Send + 'static>(
        &self,
        mirror: &Mirror,
        work: impl FnOnce(&Repository) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (lock, mirror) = (self.lock.clone(), mirror.path().to_owned());
        git::blocking(move || {
            let folder = lock.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder).map_err(disk::failed("making", folder))?;
            let _lock = Lock::take_blocking(&lock)?;
            work(&objects::open_bare(&mirror)?)
        })
        .await
    }

    /// Makes the whole workspace beside its place and moves it there in one step.
    fn make(&self, repo: &Repository, base: &Sha) -> Result<()> {
        let draft = self.home.with_extension("draft");
        disk::remove(&draft)?;
        let tree = objects::tree(repo, &Treeish::from(base))?;
        let root = draft.join("tree");
        std::fs::create_dir_all(&root).map_err(disk::failed("making", &root))?;
        apply::write_new(repo, &tree, &root)?;
        let state = serde_json::to_vec(&State { base: base.clone() }).expect("a state is JSON");
        let path = draft.join("state.json");
        std::fs::write(&path, state).map_err(disk::failed("writing", &path))?;
        std::fs::rename(&draft, &self.home).map_err(disk::failed("moving", &draft))
    }

    fn take(&self, repo: &Repository) -> Result<TreeSnapshot> {
        let base = self.base()?.ok_or_else(|| self.missing())?;
        let tracked = vec![objects::tree(repo, &Treeish::from(&base))?];
        let mut known = files::Known::load(&self.home.join("files.json"));
        let scan = walk::scan(
            &self.tree(),
            walk::Request {
                repo,
                tracked: &tracked,
                rules: ignores::Rules::OnDisk,
                extra: &self.ignoring,
                limits: Some(self.limits),
                known: &mut known,
            },
        )?;
        let tree = scan.write(repo, &tracked[0])?;
        known.save(&self.home)?;
        Ok(TreeSnapshot { tree, files: scan.files, left_out: scan.left_out })
    }

    fn put_back(&self, repo: &Repository, tree: &TreeId) -> Result<()> {
        let base = self.base()?.ok_or_else(|| self.missing())?;
        let target = objects::tree(repo, &Treeish::from(tree))?;
        let tracked = vec![target.clone(), objects::tree(repo, &Treeish::from(&base))?];
        let mut known = files::Known::load(&self.home.join("files.json"));
        let scan = walk::scan(
            &self.tree(),
            walk::Request {
                repo,
                tracked: &tracked,
                rules: ignores::Rules::OfTree,
                extra: &self.ignoring,
                limits: None,
                known: &mut known,
            },
        )?;
        apply::make_equal(repo, &scan, &target, &self.home)
    }

    fn write_state(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec(state).expect("a state is JSON");
        disk::replace(&self.home.join("state.json"), &bytes)
    }

    /// Moves the workspace out of the way in one step, then deletes it.
    fn discard(&self) -> Result<()> {
        let trash = self.home.with_extension("trash");
        disk::remove(&trash)?;
        match std::fs::rename(&self.home, &trash) {
            Ok(()) => disk::remove(&trash),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(disk::failed("moving", &self.home)(error)),
        }
    }
}

/// A folder name that is safe and short, readable for people and different for different keys.
fn folder_name(key: &str) -> String {
    let readable: String = key
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(40)
        .collect();
    let hash = hex::encode(Sha256::digest(key.as_bytes()));
    format!("{}-{}", readable.trim_matches('-'), &hash[..16]).trim_start_matches('-').to_owned()
}

fn keep_in(
    repo: &Repository,
    folder: &str,
    key: &str,
    base: &Sha,
    tree: &TreeId,
    at: Timestamp,
) -> git::Result<Kept> {
    let mut last = 0;
    while let Some(commit) = objects::tip(repo, &format!("{folder}/{}", last + 1))? {
        last += 1;
        let found = objects::commit(repo, &commit)?;
        let is_same = found.tree_id().to_string() == tree.0
            && found.parent_ids().next().is_some_and(|parent| parent.to_string() == base.0);
        if is_same {
            return Ok(Kept { reference: format!("{folder}/{last}"), commit, tree: tree.clone() });
        }
    }
    let bot =
        Person { name: "devinswarm[bot]".to_owned(), email: "bot@devinswarm.invalid".to_owned() };
    let commit = objects::make_commit(
        repo,
        &NewCommit {
            tree: tree.clone(),
            parents: vec![base.clone()],
            author: bot.clone(),
            committer: bot,
            at,
            message: format!("Snapshot {} of workspace {key}", last + 1),
        },
    )?;
    let reference = format!("{folder}/{}", last + 1);
    // A killed process may have left its lock on this very name; we hold the lock that it held.
    let _ = std::fs::remove_file(repo.path().join(format!("{reference}.lock")));
    objects::set_ref(repo, &reference, None, &commit, "devinswarm: snapshot")?;
    Ok(Kept { reference, commit, tree: tree.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_is_safe_short_and_different_for_each_key() {
        let long = format!("20261123-084512-k3f9.assign#2/0{}", ".deliver#1/0".repeat(15));
        for key in [long.as_str(), "..", "/", "a/../../b", "-x", "", ".git", "a\nb"] {
            let name = folder_name(key);
            assert!(name.len() <= 57 && !name.starts_with(['-', '.']), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
                "{name}"
            );
        }
        assert_ne!(folder_name("a.b"), folder_name("a#b"));
    }
}

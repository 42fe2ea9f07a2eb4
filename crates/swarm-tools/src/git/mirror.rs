//! Mirrors: one bare copy of each repository in the data directory.
//!
//! The origin's branches live under `refs/remotes/origin/` and are overwritten by each fetch; what
//! is ours lives under `refs/devinswarm/` and is never deleted. A mirror may be used by several
//! processes at once: fetching takes a lock between processes, and so does moving our references.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use git2::Repository;
use sha2::{Digest as _, Sha256};
use swarm_core::diff::Diff;
use swarm_core::port::forge::Sha;

use super::cli::Call;
use super::{
    Credentials, DiffLimits, Error, Git, Lock, Merged, NewCommit, Origin, Result, TreeId, Treeish,
    between, check_branch, objects, refs,
};

/// How long a fetch or a push may take, and how long one waits for another process's.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The largest file that is read into memory as a text.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The folder of mirrors.
#[derive(Clone, Debug)]
pub struct Mirrors {
    dir: PathBuf,
    git: Git,
    timeout: Duration,
}

impl Mirrors {
    /// Mirrors in `dir`, which is made when the first is.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, git: Git) -> Self {
        Self { dir: dir.into(), git, timeout: NETWORK_TIMEOUT }
    }

    /// The same with another limit on how long a fetch or a push may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The mirror of a repository, made when missing, brought up to date.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], or what git says.
    pub async fn mirror(&self, clone_url: &str, credentials: &Credentials) -> Result<Mirror> {
        let mirror = self.open(clone_url).await?;
        mirror.fetch(credentials).await?;
        Ok(mirror)
    }

    /// The mirror of a repository as it was fetched last; an empty one when there was none.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`], or the disk.
    pub async fn open(&self, clone_url: &str) -> Result<Mirror> {
        let origin = Origin::parse(clone_url)?;
        let key = hex::encode(Sha256::digest(origin.address().as_encoded_bytes()));
        let name = format!("{}-{}", origin.slug(), &key[..16]);
        let mirror = Mirror {
            inner: Arc::new(Inner {
                path: self.dir.join(format!("{name}.git")),
                fetch_lock: self.dir.join(format!("{name}.fetch.lock")),
                refs_lock: self.dir.join(format!("{name}.refs.lock")),
                origin,
                git: self.git.clone(),
                timeout: self.timeout,
            }),
        };
        mirror.ensure().await?;
        Ok(mirror)
    }
}

/// A mirror of one repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mirror {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    fetch_lock: PathBuf,
    refs_lock: PathBuf,
    origin: Origin,
    git: Git,
    timeout: Duration,
}

impl Mirror {
    /// Where the bare repository is. Only the host may see it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What it is a mirror of.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// Brings the origin's branches up to date. Afterwards a branch that is gone there is gone
    /// here; its commits and our own references stay.
    ///
    /// # Errors
    /// What git says, or [`Error::TimedOut`].
    pub async fn fetch(&self, credentials: &Credentials) -> Result<()> {
        let inner = &self.inner;
        let lock = Lock::take(&inner.fetch_lock, inner.timeout).await?;
        // Only a fetch writes there, and ours is the only one: what is left over is of a killed one.
        remove_stale_locks(&inner.path.join("refs/remotes"));
        let mut args: Vec<OsString> = [
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--",
        ]
        .map(OsString::from)
        .to_vec();
        args.push(inner.origin.address());
        args.push("+refs/heads/*:refs/remotes/origin/*".into());
        inner
            .git
            .run(Call {
                what: format!("fetching from `{}`", inner.origin),
                git_dir: Some(&inner.path),
                protocol: Some(inner.origin.protocol()),
                args,
                credentials,
                timeout: inner.timeout,
                holds: Some(lock.for_child()?),
            })
            .await?;
        Ok(())
    }

    /// The commit of a branch of the origin, as fetched last.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::NotFound`].
    pub async fn branch(&self, name: &str) -> Result<Sha> {
        check_branch(name)?;
        let (name, origin) = (name.to_owned(), self.inner.origin.to_string());
        self.with(move |repo| {
            objects::tip(repo, &format!("refs/remotes/origin/{name}"))?
                .ok_or(Error::NotFound { what: format!("branch `{name}`"), repo: origin })
        })
        .await
    }

    /// Whether a commit is here.
    ///
    /// # Errors
    /// The disk.
    pub async fn has_commit(&self, commit: &Sha) -> Result<bool> {
        let commit = commit.clone();
        self.with(move |repo| match objects::commit(repo, &commit) {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// A file as it is in a commit or tree, `AGENTS.md` of the base for example; `None` if it is
    /// not there, or is no file.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the commit, [`Error::TooLarge`] above 1 MiB.
    pub async fn read_file(&self, at: impl Into<Treeish>, path: &str) -> Result<Option<Vec<u8>>> {
        let (at, path) = (at.into(), path.to_owned());
        self.with(move |repo| objects::read_file(repo, &at, &path, FILE_MAX_BYTES)).await
    }

    /// The paths of all files in a commit or tree, in order.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn files(&self, at: impl Into<Treeish>) -> Result<Vec<String>> {
        let at = at.into();
        self.with(move |repo| objects::files(repo, &at)).await
    }

    /// The files of a commit or tree with one of them made or replaced, as a tree. Nothing is
    /// written to any disk but the mirror's own, so no link in the files leads anywhere.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidName`] when the path is none of a file, or a link or
    /// a folder is in its way.
    pub async fn with_file(
        &self,
        at: impl Into<Treeish>,
        path: &str,
        text: impl Into<Vec<u8>>,
    ) -> Result<TreeId> {
        let (at, path, bytes) = (at.into(), path.to_owned(), text.into());
        self.with(move |repo| objects::with_file(repo, &at, &path, &bytes)).await
    }

    /// The tree of a commit.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tree_of(&self, commit: &Sha) -> Result<TreeId> {
        let at = Treeish::from(commit);
        self.with(move |repo| Ok(TreeId(objects::tree(repo, &at)?.id().to_string()))).await
    }

    /// What changed from one commit or tree to another, as data.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn diff(&self, old: impl Into<Treeish>, new: impl Into<Treeish>) -> Result<Diff> {
        let (old, new) = (old.into(), new.into());
        self.with(move |repo| {
            let (old, new) = (objects::tree(repo, &old)?, objects::tree(repo, &new)?);
            between(repo, &old, &new, DiffLimits::default())
        })
        .await
    }

    /// The best common ancestor of two commits, which a pull request is compared with.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn merge_base(&self, one: &Sha, other: &Sha) -> Result<Option<Sha>> {
        let (one, other) = (one.clone(), other.clone());
        self.with(move |repo| objects::merge_base(repo, &one, &other)).await
    }

    /// The files of the merge of two commits, written to the mirror.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn merge(&self, ours: &Sha, theirs: &Sha) -> Result<Merged> {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        self.with(move |repo| objects::merge(repo, &ours, &theirs, true)).await
    }

    /// The files of the merge of two commits, written to the mirror. Where they conflict, a file
    /// holds both sides between conflict marks, or the side that still has it; their paths are
    /// returned, in order.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn merge_marked(&self, ours: &Sha, theirs: &Sha) -> Result<(TreeId, Vec<String>)> {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        self.with(move |repo| objects::merge_marked(repo, &ours, &theirs)).await
    }

    /// Makes a commit from a tree; the same fields make the same commit. No reference leads to it
    /// yet, and nothing here ever throws it away.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidPerson`].
    pub async fn commit(&self, new: NewCommit) -> Result<Sha> {
        self.with(move |repo| objects::make_commit(repo, &new)).await
    }

    /// Where one of our references (`refs/devinswarm/…`) is; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub async fn reference(&self, name: &str) -> Result<Option<Sha>> {
        refs::check_own(name)?;
        let name = name.to_owned();
        self.with(move |repo| objects::tip(repo, &name)).await
    }

    /// Moves one of our references (`refs/devinswarm/…`) from where it is expected to be (`None`:
    /// it must not exist) to a commit. It is success if it is there already.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::RefMoved`], [`Error::NotFound`].
    pub async fn set_reference(&self, name: &str, expected: Option<&Sha>, new: &Sha) -> Result<()> {
        refs::check_own(name)?;
        let (name, expected, new) = (name.to_owned(), expected.cloned(), new.clone());
        self.with_refs(move |repo| {
            remove_stale_lock(&repo.path().join(format!("{name}.lock")));
            objects::set_ref(repo, &name, expected.as_ref(), &new, "devinswarm")
        })
        .await
    }

    pub(crate) fn git(&self) -> &Git {
        &self.inner.git
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// Works on the open repository, on a thread that may block.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.inner.path.clone();
        blocking(move || work(&objects::open_bare(&path)?)).await
    }

    /// The same, as the only one who moves our references.
    pub(crate) async fn with_refs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lock = self.inner.refs_lock.clone();
        self.with(move |repo| {
            let _lock = Lock::take_blocking(&lock)?;
            work(repo)
        })
        .await
    }

    /// Makes the bare repository, whole or not at all.
    async fn ensure(&self) -> Result<()> {
        let inner = self.inner.clone();
        if inner.path.is_dir() {
            return Ok(());
        }
        let folder = inner.path.parent().unwrap_or(Path::new("/")).to_owned();
        let making = format!("making the folder `{}`", folder.display());
        tokio::fs::create_dir_all(&folder).await.map_err(Error::io(making))?;
        let lock = Lock::take(&inner.fetch_lock, inner.timeout).await?;
        blocking(move || {
            if !inner.path.is_dir() {
                make_bare(&inner.path)?;
            }
            drop(lock);
            Ok(())
        })
        .await
    }
}

/// Runs work that blocks. A panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> std::result::Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will look at any result.
            Err(_) => std::future::pending().await,
        },
    }
}

fn make_bare(path: &Path) -> Result<()> {
    let draft = path.with_extension("git.draft");
    if draft.exists() {
        let removing = format!("removing `{}`", draft.display());
        std::fs::remove_dir_all(&draft).map_err(Error::io(removing))?;
    }
    let mut options = git2::RepositoryInitOptions::new();
    // Without a template there are no hooks, not even samples.
    options.bare(true).no_reinit(true).external_template(false);
    Repository::init_opts(&draft, &options).map_err(|source| Error::Objects {
        what: "making a mirror",
        repo: draft.display().to_string(),
        source,
    })?;
    let moving = format!("moving `{}` into place", draft.display());
    std::fs::rename(&draft, path).map_err(Error::io(moving))
}

/// Removes a lock that a killed process left. The caller is the only one who may make it.
fn remove_stale_lock(path: &Path) {
    // Nearly always there is none; if it cannot be removed, git will say so.
    let _ = std::fs::remove_file(path);
}

fn remove_stale_locks(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_stale_locks(&path);
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            remove_stale_lock(&path);
        }
    }
}

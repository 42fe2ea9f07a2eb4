//! A tree on disk, read as data.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use git2::{ObjectType, Odb, Oid, Repository, Tree};
use rustix::fs::{FileType, Stat};

use super::files::{Known, Mark};
use super::ignores::{CACHE_TAG, Level, RULES_MAX_BYTES, Rules};
use super::{Error, LeftOut, Limits, Result, disk, names};
use crate::git::objects::{failed, place};
use crate::git::{self, TreeId};

/// How deep folders may be nested. Each open one holds a file descriptor.
pub(super) const DEPTH_MAX: usize = 200;

pub(super) const FILE: i32 = 0o100_644;
pub(super) const EXECUTABLE: i32 = 0o100_755;
pub(super) const LINK: i32 = 0o120_000;
pub(super) const SUBMODULE: i32 = 0o160_000;
pub(super) const FOLDER: i32 = 0o040_000;

/// What to read, and how.
pub(super) struct Request<'a> {
    pub(super) repo: &'a Repository,
    /// Trees whose files are never ignored; the first is asked first.
    pub(super) tracked: &'a [Tree<'a>],
    pub(super) rules: Rules,
    /// More lines of the weakest rules.
    pub(super) extra: &'a [String],
    /// `None`: whatever is too large is only told apart from what is tracked.
    pub(super) limits: Option<Limits>,
    pub(super) known: &'a mut Known,
}

/// A tree, read.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) root: Folder,
    pub(super) files: u64,
    pub(super) left_out: Vec<LeftOut>,
}

pub(super) type Folder = BTreeMap<Vec<u8>, Node>;

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Node {
    Folder(Folder),
    /// Mode and content; `None` for content that was not read because it is too large.
    Leaf(i32, Option<Oid>),
}

pub(super) fn scan(root: &Path, request: Request<'_>) -> Result<Scan> {
    let weakest = Level::weakest(request.extra);
    let odb = request.repo.odb().map_err(failed(request.repo, "opening the objects"))?;
    let tracked: Vec<Tree<'_>> = request.tracked.to_vec();
    let mut walk = Walk { request, odb, files: 0, changed_bytes: 0, left_out: Vec::new() };
    let dir = disk::open_root(root)?;
    let root = walk.folder(dir.as_fd(), &[], &tracked, &weakest, false, 0)?;
    Ok(Scan { root, files: walk.files, left_out: walk.left_out })
}

struct Walk<'a> {
    request: Request<'a>,
    odb: Odb<'a>,
    files: u64,
    changed_bytes: u64,
    left_out: Vec<LeftOut>,
}

/// What the tracked trees say of a name.
struct Tracked<'r> {
    /// Content and mode, if it is a file or a link in one of them.
    leaf: Option<(Oid, i32)>,
    submodule: Option<Oid>,
    folders: Vec<Tree<'r>>,
}

impl<'a> Walk<'a> {
    /// Reads a folder. `is_ignored` says that only tracked files of it count.
    fn folder(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        tracked: &[Tree<'a>],
        above: &Level<'_>,
        is_ignored: bool,
        depth: usize,
    ) -> Result<Folder> {
        if depth > DEPTH_MAX {
            return Err(Error::TooDeep { path: text(path), max: DEPTH_MAX });
        }
        let own = self.rules_of(dir, path, tracked, above)?;
        let level = own.as_ref().unwrap_or(above);
        let mut folder = Folder::new();
        for name in disk::names(dir).map_err(disk::failed_at("reading the folder", path))? {
            let full = join(path, &name);
            if names::is_git(&name) {
                self.leave_out(&full, "it is, or would be taken for, git's own folder");
                continue;
            }
            let found = self.tracked(tracked, &name)?;
            if let Some(node) = self.entry(dir, &name, &full, &found, level, is_ignored, depth)? {
                folder.insert(name, node);
            }
        }
        self.add_submodules(tracked, &mut folder);
        Ok(folder)
    }

    #[expect(clippy::too_many_arguments, reason = "one call, in the recursion above")]
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        tracked: &Tracked<'a>,
        level: &Level<'_>,
        is_ignored: bool,
        depth: usize,
    ) -> Result<Option<Node>> {
        let stat = disk::stat(dir, name).map_err(disk::failed_at("reading", path))?;
        let kind = disk::kind(&stat);
        let is_dir = kind == FileType::Directory;
        let is_tracked = tracked.leaf.is_some() && !is_dir;
        let is_ignored = is_ignored || (!is_tracked && level.ignores(path, is_dir));
        match kind {
            FileType::Directory => {
                if let Some(submodule) = tracked.submodule {
                    self.look_into_submodule(dir, name, path)?;
                    return Ok(Some(Node::Leaf(SUBMODULE, Some(submodule))));
                }
                if depth >= DEPTH_MAX && self.request.limits.is_none() {
                    // Nothing tracked is nested as deeply: it only has to go.
                    return Ok(Some(Node::Leaf(FILE, None)));
                }
                if tracked.folders.is_empty() && is_ignored {
                    return Ok(None);
                }
                let inner = disk::open_dir(dir, name).map_err(disk::failed_at("opening", path))?;
                if tracked.folders.is_empty() && is_cache(inner.as_fd()) {
                    return Ok(None);
                }
                let folder = self.folder(
                    inner.as_fd(),
                    path,
                    &tracked.folders,
                    level,
                    is_ignored,
                    depth + 1,
                )?;
                Ok((!folder.is_empty()).then_some(Node::Folder(folder)))
            }
            _ if is_ignored && !is_tracked => Ok(None),
            FileType::RegularFile => self.file(dir, name, path, &stat, tracked).map(Some),
            FileType::Symlink => {
                let target = disk::read_link(dir, name)
                    .map_err(disk::failed_at("reading the link", path))?;
                self.count()?;
                let oid = self.store(&target, tracked, path)?;
                Ok(Some(Node::Leaf(LINK, Some(oid))))
            }
            _ => {
                self.leave_out(path, "it is neither a file nor a folder nor a link");
                Ok(None)
            }
        }
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        tracked: &Tracked<'a>,
    ) -> Result<Node> {
        self.count()?;
        let mode = if stat.st_mode & 0o100 != 0 { EXECUTABLE } else { FILE };
        let mark = Mark::of(stat);
        if let Some(oid) = self.request.known.unchanged(path, mark)
            // A mirror may have been made anew since.
            && (tracked.leaf.is_some_and(|(leaf, _)| leaf == oid) || self.odb.exists(oid))
        {
            return Ok(Node::Leaf(mode, Some(oid)));
        }
        let max = self.request.limits.map_or(u64::MAX >> 1, |limits| limits.file_max_bytes);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // A tracked file may be as large as it was; a commit of it is in the mirror already.
        let max = match tracked.leaf {
            Some((oid, _)) => max.max(self.odb.read_header(oid).map_or(0, |(size, _)| size as u64)),
            None => max,
        };
        let too_large = |bytes| match self.request.limits {
            Some(_) => Err(Error::FileTooLarge { path: text(path), bytes, max }),
            None => Ok(Node::Leaf(mode, None)),
        };
        if size > max || (self.request.limits.is_none() && self.is_other_size(size, tracked)) {
            return too_large(size);
        }
        let read = disk::read(dir, name, max).map_err(disk::failed_at("reading", path))?;
        let Some(bytes) = read else { return too_large(max + 1) };
        let oid = self.store(&bytes, tracked, path)?;
        self.request.known.remember(path, mark, oid);
        Ok(Node::Leaf(mode, Some(oid)))
    }

    /// When only comparing, a file of another size than every tracked one need not be read.
    fn is_other_size(&self, size: u64, tracked: &Tracked<'a>) -> bool {
        match tracked.leaf {
            Some((oid, _)) => {
                self.odb.read_header(oid).is_ok_and(|(tracked, _)| tracked as u64 != size)
            }
            None => true,
        }
    }

    /// The id of some content; written to the mirror when it is new there and to be kept.
    fn store(&mut self, bytes: &[u8], tracked: &Tracked<'a>, path: &[u8]) -> Result<Oid> {
        let hashing = failed(self.request.repo, "hashing a file");
        let oid = Oid::hash_object(ObjectType::Blob, bytes).map_err(hashing)?;
        let Some(limits) = self.request.limits else { return Ok(oid) };
        if tracked.leaf.is_some_and(|(leaf, _)| leaf == oid) {
            return Ok(oid);
        }
        self.changed_bytes += bytes.len() as u64;
        if self.changed_bytes > limits.changed_max_bytes {
            return Err(Error::ChangeTooLarge { max: limits.changed_max_bytes });
        }
        self.odb.write(ObjectType::Blob, bytes).map_err(|source| {
            git::Error::Objects {
                what: "writing a file's content",
                repo: format!("{} ({})", place(self.request.repo), text(path)),
                source,
            }
            .into()
        })
    }

    fn count(&mut self) -> Result<()> {
        self.files += 1;
        match self.request.limits {
            Some(limits) if self.files > limits.files_max => {
                Err(Error::TooManyFiles { max: limits.files_max })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn leave_out(&mut self, path: &[u8], why: &str) {
        // Enough to see what is wrong; an agent could make thousands.
        if self.left_out.len() < 100 {
            self.left_out.push(LeftOut { path: text(path), why: why.to_owned() });
        }
    }

    fn look_into_submodule(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
        let inner = disk::open_dir(dir, name).map_err(disk::failed_at("opening", path))?;
        let names = disk::names(&inner).map_err(disk::failed_at("reading the folder", path))?;
        if !names.is_empty() {
            self.leave_out(path, "it is a submodule: its files belong to another repository");
        }
        Ok(())
    }

    /// Submodules whose empty folder is gone are still there; nothing on disk stands for them.
    fn add_submodules(&self, tracked: &[Tree<'a>], folder: &mut Folder) {
        if let Some(tree) = tracked.first() {
            for entry in tree.iter().filter(|entry| entry.filemode() == SUBMODULE) {
                folder
                    .entry(entry.name_bytes().to_vec())
                    .or_insert(Node::Leaf(SUBMODULE, Some(entry.id())));
            }
        }
    }

    fn tracked(&self, trees: &[Tree<'a>], name: &[u8]) -> Result<Tracked<'a>> {
        let mut found = Tracked { leaf: None, submodule: None, folders: Vec::new() };
        for (index, tree) in trees.iter().enumerate() {
            let Some(entry) = tree.get_name_bytes(name) else { continue };
            match entry.filemode() {
                FOLDER => {
                    let inner = self
                        .request
                        .repo
                        .find_tree(entry.id())
                        .map_err(failed(self.request.repo, "reading a tree"))?;
                    found.folders.push(inner);
                }
                SUBMODULE if index == 0 => found.submodule = Some(entry.id()),
                SUBMODULE => {}
                mode => found.leaf = found.leaf.or(Some((entry.id(), mode))),
            }
        }
        Ok(found)
    }

    /// The rules of a folder's own `.gitignore`, if it has one.
    fn rules_of<'up>(
        &self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        tracked: &[Tree<'a>],
        above: &'up Level<'up>,
    ) -> Result<Option<Level<'up>>> {
        let name = b".gitignore";
        if self.request.rules == Rules::OnDisk {
            let is_file =
                disk::stat(dir, name).is_ok_and(|stat| disk::kind(&stat) == FileType::RegularFile);
            if is_file {
                let read = disk::read(dir, name, RULES_MAX_BYTES);
                let read = read.map_err(disk::failed_at("reading", &join(path, name)))?;
                return Ok(read.map(|bytes| above.below(path, &bytes)));
            }
        }
        for tree in tracked {
            let Some(entry) = tree.get_name_bytes(name) else { continue };
            if entry.kind() == Some(ObjectType::Blob) && entry.filemode() != LINK {
                let blob = self.odb.read(entry.id());
                let blob = blob.map_err(failed(self.request.repo, "reading `.gitignore`"))?;
                let bytes = &blob.data()[..blob.len().min(1 << 20)];
                return Ok(Some(above.below(path, bytes)));
            }
        }
        Ok(None)
    }
}

/// Whether a tool says that all of a folder can be made again.
fn is_cache(dir: BorrowedFd<'_>) -> bool {
    let is_file = disk::stat(dir, b"CACHEDIR.TAG")
        .is_ok_and(|stat| disk::kind(&stat) == FileType::RegularFile);
    is_file
        && disk::read(dir, b"CACHEDIR.TAG", 4096)
            .is_ok_and(|read| read.is_some_and(|bytes| bytes.starts_with(CACHE_TAG)))
}

impl Scan {
    /// Writes the trees. Folders that are as in `base` are not written again.
    pub(super) fn write(&self, repo: &Repository, base: &Tree<'_>) -> Result<TreeId> {
        let odb = repo.odb().map_err(failed(repo, "opening the objects"))?;
        let oid = write_folder(repo, &odb, &self.root, Some(base))?;
        Ok(TreeId(oid.to_string()))
    }
}

fn write_folder(
    repo: &Repository,
    odb: &Odb<'_>,
    folder: &Folder,
    base: Option<&Tree<'_>>,
) -> Result<Oid> {
    let mut entries: Vec<(Vec<u8>, &[u8], i32, Oid)> = Vec::with_capacity(folder.len());
    for (name, node) in folder {
        match node {
            Node::Leaf(mode, oid) => {
                let oid = oid.expect("with limits all content is read");
                entries.push((name.clone(), name, *mode, oid));
            }
            Node::Folder(inner) => {
                let below = base
                    .and_then(|base| base.get_name_bytes(name))
                    .filter(|entry| entry.filemode() == FOLDER)
                    .and_then(|entry| repo.find_tree(entry.id()).ok());
                let oid = write_folder(repo, odb, inner, below.as_ref())?;
                // Git sorts a folder as if its name ended in a slash.
                entries.push((join(name, b""), name, FOLDER, oid));
            }
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let mut bytes = Vec::new();
    for (_, name, mode, oid) in entries {
        bytes.extend_from_slice(format!("{mode:o} ").as_bytes());
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(oid.as_bytes());
    }
    let oid = Oid::hash_object(ObjectType::Tree, &bytes).map_err(failed(repo, "hashing a tree"))?;
    if base.is_some_and(|base| base.id() == oid) {
        return Ok(oid);
    }
    Ok(odb.write(ObjectType::Tree, &bytes).map_err(failed(repo, "writing a tree"))?)
}

/// `folder/name`; a name alone at the root.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = folder.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

pub(super) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

//! Objects and references through libgit2: plain functions on an open repository.
//!
//! They block; [`super::Mirror`] calls them on threads that may. Nothing here touches a work tree
//! or an index, so neither filters nor attributes of a repository have any say.

use std::collections::BTreeSet;
use std::path::Path;

use git2::{ErrorClass, ErrorCode, ObjectType, Oid, Repository, Signature, Sort, Time, Tree};
use serde::{Deserialize, Serialize};
use swarm_core::port::forge::Sha;
use swarm_core::time::Timestamp;

use super::{Error, Result, TreeId};

/// Someone whose name stands in a commit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

/// A commit to be made from a tree. The same fields make the same commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewCommit {
    /// What the files are.
    pub tree: TreeId,
    /// The commits it goes on top of.
    pub parents: Vec<Sha>,
    /// Who wrote it.
    pub author: Person,
    /// Who made the commit.
    pub committer: Person,
    /// When, for both; seconds count.
    pub at: Timestamp,
    /// The message. It gets a line break at its end if it has none.
    pub message: String,
}

/// Something with files: a commit or a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Treeish(pub(crate) String);

impl From<&Sha> for Treeish {
    fn from(sha: &Sha) -> Self {
        Self(sha.0.clone())
    }
}

impl From<&TreeId> for Treeish {
    fn from(tree: &TreeId) -> Self {
        Self(tree.0.clone())
    }
}

/// The merge of two commits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Merged {
    /// Their files, merged.
    Clean(TreeId),
    /// They conflict in these files.
    Conflict(Vec<String>),
}

pub(crate) fn place(repo: &Repository) -> String {
    repo.path().display().to_string()
}

/// Names the call and the repository in libgit2's errors.
pub(crate) fn failed(repo: &Repository, what: &'static str) -> impl FnOnce(git2::Error) -> Error {
    let repo = place(repo);
    move |source| Error::Objects { what, repo, source }
}

pub(crate) fn open_bare(path: &Path) -> Result<Repository> {
    Repository::open_bare(path).map_err(|source| Error::Objects {
        what: "opening the repository",
        repo: path.display().to_string(),
        source,
    })
}

/// Opens a repository with or without a work tree.
pub(crate) fn open(path: &Path) -> Result<Repository> {
    Repository::open(path).map_err(|source| {
        let repo = path.display().to_string();
        if source.code() == ErrorCode::NotFound {
            Error::NotFound { what: "a git repository".to_owned(), repo }
        } else {
            Error::Objects { what: "opening the repository", repo, source }
        }
    })
}

/// Reads a full object id; short ones are refused, because what they name may change.
pub(crate) fn oid(repo: &Repository, what: &str, text: &str) -> Result<Oid> {
    if text.len() == 40
        && let Ok(oid) = Oid::from_str(text)
    {
        return Ok(oid);
    }
    Err(Error::NotFound { what: format!("{what} `{}`", text.escape_debug()), repo: place(repo) })
}

pub(crate) fn sha(oid: Oid) -> Sha {
    Sha(oid.to_string())
}

/// The commit that a reference leads to; `None` if there is no such reference.
pub(crate) fn tip(repo: &Repository, name: &str) -> Result<Option<Sha>> {
    match repo.find_reference(name) {
        Ok(reference) => {
            let commit =
                reference.peel_to_commit().map_err(failed(repo, "following a reference"))?;
            Ok(Some(sha(commit.id())))
        }
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed(repo, "reading a reference")(error)),
    }
}

fn is_missing(error: &git2::Error) -> bool {
    matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec)
}

pub(crate) fn commit<'r>(repo: &'r Repository, commit: &Sha) -> Result<git2::Commit<'r>> {
    let id = oid(repo, "commit", &commit.0)?;
    repo.find_commit(id).map_err(|error| {
        if error.code() == ErrorCode::NotFound || error.class() == ErrorClass::Invalid {
            Error::NotFound { what: format!("commit `{commit}`"), repo: place(repo) }
        } else {
            failed(repo, "reading a commit")(error)
        }
    })
}

pub(crate) fn tree<'r>(repo: &'r Repository, treeish: &Treeish) -> Result<Tree<'r>> {
    let id = oid(repo, "tree", &treeish.0)?;
    let missing = || Error::NotFound { what: format!("tree `{id}`"), repo: place(repo) };
    let object = repo.find_object(id, None).map_err(|error| {
        if error.code() == ErrorCode::NotFound {
            missing()
        } else {
            failed(repo, "reading a tree")(error)
        }
    })?;
    object.peel_to_tree().map_err(|_| missing())
}

/// The paths of all files, in order; names that are not UTF-8 with their bad bytes replaced.
pub(crate) fn files(repo: &Repository, treeish: &Treeish) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    tree(repo, treeish)?
        .walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
            if entry.kind() == Some(ObjectType::Blob) {
                let name = String::from_utf8_lossy(entry.name_bytes());
                paths.push(format!("{folder}{name}"));
            }
            git2::TreeWalkResult::Ok
        })
        .map_err(failed(repo, "listing files"))?;
    Ok(paths)
}

/// Reads a file; `None` if the path is not there or is no file.
pub(crate) fn read_file(
    repo: &Repository,
    treeish: &Treeish,
    path: &str,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>> {
    let tree = tree(repo, treeish)?;
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Ok(None);
    }
    let entry = match tree.get_path(Path::new(path)) {
        Ok(entry) => entry,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(failed(repo, "looking for a file")(error)),
    };
    let is_file = matches!(entry.filemode(), 0o100_644 | 0o100_755);
    if entry.kind() != Some(ObjectType::Blob) || !is_file {
        return Ok(None);
    }
    let odb = repo.odb().map_err(failed(repo, "opening the objects"))?;
    let (size, _) = odb.read_header(entry.id()).map_err(failed(repo, "reading a file"))?;
    if size as u64 > bytes_max {
        return Err(Error::TooLarge {
            what: format!("`{path}`"),
            bytes: size as u64,
            max: bytes_max,
        });
    }
    let blob = odb.read(entry.id()).map_err(failed(repo, "reading a file"))?;
    Ok(Some(blob.data().to_vec()))
}

/// The files of a tree with one of them made or replaced. A replaced file stays executable.
pub(crate) fn with_file(
    repo: &Repository,
    treeish: &Treeish,
    path: &str,
    bytes: &[u8],
) -> Result<TreeId> {
    let refused = |why| Error::InvalidName { what: "file", name: path.to_owned(), why };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(refused("write folders and a file, with `/` between them"));
    }
    let tree = tree(repo, treeish)?;
    let mut mode = git2::FileMode::Blob;
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        let is_whole = end == path.len();
        match tree.get_path(Path::new(&path[..end])) {
            Ok(entry) if !is_whole && entry.kind() == Some(ObjectType::Tree) => {}
            Ok(entry) if is_whole && entry.filemode() == 0o100_644 => {}
            Ok(entry) if is_whole && entry.filemode() == 0o100_755 => {
                mode = git2::FileMode::BlobExecutable;
            }
            Ok(_) => return Err(refused("a link, a folder or a file is in its way")),
            Err(error) if is_missing(&error) => break,
            Err(error) => return Err(failed(repo, "looking for a file")(error)),
        }
    }
    let blob = repo.blob(bytes).map_err(failed(repo, "writing a file"))?;
    let made =
        git2::build::TreeUpdateBuilder::new().upsert(path, blob, mode).create_updated(repo, &tree);
    match made {
        Ok(made) => Ok(TreeId(made.to_string())),
        Err(error) if error.class() == ErrorClass::Tree => {
            Err(refused("git allows no such name in a tree"))
        }
        Err(error) => Err(failed(repo, "writing a tree")(error)),
    }
}

/// Makes a commit that no reference leads to yet. The same input makes the same commit.
pub(crate) fn make_commit(repo: &Repository, new: &NewCommit) -> Result<Sha> {
    let author = signature(&new.author, new.at)?;
    let committer = signature(&new.committer, new.at)?;
    let tree = tree(repo, &Treeish::from(&new.tree))?;
    let parents =
        new.parents.iter().map(|parent| commit(repo, parent)).collect::<Result<Vec<_>>>()?;
    let mut message = new.message.replace('\0', "");
    if !message.ends_with('\n') {
        message.push('\n');
    }
    repo.commit(None, &author, &committer, &message, &tree, &parents.iter().collect::<Vec<_>>())
        .map(sha)
        .map_err(failed(repo, "making a commit"))
}

fn signature(person: &Person, at: Timestamp) -> Result<Signature<'static>> {
    let invalid =
        || Error::InvalidPerson { name: person.name.clone(), email: person.email.clone() };
    if [&person.name, &person.email]
        .iter()
        .any(|text| text.trim().is_empty() || text.contains(['<', '>', '\n', '\r', '\0']))
    {
        return Err(invalid());
    }
    let seconds = at.as_millis().div_euclid(1000);
    Signature::new(&person.name, &person.email, &Time::new(seconds, 0)).map_err(|_| invalid())
}

/// Moves a reference from where it is expected (`None`: it must not exist) to a commit. It is
/// success if it is there already.
pub(crate) fn set_ref(
    repo: &Repository,
    name: &str,
    expected: Option<&Sha>,
    new: &Sha,
    log: &str,
) -> Result<()> {
    let target = commit(repo, new)?.id();
    let done = match expected {
        None => repo.reference(name, target, false, log),
        Some(expected) => {
            let expected = oid(repo, "commit", &expected.0)?;
            repo.reference_matching(name, target, true, expected, log)
        }
    };
    match done {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.code(),
                ErrorCode::Modified | ErrorCode::Exists | ErrorCode::NotFound
            ) =>
        {
            let found = tip(repo, name)?;
            if found.as_ref() == Some(new) {
                return Ok(());
            }
            Err(Error::RefMoved { name: name.to_owned(), expected: expected.cloned(), found })
        }
        Err(error) => Err(failed(repo, "moving a reference")(error)),
    }
}

/// Merges two commits without a work tree. With `keep` the merged objects stay in the repository,
/// otherwise they only ever exist in memory.
pub(crate) fn merge(repo: &Repository, ours: &Sha, theirs: &Sha, keep: bool) -> Result<Merged> {
    let odb = repo.odb().map_err(failed(repo, "opening the objects"))?;
    let in_memory = if keep {
        None
    } else {
        Some(odb.add_new_mempack_backend(1000).map_err(failed(repo, "merging in memory"))?)
    };
    let (ours, theirs) = (commit(repo, ours)?, commit(repo, theirs)?);
    let mut index = repo.merge_commits(&ours, &theirs, None).map_err(failed(repo, "merging"))?;
    let merged = if index.has_conflicts() {
        let conflicts = index.conflicts().map_err(failed(repo, "reading the conflicts"))?;
        let mut paths = BTreeSet::new();
        for conflict in conflicts {
            let conflict = conflict.map_err(failed(repo, "reading the conflicts"))?;
            for entry in [conflict.ancestor, conflict.our, conflict.their].into_iter().flatten() {
                paths.insert(String::from_utf8_lossy(&entry.path).into_owned());
            }
        }
        Merged::Conflict(paths.into_iter().collect())
    } else {
        let tree = index.write_tree_to(repo).map_err(failed(repo, "writing the merged tree"))?;
        Merged::Clean(TreeId(tree.to_string()))
    };
    if let Some(in_memory) = in_memory {
        in_memory.reset().map_err(failed(repo, "merging in memory"))?;
    }
    Ok(merged)
}

/// Merges two commits without a work tree, conflicts written into the files between marks. A side
/// that deleted a file gives way to the one that changed it.
pub(crate) fn merge_marked(
    repo: &Repository,
    ours: &Sha,
    theirs: &Sha,
) -> Result<(TreeId, Vec<String>)> {
    let (ours, theirs) = (commit(repo, ours)?, commit(repo, theirs)?);
    let mut index = repo.merge_commits(&ours, &theirs, None).map_err(failed(repo, "merging"))?;
    let reading = "reading the conflicts";
    let conflicts: Vec<git2::IndexConflict> =
        index.conflicts().and_then(Iterator::collect).map_err(failed(repo, reading))?;
    let mut paths = BTreeSet::new();
    for conflict in conflicts {
        let sides = [&conflict.our, &conflict.their, &conflict.ancestor];
        let Some(path) = sides.into_iter().flatten().next().map(|entry| entry.path.clone()) else {
            continue;
        };
        let entry = match (&conflict.our, &conflict.their) {
            (Some(ours), Some(theirs)) => Some(marked(repo, &conflict, ours, theirs)?),
            (Some(side), None) | (None, Some(side)) => Some((side.id, side.mode)),
            (None, None) => None,
        };
        index
            .conflict_remove(Path::new(&*String::from_utf8_lossy(&path)))
            .map_err(failed(repo, reading))?;
        if let Some((id, mode)) = entry {
            index
                .add(&index_entry(path.clone(), id, mode))
                .map_err(failed(repo, "writing a conflict"))?;
        }
        paths.insert(String::from_utf8_lossy(&path).into_owned());
    }
    let tree = index.write_tree_to(repo).map_err(failed(repo, "writing the merged tree"))?;
    Ok((TreeId(tree.to_string()), paths.into_iter().collect()))
}

/// A file with both sides between conflict marks; our side where it is not text.
fn marked(
    repo: &Repository,
    conflict: &git2::IndexConflict,
    ours: &git2::IndexEntry,
    theirs: &git2::IndexEntry,
) -> Result<(Oid, u32)> {
    let nothing = index_entry(ours.path.clone(), Oid::ZERO_SHA1, ours.mode);
    let ancestor = conflict.ancestor.as_ref().unwrap_or(&nothing);
    let is_file = |entry: &git2::IndexEntry| matches!(entry.mode, 0o100_644 | 0o100_755);
    if !is_file(ours) || !is_file(theirs) {
        return Ok((ours.id, ours.mode));
    }
    let mut options = git2::MergeFileOptions::new();
    options.our_label("ours").their_label("base");
    let merged = repo.merge_file_from_index(ancestor, ours, theirs, Some(&mut options));
    // What is not text cannot be marked: our side stands, and its path is told.
    let Ok(merged) = merged else { return Ok((ours.id, ours.mode)) };
    let id = repo.blob(merged.content()).map_err(failed(repo, "writing a conflict"))?;
    Ok((id, ours.mode))
}

fn index_entry(path: Vec<u8>, id: Oid, mode: u32) -> git2::IndexEntry {
    let never = git2::IndexTime::new(0, 0);
    git2::IndexEntry {
        ctime: never,
        mtime: never,
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path,
    }
}

/// The best common ancestor, if the two have any.
pub(crate) fn merge_base(repo: &Repository, one: &Sha, other: &Sha) -> Result<Option<Sha>> {
    let (one, other) = (commit(repo, one)?.id(), commit(repo, other)?.id());
    match repo.merge_base(one, other) {
        Ok(base) => Ok(Some(sha(base))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(failed(repo, "looking for the common ancestor")(error)),
    }
}

/// Whether `ancestor` is `commit` or comes before it.
pub(crate) fn contains(repo: &Repository, commit_id: &Sha, ancestor: &Sha) -> Result<bool> {
    let (commit, ancestor) = (commit(repo, commit_id)?.id(), commit(repo, ancestor)?.id());
    if commit == ancestor {
        return Ok(true);
    }
    repo.graph_descendant_of(commit, ancestor).map_err(failed(repo, "walking the history"))
}

/// How many commits of `base` the head lacks.
pub(crate) fn behind(repo: &Repository, head: &Sha, base: &Sha) -> Result<u64> {
    let (head, base) = (commit(repo, head)?.id(), commit(repo, base)?.id());
    let (_, behind) =
        repo.graph_ahead_behind(head, base).map_err(failed(repo, "walking the history"))?;
    Ok(behind as u64)
}

/// Names and addresses of whoever wrote or committed what `head` has and `base` lacks, each once.
pub(crate) fn people(
    repo: &Repository,
    base: &Sha,
    head: &Sha,
) -> Result<BTreeSet<(String, String)>> {
    let walking = "walking the history";
    let mut walk = repo.revwalk().map_err(failed(repo, walking))?;
    walk.set_sorting(Sort::TOPOLOGICAL).map_err(failed(repo, walking))?;
    walk.push(commit(repo, head)?.id()).map_err(failed(repo, walking))?;
    walk.hide(commit(repo, base)?.id()).map_err(failed(repo, walking))?;
    let mut people = BTreeSet::new();
    for id in walk {
        let id = id.map_err(failed(repo, walking))?;
        let commit = repo.find_commit(id).map_err(failed(repo, walking))?;
        for person in [commit.author(), commit.committer()] {
            people.insert((
                String::from_utf8_lossy(person.name_bytes()).into_owned(),
                String::from_utf8_lossy(person.email_bytes()).into_owned(),
            ));
        }
    }
    Ok(people)
}

/// The merge commit that brought `head` into `branch`: on its first-parent line, with the head as
/// second parent. Looks no further back than `limit` commits.
pub(crate) fn merge_of(
    repo: &Repository,
    branch: &Sha,
    head: &Sha,
    limit: usize,
) -> Result<Option<Sha>> {
    let head = oid(repo, "commit", &head.0)?;
    let mut commit = commit(repo, branch)?;
    for _ in 0..limit {
        if commit.parent_count() == 2 && commit.parent_id(1).is_ok_and(|parent| parent == head) {
            return Ok(Some(sha(commit.id())));
        }
        if commit.parent_count() == 0 {
            break;
        }
        commit = commit.parent(0).map_err(failed(repo, "walking the history"))?;
    }
    Ok(None)
}

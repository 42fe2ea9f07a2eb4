//! Two trees compared, as data.
//!
//! Whether a file is text is told by its bytes, never by `.gitattributes`: a change must not be
//! able to hide itself.

use git2::{Delta, DiffFindOptions, DiffLineType, DiffOptions, Odb, Patch, Repository, Tree};
use swarm_core::diff::{Diff, FileChange, FileMode, FileStatus, Hunk, Line, LineKind};

use super::Result;
use super::objects::failed;

/// How much is read, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiffLimits {
    /// Text of one version of a file that is read line by line.
    pub(crate) file_max: u64,
    /// The same for all files together.
    pub(crate) total_max: u64,
    /// The unified patch.
    pub(crate) patch_max: usize,
}

impl Default for DiffLimits {
    fn default() -> Self {
        Self { file_max: 2 * 1024 * 1024, total_max: 64 * 1024 * 1024, patch_max: 256 * 1024 }
    }
}

/// Compares two trees.
pub(crate) fn between(
    repo: &Repository,
    old: &Tree<'_>,
    new: &Tree<'_>,
    limits: DiffLimits,
) -> Result<Diff> {
    let comparing = "comparing two trees";
    let mut options = DiffOptions::new();
    options.context_lines(3).include_typechange(true).force_text(true).ignore_submodules(false);
    let mut compared = repo
        .diff_tree_to_tree(Some(old), Some(new), Some(&mut options))
        .map_err(failed(repo, comparing))?;
    compared
        .find_similar(Some(DiffFindOptions::new().renames(true).rename_limit(400)))
        .map_err(failed(repo, "looking for moved files"))?;
    let odb = repo.odb().map_err(failed(repo, comparing))?;
    let mut diff = Diff { base_files: count_files(repo, old)?, ..Diff::default() };
    let mut left = limits.total_max;
    for index in 0..compared.deltas().len() {
        let Some(delta) = compared.get_delta(index) else { continue };
        let mut file = change(repo, &odb, &delta)?;
        let text_bytes = file.old_bytes + file.new_bytes;
        file.is_cut = !file.is_binary
            && (file.old_bytes.max(file.new_bytes) > limits.file_max || text_bytes > left);
        let mut patch = if file.is_binary || file.is_cut {
            None
        } else {
            Patch::from_diff(&compared, index).map_err(failed(repo, comparing))?
        };
        if let Some(patch) = &mut patch {
            left = left.saturating_sub(text_bytes);
            read_hunks(repo, patch, &mut file)?;
        }
        append(repo, &mut diff, patch, &file, limits.patch_max)?;
        diff.files.push(file);
    }
    diff.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(diff)
}

/// Counts without recursion: how deeply a repository nests its folders is not up to us.
fn count_files(repo: &Repository, tree: &Tree<'_>) -> Result<u64> {
    let mut count = 0;
    let mut folders = vec![tree.id()];
    while let Some(id) = folders.pop() {
        let tree = repo.find_tree(id).map_err(failed(repo, "counting files"))?;
        for entry in &tree {
            match entry.kind() {
                Some(git2::ObjectType::Tree) => folders.push(entry.id()),
                _ => count += 1,
            }
        }
    }
    Ok(count)
}

fn change(repo: &Repository, odb: &Odb<'_>, delta: &git2::DiffDelta<'_>) -> Result<FileChange> {
    let (old, new) = (delta.old_file(), delta.new_file());
    let status = match delta.status() {
        Delta::Added | Delta::Copied => FileStatus::Added,
        Delta::Deleted => FileStatus::Deleted,
        Delta::Renamed => FileStatus::Renamed,
        Delta::Unmodified
        | Delta::Modified
        | Delta::Ignored
        | Delta::Untracked
        | Delta::Typechange
        | Delta::Unreadable
        | Delta::Conflicted => FileStatus::Modified,
    };
    let old_mode = (status != FileStatus::Added).then(|| mode(old.mode())).flatten();
    let new_mode = (status != FileStatus::Deleted).then(|| mode(new.mode())).flatten();
    let (old_bytes, old_binary) = look(repo, odb, old.id(), old_mode)?;
    let (new_bytes, new_binary) = look(repo, odb, new.id(), new_mode)?;
    let path = |file: &git2::DiffFile<'_>| {
        file.path_bytes().map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default()
    };
    let (old_path, new_path) = (path(&old), path(&new));
    Ok(FileChange {
        old_path: (status == FileStatus::Renamed).then(|| old_path.clone()),
        path: if status == FileStatus::Deleted { old_path } else { new_path },
        status,
        old_mode,
        new_mode,
        added: 0,
        removed: 0,
        old_bytes,
        new_bytes,
        is_binary: old_binary || new_binary,
        is_cut: false,
        hunks: Vec::new(),
    })
}

fn mode(mode: git2::FileMode) -> Option<FileMode> {
    match mode {
        git2::FileMode::Blob | git2::FileMode::BlobGroupWritable => Some(FileMode::File),
        git2::FileMode::BlobExecutable => Some(FileMode::Executable),
        git2::FileMode::Link => Some(FileMode::Symlink),
        git2::FileMode::Commit => Some(FileMode::Submodule),
        git2::FileMode::Unreadable | git2::FileMode::Tree => None,
    }
}

/// Size and whether git would call it binary: a NUL in the first 8000 bytes.
fn look(
    repo: &Repository,
    odb: &Odb<'_>,
    id: git2::Oid,
    mode: Option<FileMode>,
) -> Result<(u64, bool)> {
    match mode {
        None | Some(FileMode::Submodule) => return Ok((0, false)),
        Some(FileMode::File | FileMode::Executable | FileMode::Symlink) => {}
    }
    let (size, _) = odb.read_header(id).map_err(failed(repo, "reading a file"))?;
    // A file of this size is called binary unread: no text worth judging is as large.
    if size > 32 * 1024 * 1024 {
        return Ok((size as u64, true));
    }
    let object = odb.read(id).map_err(failed(repo, "reading a file"))?;
    let head = &object.data()[..object.len().min(8000)];
    Ok((size as u64, head.contains(&0)))
}

fn read_hunks(repo: &Repository, patch: &Patch<'_>, file: &mut FileChange) -> Result<()> {
    let reading = "reading a change";
    for index in 0..patch.num_hunks() {
        let (head, lines) = patch.hunk(index).map_err(failed(repo, reading))?;
        let mut hunk = Hunk {
            old_start: head.old_start(),
            old_lines: head.old_lines(),
            new_start: head.new_start(),
            new_lines: head.new_lines(),
            lines: Vec::with_capacity(lines),
        };
        for number in 0..lines {
            let line = patch.line_in_hunk(index, number).map_err(failed(repo, reading))?;
            let kind = match line.origin_value() {
                DiffLineType::Context => LineKind::Context,
                DiffLineType::Addition => LineKind::Added,
                DiffLineType::Deletion => LineKind::Removed,
                // Notes on a missing line break at the end; headers do not occur in hunks.
                DiffLineType::ContextEOFNL
                | DiffLineType::AddEOFNL
                | DiffLineType::DeleteEOFNL
                | DiffLineType::FileHeader
                | DiffLineType::HunkHeader
                | DiffLineType::Binary => continue,
            };
            match kind {
                LineKind::Added => file.added += 1,
                LineKind::Removed => file.removed += 1,
                LineKind::Context => {}
            }
            let text = String::from_utf8_lossy(line.content());
            let text = text.strip_suffix('\n').unwrap_or(&text);
            hunk.lines.push(Line {
                kind,
                old_line: line.old_lineno(),
                new_line: line.new_lineno(),
                text: text.to_owned(),
            });
        }
        file.hunks.push(hunk);
    }
    Ok(())
}

fn append(
    repo: &Repository,
    diff: &mut Diff,
    patch: Option<Patch<'_>>,
    file: &FileChange,
    patch_max: usize,
) -> Result<()> {
    if diff.is_patch_cut {
        return Ok(());
    }
    let text = match patch {
        Some(mut patch) => {
            let buffer = patch.to_buf().map_err(failed(repo, "writing a patch"))?;
            String::from_utf8_lossy(&buffer).into_owned()
        }
        None => format!(
            "diff --git a/{path} b/{path}\n{what} ({old} bytes before, {new} now)\n",
            path = file.path.escape_debug(),
            what = if file.is_binary { "Binary file" } else { "Text too large to show" },
            old = file.old_bytes,
            new = file.new_bytes,
        ),
    };
    let room = patch_max - diff.patch.len();
    if text.len() <= room {
        diff.patch.push_str(&text);
    } else {
        // Cut at a line, so that what is shown can be read.
        let end =
            text.as_bytes()[..room].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        diff.patch.push_str(&text[..end]);
        diff.is_patch_cut = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_patch_is_cut_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(dir.path()).unwrap();
        let empty = repo.treebuilder(None).unwrap().write().unwrap();
        let blob = repo.blob("line\n".repeat(100).as_bytes()).unwrap();
        let mut builder = repo.treebuilder(None).unwrap();
        builder.insert(Path::new("a"), blob, 0o100_644).unwrap();
        let full = builder.write().unwrap();
        let limits = DiffLimits { patch_max: 200, ..DiffLimits::default() };
        let (old, new) = (repo.find_tree(empty).unwrap(), repo.find_tree(full).unwrap());
        let diff = between(&repo, &old, &new, limits).unwrap();
        assert!(diff.is_patch_cut && diff.patch.ends_with("+line\n"), "{}", diff.patch);
        assert_eq!(diff.added(), 100);
    }
}

//! A change as data: which files, which lines, without any git.
//!
//! Filled from two trees by the host. Paths and lines are what the repository holds, hence
//! untrusted; bytes that are not UTF-8 are replaced. What a newcomer gets wrong: a file that is
//! too large to be read line by line has no hunks but [`FileChange::is_cut`], so "no added line
//! with a secret" is not "no secret".

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What changed between two trees.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Diff {
    /// The changed files, ordered by path.
    pub files: Vec<FileChange>,
    /// How many files the older tree has.
    pub base_files: u64,
    /// The whole as a unified patch, for people and models.
    pub patch: String,
    /// Whether the patch was cut at its limit.
    pub is_patch_cut: bool,
}

/// How a file changed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its text or its mode changed.
    Modified,
    /// It was moved, and perhaps changed.
    Renamed,
}

/// What kind of entry a path is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileMode {
    /// A file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link; its text is its target.
    Symlink,
    /// A submodule.
    Submodule,
}

/// One changed file.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct FileChange {
    /// Its path now, or its last one if it is gone.
    pub path: String,
    /// Its path before, if it was moved.
    pub old_path: Option<String>,
    /// How it changed.
    pub status: FileStatus,
    /// What it was; absent if it is new.
    pub old_mode: Option<FileMode>,
    /// What it is; absent if it is gone.
    pub new_mode: Option<FileMode>,
    /// Lines added. 0 for binary and cut files.
    pub added: u64,
    /// Lines removed. 0 for binary and cut files.
    pub removed: u64,
    /// Size before, in bytes.
    pub old_bytes: u64,
    /// Size now, in bytes.
    pub new_bytes: u64,
    /// Whether one of its versions is not text.
    pub is_binary: bool,
    /// Whether it is text, but too large to be read line by line.
    pub is_cut: bool,
    /// The changed places, in order. Empty for binary and cut files.
    pub hunks: Vec<Hunk>,
}

/// A changed place with the lines around it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Hunk {
    /// Its first line before, from 1; 0 if the file is new.
    pub old_start: u32,
    /// How many lines it had.
    pub old_lines: u32,
    /// Its first line now, from 1; 0 if the file is gone.
    pub new_start: u32,
    /// How many lines it has.
    pub new_lines: u32,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// What happened to a line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// It is the same.
    Context,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

/// A line in a hunk.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Line {
    /// What happened to it.
    pub kind: LineKind,
    /// Its number before, from 1.
    pub old_line: Option<u32>,
    /// Its number now, from 1.
    pub new_line: Option<u32>,
    /// Its text, without the line break.
    pub text: String,
}

impl Diff {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Lines added in all files.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.files.iter().map(|file| file.added).sum()
    }

    /// Lines removed in all files.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.files.iter().map(|file| file.removed).sum()
    }

    /// Every path that is touched, old names of moved files included, as path rules want them.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.files.iter().flat_map(|file| file.paths().map(ToOwned::to_owned)).collect()
    }

    /// The change of a file, by its path now.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&FileChange> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a line of the new file is in a hunk, so that a review may remark on it.
    #[must_use]
    pub fn has_line(&self, path: &str, line: u32) -> bool {
        self.file(path).is_some_and(|file| {
            file.hunks
                .iter()
                .flat_map(|hunk| &hunk.lines)
                .any(|candidate| candidate.new_line == Some(line))
        })
    }

    /// The size of the change for people: `3 files, +12 −4`.
    #[must_use]
    pub fn summary(&self) -> String {
        let files = if self.files.len() == 1 { "file" } else { "files" };
        format!("{} {files}, +{} −{}", self.files.len(), self.added(), self.removed())
    }
}

impl FileChange {
    /// The path now and, for a moved file, the one before.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.path.as_str()).chain(self.old_path.as_deref())
    }

    /// The lines that are new, with their numbers.
    pub fn added_lines(&self) -> impl Iterator<Item = (u32, &str)> {
        self.hunks.iter().flat_map(|hunk| &hunk.lines).filter_map(|line| match line.kind {
            LineKind::Added => line.new_line.map(|number| (number, line.text.as_str())),
            LineKind::Context | LineKind::Removed => None,
        })
    }
}

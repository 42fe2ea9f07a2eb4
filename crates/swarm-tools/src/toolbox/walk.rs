//! Walking the workspace, ignore files honoured.
//!
//! The `ignore` crate's own walker opens paths; this one opens names below handles like the rest
//! of the toolbox, and uses the crate for what the ignore files mean.

use std::path::Path;

use cap_std::fs::Dir;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::Trouble;
use super::tree::{Tree, is_draft, is_git, open_dir, read_entry};

/// The largest ignore file that is read, in bytes, and the deepest directory that is entered.
const IGNORE_BYTES: u64 = 256 * 1024;
const DEPTH: usize = 64;

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link; never followed here.
    Link,
    /// A device, a FIFO, a socket.
    Other,
}

/// One entry met on the way.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// The directory that it is in.
    pub(crate) dir: &'a Dir,
    /// Its name there; `None` when it is not UTF-8 and so cannot be named by a model.
    pub(crate) name: Option<&'a str>,
    /// Its path from the root, for showing when the name is not UTF-8.
    pub(crate) path: &'a str,
    /// What it is.
    pub(crate) what: What,
    /// How far below the start: 1 for what is directly in it.
    pub(crate) depth: usize,
}

/// How to go on after an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// On, into a directory.
    Into,
    /// On, not into this directory.
    Over,
    /// No further.
    Stop,
}

/// A walk below one directory.
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    rules: Vec<Gitignore>,
    is_ignoring: bool,
    left: usize,
}

impl<'a> Walk<'a> {
    /// A walk that meets at most `visited` entries; with `all`, ignored ones too.
    pub(crate) fn new(tree: &'a Tree, visited: usize, all: bool) -> Self {
        Self { tree, rules: Vec::new(), is_ignoring: !all, left: visited }
    }

    /// Meets everything below `start`, in the order of names. `true` when it saw all of it.
    pub(crate) fn run(
        mut self,
        start: &str,
        meet: &mut dyn FnMut(&Entry<'_>) -> Result<Next, Trouble>,
    ) -> Result<bool, Trouble> {
        let (dir, path) = self.tree.directory(start)?;
        if self.is_ignoring {
            self.rules_above(&path)?;
        }
        let prefix = if path == "." { String::new() } else { path };
        self.below(&dir, &prefix, 1, meet)
    }

    /// The rules of the directories above the start.
    fn rules_above(&mut self, path: &str) -> Result<(), Trouble> {
        if path == "." {
            return Ok(());
        }
        let ends = path.match_indices('/').map(|(end, _)| &path[..end]);
        for above in std::iter::once("").chain(ends) {
            let given = if above.is_empty() { "." } else { above };
            let (dir, _) = self.tree.directory(given)?;
            self.push_rules(&dir, above);
        }
        Ok(())
    }

    /// Reads the ignore files of a directory; how many sets of rules that gave.
    fn push_rules(&mut self, dir: &Dir, path: &str) -> usize {
        let before = self.rules.len();
        for name in [".gitignore", ".ignore"] {
            let Ok(file) = read_entry(dir, name, name.to_owned(), IGNORE_BYTES) else { continue };
            let mut builder = GitignoreBuilder::new(path);
            for line in String::from_utf8_lossy(&file.bytes).lines() {
                // A line that is no pattern is passed over, as git does.
                let _ = builder.add_line(None, line);
            }
            if let Ok(rules) = builder.build()
                && !rules.is_empty()
            {
                self.rules.push(rules);
            }
        }
        self.rules.len() - before
    }

    fn ignores(&self, path: &str, is_dir: bool) -> bool {
        self.rules
            .iter()
            .rev()
            .map(|rules| rules.matched(Path::new(path), is_dir))
            .find(|found| !found.is_none())
            .is_some_and(|found| found.is_ignore())
    }

    fn below(
        &mut self,
        dir: &Dir,
        prefix: &str,
        depth: usize,
        meet: &mut dyn FnMut(&Entry<'_>) -> Result<Next, Trouble>,
    ) -> Result<bool, Trouble> {
        if depth > DEPTH {
            return Ok(false);
        }
        let pushed = if self.is_ignoring { self.push_rules(dir, prefix) } else { 0 };
        let mut entries = Vec::new();
        for entry in dir.entries()? {
            let entry = entry?;
            if entries.len() > self.left {
                break;
            }
            entries.push((entry.file_name(), entry.file_type()?));
        }
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        let mut is_whole = true;
        for (name, kind) in entries {
            let shown = name.to_string_lossy();
            let path =
                if prefix.is_empty() { shown.to_string() } else { format!("{prefix}/{shown}") };
            if is_git(&shown) || is_draft(&shown) || !self.tree.admits(&path) {
                continue;
            }
            if self.is_ignoring && self.ignores(&path, kind.is_dir()) {
                continue;
            }
            if self.left == 0 {
                is_whole = false;
                break;
            }
            self.left -= 1;
            let what = match kind {
                kind if kind.is_dir() => What::Directory,
                kind if kind.is_file() => What::File,
                kind if kind.is_symlink() => What::Link,
                _ => What::Other,
            };
            let next = meet(&Entry { dir, name: name.to_str(), path: &path, what, depth })?;
            match next {
                Next::Stop => {
                    is_whole = false;
                    break;
                }
                Next::Into if what == What::Directory => {
                    // One that vanished or was swapped since is passed over.
                    let Some(Ok(child)) = name.to_str().map(|name| open_dir(dir, name)) else {
                        continue;
                    };
                    if !self.below(&child, &path, depth + 1, meet)? {
                        is_whole = false;
                        if self.left == 0 {
                            break;
                        }
                    }
                }
                Next::Into | Next::Over => {}
            }
        }
        self.rules.truncate(self.rules.len() - pushed);
        Ok(is_whole)
    }
}

/// A path as shown to a model: control characters escaped, so that no name forges a line.
pub(crate) fn shown(path: &str) -> String {
    if path.chars().any(char::is_control) {
        path.escape_debug().to_string()
    } else {
        path.to_owned()
    }
}

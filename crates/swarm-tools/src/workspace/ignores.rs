//! Which untracked files are left out: `.gitignore` files, level by level.
//!
//! A tracked file is never ignored, whatever the rules say; the caller sees to that.

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The largest `.gitignore` that is read, in bytes.
pub(super) const RULES_MAX_BYTES: u64 = 1024 * 1024;

/// Where the rules come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rules {
    /// The files as they are in the tree, else those of the tracked tree.
    OnDisk,
    /// The tracked tree only: what is on disk may be half a change.
    OfTree,
}

/// Leftovers of builds and tests that no repository wants, unless it says so.
const LEFTOVERS: &[&str] = &[
    "__pycache__/",
    "*.py[co]",
    ".venv/",
    ".tox/",
    ".nox/",
    "*.egg-info/",
    ".coverage",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".hypothesis/",
    "node_modules/",
    ".npm/",
    ".nyc_output/",
    ".gradle/",
    ".DS_Store",
    "*.swp",
];

/// What tools write into folders that can be made again: <https://bford.info/cachedir/>.
pub(super) const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The rules of one folder and of those above it.
#[derive(Clone, Debug)]
pub(super) struct Level<'up> {
    up: Option<&'up Self>,
    rules: Gitignore,
    /// How many bytes of a path from the root lead to this folder.
    prefix: usize,
}

impl<'up> Level<'up> {
    /// The weakest rules: leftovers, and what the caller adds.
    pub(super) fn weakest(extra: &[String]) -> Self {
        let lines = LEFTOVERS.iter().copied().chain(extra.iter().map(String::as_str));
        Self { up: None, rules: build(lines), prefix: 0 }
    }

    /// The level of a folder with a `.gitignore` of its own. `path` is the folder's from the root.
    pub(super) fn below(&'up self, path: &[u8], text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
        Self { up: Some(self), rules: build(text.lines()), prefix }
    }

    /// Whether a path from the root is ignored. The folders above it are not.
    pub(super) fn ignores(&self, path: &[u8], is_dir: bool) -> bool {
        use std::os::unix::ffi::OsStrExt as _;
        let relative = std::path::Path::new(std::ffi::OsStr::from_bytes(&path[self.prefix..]));
        match self.rules.matched(relative, is_dir) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => self.up.is_some_and(|up| up.ignores(path, is_dir)),
        }
    }
}

fn build<'a>(lines: impl Iterator<Item = &'a str>) -> Gitignore {
    let mut builder = GitignoreBuilder::new(".");
    for line in lines {
        // A line that is no pattern is skipped, as git does.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rule_wins_and_a_repository_may_want_a_leftover() {
        let weakest = Level::weakest(&["/Cargo.lock".to_owned()]);
        let root = weakest.below(b"", b"*.log\n/build/\n!node_modules/\n");
        let sub = root.below(b"sub", b"!keep.log\n/only\n");
        assert!(root.ignores(b"a.log", false));
        assert!(root.ignores(b"x/a.log", false));
        assert!(root.ignores(b"build", true) && !root.ignores(b"x/build", true));
        assert!(!root.ignores(b"build", false));
        assert!(!root.ignores(b"node_modules", true));
        assert!(root.ignores(b"x/__pycache__", true));
        assert!(root.ignores(b"Cargo.lock", false) && !root.ignores(b"x/Cargo.lock", false));
        assert!(!sub.ignores(b"sub/keep.log", false));
        assert!(sub.ignores(b"sub/a.log", false));
        assert!(sub.ignores(b"sub/only", false) && !sub.ignores(b"sub/x/only", false));
    }
}

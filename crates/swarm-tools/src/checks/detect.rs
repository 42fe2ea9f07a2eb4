//! Which commands a repository has for testing, linting and setting itself up.
//!
//! Files say so, nothing is run here. What the host's configuration names wins; else a language's
//! own runner is preferred to a Makefile, which most often only calls it.

use std::collections::BTreeSet;
use std::path::Path;

use cap_std::fs::Dir;

use super::{Check, ChecksConfig, ConfiguredCheck, Kind, Way};
use crate::toolbox::tree::{open_dir, read_entry};

mod cargo;
mod go;
mod make;
mod node;
mod python;

/// The largest file that is looked into, in bytes.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The most entries of a directory that are looked at.
const ENTRIES: usize = 5000;

/// The most directories below the root that are looked at, when the root itself has no test.
const DIRECTORIES: usize = 40;

/// The most directories that are looked through for test files.
const SEARCHED: usize = 1000;

/// Directories that are never a part of the repository's own code.
const FOREIGN: [&str; 9] = [
    "node_modules",
    "target",
    "vendor",
    "dist",
    "build",
    "venv",
    "third_party",
    "testdata",
    "fixtures",
];

/// The checks of the repository in `workspace`: set-up, then tests, then linters. A repository
/// without tests gives none; what that means is for the caller to decide.
///
/// # Errors
/// When the workspace cannot be opened.
pub fn detect_at(workspace: &Path, config: &ChecksConfig) -> std::io::Result<Vec<Check>> {
    Ok(detect(&Dir::open_ambient_dir(workspace, cap_std::ambient_authority())?, config))
}

/// The checks of the repository in an opened directory: see [`detect_at`].
#[must_use]
pub fn detect(root: &Dir, config: &ChecksConfig) -> Vec<Check> {
    let mut found = match Here::root(root) {
        Some(here) => in_tree(&here),
        None => Vec::new(),
    };
    let lists =
        [(Kind::Setup, &config.setup), (Kind::Test, &config.tests), (Kind::Lint, &config.linters)];
    for (kind, list) in lists {
        if let Some(list) = list {
            found.retain(|check| check.kind != kind);
            found.extend(list.iter().map(|check| configured(kind, check)));
        }
    }
    found.sort_by_key(|check| check.kind);
    name_apart(&mut found);
    found
}

fn configured(kind: Kind, check: &ConfiguredCheck) -> Check {
    Check {
        name: check.name.clone().unwrap_or_else(|| check.argv.join(" ")),
        kind,
        argv: check.argv.clone(),
        probe: Vec::new(),
        fallbacks: Vec::new(),
        dir: check.dir.clone(),
        leaves: Vec::new(),
        why: "the configuration names it".to_owned(),
    }
}

/// The checks of the root; if there is no test among them, those of the directories in it too.
fn in_tree(root: &Here) -> Vec<Check> {
    let mut found = in_directory(root);
    if found.iter().any(|check| check.kind == Kind::Test) {
        return found;
    }
    let below = root.names.iter().filter(|name| !name.starts_with('.'));
    for name in below.filter(|name| !FOREIGN.contains(&name.as_str())).take(DIRECTORIES) {
        if let Some(here) = root.below(name) {
            found.extend(in_directory(&here));
        }
    }
    found
}

fn in_directory(here: &Here) -> Vec<Check> {
    let mut found = cargo::checks(here);
    found.extend(node::checks(here));
    found.extend(python::checks(here));
    found.extend(go::checks(here));
    let has = |kind| found.iter().any(|check| check.kind == kind);
    let (has_test, has_lint) = (has(Kind::Test), has(Kind::Lint));
    found.extend(make::checks(here).into_iter().filter(|check| match check.kind {
        Kind::Test => !has_test,
        Kind::Lint => !has_lint,
        Kind::Setup => true,
    }));
    found.extend(make::pre_commit(here));
    found
}

/// Gives each check a name of its own.
fn name_apart(checks: &mut [Check]) {
    let mut taken = BTreeSet::new();
    for check in checks {
        if check.dir != "." {
            check.name = format!("{} ({})", check.name, check.dir);
        }
        let plain = check.name.clone();
        let mut number = 2;
        while !taken.insert(check.name.clone()) {
            check.name = format!("{plain} #{number}");
            number += 1;
        }
    }
}

/// A directory that is looked at.
struct Here {
    dir: Dir,
    /// From the root; `.` is the root.
    path: String,
    /// What is in it.
    names: BTreeSet<String>,
}

impl Here {
    fn root(dir: &Dir) -> Option<Self> {
        Self::new(dir.try_clone().ok()?, ".".to_owned())
    }

    fn new(dir: Dir, path: String) -> Option<Self> {
        let entries = dir.entries().ok()?.take(ENTRIES).flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Some(Self { dir, path, names })
    }

    fn below(&self, name: &str) -> Option<Self> {
        let path = if self.path == "." { name.to_owned() } else { format!("{}/{name}", self.path) };
        Self::new(open_dir(&self.dir, name).ok()?, path)
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The first of these names that is here.
    fn first<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// The text of a regular file here.
    fn text(&self, name: &str) -> Option<String> {
        if !self.has(name) {
            return None;
        }
        let file = read_entry(&self.dir, name, name.to_owned(), FILE_BYTES).ok()?;
        Some(String::from_utf8_lossy(&file.bytes).into_owned())
    }

    /// Whether a file that `wanted` takes is here or, so many levels, below.
    fn any(&self, levels: usize, wanted: &dyn Fn(&str) -> bool) -> bool {
        self.any_within(levels, &mut { SEARCHED }, wanted)
    }

    fn any_within(&self, levels: usize, left: &mut usize, wanted: &dyn Fn(&str) -> bool) -> bool {
        self.names.iter().any(|name| wanted(name))
            || levels > 0
                && self
                    .names
                    .iter()
                    .filter(|name| !name.starts_with('.') && *name != "node_modules")
                    .filter_map(|name| {
                        *left = left.checked_sub(1)?;
                        Some(self.below(name)?.any_within(levels - 1, left, wanted))
                    })
                    .any(|is_there| is_there)
    }

    fn check(&self, kind: Kind, name: &str, argv: &[&str], why: impl Into<String>) -> Check {
        Check {
            name: name.to_owned(),
            kind,
            argv: words(argv),
            probe: Vec::new(),
            fallbacks: Vec::new(),
            dir: self.path.clone(),
            leaves: Vec::new(),
            why: why.into(),
        }
    }
}

impl Check {
    fn probed(mut self, probe: &[&str]) -> Self {
        self.probe = words(probe);
        self
    }

    fn or(mut self, argv: &[&str], probe: &[&str]) -> Self {
        self.fallbacks.push(Way { argv: words(argv), probe: words(probe) });
        self
    }

    fn leaving(mut self, leaves: &[&str]) -> Self {
        self.leaves = words(leaves);
        self
    }
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|&word| word.to_owned()).collect()
}

/// Whether an INI or TOML text has a section whose name begins so, as `[tool.ruff`.
fn has_section(text: &str, begins: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with(begins))
}

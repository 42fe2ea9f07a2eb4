//! The demo's repository: a small Rust crate with a failing test, as a bare git repository.
//!
//! It is bare so that a merge moves its branch and nothing else: nobody works in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The issue that the demo works on.
pub const ISSUE: &str = include_str!("../../../demo/issue.md");

/// Path in the repository and text. The ends in `.txt` keep cargo from seeing a crate in a crate.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("../../../demo/repository/Cargo.toml.txt")),
    ("Cargo.lock", include_str!("../../../demo/repository/Cargo.lock.txt")),
    ("README.md", include_str!("../../../demo/repository/README.md")),
    ("src/lib.rs", include_str!("../../../demo/repository/src/lib.rs.txt")),
    (".gitignore", "/target\n"),
];

/// Makes the repository below `dir` and returns its path; one that is there already is kept.
///
/// # Errors
/// When the files cannot be written, or git fails.
pub fn make(dir: &Path, git: &Path) -> Result<PathBuf> {
    let repository = dir.join("tally.git");
    if repository.join("HEAD").is_file() {
        return Ok(repository);
    }
    let files = dir.join("tally.files");
    for (path, text) in FILES {
        let path = files.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // Under another name until it is whole: what bears the final name can be trusted.
    let draft = dir.join("tally.draft");
    if draft.exists() {
        std::fs::remove_dir_all(&draft)
            .with_context(|| format!("cannot remove {}", draft.display()))?;
    }
    let git = |arguments: &[&str]| run(git, &draft, &files, arguments);
    git(&["init", "--quiet", "--bare", "--initial-branch=main"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message=Mean and median of measurements"])?;
    std::fs::rename(&draft, &repository)
        .with_context(|| format!("cannot make {}", repository.display()))?;
    std::fs::remove_dir_all(&files)
        .with_context(|| format!("cannot remove {}", files.display()))?;
    Ok(repository)
}

/// What git says about the repository.
///
/// # Errors
/// When git fails.
pub fn read(git: &Path, repository: &Path, arguments: &[&str]) -> Result<String> {
    said(bare(git, repository).current_dir(repository).args(arguments), arguments)
}

/// Git without anyone's configuration, hooks or identity.
fn bare(git: &Path, repository: &Path) -> Command {
    let mut command = Command::new(git);
    command.env_clear().env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_DIR", repository).args(["-c", "core.hooksPath=/dev/null"]);
    command
}

fn run(git: &Path, repository: &Path, files: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = bare(git, repository);
    command.current_dir(files);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Demo");
        command.env(format!("GIT_{role}_EMAIL"), "demo@devinswarm.invalid");
    }
    if arguments.first() != Some(&"init") {
        command.env("GIT_WORK_TREE", files).args(["-c", "core.bare=false"]);
    }
    said(command.args(arguments), arguments).map(drop)
}

fn said(command: &mut Command, arguments: &[&str]) -> Result<String> {
    let what = || format!("git {} for the demo", arguments.first().unwrap_or(&""));
    let output = command.output().with_context(|| format!("cannot start {}", what()))?;
    if !output.status.success() {
        bail!("{} failed: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use swarm_tools::git::Git;

    use super::*;

    fn git() -> Git {
        Git::find(OsStr::new("/usr/bin:/bin:/usr/local/bin")).unwrap()
    }

    fn said(repository: &Path, arguments: &[&str]) -> String {
        read(git().program(), repository, arguments).unwrap()
    }

    #[test]
    fn the_demo_has_one_commit_with_exactly_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let repository = make(dir.path(), git().program()).unwrap();
        assert_eq!(
            said(&repository, &["ls-tree", "-r", "--name-only", "main"]),
            ".gitignore\nCargo.lock\nCargo.toml\nREADME.md\nsrc/lib.rs\n"
        );
        assert_eq!(said(&repository, &["rev-list", "--count", "main"]), "1\n");
        assert!(!dir.path().join("tally.files").exists());
    }

    #[test]
    fn a_demo_that_is_there_already_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let repository = make(dir.path(), git().program()).unwrap();
        let before = said(&repository, &["rev-parse", "main"]);
        make(dir.path(), git().program()).unwrap();
        assert_eq!(said(&repository, &["rev-parse", "main"]), before);
    }
}

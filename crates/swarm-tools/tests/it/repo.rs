//! Real repositories in temporary folders, made with the git program as a person would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarm_core::port::forge::Sha;
use swarm_core::time::Timestamp;
use swarm_tools::git::{Credentials, Git, Mirror, Mirrors};
use tempfile::TempDir;

/// The moment at which everything in these tests happens.
pub(crate) const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// A folder with an origin and a data directory.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) origin: PathBuf,
}

impl Bench {
    /// A repository with a work tree on `main`, with one commit of these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let origin = dir.path().canonicalize().expect("it exists").join("origin");
        std::fs::create_dir(&origin).expect("a folder");
        git(&origin, ["init", "--quiet", "--initial-branch=main"]);
        let bench = Self { dir, origin };
        bench.commit("first", files);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("it exists").join(name)
    }

    /// Writes files in the origin's work tree.
    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            write(&self.origin.join(path), text);
        }
    }

    /// Commits everything in the origin's work tree on the branch that is checked out.
    pub(crate) fn commit(&self, message: &str, files: &[(&str, &str)]) -> Sha {
        self.write(files);
        git(&self.origin, ["add", "--all"]);
        git(&self.origin, ["commit", "--quiet", "--allow-empty", "-m", message]);
        self.sha("HEAD")
    }

    /// Makes a branch with one commit and goes back to `main`.
    pub(crate) fn branch(&self, name: &str, files: &[(&str, &str)]) -> Sha {
        git(&self.origin, ["checkout", "--quiet", "-b", name]);
        let sha = self.commit(name, files);
        git(&self.origin, ["checkout", "--quiet", "main"]);
        sha
    }

    pub(crate) fn sha(&self, revision: &str) -> Sha {
        Sha(git(&self.origin, ["rev-parse", "--verify", revision]))
    }

    pub(crate) fn url(&self) -> String {
        self.origin.to_str().expect("a plain path").to_owned()
    }

    pub(crate) fn mirrors(&self) -> Mirrors {
        let path = std::env::var_os("PATH").expect("there is a PATH");
        Mirrors::new(self.path("data/mirrors"), Git::find(&path).expect("git is installed"))
    }

    pub(crate) async fn mirror(&self) -> Mirror {
        self.mirrors().mirror(&self.url(), &Credentials::none()).await.expect("it can be cloned")
    }

    /// Puts a hook of each kind into the origin that leaves a mark when it runs.
    pub(crate) fn set_traps(&self) -> PathBuf {
        let mark = self.path("a-hook-ran");
        let git_dir = git(&self.origin, ["rev-parse", "--absolute-git-dir"]);
        let hooks = Path::new(&git_dir).join("hooks");
        for hook in [
            "pre-receive",
            "update",
            "post-receive",
            "post-update",
            "reference-transaction",
            "pre-push",
            "pre-commit",
            "commit-msg",
            "post-commit",
            "pre-merge-commit",
            "post-merge",
            "post-checkout",
            "post-index-change",
            "push-to-checkout",
            "proc-receive",
            "pre-auto-gc",
            "fsmonitor-watchman",
        ] {
            let path = hooks.join(hook);
            write(&path, format!("#!/bin/sh\necho {hook} >> '{}'\n", mark.display()));
            make_executable(&path);
        }
        mark
    }
}

/// Runs git in a folder; its trimmed output.
pub(crate) fn git<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.org")
        .output()
        .expect("git is installed");
    assert!(
        output.status.success(),
        "git failed: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Writes a file, and the folders on the way to it.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("folders");
    std::fs::write(path, text).expect("a file");
}

pub(crate) fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

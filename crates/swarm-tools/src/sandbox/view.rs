//! The view: what of the host is visible inside, found out once.
//!
//! Everything is an allowance; what no list here names does not exist inside.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Config, toolchain};

/// The system's own directories. On most systems all but the first are links into it.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What of `/etc` programs cannot do without: no accounts, no keys, no services.
const ETC: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/fonts",
    "/etc/java-11-openjdk",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/java-25-openjdk",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// What of `/etc` leads to the network.
const ETC_NETWORK: &[&str] = &["/etc/resolv.conf", "/etc/hosts", "/etc/gai.conf"];

/// The user inside, and the one that all other owners look like.
const ACCOUNTS: &[(&str, &str)] = &[
    (
        "passwd",
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
         agent:x:1000:1000:agent:/home/agent:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
];

/// What is visible, and what is not even inside that.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Directories and files to be read, at the places where they really are.
    pub(super) read: Vec<PathBuf>,
    /// Links of the root directory: where, and to what.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// Further names for what is in `read`: named, real.
    pub(super) aliases: Vec<(PathBuf, PathBuf)>,
    /// To be read with the host's network only: named, real.
    pub(super) network: Vec<(PathBuf, PathBuf)>,
    /// Files of `/etc` that are made up: named, real.
    pub(super) accounts: Vec<(PathBuf, PathBuf)>,
    /// Real places that stay invisible.
    pub(super) hidden: Vec<PathBuf>,
    /// Variables that toolchains need.
    pub(super) env: BTreeMap<String, String>,
}

impl View {
    /// Looks at the host; makes the few files that are made up.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let mut hidden: Vec<PathBuf> =
            config.hidden.iter().cloned().chain(toolchain::secrets(config)).collect();
        hidden = hidden.iter().map(|path| real(path)).collect();
        sort(&mut hidden);

        let mut view = Self {
            read: Vec::new(),
            links: Vec::new(),
            aliases: Vec::new(),
            network: Vec::new(),
            accounts: accounts(&config.scratch)?,
            hidden,
            env: config.toolchain_env.clone(),
        };
        for path in SYSTEM.iter().map(Path::new) {
            match fs::read_link(path) {
                Ok(target) => view.links.push((path.to_owned(), target)),
                Err(_) if path.is_dir() => view.read.push(path.to_owned()),
                Err(_) => {}
            }
        }
        for path in ETC.iter().map(PathBuf::from).chain(toolchain::roots(config)) {
            view.show(path);
        }
        for path in &config.read_only {
            view.show(path.clone());
        }
        let certificates = config.certificate_env.values().map(PathBuf::from);
        view.network = ETC_NETWORK
            .iter()
            .map(PathBuf::from)
            .chain(certificates)
            .filter(|path| path.is_absolute())
            .filter_map(|path| Some((path.clone(), path.canonicalize().ok()?)))
            .collect();
        let rustup = config.home.iter().map(|home| home.join(".rustup")).find(|path| path.is_dir());
        if let Some(rustup) = rustup.and_then(|path| path.to_str().map(str::to_owned)) {
            view.env.entry("RUSTUP_HOME".to_owned()).or_insert(rustup);
        }
        sort(&mut view.read);
        view.read = outermost(&view.read);
        Ok(view)
    }

    fn show(&mut self, path: PathBuf) {
        let Ok(real) = path.canonicalize() else { return };
        if self.hidden.iter().any(|hidden| real.starts_with(hidden)) || holds_all(&real) {
            return;
        }
        if path != real {
            self.aliases.push((path, real.clone()));
        }
        self.read.push(real);
    }
}

/// Showing these would show everything.
fn holds_all(path: &Path) -> bool {
    ["/", "/etc", "/home", "/root", "/var", "/run", "/proc", "/dev", "/sys", "/tmp"]
        .iter()
        .any(|whole| path == Path::new(whole))
}

/// The real place of what exists; else the place itself.
pub(super) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn sort(paths: &mut Vec<PathBuf>) {
    paths.sort();
    paths.dedup();
}

/// Of sorted paths those that lie in no other.
fn outermost(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.iter().any(|outer| path.starts_with(outer)) {
            kept.push(path.clone());
        }
    }
    kept
}

/// `root` without what is hidden: itself, or as many of its parts as it takes.
pub(super) fn without(root: &Path, hidden: &[PathBuf]) -> Vec<PathBuf> {
    if hidden.iter().any(|hidden| root.starts_with(hidden)) {
        return Vec::new();
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(root)) {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .flat_map(|entry| without(&entry.path(), hidden))
        .collect()
}

fn accounts(scratch: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let directory = scratch.join("etc");
    fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    ACCOUNTS
        .iter()
        .map(|(name, text)| {
            let file = directory.join(name);
            if !fs::read_to_string(&file).is_ok_and(|found| found == *text) {
                // Put in place whole: another host may be reading it.
                let mut draft = tempfile::NamedTempFile::new_in(&directory)?;
                io::Write::write_all(&mut draft, text.as_bytes())?;
                draft.persist(&file).map_err(|error| error.error)?;
            }
            Ok((Path::new("/etc").join(name), file))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_something_hidden_is_shown_in_parts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for directory in ["a/secret", "a/open", "b"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let mut shown = without(root, &[root.join("a/secret")]);
        shown.sort();
        assert_eq!(shown, [root.join("a/open"), root.join("b")]);
        assert_eq!(without(&root.join("a/secret"), &[root.join("a")]), Vec::<PathBuf>::new());
        assert_eq!(without(&root.join("b"), &[root.join("a")]), [root.join("b")]);
    }

    #[test]
    fn what_lies_in_another_is_not_named_twice() {
        let paths = ["/opt", "/opt/a", "/opt/a/b", "/optic"].map(PathBuf::from);
        assert_eq!(outermost(&paths), ["/opt", "/optic"].map(PathBuf::from));
    }
}

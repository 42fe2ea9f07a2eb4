//! Toolchains: what of a home and of `/opt` the programs in PATH need, and which files beside
//! them hold secrets.
//!
//! A bin directory in a home says which tool it belongs to; only what that tool needs is shown,
//! never the home.

use std::path::{Component, Path, PathBuf};

use super::Config;

/// Variables by which toolchains find themselves.
pub(super) const VARIABLES: &[&str] = &[
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "NVM_DIR",
    "VOLTA_HOME",
    "ASDF_DIR",
    "ASDF_DATA_DIR",
    "RBENV_ROOT",
    "GOROOT",
    "JAVA_HOME",
    "DOTNET_ROOT",
];

/// Variables that name the files of certificate authorities.
pub(super) const CERTIFICATE_VARIABLES: &[&str] = &[
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];

/// A bin directory below a home begins with the first; the programs in it need the second.
const IN_A_HOME: &[(&str, &[&str])] = &[
    (".cargo/bin", &[".cargo/bin", ".rustup"]),
    (".pyenv", &[".pyenv"]),
    (".nvm", &[".nvm"]),
    (".rbenv", &[".rbenv"]),
    (".nodenv", &[".nodenv"]),
    (".goenv", &[".goenv"]),
    (".asdf", &[".asdf"]),
    (".volta", &[".volta"]),
    (".sdkman", &[".sdkman"]),
    (".dotnet", &[".dotnet"]),
    (".ghcup", &[".ghcup"]),
    (".juliaup", &[".juliaup", ".julia/juliaup"]),
    (".local/share/mise", &[".local/share/mise"]),
    (".local/share/fnm", &[".local/share/fnm"]),
    (".local/share/pnpm", &[".local/share/pnpm"]),
    (
        ".local/bin",
        &[
            ".local/bin",
            ".local/share/uv/python",
            ".local/share/uv/tools",
            ".local/share/pipx/venvs",
        ],
    ),
    ("miniconda3", &["miniconda3"]),
    ("miniforge3", &["miniforge3"]),
    ("anaconda3", &["anaconda3"]),
];

/// Files and directories of a home that hold secrets, whatever else is shown.
const SECRETS: &[&str] = &[
    ".aws",
    ".azure",
    ".bash_history",
    ".cargo/config",
    ".cargo/config.toml",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".claude",
    ".codex",
    ".config/gcloud",
    ".config/gh",
    ".config/git",
    ".config/hub",
    ".config/pip",
    ".docker",
    ".gem/credentials",
    ".git-credentials",
    ".gitconfig",
    ".gnupg",
    ".gradle/gradle.properties",
    ".kube",
    ".local/share/keyrings",
    ".local/share/uv/credentials",
    ".m2/settings.xml",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pypirc",
    ".ssh",
    ".terraform.d",
    ".vault-token",
    ".yarnrc",
    ".yarnrc.yml",
    ".zsh_history",
];

/// Beside a `bin`, one of these tells that it is a tool's, and that its programs need the whole.
const OF_A_TOOL: &[&str] = &["lib", "lib64", "libexec", "share", "pkg", "versions", "conda-meta"];

/// One of these tells that it is somebody's project, whatever else is there.
const OF_A_PROJECT: &[&str] = &[".git", ".env"];

/// Beside a `bin` that holds cargo.
const CARGO_SECRETS: &[&str] = &["config", "config.toml", "credentials", "credentials.toml"];

/// The directories of PATH that exist, as named there.
pub(super) fn path_entries(path: &str) -> impl Iterator<Item = PathBuf> {
    path.split(':').map(PathBuf::from).filter(|entry| entry.is_absolute() && entry.is_dir())
}

/// What the programs in PATH need, besides the system's own directories.
pub(super) fn roots(config: &Config) -> Vec<PathBuf> {
    let home = config.home.as_deref().filter(|home| *home != Path::new("/"));
    let mut roots: Vec<PathBuf> = Vec::new();
    for entry in path_entries(&config.path) {
        let inside = home.and_then(|home| Some((home, entry.strip_prefix(home).ok()?)));
        match inside {
            Some((home, relative)) => roots.extend(of_home(home, relative)),
            None => match of_another_home(&entry) {
                Some(needed) => roots.extend(needed),
                None => roots.push(of_machine(&entry, home)),
            },
        }
    }
    roots
        .extend(config.toolchain_env.values().map(PathBuf::from).filter(|path| path.is_absolute()));
    roots.retain(|root| root.exists());
    roots.sort();
    roots.dedup();
    roots
}

fn of_home(home: &Path, relative: &Path) -> Vec<PathBuf> {
    match IN_A_HOME.iter().find(|(prefix, _)| relative.starts_with(prefix)) {
        Some((_, needed)) => needed.iter().map(|path| home.join(path)).collect(),
        None => vec![home.join(relative)],
    }
}

/// A tool in a home that is not ours, such as that of whoever made this machine's image.
fn of_another_home(entry: &Path) -> Option<Vec<PathBuf>> {
    let hidden = IN_A_HOME.iter().filter(|(prefix, _)| prefix.starts_with('.'));
    hidden.flat_map(|(prefix, _)| entry.ancestors().map(move |at| (at, *prefix))).find_map(
        |(at, prefix)| {
            let relative = entry.strip_prefix(at).ok()?;
            relative.starts_with(prefix).then(|| of_home(at, relative))
        },
    )
}

/// `/opt/tool/bin` is of use with `/opt/tool/lib`; a cargo home is not, and neither is a project.
fn of_machine(entry: &Path, home: Option<&Path>) -> PathBuf {
    let is_bin = matches!(
        entry.file_name().and_then(|name| name.to_str()),
        Some("bin" | "sbin" | "shims" | "condabin")
    );
    let has_any =
        |parent: &Path, names: &[&str]| names.iter().any(|name| parent.join(name).exists());
    match entry.parent() {
        Some(parent)
            if is_bin
                && depth(parent) >= 2
                && has_any(parent, OF_A_TOOL)
                // Version managers are checkouts of their own source.
                && (entry.ends_with("shims") || !has_any(parent, OF_A_PROJECT))
                && !entry.join("cargo").exists()
                && !home.is_some_and(|home| home.starts_with(parent)) =>
        {
            parent.to_owned()
        }
        Some(_) | None => entry.to_owned(),
    }
}

fn depth(path: &Path) -> usize {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count()
}

/// What must stay hidden even inside something that is shown.
pub(super) fn secrets(config: &Config) -> Vec<PathBuf> {
    let of_home =
        config.home.iter().flat_map(|home| SECRETS.iter().map(move |secret| home.join(secret)));
    let of_cargo = path_entries(&config.path).filter(|entry| entry.join("cargo").exists());
    let beside = of_cargo.flat_map(|entry| {
        let parent = entry.parent().map(Path::to_owned).unwrap_or_default();
        CARGO_SECRETS.iter().map(move |secret| parent.join(secret))
    });
    of_home.chain(beside).filter(|secret| secret.exists()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(home: &Path, path: &[PathBuf]) -> Config {
        let path = path.iter().map(|entry| entry.display().to_string()).collect::<Vec<_>>();
        let environment = [("PATH", path.join(":")), ("HOME", home.display().to_string())]
            .map(|(key, value)| (key.into(), value.into()));
        Config::new("/bin/true", &home.join("data"), environment)
    }

    fn made(root: &Path, directories: &[&str]) {
        for directory in directories {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
    }

    #[test]
    fn a_cargo_home_shows_its_programs_and_not_its_credentials() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        made(home, &[".cargo/bin", ".cargo/registry", ".rustup"]);
        fs::write(home.join(".cargo/credentials.toml"), "secret").unwrap();
        let config = config(home, &[home.join(".cargo/bin")]);
        assert_eq!(roots(&config), [home.join(".cargo/bin"), home.join(".rustup")]);
        assert_eq!(secrets(&config), [home.join(".cargo/credentials.toml")]);
    }

    #[test]
    fn an_unknown_bin_of_a_home_shows_itself_alone() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        made(home, &["scripts", "stuff/bin", "stuff/private"]);
        let config = config(home, &[home.join("scripts"), home.join("stuff/bin")]);
        assert_eq!(roots(&config), [home.join("scripts"), home.join("stuff/bin")]);
    }

    #[test]
    fn a_tool_of_the_machine_shows_its_whole_root_unless_it_is_a_home_or_a_project() {
        let machine = tempfile::tempdir().unwrap();
        let machine = machine.path();
        made(machine, &["node/bin", "node/lib", "rust/bin", "rust/lib"]);
        made(machine, &["users/bin", "users/lib", "users/anna"]);
        made(machine, &["scripts/bin", "scripts/private", "app/bin", "app/lib", "app/.git"]);
        fs::write(machine.join("rust/bin/cargo"), "").unwrap();
        let path = ["node/bin", "rust/bin", "users/bin", "scripts/bin", "app/bin"];
        let path = path.map(|entry| machine.join(entry));
        let config = config(&machine.join("users/anna"), &path);
        assert_eq!(
            roots(&config),
            ["app/bin", "node", "rust/bin", "scripts/bin", "users/bin"]
                .map(|root| machine.join(root))
        );
    }

    #[test]
    fn a_version_manager_shows_its_whole_root_in_any_home_and_in_none() {
        let machine = tempfile::tempdir().unwrap();
        let machine = machine.path();
        made(machine, &["root/.pyenv/shims", "root/.pyenv/versions", "root/.pyenv/.git"]);
        made(machine, &["root/.cargo/bin", "root/.rustup", "root/.ssh", "anna"]);
        made(machine, &["opt/rbenv/shims", "opt/rbenv/versions", "opt/rbenv/.git"]);
        let path = ["root/.pyenv/shims", "root/.cargo/bin", "opt/rbenv/shims"];
        let config = config(&machine.join("anna"), &path.map(|entry| machine.join(entry)));
        assert_eq!(
            roots(&config),
            ["opt/rbenv", "root/.cargo/bin", "root/.pyenv", "root/.rustup"]
                .map(|root| machine.join(root))
        );
    }

    #[test]
    fn relative_and_missing_entries_of_path_show_nothing() {
        let home = tempfile::tempdir().unwrap();
        let config =
            config(home.path(), &[PathBuf::from("."), PathBuf::from(""), home.path().join("no")]);
        assert_eq!(roots(&config), Vec::<PathBuf>::new());
    }
}

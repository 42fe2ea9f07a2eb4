//! Where a mirror comes from: a path on this machine, or an address.
//!
//! Git understands addresses that run programs (`ext::`), so only schemes that are listed here
//! get through, and git is told to allow just that one.

use std::path::{Path, PathBuf};

use url::Url;

use super::{Error, Result};

/// Something to clone from, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A repository on this machine, by its absolute path, links resolved.
    Local(PathBuf),
    /// A repository elsewhere.
    Remote {
        /// The address, without credentials.
        url: String,
        /// Git's name of the protocol: `https`, `http`, `ssh`.
        protocol: &'static str,
    },
}

impl Origin {
    /// Checks a clone address: an absolute path, `file://`, `https://`, `http://`, `ssh://` or
    /// `user@host:path`.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] for anything else, for a path that is not there, and for an address
    /// with a password in it.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |url: &str, why| Err(Error::InvalidUrl { url: url.to_owned(), why });
        if text.contains(['\0', '\n', '\r']) {
            return fail("…", "it has a line break or a NUL in it");
        }
        if let Some(path) = text.strip_prefix("file://") {
            // `file://` with a host is not something that git or we could read.
            return Self::local(Path::new(path), text);
        }
        if text.starts_with('/') {
            return Self::local(Path::new(text), text);
        }
        let Ok(url) = Url::parse(text) else { return Self::scp(text) };
        let protocol = match url.scheme() {
            "https" => "https",
            "http" => "http",
            "ssh" => "ssh",
            _ if !text.contains("://") && !text.contains("::") => return Self::scp(text),
            _ => {
                return fail(
                    &format!("{}:…", url.scheme()),
                    "use an absolute path, file://, https://, ssh:// or user@host:path",
                );
            }
        };
        if url.password().is_some() || (protocol != "ssh" && !url.username().is_empty()) {
            let host = url.host_str().unwrap_or_default();
            return fail(
                &format!("{protocol}://…@{host}"),
                "take the credential out of the address and give it separately",
            );
        }
        if url.host_str().is_none_or(|host| host.starts_with('-')) {
            return fail(text, "it names no host");
        }
        Ok(Self::Remote { url: url.to_string(), protocol })
    }

    fn local(path: &Path, text: &str) -> Result<Self> {
        let fail = |why| Err(Error::InvalidUrl { url: text.to_owned(), why });
        if !path.is_absolute() {
            return fail("the path must be absolute");
        }
        match path.canonicalize() {
            Ok(real) => Ok(Self::Local(real)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fail("there is nothing at that path")
            }
            Err(_) => fail("the path cannot be read"),
        }
    }

    fn scp(text: &str) -> Result<Self> {
        let fail = |why| Err(Error::InvalidUrl { url: text.to_owned(), why });
        let Some((host, path)) = text.split_once(':') else {
            return fail("use an absolute path, file://, https://, ssh:// or user@host:path");
        };
        let name = host.rsplit('@').next().unwrap_or_default();
        let is_plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('-')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
        };
        if !is_plain(host) || !is_plain(name) || path.is_empty() || path.starts_with(['-', ':']) {
            return fail("use an absolute path, file://, https://, ssh:// or user@host:path");
        }
        Ok(Self::Remote { url: text.to_owned(), protocol: "ssh" })
    }

    /// What git is given.
    pub(crate) fn address(&self) -> std::ffi::OsString {
        match self {
            Self::Local(path) => path.clone().into_os_string(),
            Self::Remote { url, .. } => url.into(),
        }
    }

    /// The one protocol that git may use.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Local(_) => "file",
            Self::Remote { protocol, .. } => protocol,
        }
    }

    /// A few letters for people who look into the folder of mirrors.
    pub(crate) fn slug(&self) -> String {
        let text = self.address().to_string_lossy().into_owned();
        let text = text.trim_end_matches('/').trim_end_matches(".git").trim_end_matches('/');
        let last = text.rsplit(['/', ':']).next().unwrap_or_default();
        let slug: String = last
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
            .take(40)
            .collect();
        if slug.is_empty() { "repository".to_owned() } else { slug }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Remote { url, .. } => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_run_programs_carry_passwords_or_look_like_options_are_refused() {
        for text in [
            "ext::sh -c id",
            "fd::3",
            "git://host/x",
            "ftp://host/x",
            "--upload-pack=id",
            "-oProxyCommand=id:x",
            "user@-oProxyCommand=id:x",
            "ssh://-oProxyCommand=id/x",
            "relative/path",
            "./x",
            "file://relative",
            "https://user:pass@host/x",
            "https://token@host/x",
            "/no/such/folder",
            "https://host/x\n--upload-pack=id",
            "",
        ] {
            assert!(Origin::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_password_of_a_refused_address_is_not_repeated() {
        let error = Origin::parse("https://user:hunter2@host/x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_usual_addresses_name_their_protocol() {
        for (text, protocol) in [
            ("https://github.com/a/b.git", "https"),
            ("ssh://git@host:22/a/b", "ssh"),
            ("git@github.com:a/b.git", "ssh"),
            ("/", "file"),
            ("file:///", "file"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().protocol(), protocol, "{text}");
        }
        assert_eq!(Origin::parse("git@github.com:a/b.git").unwrap().slug(), "b");
    }
}

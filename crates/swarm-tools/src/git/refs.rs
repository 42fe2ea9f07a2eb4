//! Names of branches and references: git's own rules, and a few stricter ones.

use super::{Error, Result};

/// Checks that a text can name a branch, by the rules of `git check-ref-format` and not looking
/// like an option.
///
/// # Errors
/// [`Error::InvalidName`] with the rule it breaks.
pub fn check_branch(name: &str) -> Result<()> {
    let fail = |why| Err(Error::InvalidName { what: "branch", name: name.to_owned(), why });
    if name.starts_with('-') {
        return fail("it must not start with `-`");
    }
    if name == "HEAD" || name == "@" || name.starts_with("refs/") {
        return fail("write the branch alone, without `refs/`");
    }
    if name.len() > 200 {
        return fail("it must not be longer than 200 bytes");
    }
    if !git2::Reference::is_valid_name(&format!("refs/heads/{name}")) {
        return fail(
            "git allows no `..`, `@{`, `//`, no control character, space, `~^:?*[\\`, no part that starts with `.` or ends with `.lock`",
        );
    }
    Ok(())
}

/// Checks that a reference is one of ours: nothing else in a mirror is written but by fetching.
pub(crate) fn check_own(name: &str) -> Result<()> {
    let fail = |why| Err(Error::InvalidName { what: "reference", name: name.to_owned(), why });
    if !name.starts_with("refs/devinswarm/") {
        return fail("ours start with `refs/devinswarm/`");
    }
    if !git2::Reference::is_valid_name(name) {
        return fail("git does not allow it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_git_or_a_command_line_would_misread_are_refused() {
        for name in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?b",
            "a*b",
            "a[b",
            "a\\b",
            "a.lock",
            "a.lock/b",
            ".a",
            "a/.b",
            "a/",
            "/a",
            "a//b",
            "a@{b",
            "@",
            "HEAD",
            "refs/heads/a",
            "a\nb",
            "a\u{7f}b",
            "a.",
            "a\0b",
        ] {
            assert!(check_branch(name).is_err(), "{name:?}");
        }
        for name in ["main", "devinswarm/12-fix", "feature/ünï", "a@b", "release-1.2"] {
            assert!(check_branch(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn only_our_own_references_are_written() {
        assert!(check_own("refs/heads/main").is_err());
        assert!(check_own("refs/devinswarm/../heads/main").is_err());
        assert!(check_own("refs/devinswarm/snapshots/run/1").is_ok());
    }
}

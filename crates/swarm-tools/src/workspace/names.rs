//! Names that some file system or some git takes for `.git`, and other names that lie.

/// Why a name from a repository must not be written; `None` if it may.
pub(super) fn refusal(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("a name is empty"),
        b"." | b".." => Some("a name leads elsewhere"),
        _ if name.contains(&b'/') || name.contains(&0) => Some("a name is more than a name"),
        _ if is_git(name) => Some("it would be taken for git's own folder"),
        _ => None,
    }
}

/// Whether Linux, macOS or Windows might take a name for `.git`.
pub(super) fn is_git(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name);
    text.split('\\').any(|part| {
        // HFS+ ignores these, NTFS what comes after `:` and trailing dots and spaces.
        let visible: String =
            part.chars().filter(|&c| !is_ignored_by_hfs(c)).flat_map(char::to_lowercase).collect();
        let stream = visible.split(':').next().unwrap_or_default();
        let bare = stream.trim_end_matches([' ', '.']);
        bare == ".git" || bare == "git~1"
    })
}

fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_git_is_seen() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git ",
            ".git.",
            ".git. .",
            "git~1",
            "GIT~1",
            ".g\u{200c}it",
            ".git::$INDEX_ALLOCATION",
            ".git\\config",
            "x\\.git",
            "\u{feff}.git",
        ] {
            assert!(is_git(name.as_bytes()), "{name:?}");
        }
        for name in [".gitignore", ".github", "git", "x.git", ".gitmodules", "git~2", ".git-x"] {
            assert!(!is_git(name.as_bytes()), "{name:?}");
        }
    }
}

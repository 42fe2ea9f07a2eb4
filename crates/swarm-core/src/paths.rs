//! Path patterns of policies: globs over paths from the root of the repository.
//!
//! Matching ignores case, because a file system may: `.GITHUB/workflows/x.yml` is as protected as
//! its lower-case twin. `*` stays within one folder, `**/` reaches any depth, and a pattern that
//! ends in `/` means all below.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;

/// A pattern that is no glob.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{glob}` is not a path pattern: {why}")]
pub struct InvalidGlob {
    /// The pattern as written.
    pub glob: String,
    /// What is wrong with it.
    pub why: String,
}

/// Several patterns, compiled.
#[derive(Clone, Debug)]
pub(crate) struct PathSet {
    globs: Vec<String>,
    set: GlobSet,
}

impl PathSet {
    pub(crate) fn new(globs: &[String]) -> Result<Self, InvalidGlob> {
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            let invalid = |error: globset::Error| InvalidGlob {
                glob: glob.clone(),
                why: error.kind().to_string(),
            };
            let rooted = glob.strip_prefix('/').unwrap_or(glob);
            let whole =
                if rooted.ends_with('/') { format!("{rooted}**") } else { rooted.to_owned() };
            builder.add(
                GlobBuilder::new(&whole)
                    .case_insensitive(true)
                    .literal_separator(true)
                    .build()
                    .map_err(invalid)?,
            );
        }
        let set = builder.build().map_err(|error| InvalidGlob {
            glob: globs.join(", "),
            why: error.kind().to_string(),
        })?;
        Ok(Self { globs: globs.to_vec(), set })
    }

    /// The first pattern, as written, that the path matches.
    pub(crate) fn matching(&self, path: &str) -> Option<&str> {
        self.set.matches(path).first().map(|&index| self.globs[index].as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching<'a>(globs: &'a [&str], path: &str) -> Option<&'a str> {
        let owned: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
        let found = PathSet::new(&owned).unwrap().matching(path).map(ToOwned::to_owned)?;
        globs.iter().copied().find(|&glob| glob == found)
    }

    #[test]
    fn case_does_not_matter_and_a_star_stays_in_its_folder() {
        assert_eq!(
            matching(&[".github/workflows/**"], ".GitHub/Workflows/ci.yml"),
            Some(".github/workflows/**")
        );
        assert_eq!(matching(&["*.rs"], "src/main.rs"), None);
        assert_eq!(matching(&["**/AGENTS.md"], "AGENTS.md"), Some("**/AGENTS.md"));
        assert_eq!(matching(&["**/AGENTS.md"], "a/b/agents.md"), Some("**/AGENTS.md"));
        assert_eq!(matching(&["/docs/"], "docs/a/b.md"), Some("/docs/"));
        assert_eq!(matching(&["docs/"], "docs"), None);
    }

    #[test]
    fn a_name_with_a_line_break_is_matched_like_any_other() {
        assert_eq!(matching(&["ci/**"], "ci/a\nb"), Some("ci/**"));
    }

    #[test]
    fn an_unclosed_class_is_refused_by_name() {
        let error = PathSet::new(&["src/[ab".to_owned()]).unwrap_err();
        assert_eq!(error.glob, "src/[ab");
    }
}

//! An order: one issue to be worked on in one repository.
//!
//! The run's id is a function of repository and issue, so that the same command again finds the
//! same run, on any process, without anyone remembering what was started.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use swarm_core::id::RunId;
use swarm_core::port::forge::RepoId;
use swarm_core::port::store::Store;

use crate::cli;
use crate::command::Usage;
use crate::config::Settings;
use crate::handover::{IssueSource, ManagerInput};
use crate::progress::clean;

/// The largest issue, in bytes.
const ISSUE_BYTES_MAX: u64 = 256 * 1024;

/// The longest title, in characters.
const TITLE_MAX: usize = 200;

/// One issue to be worked on in one repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// The repository.
    pub repo: RepoId,
    /// The issue's title, one line. Untrusted.
    pub title: String,
    /// The rest of its text. Untrusted.
    pub body: String,
    /// Who brought it.
    pub author: String,
}

impl Order {
    /// Reads what was typed.
    ///
    /// # Errors
    /// [`Usage`] when there is no such repository or issue, or it may not be worked on.
    pub fn read(settings: &Settings, work: &cli::Work) -> Result<Self> {
        let here = settings.environment().current_dir();
        let repo = repository(settings, &here.join(&work.repo))?;
        let text = issue(here, &work.issue)?;
        let (title, body) = split(&text);
        if title.is_empty() {
            bail!(Usage("the issue is empty; write what is wrong or wanted".to_owned()));
        }
        Ok(Self { repo, title, body, author: settings.owner() })
    }

    /// The id of the run for this order, the same each time.
    ///
    /// # Panics
    /// Never: letters, digits and dashes are a run id.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        let mut digest = Sha256::new();
        for part in [&self.repo.0, &self.title, &self.body] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let hash = hex::encode(digest.finalize());
        RunId::new(format!("{}-{}", slug(&self.title), &hash[..10]))
            .expect("letters, digits and dashes are a run id")
    }

    /// The first id of this order that no run has yet.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn new_run_id(&self, store: &dyn Store) -> Result<RunId> {
        let first = self.run_id();
        let (mut id, mut number) = (first.clone(), 1_u32);
        while store.run(&id).await?.is_some() {
            number += 1;
            id = RunId::new(format!("{first}-{number}"))?;
        }
        Ok(id)
    }

    /// The input of the run.
    #[must_use]
    pub fn input(&self) -> Value {
        json!(ManagerInput {
            repo: self.repo.clone(),
            issue: IssueSource {
                number: 0,
                title: self.title.clone(),
                body: self.body.clone(),
                author: self.author.clone(),
            },
        })
    }
}

/// The repository's real path: one repository has one name, however it was typed.
fn repository(settings: &Settings, path: &Path) -> Result<RepoId> {
    let path = path
        .canonicalize()
        .map_err(|error| Usage(format!("there is no repository {}: {error}", path.display())))?;
    let is_repository = path.join(".git").exists()
        || (path.join("HEAD").is_file() && path.join("objects").is_dir());
    if !is_repository {
        bail!(Usage(format!(
            "{} is not a git repository; name its top directory, or make it one with `git init`",
            path.display()
        )));
    }
    if let Some(allowed) = &settings.values.repositories
        && !allowed.iter().any(|one| real(&one.path) == path)
    {
        bail!(Usage(format!(
            "{} may not be worked on: `repositories` in swarm.yaml does not list it",
            path.display()
        )));
    }
    let text = path.to_str().with_context(|| {
        format!("{} is not UTF-8; move the repository to a path that is", path.display())
    })?;
    Ok(RepoId(text.to_owned()))
}

/// A path without links, where it leads anywhere.
#[must_use]
pub fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn issue(here: &Path, typed: &str) -> Result<String> {
    if typed == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(ISSUE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .context("cannot read the issue from standard input")?;
        return fitting(text, "standard input");
    }
    let path = here.join(typed);
    if path.is_file() {
        let size = path.metadata().map(|data| data.len()).unwrap_or(0);
        if size > ISSUE_BYTES_MAX {
            bail!(too_large(typed));
        }
        return std::fs::read_to_string(&path).map_err(|error| {
            Usage(format!("cannot read the issue {}: {error}", path.display())).into()
        });
    }
    let looks_like_path = !typed.contains(char::is_whitespace)
        && (typed.contains('/') || [".md", ".txt"].iter().any(|end| typed.ends_with(end)));
    if looks_like_path {
        bail!(Usage(format!("there is no issue file {}", path.display())));
    }
    fitting(typed.to_owned(), "--issue")
}

fn fitting(text: String, what: &str) -> Result<String> {
    if text.len() as u64 > ISSUE_BYTES_MAX { bail!(too_large(what)) } else { Ok(text) }
}

fn too_large(what: &str) -> Usage {
    Usage(format!("{what}: the issue is larger than {} KiB", ISSUE_BYTES_MAX / 1024))
}

/// The first line with words in it, without heading marks, and what follows it.
fn split(text: &str) -> (String, String) {
    let text = text.trim_start_matches('\u{feff}').trim();
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let title = clean(first.trim_start_matches('#'));
    let short: String = title.chars().take(TITLE_MAX).collect();
    // A text of one long line is title and body at once.
    let body = if short.len() == title.len() { rest.trim() } else { text };
    (short, body.to_owned())
}

/// The words of a title in small letters and dashes, at most 32 characters.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    for word in title.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        if word.is_empty() {
            continue;
        }
        if slug.len() + 1 + word.len() > 32 {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&word.to_ascii_lowercase());
    }
    if slug.is_empty() { "issue".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(title: &str, body: &str) -> Order {
        Order {
            repo: RepoId("/srv/app".into()),
            title: title.into(),
            body: body.into(),
            author: "me".into(),
        }
    }

    #[test]
    fn the_same_order_has_the_same_run_and_another_one_another() {
        let one = order("Median is wrong", "for even counts");
        assert_eq!(one.run_id(), order("Median is wrong", "for even counts").run_id());
        assert_ne!(one.run_id(), order("Median is wrong", "for odd counts").run_id());
        assert!(one.run_id().as_str().starts_with("median-is-wrong-"), "{}", one.run_id());
    }

    #[test]
    fn a_run_id_has_no_dot_because_dots_lead_to_children() {
        assert!(!order("a.b: ../etc", "").run_id().as_str().contains('.'));
        assert!(order("日本語", "").run_id().as_str().starts_with("issue-"));
    }

    #[test]
    fn the_first_line_is_the_title_and_the_rest_the_body() {
        assert_eq!(split("\n# It is wrong\n\nVery.\n"), ("It is wrong".into(), "Very.".into()));
        assert_eq!(split("Mend it"), ("Mend it".into(), String::new()));
    }

    #[test]
    fn a_line_that_is_too_long_for_a_title_is_kept_whole_in_the_body() {
        let text = "word ".repeat(100);
        let (title, body) = split(&text);
        assert_eq!(title.chars().count(), TITLE_MAX);
        assert_eq!(body, text.trim());
    }
}

//! What the local forge reads from the repository itself, at each call.

use std::path::{Path, PathBuf};

use git2::Repository;
use swarm_core::port::forge::{Committer, Error, LineComment, PullRequest, PullState, Sha};

use super::store::{Item, Merging};
use super::{Config, Result};
use crate::git::{DiffLimits, Merged, Origin, Treeish, between, objects};

/// How far back a merge is looked for in a branch, in commits.
pub(super) const HISTORY_MAX: usize = 10_000;

/// Where a repository is.
pub(super) struct Place {
    /// What is opened and cloned: the folder with the work tree, or the bare repository.
    pub(super) path: PathBuf,
    /// The git folder that all its work trees share: the same repository, the same folder.
    pub(super) common: PathBuf,
}

/// Finds a repository by an absolute path or a `file://` URL.
pub(super) fn place(text: &str) -> Result<Place> {
    let path = match Origin::parse(text)? {
        Origin::Local(path) => path,
        Origin::Remote { .. } => {
            return Err(Error::Refused(format!(
                "`{text}` is not on this machine: the local forge takes an absolute path or file://"
            )));
        }
    };
    let repo = objects::open(&path)?;
    let common = repo.commondir().canonicalize().unwrap_or_else(|_| repo.commondir().to_owned());
    let path = match repo.workdir() {
        Some(folder) => folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
        None => path,
    };
    Ok(Place { path, common })
}

/// The branch that HEAD names; of a detached HEAD the usual one.
pub(super) fn default_branch(repo: &Repository) -> Result<String> {
    let head = repo
        .find_reference("HEAD")
        .map_err(objects::failed(repo, "reading HEAD"))?
        .symbolic_target()
        .ok()
        .flatten()
        .and_then(|target| target.strip_prefix("refs/heads/"))
        .map(ToOwned::to_owned);
    if let Some(branch) = head {
        return Ok(branch);
    }
    for branch in ["main", "master"] {
        if tip(repo, branch)?.is_some() {
            return Ok(branch.to_owned());
        }
    }
    Err(Error::NotFound {
        what: "a default branch (HEAD names none, and there is neither `main` nor `master`)"
            .to_owned(),
    })
}

pub(super) fn tip(repo: &Repository, branch: &str) -> Result<Option<Sha>> {
    Ok(objects::tip(repo, &format!("refs/heads/{branch}"))?)
}

/// The tips of head and base, if a pull request may be opened from one to the other.
pub(super) fn tips_to_open(path: &Path, head: &str, base: &str) -> Result<(Sha, Sha)> {
    let repo = objects::open(path)?;
    let find = |branch: &str| {
        tip(&repo, branch)?.ok_or_else(|| Error::NotFound { what: format!("branch `{branch}`") })
    };
    let tips = (find(head)?, find(base)?);
    if head == base || objects::contains(&repo, &tips.1, &tips.0)? {
        return Err(Error::Refused(format!("`{head}` has no commit that `{base}` lacks")));
    }
    Ok(tips)
}

/// A pull request with its head and base as they are now.
pub(super) fn pull_request(
    path: &Path,
    item: Item,
    config: &Config,
    url: String,
) -> Result<PullRequest> {
    let pull = item.clone().into_pull()?;
    let repo = objects::open(path)?;
    let (head, base) = (tip(&repo, &pull.head)?, tip(&repo, &pull.base)?);
    let merged = match (&pull.merged, &head, &base) {
        (Some(merged), _, _) => Some(merged.clone()),
        (None, Some(head), Some(base)) if item.is_open => landed(&repo, base, head)?,
        (None, _, _) => None,
    };
    let is_gone = head.is_none() || base.is_none();
    let state = match &merged {
        Some(_) => PullState::Merged,
        None if item.is_open && !is_gone => PullState::Open,
        None => PullState::Closed,
    };
    let (head_sha, base_sha) = match &merged {
        Some(merged) => (merged.head.clone(), merged.base.clone()),
        None => (head.unwrap_or(pull.last_head), base.unwrap_or(pull.last_base)),
    };
    let is_live = state == PullState::Open;
    let mergeable = if is_live {
        Some(matches!(objects::merge(&repo, &base_sha, &head_sha, false)?, Merged::Clean(_)))
    } else {
        None
    };
    let people = if is_gone && merged.is_none() {
        std::collections::BTreeSet::new()
    } else {
        objects::people(&repo, &base_sha, &head_sha)?
    };
    let committer =
        |(name, email): (String, String)| Committer { login: config.login_of(&email), name, email };
    Ok(PullRequest {
        number: item.number,
        state,
        is_draft: false,
        is_from_fork: false,
        title: item.title,
        body: item.body,
        author: item.author,
        head: pull.head,
        base: pull.base,
        mergeable,
        behind_by: if is_live { Some(objects::behind(&repo, &head_sha, &base_sha)?) } else { None },
        committers: people.into_iter().map(committer).collect(),
        merge_sha: merged.map(|merged| merged.commit),
        head_sha,
        base_sha,
        url,
    })
}

/// The merge that brought a head into the base, if it is in there: by us before a crash, or by the
/// owner's own hand.
pub(super) fn landed(repo: &Repository, base: &Sha, head: &Sha) -> Result<Option<Merging>> {
    if !objects::contains(repo, base, head)? {
        return Ok(None);
    }
    let Some(commit) = objects::merge_of(repo, base, head, HISTORY_MAX)? else {
        // Moved there without a merge commit.
        return Ok(Some(Merging { head: head.clone(), base: head.clone(), commit: head.clone() }));
    };
    let parent = objects::commit(repo, &commit)?
        .parent_id(0)
        .map_err(objects::failed(repo, "reading a merge"))?;
    Ok(Some(Merging { head: head.clone(), base: objects::sha(parent), commit }))
}

/// Checks that the reviewed commit exists and that all remarks lie in hunks of its change.
pub(super) fn check_review(
    path: &Path,
    base: &str,
    last_base: &Sha,
    commit: &Sha,
    comments: &[LineComment],
) -> Result<()> {
    let repo = objects::open(path)?;
    objects::commit(&repo, commit)?;
    if comments.is_empty() {
        return Ok(());
    }
    let base = tip(&repo, base)?.unwrap_or_else(|| last_base.clone());
    let start = objects::merge_base(&repo, &base, commit)?.unwrap_or(base);
    let old = objects::tree(&repo, &Treeish::from(&start))?;
    let new = objects::tree(&repo, &Treeish::from(commit))?;
    let limits = DiffLimits { patch_max: 0, ..DiffLimits::default() };
    let diff = between(&repo, &old, &new, limits)?;
    let outside: Vec<String> = comments
        .iter()
        .filter(|comment| !diff.has_line(&comment.path, comment.line))
        .map(|comment| format!("{}:{}", comment.path.escape_debug(), comment.line))
        .collect();
    if outside.is_empty() {
        Ok(())
    } else {
        Err(Error::Refused(format!(
            "remarks on lines outside of the change: {}",
            outside.join(", ")
        )))
    }
}

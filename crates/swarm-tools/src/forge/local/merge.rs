//! Merging: the approved head, or nothing.
//!
//! ```text
//! plan        is it merged already? is the head the approved one? does it merge? is every work
//!             tree of the base clean?
//! intent      only with a work tree: what is about to happen, stored
//! work trees  brought to the merged files
//! branch      moved from the base that was planned on, or not at all
//! record      stored as merged
//! ```
//!
//! A crash may fall between any two lines. Doing it again finds the merge by its second parent, or
//! a work tree in which every file is either the old or the merged one.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use git2::Repository;
use swarm_core::port::forge::{Error, MergeRequest, Sha};

use super::store::{Book, Merging, Pull};
use super::worktree::{self, WorkTree};
use super::{Config, Result, blocking, repository};
use crate::git::{self, Lock, Merged, NewCommit, objects};

/// How often a merge is planned again because the base moved meanwhile.
const TRIES: usize = 5;
/// How long one waits for another merge in the same repository.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be done.
enum Plan {
    /// Nothing: it is in the base already.
    Landed(Merging),
    /// This merge.
    Merge {
        merging: Merging,
        /// Whether there is a work tree to be brought along.
        needs_intent: bool,
        /// Whether it was begun before, so that files may be merged already.
        is_begun: bool,
    },
}

pub(super) async fn merge(
    path: &Path,
    book: &Book,
    config: &Config,
    request: MergeRequest,
) -> Result<Sha> {
    let number = request.number;
    // One merge at a time, also between processes: none looks at a work tree that another is just
    // bringing along. The folder is the owner's; only its lock is ours.
    let _lock = Lock::take_folder(&book.common().join("objects"), PATIENCE).await?;
    for _ in 0..TRIES {
        let pull = book
            .item(number)
            .await?
            .ok_or_else(|| Error::NotFound { what: format!("pull request #{number}") })?;
        let (is_open, pull) = (pull.is_open, pull.into_pull()?);
        let planned = {
            let (path, config, request) = (path.to_owned(), config.clone(), request.clone());
            let pull = pull.clone();
            blocking(move || plan(&path, is_open, &pull, &config, &request)).await
        };
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                give_up(path, book, number, pull).await?;
                return Err(error);
            }
        };
        let (merging, is_begun) = match planned {
            Plan::Landed(merging) => return record(book, number, merging).await,
            Plan::Merge { merging, needs_intent, is_begun } => {
                if needs_intent {
                    set_intent(book, number, Some(merging.clone())).await?;
                }
                (merging, is_begun)
            }
        };
        let done = {
            let (path, merging) = (path.to_owned(), merging.clone());
            blocking(move || carry_out(&path, &pull, &merging, is_begun)).await?
        };
        if done {
            return record(book, number, merging).await;
        }
    }
    Err(Error::NotMergeable("the base branch moves too fast".to_owned()))
}

fn plan(
    path: &Path,
    is_open: bool,
    pull: &Pull,
    config: &Config,
    request: &MergeRequest,
) -> Result<Plan> {
    let expected = &request.expected_head;
    if let Some(merged) = &pull.merged {
        return if merged.head == *expected {
            Ok(Plan::Landed(merged.clone()))
        } else {
            Err(Error::HeadMoved { expected: expected.clone(), found: merged.head.clone() })
        };
    }
    let repo = objects::open(path)?;
    let base = find(&repo, &pull.base)?;
    if known_commit(&repo, expected)?
        && let Some(landed) = repository::landed(&repo, &base, expected)?
    {
        return Ok(Plan::Landed(landed));
    }
    if !is_open {
        return Err(Error::NotMergeable("the pull request is closed".to_owned()));
    }
    let head = find(&repo, &pull.head)?;
    if head != *expected {
        return Err(Error::HeadMoved { expected: expected.clone(), found: head });
    }
    if let Some(wanted) = &request.expected_base
        && *wanted != base
    {
        return Err(Error::BaseMoved { expected: wanted.clone(), found: base });
    }
    let commit = merge_commit(&repo, config, request, &base, &head, pull)?;
    let merging = Merging { head, base, commit };
    let is_begun = pull
        .merging
        .as_ref()
        .is_some_and(|begun| begun.head == merging.head && begun.base == merging.base);
    let trees = worktree::of_branch(&repo, &pull.base)?;
    refuse_unclean(&trees, &merging, pull, is_begun)?;
    Ok(Plan::Merge { merging, needs_intent: !trees.is_empty(), is_begun })
}

fn find(repo: &Repository, branch: &str) -> Result<Sha> {
    repository::tip(repo, branch)?
        .ok_or_else(|| Error::NotFound { what: format!("branch `{branch}`") })
}

fn known_commit(repo: &Repository, commit: &Sha) -> Result<bool> {
    match objects::commit(repo, commit) {
        Ok(_) => Ok(true),
        Err(git::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the merge commit. The same request on the same base makes the same one.
fn merge_commit(
    repo: &Repository,
    config: &Config,
    request: &MergeRequest,
    base: &Sha,
    head: &Sha,
    pull: &Pull,
) -> Result<Sha> {
    let tree = match objects::merge(repo, base, head, true)? {
        Merged::Clean(tree) => tree,
        Merged::Conflict(paths) => {
            let shown = shown(&paths);
            return Err(Error::NotMergeable(format!(
                "`{}` and `{}` conflict in {shown}",
                pull.head, pull.base
            )));
        }
    };
    Ok(objects::make_commit(
        repo,
        &NewCommit {
            tree,
            parents: vec![base.clone(), head.clone()],
            author: config.merger.clone(),
            committer: config.merger.clone(),
            at: request.at,
            message: request.message.clone(),
        },
    )?)
}

/// Brings the work trees and then the branch to the merge. False if the base moved meanwhile.
fn carry_out(path: &Path, pull: &Pull, merging: &Merging, is_begun: bool) -> Result<bool> {
    let repo = objects::open(path)?;
    let trees = worktree::of_branch(&repo, &pull.base)?;
    refuse_unclean(&trees, merging, pull, is_begun)?;
    for tree in &trees {
        tree.update(&merging.base, &merging.commit, is_begun)?;
    }
    let name = format!("refs/heads/{}", pull.base);
    let log = format!("devinswarm: merge {} into {}", pull.head, pull.base);
    match objects::set_ref(&repo, &name, Some(&merging.base), &merging.commit, &log) {
        Ok(()) => Ok(true),
        Err(git::Error::RefMoved { found, .. }) => {
            let is_landed = match &found {
                Some(found) => repository::landed(&repo, found, &merging.head)?.is_some(),
                None => false,
            };
            if !is_landed {
                for tree in &trees {
                    tree.update(&merging.commit, &merging.base, true)?;
                }
            }
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn refuse_unclean(
    trees: &[WorkTree],
    merging: &Merging,
    pull: &Pull,
    is_begun: bool,
) -> Result<()> {
    for tree in trees {
        if let Some(why) = tree.obstacle(&merging.base, &merging.commit, is_begun)? {
            return Err(Error::NotMergeable(format!(
                "`{}` is checked out in `{}`, and {why}",
                pull.base,
                tree.folder().display()
            )));
        }
    }
    Ok(())
}

/// Takes back what a merge that was begun, and will not be finished, did to work trees.
async fn give_up(path: &Path, book: &Book, number: u64, pull: Pull) -> Result<()> {
    let Some(begun) = pull.merging.clone() else { return Ok(()) };
    let path = path.to_owned();
    blocking(move || {
        let repo = objects::open(&path)?;
        // If the branch is elsewhere now, its owner has taken over.
        if repository::tip(&repo, &pull.base)?.as_ref() != Some(&begun.base) {
            return Ok(());
        }
        for tree in worktree::of_branch(&repo, &pull.base)? {
            if tree.obstacle(&begun.base, &begun.commit, true)?.is_none() {
                tree.update(&begun.commit, &begun.base, true)?;
            }
        }
        Ok(())
    })
    .await?;
    set_intent(book, number, None).await
}

async fn set_intent(book: &Book, number: u64, intent: Option<Merging>) -> Result<()> {
    book.change(number, |item| {
        item.pull_mut()?.merging.clone_from(&intent);
        Ok(())
    })
    .await
}

async fn record(book: &Book, number: u64, merging: Merging) -> Result<Sha> {
    book.change(number, |item| {
        item.is_open = false;
        let pull = item.pull_mut()?;
        pull.merging = None;
        let merged = pull.merged.get_or_insert_with(|| merging.clone());
        let commit = merged.commit.clone();
        pull.last_head = merging.head.clone();
        pull.last_base = merging.base.clone();
        Ok(commit)
    })
    .await
}

/// A few names, and how many more.
pub(super) fn shown(paths: &[String]) -> String {
    let mut text = paths
        .iter()
        .take(5)
        .map(|path| format!("`{}`", path.escape_debug()))
        .collect::<Vec<_>>()
        .join(", ");
    if paths.len() > 5 {
        // Writing to a String cannot fail.
        let _ = write!(text, " and {} more", paths.len() - 5);
    }
    text
}

//! The local forge: any git repository on disk, its issues and pull requests in the store.
//!
//! Branches and commits are read from the repository at each call and never remembered; what git
//! has no place for (issues, pull requests, reviews, statuses) is in records. What a newcomer gets
//! wrong: the repository is its owner's. Nothing is written to it but the merge, no hook of it
//! ever runs, and a work tree in which someone works is left alone.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use swarm_core::port::clock::Clock;
use swarm_core::port::forge::{
    Actor, BranchRules, Check, CheckKind, Comment, Error, ForgeMerge, ForgeRead, ForgeWrite, Issue,
    MergeRequest, NewIssue, NewPullRequest, NewReview, NewStatus, Permission, PullRequest, Repo,
    RepoId, Review, Sha, Verdict,
};
use swarm_core::port::records::Records;

use self::store::{Book, Item, Pull, StoredComment, StoredReview};
use crate::git::{self, Person, check_branch};

mod merge;
mod repository;
mod store;
mod worktree;

/// The result of a forge call.
type Result<T> = std::result::Result<T, Error>;

/// The longest line that a status says, in characters, as on GitHub.
const SUMMARY_MAX: usize = 140;

/// Someone whom the local forge knows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The login.
    pub login: String,
    /// What they may do.
    pub permission: Permission,
    /// Mail addresses by which their commits are known.
    #[serde(default)]
    pub emails: Vec<String>,
}

/// Who may do what, and what the branches demand.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Everyone who may do anything. All others may do nothing.
    pub members: Vec<Member>,
    /// Whose name stands in merge commits.
    pub merger: Person,
    /// What is demanded of every branch.
    #[serde(default)]
    pub rules: BranchRules,
}

impl Config {
    /// The usual one: the owner may do everything, and the swarm's bot may write.
    #[must_use]
    pub fn new(owner: impl Into<String>) -> Self {
        let bot = "devinswarm[bot]";
        Self {
            members: vec![
                Member { login: owner.into(), permission: Permission::Admin, emails: Vec::new() },
                Member { login: bot.to_owned(), permission: Permission::Write, emails: Vec::new() },
            ],
            merger: Person { name: bot.to_owned(), email: "bot@devinswarm.invalid".to_owned() },
            rules: BranchRules::default(),
        }
    }

    fn permission(&self, login: &str) -> Permission {
        self.members
            .iter()
            .find(|member| member.login.eq_ignore_ascii_case(login))
            .map_or(Permission::None, |member| member.permission)
    }

    /// The login whose commits have this address.
    fn login_of(&self, email: &str) -> Option<String> {
        self.members
            .iter()
            .find(|member| member.emails.iter().any(|known| known.eq_ignore_ascii_case(email)))
            .map(|member| member.login.clone())
    }
}

/// The local forge. It holds the merging ability, too: give it out as [`ForgeMerge`] to the gate's
/// component alone.
#[derive(Clone)]
pub struct LocalForge {
    records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
}

impl std::fmt::Debug for LocalForge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalForge").field("config", &self.config).finish_non_exhaustive()
    }
}

impl LocalForge {
    /// A forge that remembers in `records`.
    #[must_use]
    pub fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>, config: Config) -> Self {
        Self { records, clock, config: Arc::new(config) }
    }

    /// The repository on disk, and its book of records.
    async fn book(&self, repo: &RepoId) -> Result<(PathBuf, Book)> {
        let text = repo.0.clone();
        let place = blocking(move || repository::place(&text)).await?;
        let book = Book::new(self.records.clone(), &place.common);
        Ok((place.path, book))
    }

    async fn item(&self, book: &Book, number: u64) -> Result<Item> {
        book.item(number)
            .await?
            .ok_or_else(|| Error::NotFound { what: format!("issue or pull request #{number}") })
    }

    fn issue_of(&self, repo: &RepoId, item: Item) -> Issue {
        Issue {
            number: item.number,
            title: item.title,
            body: item.body,
            author: item.author,
            is_open: item.is_open,
            labels: item.labels,
            comments: item.comments.into_iter().map(|stored| stored.comment).collect(),
            url: format!("{repo}#{}", item.number),
        }
    }

    async fn pull_of(&self, repo: &RepoId, path: PathBuf, item: Item) -> Result<PullRequest> {
        let (config, url) = (self.config.clone(), format!("{repo}#{}", item.number));
        blocking(move || repository::pull_request(&path, item, &config, url)).await
    }

    /// Anyone may be unknown to us, but nobody unknown may say how a change stands.
    fn demand(&self, actor: &Actor, least: Permission, what: &str) -> Result<()> {
        if self.config.permission(&actor.login) < least {
            return Err(Error::Denied(format!("`{}` may not {what}", actor.login)));
        }
        Ok(())
    }
}

#[async_trait]
impl ForgeRead for LocalForge {
    async fn repo(&self, repo: &RepoId) -> Result<Repo> {
        let (path, _) = self.book(repo).await?;
        let id = repo.clone();
        blocking(move || {
            let default_branch = repository::default_branch(&git::objects::open(&path)?)?;
            let clone_url = path
                .to_str()
                .ok_or_else(|| {
                    Error::Refused("the path of the repository is not UTF-8".to_owned())
                })?
                .to_owned();
            Ok(Repo { id, clone_url, default_branch })
        })
        .await
    }

    async fn issue(&self, repo: &RepoId, number: u64) -> Result<Issue> {
        let (_, book) = self.book(repo).await?;
        Ok(self.issue_of(repo, self.item(&book, number).await?))
    }

    async fn pull_request(&self, repo: &RepoId, number: u64) -> Result<PullRequest> {
        let (path, book) = self.book(repo).await?;
        let item = self.item(&book, number).await?;
        self.pull_of(repo, path, item).await
    }

    async fn pull_request_of(&self, repo: &RepoId, head: &str) -> Result<Option<PullRequest>> {
        let (path, book) = self.book(repo).await?;
        match book.pull_of_head(head).await? {
            Some(item) => self.pull_of(repo, path, item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn reviews(&self, repo: &RepoId, number: u64) -> Result<Vec<Review>> {
        let (_, book) = self.book(repo).await?;
        let pull = self.item(&book, number).await?.into_pull()?;
        let now = |stored: StoredReview| Review {
            permission: self.config.permission(&stored.review.author.login),
            ..stored.review
        };
        Ok(pull.reviews.into_iter().map(now).collect())
    }

    async fn checks(&self, repo: &RepoId, commit: &Sha) -> Result<Vec<Check>> {
        let (_, book) = self.book(repo).await?;
        book.checks(commit).await
    }

    async fn branch_rules(&self, repo: &RepoId, _branch: &str) -> Result<BranchRules> {
        self.book(repo).await?;
        Ok(self.config.rules.clone())
    }

    async fn permission(&self, repo: &RepoId, login: &str) -> Result<Permission> {
        self.book(repo).await?;
        Ok(self.config.permission(login))
    }
}

#[async_trait]
impl ForgeWrite for LocalForge {
    async fn open_issue(&self, repo: &RepoId, issue: NewIssue) -> Result<Issue> {
        let (_, book) = self.book(repo).await?;
        let number = book.number_of_issue(&issue.key).await?;
        let item = book.create(Item::issue(number, &issue)).await?;
        Ok(self.issue_of(repo, item))
    }

    async fn sticky_comment(
        &self,
        repo: &RepoId,
        number: u64,
        author: &Actor,
        marker: &str,
        body: &str,
    ) -> Result<Comment> {
        if marker.trim().is_empty() {
            return Err(Error::Refused("the marker of a sticky comment is empty".to_owned()));
        }
        let (_, book) = self.book(repo).await?;
        let text =
            if body.contains(marker) { body.to_owned() } else { format!("{marker}\n{body}") };
        let now = self.clock.now();
        book.change(number, |item| {
            let own = item.comments.iter_mut().find(|stored| {
                stored.comment.author.login.eq_ignore_ascii_case(&author.login)
                    && stored.comment.body.contains(marker)
            });
            if let Some(stored) = own {
                stored.comment.is_edited |= stored.comment.body != text;
                stored.comment.body.clone_from(&text);
                return Ok(stored.comment.clone());
            }
            let comment = Comment {
                id: item.next_id(),
                author: author.clone(),
                body: text.clone(),
                created_at: now,
                is_edited: false,
            };
            item.comments.push(StoredComment { comment: comment.clone() });
            Ok(comment)
        })
        .await
    }

    async fn open_pull_request(&self, repo: &RepoId, pull: NewPullRequest) -> Result<PullRequest> {
        let refused = |error: git::Error| Error::Refused(error.to_string());
        check_branch(&pull.head).map_err(refused)?;
        check_branch(&pull.base).map_err(refused)?;
        let (path, book) = self.book(repo).await?;
        if let Some(item) = book.pull_of_head(&pull.head).await?
            && item.is_open
        {
            let found = self.pull_of(repo, path.clone(), item.clone()).await?;
            if found.state == swarm_core::port::forge::PullState::Open {
                return self.update_pull(repo, path, &book, item.number, &pull).await;
            }
            // It was merged or its branch deleted behind our back: it is not open any more.
            self.close(repo, item.number).await?;
        }
        let (head, base) = (pull.head.clone(), pull.base.clone());
        let tips = {
            let path = path.clone();
            blocking(move || repository::tips_to_open(&path, &head, &base)).await?
        };
        let number = book.number_of_pull(&pull.head).await?;
        let item = Item::pull(number, &pull, Pull::new(&pull, tips.0, tips.1));
        let item = book.create(item).await?;
        self.pull_of(repo, path, item).await
    }

    async fn submit_review(&self, repo: &RepoId, number: u64, review: NewReview) -> Result<Review> {
        self.demand(&review.author, Permission::Read, "review")?;
        let (path, book) = self.book(repo).await?;
        let item = self.item(&book, number).await?;
        let pull = item.clone().into_pull()?;
        let is_bot = review.author.is_bot || review.author.login.to_lowercase().ends_with("[bot]");
        if review.verdict == Verdict::Approve && is_bot {
            return Err(Error::Refused(format!(
                "`{}` is a program: only people approve",
                review.author.login
            )));
        }
        if review.verdict == Verdict::Approve
            && review.author.login.eq_ignore_ascii_case(&item.author.login)
        {
            return Err(Error::Refused(format!(
                "`{}` opened pull request #{number} and cannot approve it",
                review.author.login
            )));
        }
        let is_same = |stored: &StoredReview| {
            stored.key == review.key
                && stored.review.author.login.eq_ignore_ascii_case(&review.author.login)
        };
        // Submitted before: whatever has happened to the branches since, it stands.
        if let Some(stored) = pull.reviews.iter().find(|stored| is_same(stored)) {
            let permission = self.config.permission(&review.author.login);
            return Ok(Review { permission, ..stored.review.clone() });
        }
        let (commit, comments) = (review.commit.clone(), review.comments.clone());
        let last_base = pull.last_base.clone();
        blocking(move || {
            repository::check_review(&path, &pull.base, &last_base, &commit, &comments)
        })
        .await?;
        let (permission, now) = (self.config.permission(&review.author.login), self.clock.now());
        book.change(number, |item| {
            let id = item.next_id();
            let pull = item.pull_mut()?;
            let own = pull.reviews.iter().find(|stored| is_same(stored));
            if let Some(stored) = own {
                return Ok(Review { permission, ..stored.review.clone() });
            }
            let submitted = Review {
                id,
                author: review.author.clone(),
                permission,
                verdict: review.verdict,
                commit: review.commit.clone(),
                body: review.body.clone(),
                comments: review.comments.clone(),
                is_dismissed: false,
                submitted_at: now,
            };
            pull.reviews.push(StoredReview { key: review.key.clone(), review: submitted.clone() });
            Ok(submitted)
        })
        .await
    }

    async fn set_status(&self, repo: &RepoId, status: NewStatus) -> Result<()> {
        self.demand(&status.source, Permission::Write, "set a status")?;
        let (path, book) = self.book(repo).await?;
        let commit = status.commit.clone();
        blocking(move || {
            let repo = git::objects::open(&path)?;
            git::objects::commit(&repo, &commit).map(|_| ()).map_err(Error::from)
        })
        .await?;
        book.set_check(Check {
            name: status.name,
            kind: CheckKind::Status,
            state: status.state,
            summary: status.summary.chars().take(SUMMARY_MAX).collect(),
            commit: status.commit,
            source: status.source.login,
            at: self.clock.now(),
        })
        .await
    }

    async fn close(&self, repo: &RepoId, number: u64) -> Result<()> {
        let (_, book) = self.book(repo).await?;
        book.change(number, |item| {
            item.is_open = false;
            Ok(())
        })
        .await
    }
}

impl LocalForge {
    async fn update_pull(
        &self,
        repo: &RepoId,
        path: PathBuf,
        book: &Book,
        number: u64,
        pull: &NewPullRequest,
    ) -> Result<PullRequest> {
        let item = book
            .change(number, |item| {
                let base = &item.pull_mut()?.base;
                if *base != pull.base {
                    return Err(Error::Refused(format!(
                        "pull request #{number} of `{}` goes to `{base}`, not to `{}`: close it first",
                        pull.head, pull.base
                    )));
                }
                item.title.clone_from(&pull.title);
                item.body.clone_from(&pull.body);
                Ok(item.clone())
            })
            .await?;
        self.pull_of(repo, path, item).await
    }
}

#[async_trait]
impl ForgeMerge for LocalForge {
    async fn merge(&self, repo: &RepoId, merge: MergeRequest) -> Result<Sha> {
        let (path, book) = self.book(repo).await?;
        merge::merge(&path, &book, &self.config, merge).await
    }
}

/// Runs work that blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    git::blocking(work).await
}

impl From<git::Error> for Error {
    fn from(error: git::Error) -> Self {
        let message = git::chain(&error);
        match error {
            git::Error::NotFound { what, .. } => Self::NotFound { what },
            git::Error::InvalidUrl { .. }
            | git::Error::InvalidName { .. }
            | git::Error::InvalidPerson { .. }
            | git::Error::TooLarge { .. }
            | git::Error::Refused { .. }
            | git::Error::ForeignBranch { .. }
            | git::Error::RefMoved { .. } => Self::Refused(message),
            git::Error::NoGit
            | git::Error::TimedOut { .. }
            | git::Error::Cli { .. }
            | git::Error::Objects { .. }
            | git::Error::Io { .. } => Self::Unreachable(message),
        }
    }
}

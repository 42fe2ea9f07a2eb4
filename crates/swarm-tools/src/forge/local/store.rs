//! What the local forge remembers: one record for each issue or pull request, small ones to find
//! them by.
//!
//! Numbers are given out first and used second, so a crash may lose a number but never makes two
//! issues of one key, nor two open pull requests of one branch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use swarm_core::port::forge::{
    Actor, Check, Comment, Error, NewIssue, NewPullRequest, Review, Sha,
};
use swarm_core::port::records::{self, Records};

use super::Result;

const NAMESPACE: &str = "forge.local";
/// How often a write is tried again because another writer was faster.
const TRIES: usize = 64;

/// An issue or a pull request, as stored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Item {
    pub(super) number: u64,
    pub(super) title: String,
    pub(super) body: String,
    pub(super) author: Actor,
    pub(super) is_open: bool,
    #[serde(default)]
    pub(super) labels: Vec<String>,
    #[serde(default)]
    pub(super) comments: Vec<StoredComment>,
    #[serde(default)]
    ids: u64,
    #[serde(default)]
    pull: Option<Pull>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct StoredComment {
    pub(super) comment: Comment,
}

/// What makes an item a pull request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Pull {
    pub(super) head: String,
    pub(super) base: String,
    /// The tips when it was opened or merged, for when the branches are gone.
    pub(super) last_head: Sha,
    pub(super) last_base: Sha,
    #[serde(default)]
    pub(super) reviews: Vec<StoredReview>,
    /// A merge that was begun in a work tree.
    #[serde(default)]
    pub(super) merging: Option<Merging>,
    #[serde(default)]
    pub(super) merged: Option<Merging>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct StoredReview {
    pub(super) key: String,
    pub(super) review: Review,
}

/// A merge: what, onto what, and the commit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Merging {
    pub(super) head: Sha,
    pub(super) base: Sha,
    pub(super) commit: Sha,
}

#[derive(Deserialize, Serialize)]
struct Number {
    number: u64,
}

impl Item {
    pub(super) fn issue(number: u64, new: &NewIssue) -> Self {
        Self {
            number,
            title: new.title.clone(),
            body: new.body.clone(),
            author: new.author.clone(),
            is_open: true,
            labels: Vec::new(),
            comments: Vec::new(),
            ids: 0,
            pull: None,
        }
    }

    pub(super) fn pull(number: u64, new: &NewPullRequest, pull: Pull) -> Self {
        Self {
            number,
            title: new.title.clone(),
            body: new.body.clone(),
            author: new.author.clone(),
            is_open: true,
            labels: Vec::new(),
            comments: Vec::new(),
            ids: 0,
            pull: Some(pull),
        }
    }

    /// An id for a comment or review, like no other in the repository.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.number.saturating_mul(1_000_000).saturating_add(self.ids)
    }

    pub(super) fn into_pull(self) -> Result<Pull> {
        let number = self.number;
        self.pull.ok_or_else(|| no_pull(number))
    }

    pub(super) fn pull_mut(&mut self) -> Result<&mut Pull> {
        let number = self.number;
        self.pull.as_mut().ok_or_else(|| no_pull(number))
    }
}

fn no_pull(number: u64) -> Error {
    Error::NotFound { what: format!("pull request #{number} (there is an issue of that number)") }
}

impl Pull {
    pub(super) fn new(new: &NewPullRequest, last_head: Sha, last_base: Sha) -> Self {
        Self {
            head: new.head.clone(),
            base: new.base.clone(),
            last_head,
            last_base,
            reviews: Vec::new(),
            merging: None,
            merged: None,
        }
    }
}

/// One repository's records.
pub(super) struct Book {
    records: Arc<dyn Records>,
    prefix: String,
    common: PathBuf,
}

impl Book {
    /// The records of the repository whose common git folder this is.
    pub(super) fn new(records: Arc<dyn Records>, common: &Path) -> Self {
        let hash = hash(common.as_os_str().as_encoded_bytes());
        Self { records, prefix: hash[..16].to_owned(), common: common.to_owned() }
    }

    /// The git folder that all work trees of the repository share.
    pub(super) fn common(&self) -> &Path {
        &self.common
    }

    pub(super) async fn item(&self, number: u64) -> Result<Option<Item>> {
        Ok(self.read(&self.item_key(number)).await?.map(|(item, _)| item))
    }

    /// Stores a new item; if there is one of its number already, that one stays.
    pub(super) async fn create(&self, item: Item) -> Result<Item> {
        self.settle(&self.item_key(item.number), |found: Option<Item>| {
            let is_new = found.is_none();
            let item = found.unwrap_or_else(|| item.clone());
            Ok((is_new.then(|| item.clone()), item))
        })
        .await
    }

    /// Changes an item as one step: what `change` sees is what is replaced.
    pub(super) async fn change<T>(
        &self,
        number: u64,
        mut change: impl FnMut(&mut Item) -> Result<T>,
    ) -> Result<T> {
        self.settle(&self.item_key(number), |found: Option<Item>| {
            let mut item = found.ok_or_else(|| Error::NotFound {
                what: format!("issue or pull request #{number}"),
            })?;
            let result = change(&mut item)?;
            Ok((Some(item), result))
        })
        .await
    }

    /// A number that was never given out before.
    pub(super) async fn next_number(&self) -> Result<u64> {
        self.settle(&self.key("counter"), |found: Option<Number>| {
            let number = found.map_or(1, |last| last.number + 1);
            Ok((Some(Number { number }), number))
        })
        .await
    }

    /// The number of the issue of a key, given out now if there is none.
    pub(super) async fn number_of_issue(&self, key: &str) -> Result<u64> {
        let key = self.key(&format!("issue-key/{}", hash(key.as_bytes())));
        if let Some((known, _)) = self.read::<Number>(&key).await? {
            return Ok(known.number);
        }
        let fresh = self.next_number().await?;
        self.settle(&key, |found: Option<Number>| {
            let number = found.as_ref().map_or(fresh, |known| known.number);
            Ok((found.is_none().then_some(Number { number }), number))
        })
        .await
    }

    /// The open pull request of a head branch, or the last one there was.
    pub(super) async fn pull_of_head(&self, head: &str) -> Result<Option<Item>> {
        match self.read::<Number>(&self.head_key(head)).await? {
            Some((known, _)) => self.item(known.number).await,
            None => Ok(None),
        }
    }

    /// The number of the open pull request of a head branch, given out now if there is none. It is
    /// given out before the pull request is stored: whoever is killed in between is followed by
    /// someone who uses the same.
    pub(super) async fn number_of_pull(&self, head: &str) -> Result<u64> {
        let key = self.head_key(head);
        for _ in 0..TRIES {
            let found = self.read::<Number>(&key).await?;
            let version = found.as_ref().map_or(0, |(_, version)| *version);
            if let Some((known, _)) = found
                && self.item(known.number).await?.is_none_or(|item| item.is_open)
            {
                return Ok(known.number);
            }
            let number = self.next_number().await?;
            if self.write(&key, version, &Number { number }).await? {
                return Ok(number);
            }
        }
        Err(busy(&key))
    }

    /// The checks of a commit, one for each name and source.
    pub(super) async fn checks(&self, commit: &Sha) -> Result<Vec<Check>> {
        let key = self.key(&format!("commit/{commit}"));
        Ok(self.read(&key).await?.map(|(checks, _)| checks).unwrap_or_default())
    }

    pub(super) async fn set_check(&self, check: Check) -> Result<()> {
        let key = self.key(&format!("commit/{}", check.commit));
        self.settle(&key, |found: Option<Vec<Check>>| {
            let mut checks = found.unwrap_or_default();
            checks.retain(|other| {
                (&other.name, other.kind, &other.source) != (&check.name, check.kind, &check.source)
            });
            checks.push(check.clone());
            Ok((Some(checks), ()))
        })
        .await
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn item_key(&self, number: u64) -> String {
        self.key(&format!("item/{number:010}"))
    }

    fn head_key(&self, head: &str) -> String {
        self.key(&format!("head/{}", hash(head.as_bytes())))
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>> {
        let Some(record) =
            self.records.get(NAMESPACE, key).await.map_err(|error| unreachable(&error))?
        else {
            return Ok(None);
        };
        let value = serde_json::from_value(record.value).map_err(|error| {
            Error::Unreachable(format!("record `{key}` of the local forge cannot be read: {error}"))
        })?;
        Ok(Some((value, record.version)))
    }

    /// Whether it was written; not, if another writer was faster.
    async fn write<T: Serialize>(&self, key: &str, expected: u64, value: &T) -> Result<bool> {
        let value = serde_json::to_value(value).expect("records are JSON");
        match self.records.put(NAMESPACE, key, expected, value).await {
            Ok(_) => Ok(true),
            Err(records::Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Reads, decides and writes, again and again until nobody was faster.
    async fn settle<D: DeserializeOwned + Serialize, T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<D>) -> Result<(Option<D>, T)>,
    ) -> Result<T> {
        for _ in 0..TRIES {
            let found = self.read::<D>(key).await?;
            let (document, version) = match found {
                Some((document, version)) => (Some(document), version),
                None => (None, 0),
            };
            let (new, result) = decide(document)?;
            match new {
                None => return Ok(result),
                Some(new) if self.write(key, version, &new).await? => return Ok(result),
                Some(_) => tokio::task::yield_now().await,
            }
        }
        Err(busy(key))
    }
}

fn busy(key: &str) -> Error {
    Error::Unreachable(format!("record `{key}` of the local forge changes too fast"))
}

fn unreachable(error: &records::Error) -> Error {
    Error::Unreachable(crate::git::chain(error))
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

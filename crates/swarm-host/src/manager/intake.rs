//! `swarm/intake`: freezes the issue.
//!
//! Everything after this works on what stood in the issue at this moment: an edit or a comment
//! that comes later does not reach a run that has begun, whoever makes it.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use swarm_core::failure::Failure;
use swarm_core::port::forge::{Actor, Issue as Found, NewIssue, Permission, RepoId};
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError, Probe};

use crate::agent::clip;
use crate::agent::untrusted::clean;
use crate::handover::{Issue, IssueSource, Remark};
use crate::parts::{Parts, forge_failure};

/// `swarm/intake`
#[derive(Debug)]
pub struct Intake {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntakeInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue, by number or as text.
    pub issue: IssueSource,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct IntakeOutput {
    /// The issue, frozen.
    pub issue: Issue,
}

impl Intake {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Intake {
    const KIND: &'static str = "swarm/intake";
    const FLOW: Flow = Flow { reads_untrusted: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = IntakeInput;
    type Output = IntakeOutput;

    async fn run(&self, ctx: &NodeContext, input: IntakeInput) -> Result<IntakeOutput, NodeError> {
        let IntakeInput { repo, issue: source } = input;
        let number = if source.number == 0 {
            self.opened(ctx, &repo, &source).await?
        } else {
            source.number
        };
        let issue: Issue =
            ctx.memo("frozen", || async { self.frozen(&repo, number).await }).await?;
        ctx.emit(
            "issue.frozen",
            json!({ "issue": issue.number, "title": issue.title, "hash": issue.hash }),
        )
        .await?;
        Ok(IntakeOutput { issue })
    }
}

impl Intake {
    /// Opens an issue from a text. The run's id is its key: opening it again finds it.
    async fn opened(
        &self,
        ctx: &NodeContext,
        repo: &RepoId,
        source: &IssueSource,
    ) -> Result<u64, NodeError> {
        let (title, body) = split(&source.title, &source.body);
        if title.is_empty() {
            let message = "the issue has neither a number nor a text";
            return Err(Failure::fatal("empty_issue", message).into());
        }
        let login = if source.author.is_empty() { "unknown" } else { &source.author };
        let issue = NewIssue {
            title,
            body,
            author: Actor { login: login.to_owned(), is_bot: false },
            key: ctx.root_id().to_string(),
        };
        let intent = json!({ "open_issue": repo, "title": issue.title });
        let act = || async {
            let opened = self.parts.forge.open_issue(repo, issue.clone()).await;
            Ok(opened.map_err(forge_failure)?.number)
        };
        // The key makes the act its own probe.
        ctx.effect("open", intent, || async { Ok(Probe::DidNotHappen) }, act).await
    }

    async fn frozen(&self, repo: &RepoId, number: u64) -> Result<Issue, NodeError> {
        let forge = &self.parts.forge;
        let facts = forge.repo(repo).await.map_err(forge_failure)?;
        let found = forge.issue(repo, number).await.map_err(forge_failure)?;
        let remarks = self.remarks(repo, &found).await?;
        let (title, body) = (clean(&found.title), clean(&found.body));
        Ok(Issue {
            repo: repo.clone(),
            number: found.number,
            hash: hash(&title, &body, &remarks),
            title,
            body,
            author: found.author.login,
            remarks,
            labels: found.labels,
            url: found.url,
            base_branch: facts.default_branch,
        })
    }

    /// Comments count when a person with write permission wrote them and nobody edited them since.
    async fn remarks(&self, repo: &RepoId, found: &Found) -> Result<Vec<Remark>, NodeError> {
        let mut remarks = Vec::new();
        for comment in &found.comments {
            if comment.author.is_bot || comment.is_edited {
                continue;
            }
            let author = comment.author.login.clone();
            let permission = self.parts.forge.permission(repo, &author).await;
            if permission.map_err(forge_failure)? >= Permission::Write {
                remarks.push(Remark { author, body: clean(&comment.body) });
            }
        }
        Ok(remarks)
    }
}

/// Title and body of a text: without a title, the first line that says something is it.
fn split(title: &str, body: &str) -> (String, String) {
    if !title.trim().is_empty() {
        return (one_line(title), body.trim().to_owned());
    }
    let body = body.trim();
    let (first, rest) = body.split_once('\n').unwrap_or((body, ""));
    let first = first.trim_start_matches('#').trim();
    // A first line that is a paragraph stays in the body, too.
    if first.chars().count() > 120 {
        return (clip(first, 100), body.to_owned());
    }
    (one_line(first), rest.trim().to_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn hash(title: &str, body: &str, remarks: &[Remark]) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    };
    part(title);
    part(body);
    for remark in remarks {
        part(&remark.author);
        part(&remark.body);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_text_is_its_title() {
        let (title, body) = split("", "\n# Fix the  parser\n\nIt fails.\n");
        assert_eq!((title.as_str(), body.as_str()), ("Fix the parser", "It fails."));
        let (title, body) = split("Title", "Body");
        assert_eq!((title.as_str(), body.as_str()), ("Title", "Body"));
    }

    #[test]
    fn a_paragraph_for_a_first_line_is_not_lost() {
        let long = "word ".repeat(60);
        let (title, body) = split("", &long);
        assert!(title.chars().count() <= 101, "{title}");
        assert_eq!(body, long.trim());
    }

    #[test]
    fn the_hash_tells_where_one_text_ends() {
        assert_ne!(hash("ab", "c", &[]), hash("a", "bc", &[]));
    }
}

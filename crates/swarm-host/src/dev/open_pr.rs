//! `swarm/open_pr`: the branch becomes a pull request, or its pull request gets the new text.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::port::forge::{NewPullRequest, PullRequest, PullState, RepoId, Sha};
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError, Probe};

use super::Finished;
use super::checks::{Results, TestVerdict};
use crate::agent::clip;
use crate::agent::untrusted::clean;
use crate::handover::{Change, Desk, DevOutcome, Issue, Plan, Task};
use crate::parts::{Parts, forge_failure, status};

/// `swarm/open_pr`
#[derive(Debug)]
pub struct OpenPr {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenPrInput {
    /// The repository.
    pub repo: RepoId,
    /// The issue.
    pub issue: Issue,
    /// The plan.
    pub plan: Plan,
    /// The task.
    pub task: Task,
    /// The workspace, with the branches.
    pub desk: Desk,
    /// The change so far.
    pub change: Change,
    /// The pushed commit.
    pub head: Sha,
    /// What the implementer says it did.
    pub finish: Finished,
    /// How the checks came out before.
    pub before: Results,
    /// How they came out after.
    pub after: Results,
    /// The size of the change in a line.
    pub stat: String,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct OpenPrOutput {
    /// The change, with its pull request.
    pub change: Change,
    /// Proposed.
    pub outcome: DevOutcome,
    /// None.
    pub reasons: Vec<String>,
}

impl OpenPr {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

/// What is kept of an opened pull request.
#[derive(Debug, Deserialize, Serialize)]
struct Opened {
    number: u64,
    url: String,
}

impl From<PullRequest> for Opened {
    fn from(pull: PullRequest) -> Self {
        Self { number: pull.number, url: pull.url }
    }
}

#[async_trait]
impl Node for OpenPr {
    const KIND: &'static str = "swarm/open_pr";
    const FLOW: Flow = Flow { sends_out: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = OpenPrInput;
    type Output = OpenPrOutput;

    async fn run(&self, ctx: &NodeContext, input: OpenPrInput) -> Result<OpenPrOutput, NodeError> {
        let forge = &self.parts.forge;
        let (title, summary) = said(&input);
        let body = body(&input, &summary, ctx.root_id().as_str());
        let pull = NewPullRequest {
            head: input.desk.branch.clone(),
            base: input.desk.base_branch.clone(),
            title: title.clone(),
            body,
            author: self.parts.bot.actor(),
        };
        let intent = json!({ "open_pull_request": pull.head, "into": pull.base });
        let probe = || async {
            let found = forge.pull_request_of(&input.repo, &pull.head).await;
            Ok(match found.map_err(forge_failure)? {
                // Only with the text of this round has this round's opening happened.
                Some(found) if found.state == PullState::Open && found.body == pull.body => {
                    Probe::Landed(Opened::from(found))
                }
                _ => Probe::DidNotHappen,
            })
        };
        let act = || async {
            let opened = forge.open_pull_request(&input.repo, pull.clone()).await;
            Ok(Opened::from(opened.map_err(forge_failure)?))
        };
        let opened = ctx.effect("open", intent, probe, act).await?;
        let told = json!({
            "pr": opened.number, "url": opened.url, "branch": pull.head, "head": input.head,
        });
        ctx.emit("pr.opened", told).await?;
        let change = Change {
            pr: opened.number,
            url: opened.url,
            branch: input.desk.branch,
            base_branch: input.desk.base_branch,
            base: input.desk.base,
            head: input.head,
            title,
            summary,
        };
        Ok(OpenPrOutput { change, outcome: DevOutcome::Proposed, reasons: Vec::new() })
    }
}

/// Title and summary: the implementer's, else those of the round before, else the task's.
fn said(input: &OpenPrInput) -> (String, String) {
    let title = [&input.change.title, &input.finish.commit_title, &input.task.title]
        .into_iter()
        .find(|title| !title.trim().is_empty())
        .map(|title| clean(title).split_whitespace().collect::<Vec<_>>().join(" "));
    let summary = [&input.finish.summary, &input.change.summary, &input.task.goal]
        .into_iter()
        .find(|summary| !summary.trim().is_empty())
        .map(|summary| clean(summary).trim().to_owned());
    (clip(&title.unwrap_or_default(), 100), clip(&summary.unwrap_or_default(), 4000))
}

fn body(input: &OpenPrInput, summary: &str, run: &str) -> String {
    let OpenPrInput { issue, plan, task, desk, head, before, after, stat, .. } = input;
    let mut text = format!("Solves #{}.\n\n## Goal\n\n{}\n", issue.number, task.goal.trim());
    // Writing to a String cannot fail.
    if !task.acceptance.is_empty() {
        text.push('\n');
        for fact in &task.acceptance {
            let _ = writeln!(text, "- {fact}");
        }
    }
    let _ = write!(text, "\n## Plan\n\n{}\n\n## What was done\n\n{summary}\n", plan.summary.trim());
    if after.verdict != TestVerdict::Passed {
        let _ = write!(text, "\n{}\n", warning(after));
    }
    let _ = write!(
        text,
        "\n## Artifacts\n\n\
         | | |\n| --- | --- |\n\
         | branch | `{}` |\n| commit | {} |\n| change | {stat} |\n| tests before | {} |\n| tests after | {} |\n| run | `{run}` |\n",
        desk.branch,
        head.short(),
        before.words(),
        after.words(),
    );
    let _ = write!(
        text,
        "\n## How to unblock\n\n\
         - [ ] Tests pass: the status `{}` at the head is green.\n\
         - [ ] Linters pass: the status `{}` at the head is green.\n\
         - [ ] The review `{}` has no blocking finding left.\n\
         - [ ] A person with write permission approves this very head: `swarm-host approve`, or a review. \
         A new commit needs a new approval.\n\n\
         The merge follows by itself.\n",
        status::TESTS,
        status::LINT,
        status::REVIEW,
    );
    text
}

fn warning(after: &Results) -> &'static str {
    match (after.verdict, after.is_none_allowed) {
        (TestVerdict::None, true) => {
            "> ⚠️ **Nothing was tested:** the configuration says that this repository has no tests."
        }
        (TestVerdict::None, false) => {
            "> ⚠️ **Nothing was tested:** no tests were detected in this repository. The gate blocks the merge until \
             tests are configured, or the configuration says that there are none (`tests: []`)."
        }
        (TestVerdict::Broken, _) => {
            "> ⚠️ **Nothing was tested:** the tests could not be run. The gate blocks the merge."
        }
        (TestVerdict::Failed | TestVerdict::Passed, _) => {
            "> ⚠️ **Tests fail.** The gate blocks the merge."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(after: Results) -> OpenPrInput {
        OpenPrInput {
            repo: RepoId::default(),
            issue: Issue { number: 7, ..Issue::default() },
            plan: Plan { summary: "Count from zero.".to_owned(), ..Plan::default() },
            task: Task {
                title: "Fix the sum".to_owned(),
                goal: "Make the sum right.".to_owned(),
                acceptance: vec!["`sum([])` is 0".to_owned()],
                ..Task::default()
            },
            desk: Desk { branch: "devinswarm/7-fix-a1b2c3".to_owned(), ..Desk::default() },
            change: Change::default(),
            head: Sha("0123456789abcdef".to_owned()),
            finish: Finished {
                summary: "Started at zero.<!-- hidden -->".to_owned(),
                ..Finished::default()
            },
            before: Results { verdict: TestVerdict::Failed, ..Results::default() },
            after,
            stat: "1 file: 1 changed".to_owned(),
        }
    }

    #[test]
    fn the_description_has_goal_plan_artifacts_and_how_to_unblock() {
        let after = Results { verdict: TestVerdict::Passed, ..Results::default() };
        let input = input(after);
        let (_, summary) = said(&input);
        insta::assert_snapshot!(body(&input, &summary, "run-1"), @r#"
        Solves #7.

        ## Goal

        Make the sum right.

        - `sum([])` is 0

        ## Plan

        Count from zero.

        ## What was done

        Started at zero.[hidden comment removed]

        ## Artifacts

        | | |
        | --- | --- |
        | branch | `devinswarm/7-fix-a1b2c3` |
        | commit | 0123456789 |
        | change | 1 file: 1 changed |
        | tests before | failed |
        | tests after | passed |
        | run | `run-1` |

        ## How to unblock

        - [ ] Tests pass: the status `swarm/tests` at the head is green.
        - [ ] Linters pass: the status `swarm/lint` at the head is green.
        - [ ] The review `swarm/review` has no blocking finding left.
        - [ ] A person with write permission approves this very head: `swarm-host approve`, or a review. A new commit needs a new approval.

        The merge follows by itself.
        "#);
    }

    #[test]
    fn a_change_that_nothing_tested_says_so_loudly() {
        let input = input(Results::default());
        assert!(body(&input, "", "r").contains("**Nothing was tested:** no tests were detected"));
    }
}

//! `swarm/checks`: runs the repository's tests and linters and says what that means.
//!
//! The same list is run before and after a change, so that a change cannot pass by editing what is
//! run; checks that only the change brought are run as well. Whoever claims success over a failing
//! test is overruled here.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::port::forge::RepoId;
use swarm_core::port::sandbox::Network;
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_tools::checks::{Cause, Check, Kind, Outcome, Report, compare};
use swarm_tools::git::TreeId;

use super::desk::OpenDesk;
use crate::agent::{clip, guarded};
use crate::handover::Desk;
use crate::parts::Parts;

/// `swarm/checks`
#[derive(Debug)]
pub struct Checks {
    parts: Arc<Parts>,
    config: ChecksNodeConfig,
}

/// How it is set up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChecksNodeConfig {
    /// Which kinds of checks are run.
    pub kinds: Vec<Kind>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChecksInput {
    /// The repository.
    pub repo: RepoId,
    /// The workspace.
    pub desk: Desk,
    /// Its files.
    pub tree: TreeId,
    /// The checks as found earlier; those that are found now and are not among them are run, too.
    #[serde(default)]
    pub list: Vec<Check>,
    /// How they came out before the change, to see what it lost.
    #[serde(default)]
    pub before: Vec<Report>,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct ChecksOutput {
    /// All checks, whether run now or not.
    pub list: Vec<Check>,
    /// How those that were run came out.
    pub checks: Results,
}

/// How a repository's checks came out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Results {
    /// What the tests say, all together.
    pub verdict: TestVerdict,
    /// What is wrong, a line each. Untrusted.
    pub problems: Vec<String>,
    /// Each check that was run.
    pub reports: Vec<Report>,
    /// Whether the configuration says that there are no tests.
    pub is_none_allowed: bool,
}

/// What tests say, all together.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TestVerdict {
    /// At least one test ran, and all passed.
    Passed,
    /// A test failed, or one that ran before did not run any more.
    Failed,
    /// There are no tests.
    #[default]
    None,
    /// They cannot be run here.
    Broken,
}

impl Checks {
    pub(crate) fn new(parts: &Arc<Parts>, config: ChecksNodeConfig) -> Self {
        Self { parts: Arc::clone(parts), config }
    }
}

#[async_trait]
impl Node for Checks {
    const KIND: &'static str = "swarm/checks";
    type Config = ChecksNodeConfig;
    type Input = ChecksInput;
    type Output = ChecksOutput;

    async fn run(&self, ctx: &NodeContext, input: ChecksInput) -> Result<ChecksOutput, NodeError> {
        let ChecksInput { repo, desk, tree, mut list, before } = input;
        let settings = self.parts.settings(&repo)?;
        let desk = self.parts.desk(ctx, &repo, &desk).await?;
        desk.put(&tree).await?;
        for found in desk.detect(&settings.checks)? {
            if !list.iter().any(|known| known.name == found.name) {
                list.push(found);
            }
        }
        let due: Vec<Check> =
            list.iter().filter(|check| self.config.kinds.contains(&check.kind)).cloned().collect();
        let reports = run_all(ctx, &self.parts, &desk, &due, Network::None).await?;
        let (verdict, problems) = judge(&before, &reports);
        let is_none_allowed = settings.checks.tests.as_ref().is_some_and(Vec::is_empty);
        let checks = Results { verdict, problems, reports, is_none_allowed };
        Ok(ChecksOutput { list, checks })
    }
}

/// Runs checks one after the other. A missing sandbox is brought to a person; what a run leaves
/// in the workspace is nobody's change.
///
/// # Errors
/// [`NodeError::Asked`] while a person is asked; the sandbox's failure.
pub(crate) async fn run_all(
    ctx: &NodeContext,
    parts: &Parts,
    desk: &OpenDesk,
    list: &[Check],
    network: Network,
) -> Result<Vec<Report>, NodeError> {
    let mut reports = Vec::new();
    for (index, check) in list.iter().enumerate() {
        let key = format!("check/{index}");
        let run = || async {
            ctx.memo(&key, || async {
                ctx.emit("check.started", json!({ "name": check.name, "kind": check.kind }))
                    .await?;
                let report = desk.run(parts, check, network).await;
                if let Some(failure) = report.failure().filter(|_| is_ours(&report)) {
                    return Err(failure.into());
                }
                ctx.emit("check.finished", told(&report)).await?;
                Ok(report)
            })
            .await
        };
        reports.push(guarded(ctx, &key, run).await?);
    }
    Ok(reports)
}

/// Whether the host, not the repository, is to blame for a check that could not be run.
fn is_ours(report: &Report) -> bool {
    match report.outcome {
        Outcome::Broken { cause, .. } => match cause {
            Cause::SandboxUnavailable | Cause::SandboxFailed | Cause::Cancelled => true,
            Cause::TimedOut | Cause::MissingTool | Cause::Killed | Cause::Invalid => false,
        },
        Outcome::Passed | Outcome::Failed | Outcome::NoTests | Outcome::Skipped { .. } => false,
    }
}

fn told(report: &Report) -> serde_json::Value {
    json!({
        "name": report.name,
        "kind": report.kind,
        "command": report.command,
        "outcome": report.outcome,
        "counts": report.counts,
        "failures": report.failures.iter().take(20).map(|failure| &failure.name).collect::<Vec<_>>(),
        "findings": report.findings.len(),
        "ms": report.wall_ms,
    })
}

/// What the tests say, all together, and what is wrong, a line each.
fn judge(before: &[Report], after: &[Report]) -> (TestVerdict, Vec<String>) {
    let tests: Vec<&Report> = after.iter().filter(|report| report.kind == Kind::Test).collect();
    let mut problems: Vec<String> = tests.iter().flat_map(|report| problems_of(report)).collect();
    let mut is_red = tests.iter().any(|report| match report.outcome {
        Outcome::Failed => true,
        // A change can make tests hang, eat all memory or lose their place; it cannot uninstall a
        // tool.
        Outcome::Broken { cause, .. } => {
            matches!(cause, Cause::TimedOut | Cause::Killed | Cause::Invalid)
        }
        Outcome::Passed | Outcome::NoTests | Outcome::Skipped { .. } => false,
    });
    for lost in compare(before, after).lost {
        let what = lost.test.unwrap_or_else(|| "its tests".to_owned());
        problems
            .push(format!("{}: {what} ran before the change and did not run after it", lost.check));
        is_red = true;
    }
    for report in &tests {
        for test in denied(before, report) {
            problems.push(format!(
                "{}: ended well, but its own output says that `{test}` failed",
                report.name
            ));
            is_red = true;
        }
    }
    let is = |wanted: fn(&Outcome) -> bool| tests.iter().any(|report| wanted(&report.outcome));
    let verdict = if is_red {
        TestVerdict::Failed
    } else if is(|outcome| matches!(outcome, Outcome::Broken { .. })) {
        TestVerdict::Broken
    } else if is(Outcome::passed) {
        TestVerdict::Passed
    } else {
        TestVerdict::None
    };
    (verdict, problems)
}

/// Tests that failed by the words of a check which ended well all the same: whoever makes a runner
/// end so has mended nothing. What a check that passed before said then, too, is its own noise;
/// without a before, the exit code is all there is.
fn denied<'a>(before: &[Report], after: &'a Report) -> Vec<&'a str> {
    let Some(old) = before.iter().find(|old| old.name == after.name) else { return Vec::new() };
    let is_noise =
        |name: &str| old.outcome.passed() && old.failures.iter().any(|known| known.name == name);
    let failures = after.failures.iter().filter(|_| after.outcome.passed()).take(20);
    failures.map(|failure| failure.name.as_str()).filter(|name| !is_noise(name)).collect()
}

fn problems_of(report: &Report) -> Vec<String> {
    match &report.outcome {
        Outcome::Passed | Outcome::NoTests | Outcome::Skipped { .. } => Vec::new(),
        Outcome::Broken { why, .. } => vec![format!("{}: {}", report.name, clip(why, 300))],
        Outcome::Failed if report.failures.is_empty() => {
            vec![format!("{}: failed, see its output", report.name)]
        }
        Outcome::Failed => report
            .failures
            .iter()
            .take(20)
            .map(|failure| {
                let message = clip(failure.message.lines().next().unwrap_or_default().trim(), 200);
                let colon = if message.is_empty() { "" } else { ": " };
                format!("{}: `{}` failed{colon}{message}", report.name, failure.name)
            })
            .collect(),
    }
}

impl Results {
    /// What the tests say, in a few words for people.
    #[must_use]
    pub fn words(&self) -> String {
        let tests = self.reports.iter().filter(|report| report.kind == Kind::Test);
        let counts = tests
            .filter_map(|report| report.counts)
            .fold((0, 0), |sum, counts| (sum.0 + counts.passed, sum.1 + counts.failed));
        match (self.verdict, counts) {
            (TestVerdict::Passed, (0, _)) => "passed".to_owned(),
            (TestVerdict::Passed, (passed, _)) => format!("{passed} passed"),
            (TestVerdict::Failed, (0, 0)) => "failed".to_owned(),
            (TestVerdict::Failed, (passed, failed)) => format!("{failed} failed, {passed} passed"),
            (TestVerdict::None, _) => "no tests".to_owned(),
            (TestVerdict::Broken, _) => "could not be run".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_tools::checks::{Counts, TestFailure};

    use super::*;

    fn report(outcome: Outcome) -> Report {
        let failures = if outcome == Outcome::Failed {
            vec![TestFailure {
                name: "adds".to_owned(),
                file: None,
                line: None,
                message: "left 1\nright 2".to_owned(),
            }]
        } else {
            Vec::new()
        };
        Report {
            name: "cargo test".to_owned(),
            kind: Kind::Test,
            command: "cargo test".to_owned(),
            exit: None,
            outcome,
            counts: Some(Counts { passed: 2, failed: failures.len() as u64, skipped: 0 }),
            failures,
            findings: Vec::new(),
            tail: String::new(),
            is_cut: false,
            wall_ms: 1,
        }
    }

    fn broken(cause: Cause) -> Outcome {
        Outcome::Broken { cause, why: "w".to_owned() }
    }

    #[test]
    fn the_verdict_is_what_ran_not_what_is_said() {
        let of = |outcomes: &[Outcome]| {
            let reports: Vec<Report> = outcomes.iter().cloned().map(report).collect();
            judge(&[], &reports).0
        };
        assert_eq!(of(&[Outcome::Passed]), TestVerdict::Passed);
        assert_eq!(of(&[Outcome::Passed, Outcome::Failed]), TestVerdict::Failed);
        assert_eq!(of(&[Outcome::Passed, broken(Cause::MissingTool)]), TestVerdict::Broken);
        assert_eq!(of(&[broken(Cause::TimedOut)]), TestVerdict::Failed);
        assert_eq!(of(&[Outcome::NoTests]), TestVerdict::None);
        assert_eq!(of(&[]), TestVerdict::None);
    }

    #[test]
    fn tests_that_no_longer_run_are_a_failure() {
        let (verdict, problems) = judge(&[report(Outcome::Failed)], &[report(Outcome::NoTests)]);
        assert_eq!(verdict, TestVerdict::Failed);
        insta::assert_snapshot!(problems.join("\n"), @r#"cargo test: its tests ran before the change and did not run after it"#);
    }

    #[test]
    fn a_good_exit_code_does_not_outweigh_a_failure_in_words() {
        let says_so =
            Report { failures: report(Outcome::Failed).failures, ..report(Outcome::Passed) };
        let after = std::slice::from_ref(&says_so);
        for before in [report(Outcome::Failed), report(Outcome::Passed)] {
            let (verdict, problems) = judge(&[before], after);
            assert_eq!(verdict, TestVerdict::Failed);
            insta::allow_duplicates! {
                insta::assert_snapshot!(problems.join("\n"), @"cargo test: ended well, but its own output says that `adds` failed");
            }
        }
        // A test of a test runner may print such words at all times.
        assert_eq!(judge(after, after).0, TestVerdict::Passed);
        assert_eq!(judge(&[], after).0, TestVerdict::Passed);
    }

    #[test]
    fn a_failing_test_is_told_by_name_with_the_first_line_of_why() {
        let (_, problems) = judge(&[], &[report(Outcome::Failed)]);
        insta::assert_snapshot!(problems.join("\n"), @r#"cargo test: `adds` failed: left 1"#);
    }
}

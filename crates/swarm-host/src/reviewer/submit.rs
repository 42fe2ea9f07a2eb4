//! `swarm/submit_review`: one review and three statuses, at the head that was looked at.
//!
//! The verdict follows from rules: a test that fails or a finding that blocks requests changes,
//! and nothing that a model says can turn that into anything milder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::diff::Diff;
use swarm_core::failure::Failure;
use swarm_core::port::forge::{CheckState, LineComment, NewReview, NewStatus, RepoId, Verdict};
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError, Probe};
use swarm_tools::checks::{Kind, Outcome, Report};

use super::review::Opinion;
use crate::agent::clip;
use crate::agent::untrusted::clean;
use crate::dev::checks::{Results, TestVerdict};
use crate::handover::{Change, Desk, Finding, ReviewVerdict, Weight};
use crate::parts::{Parts, forge_failure, status};

/// The most remarks on lines of one review.
const COMMENTS_MAX: usize = 40;

/// `swarm/submit_review`
#[derive(Debug)]
pub struct Submit {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitInput {
    /// The repository.
    pub repo: RepoId,
    /// The change.
    pub change: Change,
    /// The commits it stands between.
    pub desk: Desk,
    /// How tests and linters came out.
    pub checks: Results,
    /// What the model thinks.
    pub opinion: Opinion,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct SubmitOutput {
    /// What follows.
    pub verdict: ReviewVerdict,
    /// What was found, failing tests included.
    pub findings: Vec<Finding>,
}

impl Submit {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Submit {
    const KIND: &'static str = "swarm/submit_review";
    const FLOW: Flow = Flow { sends_out: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = SubmitInput;
    type Output = SubmitOutput;

    async fn run(&self, ctx: &NodeContext, input: SubmitInput) -> Result<SubmitOutput, NodeError> {
        let SubmitInput { repo, change, desk, checks, opinion } = input;
        let mirror = self.parts.mirror_as_is(&repo).await?;
        let diff = mirror.diff(&desk.base, &desk.start).await.map_err(Failure::from)?;
        let report = assess(&diff, &checks, &opinion);
        let (verdict, findings) = (report.verdict, report.findings.clone());
        for (name, state, summary) in &report.statuses {
            let status = NewStatus {
                name: (*name).to_owned(),
                state: *state,
                summary: clip(summary, 130),
                commit: change.head.clone(),
                source: self.parts.bot.actor(),
            };
            // Setting a status again to the same changes nothing: no journal is needed.
            self.parts.forge.set_status(&repo, status).await.map_err(forge_failure)?;
        }
        let review = NewReview {
            author: self.parts.bot.actor(),
            verdict: match report.verdict {
                ReviewVerdict::ChangesRequested => Verdict::RequestChanges,
                ReviewVerdict::Clean => Verdict::Comment,
            },
            commit: change.head.clone(),
            body: report.body,
            comments: report.comments,
            key: format!("{}:review", ctx.run_id()),
        };
        let intent = json!({ "review": change.pr, "at": change.head, "key": review.key });
        let act = || async {
            let submitted = self.parts.forge.submit_review(&repo, change.pr, review.clone()).await;
            Ok(submitted.map_err(forge_failure)?.id)
        };
        // The key makes the act its own probe.
        let id: u64 =
            ctx.effect("review", intent, || async { Ok(Probe::DidNotHappen) }, act).await?;
        ctx.emit(
            "review.submitted",
            json!({ "pr": change.pr, "review": id, "verdict": verdict, "findings": findings.len() }),
        )
        .await?;
        Ok(SubmitOutput { verdict, findings })
    }
}

/// A review before it is submitted.
struct Assessment {
    verdict: ReviewVerdict,
    findings: Vec<Finding>,
    statuses: [(&'static str, CheckState, String); 3],
    comments: Vec<LineComment>,
    body: String,
}

/// What follows from what ran and what was found.
fn assess(diff: &Diff, checks: &Results, opinion: &Opinion) -> Assessment {
    let lines = changed_lines(diff);
    let mut findings: Vec<Finding> = checks
        .problems
        .iter()
        .map(|problem| Finding {
            weight: Weight::Blocking,
            text: clean(problem),
            ..Finding::default()
        })
        .collect();
    let lint = lint_findings(checks, &lines);
    findings.extend(lint.iter().cloned());
    findings.extend(opinion.findings.iter().map(|finding| Finding {
        text: clean(&finding.text),
        path: finding.path.clone(),
        ..*finding
    }));
    let blocks = |findings: &[Finding]| findings.iter().any(|f| f.weight == Weight::Blocking);
    let is_red = checks.verdict == TestVerdict::Failed || !lint.is_empty();
    let verdict = if is_red || blocks(&findings) {
        ReviewVerdict::ChangesRequested
    } else {
        ReviewVerdict::Clean
    };
    let statuses = [
        tests_status(checks),
        lint_status(checks, &lint),
        review_status(opinion, blocks(&opinion.findings)),
    ];
    let (comments, rest) = placed(&findings, &lines);
    let body = body(&statuses, opinion, &rest);
    Assessment { verdict, findings, statuses, comments, body }
}

/// The lines of each file, as it is now, that the change adds or alters.
fn changed_lines(diff: &Diff) -> BTreeMap<&str, BTreeSet<u32>> {
    diff.files
        .iter()
        .map(|file| (file.path.as_str(), file.added_lines().map(|(line, _)| line).collect()))
        .collect()
}

/// What linters say about changed lines. What they say about others was there before.
fn lint_findings(checks: &Results, lines: &BTreeMap<&str, BTreeSet<u32>>) -> Vec<Finding> {
    let reports = checks.reports.iter().filter(|report| report.kind == Kind::Lint);
    reports
        .flat_map(|report| report.findings.iter().map(move |finding| (report, finding)))
        .filter(|(_, finding)| {
            lines.get(finding.path.as_str()).is_some_and(|lines| lines.contains(&finding.line))
        })
        .map(|(report, finding)| {
            let rule = if finding.rule.is_empty() { "" } else { " " };
            Finding {
                path: finding.path.clone(),
                line: finding.line,
                weight: Weight::Blocking,
                text: format!("{}{rule}{}: {}", report.name, finding.rule, clean(&finding.message)),
            }
        })
        .collect()
}

fn tests_status(checks: &Results) -> (&'static str, CheckState, String) {
    let words = checks.words();
    let (state, summary) = match (checks.verdict, checks.is_none_allowed) {
        (TestVerdict::Passed, _) => (CheckState::Success, words),
        (TestVerdict::Failed, _) => (CheckState::Failure, words),
        (TestVerdict::Broken, _) => (CheckState::Error, words),
        (TestVerdict::None, true) => {
            (CheckState::Skipped, "the configuration says that there are no tests".to_owned())
        }
        (TestVerdict::None, false) => (
            CheckState::Error,
            "no tests were detected; configure tests, or `tests: []`".to_owned(),
        ),
    };
    (status::TESTS, state, summary)
}

fn lint_status(checks: &Results, lint: &[Finding]) -> (&'static str, CheckState, String) {
    let linters: Vec<&Report> =
        checks.reports.iter().filter(|report| report.kind == Kind::Lint).collect();
    let ran = linters
        .iter()
        .filter(|report| matches!(report.outcome, Outcome::Passed | Outcome::Failed))
        .count();
    let (state, summary) = if !lint.is_empty() {
        (CheckState::Failure, format!("{} findings on changed lines", lint.len()))
    } else if ran > 0 {
        (CheckState::Success, format!("{ran} linters, nothing on changed lines"))
    } else {
        (CheckState::Skipped, "no linter was run".to_owned())
    };
    (status::LINT, state, summary)
}

fn review_status(opinion: &Opinion, blocks: bool) -> (&'static str, CheckState, String) {
    let (state, summary) = match (opinion.is_given, blocks) {
        (false, _) => (CheckState::Neutral, "no model has looked at it".to_owned()),
        (true, true) => (CheckState::Failure, "a finding blocks".to_owned()),
        (true, false) => {
            let count = opinion.findings.len();
            let remarks = if count == 1 { "remark" } else { "remarks" };
            (CheckState::Success, format!("{count} {remarks}"))
        }
    };
    (status::REVIEW, state, summary)
}

/// Findings on changed lines become remarks there; the others are told in the body.
fn placed<'f>(
    findings: &'f [Finding],
    lines: &BTreeMap<&str, BTreeSet<u32>>,
) -> (Vec<LineComment>, Vec<&'f Finding>) {
    let (mut comments, mut rest) = (Vec::new(), Vec::new());
    for finding in findings {
        let is_changed =
            lines.get(finding.path.as_str()).is_some_and(|lines| lines.contains(&finding.line));
        if is_changed && comments.len() < COMMENTS_MAX {
            let weight = weight_word(finding.weight);
            comments.push(LineComment {
                path: finding.path.clone(),
                line: finding.line,
                body: format!("**{weight}:** {}", finding.text.trim()),
            });
        } else {
            rest.push(finding);
        }
    }
    (comments, rest)
}

fn body(
    statuses: &[(&'static str, CheckState, String); 3],
    opinion: &Opinion,
    rest: &[&Finding],
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, state, summary) in statuses {
        let mark = match state {
            CheckState::Success | CheckState::Skipped | CheckState::Neutral => "✅",
            CheckState::Failure | CheckState::Error => "❌",
            CheckState::Pending => "⏳",
        };
        let _ = writeln!(text, "- {mark} `{name}`: {summary}");
    }
    if !opinion.summary.trim().is_empty() {
        let _ = write!(text, "\n{}\n", clip(clean(&opinion.summary).trim(), 1000));
    }
    if !rest.is_empty() {
        text.push_str("\nBeside the changed lines:\n\n");
        for finding in rest {
            let place = match (finding.path.as_str(), finding.line) {
                ("", _) => String::new(),
                (path, 0) => format!("`{path}`: "),
                (path, line) => format!("`{path}:{line}`: "),
            };
            let words = clip(finding.text.trim(), 1000);
            let _ = writeln!(text, "- **{}:** {place}{words}", weight_word(finding.weight));
        }
    }
    text.push_str("\nThis review is a program's and no approval.\n");
    text
}

fn weight_word(weight: Weight) -> &'static str {
    match weight {
        Weight::Blocking => "Blocking",
        Weight::Remark => "Remark",
    }
}

#[cfg(test)]
mod tests {
    use swarm_core::diff::{FileChange, FileMode, FileStatus, Hunk, Line, LineKind};

    use super::*;

    /// A change that adds lines 3 and 4 of `src/a.rs`.
    fn diff() -> Diff {
        let lines = [3, 4].map(|line| Line {
            kind: LineKind::Added,
            old_line: None,
            new_line: Some(line),
            text: "x".to_owned(),
        });
        let file = FileChange {
            path: "src/a.rs".to_owned(),
            old_path: None,
            status: FileStatus::Modified,
            old_mode: Some(FileMode::File),
            new_mode: Some(FileMode::File),
            added: 2,
            removed: 0,
            old_bytes: 1,
            new_bytes: 5,
            is_binary: false,
            is_cut: false,
            hunks: vec![Hunk {
                old_start: 3,
                old_lines: 0,
                new_start: 3,
                new_lines: 2,
                lines: lines.to_vec(),
            }],
        };
        Diff { files: vec![file], base_files: 1, patch: String::new(), is_patch_cut: false }
    }

    fn finding(line: u32, weight: Weight) -> Finding {
        Finding { path: "src/a.rs".to_owned(), line, weight, text: "wrong".to_owned() }
    }

    fn opinion(findings: Vec<Finding>) -> Opinion {
        Opinion { is_given: true, summary: "It does.".to_owned(), findings }
    }

    fn passed() -> Results {
        Results { verdict: TestVerdict::Passed, ..Results::default() }
    }

    fn verdict(checks: &Results, opinion: &Opinion) -> ReviewVerdict {
        assess(&diff(), checks, opinion).verdict
    }

    #[test]
    fn tests_and_blocking_findings_decide_and_praise_does_not() {
        let failed = Results { verdict: TestVerdict::Failed, ..Results::default() };
        let praise = opinion(Vec::new());
        assert_eq!(verdict(&failed, &praise), ReviewVerdict::ChangesRequested);
        assert_eq!(verdict(&passed(), &praise), ReviewVerdict::Clean);
        let remark = opinion(vec![finding(3, Weight::Remark)]);
        assert_eq!(verdict(&passed(), &remark), ReviewVerdict::Clean);
        let blocking = opinion(vec![finding(3, Weight::Blocking)]);
        assert_eq!(verdict(&passed(), &blocking), ReviewVerdict::ChangesRequested);
    }

    #[test]
    fn a_finding_beside_the_changed_lines_goes_into_the_body() {
        let found = vec![finding(3, Weight::Remark), finding(90, Weight::Remark)];
        let report = assess(&diff(), &passed(), &opinion(found));
        assert_eq!(report.comments.len(), 1);
        insta::assert_snapshot!(report.body, @r#"
        - ✅ `swarm/tests`: passed
        - ✅ `swarm/lint`: no linter was run
        - ✅ `swarm/review`: 2 remarks

        It does.

        Beside the changed lines:

        - **Remark:** `src/a.rs:90`: wrong

        This review is a program's and no approval.
        "#);
    }

    #[test]
    fn linters_count_on_changed_lines_only() {
        let lint = |line| {
            let finding = swarm_tools::checks::Finding {
                path: "src/a.rs".to_owned(),
                line,
                rule: "unused".to_owned(),
                message: "unused".to_owned(),
            };
            let report = Report {
                name: "clippy".to_owned(),
                kind: Kind::Lint,
                command: "cargo clippy".to_owned(),
                exit: None,
                outcome: Outcome::Failed,
                counts: None,
                failures: Vec::new(),
                findings: vec![finding],
                tail: String::new(),
                is_cut: false,
                wall_ms: 1,
            };
            let checks = Results { reports: vec![report], ..passed() };
            assess(&diff(), &checks, &opinion(Vec::new()))
        };
        assert_eq!(lint(4).verdict, ReviewVerdict::ChangesRequested);
        assert_eq!(lint(90).verdict, ReviewVerdict::Clean);
        assert_eq!(lint(90).statuses[1].1, CheckState::Success);
    }

    #[test]
    fn no_tests_are_an_error_unless_the_configuration_says_that_there_are_none() {
        assert_eq!(tests_status(&Results::default()).1, CheckState::Error);
        let none = Results { is_none_allowed: true, ..Results::default() };
        assert_eq!(tests_status(&none).1, CheckState::Skipped);
    }
}

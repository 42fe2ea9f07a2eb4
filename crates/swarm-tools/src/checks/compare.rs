//! Two runs of the same checks, before and after a change.
//!
//! A test is not fixed because its name no longer appears: it counts only when its check ran to
//! its end afterwards. What ran before and does not any more is told as lost.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Finding, Kind, Outcome, Report};

/// A test, or a check as a whole.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub struct TestRef {
    /// The check.
    pub check: String,
    /// The test in it; `None` means the check as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}

/// A check that ran fewer tests than before.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Fewer {
    /// The check.
    pub check: String,
    /// Tests run before, passed or failed.
    pub before: u64,
    /// Tests run after.
    pub after: u64,
}

/// What a change did to the checks.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Comparison {
    /// Failed before, passed after.
    pub fixed: Vec<TestRef>,
    /// Passed or absent before, failed after.
    pub broken: Vec<TestRef>,
    /// Failed before and after.
    pub still_failing: Vec<TestRef>,
    /// Passed or failed before, and afterwards did not run to its end, ran no test, or says nothing
    /// of any though it counted some before.
    pub lost: Vec<TestRef>,
    /// Ran fewer tests than before.
    pub fewer: Vec<Fewer>,
    /// Linters' remarks that were not there before; a remark that only moved is not new.
    pub new_findings: Vec<Finding>,
    /// How many linters' remarks are gone.
    pub findings_gone: usize,
}

impl Comparison {
    /// Whether anything that was good is so no longer. Fewer tests and new remarks are for a
    /// reader to judge and do not count.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        !self.broken.is_empty() || !self.lost.is_empty()
    }
}

/// Compares reports of the same checks by name; set-up is left out.
#[must_use]
pub fn compare(before: &[Report], after: &[Report]) -> Comparison {
    let mut comparison = Comparison::default();
    let named = |reports: &[Report], name: &str| reports.iter().position(|r| r.name == name);
    for old in before.iter().filter(|report| report.kind == Kind::Test) {
        let new = named(after, &old.name).map(|at| &after[at]);
        compare_tests(Some(old), new, &mut comparison);
    }
    for new in after.iter().filter(|report| report.kind == Kind::Test) {
        if named(before, &new.name).is_none() {
            compare_tests(None, Some(new), &mut comparison);
        }
    }
    compare_findings(before, after, &mut comparison);
    comparison
}

fn ran(report: &Report) -> bool {
    matches!(report.outcome, Outcome::Passed | Outcome::Failed)
}

/// How many tests it says that it ran.
fn total(report: &Report) -> Option<u64> {
    report.counts.map(|counts| counts.passed + counts.failed)
}

/// Whether a good exit code is all that is left of tests that were counted before: so ends a
/// program that was left before any test began.
fn fell_silent(old: Option<&Report>, new: &Report) -> bool {
    let counted = old.and_then(total).is_some_and(|before| before > 0);
    counted && new.outcome.passed() && new.counts.is_none() && !new.is_cut
}

fn compare_tests(old: Option<&Report>, new: Option<&Report>, comparison: &mut Comparison) {
    let old = old.filter(|report| ran(report));
    let Some(check) = new.or(old).map(|report| report.name.clone()) else { return };
    let whole = TestRef { check: check.clone(), test: None };
    let Some(new) = new.filter(|report| ran(report) && !fell_silent(old, report)) else {
        comparison.lost.extend(old.map(|_| whole));
        return;
    };
    let failed = |report: Option<&Report>| -> BTreeSet<String> {
        report.iter().flat_map(|r| &r.failures).map(|failure| failure.name.clone()).collect()
    };
    let refer = |test: &String| TestRef { check: check.clone(), test: Some(test.clone()) };
    let (red, now_red) = (failed(old), failed(Some(new)));
    // Where output was cut, a name that is not there says nothing.
    if new.outcome.passed() || !new.is_cut {
        comparison.fixed.extend(red.difference(&now_red).map(refer));
    }
    comparison.still_failing.extend(red.intersection(&now_red).map(refer));
    if old.is_none_or(|old| old.outcome.passed() || !old.is_cut) {
        comparison.broken.extend(now_red.difference(&red).map(refer));
    }
    let was_red = old.is_some_and(|old| old.outcome == Outcome::Failed);
    let is_red = new.outcome == Outcome::Failed;
    match (was_red, is_red) {
        (true, false) if red.is_empty() => comparison.fixed.push(whole),
        (true, true) if red.is_empty() || now_red.is_empty() => {
            comparison.still_failing.push(whole)
        }
        (false, true) if now_red.is_empty() => comparison.broken.push(whole),
        _ => {}
    }
    if let (Some(before), Some(after)) = (old.and_then(total), total(new))
        && after < before
        && !new.is_cut
    {
        comparison.fewer.push(Fewer { check, before, after });
    }
}

fn compare_findings(before: &[Report], after: &[Report], comparison: &mut Comparison) {
    let key =
        |finding: &Finding| (finding.path.clone(), finding.rule.clone(), finding.message.clone());
    let mut known: Vec<_> = before.iter().flat_map(|report| &report.findings).map(key).collect();
    for finding in after.iter().flat_map(|report| &report.findings) {
        match known.iter().position(|old| *old == key(finding)) {
            Some(at) => drop(known.swap_remove(at)),
            None => comparison.new_findings.push(finding.clone()),
        }
    }
    comparison.findings_gone = known.len();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Cause, Counts, TestFailure};

    fn report(outcome: Outcome, failed: &[&str], total: u64) -> Report {
        Report {
            name: "t".to_owned(),
            kind: Kind::Test,
            command: "t".to_owned(),
            exit: None,
            outcome,
            counts: Some(Counts {
                passed: total - failed.len() as u64,
                failed: failed.len() as u64,
                skipped: 0,
            }),
            failures: failed
                .iter()
                .map(|name| TestFailure {
                    name: (*name).to_owned(),
                    file: None,
                    line: None,
                    message: String::new(),
                })
                .collect(),
            findings: Vec::new(),
            tail: String::new(),
            is_cut: false,
            wall_ms: 0,
        }
    }

    fn tests(refs: &[TestRef]) -> Vec<&str> {
        refs.iter().map(|r| r.test.as_deref().unwrap_or("*")).collect()
    }

    #[test]
    fn each_test_is_fixed_broken_or_still_failing() {
        let before = report(Outcome::Failed, &["a", "b"], 3);
        let after = report(Outcome::Failed, &["b", "c"], 4);
        let found = compare(&[before], &[after]);
        assert_eq!(tests(&found.fixed), ["a"]);
        assert_eq!(tests(&found.still_failing), ["b"]);
        assert_eq!(tests(&found.broken), ["c"]);
        assert!(found.is_worse() && found.lost.is_empty() && found.fewer.is_empty());
    }

    #[test]
    fn a_check_that_breaks_fixes_nothing() {
        let before = report(Outcome::Failed, &["a"], 1);
        let why = Outcome::Broken { cause: Cause::TimedOut, why: "slow".to_owned() };
        for outcome in [why, Outcome::NoTests] {
            let found = compare(std::slice::from_ref(&before), &[report(outcome, &[], 0)]);
            assert!(found.fixed.is_empty() && found.is_worse());
            assert_eq!(tests(&found.lost), ["*"]);
        }
        assert_eq!(tests(&compare(&[before], &[]).lost), ["*"]);
    }

    #[test]
    fn a_failure_without_names_is_one_of_the_whole_check() {
        let (red, green) = (report(Outcome::Failed, &[], 0), report(Outcome::Passed, &[], 0));
        let pair =
            |a: &Report, b: &Report| compare(std::slice::from_ref(a), std::slice::from_ref(b));
        assert_eq!(tests(&pair(&red, &green).fixed), ["*"]);
        assert_eq!(tests(&pair(&green, &red).broken), ["*"]);
        assert_eq!(tests(&pair(&red, &red).still_failing), ["*"]);
        assert_eq!(pair(&green, &green), Comparison::default());
    }

    #[test]
    fn a_good_exit_code_without_the_counts_of_before_is_a_loss() {
        let silent = Report { counts: None, ..report(Outcome::Passed, &[], 0) };
        let found = compare(&[report(Outcome::Failed, &["a"], 1)], std::slice::from_ref(&silent));
        assert_eq!((tests(&found.lost), found.fixed.len()), (vec!["*"], 0));
        // Some runners never count, and of a long output the count may be missing.
        let cut = Report { is_cut: true, ..silent.clone() };
        let pairs = [(silent.clone(), silent), (report(Outcome::Passed, &[], 3), cut)];
        for (before, after) in pairs {
            assert!(compare(&[before], &[after]).lost.is_empty());
        }
    }

    #[test]
    fn deleted_tests_are_told() {
        let before = report(Outcome::Passed, &[], 5);
        let after = report(Outcome::Passed, &[], 3);
        let found = compare(&[before], &[after]);
        assert_eq!(found.fewer, [Fewer { check: "t".to_owned(), before: 5, after: 3 }]);
        assert!(!found.is_worse());
    }

    #[test]
    fn a_remark_that_only_moved_is_not_new() {
        let finding = |line, message: &str| Finding {
            path: "a.py".to_owned(),
            line,
            rule: "E1".to_owned(),
            message: message.to_owned(),
        };
        let lint =
            |findings| Report { kind: Kind::Lint, findings, ..report(Outcome::Failed, &[], 0) };
        let before = lint(vec![finding(1, "x"), finding(9, "gone")]);
        let after = lint(vec![finding(4, "x"), finding(5, "x")]);
        let found = compare(&[before], &[after]);
        assert_eq!(found.new_findings, [finding(5, "x")]);
        assert_eq!(found.findings_gone, 1);
    }
}

//! The merge gate: a pure decision over what the forge says now.
//!
//! [`decide`] gives either the one commit that may be merged or every reason against it. What a
//! newcomer gets wrong: a missing rule blocks. No required checks means *blocked*, not green, and
//! an approval counts for the one commit it was given for and for no other. The snapshot holds
//! all that was considered, so that a stored decision can be replayed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::paths::{InvalidGlob, PathSet};
use crate::port::forge::{
    BranchRules, Check, CheckKind, CheckState, Committer, Permission, PullRequest, PullState,
    RequiredCheck, Review, Sha, Verdict,
};
use crate::time::Timestamp;

mod course;
mod reason;
#[cfg(test)]
mod tests;

pub use course::{Course, course};
pub use reason::{BlockedReason, Void, VoidApproval};

/// Whether the base may have moved since the checks ran.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRule {
    /// What is merged must have been tested: the head contains the base, or the checks ran on the
    /// merge with the base as it is now.
    #[default]
    Strict,
    /// The base may have moved; a merge without conflict is enough.
    MayMove,
}

/// Files that need the approval of someone in particular.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    /// Globs from the root of the repository: `**/` for any depth, a trailing `/` for all below.
    pub paths: Vec<String>,
    /// The logins of whom one must have approved. None listed means that nobody can.
    pub approvers: Vec<String>,
}

/// What we demand of a merge, beside what the forge demands.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Checks that must pass at the head. None here and none by the forge's rules: blocked.
    pub required_checks: Vec<RequiredCheck>,
    /// How many people with write permission must have approved the head.
    pub approvals_min: NonZeroU32,
    /// Whether the base may have moved since the checks ran.
    pub base: BaseRule,
    /// Files that need the approval of someone in particular.
    pub path_rules: Vec<PathRule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            required_checks: Vec::new(),
            approvals_min: NonZeroU32::MIN,
            base: BaseRule::default(),
            path_rules: Vec::new(),
        }
    }
}

/// All that a decision stands on, read from the forge in one go.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// When it was read.
    pub taken_at: Timestamp,
    /// The pull request.
    pub pull: PullRequest,
    /// Its reviews, with the authors' permissions read now.
    pub reviews: Vec<Review>,
    /// The checks of its head.
    pub checks: Vec<Check>,
    /// The files it changes, old names of renamed ones included; `None` if not all are known.
    pub changed_paths: Option<Vec<String>>,
    /// The head that the run pushed and reviewed, if the merge is a run's.
    pub reviewed_head: Option<Sha>,
    /// The base whose merge with the head the checks ran on, if they ran on a merge.
    pub tested_base: Option<Sha>,
    /// What the forge demands.
    pub rules: BranchRules,
    /// What we demand.
    pub policy: Policy,
}

/// What the gate says.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Decision {
    /// This commit may be merged, and no other.
    Merge {
        /// The approved head.
        sha: Sha,
        /// The base that the decision stands on; absent if the base may move.
        base: Option<Sha>,
    },
    /// Nothing may be merged.
    Blocked {
        /// Every reason, never empty.
        reasons: Vec<BlockedReason>,
    },
}

/// Decides whether the pull request may be merged as it stands.
#[must_use]
pub fn decide(snapshot: &Snapshot) -> Decision {
    let approvals = Approvals::of(snapshot);
    let mut reasons = Vec::new();
    reasons.extend(pull_reasons(snapshot));
    reasons.extend(base_reason(snapshot));
    reasons.extend(check_reasons(snapshot));
    reasons.extend(approvals.missing(snapshot));
    reasons.extend(changes_requested(snapshot));
    reasons.extend(path_reasons(snapshot, &approvals));
    if reasons.is_empty() {
        let base = is_strict(snapshot).then(|| snapshot.pull.base_sha.clone());
        Decision::Merge { sha: snapshot.pull.head_sha.clone(), base }
    } else {
        Decision::Blocked { reasons }
    }
}

fn pull_reasons(snapshot: &Snapshot) -> Vec<BlockedReason> {
    let pull = &snapshot.pull;
    let mut reasons = Vec::new();
    match pull.state {
        PullState::Open => {}
        PullState::Closed | PullState::Merged => {
            reasons.push(BlockedReason::NotOpen { state: pull.state });
        }
    }
    if pull.is_draft {
        reasons.push(BlockedReason::Draft);
    }
    match pull.mergeable {
        Some(true) => {}
        Some(false) => reasons.push(BlockedReason::Conflict { base: pull.base.clone() }),
        None => reasons.push(BlockedReason::MergeabilityUnknown),
    }
    if let Some(reviewed) = &snapshot.reviewed_head
        && *reviewed != pull.head_sha
    {
        reasons.push(BlockedReason::HeadMoved {
            reviewed: reviewed.clone(),
            found: pull.head_sha.clone(),
        });
    }
    reasons
}

fn is_strict(snapshot: &Snapshot) -> bool {
    match snapshot.policy.base {
        BaseRule::Strict => true,
        BaseRule::MayMove => snapshot.rules.is_strict,
    }
}

fn base_reason(snapshot: &Snapshot) -> Option<BlockedReason> {
    let pull = &snapshot.pull;
    let is_tested =
        pull.behind_by == Some(0) || snapshot.tested_base.as_ref() == Some(&pull.base_sha);
    (is_strict(snapshot) && !is_tested).then(|| BlockedReason::BaseMoved {
        base: pull.base.clone(),
        tested: snapshot.tested_base.clone(),
        found: pull.base_sha.clone(),
        behind_by: pull.behind_by,
    })
}

/// Every required check, asked of each source that it is demanded from.
fn check_reasons(snapshot: &Snapshot) -> Vec<BlockedReason> {
    let mut required: Vec<&RequiredCheck> =
        snapshot.policy.required_checks.iter().chain(&snapshot.rules.required_checks).collect();
    required.sort();
    required.dedup();
    if required.is_empty() {
        return vec![BlockedReason::NoRequiredChecks];
    }
    required.into_iter().flat_map(|check| check_reason(snapshot, check)).collect()
}

fn check_reason(snapshot: &Snapshot, required: &RequiredCheck) -> Vec<BlockedReason> {
    let name = &required.name;
    let at_head: Vec<&Check> = snapshot
        .checks
        .iter()
        .filter(|check| check.name == *name && check.commit == snapshot.pull.head_sha)
        .collect();
    let believed = at_head.iter().copied().filter(|check| {
        required.source.as_ref().is_none_or(|source| same_login(source, &check.source))
    });
    let mut reasons = Vec::new();
    let latest = latest_of_each_kind(believed);
    if latest.is_empty() {
        reasons.push(match (&required.source, at_head.first()) {
            (Some(expected), Some(other)) => BlockedReason::CheckFromUnexpectedSource {
                name: name.clone(),
                expected: expected.clone(),
                found: other.source.clone(),
            },
            (None, _) | (Some(_), None) => BlockedReason::CheckMissing { name: name.clone() },
        });
    }
    for check in latest.into_values().filter(|check| !check.state.passes()) {
        reasons.push(match check.state {
            CheckState::Pending => BlockedReason::CheckPending { name: name.clone() },
            CheckState::Success
            | CheckState::Skipped
            | CheckState::Neutral
            | CheckState::Failure
            | CheckState::Error => BlockedReason::CheckFailed {
                name: name.clone(),
                state: check.state,
                summary: check.summary.clone(),
            },
        });
    }
    reasons
}

/// A name that is both a status and a check run must pass as both; of each only the latest counts.
fn latest_of_each_kind<'a>(
    checks: impl Iterator<Item = &'a Check>,
) -> BTreeMap<CheckKind, &'a Check> {
    let mut latest: BTreeMap<CheckKind, &Check> = BTreeMap::new();
    for check in checks {
        let newest = latest.entry(check.kind).or_insert(check);
        // Of two at the same moment the worse one counts.
        if (check.at, !check.state.passes()) >= (newest.at, !newest.state.passes()) {
            *newest = check;
        }
    }
    latest
}

/// The latest approval of each login, sorted into those that count and those that do not.
struct Approvals<'a> {
    counted: Vec<&'a str>,
    void: Vec<VoidApproval>,
}

impl<'a> Approvals<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut approvals = Self { counted: Vec::new(), void: Vec::new() };
        for review in latest_by_login(snapshot.reviews.iter().filter(|review| says(review))) {
            if review.verdict != Verdict::Approve || review.is_dismissed {
                continue;
            }
            let why = why_void(review, &snapshot.pull);
            if why.is_empty() {
                approvals.counted.push(&review.author.login);
            } else {
                approvals.void.push(VoidApproval { login: review.author.login.clone(), why });
            }
        }
        approvals
    }

    fn missing(&self, snapshot: &Snapshot) -> Option<BlockedReason> {
        let needed = snapshot.policy.approvals_min.get().max(snapshot.rules.approvals_min);
        let counted = u32::try_from(self.counted.len()).unwrap_or(u32::MAX);
        (counted < needed).then(|| BlockedReason::NotApproved {
            head: snapshot.pull.head_sha.clone(),
            needed,
            counted,
            void: self.void.clone(),
        })
    }
}

/// Everything that keeps an approval from counting.
fn why_void(review: &Review, pull: &PullRequest) -> Vec<Void> {
    let mut why = Vec::new();
    if review.commit != pull.head_sha {
        why.push(Void::Stale { commit: review.commit.clone() });
    }
    if same_login(&review.author.login, &pull.author.login) {
        why.push(Void::Author);
    }
    if pull.committers.iter().any(|committer| is_committer(&review.author.login, committer)) {
        why.push(Void::Committer);
    }
    if is_bot(review) {
        why.push(Void::Bot);
    }
    if review.permission < Permission::Write {
        why.push(Void::Permission { found: review.permission });
    }
    why
}

/// Logins whose last word is a request for changes.
fn changes_requested(snapshot: &Snapshot) -> Vec<BlockedReason> {
    let head = &snapshot.pull.head_sha;
    let standing = snapshot.reviews.iter().filter(|review| says(review) && !review.is_dismissed);
    let people = latest_by_login(standing).into_iter().filter(|review| !is_bot(review));
    // A bot cannot approve, so a newer remark or a newer commit takes its request back; its
    // verdict on each commit is a required check anyway.
    let about_head =
        snapshot.reviews.iter().filter(|review| review.commit == *head && !review.is_dismissed);
    let bots = latest_by_login(about_head).into_iter().filter(|review| is_bot(review));
    people
        .chain(bots)
        .filter(|review| {
            review.verdict == Verdict::RequestChanges && review.permission >= Permission::Write
        })
        .map(|review| BlockedReason::ChangesRequested {
            login: review.author.login.clone(),
            commit: review.commit.clone(),
        })
        .collect()
}

fn path_reasons(snapshot: &Snapshot, approvals: &Approvals<'_>) -> Vec<BlockedReason> {
    let rules = &snapshot.policy.path_rules;
    let mut reasons = Vec::new();
    let Some(changed) = &snapshot.changed_paths else {
        if !rules.is_empty() {
            reasons.push(BlockedReason::PathsUnknown);
        }
        return reasons;
    };
    for rule in rules {
        let set = match PathSet::new(&rule.paths) {
            Ok(set) => set,
            Err(InvalidGlob { glob, why }) => {
                reasons.push(BlockedReason::InvalidPathRule { glob, why });
                continue;
            }
        };
        let touched: Vec<String> =
            changed.iter().filter(|path| set.matching(path).is_some()).cloned().collect();
        let is_approved = approvals
            .counted
            .iter()
            .any(|login| rule.approvers.iter().any(|approver| same_login(approver, login)));
        if !touched.is_empty() && !is_approved {
            reasons.push(BlockedReason::PathNeedsApproval {
                paths: touched,
                approvers: rule.approvers.clone(),
            });
        }
    }
    reasons
}

/// Whether a review says yes or no; a comment says neither.
fn says(review: &Review) -> bool {
    match review.verdict {
        Verdict::Approve | Verdict::RequestChanges => true,
        Verdict::Comment => false,
    }
}

/// The last review of each login, by time and then by id.
fn latest_by_login<'a>(reviews: impl Iterator<Item = &'a Review>) -> Vec<&'a Review> {
    let mut latest: BTreeMap<String, &Review> = BTreeMap::new();
    for review in reviews {
        let newest = latest.entry(review.author.login.to_lowercase()).or_insert(review);
        if (review.submitted_at, review.id) > (newest.submitted_at, newest.id) {
            *newest = review;
        }
    }
    latest.into_values().collect()
}

fn same_login(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

fn is_bot(review: &Review) -> bool {
    review.author.is_bot || review.author.login.to_lowercase().ends_with("[bot]")
}

/// Whether a login may be the committer's. A commit that the forge matched to nobody is taken as
/// that of anyone whose login is its name or stands in its address: rather one approval too few.
fn is_committer(login: &str, committer: &Committer) -> bool {
    match &committer.login {
        Some(known) => same_login(known, login),
        None => {
            let local = committer.email.split('@').next().unwrap_or_default();
            // GitHub's private addresses are `12345+login@users.noreply.github.com`.
            let private = local.rsplit('+').next().unwrap_or_default();
            [committer.name.trim(), local, private].iter().any(|name| same_login(name, login))
        }
    }
}

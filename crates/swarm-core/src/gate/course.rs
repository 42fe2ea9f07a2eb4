//! What a blocked merge needs next: a person, a worker, time, or a decision that no rule makes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BlockedReason;
use crate::port::forge::Sha;

/// What helps against a set of reasons.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// Only a person's approval is missing.
    Approval,
    /// Something is still being computed: look again later.
    Wait,
    /// A person asked for changes on this very head.
    Changes,
    /// The base has moved or conflicts: the change must take it in.
    Update,
    /// The head is not the one that was reviewed: review it again.
    Review,
    /// Nothing that a worker or a plain approval could mend.
    Stuck,
}

/// What helps against `reasons`, given the head they were found for: the most that any one of
/// them needs. An approval is asked for last, since everything else would void it.
#[must_use]
pub fn course(reasons: &[BlockedReason], head: &Sha) -> Course {
    reasons.iter().map(|reason| course_of(reason, head)).max().unwrap_or(Course::Stuck)
}

fn course_of(reason: &BlockedReason, head: &Sha) -> Course {
    match reason {
        BlockedReason::NotApproved { .. } | BlockedReason::PathNeedsApproval { .. } => {
            Course::Approval
        }
        // A request for an older head was answered with a new one: whoever made it looks again.
        BlockedReason::ChangesRequested { commit, .. } if commit != head => Course::Approval,
        BlockedReason::ChangesRequested { .. } => Course::Changes,
        BlockedReason::MergeabilityUnknown
        | BlockedReason::CheckMissing { .. }
        | BlockedReason::CheckPending { .. } => Course::Wait,
        BlockedReason::Conflict { .. } | BlockedReason::BaseMoved { .. } => Course::Update,
        BlockedReason::HeadMoved { .. } => Course::Review,
        BlockedReason::NotOpen { .. }
        | BlockedReason::Draft
        | BlockedReason::NoRequiredChecks
        | BlockedReason::CheckFailed { .. }
        | BlockedReason::CheckFromUnexpectedSource { .. }
        | BlockedReason::PathsUnknown
        | BlockedReason::InvalidPathRule { .. } => Course::Stuck,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::forge::CheckState;

    fn sha(text: &str) -> Sha {
        Sha(text.to_owned())
    }

    fn not_approved() -> BlockedReason {
        BlockedReason::NotApproved { head: sha("b"), needed: 1, counted: 0, void: Vec::new() }
    }

    fn changes(commit: &str) -> BlockedReason {
        BlockedReason::ChangesRequested { login: "ann".to_owned(), commit: sha(commit) }
    }

    fn pending() -> BlockedReason {
        BlockedReason::CheckPending { name: "ci".to_owned() }
    }

    fn failed() -> BlockedReason {
        let (name, summary) = ("ci".to_owned(), String::new());
        BlockedReason::CheckFailed { name, state: CheckState::Failure, summary }
    }

    #[test]
    fn an_approval_is_asked_for_only_when_nothing_else_is_missing() {
        let head = sha("b");
        let check = |reasons: &[BlockedReason], expected| {
            assert_eq!(course(reasons, &head), expected, "{reasons:?}");
        };
        check(&[not_approved()], Course::Approval);
        check(&[not_approved(), pending()], Course::Wait);
        check(&[pending(), not_approved(), failed()], Course::Stuck);
        check(
            &[not_approved(), BlockedReason::Conflict { base: "main".to_owned() }],
            Course::Update,
        );
    }

    #[test]
    fn a_request_for_changes_counts_as_such_on_its_own_commit_only() {
        assert_eq!(course(&[changes("b"), not_approved()], &sha("b")), Course::Changes);
        assert_eq!(course(&[changes("a"), not_approved()], &sha("b")), Course::Approval);
    }

    #[test]
    fn no_reason_at_all_is_nothing_to_act_on() {
        assert_eq!(course(&[], &sha("b")), Course::Stuck);
    }
}

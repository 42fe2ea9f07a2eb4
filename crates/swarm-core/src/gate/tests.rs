use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::port::forge::Actor;

const HEAD: &str = "1111111111111111111111111111111111111111";
const OLD: &str = "2222222222222222222222222222222222222222";
const BASE: &str = "3333333333333333333333333333333333333333";

fn sha(text: &str) -> Sha {
    Sha(text.to_owned())
}

fn person(login: &str) -> Actor {
    Actor { login: login.to_owned(), is_bot: false }
}

fn review(id: u64, login: &str, verdict: Verdict, commit: &str) -> Review {
    Review {
        id,
        author: person(login),
        permission: Permission::Write,
        verdict,
        commit: sha(commit),
        body: String::new(),
        comments: Vec::new(),
        is_dismissed: false,
        submitted_at: Timestamp(i64::try_from(id).unwrap()),
    }
}

fn check(name: &str, state: CheckState) -> Check {
    Check {
        name: name.to_owned(),
        kind: CheckKind::Status,
        state,
        summary: String::new(),
        commit: sha(HEAD),
        source: "ci[bot]".to_owned(),
        at: Timestamp(0),
    }
}

fn required(name: &str, source: Option<&str>) -> RequiredCheck {
    RequiredCheck { name: name.to_owned(), source: source.map(ToOwned::to_owned) }
}

/// A pull request that may be merged.
fn ready() -> Snapshot {
    Snapshot {
        taken_at: Timestamp(100),
        pull: PullRequest {
            number: 7,
            state: PullState::Open,
            is_draft: false,
            is_from_fork: false,
            title: "Fix it".to_owned(),
            body: String::new(),
            author: Actor { login: "devinswarm[bot]".to_owned(), is_bot: true },
            head: "devinswarm/1-fix".to_owned(),
            head_sha: sha(HEAD),
            base: "main".to_owned(),
            base_sha: sha(BASE),
            mergeable: Some(true),
            behind_by: Some(0),
            committers: vec![Committer {
                name: "devinswarm[bot]".to_owned(),
                email: "bot@devinswarm.invalid".to_owned(),
                login: None,
            }],
            merge_sha: None,
            url: String::new(),
        },
        reviews: vec![review(1, "alice", Verdict::Approve, HEAD)],
        checks: vec![check("tests", CheckState::Success)],
        changed_paths: Some(vec!["src/lib.rs".to_owned()]),
        reviewed_head: Some(sha(HEAD)),
        tested_base: None,
        rules: BranchRules::default(),
        policy: Policy {
            required_checks: vec![required("tests", Some("ci[bot]"))],
            ..Policy::default()
        },
    }
}

/// The reasons in words, of a pull request that was ready before `spoil`.
fn blocked(spoil: impl FnOnce(&mut Snapshot)) -> Vec<String> {
    let mut snapshot = ready();
    spoil(&mut snapshot);
    match decide(&snapshot) {
        Decision::Merge { .. } => Vec::new(),
        Decision::Blocked { reasons } => {
            assert!(!reasons.is_empty());
            reasons.iter().map(ToString::to_string).collect()
        }
    }
}

#[test]
fn a_fresh_approval_and_passing_checks_merge_the_approved_head_onto_the_tested_base() {
    assert_eq!(decide(&ready()), Decision::Merge { sha: sha(HEAD), base: Some(sha(BASE)) });
    let mut snapshot = ready();
    snapshot.policy.base = BaseRule::MayMove;
    assert_eq!(decide(&snapshot), Decision::Merge { sha: sha(HEAD), base: None });
}

#[test]
fn each_rule_alone_blocks_with_its_reason() {
    type Spoil = fn(&mut Snapshot);
    let cases: &[(Spoil, &str)] = &[
        (|s| s.pull.state = PullState::Closed, "the pull request is closed"),
        (|s| s.pull.state = PullState::Merged, "the pull request is merged already"),
        (|s| s.pull.is_draft = true, "the pull request is a draft"),
        (|s| s.pull.mergeable = Some(false), "it conflicts with `main`"),
        (|s| s.pull.mergeable = None, "the forge has not computed yet whether it merges"),
        (|s| s.reviewed_head = Some(sha(OLD)), "the head is 1111111111, reviewed was 2222222222"),
        (
            |s| s.pull.behind_by = Some(2),
            "`main` is at 3333333333, which the checks did not see; the head lacks 2 commits of it",
        ),
        (
            |s| {
                s.pull.behind_by = None;
                s.tested_base = Some(sha(OLD));
            },
            "`main` is at 3333333333, which the checks did not see (they ran on 2222222222)",
        ),
        (
            |s| {
                s.policy.base = BaseRule::MayMove;
                s.rules.is_strict = true;
                s.pull.behind_by = Some(1);
            },
            "`main` is at 3333333333, which the checks did not see; the head lacks 1 commit of it",
        ),
        // Rule 13: no required checks is blocked, not green.
        (
            |s| s.policy.required_checks.clear(),
            "no required checks are configured: name at least one",
        ),
        (|s| s.checks.clear(), "check `tests` has not reported on the head"),
        // Rule 12: only the latest head counts.
        (|s| s.checks[0].commit = sha(OLD), "check `tests` has not reported on the head"),
        (|s| s.checks[0].state = CheckState::Pending, "check `tests` is not finished"),
        (
            |s| {
                s.checks[0].state = CheckState::Failure;
                s.checks[0].summary = "2 of\n9 failed".to_owned();
            },
            "check `tests` failed: 2 of 9 failed",
        ),
        (|s| s.checks[0].state = CheckState::Error, "check `tests` broke"),
        // Rule 12: a name that is both a status and a check run must pass as both.
        (
            |s| {
                let mut run = check("tests", CheckState::Failure);
                run.kind = CheckKind::Run;
                s.checks.push(run);
            },
            "check `tests` failed",
        ),
        // A newer failure replaces an older success.
        (
            |s| {
                let mut newer = check("tests", CheckState::Failure);
                newer.at = Timestamp(1);
                s.checks.insert(0, newer);
            },
            "check `tests` failed",
        ),
        // Of two at the same moment the worse one counts, in either order.
        (|s| s.checks.insert(0, check("tests", CheckState::Failure)), "check `tests` failed"),
        (|s| s.checks.push(check("tests", CheckState::Failure)), "check `tests` failed"),
        // Rule 14: the source is pinned.
        (
            |s| s.checks[0].source = "mallory".to_owned(),
            "check `tests` was reported by `mallory`, only `ci[bot]` is believed",
        ),
        // The forge's own rules come on top of ours.
        (
            |s| s.rules.required_checks.push(required("lint", None)),
            "check `lint` has not reported on the head",
        ),
        (|s| s.rules.approvals_min = 2, "1 of 2 people with write permission approved 1111111111"),
        // Rule 16.
        (|s| s.reviews.clear(), "0 of 1 person with write permission approved 1111111111"),
        (
            |s| s.reviews[0].commit = sha(OLD),
            "0 of 1 person with write permission approved 1111111111; the approval by `alice` does not count: given for 2222222222",
        ),
        (
            |s| s.pull.author = person("Alice"),
            "0 of 1 person with write permission approved 1111111111; the approval by `alice` does not count: author of the pull request",
        ),
        (
            |s| {
                s.pull.committers.push(Committer {
                    name: "A".to_owned(),
                    email: "a@b".to_owned(),
                    login: Some("ALICE".to_owned()),
                });
            },
            "0 of 1 person with write permission approved 1111111111; the approval by `alice` does not count: committed to it",
        ),
        (
            |s| s.reviews[0].author.is_bot = true,
            "0 of 1 person with write permission approved 1111111111; the approval by `alice` does not count: a program",
        ),
        (
            |s| s.reviews[0].author.login = "helper[bot]".to_owned(),
            "0 of 1 person with write permission approved 1111111111; the approval by `helper[bot]` does not count: a program",
        ),
        // Rule 17: permission now, not then.
        (
            |s| s.reviews[0].permission = Permission::Read,
            "0 of 1 person with write permission approved 1111111111; the approval by `alice` does not count: only read permission",
        ),
        (
            |s| {
                s.reviews[0].permission = Permission::None;
                s.reviews[0].commit = sha(OLD);
            },
            "0 of 1 person with write permission approved 1111111111; the approval by `alice` does not count: given for 2222222222, no permission",
        ),
        (
            |s| s.reviews[0].is_dismissed = true,
            "0 of 1 person with write permission approved 1111111111",
        ),
        // An earlier approval does not rise again when the later one is dismissed.
        (
            |s| {
                let mut later = review(2, "alice", Verdict::Approve, HEAD);
                later.is_dismissed = true;
                s.reviews.push(later);
            },
            "0 of 1 person with write permission approved 1111111111",
        ),
        (
            |s| s.reviews.push(review(2, "bob", Verdict::RequestChanges, OLD)),
            "`bob` requested changes on 2222222222",
        ),
        // A comment does not take a request for changes back.
        (
            |s| {
                s.reviews.push(review(2, "bob", Verdict::RequestChanges, HEAD));
                s.reviews.push(review(3, "bob", Verdict::Comment, HEAD));
            },
            "`bob` requested changes on 1111111111",
        ),
        (
            |s| {
                let mut bot = review(2, "devinswarm[bot]", Verdict::RequestChanges, HEAD);
                bot.author.is_bot = true;
                s.reviews.push(bot);
            },
            "`devinswarm[bot]` requested changes on 1111111111",
        ),
        (
            |s| {
                s.policy.path_rules.push(PathRule {
                    paths: vec!["src/".to_owned()],
                    approvers: vec!["carol".to_owned()],
                });
            },
            "`src/lib.rs` needs the approval of one of: carol",
        ),
        (
            |s| {
                s.policy
                    .path_rules
                    .push(PathRule { paths: vec!["**/*.rs".to_owned()], approvers: Vec::new() });
            },
            "`src/lib.rs` needs an approval, and the rule names nobody who may give it",
        ),
        (
            |s| {
                s.changed_paths = None;
                s.policy.path_rules.push(PathRule {
                    paths: vec!["docs/".to_owned()],
                    approvers: vec!["alice".to_owned()],
                });
            },
            "there are rules on files, and not all changed files are known",
        ),
        (
            |s| {
                s.policy.path_rules.push(PathRule {
                    paths: vec!["a[".to_owned()],
                    approvers: vec!["alice".to_owned()],
                });
            },
            "the rule on `a[` cannot be judged: unclosed character class; missing ']'",
        ),
    ];
    for (number, (spoil, expected)) in cases.iter().enumerate() {
        assert_eq!(blocked(spoil), [*expected], "case {number}");
    }
}

#[test]
fn what_looks_bad_but_is_fine_does_not_block() {
    type Change = fn(&mut Snapshot);
    let cases: &[Change] = &[
        // Rule 12: skipped and neutral pass.
        |s| s.checks[0].state = CheckState::Skipped,
        |s| s.checks[0].state = CheckState::Neutral,
        // A newer success replaces an older failure, whatever their order in the list.
        |s| {
            s.checks[0].at = Timestamp(1);
            s.checks.push(check("tests", CheckState::Failure));
        },
        // A failure of nobody's concern, and one by someone who is not believed.
        |s| s.checks.push(check("optional", CheckState::Failure)),
        |s| {
            let mut other = check("tests", CheckState::Failure);
            other.source = "mallory".to_owned();
            other.at = Timestamp(9);
            s.checks.push(other);
        },
        // The head is behind, but the checks ran on the merge with this base.
        |s| {
            s.pull.behind_by = Some(3);
            s.tested_base = Some(sha(BASE));
        },
        |s| {
            s.pull.behind_by = None;
            s.policy.base = BaseRule::MayMove;
        },
        |s| s.reviewed_head = None,
        // Taken back, dismissed, or by someone who may not write.
        |s| {
            s.reviews.push(review(2, "bob", Verdict::RequestChanges, OLD));
            s.reviews.push(review(3, "bob", Verdict::Approve, HEAD));
        },
        |s| {
            let mut dismissed = review(2, "bob", Verdict::RequestChanges, HEAD);
            dismissed.is_dismissed = true;
            s.reviews.push(dismissed);
        },
        |s| {
            let mut reader = review(2, "bob", Verdict::RequestChanges, HEAD);
            reader.permission = Permission::Read;
            s.reviews.push(reader);
        },
        // A comment after an approval leaves it standing.
        |s| s.reviews.push(review(2, "alice", Verdict::Comment, HEAD)),
        // A bot's request is taken back by its next word on the head, or by a new head.
        |s| {
            s.reviews.push(review(2, "devinswarm[bot]", Verdict::RequestChanges, HEAD));
            s.reviews.push(review(3, "devinswarm[bot]", Verdict::Comment, HEAD));
        },
        |s| s.reviews.push(review(2, "devinswarm[bot]", Verdict::RequestChanges, OLD)),
        |s| {
            s.policy.path_rules.push(PathRule {
                paths: vec!["src/".to_owned()],
                approvers: vec!["bob".to_owned(), "Alice".to_owned()],
            });
        },
        |s| s.changed_paths = None,
    ];
    for (number, change) in cases.iter().enumerate() {
        assert_eq!(blocked(change), [""; 0], "case {number}");
    }
}

#[test]
fn all_reasons_come_at_once() {
    let reasons = blocked(|s| {
        s.pull.is_draft = true;
        s.pull.mergeable = Some(false);
        s.pull.behind_by = Some(1);
        s.policy.required_checks = vec![required("lint", None), required("tests", None)];
        s.checks[0].state = CheckState::Failure;
        s.reviews = vec![review(1, "alice", Verdict::RequestChanges, OLD)];
    });
    insta::assert_snapshot!(reasons.join("\n"), @r"
    the pull request is a draft
    it conflicts with `main`
    `main` is at 3333333333, which the checks did not see; the head lacks 1 commit of it
    check `lint` has not reported on the head
    check `tests` failed
    0 of 1 person with write permission approved 1111111111
    `alice` requested changes on 2222222222
    ");
}

#[test]
fn a_commit_that_no_login_was_found_for_is_held_against_everyone_it_may_be_of() {
    let unmatched = |name: &str, email: &str| Committer {
        name: name.to_owned(),
        email: email.to_owned(),
        login: None,
    };
    for committer in [
        unmatched("Alice", "x@example.org"),
        unmatched("A. L.", "alice@example.org"),
        unmatched("A. L.", "12345+alice@users.noreply.github.com"),
    ] {
        assert!(is_committer("alice", &committer), "{committer:?}");
    }
    assert!(!is_committer("alice", &unmatched("Bob", "bob@example.org")));
}

#[test]
fn a_stored_decision_can_be_replayed() {
    let mut snapshot = ready();
    snapshot.reviews[0].commit = sha(OLD);
    let decision = decide(&snapshot);
    let stored = serde_json::to_string(&(&snapshot, &decision)).unwrap();
    let (snapshot, decided): (Snapshot, Decision) = serde_json::from_str(&stored).unwrap();
    assert_eq!(decided, decision);
    assert_eq!(decide(&snapshot), decided);
}

fn any_sha() -> impl Strategy<Value = Sha> {
    prop_oneof![3 => Just(sha(HEAD)), 1 => Just(sha(OLD))]
}

fn any_review() -> impl Strategy<Value = Review> {
    (
        0..6_u64,
        prop::sample::select(vec!["alice", "bob", "carol", "author", "helper[bot]"]),
        prop::bool::weighted(0.1),
        prop::sample::select(vec![
            Permission::None,
            Permission::Read,
            Permission::Write,
            Permission::Write,
            Permission::Admin,
        ]),
        prop::sample::select(vec![
            Verdict::Approve,
            Verdict::Approve,
            Verdict::RequestChanges,
            Verdict::Comment,
        ]),
        any_sha(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(id, login, is_bot, permission, verdict, commit, is_dismissed)| Review {
            author: Actor { login: login.to_owned(), is_bot },
            permission,
            is_dismissed,
            ..review(id, login, verdict, &commit.0)
        })
}

fn any_check() -> impl Strategy<Value = Check> {
    (
        prop::sample::select(vec!["tests", "lint"]),
        prop::bool::weighted(0.2),
        prop::sample::select(vec![
            CheckState::Success,
            CheckState::Success,
            CheckState::Skipped,
            CheckState::Neutral,
            CheckState::Pending,
            CheckState::Failure,
            CheckState::Error,
        ]),
        any_sha(),
        prop::sample::select(vec!["ci", "ci", "mallory"]),
        0..4_i64,
    )
        .prop_map(|(name, is_run, state, commit, source, at)| Check {
            kind: if is_run { CheckKind::Run } else { CheckKind::Status },
            commit,
            source: source.to_owned(),
            at: Timestamp(at),
            ..check(name, state)
        })
}

prop_compose! {
    fn any_snapshot()(
        reviews in prop::collection::vec(any_review(), 0..5),
        checks in prop::collection::vec(any_check(), 0..5),
        names in prop::sample::subsequence(vec!["tests", "lint"], 0..=2),
        is_pinned in any::<bool>(),
        approvals_min in 0..3_u32,
        author in prop::sample::select(vec!["author", "alice", "devinswarm[bot]"]),
        committer in prop::sample::select(vec!["bob", "nobody"]),
        behind_by in prop::sample::select(vec![Some(0_u64), Some(0), Some(1), None]),
        is_approved in prop::bool::weighted(0.7),
        is_green in prop::bool::weighted(0.7),
        mergeable in prop::sample::select(vec![Some(true), Some(true), Some(true), Some(false), None]),
    ) -> Snapshot {
        let mut snapshot = ready();
        snapshot.pull.author = person(author);
        snapshot.pull.committers[0].name = committer.to_owned();
        snapshot.pull.behind_by = behind_by;
        snapshot.pull.mergeable = mergeable;
        snapshot.reviews.retain(|_| is_approved);
        snapshot.reviews.extend(reviews);
        snapshot.checks.clear();
        for name in names.iter().filter(|_| is_green) {
            let source = "ci".to_owned();
            snapshot.checks.push(Check { source, ..check(name, CheckState::Success) });
        }
        snapshot.checks.extend(checks);
        snapshot.rules.approvals_min = approvals_min;
        snapshot.policy.required_checks =
            names.iter().map(|name| required(name, is_pinned.then_some("ci"))).collect();
        snapshot
    }
}

#[test]
fn the_generator_below_makes_both_kinds_of_snapshots() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let merges = (0..1000)
        .filter(|_| {
            let tree = any_snapshot().new_tree(&mut runner).unwrap();
            matches!(decide(&tree.current()), Decision::Merge { .. })
        })
        .count();
    assert!((20..=900).contains(&merges), "{merges} of 1000 merge");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Said again, the long way: whatever is merged has what a merge needs.
    #[test]
    fn nothing_is_merged_without_a_fresh_human_approval_and_every_required_check(snapshot in any_snapshot()) {
        if let Decision::Merge { sha, base } = decide(&snapshot) {
            let pull = &snapshot.pull;
            prop_assert_eq!(&sha, &pull.head_sha);
            prop_assert_eq!(base.as_ref(), Some(&pull.base_sha));
            prop_assert_eq!(pull.mergeable, Some(true));
            prop_assert_eq!(pull.behind_by, Some(0));
            let is_fresh = |review: &Review| {
                review.verdict == Verdict::Approve
                    && !review.is_dismissed
                    && review.commit == pull.head_sha
                    && review.permission >= Permission::Write
                    && !review.author.is_bot
                    && !review.author.login.ends_with("[bot]")
                    && review.author.login != pull.author.login
                    && review.author.login != pull.committers[0].name
            };
            let approvers: std::collections::BTreeSet<&str> = snapshot
                .reviews
                .iter()
                .filter(|review| is_fresh(review))
                .map(|review| review.author.login.as_str())
                .collect();
            prop_assert!(approvers.len() >= usize::try_from(snapshot.rules.approvals_min.max(1)).unwrap());
            prop_assert!(!snapshot.policy.required_checks.is_empty());
            for required in &snapshot.policy.required_checks {
                let passed = snapshot.checks.iter().any(|check| {
                    check.name == required.name
                        && check.commit == pull.head_sha
                        && check.state.passes()
                        && required.source.as_ref().is_none_or(|source| *source == check.source)
                });
                prop_assert!(passed, "{} did not pass", required.name);
            }
        }
    }
}

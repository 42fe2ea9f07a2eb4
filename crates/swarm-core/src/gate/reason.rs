//! Why a merge is blocked, in facts and in words.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::port::forge::{CheckState, Permission, PullState, Sha};

/// One reason against a merge. Prints as a lowercase fragment.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum BlockedReason {
    /// The pull request is closed or merged.
    NotOpen {
        /// Where it stands.
        state: PullState,
    },
    /// Its author says that it is not ready.
    Draft,
    /// It conflicts with its base.
    Conflict {
        /// The base branch.
        base: String,
    },
    /// The forge has not computed yet whether it merges.
    MergeabilityUnknown,
    /// The head is another than the one that the run reviewed.
    HeadMoved {
        /// What was reviewed.
        reviewed: Sha,
        /// The head now.
        found: Sha,
    },
    /// The base has commits that the checks did not see.
    BaseMoved {
        /// The base branch.
        base: String,
        /// The base that the checks ran on, if they ran on a merge.
        tested: Option<Sha>,
        /// The base now.
        found: Sha,
        /// How many commits of it the head lacks; `None` while unknown.
        behind_by: Option<u64>,
    },
    /// Nothing is required to pass: that is not green.
    NoRequiredChecks,
    /// A required check never reported on the head.
    CheckMissing {
        /// Its name.
        name: String,
    },
    /// A required check has not finished.
    CheckPending {
        /// Its name.
        name: String,
    },
    /// A required check failed.
    CheckFailed {
        /// Its name.
        name: String,
        /// How it stands.
        state: CheckState,
        /// What it says. Untrusted.
        summary: String,
    },
    /// A required check was only reported by someone who is not believed.
    CheckFromUnexpectedSource {
        /// Its name.
        name: String,
        /// Who is believed.
        expected: String,
        /// Who reported it.
        found: String,
    },
    /// Too few people with write permission approved this very head.
    NotApproved {
        /// The head.
        head: Sha,
        /// How many approvals are needed.
        needed: u32,
        /// How many count.
        counted: u32,
        /// The approvals that do not count, and why.
        void: Vec<VoidApproval>,
    },
    /// Someone with write permission wants changes, and has not taken it back.
    ChangesRequested {
        /// Who.
        login: String,
        /// The commit they looked at.
        commit: Sha,
    },
    /// Files need the approval of someone in particular.
    PathNeedsApproval {
        /// The changed files.
        paths: Vec<String>,
        /// Of whom one must approve.
        approvers: Vec<String>,
    },
    /// There are rules on files, and it is not known which files change.
    PathsUnknown,
    /// A rule on files has a pattern that is no glob.
    InvalidPathRule {
        /// The pattern.
        glob: String,
        /// What is wrong with it.
        why: String,
    },
}

/// An approval that does not count.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct VoidApproval {
    /// Who gave it.
    pub login: String,
    /// Every reason why it does not count.
    pub why: Vec<Void>,
}

/// Why an approval does not count.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "void")]
pub enum Void {
    /// It was given for another commit than the head.
    Stale {
        /// That commit.
        commit: Sha,
    },
    /// It is by the author of the pull request.
    Author,
    /// It is by someone who wrote or committed one of its commits.
    Committer,
    /// It is by a program.
    Bot,
    /// It is by someone who may not write now.
    Permission {
        /// What they may do.
        found: Permission,
    },
}

impl fmt::Display for BlockedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen { state: PullState::Merged } => {
                f.write_str("the pull request is merged already")
            }
            Self::NotOpen { state: PullState::Open | PullState::Closed } => {
                f.write_str("the pull request is closed")
            }
            Self::Draft => f.write_str("the pull request is a draft"),
            Self::Conflict { base } => write!(f, "it conflicts with `{base}`"),
            Self::MergeabilityUnknown => {
                f.write_str("the forge has not computed yet whether it merges")
            }
            Self::HeadMoved { reviewed, found } => {
                write!(f, "the head is {}, reviewed was {}", found.short(), reviewed.short())
            }
            Self::BaseMoved { base, tested, found, behind_by } => {
                write!(f, "`{base}` is at {}, which the checks did not see", found.short())?;
                if let Some(tested) = tested {
                    write!(f, " (they ran on {})", tested.short())?;
                }
                match behind_by {
                    Some(1) => f.write_str("; the head lacks 1 commit of it"),
                    Some(count) => write!(f, "; the head lacks {count} commits of it"),
                    None => Ok(()),
                }
            }
            Self::NoRequiredChecks => {
                f.write_str("no required checks are configured: name at least one")
            }
            Self::CheckMissing { name } => write!(f, "check `{name}` has not reported on the head"),
            Self::CheckPending { name } => write!(f, "check `{name}` is not finished"),
            Self::CheckFailed { name, state, summary } => {
                let word = match state {
                    CheckState::Error => "broke",
                    CheckState::Pending
                    | CheckState::Success
                    | CheckState::Skipped
                    | CheckState::Neutral
                    | CheckState::Failure => "failed",
                };
                write!(f, "check `{name}` {word}")?;
                if summary.is_empty() { Ok(()) } else { write!(f, ": {}", one_line(summary)) }
            }
            Self::CheckFromUnexpectedSource { name, expected, found } => {
                write!(f, "check `{name}` was reported by `{found}`, only `{expected}` is believed")
            }
            Self::NotApproved { head, needed, counted, void } => {
                let people = if *needed == 1 { "person" } else { "people" };
                write!(
                    f,
                    "{counted} of {needed} {people} with write permission approved {}",
                    head.short()
                )?;
                for approval in void {
                    write!(f, "; the approval by `{}` does not count: ", approval.login)?;
                    for (index, why) in approval.why.iter().enumerate() {
                        write!(f, "{}{why}", if index == 0 { "" } else { ", " })?;
                    }
                }
                Ok(())
            }
            Self::ChangesRequested { login, commit } => {
                write!(f, "`{login}` requested changes on {}", commit.short())
            }
            Self::PathNeedsApproval { paths, approvers } => {
                let shown = paths.iter().take(3).map(|path| format!("`{}`", one_line(path)));
                write!(f, "{}", shown.collect::<Vec<_>>().join(", "))?;
                if paths.len() > 3 {
                    write!(f, " and {} more", paths.len() - 3)?;
                }
                if approvers.is_empty() {
                    f.write_str(" needs an approval, and the rule names nobody who may give it")
                } else {
                    write!(f, " needs the approval of one of: {}", approvers.join(", "))
                }
            }
            Self::PathsUnknown => {
                f.write_str("there are rules on files, and not all changed files are known")
            }
            Self::InvalidPathRule { glob, why } => {
                write!(f, "the rule on `{glob}` cannot be judged: {why}")
            }
        }
    }
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { commit } => write!(f, "given for {}", commit.short()),
            Self::Author => f.write_str("author of the pull request"),
            Self::Committer => f.write_str("committed to it"),
            Self::Bot => f.write_str("a program"),
            Self::Permission { found } => f.write_str(match found {
                Permission::None => "no permission",
                Permission::Read => "only read permission",
                Permission::Write => "write permission",
                Permission::Admin => "admin permission",
            }),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

//! Policies on a change: what needs a person and what is refused, judged on the diff.
//!
//! [`judge`] looks at what changed, never at how it was said or which command did it. What a
//! newcomer gets wrong: these findings come before a push, while the gate comes before a merge;
//! a finding that needs a person becomes a question of the run that made the change.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diff::{Diff, FileChange, FileMode, FileStatus};
use crate::paths::{InvalidGlob, PathSet};

pub mod secrets;
#[cfg(test)]
mod tests;

/// How much a change may delete before a person is asked.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Destructive {
    /// Files that may be deleted or emptied.
    pub deleted_files_max: u64,
    /// Lines that may be removed, in files that are not `generated_paths`.
    pub deleted_lines_max: u64,
    /// Share of the repository's files that may be deleted, in percent. Looked at from the third
    /// deleted file on.
    pub deleted_share_percent_max: u8,
}

impl Default for Destructive {
    fn default() -> Self {
        Self { deleted_files_max: 10, deleted_lines_max: 500, deleted_share_percent_max: 20 }
    }
}

/// The search for secrets in added lines.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretScan {
    /// Whether to search.
    pub is_on: bool,
    /// Files that may hold things that look like secrets, such as test keys.
    pub allowed_paths: Vec<String>,
}

impl Default for SecretScan {
    fn default() -> Self {
        Self { is_on: true, allowed_paths: Vec::new() }
    }
}

/// What a change may do unseen. Paths are globs from the root of the repository: `**/` for any
/// depth, a trailing `/` for all below, case ignored.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangePolicy {
    /// How much it may delete.
    pub destructive: Destructive,
    /// Files that it may touch at most.
    pub changed_files_max: u64,
    /// Files whose change needs a person: what runs in CI, what steers agents, who must review.
    pub protected_paths: Vec<String>,
    /// Files that it must not touch at all.
    pub forbidden_paths: Vec<String>,
    /// Files that programs write, whose removed lines do not count.
    pub generated_paths: Vec<String>,
    /// The largest binary file that it may add or change, in bytes.
    pub binary_max_bytes: u64,
    /// The search for secrets.
    pub secrets: SecretScan,
}

impl Default for ChangePolicy {
    fn default() -> Self {
        let owned = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect();
        Self {
            destructive: Destructive::default(),
            changed_files_max: 200,
            protected_paths: owned(PROTECTED),
            forbidden_paths: owned(&["**/.git", "**/.git/**"]),
            generated_paths: owned(GENERATED),
            binary_max_bytes: 1024 * 1024,
            secrets: SecretScan::default(),
        }
    }
}

/// Whoever changes these decides what runs elsewhere, who reviews, or what agents are told.
const PROTECTED: &[&str] = &[
    // CI and what it runs first.
    ".github/workflows/",
    ".github/actions/",
    ".github/dependabot.yml",
    ".gitlab-ci.yml",
    ".gitlab/ci/",
    ".circleci/",
    ".buildkite/",
    ".drone.yml",
    ".travis.yml",
    ".woodpecker/",
    ".woodpecker.yml",
    "appveyor.yml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "jenkinsfile",
    ".ci/",
    // Review and git itself.
    "**/codeowners",
    "**/.gitattributes",
    "**/.gitmodules",
    "**/.lfsconfig",
    ".husky/",
    ".githooks/",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    // Instructions and tools of agents.
    "**/agents.md",
    "**/claude.md",
    "**/gemini.md",
    ".claude/",
    ".codex/",
    ".cursor/",
    ".gemini/",
    ".github/copilot-instructions.md",
    "**/.mcp.json",
    // The swarm's own.
    "swarm.yaml",
    ".devinswarm/",
    // What editors and shells run on opening.
    "**/.envrc",
    ".devcontainer/",
    ".vscode/",
    ".idea/",
];

const GENERATED: &[&str] = &[
    "**/cargo.lock",
    "**/package-lock.json",
    "**/npm-shrinkwrap.json",
    "**/pnpm-lock.yaml",
    "**/yarn.lock",
    "**/poetry.lock",
    "**/uv.lock",
    "**/pipfile.lock",
    "**/composer.lock",
    "**/gemfile.lock",
    "**/go.sum",
];

/// Which rule found something.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The policy itself cannot be read.
    BrokenPolicy,
    /// A forbidden path.
    ForbiddenPath,
    /// A protected path.
    ProtectedPath,
    /// Too much is deleted.
    Destructive,
    /// Too many files at once.
    TooManyFiles,
    /// A secret in an added line.
    Secret,
    /// A large binary file.
    LargeBinary,
    /// A text that is too large to be judged.
    Unreadable,
    /// A symbolic link that leads out of the repository.
    OutwardLink,
    /// A submodule: code that is not in the diff.
    Submodule,
    /// Characters that hide what a line or a name says.
    HiddenText,
}

/// What a finding asks for.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A person must say yes.
    NeedsPerson,
    /// Not in any case: the change must be mended.
    Refuse,
}

/// Something that the policy says about a change. Prints with its place.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What it asks for.
    pub severity: Severity,
    /// The file, if it is about one.
    pub path: Option<String>,
    /// The line in the new file, from 1, if it is about one.
    pub line: Option<u32>,
    /// What was found and what would be right, a lowercase fragment. Never the secret itself.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.line) {
            (Some(path), Some(line)) => write!(f, "{}:{line}: ", path.escape_debug())?,
            (Some(path), None) => write!(f, "{}: ", path.escape_debug())?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

impl ChangePolicy {
    /// Every pattern in it that is no glob; empty if it can be judged by.
    #[must_use]
    pub fn defects(&self) -> Vec<InvalidGlob> {
        [
            &self.protected_paths,
            &self.forbidden_paths,
            &self.generated_paths,
            &self.secrets.allowed_paths,
        ]
        .into_iter()
        .flatten()
        .filter_map(|glob| PathSet::new(std::slice::from_ref(glob)).err())
        .collect()
    }
}

/// Everything that the policy says about a change; nothing means that no person is needed.
///
/// A policy that cannot be read refuses every change.
#[must_use]
pub fn judge(diff: &Diff, policy: &ChangePolicy) -> Vec<Finding> {
    let globs = match Globs::of(policy) {
        Ok(globs) => globs,
        Err(invalid) => {
            let message = format!("the policy cannot be judged by: {invalid}");
            return vec![whole(Rule::BrokenPolicy, Severity::Refuse, message)];
        }
    };
    let mut findings = size_findings(diff, policy, &globs);
    for file in &diff.files {
        findings.extend(path_findings(file, &globs));
        findings.extend(entry_findings(file, policy));
        if policy.secrets.is_on && globs.secrets_allowed.matching(&file.path).is_none() {
            findings.extend(secret_findings(file));
        }
        findings.extend(hidden_findings(file));
    }
    findings
}

struct Globs {
    protected: PathSet,
    forbidden: PathSet,
    generated: PathSet,
    secrets_allowed: PathSet,
}

impl Globs {
    fn of(policy: &ChangePolicy) -> Result<Self, InvalidGlob> {
        Ok(Self {
            protected: PathSet::new(&policy.protected_paths)?,
            forbidden: PathSet::new(&policy.forbidden_paths)?,
            generated: PathSet::new(&policy.generated_paths)?,
            secrets_allowed: PathSet::new(&policy.secrets.allowed_paths)?,
        })
    }
}

fn size_findings(diff: &Diff, policy: &ChangePolicy, globs: &Globs) -> Vec<Finding> {
    let limits = &policy.destructive;
    let deleted = diff.files.iter().filter(|file| is_gone(file)).count() as u64;
    let removed: u64 = diff
        .files
        .iter()
        .filter(|file| globs.generated.matching(&file.path).is_none())
        .map(|file| file.removed)
        .sum();
    let share = deleted.saturating_mul(100).checked_div(diff.base_files).unwrap_or(0);
    let mut messages = Vec::new();
    if deleted > limits.deleted_files_max {
        messages.push((
            Rule::Destructive,
            format!(
                "deletes or empties {deleted} files, {} may go unseen",
                limits.deleted_files_max
            ),
        ));
    }
    if removed > limits.deleted_lines_max {
        messages.push((
            Rule::Destructive,
            format!("removes {removed} lines, {} may go unseen", limits.deleted_lines_max),
        ));
    }
    if deleted >= 3 && share > u64::from(limits.deleted_share_percent_max) {
        messages.push((
            Rule::Destructive,
            format!(
                "deletes or empties {share} % of all files, {} % may go unseen",
                limits.deleted_share_percent_max
            ),
        ));
    }
    let changed = diff.files.len() as u64;
    if changed > policy.changed_files_max {
        messages.push((
            Rule::TooManyFiles,
            format!("touches {changed} files, {} may go unseen", policy.changed_files_max),
        ));
    }
    messages
        .into_iter()
        .map(|(rule, message)| whole(rule, Severity::NeedsPerson, message))
        .collect()
}

/// Deleted, or emptied, which is the same to whoever needs what was in it.
fn is_gone(file: &FileChange) -> bool {
    file.status == FileStatus::Deleted || (file.old_bytes > 0 && file.new_bytes == 0)
}

fn path_findings(file: &FileChange, globs: &Globs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in file.paths() {
        if let Some(glob) = globs.forbidden.matching(path) {
            findings.push(at(
                path,
                Rule::ForbiddenPath,
                Severity::Refuse,
                format!("must not be touched (`{glob}`)"),
            ));
        } else if let Some(glob) = globs.protected.matching(path) {
            findings.push(at(
                path,
                Rule::ProtectedPath,
                Severity::NeedsPerson,
                format!("is protected (`{glob}`): a person must agree to this change"),
            ));
        }
    }
    findings
}

fn entry_findings(file: &FileChange, policy: &ChangePolicy) -> Vec<Finding> {
    let mut found = Vec::new();
    match file.new_mode {
        Some(FileMode::Submodule) => found.push((
            Rule::Submodule,
            "is a submodule: it brings in code that this diff does not show".to_owned(),
        )),
        Some(FileMode::Symlink) => {
            if let Some((_, target)) = file.added_lines().next()
                && leads_out(&file.path, target)
            {
                found.push((
                    Rule::OutwardLink,
                    format!("links out of the repository, to `{}`", target.escape_debug()),
                ));
            }
        }
        Some(FileMode::File | FileMode::Executable) | None => {}
    }
    if file.is_binary && file.new_bytes > policy.binary_max_bytes {
        found.push((
            Rule::LargeBinary,
            format!(
                "is a binary file of {} bytes, {} may go unseen",
                file.new_bytes, policy.binary_max_bytes
            ),
        ));
    }
    if file.is_cut && file.new_mode.is_some() {
        found.push((
            Rule::Unreadable,
            format!("is a text of {} bytes, too large to be judged line by line", file.new_bytes),
        ));
    }
    found
        .into_iter()
        .map(|(rule, message)| at(&file.path, rule, Severity::NeedsPerson, message))
        .collect()
}

/// Whether a link at `path` with this target can be followed out of the repository's root.
fn leads_out(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return true;
    }
    let mut depth = path.matches('/').count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

fn secret_findings(file: &FileChange) -> Vec<Finding> {
    file.added_lines()
        .filter_map(|(number, text)| secrets::find(text).map(|secret| (number, secret)))
        .map(|(number, secret)| Finding {
            rule: Rule::Secret,
            severity: match secret.certainty {
                secrets::Certainty::Shape => Severity::Refuse,
                secrets::Certainty::Guess => Severity::NeedsPerson,
            },
            path: Some(file.path.clone()),
            line: Some(number),
            message: format!(
                "holds what looks like {} (`{}`): keep it in the secret store and read it at run time",
                secret.what, secret.redacted
            ),
        })
        .collect()
}

fn hidden_findings(file: &FileChange) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.path.chars().any(|c| c.is_control() || is_hiding(c)) {
        findings.push(at(
            &file.path,
            Rule::HiddenText,
            Severity::NeedsPerson,
            "has control characters in its name".to_owned(),
        ));
    }
    for (number, text) in file.added_lines() {
        if let Some(c) = text.chars().find(|&c| is_hiding(c)) {
            findings.push(Finding {
                rule: Rule::HiddenText,
                severity: Severity::NeedsPerson,
                path: Some(file.path.clone()),
                line: Some(number),
                message: format!("has U+{:04X}, which makes text look other than it is", c as u32),
            });
        }
    }
    findings
}

/// Bidirectional controls and tag characters: what people see is not what programs read.
fn is_hiding(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}

fn at(path: &str, rule: Rule, severity: Severity, message: String) -> Finding {
    Finding { rule, severity, path: Some(path.to_owned()), line: None, message }
}

fn whole(rule: Rule, severity: Severity, message: String) -> Finding {
    Finding { rule, severity, path: None, line: None, message }
}

//! `swarm/inspect`: policies on the change, judged on the diff.
//!
//! What the developer said about the change is not looked at, and neither is how it was made.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::diff::{Diff, FileStatus};
use swarm_core::failure::Failure;
use swarm_core::policy::{self, ChangePolicy, Severity};
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};
use swarm_tools::git::TreeId;

use crate::agent::clip;
use crate::handover::Desk;
use crate::parts::Parts;

/// The longest patch that is kept in the state, in characters.
const PATCH_CHARS_MAX: usize = 20_000;

/// `swarm/inspect`
#[derive(Debug)]
pub struct Inspect {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InspectInput {
    /// The repository.
    pub repo: RepoId,
    /// The workspace.
    pub desk: Desk,
    /// Its files.
    pub tree: TreeId,
}

/// What it gives.
#[derive(Debug, JsonSchema, Serialize)]
pub struct InspectOutput {
    /// What policies say.
    pub inspection: Inspection,
}

/// What policies say of a change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default)]
pub struct Inspection {
    /// All together.
    pub verdict: InspectionVerdict,
    /// Each objection in words.
    pub findings: Vec<String>,
    /// The size of the change in a line, for people.
    pub stat: String,
    /// The beginning of the patch.
    pub patch: String,
}

/// What policies say of a change, all together.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InspectionVerdict {
    /// Not looked at yet.
    #[default]
    Unseen,
    /// It may go on.
    Allowed,
    /// A person must see it first.
    NeedsPerson,
    /// It must not go on as it is.
    Refused,
    /// There is no change.
    Empty,
}

impl Inspect {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[async_trait]
impl Node for Inspect {
    const KIND: &'static str = "swarm/inspect";
    type Config = NoConfig;
    type Input = InspectInput;
    type Output = InspectOutput;

    async fn run(
        &self,
        ctx: &NodeContext,
        input: InspectInput,
    ) -> Result<InspectOutput, NodeError> {
        let InspectInput { repo, desk, tree } = input;
        let mirror = self.parts.mirror_as_is(&repo).await?;
        let diff = mirror.diff(&desk.base, &tree).await.map_err(Failure::from)?;
        let takes_in = desk.takes_in != Sha::default();
        let inspection = judge(&diff, &self.parts.change_policy, takes_in);
        let told = json!({
            "verdict": inspection.verdict, "findings": inspection.findings, "stat": inspection.stat,
        });
        ctx.emit("change.inspected", told).await?;
        Ok(InspectOutput { inspection })
    }
}

fn judge(diff: &Diff, policy: &ChangePolicy, takes_in: bool) -> Inspection {
    let inspection = Inspection {
        verdict: InspectionVerdict::Allowed,
        findings: Vec::new(),
        stat: stat(diff),
        patch: clip(&diff.patch, PATCH_CHARS_MAX),
    };
    if diff.is_empty() {
        let findings = vec!["the change is empty".to_owned()];
        return Inspection { verdict: InspectionVerdict::Empty, findings, ..inspection };
    }
    let found = policy::judge(diff, policy);
    let mut findings: Vec<String> = found.iter().map(ToString::to_string).collect();
    let marks = if takes_in { conflict_marks(diff) } else { Vec::new() };
    let worst = found.iter().map(|finding| finding.severity).max();
    let verdict = match worst {
        _ if !marks.is_empty() => InspectionVerdict::Refused,
        Some(Severity::Refuse) => InspectionVerdict::Refused,
        Some(Severity::NeedsPerson) => InspectionVerdict::NeedsPerson,
        None => InspectionVerdict::Allowed,
    };
    findings.extend(marks);
    Inspection { verdict, findings, ..inspection }
}

/// Conflict marks that were left in files: the change would not even be read by a compiler.
fn conflict_marks(diff: &Diff) -> Vec<String> {
    let marked = diff.files.iter().filter_map(|file| {
        let (line, _) = file
            .added_lines()
            .find(|(_, text)| text.starts_with("<<<<<<< ") || text.starts_with(">>>>>>> "))?;
        Some(format!("{}:{line}: a conflict mark was left in", file.path))
    });
    marked.collect()
}

fn stat(diff: &Diff) -> String {
    let count = diff.files.len();
    let kinds = [
        (FileStatus::Added, "added"),
        (FileStatus::Modified, "changed"),
        (FileStatus::Renamed, "renamed"),
        (FileStatus::Deleted, "deleted"),
    ];
    let kinds = kinds.map(|(status, word)| {
        (diff.files.iter().filter(|file| file.status == status).count(), word)
    });
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    format!(
        "{count} file{}: {}; {} lines added, {} removed",
        if count == 1 { "" } else { "s" },
        kinds.join(", "),
        diff.added(),
        diff.removed()
    )
}

#[cfg(test)]
mod tests {
    use swarm_core::diff::{FileChange, FileMode, Hunk, Line, LineKind};

    use super::*;

    fn file(path: &str, added: &[&str]) -> FileChange {
        let lines = added.iter().zip(1..).map(|(text, number)| Line {
            kind: LineKind::Added,
            old_line: None,
            new_line: Some(number),
            text: (*text).to_owned(),
        });
        FileChange {
            path: path.to_owned(),
            old_path: None,
            status: FileStatus::Added,
            old_mode: None,
            new_mode: Some(FileMode::File),
            added: added.len() as u64,
            removed: 0,
            old_bytes: 0,
            new_bytes: 10,
            is_binary: false,
            is_cut: false,
            hunks: vec![Hunk {
                old_start: 0,
                old_lines: 0,
                new_start: 1,
                new_lines: 1,
                lines: lines.collect(),
            }],
        }
    }

    fn verdict(files: Vec<FileChange>, takes_in: bool) -> InspectionVerdict {
        let diff = Diff { files, base_files: 10, patch: String::new(), is_patch_cut: false };
        judge(&diff, &ChangePolicy::default(), takes_in).verdict
    }

    #[test]
    fn the_worst_finding_decides() {
        assert_eq!(verdict(Vec::new(), false), InspectionVerdict::Empty);
        assert_eq!(verdict(vec![file("src/a.rs", &["x"])], false), InspectionVerdict::Allowed);
        let workflow = file(".github/workflows/ci.yml", &["x"]);
        assert_eq!(verdict(vec![workflow.clone()], false), InspectionVerdict::NeedsPerson);
        let hook = file("sub/.git/hooks/post-checkout", &["x"]);
        assert_eq!(verdict(vec![workflow, hook], false), InspectionVerdict::Refused);
    }

    #[test]
    fn conflict_marks_are_refused_where_a_merge_may_have_left_them() {
        let marked = file("a.md", &["<<<<<<< ours", "x"]);
        assert_eq!(verdict(vec![marked.clone()], true), InspectionVerdict::Refused);
        assert_eq!(verdict(vec![marked], false), InspectionVerdict::Allowed);
    }
}

//! `changelog/entry`: one line about a change under a heading of a file.
//!
//! The repository's files are someone else's data: they are read and written in the host's mirror,
//! by content, and never on a disk where a link could lead elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_core::port::forge::{RepoId, Sha};
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_host::dev::Finished;
use swarm_host::handover::{Change, Desk, Issue, Task, TreeId};
use swarm_host::parts::Parts;

/// What a run of `changelog` is started with.
#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangelogInput {
    repo: RepoId,
    issue: Issue,
    task: Task,
    change: Change,
}

/// Its state: a field for each thing that its nodes hand to each other.
#[derive(Default, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub(crate) struct ChangelogState {
    desk: Desk,
    tree: TreeId,
    change: Change,
    finish: Finished,
    head: Sha,
}

/// The node, built from the host's own parts.
pub(crate) struct Entry {
    pub(crate) parts: Arc<Parts>,
    pub(crate) config: EntryConfig,
}

/// What `config:` holds in the graph.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryConfig {
    file: String,
    heading: String,
}

/// What `with:` gives.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryInput {
    repo: RepoId,
    tree: TreeId,
    change: Change,
}

/// What it returns: `tree` and `finish` are channels of the state, `is_new` is for the routes.
#[derive(JsonSchema, Serialize)]
pub(crate) struct EntryOutput {
    tree: TreeId,
    finish: Finished,
    is_new: bool,
}

#[async_trait]
impl Node for Entry {
    const KIND: &'static str = "changelog/entry";
    type Config = EntryConfig;
    type Input = EntryInput;
    type Output = EntryOutput;

    async fn run(&self, ctx: &NodeContext, input: EntryInput) -> Result<EntryOutput, NodeError> {
        // A title comes from a model: it is one line here, whatever it was.
        let title = input.change.title.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("- {title} (#{})", input.change.pr);
        let written = self.write(&input, &line).await?;
        let is_new = written.is_some();
        ctx.emit("changelog.entry", json!({ "line": line, "new": is_new })).await?;
        let finish = Finished {
            commit_title: format!("Note #{} in {}", input.change.pr, self.config.file),
            ..Finished::default()
        };
        Ok(EntryOutput { tree: written.unwrap_or(input.tree), finish, is_new })
    }
}

impl Entry {
    /// The files with the line among them; `None` when it is there already, as in a later round.
    async fn write(&self, input: &EntryInput, line: &str) -> Result<Option<TreeId>, Failure> {
        let EntryConfig { file, heading } = &self.config;
        let mirror = self.parts.mirror_as_is(&input.repo).await?;
        let bytes = mirror.read_file(&input.tree, file).await?.unwrap_or_default();
        let Some(text) = with_line(&String::from_utf8_lossy(&bytes), heading, line) else {
            return Ok(None);
        };
        Ok(Some(mirror.with_file(&input.tree, file, text).await?))
    }
}

/// The text with a line as the first one under a heading; `None` when the text has it already.
fn with_line(text: &str, heading: &str, line: &str) -> Option<String> {
    if text.lines().any(|one| one == line) {
        return None;
    }
    let mut lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().position(|one| one.trim() == heading);
    let at = found.unwrap_or_else(|| {
        let title = usize::from(lines.first().is_some_and(|one| one.starts_with("# ")));
        let gap: &[&str] = if title == 0 { &[] } else { &[""] };
        lines.splice(title..title, gap.iter().copied().chain([heading]));
        title + gap.len()
    });
    let is_list = lines[at + 1..].iter().find(|one| !one.is_empty());
    let is_list = is_list.is_some_and(|one| one.starts_with("- "));
    while lines.get(at + 1).is_some_and(|one| one.is_empty()) {
        lines.remove(at + 1);
    }
    let gap: &[&str] = if is_list || lines.len() == at + 1 { &[] } else { &[""] };
    lines.splice(at + 1..at + 1, ["", line].into_iter().chain(gap.iter().copied()));
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::with_line;

    fn noted(text: &str) -> String {
        with_line(text, "## Unreleased", "- Mend it (#2)").unwrap_or_else(|| "as it was".to_owned())
    }

    #[test]
    fn a_line_goes_under_its_heading_once() {
        let begun = "# Changelog\n\n## Unreleased\n\n- Older (#1)\n\n## 1.0\n";
        let after = noted(begun);
        assert_eq!(
            after,
            "# Changelog\n\n## Unreleased\n\n- Mend it (#2)\n- Older (#1)\n\n## 1.0\n"
        );
        assert_eq!(noted(&after), "as it was");
    }

    #[test]
    fn a_heading_that_is_missing_is_made() {
        assert_eq!(noted(""), "## Unreleased\n\n- Mend it (#2)\n");
        assert_eq!(
            noted("# Changelog\n\n## 1.0\n\n- Older (#1)\n"),
            "# Changelog\n\n## Unreleased\n\n- Mend it (#2)\n\n## 1.0\n\n- Older (#1)\n"
        );
        assert_eq!(noted("## Unreleased\n"), "## Unreleased\n\n- Mend it (#2)\n");
    }
}

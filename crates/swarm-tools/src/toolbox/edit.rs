//! `edit`: an exact piece of text, replaced.
//!
//! The old text must be there exactly as often as is said, once unless said otherwise: a guess
//! about which of two places is meant would be wrong half the time.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::text::{Text, cut_line, line_at};
use super::tree::Tree;
use super::write::check_content;
use super::{Limits, Trouble};

/// How much is compared when looking for what was perhaps meant: lines of the file, lines of the
/// old text, and the characters of a line.
const NEAR_FILE_LINES: usize = 20_000;
const NEAR_OLD_LINES: usize = 60;
const NEAR_LINE_CHARS: usize = 200;

/// The arguments of `edit`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file, from the root of the workspace.
    pub path: String,
    /// The text to replace, exactly as in the file, without line numbers; with enough around it
    /// to be there only once.
    pub old_text: String,
    /// What to put in its place.
    pub new_text: String,
    /// Replace every occurrence.
    #[serde(default)]
    pub replace_all: Option<bool>,
}

/// The tool `edit`.
#[derive(Debug)]
pub struct EditTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
}

impl EditTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits) }
    }
}

#[async_trait]
impl Tool for EditTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<Edit>(
            "edit",
            "Replaces an exact piece of text in a file. The old text must be there exactly once, \
             or `replace_all` must be set.",
        )
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let (tree, limits) = (Arc::clone(&self.tree), Arc::clone(&self.limits));
        super::blocking(arguments, move |arguments| edit(&tree, &limits, &arguments)).await
    }
}

fn edit(tree: &Tree, limits: &Limits, arguments: &Edit) -> Result<String, Trouble> {
    let old = arguments.old_text.replace("\r\n", "\n");
    let new = arguments.new_text.replace("\r\n", "\n");
    if old.is_empty() {
        return Err(Trouble::Refused("`old_text` is empty; use `write` to make a file".to_owned()));
    }
    if old == new {
        return Err(Trouble::Refused("`old_text` and `new_text` are the same".to_owned()));
    }
    check_content(&new, limits)?;
    let place = tree.place(&arguments.path)?;
    let file = place.require(limits.file_bytes)?;
    let text = Text::decode(&file.path, file.bytes)?;
    let found: Vec<usize> = text.plain().match_indices(&old).map(|(at, _)| at).collect();
    let lines: Vec<usize> = found.iter().map(|at| line_at(text.plain(), *at)).collect();
    let is_all = arguments.replace_all == Some(true);
    if found.is_empty() {
        return Err(Trouble::Refused(absent(&file.path, text.plain(), &old)));
    }
    if found.len() > 1 && !is_all {
        return Err(Trouble::Refused(format!(
            "`old_text` is in `{}` {} times, at lines {}: take in more of what is around the one \
             that is meant, or set `replace_all`",
            file.path,
            found.len(),
            joined(&lines)
        )));
    }
    let changes: Vec<_> = found.iter().map(|at| (*at..at + old.len(), new.as_str())).collect();
    let changed = text.replaced(&changes);
    if changed.len() as u64 > limits.file_bytes {
        return Err(Trouble::Refused(format!("`{}` would become too large", file.path)));
    }
    place.write(changed.as_bytes(), file.mode)?;
    let times = if found.len() == 1 { "once".to_owned() } else { format!("{} times", found.len()) };
    Ok(format!("changed {} {times}, at lines {}", file.path, joined(&lines)))
}

fn joined(lines: &[usize]) -> String {
    let mut words: Vec<String> = lines.iter().take(20).map(ToString::to_string).collect();
    if lines.len() > words.len() {
        words.push("…".to_owned());
    }
    words.join(", ")
}

/// That the old text is not there, with the most similar place.
fn absent(path: &str, plain: &str, old: &str) -> String {
    let mut words = format!("`old_text` is not in `{path}`");
    let Some((first, count, only_space)) = nearest_lines(plain, old) else { return words };
    words += if only_space {
        "; only white space differs here:\n"
    } else {
        "; the most similar lines are:\n"
    };
    for (index, line) in plain.lines().enumerate().skip(first).take(count.min(30)) {
        let _ = writeln!(words, "{:>6}\t{}", index + 1, cut_line(line, NEAR_LINE_CHARS));
    }
    words
}

/// The lines of `plain` that are most like `old`: the first, how many, and whether they are the
/// same but for white space.
pub(super) fn nearest_lines(plain: &str, old: &str) -> Option<(usize, usize, bool)> {
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted: Vec<String> =
        old.trim_matches('\n').lines().take(NEAR_OLD_LINES).map(squeezed).collect();
    let lines: Vec<String> = plain.lines().take(NEAR_FILE_LINES).map(squeezed).collect();
    if wanted.is_empty() || lines.is_empty() {
        return None;
    }
    let cut = |line: &str| line.chars().take(NEAR_LINE_CHARS).collect::<String>();
    let alike = |one: &str, other: &str| match one == other {
        true => 1.0,
        false if one.is_empty() || other.is_empty() => 0.0,
        false => strsim::sorensen_dice(&cut(one), &cut(other)),
    };
    // The line that says most is the anchor: comparing all of a window everywhere would be slow.
    let anchor = (0..wanted.len()).max_by_key(|at| wanted[*at].len())?;
    let mut anchors: Vec<(f64, usize)> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| (alike(line, &wanted[anchor]), at))
        .filter(|(score, _)| *score > 0.4)
        .collect();
    anchors.sort_by(|one, other| other.0.total_cmp(&one.0));
    let count = wanted.len().min(lines.len());
    let (score, first) = anchors
        .into_iter()
        .take(50)
        .map(|(_, at)| {
            let first = at.saturating_sub(anchor).min(lines.len() - count);
            let sum: f64 =
                wanted.iter().zip(&lines[first..]).map(|(want, line)| alike(want, line)).sum();
            (sum / wanted.len() as f64, first)
        })
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (score > 0.4).then_some((first, count, score >= 1.0))
}

//! `blocks`: questions to people.

use anyhow::Result;
use serde_json::{Map, Value};
use swarm_core::escalation::{self, Block, BlockStatus};
use swarm_core::port::store::Store;
use swarm_core::time::Timestamp;
use swarm_tools::workspace::Workspaces;

use super::{answer, find, out, out::Out};
use crate::cli;
use crate::config::Settings;
use crate::progress::{clean, clean_lines, clip};

/// Lines of a patch that are shown; the whole of it is in the pull request.
const PATCH_LINES_MAX: usize = 200;

/// Runs the command.
///
/// # Errors
/// [`Usage`](super::Usage) for an unknown question; the store's failure.
pub async fn run(
    store: &dyn Store,
    out: Out,
    now: Timestamp,
    settings: &Settings,
    what: &cli::Blocks,
) -> Result<()> {
    match what {
        cli::Blocks::List { all, run } => {
            let status = (!all).then_some(BlockStatus::Open);
            let mut blocks = Vec::new();
            match run {
                None => blocks = store.blocks(None, status).await?,
                Some(run) => {
                    let root = find::run(store, run).await?;
                    for run in find::tree(store, &root).await? {
                        blocks.extend(store.blocks(Some(&run.start.id), status).await?);
                    }
                }
            }
            out.print(&blocks, || list(&blocks, now))
        }
        cli::Blocks::Show { block } => {
            let block = find::block(store, block).await?;
            let subject = subject(store, &block).await?;
            out.print(&block, || show(&block, &subject, settings))
        }
    }
}

/// What a question is about, for its heading: the issue of the root run.
///
/// # Errors
/// The store's failure.
pub async fn subject(store: &dyn Store, block: &Block) -> Result<String> {
    let mut run = store.run(&block.run).await?;
    while let Some(parent) = run.as_ref().and_then(|run| run.start.parent.clone()) {
        run = store.run(&parent.run).await?;
    }
    let label = run.as_ref().and_then(|run| run.start.labels.get("title"));
    Ok(label.map_or_else(|| block.run.to_string(), |title| clip(title, 100)))
}

/// A question in the escalation's words, with what helps to decide and how to answer.
#[must_use]
pub fn show(block: &Block, subject: &str, settings: &Settings) -> String {
    let mut parts = vec![clean_lines(&escalation::render(block, subject))];
    parts.extend(facts(&block.ask.context, settings));
    parts.push(match (block.status, &block.answer) {
        (BlockStatus::Answered, Some(answer)) => {
            let by = block.answered_by.as_ref().map_or("?", |by| by.login.as_str());
            format!("Answered by {}: {}", clean(by), clean(&answer.to_string()))
        }
        (BlockStatus::Withdrawn, _) => "Withdrawn: the answer is no longer needed.".to_owned(),
        (BlockStatus::Open | BlockStatus::Answered, _) => {
            format!("To answer:\n  {}", answer::how(block, &settings.flags()))
        }
    });
    parts.join("\n\n")
}

/// The question's context for people: plain facts first, then the patch.
fn facts(context: &Value, settings: &Settings) -> Vec<String> {
    let Value::Object(entries) = context else {
        return if context.is_null() {
            Vec::new()
        } else {
            vec![clip(&context.to_string(), 2_000)]
        };
    };
    let mut parts = Vec::new();
    let plain: Vec<String> = entries
        .iter()
        .filter(|(key, value)| !["diff", "patch"].contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| {
            let words = match value {
                // A workspace is known by its key; people want to know where its files are.
                Value::String(name) if key == "workspace" => {
                    let workspaces = Workspaces::new(settings.data_dir.join("workspaces"));
                    workspaces.at(name).tree().display().to_string()
                }
                _ => fact(value),
            };
            format!("  {}: {words}", clean(key))
        })
        .collect();
    if !plain.is_empty() {
        parts.push(plain.join("\n"));
    }
    let diff = entries.get("diff").and_then(Value::as_object).unwrap_or(entries);
    if let Some(patch) = patch(diff) {
        parts.push(patch);
    }
    parts
}

fn fact(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains('\n') => {
            format!("\n{}", indented(&clean_lines(text), "    "))
        }
        Value::String(text) => clip(text, 500),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| format!("\n    - {}", item_words(item))).collect();
            items.concat()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => item_words(value),
    }
}

fn item_words(value: &Value) -> String {
    match value {
        Value::String(text) => clip(text, 300),
        Value::Object(entries) => {
            let words = entries.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key} {text}"),
                other => format!("{key} {other}"),
            });
            clip(&words.collect::<Vec<_>>().join(", "), 300)
        }
        other => clip(&other.to_string(), 300),
    }
}

fn patch(diff: &Map<String, Value>) -> Option<String> {
    let patch = clean_lines(diff.get("patch")?.as_str()?);
    let count = patch.lines().count();
    let mut shown: Vec<&str> = patch.lines().take(PATCH_LINES_MAX).collect();
    let rest = format!("… {} more lines", count.saturating_sub(PATCH_LINES_MAX));
    if count > PATCH_LINES_MAX {
        shown.push(&rest);
    }
    Some(shown.join("\n"))
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}")).collect::<Vec<_>>().join("\n")
}

fn list(blocks: &[Block], now: Timestamp) -> String {
    if blocks.is_empty() {
        return "No question is open.".to_owned();
    }
    let rows = blocks.iter().map(|block| {
        let status = match block.status {
            BlockStatus::Open => "open",
            BlockStatus::Answered => "answered",
            BlockStatus::Withdrawn => "withdrawn",
        };
        vec![
            block.id.to_string(),
            status.to_owned(),
            block.ask.reason.title().to_owned(),
            super::age(now, block.asked_at),
            clip(&block.ask.question, 70),
        ]
    });
    out::table(&["BLOCK", "STATUS", "REASON", "AGE", "QUESTION"], rows)
}

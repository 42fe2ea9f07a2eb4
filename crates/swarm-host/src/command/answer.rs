//! `answer`: closes a question with its only answer.

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};
use swarm_core::escalation::Block;
use swarm_graph::engine::Engine;

use super::{Usage, find, out, out::Out, people};
use crate::cli;
use crate::config::{Settings, nearest};

/// Runs the command.
///
/// # Errors
/// [`Usage`] for a question or an answer that cannot be meant; the store's failure.
pub async fn run(
    engine: &Engine,
    settings: &Settings,
    out: Out,
    given: &cli::Answer,
) -> Result<()> {
    let block = find::block(engine.store().as_ref(), &given.block).await?;
    let value = value(&block, given)?;
    let by = people::answerer(settings, given.login.as_deref())?;
    let answered = engine
        .answer(&block.id, value, by)
        .await
        .with_context(|| format!("question `{}` takes no such answer", block.id))?;
    out.print(&answered, || format!("Answered. Run {} goes on. {}", answered.run, out::WHO_GOES_ON))
}

/// The answer that the flags make, in the form that the question's schema wants.
fn value(block: &Block, given: &cli::Answer) -> Result<Value> {
    if let Some(choice) = &given.choice {
        return choose(block, choice, given.comment.as_deref());
    }
    if let Some(text) = &given.value {
        return serde_json::from_str(text)
            .map_err(|error| anyhow!(Usage(format!("--value is not JSON: {error}"))));
    }
    if let Some(text) = &given.text {
        return write(block, text);
    }
    bail!(Usage(format!("what is the answer? {}", how(block, ""))))
}

/// `{choice, comment?}`, the choice one of the question's.
///
/// # Errors
/// [`Usage`] with the choices there are.
pub fn choose(block: &Block, choice: &str, comment: Option<&str>) -> Result<Value> {
    let known = choices(block);
    if !known.iter().any(|known| known == choice) {
        let perhaps = nearest(choice, known.iter().map(String::as_str))
            .map(|nearest| format!(", perhaps `{nearest}`"))
            .unwrap_or_default();
        let message = if known.is_empty() {
            format!("this question has no choices; {}", how(block, ""))
        } else {
            format!("no choice `{choice}`{perhaps}; choose one of {}", known.join(", "))
        };
        bail!(Usage(message));
    }
    let mut answer = json!({ "choice": choice });
    if let Some(comment) = comment.filter(|comment| !comment.is_empty()) {
        answer["comment"] = comment.into();
    }
    Ok(answer)
}

/// The choices that a question has; none for one that wants something else.
#[must_use]
pub fn choices(block: &Block) -> Vec<String> {
    let schema = &block.ask.answer_schema;
    let choice = resolved(schema, &schema["properties"]["choice"]);
    let plain = choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let described = choice["oneOf"].as_array().into_iter().flatten();
    plain.chain(described.filter_map(|one| one["const"].as_str())).map(str::to_owned).collect()
}

/// What a schema says, be it here or behind a reference.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.and_then(|target| root.pointer(target)).unwrap_or(schema)
}

/// The field that free text goes into: the whole answer, or its only required text.
fn text_field(block: &Block) -> Option<Option<String>> {
    let schema = &block.ask.answer_schema;
    if schema["type"] == "string" {
        return Some(None);
    }
    let properties = schema["properties"].as_object()?;
    let is_text = |name: &str| {
        properties
            .get(name)
            .is_some_and(|field| field["type"] == "string" && field["enum"].is_null())
    };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match required.as_slice() {
        [only] if is_text(only) => Some(Some((*only).to_owned())),
        [] => ["text", "answer", "comment"]
            .into_iter()
            .find(|name| is_text(name))
            .map(|name| Some(name.to_owned())),
        _ => None,
    }
}

/// Free text in the form that the question's schema wants.
///
/// # Errors
/// [`Usage`] when it wants something else.
pub fn write(block: &Block, text: &str) -> Result<Value> {
    match text_field(block) {
        Some(None) => Ok(Value::String(text.to_owned())),
        Some(Some(field)) => Ok(json!({ field: text })),
        None => bail!(Usage(format!("this question wants more than a text; {}", how(block, "")))),
    }
}

/// How to answer a question, as a command; `flags` lead it to the data directory.
#[must_use]
pub fn how(block: &Block, flags: &str) -> String {
    let command = format!("swarm-host{flags} answer '{}'", block.id);
    let choices = choices(block);
    if !choices.is_empty() {
        return format!("{command} --choice {}", choices.join("|"));
    }
    if text_field(block).is_some() {
        return format!("{command} --text '…'");
    }
    format!("{command} --value JSON, where JSON fits {}", block.ask.answer_schema)
}

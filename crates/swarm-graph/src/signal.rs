//! The signals that a graph knows: those that it declares, and those that runs send by
//! themselves.
//!
//! What a newcomer gets wrong: a graph without `signals:` takes any name with any payload. One
//! with it refuses, when they are sent, names that it does not know and payloads that do not fit.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::defect::suggest;
use crate::library::fits;

/// The JSON schema of each signal's payload, by name.
pub(crate) type Signals = BTreeMap<String, Value>;

/// What runs send to all their ancestors; a store writes these payloads.
pub(crate) fn built_in() -> [(&'static str, Value); 3] {
    let text = || json!({ "type": "string" });
    let labels = || json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let question = json!({
        "type": "object",
        "properties": {
            "run": text(), "graph": text(), "block": text(), "reason": text(), "question": text(),
            "requested_input": { "type": "array" }, "labels": labels(),
        },
        "required": ["run", "graph", "block", "reason", "question", "requested_input", "labels"],
    });
    let failure = json!({
        "type": ["object", "null"],
        "properties": {
            "class": text(), "message": text(), "remedy": text(),
            "retry_after_ms": { "type": ["integer", "null"] },
        },
        "required": ["class", "message"],
    });
    let ended = json!({
        "type": "object",
        "properties": {
            "run": text(), "graph": text(),
            "status": { "type": "string", "enum": ["succeeded", "failed", "cancelled"] },
            "output": {}, "failure": failure, "labels": labels(),
        },
        "required": ["run", "graph", "status", "labels"],
    });
    [
        ("worker.answered", question.clone()),
        ("worker.blocked", question),
        ("worker.finished", ended),
    ]
}

/// The signals that a pattern stands for: `worker.*` for every name that begins with `worker.`.
pub(crate) fn matching<'s>(
    signals: &'s Signals,
    pattern: &'s str,
) -> impl Iterator<Item = (&'s String, &'s Value)> {
    signals.iter().filter(move |(name, _)| matches_name(pattern, name))
}

/// Whether a name is one that a pattern stands for.
pub(crate) fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// What would be right instead of a name or pattern that stands for no signal.
pub(crate) fn help(signals: &Signals, name: &str) -> Option<String> {
    let groups: Vec<String> = signals
        .keys()
        .filter_map(|name| name.rsplit_once('.'))
        .map(|(group, _)| format!("{group}.*"))
        .collect();
    let known = signals.keys().map(String::as_str);
    let groups = groups.iter().map(String::as_str).filter(|_| name.ends_with('*'));
    suggest(name, known.chain(groups))
}

/// Why a signal does not fit.
pub(crate) enum Misfit {
    /// There is none of that name; what would be right.
    Unknown(Option<String>),
    /// What is wrong with the payload.
    Payload(String),
}

/// Whether a signal may be sent.
pub(crate) fn check(signals: &Signals, name: &str, payload: &Value) -> Result<(), Misfit> {
    let schema = signals.get(name).ok_or_else(|| Misfit::Unknown(help(signals, name)))?;
    fits(schema, payload).map_err(Misfit::Payload)
}

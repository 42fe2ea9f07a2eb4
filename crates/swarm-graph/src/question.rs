//! A gate's question, rendered.

use serde_json::Value;
use swarm_core::escalation::{Ask, Request};
use swarm_core::failure::Failure;
use swarm_core::id::NodeName;

use crate::expr::Scope;
use crate::graph::Gate;
use crate::settle::expression_failure;

/// Renders what a gate asks.
pub(crate) fn ask(node: &NodeName, gate: &Gate, scope: &Scope<'_>) -> Result<Ask, Failure> {
    let failed = |key: &str, error| expression_failure(&format!("{node}.gate.{key}"), &error);
    let question = gate.ask.render_text(scope).map_err(|error| failed("ask", error))?;
    let mut requested_input = Vec::with_capacity(gate.requested_input.len());
    for template in &gate.requested_input {
        let value = template.render(scope).map_err(|error| failed("requested_input", error))?;
        let request = serde_json::from_value(value).map_err(|error| {
            Failure::fatal(
                "expression",
                format!("`{node}.gate.requested_input` is no request: {error}"),
            )
        })?;
        requested_input.push(request);
    }
    if requested_input.is_empty() {
        requested_input.push(default_request(&question, &gate.answer_schema));
    }
    let context = match &gate.context {
        Some(template) => template.render(scope).map_err(|error| failed("context", error))?,
        None => Value::Null,
    };
    Ok(Ask {
        reason: gate.reason,
        question,
        requested_input,
        answer_schema: gate.answer_schema.clone(),
        context,
    })
}

/// A decision when the answer has a `choice` out of a list, else a text.
fn default_request(question: &str, schema: &Value) -> Request {
    let choices: Vec<String> = schema
        .pointer("/properties/choice/enum")
        .and_then(Value::as_array)
        .map(|choices| {
            choices.iter().filter_map(|choice| choice.as_str().map(str::to_owned)).collect()
        })
        .unwrap_or_default();
    let question = question.to_owned();
    if choices.is_empty() {
        Request::Text { question }
    } else {
        Request::Decision { question, choices }
    }
}

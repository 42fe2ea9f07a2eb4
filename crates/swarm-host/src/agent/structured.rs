//! A structured answer: JSON that satisfies a schema and the caller's own rules.
//!
//! An answer that breaks one goes back to the model with what is wrong, a bounded number of times;
//! then the step fails with the caller's class and
//! the graph decides what follows.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::model::{ChatModel, ChatRequest, ChatTurn, Message, Stop};
use swarm_graph::node::{NodeContext, NodeError};
use swarm_tools::model::answer::AnswerSchema;

use super::{Limits, Opening, turn};

/// Asks for a `T` until one comes that satisfies `rules`.
///
/// # Errors
/// A fatal failure of class `class` when `limits.malformed_max` answers in a row were unusable;
/// [`NodeError::Asked`] while a person is asked; the model's failures.
pub async fn structured<T, R>(
    ctx: &NodeContext,
    model: &dyn ChatModel,
    opening: Opening,
    limits: &Limits,
    class: &str,
    rules: R,
) -> Result<T, NodeError>
where
    T: DeserializeOwned + JsonSchema,
    R: Fn(&T) -> Result<(), String>,
{
    let schema = schema_of::<T>();
    let wanted = AnswerSchema::new(&schema)
        .map_err(|error| Failure::fatal("broken_schema", error.to_string()))?;
    let mut messages = vec![Message::User { text: opening.text.clone() }];
    for number in 1..=limits.malformed_max {
        let request = ChatRequest {
            system: opening.system.clone(),
            messages: messages.clone(),
            tools: Vec::new(),
            answer_schema: Some(schema.clone()),
            tokens_max: limits.answer_tokens,
            role: opening.role.clone(),
            conversation: opening.conversation.clone(),
        };
        let answer = turn::take(ctx, model, &format!("turn/{number}"), &request).await?;
        let problem = match parse(&answer, &wanted, &rules) {
            Ok(value) => return Ok(value),
            Err(problem) => problem,
        };
        if number == limits.malformed_max {
            let message = format!("{number} unusable answers of `{}`: {problem}", opening.role);
            return Err(Failure::fatal(class, message).into());
        }
        // Only the words are given back: calls of tools that were not offered have no results.
        messages.push(Message::Assistant {
            text: if answer.text.trim().is_empty() { "(no text)".to_owned() } else { answer.text },
            tool_calls: Vec::new(),
            thoughts: None,
        });
        let text = format!("{problem}\nAnswer again, with the whole JSON object and nothing else.");
        messages.push(Message::User { text });
    }
    Err(Failure::fatal(class, "no answer was allowed: `malformed_max` is 0").into())
}

fn parse<T: DeserializeOwned>(
    answer: &ChatTurn,
    schema: &AnswerSchema,
    rules: &impl Fn(&T) -> Result<(), String>,
) -> Result<T, String> {
    match answer.stop {
        Stop::Length => {
            return Err("Your answer was cut off at the token limit: be shorter.".to_owned());
        }
        Stop::Filter => return Err("The provider's content filter cut you off.".to_owned()),
        Stop::End | Stop::Tools => {}
    }
    let value = schema.read(&answer.text).map_err(|bad| bad.to_string())?;
    let value: T = serde_json::from_value(value)
        .map_err(|error| format!("Your answer does not fit: {error}."))?;
    rules(&value).map_err(|words| format!("Your answer breaks a rule: {words}."))?;
    Ok(value)
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use swarm_core::port::model::Usage;
    use swarm_core::spend::UsdMicros;

    use super::*;
    use crate::handover::Plan;

    fn read(text: &str, stop: Stop) -> Result<Plan, String> {
        let answer = ChatTurn {
            text: text.to_owned(),
            tool_calls: Vec::new(),
            thoughts: None,
            stop,
            usage: Usage::default(),
            usd: UsdMicros(0),
            model: "test:test".to_owned(),
        };
        parse(&answer, &AnswerSchema::new(&schema_of::<Plan>()).unwrap(), &|plan: &Plan| {
            if plan.summary.is_empty() { Err("an empty summary".to_owned()) } else { Ok(()) }
        })
    }

    #[test]
    fn a_fence_and_courtesies_around_the_object_do_no_harm() {
        let text = "Sure!\n```json\n{\"summary\": \"s\", \"ambiguous\": false}\n```\n";
        assert_eq!(read(text, Stop::End).unwrap().summary, "s");
    }

    #[test]
    fn each_way_to_be_unusable_is_said() {
        let said: Vec<String> = [
            ("", Stop::End),
            ("no", Stop::End),
            ("{\"summary\": \"s\"}", Stop::End),
            ("{\"summary\": \"s\", \"ambiguous\": false, \"extra\": 1}", Stop::End),
            ("{\"summary\": \"\", \"ambiguous\": false}", Stop::End),
            ("{\"summary\": \"s\", \"ambiguous\": false}", Stop::Length),
        ]
        .into_iter()
        .map(|(text, stop)| read(text, stop).unwrap_err())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        Your answer was empty. Answer with one JSON value that satisfies the schema.
        Your answer is not JSON: expected ident at line 1 column 2. Answer with one JSON value that satisfies the schema, and nothing else.
        Your answer does not satisfy the schema:
        - the whole: "ambiguous" is a required property
        Answer again with the whole JSON value, mended.
        Your answer does not satisfy the schema:
        - the whole: Additional properties are not allowed ('extra' was unexpected)
        Answer again with the whole JSON value, mended.
        Your answer breaks a rule: an empty summary.
        Your answer was cut off at the token limit: be shorter.
        "#);
    }
}

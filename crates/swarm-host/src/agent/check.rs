//! A turn as the model gave it → the calls that may be run, or what is wrong with it.
//!
//! Nothing unchecked is run: a name must be known, arguments must satisfy the tool's schema, and a
//! turn that was cut off is not used at all, since half a call may look like a whole one.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use swarm_core::escalation::{Ask, Reason, Request};
use swarm_core::port::model::{ChatTurn, Stop, ToolCall};
use swarm_tools::model::answer::ToolSchemas;
use swarm_tools::toolbox::control::{self, AskPerson, Finish};

/// What can be done with a turn.
#[derive(Debug)]
pub(super) enum Checked {
    /// Nothing; this is why.
    Unusable(String),
    /// Each call by its id, in order.
    Calls(Vec<(String, Call)>),
}

/// What can be done with a call.
#[derive(Debug)]
pub(super) enum Call {
    /// Run it.
    Run {
        /// A known tool.
        name: String,
        /// Arguments that satisfy its schema.
        arguments: Value,
    },
    /// The model is done.
    Finish(Finish),
    /// The model asks a person.
    Ask(AskPerson),
    /// Nothing; this is why.
    Wrong(String),
}

/// The turn with ids that tell its calls apart, made up where the model gave none or one twice.
pub(super) fn with_ids(mut turn: ChatTurn, number: u32) -> ChatTurn {
    let mut seen = HashSet::new();
    for (index, call) in turn.tool_calls.iter_mut().enumerate() {
        if call.id.trim().is_empty() || !seen.insert(call.id.clone()) {
            call.id = format!("host-{number}-{index}");
        }
    }
    turn
}

/// Checks a whole turn against the tools that it was offered.
pub(super) fn check(turn: &ChatTurn, tools: &ToolSchemas, calls_max: usize) -> Checked {
    match turn.stop {
        Stop::Length => {
            return Checked::Unusable(
                "it was cut off at the token limit. Do less in one turn: smaller edits, one call."
                    .to_owned(),
            );
        }
        Stop::Filter => {
            return Checked::Unusable("the provider's content filter cut it off.".to_owned());
        }
        Stop::End | Stop::Tools => {}
    }
    if turn.tool_calls.is_empty() {
        let found = if turn.text.trim().is_empty() { "it was empty" } else { "it called no tool" };
        return Checked::Unusable(format!(
            "{found}. Every turn calls a tool; call `{}` when the work is done.",
            control::FINISH
        ));
    }
    let calls = turn.tool_calls.iter().enumerate().map(|(index, call)| {
        let checked = if index < calls_max {
            check_call(call, tools)
        } else {
            Call::Wrong(format!("Not run: a turn may call at most {calls_max} tools."))
        };
        (call.id.clone(), checked)
    });
    Checked::Calls(calls.collect())
}

fn check_call(call: &ToolCall, tools: &ToolSchemas) -> Call {
    if let Err(bad) = tools.check(call) {
        return Call::Wrong(bad.to_string());
    }
    match call.name.as_str() {
        control::FINISH => decoded(call).map_or_else(Call::Wrong, Call::Finish),
        control::ASK => decoded(call).map_or_else(Call::Wrong, Call::Ask),
        _ => Call::Run { name: call.name.clone(), arguments: call.arguments.clone() },
    }
}

fn decoded<T: DeserializeOwned>(call: &ToolCall) -> Result<T, String> {
    T::deserialize(&call.arguments)
        .map_err(|error| format!("The arguments of `{}` do not fit: {error}.", call.name))
}

/// The model's question as a person gets it.
pub(super) fn person_ask(question: AskPerson) -> Ask {
    let reason = Reason::from(question.reason);
    let mut choices = Vec::new();
    for request in &question.requested_input {
        if let Request::Decision { choices: offered, .. } = request {
            choices.extend(offered.iter().cloned());
        }
    }
    let mut requested_input = question.requested_input;
    if requested_input.is_empty() {
        requested_input.push(Request::Text { question: question.question.clone() });
    }
    let secret = reason == Reason::MissingSecret;
    let mut words = question.question;
    if secret {
        words += "\n(Store the secret where it is named below; never put it into the answer.)";
    }
    Ask {
        reason,
        question: words,
        requested_input,
        answer_schema: answer_schema(&choices),
        context: Value::Null,
    }
}

fn answer_schema(choices: &[String]) -> Value {
    let text = json!({ "type": "string", "minLength": 1 });
    if choices.is_empty() {
        return json!({
            "type": "object",
            "properties": { "comment": text },
            "required": ["comment"],
            "additionalProperties": false
        });
    }
    json!({
        "type": "object",
        "properties": { "choice": { "type": "string", "enum": choices }, "comment": text },
        "required": ["choice"],
        "additionalProperties": false
    })
}

#[cfg(test)]
mod tests {
    use swarm_core::port::model::Usage;
    use swarm_core::port::tool::ToolSpec;
    use swarm_core::spend::UsdMicros;

    use swarm_tools::model::answer::AnswerSchema;

    use super::*;

    fn turn(stop: Stop, text: &str, calls: &[(&str, &str, Value)]) -> ChatTurn {
        ChatTurn {
            text: text.to_owned(),
            tool_calls: calls
                .iter()
                .map(|(id, name, arguments)| ToolCall {
                    id: (*id).to_owned(),
                    name: (*name).to_owned(),
                    arguments: arguments.clone(),
                })
                .collect(),
            thoughts: None,
            stop,
            usage: Usage::default(),
            usd: UsdMicros(0),
            model: "test:test".to_owned(),
        }
    }

    fn tools() -> ToolSchemas {
        let read = ToolSpec {
            name: "read".to_owned(),
            description: String::new(),
            arguments: json!({
                "type": "object",
                "properties": { "path": { "type": "string" } },
                "required": ["path"],
                "additionalProperties": false
            }),
        };
        ToolSchemas::new(&[read, control::ask_spec(), control::finish_spec()]).unwrap()
    }

    fn told(turn: &ChatTurn) -> Vec<String> {
        match check(turn, &tools(), 2) {
            Checked::Unusable(words) => vec![words],
            Checked::Calls(calls) => calls
                .into_iter()
                .map(|(_, call)| match call {
                    Call::Wrong(words) => words,
                    usable => format!("{usable:?}"),
                })
                .collect(),
        }
    }

    #[test]
    fn what_is_wrong_with_a_turn_is_said_in_words_that_help() {
        let read = |arguments| told(&turn(Stop::Tools, "", &[("1", "read", arguments)])).remove(0);
        let lines = [
            told(&turn(Stop::End, " ", &[])).remove(0),
            told(&turn(Stop::End, "I am done.", &[])).remove(0),
            told(&turn(Stop::Length, "", &[("1", "read", json!({"path": "a"}))])).remove(0),
            told(&turn(Stop::Tools, "", &[("1", "raed", json!({}))])).remove(0),
            read(json!("{\"path\": ")),
            read(json!({})),
            read(json!({ "path": 1, "mode": "x" })),
            read(json!({ "path": "a" })),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        it was empty. Every turn calls a tool; call `finish` when the work is done.
        it called no tool. Every turn calls a tool; call `finish` when the work is done.
        it was cut off at the token limit. Do less in one turn: smaller edits, one call.
        There is no tool named `raed`; perhaps you mean `read`. Known tools: `ask`, `finish`, `read`.
        The arguments of `read` are not a JSON object: EOF while parsing a value at line 1 column 9. Call it again with all of its arguments as one JSON object.
        The arguments of `read` do not satisfy its schema:
        - the whole: "path" is a required property
        Call it again with all of its arguments.
        The arguments of `read` do not satisfy its schema:
        - /path: 1 is not of type "string"
        - the whole: Additional properties are not allowed ('mode' was unexpected)
        Call it again with all of its arguments.
        Run { name: "read", arguments: Object {"path": String("a")} }
        "#);
    }

    #[test]
    fn calls_beyond_the_limit_are_refused_one_by_one() {
        let call = ("1", "read", json!({ "path": "a" }));
        let told = told(&turn(Stop::Tools, "", &[call.clone(), call.clone(), call]));
        assert_eq!(told[2], "Not run: a turn may call at most 2 tools.");
    }

    #[test]
    fn calls_without_an_id_or_with_one_twice_are_told_apart() {
        let read = |id| (id, "read", json!({ "path": "a" }));
        let turn = with_ids(turn(Stop::Tools, "", &[read("x"), read("x"), read("")]), 7);
        let ids: Vec<&str> = turn.tool_calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!(ids, ["x", "host-7-1", "host-7-2"]);
    }

    #[test]
    fn a_question_with_choices_takes_only_those() {
        let ask = person_ask(AskPerson {
            reason: control::AskReason::Decision,
            question: "Which one?".to_owned(),
            requested_input: vec![Request::Decision {
                question: "Which one?".to_owned(),
                choices: vec!["left".to_owned(), "right".to_owned()],
            }],
        });
        let schema = AnswerSchema::new(&ask.answer_schema).unwrap();
        assert!(schema.read("{\"choice\": \"left\"}").is_ok());
        assert!(schema.read("{\"choice\": \"up\"}").is_err());
    }
}

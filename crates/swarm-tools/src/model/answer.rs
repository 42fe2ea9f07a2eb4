//! Is what the model said what it was asked for? And if not, how to tell it so.
//!
//! Nothing here asks again: the errors print as text for the model, and the conversation that shows
//! it to the model decides how often. Schemas are compiled once, offline: a `$ref` to the network
//! or to a file is a broken schema.

use std::collections::BTreeMap;
use std::fmt;

use jsonschema::Validator;
use serde_json::Value;
use swarm_core::port::model::ToolCall;
use swarm_core::port::tool::ToolSpec;
use thiserror::Error;

/// How many violations are told at once.
const VIOLATIONS_MAX: usize = 8;
/// How long one of them may be, in characters.
const VIOLATION_CHARS_MAX: usize = 240;

/// A schema that cannot be compiled: a defect of ours, not of the model's.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("the schema of {of} is broken: {message}")]
pub struct InvalidSchema {
    /// What it is the schema of.
    pub of: String,
    /// What is wrong with it.
    pub message: String,
}

/// What an answer's text must satisfy.
pub struct AnswerSchema {
    validator: Validator,
}

impl fmt::Debug for AnswerSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerSchema").finish_non_exhaustive()
    }
}

/// An answer that is not what was asked for. Prints as text for the model.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BadAnswer {
    /// No text at all.
    #[error("Your answer was empty. Answer with one JSON value that satisfies the schema.")]
    Empty,
    /// No JSON in it.
    #[error(
        "Your answer is not JSON: {0}. Answer with one JSON value that satisfies the schema, and nothing else."
    )]
    NotJson(String),
    /// JSON of another shape.
    #[error(
        "Your answer does not satisfy the schema:\n{0}\nAnswer again with the whole JSON value, mended."
    )]
    Misfit(Violations),
}

impl AnswerSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// [`InvalidSchema`] when it is no JSON schema or refers to one elsewhere.
    pub fn new(schema: &Value) -> Result<Self, InvalidSchema> {
        Ok(Self { validator: compiled("the answer", schema)? })
    }

    /// The JSON in a text, if it satisfies the schema. Words around a fenced block or around the
    /// only JSON value are passed over: small models cannot help them.
    ///
    /// # Errors
    /// [`BadAnswer`], to be shown to the model.
    pub fn read(&self, text: &str) -> Result<Value, BadAnswer> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadAnswer::Empty);
        }
        let mut violations = None;
        let mut not_json = None;
        for candidate in candidates(text) {
            match serde_json::from_str::<Value>(candidate) {
                Ok(value) => match Violations::of(&self.validator, &value) {
                    None => return Ok(value),
                    Some(found) => violations = violations.or(Some(found)),
                },
                Err(error) => not_json = not_json.or(Some(error.to_string())),
            }
        }
        Err(match (violations, not_json) {
            (Some(violations), _) => BadAnswer::Misfit(violations),
            (None, error) => BadAnswer::NotJson(error.unwrap_or_default()),
        })
    }
}

/// Where JSON may be: the whole text, each fenced block, the span from the first to the last brace.
fn candidates(text: &str) -> Vec<&str> {
    let mut candidates = vec![text];
    let mut parts = text.split("```");
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let block =
            block.strip_prefix("json").or_else(|| block.strip_prefix("JSON")).unwrap_or(block);
        candidates.push(block.trim());
    }
    for (open, close) in [('{', '}'), ('[', ']')] {
        if let (Some(start), Some(end)) = (text.find(open), text.rfind(close))
            && start < end
        {
            candidates.push(&text[start..=end]);
        }
    }
    candidates
}

/// What the tools in a request demand of the calls.
pub struct ToolSchemas {
    tools: BTreeMap<String, Validator>,
}

impl fmt::Debug for ToolSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}

/// A tool call that cannot be made. Prints as text for the model, to be given back as the call's
/// failed result.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BadCall {
    /// There is no such tool.
    #[error("There is no tool named `{name}`{}. Known tools: {known}.", perhaps(.nearest.as_deref()))]
    UnknownTool {
        /// The name as called.
        name: String,
        /// The most similar name, if one is similar.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The arguments are not a JSON object.
    #[error(
        "The arguments of `{name}` are not a JSON object: {problem}. Call it again with all of its arguments as one JSON object."
    )]
    NotJson {
        /// The tool.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The arguments have another shape.
    #[error(
        "The arguments of `{name}` do not satisfy its schema:\n{violations}\nCall it again with all of its arguments."
    )]
    Misfit {
        /// The tool.
        name: String,
        /// What is wrong.
        violations: Violations,
    },
}

fn perhaps(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; perhaps you mean `{name}`")).unwrap_or_default()
}

impl ToolSchemas {
    /// Compiles the schemas of tools.
    ///
    /// # Errors
    /// [`InvalidSchema`] for the first tool whose schema is broken.
    pub fn new<'a>(specs: impl IntoIterator<Item = &'a ToolSpec>) -> Result<Self, InvalidSchema> {
        let tools = specs.into_iter().map(|spec| {
            let validator = compiled(&format!("tool `{}`", spec.name), &spec.arguments)?;
            Ok((spec.name.clone(), validator))
        });
        Ok(Self { tools: tools.collect::<Result<_, InvalidSchema>>()? })
    }

    /// Checks a call as the model wrote it.
    ///
    /// # Errors
    /// [`BadCall`], to be shown to the model.
    pub fn check(&self, call: &ToolCall) -> Result<(), BadCall> {
        let name = call.name.clone();
        let Some(validator) = self.tools.get(&name) else {
            let nearest = self.nearest(&name);
            let known = self.tools.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(BadCall::UnknownTool { name: short(&name, 80), nearest, known });
        };
        if let Value::String(text) = &call.arguments {
            let problem = match serde_json::from_str::<Value>(text) {
                Ok(_) => "they are a string".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(BadCall::NotJson { name, problem });
        }
        if !call.arguments.is_object() {
            let problem = format!("they are {}", short(&call.arguments.to_string(), 80));
            return Err(BadCall::NotJson { name, problem });
        }
        match Violations::of(validator, &call.arguments) {
            None => Ok(()),
            Some(violations) => Err(BadCall::Misfit { name, violations }),
        }
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let likeness = |known: &String| strsim::jaro_winkler(name, known);
        let best = self.tools.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(best) > 0.75).then(|| best.clone())
    }
}

/// What is wrong with a value, a line for each place; at most `VIOLATIONS_MAX` of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violations {
    lines: Vec<String>,
    more: usize,
}

impl Violations {
    fn of(validator: &Validator, value: &Value) -> Option<Self> {
        let mut lines: Vec<String> = validator
            .iter_errors(value)
            .map(|error| {
                let path = error.instance_path().to_string();
                let place = if path.is_empty() { "the whole" } else { path.as_str() };
                format!("- {place}: {}", short(&error.to_string(), VIOLATION_CHARS_MAX))
            })
            .collect();
        let more = lines.len().saturating_sub(VIOLATIONS_MAX);
        lines.truncate(VIOLATIONS_MAX);
        (!lines.is_empty()).then_some(Self { lines, more })
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))?;
        if self.more > 0 {
            write!(f, "\n- and {} more", self.more)?;
        }
        Ok(())
    }
}

fn compiled(of: &str, schema: &Value) -> Result<Validator, InvalidSchema> {
    jsonschema::validator_for(schema).map_err(|error| InvalidSchema {
        of: of.to_owned(),
        message: short(&error.to_string(), VIOLATION_CHARS_MAX),
    })
}

fn short(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict() -> AnswerSchema {
        AnswerSchema::new(&json!({
            "type": "object",
            "properties": { "ok": { "type": "boolean" }, "notes": { "type": "array", "items": { "type": "string" } } },
            "required": ["ok"],
            "additionalProperties": false,
        }))
        .unwrap()
    }

    #[test]
    fn json_is_found_bare_in_a_fence_and_between_words() {
        for text in [
            r#" {"ok": true} "#,
            "```json\n{\"ok\": true}\n```",
            "Here it is:\n```\n{\"ok\": true}\n```\nGood luck!",
            "Wrong one: ```json\n{\"no\": 1}\n``` right one: ```json\n{\"ok\": true}\n```",
            "The verdict is {\"ok\": true}, I think.",
        ] {
            assert_eq!(verdict().read(text), Ok(json!({"ok": true})), "{text}");
        }
    }

    #[test]
    fn a_bad_answer_is_told_in_words_that_say_what_is_wrong_and_where() {
        let told = |text: &str| verdict().read(text).unwrap_err().to_string();
        insta::assert_snapshot!(told(" \n"), @"Your answer was empty. Answer with one JSON value that satisfies the schema.");
        insta::assert_snapshot!(told("It looks fine."), @"Your answer is not JSON: expected value at line 1 column 1. Answer with one JSON value that satisfies the schema, and nothing else.");
        insta::assert_snapshot!(told(r#"{"ok": "yes", "notes": ["a", 1], "mood": 3}"#), @r#"
        Your answer does not satisfy the schema:
        - /ok: "yes" is not of type "boolean"
        - /notes/1: 1 is not of type "string"
        - the whole: Additional properties are not allowed ('mood' was unexpected)
        Answer again with the whole JSON value, mended.
        "#);
    }

    #[test]
    fn a_huge_bad_answer_is_told_shortly() {
        let text = json!({ "ok": "x".repeat(100_000), "notes": vec![0; 5000] }).to_string();
        let told = verdict().read(&text).unwrap_err().to_string();
        assert!(told.len() < 3000, "{} bytes", told.len());
        assert!(told.contains("- and 4993 more"), "{told}");
    }

    fn tools() -> ToolSchemas {
        let spec = |name: &str| ToolSpec {
            name: name.into(),
            description: String::new(),
            arguments: json!({
                "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"],
            }),
        };
        ToolSchemas::new(&[spec("read_file"), spec("write_file")]).unwrap()
    }

    fn told(name: &str, arguments: Value) -> String {
        let call = ToolCall { id: "1".into(), name: name.into(), arguments };
        tools().check(&call).map_or_else(|bad| bad.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn a_bad_call_is_told_with_the_nearest_name_or_the_misfit() {
        insta::assert_snapshot!(told("readfile", json!({})), @"There is no tool named `readfile`; perhaps you mean `read_file`. Known tools: `read_file`, `write_file`.");
        insta::assert_snapshot!(told("deploy", json!({})), @"There is no tool named `deploy`. Known tools: `read_file`, `write_file`.");
        insta::assert_snapshot!(told("read_file", json!("{\"path\": ")), @"The arguments of `read_file` are not a JSON object: EOF while parsing a value at line 1 column 9. Call it again with all of its arguments as one JSON object.");
        insta::assert_snapshot!(told("read_file", json!(3)), @"The arguments of `read_file` are not a JSON object: they are 3. Call it again with all of its arguments as one JSON object.");
        insta::assert_snapshot!(told("read_file", json!({"file": "a"})), @r#"
        The arguments of `read_file` do not satisfy its schema:
        - the whole: "path" is a required property
        Call it again with all of its arguments.
        "#);
        insta::assert_snapshot!(told("read_file", json!({"path": "a"})), @"good");
    }

    #[test]
    fn a_schema_that_reaches_for_the_network_is_broken() {
        let schema = json!({ "$ref": "http://127.0.0.1:1/schema.json" });
        assert!(AnswerSchema::new(&schema).is_err());
    }
}

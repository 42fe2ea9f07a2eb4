//! Values that are written as text: durations, addresses, names of environment variables.
//!
//! Each is a type, so that a text that cannot be meant never gets past loading the file.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use url::Url;

/// A length of time, written as `30s`, `5m` or `1h 30m`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse_span(&text).map(Self)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": SPAN, "examples": ["30s", "5m", "1h 30m"] })
    }
}

/// The address of a server, with `http` or `https`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub Url);

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse_address(&text).map(Self)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.into()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": ADDRESS })
    }
}

/// The name of an environment variable. A key in its place is refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variable(pub String);

impl TryFrom<String> for Variable {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        check_variable(&text)?;
        Ok(Self(text))
    }
}

impl From<Variable> for String {
    fn from(variable: Variable) -> Self {
        variable.0
    }
}

impl JsonSchema for Variable {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Variable".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": VARIABLE, "pattern": "^[A-Z_][A-Z0-9_]*$" })
    }
}

const SPAN: &str = "span";
const ADDRESS: &str = "address";
const VARIABLE: &str = "variable";

/// Whether a text fits one of our formats; other formats are not ours to judge.
pub(super) fn fits(format: &str, text: &str) -> Result<(), String> {
    match format {
        SPAN => parse_span(text).map(drop),
        ADDRESS => parse_address(text).map(drop),
        VARIABLE => check_variable(text),
        _ => Ok(()),
    }
}

/// What one of our formats wants, in words.
pub(super) fn name(format: &str) -> Option<&'static str> {
    match format {
        SPAN => Some("a length of time such as `30s`"),
        ADDRESS => Some("an address such as `https://api.example.com/v1`"),
        VARIABLE => Some("the name of an environment variable"),
        _ => None,
    }
}

fn parse_span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no length of time; write `30s`, `5m` or `1h 30m`"))
}

fn parse_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| {
        format!("`{text}` is no address ({error}); write `https://api.example.com/v1`")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("`{text}` is no address; it starts with `https://` or `http://`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "an address with a name or password in it; give keys by `key_env` or `key_file`"
                .to_owned(),
        );
    }
    Ok(url)
}

/// The text is not repeated: it may be a key that was written into the wrong place.
fn check_variable(text: &str) -> Result<(), String> {
    let named = text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
        && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if named {
        Ok(())
    } else {
        Err("not the name of an environment variable; write its name, such as `OPENAI_API_KEY`, \
             never the key itself"
            .to_owned())
    }
}

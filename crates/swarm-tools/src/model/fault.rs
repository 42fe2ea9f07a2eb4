//! What went wrong at a provider, classed from status, body and transport.
//!
//! Providers say the same thing in many ways: "no money" is 402, 429 `insufficient_quota`, or 400
//! with a sentence. The table is here and nowhere else. Bodies are quoted shortly, and never with
//! the key that some of them echo.

use std::error::Error as StdError;

use genai::webc::StreamTimeout;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use swarm_core::port::model::{Error, ErrorClass};
use swarm_core::time::Timestamp;

use super::retry;

/// How much of a provider's words goes into a message, in characters.
const QUOTE_CHARS_MAX: usize = 300;

/// Names the model, hides the key, knows the time: what it takes to make an [`Error`].
pub(super) struct Blame<'a> {
    pub(super) model: &'a str,
    pub(super) key: Option<&'a SecretString>,
    pub(super) now: Timestamp,
}

impl Blame<'_> {
    /// An error of our own finding.
    pub(super) fn error(&self, class: ErrorClass, message: impl Into<String>) -> Error {
        Error { class, model: self.model.to_owned(), message: message.into(), retry_after: None }
    }

    /// An error of genai's, which wraps the provider's and the transport's.
    pub(super) fn of_genai(&self, error: &genai::Error) -> Error {
        match error {
            genai::Error::HttpError { status, body, headers, .. } => {
                let (class, words) = refusal(status.as_u16(), body);
                let message = format!("status {}: {}", status.as_u16(), self.quote(&words));
                Error { retry_after: retry::asked(headers, self.now), ..self.error(class, message) }
            }
            genai::Error::ChatResponse { body, .. } => {
                let said = Said::read(body);
                let class = said.class().unwrap_or(ErrorClass::Server);
                self.error(class, format!("failed in mid-stream: {}", self.quote(&said.words())))
            }
            genai::Error::WebStream { error, .. } => self.of_transport(error.as_ref()),
            genai::Error::StreamParse { serde_error, .. } => self.error(
                ErrorClass::Garbled,
                format!("a piece of the stream is not JSON: {serde_error}"),
            ),
            genai::Error::JsonValueExt(error) => self.error(
                ErrorClass::Garbled,
                format!("a piece of the stream lacks a part: {}", self.quote(&error.to_string())),
            ),
            other => self.error(
                ErrorClass::Invalid,
                format!("the request could not be written: {}", self.quote(&other.to_string())),
            ),
        }
    }

    fn of_transport(&self, error: &(dyn StdError + Send + Sync + 'static)) -> Error {
        if let Some(error) = error.downcast_ref::<genai::Error>() {
            return self.of_genai(error);
        }
        if let Some(timeout) = error.downcast_ref::<StreamTimeout>() {
            return self.error(ErrorClass::Timeout, timeout.to_string());
        }
        let Some(error) = error.downcast_ref::<reqwest::Error>() else {
            let words = self.quote(&error.to_string());
            return self.error(ErrorClass::Garbled, format!("the stream cannot be read: {words}"));
        };
        let cause = self.quote(&innermost(error));
        if error.is_timeout() {
            self.error(ErrorClass::Timeout, format!("no answer in time: {cause}"))
        } else if error.is_builder() {
            self.error(ErrorClass::Invalid, format!("the request could not be written: {cause}"))
        } else if error.is_redirect() {
            self.error(ErrorClass::Invalid, format!("redirected too often: {cause}"))
        } else if error.is_connect() {
            self.error(ErrorClass::Connection, format!("no connection: {cause}"))
        } else {
            self.error(ErrorClass::Connection, format!("the connection was cut: {cause}"))
        }
    }

    /// A provider's words: one line, short, without the key.
    fn quote(&self, words: &str) -> String {
        let words = match self.key {
            Some(key) if !key.expose_secret().is_empty() => {
                words.replace(key.expose_secret(), "[key]")
            }
            Some(_) | None => words.to_owned(),
        };
        let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut line: String = line.chars().filter(|c| !c.is_control()).collect();
        if let Some((end, _)) = line.char_indices().nth(QUOTE_CHARS_MAX) {
            line.truncate(end);
            line.push('…');
        }
        line
    }
}

/// The cause at the bottom: the transport's upper layers name the URL, which may hold a secret.
fn innermost(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.last().map_or_else(|| "no cause given".to_owned(), ToString::to_string)
}

/// Classes a refusal, with the words of its body.
fn refusal(status: u16, body: &str) -> (ErrorClass, String) {
    let Ok(body_json) = serde_json::from_str::<Value>(body) else {
        return (class_of_status(status), body.to_owned());
    };
    let said = Said::read(&body_json);
    let by_status = class_of_status(status);
    // A body may be more precise than its status, but cannot excuse a failed server or a bad key.
    let class = match by_status {
        ErrorClass::Invalid | ErrorClass::RateLimit => said.class().unwrap_or(by_status),
        ErrorClass::Auth
        | ErrorClass::Quota
        | ErrorClass::Server
        | ErrorClass::Connection
        | ErrorClass::Timeout
        | ErrorClass::ContextLength
        | ErrorClass::Garbled
        | ErrorClass::NotRecorded => by_status,
    };
    (class, said.words())
}

fn class_of_status(status: u16) -> ErrorClass {
    match status {
        401 | 403 => ErrorClass::Auth,
        402 => ErrorClass::Quota,
        408 => ErrorClass::Timeout,
        413 => ErrorClass::ContextLength,
        429 => ErrorClass::RateLimit,
        409 | 425 | 500.. => ErrorClass::Server,
        _ => ErrorClass::Invalid,
    }
}

/// What an error body says, in either wire format and in the dialects of gateways.
struct Said<'a> {
    kind: &'a str,
    code: &'a Value,
    message: &'a str,
}

impl<'a> Said<'a> {
    fn read(body: &'a Value) -> Self {
        let error = match &body["error"] {
            Value::Null => body,
            inner => inner,
        };
        let message = [&error["message"], error, &body["message"], &body["detail"]];
        Self {
            kind: error["type"].as_str().unwrap_or_default(),
            code: &error["code"],
            message: message.into_iter().find_map(Value::as_str).unwrap_or_default(),
        }
    }

    fn words(&self) -> String {
        let code = self.code.as_str().filter(|code| *code != self.kind).unwrap_or_default();
        let parts = [self.kind, code, self.message].into_iter().filter(|part| !part.is_empty());
        let words = parts.collect::<Vec<_>>().join(": ");
        if words.is_empty() { "no reason given".to_owned() } else { words }
    }

    fn class(&self) -> Option<ErrorClass> {
        let code = self.code.as_str().unwrap_or_default();
        [code, self.kind]
            .into_iter()
            .find_map(class_of_word)
            .or_else(|| class_of_sentence(self.message))
            .or_else(|| {
                let status = u16::try_from(self.code.as_u64()?).ok()?;
                Some(class_of_status(status))
            })
            .or_else(|| (self.kind == "invalid_request_error").then_some(ErrorClass::Invalid))
    }
}

/// `invalid_request_error` is not here: it is what both providers call all they have no word for.
fn class_of_word(word: &str) -> Option<ErrorClass> {
    Some(match word {
        "authentication_error" | "permission_error" | "invalid_api_key" => ErrorClass::Auth,
        "insufficient_quota"
        | "billing_error"
        | "billing_hard_limit_reached"
        | "billing_not_active" => ErrorClass::Quota,
        "rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests" => ErrorClass::RateLimit,
        "overloaded_error" | "api_error" | "server_error" | "internal_server_error" => {
            ErrorClass::Server
        }
        "timeout_error" => ErrorClass::Timeout,
        "context_length_exceeded" | "request_too_large" | "string_above_max_length" => {
            ErrorClass::ContextLength
        }
        _ => return None,
    })
}

/// The two cases that some providers tell apart in prose only.
fn class_of_sentence(message: &str) -> Option<ErrorClass> {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["credit balance is too low", "exceeded your current quota", "insufficient credits"]) {
        Some(ErrorClass::Quota)
    } else if says(&[
        "prompt is too long",
        "maximum context length",
        "context window",
        "exceeds the context",
        "context size",
    ]) {
        Some(ErrorClass::ContextLength)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_class_and_the_body_may_be_more_precise() {
        use ErrorClass as Class;
        let openai = |kind: &str, code: &str, message: &str| {
            serde_json::json!({"error": {"type": kind, "code": code, "message": message}})
                .to_string()
        };
        let anthropic = |kind: &str, message: &str| {
            serde_json::json!({"type": "error", "error": {"type": kind, "message": message}})
                .to_string()
        };
        let cases = [
            (401, openai("invalid_request_error", "invalid_api_key", "no"), Class::Auth),
            (403, anthropic("permission_error", "no"), Class::Auth),
            (402, String::new(), Class::Quota),
            (429, openai("insufficient_quota", "insufficient_quota", "pay"), Class::Quota),
            (429, openai("tokens", "rate_limit_exceeded", "slow down"), Class::RateLimit),
            (429, anthropic("rate_limit_error", "slow down"), Class::RateLimit),
            (429, "<html>busy</html>".into(), Class::RateLimit),
            (
                400,
                anthropic("invalid_request_error", "Your credit balance is too low"),
                Class::Quota,
            ),
            (
                400,
                anthropic("invalid_request_error", "prompt is too long: 2 > 1"),
                Class::ContextLength,
            ),
            (
                400,
                openai("invalid_request_error", "context_length_exceeded", "x"),
                Class::ContextLength,
            ),
            (400, openai("invalid_request_error", "", "unknown field"), Class::Invalid),
            (
                404,
                openai("invalid_request_error", "model_not_found", "no such model"),
                Class::Invalid,
            ),
            (413, anthropic("request_too_large", "x"), Class::ContextLength),
            (422, r#"{"detail": "bad"}"#.into(), Class::Invalid),
            (408, String::new(), Class::Timeout),
            (500, openai("server_error", "", "x"), Class::Server),
            (529, anthropic("overloaded_error", "x"), Class::Server),
            (503, openai("invalid_request_error", "invalid_api_key", "x"), Class::Server),
        ];
        for (status, body, class) in cases {
            assert_eq!(refusal(status, &body).0, class, "{status} {body}");
        }
    }

    #[test]
    fn an_error_within_a_stream_is_classed_by_its_words_or_its_code() {
        let class = |body: Value| Said::read(&body).class();
        let anthropic = serde_json::json!({"type": "error", "error": {"type": "overloaded_error"}});
        assert_eq!(class(anthropic), Some(ErrorClass::Server));
        let gateway = serde_json::json!({"code": 429, "message": "busy"});
        assert_eq!(class(gateway), Some(ErrorClass::RateLimit));
        assert_eq!(class(serde_json::json!({"message": "hm"})), None);
        assert_eq!(class(serde_json::json!("hm")), None);
    }

    #[test]
    fn a_body_is_quoted_shortly_on_one_line_and_without_the_key() {
        let key = SecretString::from("sk-very-secret");
        let blame = Blame { model: "m", key: Some(&key), now: Timestamp(0) };
        let quote = blame.quote(&format!("bad key\n sk-very-secret\u{7}! {}", "x".repeat(1000)));
        assert!(quote.starts_with("bad key [key]! xxx"), "{quote}");
        assert_eq!(quote.chars().count(), QUOTE_CHARS_MAX + 1);
    }
}

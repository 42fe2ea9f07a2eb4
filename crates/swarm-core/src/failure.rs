//! Failures as values: what went wrong, what kind it is, and whether trying again may help.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What may be done about a failure. A variant, never a guess from text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// The same again may work.
    Retry,
    /// The same again will fail again.
    Fatal,
}

/// A node's failure, as stored and as `error` in expressions.
#[derive(Clone, Debug, Deserialize, Eq, Error, JsonSchema, PartialEq, Serialize)]
#[error("{class}: {message}")]
pub struct Failure {
    /// A short, stable word for the kind: `io`, `timeout`, `rate_limit`, `invalid_plan`.
    pub class: String,
    /// What happened, where, and what would be right; a lowercase fragment.
    pub message: String,
    /// Whether a retry may help.
    pub remedy: Remedy,
    /// How long the other side asked us to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure that a retry will not mend.
    #[must_use]
    pub fn fatal(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class: class.into(),
            message: message.into(),
            remedy: Remedy::Fatal,
            retry_after_ms: None,
        }
    }

    /// A failure that a retry may mend.
    #[must_use]
    pub fn retryable(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class: class.into(),
            message: message.into(),
            remedy: Remedy::Retry,
            retry_after_ms: None,
        }
    }

    /// The same failure, not to be retried before `wait` has passed.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }
}

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

/// Class `io`. What will be the same next time (no such file, no permission, bad data) is fatal;
/// everything else may pass by itself.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::Unsupported => Self::fatal("io", error.to_string()),
            _ => Self::retryable("io", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_missing_file_is_not_tried_again_and_a_broken_line_is() {
        let remedy = |kind: ErrorKind| Failure::from(Error::from(kind)).remedy;
        assert_eq!(remedy(ErrorKind::NotFound), Remedy::Fatal);
        assert_eq!(remedy(ErrorKind::ConnectionReset), Remedy::Retry);
        assert_eq!(
            Failure::from(Error::other("the disk is full")).to_string(),
            "io: the disk is full"
        );
    }
}

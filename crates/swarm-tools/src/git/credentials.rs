//! What git needs to be let in: variables for the one child that talks to the origin.
//!
//! They never stand in an argument or in an address, where every process could read them.

use secrecy::{ExposeSecret as _, SecretString};

/// The credentials of one call; none for a local path.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    env: Vec<(String, SecretString)>,
}

impl Credentials {
    /// No credentials.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One more variable of the child's environment: `GIT_ASKPASS` with the program that answers,
    /// `GIT_CONFIG_COUNT`, `GIT_CONFIG_KEY_0`, `GIT_CONFIG_VALUE_0` with `http.extraHeader`, or
    /// `SSH_AUTH_SOCK`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: SecretString) -> Self {
        self.env.push((name.into(), value));
        self
    }

    pub(crate) fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.expose_secret()))
    }

    /// The text without any of the secrets, for messages.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.env
            .iter()
            .map(|(_, value)| value.expose_secret())
            .filter(|secret| secret.len() >= 6)
            .fold(text.to_owned(), |text, secret| text.replace(secret, "[secret]"))
    }
}

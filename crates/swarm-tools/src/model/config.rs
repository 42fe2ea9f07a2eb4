//! Which model to ask, where, with which key, how patiently and at what price.
//!
//! The key comes in as a value: reading the environment or a secret's file is the host's business.
//! A base URL without one is the provider's own; any other makes an OpenAI-compatible server out of
//! Ollama, vLLM, OpenRouter, Azure or a gateway.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use super::price::Price;

/// Whose wire format a model speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// OpenAI's chat completions, also spoken by Ollama, vLLM, OpenRouter, Azure and many more.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
}

impl Provider {
    /// The name as written in configuration and in `PROVIDER:NAME`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    /// Where the provider itself answers.
    pub(crate) fn own_base_url(self) -> &'static str {
        match self {
            Self::OpenAi => "https://api.openai.com/v1/",
            Self::Anthropic => "https://api.anthropic.com/v1/",
        }
    }
}

/// A model's full name, written `PROVIDER:NAME`; the name may hold colons and slashes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ModelName {
    /// Whose wire format it speaks.
    pub provider: Provider,
    /// Its name at the provider, such as `qwen3:8b`.
    pub name: String,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider.as_str(), self.name)
    }
}

impl FromStr for ModelName {
    type Err = InvalidModelName;

    fn from_str(text: &str) -> Result<Self, InvalidModelName> {
        let invalid = || InvalidModelName { text: text.chars().take(80).collect() };
        let (provider, name) = text.split_once(':').ok_or_else(invalid)?;
        let provider = match provider {
            "openai" => Provider::OpenAi,
            "anthropic" => Provider::Anthropic,
            _ => return Err(invalid()),
        };
        let is_name =
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        if is_name { Ok(Self { provider, name: name.to_owned() }) } else { Err(invalid()) }
    }
}

/// A text that does not name a model.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "`{text}` is not a model: write PROVIDER:NAME, such as `anthropic:NAME` or `openai:NAME`; known providers: anthropic, openai"
)]
pub struct InvalidModelName {
    /// The text as found, cut to 80 characters.
    pub text: String,
}

/// One model and how to ask it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Whose wire format it speaks.
    pub provider: Provider,
    /// Its name at the provider.
    pub name: String,
    /// Where it answers; the provider's own address when absent. With or without a final slash; a
    /// query (`?api-version=…`) is kept.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub base_url: Option<Url>,
    /// The key; none for a server that wants none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub key: Option<SecretString>,
    /// What it costs; nothing when absent.
    #[serde(default)]
    pub price: Option<Price>,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How often and how soon to try again.
    #[serde(default)]
    pub retries: Retries,
    /// The most tokens the model can answer with; a request that asks for more asks for these.
    #[serde(default)]
    pub tokens_max: Option<u32>,
    /// How hard it should think; the provider's default when absent.
    #[serde(default)]
    pub effort: Option<Effort>,
    /// How a demanded JSON schema reaches it.
    #[serde(default)]
    pub structure: Structure,
}

impl ModelConfig {
    /// A model with all else left to its default.
    #[must_use]
    pub fn new(model: ModelName) -> Self {
        Self {
            provider: model.provider,
            name: model.name,
            base_url: None,
            key: None,
            price: None,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            tokens_max: None,
            effort: None,
            structure: Structure::default(),
        }
    }

    /// The full name, as turns and errors carry it.
    #[must_use]
    pub fn model_name(&self) -> ModelName {
        ModelName { provider: self.provider, name: self.name.clone() }
    }
}

/// How long one attempt may wait. These run on the real clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From the request to the first bytes of the response, the connection included.
    #[serde(with = "duration_text")]
    #[schemars(with = "String")]
    pub header: Duration,
    /// From one piece of the response to the next.
    #[serde(with = "duration_text")]
    #[schemars(with = "String")]
    pub read: Duration,
    /// From the request to the last piece.
    #[serde(with = "duration_text")]
    #[schemars(with = "String")]
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(120),
            read: Duration::from_secs(180),
            total: Duration::from_secs(20 * 60),
        }
    }
}

/// How often and how soon a failed attempt is tried again. Waits run on the port's clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// The most attempts, the first included; at least one is made.
    pub attempts_max: u32,
    /// The wait after the first failed attempt; it doubles from there.
    #[serde(with = "duration_text")]
    #[schemars(with = "String")]
    pub initial: Duration,
    /// The longest wait. A provider that asks for a longer one is not waited for in here: the error
    /// goes to the caller at once, with the asked time, and the caller can wait without a worker.
    #[serde(with = "duration_text")]
    #[schemars(with = "String")]
    pub max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts_max: 5, initial: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

/// How hard a model should think.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// Not at all.
    None,
    /// A little.
    Low,
    /// In between.
    Medium,
    /// Much.
    High,
    /// As much as it can.
    Max,
}

/// How a demanded JSON schema reaches the model.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Structure {
    /// As the provider's own structured output. When the provider refuses such a request, the
    /// model is instructed instead, from then on.
    #[default]
    Native,
    /// As an instruction at the end of the system prompt, for servers that know no better.
    Instruct,
}

/// Durations as people write them: `30s`, `5m`.
mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("`{text}` is not a duration such as `30s` or `5m`: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_by_provider_and_name_and_prints_the_same() {
        for text in ["openai:qwen3:8b", "anthropic:claude-x", "openai:meta/llama-4"] {
            assert_eq!(text.parse::<ModelName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_text_that_names_no_model_is_refused_with_the_form() {
        for text in ["gpt", "google:gemini", "openai:", ":x", "openai:a b"] {
            assert!(text.parse::<ModelName>().is_err(), "{text}");
        }
        insta::assert_snapshot!("google:x".parse::<ModelName>().unwrap_err(), @"`google:x` is not a model: write PROVIDER:NAME, such as `anthropic:NAME` or `openai:NAME`; known providers: anthropic, openai");
    }

    #[test]
    fn a_configuration_reads_durations_in_words_and_hides_its_key() {
        let config: ModelConfig = serde_yaml::from_str(
            "provider: openai\nname: m\nkey: sk-secret\ntimeouts: { read: 5m }\nretries: { attempts_max: 2 }\n",
        )
        .unwrap();
        assert_eq!(config.timeouts.read, Duration::from_secs(300));
        assert_eq!(config.timeouts.header, Timeouts::default().header);
        assert_eq!((config.retries.attempts_max, config.retries.max), (2, Retries::default().max));
        assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    }

    #[test]
    fn an_unknown_key_of_a_configuration_is_refused() {
        let error = serde_yaml::from_str::<ModelConfig>("provider: openai\nname: m\ntimeout: 5s\n");
        assert!(error.unwrap_err().to_string().contains("timeout"));
    }
}

//! A model behind HTTP: one attempt is a stream read to its end, or an error.
//!
//! The text that a listener hears may belong to an attempt that fails: [`TurnListener::retrying`]
//! makes it void. Only what [`RemoteModel::chat`] returns is the turn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::ChatStreamEvent;
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, Headers, ModelIden, ServiceTarget};
use secrecy::ExposeSecret;
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::port::model::{
    ChatModel, ChatRequest, ChatTurn, Error, ErrorClass, TurnListener, Usage,
};
use swarm_core::spend::Spend;
use thiserror::Error as ThisError;
use url::Url;

use super::config::{ModelConfig, Provider, Structure};
use super::fault::Blame;
use super::retry;
use super::wire::{self, NoTurn};

/// The version of the messages API that we speak.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// An OpenAI-compatible or Anthropic model.
pub struct RemoteModel {
    config: ModelConfig,
    model: String,
    url: Url,
    client: Client,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Set once the provider has refused a native schema and taken an instruction instead.
    instructs: AtomicBool,
}

impl fmt::Debug for RemoteModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteModel").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A configuration that no request can be made from.
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
#[error("model `{model}`: {problem}")]
pub struct InvalidConfig {
    /// The model's full name.
    pub model: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl RemoteModel {
    /// A model that is asked through `http`, whose proxy, egress rules and connections it shares.
    ///
    /// # Errors
    /// An invalid configuration: when the base URL is not http(s) or holds a name or password.
    pub fn new(
        config: ModelConfig,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, InvalidConfig> {
        let model = config.model_name().to_string();
        let invalid =
            |problem: &str| InvalidConfig { model: model.clone(), problem: problem.to_owned() };
        let url = endpoint(&config).map_err(invalid)?;
        let client = Client::builder()
            .with_reqwest(http)
            .build()
            .map_err(|_| invalid("the HTTP client cannot be used"))?;
        Ok(Self { config, model, url, client, clock, entropy, instructs: AtomicBool::new(false) })
    }

    fn blame(&self) -> Blame<'_> {
        Blame { model: &self.model, key: self.config.key.as_ref(), now: self.clock.now() }
    }

    /// The schema's way to the model, given what the provider has refused so far.
    fn structure(&self) -> Structure {
        if self.instructs.load(Ordering::Relaxed) {
            Structure::Instruct
        } else {
            self.config.structure
        }
    }

    /// One attempt, and a second one with an instruction when a native schema was refused: a
    /// provider that knows no schemas, or not this one, says the same "invalid" as for all else.
    async fn attempt(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let structure = self.structure();
        let error = match self.stream(request, structure, listener).await {
            Ok(turn) => return Ok(turn),
            Err(error) => error,
        };
        let native = request.answer_schema.is_some() && structure == Structure::Native;
        if !native || error.class != ErrorClass::Invalid {
            return Err(error);
        }
        listener.retrying(1, Duration::ZERO, &error);
        match self.stream(request, Structure::Instruct, listener).await {
            Ok(turn) => {
                tracing::warn!(model = %self.model, %error, "The provider refuses the schema; the model is instructed instead.");
                self.instructs.store(true, Ordering::Relaxed);
                Ok(turn)
            }
            Err(second) if second.class == ErrorClass::Invalid => Err(error),
            Err(second) => Err(second),
        }
    }

    async fn stream(
        &self,
        request: &ChatRequest,
        structure: Structure,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let total = self.config.timeouts.total;
        tokio::time::timeout(total, self.read(request, structure, listener)).await.unwrap_or_else(
            |_| {
                let message =
                    format!("no whole answer within {}", humantime::format_duration(total));
                Err(self.blame().error(ErrorClass::Timeout, message))
            },
        )
    }

    async fn read(
        &self,
        request: &ChatRequest,
        structure: Structure,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let (outgoing, options) = wire::outgoing(&self.config, request, structure);
        let blamed = |error: genai::Error| self.blame().of_genai(&error);
        let response = self
            .client
            .exec_chat_stream(self.target(), outgoing, Some(&options))
            .await
            .map_err(blamed)?;
        let mut stream = response.stream;
        let bytes_max = answer_bytes_max(options.max_tokens);
        let (mut spoken, mut called) = (0, 0);
        while let Some(event) = stream.next().await {
            match event.map_err(blamed)? {
                ChatStreamEvent::Start | ChatStreamEvent::Heartbeat => continue,
                ChatStreamEvent::Chunk(piece) => {
                    spoken += piece.content.len();
                    listener.text(&piece.content);
                }
                ChatStreamEvent::ReasoningChunk(piece)
                | ChatStreamEvent::ThoughtSignatureChunk(piece) => spoken += piece.content.len(),
                // Holds all the arguments so far.
                ChatStreamEvent::ToolCallChunk(chunk) => {
                    let so_far = chunk.tool_call.fn_arguments.as_str().map_or(0, str::len);
                    called = so_far.max(called + 1);
                }
                ChatStreamEvent::End(end) => {
                    let price = self.config.price.as_ref();
                    let turn = wire::turn(self.model.clone(), price, request, end);
                    return turn.map_err(|no_turn| self.no_turn(no_turn));
                }
            }
            if spoken.max(called) > bytes_max {
                let message = format!(
                    "the answer is longer than {bytes_max} bytes, more than its token limit allows"
                );
                return Err(self.blame().error(ErrorClass::Invalid, message));
            }
        }
        Err(if spoken + called > 0 {
            self.blame()
                .error(ErrorClass::Connection, "the stream ended in the middle of the answer")
        } else {
            self.blame()
                .error(ErrorClass::Garbled, "the response holds no answer in the wire format")
        })
    }

    fn no_turn(&self, no_turn: NoTurn) -> Error {
        match no_turn {
            NoTurn::Cut => self
                .blame()
                .error(ErrorClass::Connection, "the stream ended without a reason to stop"),
            NoTurn::Failed(word) => {
                let message = format!("the provider stopped with `{word}`");
                self.blame().error(ErrorClass::Server, message)
            }
        }
    }

    /// Where and as whom. The URL and the headers are ours: genai would drop a base URL's last
    /// part, look for keys in the environment, and refuse to ask without one.
    fn target(&self) -> ServiceTarget {
        let key = self.config.key.as_ref().map(ExposeSecret::expose_secret);
        let headers: Vec<(String, String)> = match self.config.provider {
            Provider::OpenAi => key
                .map(|key| ("authorization".to_owned(), format!("Bearer {key}")))
                .into_iter()
                .collect(),
            Provider::Anthropic => key
                .map(|key| ("x-api-key".to_owned(), key.to_owned()))
                .into_iter()
                .chain([("anthropic-version".to_owned(), ANTHROPIC_VERSION.to_owned())])
                .collect(),
        };
        let kind = match self.config.provider {
            Provider::OpenAi => AdapterKind::OpenAI,
            Provider::Anthropic => AdapterKind::Anthropic,
        };
        ServiceTarget {
            endpoint: Endpoint::from_static(self.config.provider.own_base_url()),
            auth: AuthData::RequestOverride {
                url: self.url.to_string(),
                headers: Headers::from(headers),
            },
            model: ModelIden::new(kind, self.config.name.as_str()),
        }
    }
}

#[async_trait]
impl ChatModel for RemoteModel {
    fn estimate(&self, request: &ChatRequest) -> Spend {
        let output =
            self.config.tokens_max.map_or(request.tokens_max, |most| request.tokens_max.min(most));
        let usage = Usage { input: wire::size(request), cached: 0, output: u64::from(output) };
        let price = self.config.price.as_ref();
        let usd = price.map(|price| price.of(usage, usage.input)).unwrap_or_default();
        Spend { usd, tokens: usage.input + usage.output }
    }

    async fn chat(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(request, listener).await {
                Ok(turn) => return Ok(turn),
                Err(error) => error,
            };
            let wait = retry::wait(&self.config.retries, attempt, &error, &*self.entropy);
            let Some(wait) = wait else { return Err(error) };
            tracing::warn!(
                model = %self.model, role = %request.role, conversation = %request.conversation,
                attempt, wait_ms = wait.as_millis(), %error, "A model call failed and will be tried again."
            );
            listener.retrying(attempt, wait, &error);
            self.clock.sleep(wait).await;
            attempt += 1;
        }
    }
}

/// How long an answer of so many tokens can be: a token may stand for a long run of spaces.
fn answer_bytes_max(tokens_max: Option<u32>) -> usize {
    let tokens = usize::try_from(tokens_max.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
    tokens.saturating_mul(128).saturating_add(64 * 1024)
}

/// The URL of a chat: the base, with or without its final slash, and the wire format's last part.
fn endpoint(config: &ModelConfig) -> Result<Url, &'static str> {
    let own = || Url::parse(config.provider.own_base_url()).map_err(|_| "no base URL");
    let mut url = config.base_url.clone().map_or_else(own, Ok)?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("the base URL must start with `http://` or `https://`");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the base URL holds a name or password: give the key as `key`");
    }
    let last = match config.provider {
        Provider::OpenAi => "chat/completions",
        Provider::Anthropic => "messages",
    };
    let path = format!("{}/{last}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(provider: &str, base: &str) -> Result<String, &'static str> {
        let mut config = ModelConfig::new(format!("{provider}:m").parse().unwrap());
        config.base_url = Some(base.parse().unwrap());
        endpoint(&config).map(|url| url.to_string())
    }

    #[test]
    fn a_base_url_keeps_its_path_and_query_with_or_without_a_final_slash() {
        for (provider, base, whole) in [
            ("openai", "http://localhost:11434/v1", "http://localhost:11434/v1/chat/completions"),
            (
                "openai",
                "https://openrouter.ai/api/v1/",
                "https://openrouter.ai/api/v1/chat/completions",
            ),
            (
                "openai",
                "https://a.example/openai?api-version=1",
                "https://a.example/openai/chat/completions?api-version=1",
            ),
            ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
            ("openai", "http://localhost:1", "http://localhost:1/chat/completions"),
        ] {
            assert_eq!(url(provider, base).as_deref(), Ok(whole));
        }
    }

    #[test]
    fn a_base_url_with_a_password_or_without_http_is_refused() {
        assert!(url("openai", "https://me:secret@a.example/v1").is_err());
        assert!(url("openai", "file:///etc/passwd").is_err());
    }
}

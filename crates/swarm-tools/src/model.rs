//! Models: OpenAI-compatible and Anthropic, recorded and replayed.
//!
//! Layers, each a [`ChatModel`](swarm_core::port::model::ChatModel) around the next, in this order:
//!
//! ```text
//! RecordingModel ─ FallbackModel ─┬─ RemoteModel (retries inside) ─ genai ─ HTTP
//!                                 └─ RemoteModel …
//! ReplayModel                     (alone: answers from a recording, without a network)
//! ```
//!
//! No layer judges what the model says: [`answer`] holds the checks, and the words in which a model
//! is told what was wrong. No price is built in: an unpriced model costs nothing here, whatever its
//! provider charges.

pub mod answer;
pub mod config;
mod fallback;
mod fault;
pub mod price;
mod record;
pub mod recording;
mod remote;
mod replay;
mod retry;
#[cfg(feature = "testkit")]
pub mod testkit;
mod wire;

pub use config::{ModelConfig, ModelName, Provider};
pub use fallback::FallbackModel;
pub use price::Price;
pub use record::RecordingModel;
pub use remote::RemoteModel;
pub use replay::ReplayModel;

//! Models: OpenAI-compatible and Anthropic, recorded and replayed.

#[cfg(feature = "testkit")]
pub mod testkit;

//! Models: OpenAI-compatible and Anthropic, recorded and replayed.

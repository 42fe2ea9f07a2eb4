//! Node kinds and state types by name.

//! Forges: where issues and pull requests live.

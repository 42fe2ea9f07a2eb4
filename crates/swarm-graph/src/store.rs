//! Stores behind the port, each behind a feature.

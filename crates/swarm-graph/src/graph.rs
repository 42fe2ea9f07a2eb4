//! The checked graph.

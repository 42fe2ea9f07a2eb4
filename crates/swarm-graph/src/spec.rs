//! The text of a graph file, mirrored field by field; no meaning.

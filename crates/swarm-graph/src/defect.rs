//! What is wrong with a graph file, and where.

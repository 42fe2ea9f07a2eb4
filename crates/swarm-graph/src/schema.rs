//! JSON schemas: of the graph file, and what fits what.

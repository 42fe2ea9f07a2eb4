//! Git on the host: mirrors, commits made from data, pushes.

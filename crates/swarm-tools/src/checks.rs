//! The repository's own tests and linters: found, run, and read as data.

//! Expressions: CEL inside `${{ }}`, checked at load.

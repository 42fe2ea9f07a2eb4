//! The merge gate: a pure decision over what the forge says now.

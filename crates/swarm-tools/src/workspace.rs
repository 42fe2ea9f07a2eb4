//! A working tree of its own for each run.

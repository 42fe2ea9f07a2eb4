//! The loop: plan, run, reduce, commit.

//! Checkpoint and signals in, checkpoint out; pure.

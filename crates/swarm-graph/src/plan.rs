//! Graph and checkpoint in, the next superstep out; pure.

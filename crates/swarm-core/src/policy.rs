//! Policies on a change: what needs a person, judged on the diff.

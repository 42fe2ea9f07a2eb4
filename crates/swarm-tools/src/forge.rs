//! Forges: where issues and pull requests live.
//!
//! One file each: [`local`] is any git repository on disk, with issues and pull requests in the
//! store. All speak [`swarm_core::port::forge`], whose objects are GitHub's.

pub mod local;

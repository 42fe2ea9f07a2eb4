//! The outside, one thing each: a port of `swarm-core` in, a client of the real thing behind it.
//!
//! Nothing here knows of graphs, queues or the fate of a run: a tool is given what it needs and
//! says what happened. What a newcomer gets wrong: **text from outside is data**. Issues,
//! repositories and models are quoted, checked and bounded here, and no token ever reaches a
//! command that one of them caused.
//!
//! | you look for | module | port |
//! | --- | --- | --- |
//! | the host's own clones, commits as data, pushes | [`git`] | |
//! | the working tree of a run, its snapshots | [`workspace`] | |
//! | issues, pull requests, reviews, merging | [`forge`] | [`swarm_core::port::forge`] |
//! | language models, recording and replaying them | [`model`] | [`swarm_core::port::model`] |
//! | walls around commands | [`sandbox`] | [`swarm_core::port::sandbox`] |
//! | what a model may call: read, edit, search, shell | [`toolbox`] | [`swarm_core::port::tool`] |
//! | a repository's own tests and linters | [`checks`] | |
//! | prompts as templates, and quoting in them | [`prompt`] | |
//!
//! # How a change leaves a workspace
//!
//! ```text
//!  origin ──fetch──▶ mirror (bare, the host's) ──checkout──▶ workspace/tree ◀── sandboxed commands
//!    ▲                    ▲                                        │
//!    └────push────────────┴──── blobs, trees, commit as data ◀─────┘  (git never runs in the tree)
//! ```
//!
//! # Where to start
//!
//! [`git::Mirrors`] and [`workspace::Workspaces`] give a run its files; [`sandbox::detect`] gives
//! the strongest walls that work on this machine; [`model::RemoteModel`] and
//! [`model::ReplayModel`] answer; [`forge::local::LocalForge`] is a forge without an account. With
//! the feature `testkit` there is a server that speaks the models' wire formats, faults included.
//!
//! A recording stands in for a model wherever one is wanted:
//!
//! ```
//! use swarm_tools::model::ReplayModel;
//!
//! let recording = "
//! role: manager
//! conversation: manager/plan#1
//! turn: 0
//! text: Nothing to do.
//! ";
//! assert!(ReplayModel::from_text("an example", recording).is_ok());
//! ```

pub mod checks;
pub mod forge;
pub mod git;
pub mod model;
pub mod prompt;
pub mod sandbox;
pub mod toolbox;
pub mod workspace;

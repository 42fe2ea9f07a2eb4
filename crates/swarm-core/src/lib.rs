//! The words, the rules and the ports of DevinSwarm.
//!
//! Nothing here does I/O, reads a clock, draws a random number or spawns a task: time, ids and
//! chance come in as arguments, and the ports are declared here but awaited elsewhere. A type here
//! is a word of the glossary; a pure function here is a rule that can be replayed.
//!
//! | you look for | module |
//! | --- | --- |
//! | ids, names, moments, money | [`id`], [`time`], [`spend`] |
//! | a run, its status, its limits | [`run`] |
//! | state, cursor, steps as stored | [`checkpoint`] |
//! | how channels take updates | [`reducer`] |
//! | what went wrong, as a value | [`failure`] |
//! | questions to people | [`escalation`] |
//! | facts as stored and streamed | [`event`] |
//! | when a merge is allowed | [`gate`] |
//! | a change, as data | [`diff`] |
//! | which changes need a person, and path patterns | [`policy`], [`paths`] |
//! | what the outside must do | [`port`] |
//!
//! # Where to start
//!
//! [`run::RunStatus::may_become`] is the life of a run in one `match`; [`gate::decide`] says
//! whether a pull request may be merged and, if not, every reason; [`policy::judge`] says what in
//! a change needs a person; [`port::store::Store`] is what a store must hold to. An engine runs
//! graphs on these in `swarm-graph`, clients of the outside fill the other ports in `swarm-tools`.
//!
//! A question to a person is a value, and so is every way to say it:
//!
//! ```
//! use swarm_core::escalation::{Ask, Reason};
//!
//! let ask = Ask::choice(Reason::TestsFailing, "Two tests fail. Try again?", &["retry", "stop"]);
//! assert_eq!(ask.reason.title(), "Tests keep failing");
//! assert_eq!(ask.answer_schema["properties"]["choice"]["enum"][0], "retry");
//! ```

pub mod checkpoint;
pub mod diff;
pub mod escalation;
pub mod event;
pub mod failure;
pub mod gate;
pub mod id;
pub mod paths;
pub mod policy;
pub mod port;
pub mod reducer;
pub mod run;
pub mod spend;
pub mod time;

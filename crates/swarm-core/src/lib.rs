//! The words, the rules and the ports of DevinSwarm.
//!
//! Nothing here does I/O, reads a clock, draws a random number or spawns a task: time, ids and
//! chance come in as arguments, and the ports are declared here but awaited elsewhere.
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

//! The host: node kinds of the roles, configuration, wiring, command line.
//!
//! It is a library with a small `main.rs`, so that a host of your own, with other node kinds or
//! other graphs, is about twenty lines. What a newcomer gets wrong: the rules are not here. What
//! may merge, what needs a person and what a run may spend is decided in `swarm-core`; what comes
//! after what is decided in `graphs/*.yaml`.
//!
//! | you look for | module |
//! | --- | --- |
//! | the node kinds `swarm/…` of a role | [`manager`], [`dev`], [`reviewer`], [`ops`] |
//! | the loop of model turns and tool calls that they share | [`agent`] |
//! | what roles hand to each other: issue, plan, task, change | [`handover`] |
//! | what node kinds are built from | [`parts`] |
//! | which implementation is behind a port | [`wire`] |
//! | `swarm.yaml`, environment, flags | [`config`], [`cli`] |
//! | a subcommand | [`command`] |
//! | an issue as typed, and the id of its run | [`order`] |
//! | who claims runs, how it stops, and who of them lives | [`worker`], [`life`] |
//! | what people see of a run, and the final object for scripts | [`progress`] |
//! | the graphs and prompts that are part of the program | [`defaults`] |
//! | logs | [`telemetry`] |
//!
//! # Where to start
//!
//! `main` is a call of [`start`], which reads the arguments and runs a command. [`HostBuilder`]
//! puts a [`Host`] together: a registry of node kinds, the graphs, the store, and an engine. A
//! host of your own adds to the builder:
//!
//! ```no_run
//! use async_trait::async_trait;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use swarm_graph::node::{Node, NodeContext, NodeError};
//!
//! /// `acme/greet`: a node kind that graphs can use beside the built-in ones.
//! struct Greet {
//!     word: String,
//! }
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Config {
//!     word: String,
//! }
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Input {
//!     name: String,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Output {
//!     greeting: String,
//! }
//!
//! #[async_trait]
//! impl Node for Greet {
//!     const KIND: &'static str = "acme/greet";
//!     type Config = Config;
//!     type Input = Input;
//!     type Output = Output;
//!
//!     async fn run(&self, _: &NodeContext, input: Input) -> Result<Output, NodeError> {
//!         Ok(Output { greeting: format!("{} {}", self.word, input.name) })
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     swarm_host::start(|host| {
//!         host.node::<Greet>(|config| Ok(Greet { word: config.word })).graphs_from("my-graphs")
//!     })
//! }
//! ```

pub mod agent;
pub mod cli;
pub mod command;
pub mod config;
pub mod defaults;
pub mod dev;
pub mod handover;
pub mod life;
pub mod manager;
pub mod ops;
pub mod order;
pub mod parts;
pub mod progress;
pub mod retention;
pub mod reviewer;
mod start;
pub mod telemetry;
pub mod wire;
pub mod worker;

pub use start::start;
pub use wire::{Host, HostBuilder};

//! Durable, typed graphs for long-running agent work: topology in YAML, nodes in Rust.
//!
//! A **graph** is a YAML file that is checked when it is loaded: every wrong name, type, cycle
//! and join is reported at once, with its line and column. A **run** executes it superstep by
//! superstep, and each superstep is one transaction, so a process may die at any instruction: the
//! next one goes on from there, and nothing that was paid for or done is paid for or done again.
//! A run that needs a person leaves a question in the store and costs nothing until the answer.
//!
//! ```
//! use std::sync::Arc;
//! use serde_json::json;
//! use swarm_graph::engine::{Control, Engine, StartOptions};
//! use swarm_graph::library::Library;
//! use swarm_graph::node::{Node, NodeContext, NodeError};
//! use swarm_graph::registry::Registry;
//! use swarm_graph::store::memory::MemoryStore;
//! use swarm_graph::swarm_core::id::{RunId, WorkerId};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Name { name: String }
//! #[derive(serde::Serialize, schemars::JsonSchema)]
//! struct Greeting { greeting: String }
//! struct Greet;
//!
//! #[async_trait::async_trait]
//! impl Node for Greet {
//!     const KIND: &'static str = "shop/greet";
//!     type Config = ();
//!     type Input = Name;
//!     type Output = Greeting;
//!     async fn run(&self, _ctx: &NodeContext, input: Name) -> Result<Greeting, NodeError> {
//!         Ok(Greeting { greeting: format!("Hello, {}!", input.name) })
//!     }
//! }
//!
//! const TEXT: &str = r#"
//! dsl: 1
//! graph: { name: hello, version: 1.0.0 }
//! input: { schema: { type: object, properties: { name: { type: string } }, required: [ name ] } }
//! state: { channels: { greeting: { schema: { type: string }, default: "" } } }
//! entry: greet
//! nodes:
//!   greet: { uses: shop/greet, with: { name: "${{ input.name }}" }, next: $end }
//! "#;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::new().node::<Greet>(|()| Ok(Greet));
//! let graph = swarm_graph::check::load_text(TEXT, &registry)?;
//! let engine = Engine::on(MemoryStore::new(), Library::new(registry).with(graph));
//! let run = RunId::new("hello-ada")?;
//! engine.start(run.clone(), "hello", json!({ "name": "Ada" }), StartOptions::default()).await?;
//! engine.work_on(&run, &WorkerId::new("me")?, &Control::default()).await?;
//! let output = engine.store().run(&run).await?.and_then(|run| run.output);
//! assert_eq!(output, Some(Arc::new(json!({ "greeting": "Hello, Ada!" }))));
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go on
//!
//! - [`check`] loads graphs; [`defect`] is what it finds; [`graph`] is a checked one; [`schema`]
//!   makes the JSON schema that editors complete by; [`dot`] draws, [`explain`] tells.
//! - [`node`] is what you write: a [`Node`](node::Node), and the [`NodeContext`](node::NodeContext)
//!   that keeps its journal ([`memo`](node::NodeContext::memo), [`spend`](node::NodeContext::spend),
//!   [`effect`](node::NodeContext::effect)) and [`ask`](node::NodeContext::ask)s people.
//!   [`registry`] gives nodes, types and reducers the names that graphs use.
//! - [`engine`] starts, drives, answers, signals and cancels runs; [`worker`] serves queues with
//!   many at once; [`stream`] is what happens in a run, live or later; [`live`] in all of them.
//! - [`replay`] plans a recorded run again and says where it would go another way today.
//! - [`diff`] compares two versions of a graph; [`migrate`] moves live runs to another one.
//! - [`store`] keeps it all: in memory, in SQLite, or in PostgreSQL. Its port is
//!   [`swarm_core::port::store::Store`], and a conformance suite comes with it.
//! - [`expr`] is the language inside `${{ }}`: CEL, checked at load.
//! - `testkit` (feature `testkit`): a virtual clock, seeded chance, and a store that dies at any
//!   write you like, to test your own nodes and graphs with.
//!
//! # What always holds
//!
//! - **Nothing unchecked runs.** A graph with a defect does not load; a run stays on the version
//!   that it was started with.
//! - **One transaction for each superstep.** A step that ends while others are at work is kept at
//!   once, and is not run again.
//! - **One writer.** A run belongs to whoever holds its lease; a worker that lost it can write
//!   nothing more.
//! - **Order is the graph's**, never that of finishing: the same answers give the same state.
//! - **A question has one answer**, which fits its schema.
//!
//! # What a newcomer gets wrong
//!
//! A node is run again from its first line after a crash, a retry or an answer. Whatever costs
//! money, changes the world or is not the same each time goes through the context, under a key.
//!
//! # Features
//!
//! - `sqlite` (default): the SQLite store, bundled.
//! - `postgres`: the PostgreSQL store.
//! - `testkit`: fakes and faults for tests.

pub use swarm_core;

/// Marks an instruction after which a crash may leave something half done: nothing at all without
/// the feature `testkit`.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(feature = "testkit")]
        {
            const { assert!(crate::testkit::is_crash_point($name), "not in CRASH_POINTS") };
            crate::testkit::reach($name).await;
        }
    };
}

pub mod archive;
pub mod cache;
mod cancel;
pub mod check;
pub mod defect;
pub mod diff;
pub mod dot;
mod drive;
pub mod engine;
pub mod explain;
pub mod expr;
mod first;
mod frame;
pub mod graph;
mod heartbeat;
pub mod information;
pub mod library;
pub mod live;
pub mod migrate;
pub mod node;
mod plan;
mod pool;
#[cfg(test)]
mod properties;
mod question;
mod race;
pub mod registry;
pub mod replay;
mod resume;
pub mod schema;
mod settle;
mod signal;
mod spec;
pub mod store;
pub mod stream;
pub mod system;
#[cfg(feature = "testkit")]
pub mod testkit;
mod timeout;
mod turn;
pub mod worker;

//! A scripted model server for tests: real HTTP on `127.0.0.1`, both wire formats, any misfortune.
//!
//! A script is a function from a request to a [`Step`], so that a whole swarm run can be scripted
//! by role, by conversation or by what the last message says. It is asked anew for each request: a
//! client that retries asks twice, and both are in [`ScriptedServer::requests`].
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use swarm_tools::model::testkit::{ScriptedServer, Step};
//!
//! let server = ScriptedServer::start(Box::new(|request| match request.turn() {
//!     0 => Step::tool("read_file", serde_json::json!({ "path": "README.md" })),
//!     _ => Step::text("It is about bees."),
//! }))
//! .await;
//! assert!(server.openai_base_url().as_str().ends_with("/v1/"));
//! # });
//! ```

mod anthropic;
mod openai;
mod request;
mod server;
mod step;

pub use request::{Wire, WireRequest};
pub use server::{Script, ScriptedServer};
pub use step::Step;

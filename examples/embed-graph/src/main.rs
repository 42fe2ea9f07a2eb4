//! A service of its own that embeds `swarm-graph`: one node kind, one graph, one SQLite file.
//!
//! `embed-graph DIR` starts the refund, or goes on with it where an earlier process ended, by
//! itself or by a crash; `embed-graph DIR pay LOGIN` answers its question first. What a newcomer
//! gets wrong: there is no "resume" to call. The same lines start a run and go on with it.

mod transfer;

use std::error::Error;
use std::io::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::escalation::{Answerer, BlockStatus};
use swarm_core::id::{RunId, WorkerId};
use swarm_graph::check::{self, Memory};
use swarm_graph::engine::{Control, Engine, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::live::LiveEvent;
use swarm_graph::registry::Registry;
use swarm_graph::store::sqlite::{Options, SqliteStore};
use tokio::sync::broadcast::Receiver;

use crate::transfer::Transfer;

/// What a run is started with: `input: { type: Refund }` in the graph.
#[derive(Deserialize, JsonSchema, Serialize)]
struct Refund {
    customer: String,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: embed-graph DIR [pay|refuse LOGIN]")?;
    std::fs::create_dir_all(&dir)?;

    // The graph is checked against what is registered: a misspelt kind or field stops here.
    let ledger = dir.clone();
    let registry = Registry::new()
        .ty_without_default::<Refund>("Refund")
        .node::<Transfer>(move |_config| Ok(Transfer { dir: (&ledger).into() }));
    let text = Memory::one("refund.yaml", include_str!("../refund.yaml"));
    let graph = check::load(&text, "refund.yaml", &registry)?;
    let store = SqliteStore::open(format!("{dir}/runs.db"), Options::default()).await?;
    let engine = Engine::on(store, Library::new(registry).with(graph));
    let printing = tokio::spawn(print(engine.subscribe()));

    // The id is ours: starting the refund of order 17 twice starts it once.
    let run = RunId::new("order-17")?;
    let refund = serde_json::to_value(Refund { customer: "ada".to_owned(), cents: 1200 })?;
    engine.start(run.clone(), "refund", refund, StartOptions::default()).await?;

    // Who may answer is this service's to check; the engine checks that the answer fits.
    if let (Some(choice), Some(login)) = (arguments.next(), arguments.next()) {
        for block in engine.store().blocks(Some(&run), Some(BlockStatus::Open)).await? {
            let by =
                Answerer { login: login.clone(), via: "cli".into(), permission: "write".into() };
            engine.answer(&block.id, json!({ "choice": choice }), by).await?;
        }
    }

    let worker = WorkerId::new(format!("embed-graph-{}", std::process::id()))?;
    let rest = engine.work_on(&run, &worker, &Control::default()).await?;
    drop(engine);
    printing.await??;
    writeln!(io::stdout(), "{rest:?}")?;
    Ok(())
}

/// Prints what happens, as it happens.
async fn print(mut events: Receiver<LiveEvent>) -> io::Result<()> {
    while let Ok(event) = events.recv().await {
        if let LiveEvent::Stored(event) = event {
            writeln!(io::stdout(), "{} {}", event.kind, event.data)?;
        }
    }
    Ok(())
}

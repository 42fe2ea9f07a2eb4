//! `shop/transfer`: the node kind of this service. It books a transfer and writes a letter.
//!
//! A node is run again from its first line after a crash, so nothing happens outside of `ctx`:
//! a memo keeps a value, an effect happens once.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::failure::Failure;
use swarm_core::time::Timestamp;
use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
use tokio::fs;
use tokio::io::AsyncWriteExt as _;

/// Moves money in the ledger and tells people so.
pub(crate) struct Transfer {
    /// Where `ledger.txt` and `letters.txt` are.
    pub(crate) dir: PathBuf,
}

/// What `config:` holds in the graph: nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {}

/// What `with:` gives. The loader holds the graph's expressions against these fields.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    from: String,
    to: String,
    cents: u64,
}

/// What it returns.
#[derive(JsonSchema, Serialize)]
pub(crate) struct Output {
    booked_at: Timestamp,
}

#[async_trait]
impl Node for Transfer {
    const KIND: &'static str = "shop/transfer";
    type Config = Config;
    type Input = Input;
    type Output = Output;

    async fn run(&self, ctx: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let Input { from, to, cents } = input;
        // The clock says something else each time: the first reading counts.
        let booked_at: Timestamp = ctx.memo("booked_at", || async { Ok(ctx.now()) }).await?;
        // Run and step are the same in every attempt, so the probe finds exactly this line again.
        let id = format!("{}/{} {booked_at}", ctx.run_id(), ctx.step());
        let entry = format!("{id}: {cents} cents from {from} to {to}\n");
        self.append_once(ctx, "book", "ledger.txt", entry).await?;
        let letter = format!("{id}: {cents} cents have gone from {from} to {to}.\n");
        self.append_once(ctx, "write", "letters.txt", letter).await?;
        Ok(Output { booked_at })
    }
}

impl Transfer {
    /// Appends a line to a file, whatever crashes when. The intent is durable before the file is
    /// touched; if only the intent is found later, the file says whether the line got there.
    async fn append_once(
        &self,
        ctx: &NodeContext,
        key: &str,
        file: &str,
        line: String,
    ) -> Result<(), NodeError> {
        let path = self.dir.join(file);
        let probe = || async {
            let is_there = contains(&path, &line).await.map_err(|error| io_failure(&error))?;
            Ok(if is_there { Probe::Landed(()) } else { Probe::DidNotHappen })
        };
        let act = || async {
            ctx.emit("line.begun", json!({ "file": file })).await?;
            append(&path, &line).await.map_err(|error| io_failure(&error))?;
            Ok(())
        };
        ctx.effect(key, json!({ "file": file, "line": line }), probe, act).await
    }
}

async fn contains(path: &Path, line: &str) -> io::Result<bool> {
    match fs::read_to_string(path).await {
        Ok(text) => Ok(text.contains(line)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = fs::File::options().append(true).create(true).open(path).await?;
    file.write_all(line.as_bytes()).await?;
    file.flush().await
}

/// The disk may be there again later: a retry may help, if the graph allows one.
fn io_failure(error: &io::Error) -> Failure {
    Failure::retryable("io", error.to_string())
}

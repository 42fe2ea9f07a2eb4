//! `start`: queues a run of any graph for whoever serves this data directory.
//!
//! The run's id is a function of graph and input, as that of `submit` is of repository and issue:
//! the same command again finds the same run.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use swarm_core::id::{QueueName, RunId};
use swarm_graph::engine::{Error, StartOptions};

use super::Usage;
use super::out::Out;
use crate::cli;
use crate::wire::Host;

/// The largest input, in bytes.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs the command.
///
/// # Errors
/// [`Usage`] for a graph, an input or a label that cannot be meant; the store's
/// failure.
pub async fn run(host: &Host, out: Out, given: &cli::Start) -> Result<()> {
    let input = input(host.settings().environment().current_dir(), &given.input)?;
    let id = id(host, given, &input).await?;
    let options = StartOptions {
        queue: QueueName::new(&given.queue).map_err(usage)?,
        priority: given.priority,
        labels: labels(&given.label)?,
        ..StartOptions::default()
    };
    let is_new = match host.engine().start(id.clone(), &given.graph, input, options).await {
        Err(error @ (Error::UnknownGraph { .. } | Error::BadInput(_))) => return Err(usage(error)),
        started => started.with_context(|| format!("cannot start run `{id}`"))?,
    };
    let Some(run) = host.engine().store().run(&id).await? else { bail!("run `{id}` is gone") };
    let is_served = host.queues().contains(&run.start.queue);
    let value = json!({
        "run": id, "new": is_new, "status": run.status, "queue": run.start.queue,
        "served": is_served,
    });
    out.print(&value, || {
        let flags = host.settings().flags();
        let mut text = if is_new {
            format!("Queued as run {id}.\nFollow it: swarm-host{flags} runs events {id} --follow")
        } else {
            let status = run.status.as_str();
            format!("Run {id} is there already: {status} (--new would queue another one).")
        };
        if !is_served {
            text.push_str("\n`swarm-host run` does not serve this queue: no graph uses it.");
        }
        text
    })
}

fn usage(error: impl std::fmt::Display) -> anyhow::Error {
    Usage(error.to_string()).into()
}

fn input(here: &Path, typed: &str) -> Result<Value> {
    let text = match typed.strip_prefix('@') {
        None => typed.to_owned(),
        Some(file) => {
            let mut text = String::new();
            let read = if file == "-" {
                std::io::stdin().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)
            } else {
                std::fs::File::open(here.join(file))
                    .and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text))
            };
            let len = read.map_err(|error| usage(format!("cannot read `{file}`: {error}")))?;
            if len as u64 > INPUT_BYTES_MAX {
                bail!(Usage(format!("`{file}` has more than {INPUT_BYTES_MAX} bytes")));
            }
            text
        }
    };
    serde_json::from_str(&text).map_err(|error| usage(format!("the input is no JSON: {error}")))
}

fn labels(typed: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(usage(format!("`{text}` is no label; write NAME=VALUE"))),
    };
    typed.iter().map(pair).collect()
}

async fn id(host: &Host, given: &cli::Start, input: &Value) -> Result<RunId> {
    if let Some(id) = &given.id {
        // A dot would make it look like a child of another run.
        if id.contains('.') {
            bail!(Usage(format!("`{id}` has a dot: dots lead to child runs")));
        }
        return RunId::new(id).map_err(usage);
    }
    let hash = hex::encode(Sha256::digest(input.to_string()));
    let first = RunId::new(format!("{}-{}", given.graph, &hash[..10])).map_err(usage)?;
    let (mut id, mut number) = (first.clone(), 1_u32);
    while given.new && host.engine().store().run(&id).await?.is_some() {
        number += 1;
        id = RunId::new(format!("{first}-{number}"))?;
    }
    Ok(id)
}

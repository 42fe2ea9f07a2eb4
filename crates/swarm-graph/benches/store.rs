//! What a commit costs, beside the least that SQLite can do: one row, one sync.
//!
//! Prints rates and their ratio to a bare insert-and-commit measured in the same run, on the same
//! disk. The absolute numbers are this machine's; only the ratios travel.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use swarm_core::checkpoint::{Change, ChannelDelta, Cursor, StepEnding, StepRecord};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{
    ChannelName, GraphHash, GraphName, NodeName, QueueName, RunId, StepId, WorkerId,
};
use swarm_core::port::store::{CheckpointWrite, Claim, Commit, Commits as _, Leases as _};
use swarm_core::run::{Limit, NewRun};
use swarm_core::time::Timestamp;
use swarm_graph::store::sqlite::{Options, SqliteStore};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds; the disk's mood changes, so each measures all three in turn.
const ROUNDS: u64 = 9;
/// Commits of one writer in a round.
const COMMITS: u64 = 100;
const RUNS: u64 = 64;
/// Commits of each of many runs in a round.
const EACH: u64 = 10;

/// The least that a durable commit can be.
fn open_bare(file: &Path) -> Outcome<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, text TEXT)", [])?;
    Ok(connection)
}

/// Commits per second of a bare connection.
fn bare(connection: &Connection) -> Outcome<f64> {
    let began = Instant::now();
    for _ in 0..COMMITS {
        for sql in ["BEGIN IMMEDIATE", "INSERT INTO rows (text) VALUES ('a row')", "COMMIT"] {
            connection.prepare_cached(sql)?.execute([])?;
        }
    }
    Ok(per_second(COMMITS, began.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn per_second(commits: u64, took: Duration) -> f64 {
    commits as f64 / took.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn claimed(store: &SqliteStore, id: &str) -> Outcome<Claim> {
    let start = NewRun {
        id: RunId::new(id)?,
        graph: GraphName::new("bench")?,
        graph_hash: GraphHash("hash".into()),
        queue: QueueName::new("q")?,
        input: Arc::new(json!(null)),
        parent: None,
        priority: 0,
        labels: BTreeMap::new(),
        limit: Limit::default(),
    };
    let id = start.id.clone();
    store.create_run(start, Timestamp(0)).await?;
    let (worker, ttl) = (WorkerId::new("w")?, Duration::from_secs(10));
    let claim = store.claim(&id, &worker, Timestamp(0), ttl).await?;
    claim.ok_or_else(|| "the run is not claimable".into())
}

/// A superstep as the engine writes it: cursor, two channels, a step, two events.
fn superstep(claim: &Claim, seq: u64) -> Outcome<Commit> {
    let delta = |name, change| {
        Ok::<_, Box<dyn Error>>(ChannelDelta { channel: ChannelName::new(name)?, change })
    };
    let step = StepId::new(format!("work#{seq}"))?;
    let event = |kind| NewEvent::step(kind, &step, json!({ "attempt": 1 }));
    Ok(Commit {
        checkpoint: Some(CheckpointWrite {
            seq,
            cursor: Cursor::default(),
            deltas: vec![
                delta("plan", Change::Full(Arc::new(json!({ "n": seq }))))?,
                delta("log", Change::Append(Arc::new(json!([format!("line {seq}")]))))?,
            ],
        }),
        events: vec![event(EventKind::NODE_STARTED), event(EventKind::NODE_FINISHED)],
        steps: vec![StepRecord {
            step,
            node: NodeName::new("work")?,
            seq: seq.saturating_sub(1),
            attempt: 1,
            ending: StepEnding::Output(Arc::new(json!({ "n": seq }))),
            started_at: Timestamp(0),
            ended_at: Timestamp(1),
        }],
        ..Commit::new(claim.run.start.id.clone(), claim.run.epoch, Timestamp(1))
    })
}

/// Commits per second of one run that waits for each.
async fn alone(store: &SqliteStore, claim: &Claim, round: u64) -> Outcome<f64> {
    let began = Instant::now();
    for seq in round * COMMITS..(round + 1) * COMMITS {
        store.commit(superstep(claim, seq)?).await?;
    }
    Ok(per_second(COMMITS, began.elapsed()))
}

/// Commits per second of many runs that each wait for their own.
async fn together(store: &SqliteStore, claims: &[Claim], round: u64) -> Outcome<f64> {
    let began = Instant::now();
    futures::future::try_join_all(claims.iter().map(async |claim| {
        for seq in round * EACH..(round + 1) * EACH {
            store.commit(superstep(claim, seq)?).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    }))
    .await?;
    Ok(per_second(EACH * RUNS, began.elapsed()))
}

async fn measure() -> Outcome<()> {
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let connection = open_bare(&directory.path().join("bare.db"))?;
    let store = SqliteStore::open(directory.path().join("swarm.db"), Options::default()).await?;
    let claim = claimed(&store, "alone").await?;
    let mut claims = Vec::new();
    for n in 0..RUNS {
        claims.push(claimed(&store, &format!("run{n}")).await?);
    }
    let (mut bares, mut alones, mut togethers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bares.push(bare(&connection)?);
        alones.push(alone(&store, &claim, round).await?);
        togethers.push(together(&store, &claims, round).await?);
    }
    store.close().await;
    let bare = median(bares);
    let mut out = std::io::stdout().lock();
    writeln!(out, "bare insert, one writer: {bare:8.0} commits/s")?;
    for (what, rates) in
        [("superstep, one run:     ", alones), ("superstep, 64 runs:     ", togethers)]
    {
        let rate = median(rates);
        writeln!(out, "{what} {rate:8.0} commits/s, {:.2} of bare", rate / bare)?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

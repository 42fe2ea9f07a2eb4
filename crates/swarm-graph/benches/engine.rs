//! How many steps a second the engine makes, on each store.
//!
//! The workloads are those that other graph engines are measured by; `benches/peers` runs them
//! beside ours. Prints the median of several rounds; with `--json` one object a line. `--only`
//! takes the beginning of a workload's name, `--store` that of a store. PostgreSQL is the server
//! that `DATABASE_URL` names, else one of its own that syncs each commit to disk;
//! `--serve-postgres` starts that one, prints its URL, and waits for the end of its input.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::escalation::{Answerer, BlockStatus};
use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::store::Store;
use swarm_core::run::RunStatus;
use swarm_graph::check::{self, Memory};
use swarm_graph::engine::{Control, Driven, Engine, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_graph::registry::Registry;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::store::postgres::{self, PostgresStore};
use swarm_graph::store::sqlite::{Options, SqliteStore, Synchronous};
use swarm_graph::system::{SystemClock, SystemEntropy};
use swarm_graph::testkit::postgres::{Durability, Server};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;

/// Takes a number and gives the next one.
struct Next;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Number {
    n: i64,
}

#[derive(JsonSchema, Serialize)]
struct Given {
    n: i64,
    log: Vec<String>,
}

#[async_trait]
impl Node for Next {
    const KIND: &'static str = "bench/next";
    type Config = ();
    type Input = Number;
    type Output = Given;

    async fn run(&self, _ctx: &NodeContext, input: Number) -> Result<Given, NodeError> {
        Ok(Given { n: input.n + 1, log: vec!["x".repeat(1024)] })
    }
}

const STATE: &str = "
state:
  channels:
    n: { schema: { type: integer }, default: 0 }
    log: { reducer: append, schema: { type: array, items: { type: string } }, default: [] }
    sums: { reducer: append, schema: { type: array, items: { type: integer } }, default: [] }
    big: { schema: { type: string }, default: \"\" }
entry: a
limits: { supersteps: 1000000, visits_per_node: 1000000, concurrency: 200 }
output: { schema: { type: object }, value: { n: \"${{ state.n }}\" } }
nodes:
";

fn step(name: &str, to: &str) -> String {
    format!(
        "  {name}: {{ uses: bench/next, with: {{ n: \"${{{{ state.n }}}}\" }}, set: {{ n: \"${{{{ output.n }}}}\" }}, next: {to} }}\n"
    )
}

fn chain() -> String {
    [step("a", "b"), step("b", "c"), step("c", "d"), step("d", "$end")].concat()
}

/// A loop that appends 1 KiB to a list in each step.
fn growing(steps: u32) -> String {
    format!(
        "  a: {{ uses: bench/next, with: {{ n: \"${{{{ state.n }}}}\" }}, routes: [ {{ to: a, max: {} }}, {{ to: $end }} ] }}\n",
        steps - 1
    )
}

fn fan_out() -> String {
    "  a: { uses: bench/next, with: { n: 0 }, set: {}, next: b }
  b:
    foreach: { in: \"${{ input.items }}\", as: item, max_parallel: 100 }
    uses: bench/next
    with: { n: \"${{ item }}\" }
    set: { sums: \"${{ [output.n] }}\" }
    next: $end
"
    .to_owned()
}

/// As a chain, beside 1 MiB that does not change.
fn big() -> String {
    format!(
        "  a: {{ uses: bench/next, with: {{ n: 0 }}, set: {{ big: \"${{{{ input.big }}}}\" }}, next: b }}\n{}",
        [step("b", "c"), step("c", "d"), step("d", "$end")].concat()
    )
}

fn ask() -> String {
    format!(
        "  a: {{ gate: {{ ask: \"Go on?\", choices: [ yes, no ] }}, next: b }}\n{}",
        step("b", "$end")
    )
}

fn engine(store: Arc<dyn Store>, nodes: &str) -> Outcome<Engine> {
    let registry = Registry::new().node::<Next>(|()| Ok(Next));
    let text = format!("dsl: 1\ngraph: {{ name: main, version: 1.0.0 }}\n{STATE}{nodes}");
    let graph = check::load(&Memory::one("main.yaml", text), "main.yaml", &registry)?;
    let library = Library::new(registry).with(graph);
    Ok(Engine::new(store, Arc::new(SystemClock), Arc::new(SystemEntropy), Arc::new(library)))
}

async fn drive(engine: &Engine, run: &RunId) -> Outcome<Driven> {
    let claim = engine.claim(run, &WorkerId::new("bench")?).await?;
    let claim = claim.ok_or("the run is not claimable")?;
    Ok(engine.drive(claim, Control::default()).await?)
}

async fn to_the_end(engine: &Engine, run: &RunId) -> Outcome<()> {
    loop {
        match drive(engine, run).await? {
            Driven::Ended(RunStatus::Succeeded) => return Ok(()),
            Driven::Waiting { wake_at: Some(_) } => tokio::task::yield_now().await,
            other => return Err(format!("`{run}` came to {other:?}").into()),
        }
    }
}

/// Starts a run and works on it until it rests.
async fn begin(engine: &Engine, id: &str, input: &Value) -> Outcome<(RunId, Driven)> {
    let (id, worker) = (RunId::new(id)?, WorkerId::new("bench")?);
    let (options, control) = (StartOptions::default(), Control::default());
    let rest = engine.run(id.clone(), "main", input.clone(), options, &worker, &control).await?;
    Ok((id, rest))
}

async fn whole(engine: &Engine, id: &str, input: &Value) -> Outcome<()> {
    match begin(engine, id, input).await? {
        (_, Driven::Ended(RunStatus::Succeeded)) => Ok(()),
        (run, Driven::Waiting { wake_at: Some(_) }) => to_the_end(engine, &run).await,
        (run, other) => Err(format!("`{run}` came to {other:?}").into()),
    }
}

/// One after the other.
async fn alone(engine: &Engine, round: usize, runs: usize, input: &Value) -> Outcome<()> {
    for n in 0..runs {
        whole(engine, &format!("r{round}-{n}"), input).await?;
    }
    Ok(())
}

async fn at_once(engine: &Engine, round: usize, runs: usize, input: &Value) -> Outcome<()> {
    let one = |n: usize| async move {
        whole(engine, &format!("r{round}-{n}"), input).await.map_err(|error| error.to_string())
    };
    futures::future::try_join_all((0..runs).map(one)).await?;
    Ok(())
}

async fn ask_and_answer(engine: &Engine, round: usize, runs: usize) -> Outcome<()> {
    for n in 0..runs {
        let (run, _) = begin(engine, &format!("r{round}-{n}"), &json!({})).await?;
        let blocks = engine.store().blocks(Some(&run), Some(BlockStatus::Open)).await?;
        let block = blocks.first().ok_or("nothing was asked")?;
        let by = Answerer {
            login: "ada".to_owned(),
            via: "bench".to_owned(),
            permission: "write".to_owned(),
        };
        engine.answer(&block.id, json!({ "choice": "yes" }), by).await?;
        to_the_end(engine, &run).await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Alone,
    AtOnce,
    Ask,
}

struct Workload {
    name: &'static str,
    nodes: String,
    input: Value,
    kind: Kind,
    /// On memory and on disk.
    runs: [usize; 2],
    /// Of one run.
    steps: usize,
}

fn workloads() -> Vec<Workload> {
    let none = || json!({});
    let items: Vec<u32> = (0..100).collect();
    let load =
        |name, nodes, input, kind, runs, steps| Workload { name, nodes, input, kind, runs, steps };
    vec![
        load("chain of 4", chain(), none(), Kind::Alone, [2000, 200], 4),
        // A key behind the nodes is one of the graph.
        load(
            "exit: chain of 4",
            chain() + "durability: exit\n",
            none(),
            Kind::Alone,
            [2000, 200],
            4,
        ),
        load("loop of 1000, growing", growing(1000), none(), Kind::Alone, [2, 1], 1000),
        load("fan-out to 100", fan_out(), json!({ "items": items }), Kind::Alone, [40, 10], 101),
        load("ask and answer", ask(), none(), Kind::Ask, [1000, 100], 2),
        load(
            "1 MiB that stays",
            big(),
            json!({ "big": "x".repeat(1 << 20) }),
            Kind::Alone,
            [20, 10],
            4,
        ),
        load("64 at once", chain(), none(), Kind::AtOnce, [64, 64], 4),
    ]
}

async fn rate(workload: &Workload, store: Arc<dyn Store>, runs: usize) -> Outcome<f64> {
    let engine = engine(store, &workload.nodes)?;
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let began = Instant::now();
        match workload.kind {
            Kind::Alone => alone(&engine, round, runs, &workload.input).await?,
            Kind::AtOnce => at_once(&engine, round, runs, &workload.input).await?,
            Kind::Ask => ask_and_answer(&engine, round, runs).await?,
        }
        rates.push(per_second(runs * workload.steps, began.elapsed()));
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}

#[expect(clippy::cast_precision_loss, reason = "a few million")]
fn per_second(steps: usize, took: Duration) -> f64 {
    steps as f64 / took.as_secs_f64()
}

/// A PostgreSQL server, and a schema of it for each measurement.
struct Postgres {
    url: String,
    schemas: u32,
    /// Runs as long as this is kept.
    _server: Option<Server>,
}

impl Postgres {
    async fn find() -> Outcome<Self> {
        if let Ok(url) = std::env::var("DATABASE_URL") {
            return Ok(Self { url, schemas: 0, _server: None });
        }
        let server = Server::private(Durability::Power)?;
        Ok(Self { url: server.database().await?, schemas: 0, _server: Some(server) })
    }

    async fn open(&mut self) -> Outcome<PostgresStore> {
        self.schemas += 1;
        let schema = format!("bench_{}_{}", std::process::id(), self.schemas);
        let options = postgres::Options { schema, ..postgres::Options::default() };
        Ok(PostgresStore::open(&self.url, options).await?)
    }
}

/// Starts a server for others, and stops it when nobody needs it any more.
async fn serve_postgres() -> Outcome<()> {
    let server = Server::private(Durability::Power)?;
    writeln!(std::io::stdout(), "{}", server.database().await?)?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

async fn measure(only: &str, on: &str, as_json: bool) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    let mut server = None;
    for workload in workloads().iter().filter(|workload| workload.name.starts_with(only)) {
        let stores = ["memory", "sqlite FULL", "sqlite NORMAL", "postgres"];
        for store in stores.into_iter().filter(|store| store.starts_with(on)) {
            let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
            let rate = if store == "memory" {
                rate(workload, Arc::new(MemoryStore::new()), workload.runs[0]).await?
            } else if store == "postgres" {
                if server.is_none() {
                    server = Some(Postgres::find().await?);
                }
                let server: &mut Postgres = server.as_mut().ok_or("it was found")?;
                let postgres = server.open().await?;
                let rate = rate(workload, Arc::new(postgres.clone()), workload.runs[1]).await?;
                postgres.close().await;
                rate
            } else {
                let synchronous =
                    if store.ends_with("FULL") { Synchronous::Full } else { Synchronous::Normal };
                let options = Options { synchronous, ..Options::default() };
                let sqlite = SqliteStore::open(directory.path().join("swarm.db"), options).await?;
                let sqlite = Arc::new(sqlite);
                let rate = rate(workload, sqlite.clone(), workload.runs[1]).await?;
                sqlite.close().await;
                rate
            };
            if as_json {
                let line = json!({ "engine": "swarm-graph", "workload": workload.name, "store": store, "steps_per_second": rate });
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{:<24} {store:<14} {rate:>10.0} steps/s", workload.name)?;
            }
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if arguments.iter().any(|argument| argument == "--serve-postgres") {
        return runtime.block_on(serve_postgres());
    }
    let only = after("--only").unwrap_or_default();
    runtime.block_on(measure(&only, &after("--store").unwrap_or_default(), as_json))
}

//! What engine tests share: node kinds that count, a world that remembers effects, and a rig
//! that works on runs until they rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::escalation::{Answerer, Ask, Block, BlockStatus, Reason};
use swarm_core::event::{Event, EventKind};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, QueueName, RunId, WorkerId};
use swarm_core::port::store::{RunFilter, Store};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;
use swarm_graph::check;
use swarm_graph::engine::{Control, Driven, Engine, Error, StartOptions};
use swarm_graph::graph::Graph;
use swarm_graph::library::Library;
use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
use swarm_graph::registry::Registry;
pub(crate) use swarm_graph::testkit::World;
use swarm_graph::testkit::{Death, MortalStore, SeededEntropy, VirtualClock};

/// What happened in a world, effects and calls, whose names begin so.
pub(crate) fn all(world: &World, prefix: &str) -> BTreeMap<String, u32> {
    let counts = world.effects().into_iter().chain(world.calls());
    counts.filter(|(name, _)| name.starts_with(prefix)).collect()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

macro_rules! kind {
    ($name:ident, $kind:literal, $config:ty, $input:ty, $output:ty, |$self:ident, $ctx:ident, $in:ident| $body:expr) => {
        pub(crate) struct $name {
            world: World,
            config: $config,
        }

        #[async_trait]
        impl Node for $name {
            const KIND: &'static str = $kind;
            type Config = $config;
            type Input = $input;
            type Output = $output;
            async fn run(&self, $ctx: &NodeContext, $in: $input) -> Result<$output, NodeError> {
                let $self = self;
                // Not every kind reads its configuration.
                let _ = &$self.config;
                $self.world.call(format!("calls {}", $ctx.step()));
                $body
            }
        }
    };
}

/// Writes what it is given to the channels of the same names.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutInput {
    #[serde(default)]
    log: Vec<String>,
    #[serde(default)]
    n: i64,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct PutOutput {
    log: Vec<String>,
    n: i64,
}

kind!(Put, "test/put", (), PutInput, PutOutput, |this, ctx, input| {
    let _ = this;
    let _ = ctx;
    Ok(PutOutput { log: input.log, n: input.n })
});

/// Works for `ms`, then writes its name; remembers how many of its kind worked at once.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkInput {
    name: String,
    ms: u64,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct LogOutput {
    log: Vec<String>,
}

static AT_ONCE: Mutex<BTreeMap<String, (u32, u32)>> = Mutex::new(BTreeMap::new());

/// The most `test/work` steps of a run that were at work at the same time.
pub(crate) fn most_at_once(run: &str) -> u32 {
    AT_ONCE.lock().unwrap().get(run).map_or(0, |(_, most)| *most)
}

kind!(Work, "test/work", (), WorkInput, LogOutput, |this, ctx, input| {
    {
        let mut at_once = AT_ONCE.lock().unwrap();
        let (now, most) = at_once.entry(ctx.run_id().to_string()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }
    tokio::time::sleep(Duration::from_millis(input.ms)).await;
    if let Some((now, _)) = AT_ONCE.lock().unwrap().get_mut(ctx.run_id().as_str()) {
        *now -= 1;
    }
    this.world.call(format!("worked {}", input.name));
    Ok(LogOutput { log: vec![input.name] })
});

/// Fails the first `times` attempts of each step.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailConfig {
    times: u32,
    #[serde(default)]
    fatal: bool,
    #[serde(default)]
    class: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailInput {
    #[serde(default)]
    name: Option<String>,
}

kind!(Fail, "test/fail", FailConfig, FailInput, LogOutput, |this, ctx, input| {
    let name = input.name.unwrap_or_else(|| ctx.step().to_string());
    if this.world.call(format!("tries {}", ctx.step())) <= this.config.times {
        let class = this.config.class.clone().unwrap_or_else(|| "io".to_owned());
        let message = format!("{name} broke");
        return Err(if this.config.fatal {
            Failure::fatal(class, message).into()
        } else {
            Failure::retryable(class, message).into()
        });
    }
    Ok(LogOutput { log: vec![format!("{name} done")] })
});

kind!(Panic, "test/panic", (), Nothing, LogOutput, |this, ctx, _input| {
    let _ = this;
    panic!("{} has no idea", ctx.node())
});

/// Two costly calls and one effect, each of which must count once whatever happens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeedInput {
    name: String,
}

kind!(Deed, "test/deed", (), DeedInput, LogOutput, |this, ctx, input| {
    let run = ctx.run_id().clone();
    let name = &input.name;
    let first: u32 = ctx
        .memo("first", || async {
            this.world.call(format!("memo {run} {name}"));
            Ok(7)
        })
        .await?;
    let paid: u32 = ctx
        .spend("paid", Spend { usd: UsdMicros(100), tokens: 10 }, || async {
            this.world.call(format!("paid {run} {name}"));
            Ok((35, Spend { usd: UsdMicros(60), tokens: 6 }))
        })
        .await?;
    let mark = format!("effect {run} {name}");
    let landed: bool = ctx
        .effect(
            "deed",
            json!({ "deed": name }),
            || async {
                Ok(if this.world.count(&mark) > 0 {
                    Probe::Landed(true)
                } else {
                    Probe::DidNotHappen
                })
            },
            || async {
                this.world.effect(mark.clone());
                Ok(true)
            },
        )
        .await?;
    Ok(LogOutput { log: vec![format!("{name} {} {landed}", first + paid)] })
});

/// One effect whose outcome cannot be told; its first `lost` acts happen but do not return.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DoubtConfig {
    lost: u32,
}

kind!(Doubt, "test/doubt", DoubtConfig, Nothing, LogOutput, |this, ctx, _input| {
    let count: u32 = ctx
        .effect(
            "letter",
            json!({ "letter": "to Ada" }),
            || async { Ok(Probe::InDoubt("the post office does not say".to_owned())) },
            || async {
                let count = this.world.call("letters");
                if count <= this.config.lost {
                    return Err(Failure::retryable("io", "the line broke").into());
                }
                Ok(count)
            },
        )
        .await?;
    Ok(LogOutput { log: vec![format!("{count} letters")] })
});

/// Asks two questions, one after the other.
#[derive(Deserialize, Serialize, JsonSchema)]
pub(crate) struct Choice {
    choice: String,
}

kind!(AskTwice, "test/ask_twice", (), Nothing, LogOutput, |this, ctx, _input| {
    let one: Choice = ctx.ask("one", Ask::choice(Reason::Decision, "One?", &["a", "b"])).await?;
    ctx.memo("between", || async {
        this.world.call("between");
        Ok(())
    })
    .await?;
    let two: Choice = ctx.ask("two", Ask::choice(Reason::Decision, "Two?", &["a", "b"])).await?;
    Ok(LogOutput { log: vec![one.choice, two.choice] })
});

/// The registry of the kinds above, over one world.
pub(crate) fn registry(world: &World) -> Registry {
    let [w1, w2, w3, w4, w5, w6, w7] = [(); 7].map(|()| world.clone());
    Registry::new()
        .node::<Put>(move |config| Ok(Put { world: w1.clone(), config }))
        .node::<Work>(move |config| Ok(Work { world: w2.clone(), config }))
        .node::<Fail>(move |config| Ok(Fail { world: w3.clone(), config }))
        .node::<Panic>(move |config| Ok(Panic { world: w4.clone(), config }))
        .node::<Deed>(move |config| Ok(Deed { world: w5.clone(), config }))
        .node::<AskTwice>(move |config| Ok(AskTwice { world: w6.clone(), config }))
        .node::<Doubt>(move |config| Ok(Doubt { world: w7.clone(), config }))
        .ty_without_default::<Choice>("Choice")
}

/// The head of a graph with the channels that the kinds above write.
pub(crate) const CHANNELS: &str = "
state:
  channels:
    log: { reducer: append, schema: { type: array, items: { type: string } }, default: [] }
    n: { reducer: sum, schema: { type: integer }, default: 0 }
";

/// Loads a graph named `main` from its nodes and whatever else `rest` holds.
pub(crate) fn graph(rest: &str, registry: &Registry) -> Graph {
    graph_named("main", rest, registry)
}

pub(crate) fn graph_named(name: &str, rest: &str, registry: &Registry) -> Graph {
    let text = format!("dsl: 1\ngraph: {{ name: {name}, version: 1.0.0 }}\n{CHANNELS}{rest}");
    check::load(&check::Memory::one("main.yaml", text), "main.yaml", registry)
        .unwrap_or_else(|defects| panic!("{defects}"))
}

/// An engine on a store, with virtual time.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn Store>,
    worker: WorkerId,
    library: Arc<Library>,
    clock: VirtualClock,
}

/// Whether these are the tests of `tests/suspended`: there, work on a run is handed back after
/// every superstep, and a new engine goes on from what is stored.
fn suspends() -> bool {
    module_path!().starts_with("suspended::")
}

/// A worker that hands its run back at the first commit that leaves something to do.
fn suspending(store: Arc<dyn Store>) -> (Arc<dyn Store>, Control) {
    let control = Control::default();
    let drain = control.drain.clone();
    let front = MortalStore::new(store, Death::Never).observed(move |commit| {
        // Not when it only waits for a moment: it would be handed round without end.
        let has_moved = commit.checkpoint.is_some() || !commit.steps.is_empty();
        if has_moved && commit.release.is_none() {
            drain.cancel();
        }
    });
    (Arc::new(front), control)
}

impl Rig {
    pub(crate) fn new(store: Arc<dyn Store>, graphs: Vec<Graph>, registry: Registry) -> Self {
        let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
        Self::on_clock(store, graphs, registry, clock)
    }

    pub(crate) fn on_clock(
        store: Arc<dyn Store>,
        graphs: Vec<Graph>,
        registry: Registry,
        clock: VirtualClock,
    ) -> Self {
        let library = graphs.into_iter().fold(Library::new(registry), Library::with);
        let entropy = Arc::new(SeededEntropy::new(1));
        let library = Arc::new(library);
        let engine = Engine::new(store.clone(), Arc::new(clock), entropy, library.clone());
        Self { engine, store, worker: WorkerId::new("tester").unwrap(), library, clock }
    }

    pub(crate) async fn start(&self, run: &str, graph: &str, input: Value) -> Result<bool, Error> {
        self.engine.start(id(run), graph, input, StartOptions::default()).await
    }

    /// Claims and works until nothing is claimable; returns how the last work ended.
    pub(crate) async fn work(&self) -> Result<Option<Driven>, Error> {
        let mut last = None;
        let queues = [QueueName::new("default").unwrap()];
        let (mut engine, mut control) = self.fresh();
        let mut claims = 0;
        while let Some(claim) = engine.claim_next(&self.worker, &queues).await? {
            last = Some(engine.drive(claim, control.clone()).await?);
            (engine, control) = self.fresh();
            claims += 1;
            assert!(claims < 10_000, "it is claimed without end");
        }
        Ok(last)
    }

    /// What works on the next claim: the one engine, or a new one that soon hands back.
    fn fresh(&self) -> (Engine, Control) {
        if !suspends() {
            return (self.engine.clone(), Control::default());
        }
        let (store, control) = suspending(self.store.clone());
        let entropy = Arc::new(SeededEntropy::new(1));
        (Engine::new(store, Arc::new(self.clock), entropy, self.library.clone()), control)
    }

    /// Starts a run of `main`, works until all rests, and returns its record.
    pub(crate) async fn finish(&self, input: Value) -> RunRecord {
        self.start("r", "main", input).await.unwrap();
        self.work().await.unwrap();
        self.run("r").await
    }

    pub(crate) async fn run(&self, run: &str) -> RunRecord {
        self.store.run(&id(run)).await.unwrap().unwrap()
    }

    pub(crate) async fn open_blocks(&self) -> Vec<Block> {
        self.store.blocks(None, Some(BlockStatus::Open)).await.unwrap()
    }

    pub(crate) async fn answer(&self, block: &BlockId, answer: Value) {
        self.engine.answer(block, answer, person("ada")).await.unwrap();
    }

    pub(crate) async fn events(&self, run: &str) -> Vec<String> {
        let events = self.store.events(&id(run), 0, 0).await.unwrap();
        let mut is_suspended = false;
        let is_told = |event: &Event| {
            let was_suspended = std::mem::replace(&mut is_suspended, false);
            is_suspended = suspends() && event.kind == EventKind::RUN_RELEASED;
            !(is_suspended || was_suspended && event.kind == EventKind::RUN_CLAIMED)
        };
        events
            .into_iter()
            .filter(is_told)
            .map(|event| match event.step {
                Some(step) => format!("{} {step}", event.kind),
                None => event.kind.to_string(),
            })
            .collect()
    }

    pub(crate) async fn statuses(&self) -> Vec<(String, RunStatus)> {
        let runs = self.store.runs(&RunFilter::default()).await.unwrap();
        let mut all: Vec<_> =
            runs.into_iter().map(|run| (run.start.id.to_string(), run.status)).collect();
        all.sort();
        all
    }
}

pub(crate) fn id(run: &str) -> RunId {
    RunId::new(run).unwrap()
}

pub(crate) fn person(login: &str) -> Answerer {
    Answerer { login: login.to_owned(), via: "cli".to_owned(), permission: "admin".to_owned() }
}

/// The output of a run that must have succeeded.
pub(crate) fn output(run: &RunRecord) -> Value {
    assert_eq!(run.status, RunStatus::Succeeded, "{:?}", run.failure);
    (**run.output.as_ref().unwrap()).clone()
}

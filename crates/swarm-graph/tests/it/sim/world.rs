//! The world around a program: what its steps do to it, and who answers and signals from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_core::checkpoint::Phase;
use swarm_core::escalation::{Answerer, Ask, BlockStatus, Reason, Request};
use swarm_core::failure::Failure;
use swarm_core::port::store::RunFilter;
use swarm_core::run::RunStatus;
use swarm_core::spend::{Spend, UsdMicros};
use swarm_graph::engine::Engine;
use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
use swarm_graph::registry::Registry;

use super::program::Dice;

/// What happened, counted.
#[derive(Clone, Default)]
pub(super) struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counts: Mutex<BTreeMap<String, u32>>,
    dice: Mutex<Option<Dice>>,
    /// Whether an effect has no await before it: a stalled process is not stopped there, as
    /// nobody outside of the world could undo that.
    is_prompt: AtomicBool,
}

impl World {
    /// Forgets all that happened; the same seed passes time in the same way.
    pub(super) fn begin(&self, seed: u64, is_prompt: bool) {
        self.0.counts.lock().unwrap().clear();
        *self.0.dice.lock().unwrap() = Some(Dice::new(seed));
        self.0.is_prompt.store(is_prompt, Ordering::SeqCst);
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u32> {
        self.0.counts.lock().unwrap().clone()
    }

    fn add(&self, what: String) -> u32 {
        let mut counts = self.0.counts.lock().unwrap();
        let count = counts.entry(what).or_default();
        *count += 1;
        *count
    }

    fn has(&self, what: &str) -> bool {
        self.0.counts.lock().unwrap().contains_key(what)
    }

    /// A moment at which the process may be dropped.
    async fn pass(&self) {
        let times = self.0.dice.lock().unwrap().as_ref().map_or(0, |dice| dice.roll(3));
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }

    async fn pass_before_effect(&self) {
        if !self.0.is_prompt.load(Ordering::SeqCst) {
            self.pass().await;
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct WorkConfig {
    acts: Vec<String>,
    add: u32,
    fails: u32,
    how: String,
    failing: Vec<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkInput {
    #[serde(default)]
    item: Option<u32>,
}

#[derive(JsonSchema, Serialize)]
struct WorkOutput {
    log: Vec<String>,
    n: u32,
    seen: BTreeMap<String, u32>,
    last: Vec<Last>,
}

#[derive(JsonSchema, Serialize)]
struct Last {
    node: String,
    visit: u32,
}

struct Work {
    world: World,
    config: WorkConfig,
}

#[async_trait]
impl Node for Work {
    const KIND: &'static str = "sim/work";
    type Config = WorkConfig;
    type Input = WorkInput;
    type Output = WorkOutput;

    async fn run(&self, ctx: &NodeContext, input: WorkInput) -> Result<WorkOutput, NodeError> {
        for (index, act) in self.config.acts.iter().enumerate() {
            self.act(ctx, act, index).await?;
        }
        self.fail(ctx, input.item).await?;
        let node = ctx.node().to_string();
        let here = format!("{}.{}", ctx.run_id(), ctx.step());
        let is_item = input.item.is_some();
        Ok(WorkOutput {
            log: vec![here],
            n: input.item.unwrap_or(self.config.add),
            seen: if is_item { BTreeMap::new() } else { [(node.clone(), ctx.visit())].into() },
            last: if is_item { Vec::new() } else { vec![Last { node, visit: ctx.visit() }] },
        })
    }
}

impl Work {
    async fn act(&self, ctx: &NodeContext, act: &str, index: usize) -> Result<(), NodeError> {
        let key = format!("a{index}");
        let place = format!("{}.{}:{index}", ctx.run_id(), ctx.step());
        let (word, number) = act.split_once(':').unwrap_or((act, "0"));
        let number: u64 = number.parse().unwrap();
        let world = &self.world;
        match word {
            "memo" => {
                ctx.memo(&key, || async {
                    world.pass().await;
                    let count = world.add(format!("memo {place}"));
                    world.pass().await;
                    Ok(count)
                })
                .await?;
            }
            "spend" => {
                let reserve = Spend { usd: UsdMicros(0), tokens: 50 };
                ctx.spend(&key, reserve, || async {
                    world.pass().await;
                    world.add(format!("spend {place}"));
                    world.pass().await;
                    Ok(((), Spend { usd: UsdMicros(0), tokens: number }))
                })
                .await?;
            }
            "effect" => {
                let what = format!("effect {place}");
                let probe = || async {
                    world.pass().await;
                    Ok(if world.has(&what) { Probe::Landed(()) } else { Probe::DidNotHappen })
                };
                let act = || async {
                    world.pass_before_effect().await;
                    world.add(what.clone());
                    world.pass().await;
                    Ok(())
                };
                ctx.effect(&key, json!({ "place": place }), probe, act).await?;
            }
            "ask" => {
                let ask = Ask::choice(Reason::Decision, "Well?", &["yes", "no"]);
                let answer: SimAnswer = ctx.ask(&index.to_string(), ask).await?;
                let expected = if super::says_yes(&place) { "yes" } else { "no" };
                if answer.choice != expected {
                    return Err(Failure::fatal("wrong_answer", place).into());
                }
            }
            "sleep" => tokio::time::sleep(Duration::from_millis(number)).await,
            "emit" => ctx.emit("sim.emitted", json!({ "place": place })).await?,
            other => panic!("no act `{other}`"),
        }
        Ok(())
    }

    async fn fail(&self, ctx: &NodeContext, item: Option<u32>) -> Result<(), NodeError> {
        if item.is_some_and(|item| self.config.failing.contains(&item)) {
            return Err(Failure::fatal("odd", "an item that fails").into());
        }
        if ctx.attempt() > self.config.fails {
            return Ok(());
        }
        match self.config.how.as_str() {
            "odd" => Err(Failure::fatal("odd", "as told").into()),
            // Without the hook that prints it.
            "panic" => std::panic::resume_unwind(Box::new("as told")),
            "timeout" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            }
            class => Err(Failure::retryable(class, "as told").into()),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(JsonSchema, Serialize)]
struct Ticked {}

/// Does nothing; its node counts by `set`.
struct Tick;

#[async_trait]
impl Node for Tick {
    const KIND: &'static str = "sim/tick";
    type Config = ();
    type Input = Nothing;
    type Output = Ticked;
    async fn run(&self, _ctx: &NodeContext, _input: Nothing) -> Result<Ticked, NodeError> {
        Ok(Ticked {})
    }
}

#[derive(Deserialize, JsonSchema, Serialize)]
pub(super) struct SimAnswer {
    choice: String,
    #[serde(default)]
    comment: String,
}

pub(super) fn registry(world: &World) -> Registry {
    let world = world.clone();
    Registry::new()
        .node::<Work>(move |config| Ok(Work { world: world.clone(), config }))
        .node::<Tick>(|()| Ok(Tick))
        .ty_without_default::<SimAnswer>("SimAnswer")
}

/// Answers what is asked and sends what is waited for; whether there was anything to do.
pub(super) async fn play_outside(engine: &Engine) -> bool {
    let store = engine.store();
    let mut has_done = false;
    for block in store.blocks(None, Some(BlockStatus::Open)).await.unwrap() {
        let choice = if super::says_yes(block.id.as_str()) { "yes" } else { "no" };
        let is_gate = matches!(block.ask.requested_input.first(), Some(Request::Text { .. }));
        let answer = if is_gate {
            json!({ "choice": choice, "comment": block.id })
        } else {
            json!({ "choice": choice })
        };
        let by = Answerer {
            login: "ada".to_owned(),
            via: "cli".to_owned(),
            permission: "admin".to_owned(),
        };
        // It may have been withdrawn since.
        has_done |= engine.answer(&block.id, answer, by).await.is_ok();
    }
    let filter = RunFilter { status: vec![RunStatus::Waiting], ..RunFilter::default() };
    for run in store.runs(&filter).await.unwrap() {
        let Some(checkpoint) = store.checkpoint(&run.start.id, None).await.unwrap() else {
            continue;
        };
        for activation in &checkpoint.cursor.active {
            let Phase::Signal { name: Some(name), .. } = &activation.phase else { continue };
            if !name.starts_with("go.") {
                continue;
            }
            let payload = json!(format!("{}.{}", run.start.id, activation.step));
            let key = activation.step.as_str();
            has_done |= engine.signal(&run.start.id, Some(key), name, payload).await.unwrap();
        }
    }
    has_done
}

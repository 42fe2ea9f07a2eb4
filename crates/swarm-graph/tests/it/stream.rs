//! Streams: what happens in a run, live or afterwards, from any position.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use swarm_core::id::WorkerId;
use swarm_graph::check;
use swarm_graph::engine::{Control, Engine, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};
use swarm_graph::registry::Registry;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::stream::{Mode, Part, Position, RunStream, Streamed};

use crate::rig::{Rig, World, graph, id, registry};

const TEXT: &str = r#"
entry: one
nodes:
  one: { uses: test/put, with: { log: ["one"], n: 1 }, next: ask }
  ask: { gate: { ask: "Well?", choices: [a] }, set: { n: 1 }, next: two }
  two: { uses: test/put, with: { log: ["two"] }, next: $end }
"#;

fn rig() -> Rig {
    let registry = registry(&World::default());
    let main = graph(TEXT, &registry);
    Rig::new(Arc::new(MemoryStore::new()), vec![main], registry)
}

async fn play(rig: &Rig) {
    rig.start("r", "main", json!({})).await.unwrap();
    rig.work().await.unwrap();
    let block = rig.open_blocks().await.remove(0);
    rig.answer(&block.id, json!({ "choice": "a" })).await;
    rig.work().await.unwrap();
}

async fn all(mut stream: RunStream) -> Vec<Streamed> {
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await.unwrap() {
        parts.push(part);
    }
    parts
}

fn told(parts: &[Streamed]) -> Vec<String> {
    let told = parts.iter().map(|streamed| match &streamed.part {
        Part::Values { seq, state } => format!("{seq}: {state}"),
        Part::Update { step, result } => format!("{step} = {}", result.as_ref().unwrap()),
        Part::Event(event) => event.kind.to_string(),
        Part::Token { step, text } => format!("{step} says {text}"),
        Part::Missed(missed) => format!("missed {missed}"),
    });
    told.collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_opened_afterwards_gives_what_a_live_one_gave() {
    let rig = rig();
    let modes = [Mode::Values, Mode::Updates];
    let live = all(rig.engine.stream(&id("r"), &modes, Position::default()));
    let (live, ()) = tokio::join!(live, play(&rig));
    let later = all(rig.engine.stream(&id("r"), &modes, Position::default())).await;
    let mut sorted = (told(&live), told(&later));
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0, sorted.1);
    insta::assert_snapshot!(told(&later).join("\n"), @r#"
one#1 = {"log":["one"],"n":1}
ask#1 = {"choice":"a"}
two#1 = {"log":["two"],"n":0}
0: {"log":[],"n":0}
1: {"log":["one"],"n":1}
2: {"log":["one"],"n":1}
3: {"log":["one"],"n":2}
4: {"log":["one","two"],"n":2}
"#);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_from_any_position() {
    let rig = rig();
    play(&rig).await;
    let modes = [Mode::Values, Mode::Updates, Mode::Events];
    let whole = all(rig.engine.stream(&id("r"), &modes, Position::default())).await;
    assert!(whole.len() > 12, "{:?}", told(&whole));
    for (number, streamed) in whole.iter().enumerate() {
        let position: Position = streamed.position.to_string().parse().unwrap();
        let rest = all(rig.engine.stream(&id("r"), &modes, position)).await;
        // An event and the update that comes of it have one position.
        let behind: Vec<_> = whole[number + 1..]
            .iter()
            .filter(|other| other.position != position)
            .cloned()
            .collect();
        assert_eq!(told(&rest), told(&behind));
    }
    assert!("7".parse::<Position>().is_err());
}

struct Talk;

#[async_trait]
impl Node for Talk {
    const KIND: &'static str = "test/talk";
    type Config = NoConfig;
    type Input = NoConfig;
    type Output = Value;
    async fn run(&self, ctx: &NodeContext, _input: NoConfig) -> Result<Value, NodeError> {
        for word in ["all", "is", "well"] {
            ctx.token(word);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(Value::Null)
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_come_live_and_only_of_this_run() {
    let registry = Registry::new().node::<Talk>(|_| Ok(Talk));
    let text = "dsl: 1\ngraph: { name: talk, version: 1.0.0 }\nentry: talk\nnodes:\n  talk: { uses: test/talk, set: {}, next: $end }\n";
    let graph = check::load_text(text, &registry).unwrap();
    let engine = Engine::on(MemoryStore::new(), Library::new(registry).with(graph));
    let (worker, control) = (WorkerId::new("me").unwrap(), Control::default());
    for run in ["a", "b"] {
        engine.start(id(run), "talk", Value::Null, StartOptions::default()).await.unwrap();
    }
    let live = all(engine.stream(&id("a"), &[Mode::Tokens], Position::default()));
    let (one, two) = (id("a"), id("b"));
    let (live, ..) = tokio::join!(
        live,
        engine.work_on(&one, &worker, &control),
        engine.work_on(&two, &worker, &control),
    );
    assert_eq!(told(&live), ["talk#1 says all", "talk#1 says is", "talk#1 says well"]);
    let later = all(engine.stream(&id("a"), &[Mode::Tokens], Position::default())).await;
    assert_eq!(told(&later), Vec::<String>::new());
}

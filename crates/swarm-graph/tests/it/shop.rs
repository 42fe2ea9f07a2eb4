//! What loader tests share: a small registry, and a graph that uses most of the format.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_graph::check::{self, Memory};
use swarm_graph::defect::{Defects, Severity};
use swarm_graph::graph::Graph;
use swarm_graph::information::Flow;
use swarm_graph::node::{Node, NodeContext, NodeError};
use swarm_graph::registry::Registry;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) status: Status,
    pub(crate) cost: f64,
    pub(crate) tries: u32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    #[default]
    Open,
    /// Somebody works on it.
    Taken,
    Done,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub(crate) struct Plan {
    pub(crate) tasks: Vec<Task>,
    pub(crate) ambiguous: bool,
    pub(crate) note: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub(crate) struct ShopState {
    pub(crate) plan: Option<Plan>,
    pub(crate) findings: Vec<String>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) spent: f64,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) verdict: String,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema matters")]
pub(crate) struct ShopInput {
    issue: String,
    labels: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema matters")]
pub(crate) struct Verdict {
    choice: Choice,
    comment: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    Replan,
    Stop,
}

macro_rules! kinds {
    ($($name:ident: $kind:literal, $config:ty, $input:ty, $output:ty $(, $flow:ident)?;)*) => {$(
        struct $name;

        #[async_trait]
        impl Node for $name {
            const KIND: &'static str = $kind;
            $(const FLOW: Flow = Flow { $flow: true, ..Flow::NONE };)?
            type Config = $config;
            type Input = $input;
            type Output = $output;
            async fn run(&self, _: &NodeContext, _: $input) -> Result<$output, NodeError> {
                Ok(<$output>::default())
            }
        }
    )*};
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema matters")]
pub(crate) struct PlanInput {
    issue: String,
    #[serde(default)]
    hints: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanConfig {
    #[serde(default)]
    model: String,
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 9))]
    depth: u32,
}

fn three() -> u32 {
    3
}

#[derive(Default, JsonSchema, Serialize)]
pub(crate) struct PlanOutput {
    plan: Plan,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema matters")]
pub(crate) struct TaskInput {
    task: Task,
}

#[derive(Default, JsonSchema, Serialize)]
pub(crate) struct Findings {
    findings: Vec<String>,
}

#[derive(Default, JsonSchema, Serialize)]
pub(crate) struct Said {
    said: String,
}

#[derive(Default, JsonSchema, Serialize)]
pub(crate) struct Judged {
    verdict: String,
}

#[derive(Default, JsonSchema, Serialize)]
pub(crate) struct Empty {}

kinds! {
    MakePlan: "shop/plan", PlanConfig, PlanInput, PlanOutput;
    Look: "shop/look", Nothing, TaskInput, Findings;
    Say: "shop/say", Nothing, Nothing, Said;
    Judge: "shop/judge", Nothing, Nothing, Judged;
    Report: "shop/report", Nothing, Nothing, Empty;
    ReadMail: "shop/read_mail", Nothing, Nothing, Empty, reads_untrusted;
    Accounts: "shop/accounts", Nothing, Nothing, Empty, reads_secret;
    Send: "shop/send", Nothing, Nothing, Empty, sends_out;
    Refund: "shop/refund", Nothing, Nothing, Empty, needs_gate;
}

pub(crate) fn registry() -> Registry {
    Registry::new()
        .node(|config: PlanConfig| {
            if config.model == "none" {
                return Err(format!("no model named `{}` at depth {}", config.model, config.depth));
            }
            Ok(MakePlan)
        })
        .node(|_: Nothing| Ok(Look))
        .node(|_: Nothing| Ok(Say))
        .node(|_: Nothing| Ok(Judge))
        .node(|_: Nothing| Ok(Report))
        .node(|_: Nothing| Ok(ReadMail))
        .node(|_: Nothing| Ok(Accounts))
        .node(|_: Nothing| Ok(Send))
        .node(|_: Nothing| Ok(Refund))
        .ty::<ShopState>("ShopState")
        .ty_without_default::<ShopInput>("ShopInput")
        .ty_without_default::<Verdict>("Verdict")
        .reducer("longest", |old, new| {
            let len = |value: &serde_json::Value| value.as_str().map_or(0, str::len);
            Ok(if len(&new) > len(old) { new } else { old.clone() })
        })
}

pub(crate) fn load(text: &str) -> Result<Graph, Defects> {
    check::load(&Memory::one("g.yaml", text), "g.yaml", &registry())
}

/// A graph with these nodes, and the state of the shop.
pub(crate) fn graph(nodes: &str) -> String {
    format!(
        "dsl: 1\ngraph: {{ name: shop, version: 1.0.0 }}\ninput: {{ type: ShopInput }}\n\
         state:\n  type: ShopState\n  channels:\n    findings: {{ reducer: append }}\n\
         \x20   spent: {{ reducer: sum }}\npolicies:\n  retry: {{ again: {{ max_attempts: 3 }} }}\n\
         entry: start\nnodes:\n{nodes}"
    )
}

/// Code, line, column, message and help of each defect of a text.
pub(crate) fn defects(text: &str) -> Vec<String> {
    match load(text) {
        Ok(graph) => graph.warnings().iter().map(line).collect(),
        Err(defects) => defects.list.iter().map(line).collect(),
    }
}

fn line(defect: &swarm_graph::defect::Defect) -> String {
    let help = defect.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    let severity = if defect.severity == Severity::Warning { "warning " } else { "" };
    format!("{severity}{} {}:{} {}{help}", defect.code, defect.line, defect.column, defect.message)
}

/// Most of the format in one graph without defects.
pub(crate) const WHOLE: &str = r#"# yaml-language-server: $schema=./swarm-graph.v1.schema.json
dsl: 1
graph: { name: shop, version: 1.0.0 }
imports: [ { path: ./policies.yaml, as: org } ]
input: { type: ShopInput }
output:
  schema: { type: object, properties: { verdict: { type: string }, found: { type: integer } }, required: [ verdict ] }
  value: { verdict: "${{ state.verdict }}", found: "${{ state.findings.size() }}" }
state:
  type: ShopState
  channels:
    findings: { reducer: append }
    spent: { reducer: sum }
    tasks: { reducer: merge_by_key, key: id }
    facts: { reducer: merge }
    best: { reducer: longest, schema: { type: string }, default: "" }
policies:
  retry:
    quick: { max_attempts: 2, backoff: { initial: 500ms, factor: 1.5, max: 2s, jitter: false } }
  budget:
    run: { usd: 2.5, tokens: 1000, wall: 8h, on_exceed: fail }
defaults: { retry: org.transient, timeout: { run: 30m, idle: 5m }, budget: run }
limits: { supersteps: 100, visits_per_node: 20, concurrency: 4 }
entry: plan
nodes:
  plan:
    uses: shop/plan
    config: { model: small, depth: 2 }
    with: { issue: "Issue: ${{ input.issue }}", hints: "${{ state.findings }}" }
    retry: quick
    timeout: { run: 15m }
    routes:
      - { when: "${{ state.plan.ambiguous }}", to: ask }
      - { when: "${{ state.plan.tasks.exists(t, t.status == 'open' && t.tries < 3) }}", to: look }
      - { to: [ say, judge ] }
    catch:
      - { when: "${{ error.class == 'invalid_plan' }}", to: plan, max: 2 }
      - { to: ask, set: { best: "${{ error.message }}" } }
  look:
    foreach: { in: "${{ state.plan.tasks }}", as: task, max_parallel: 2, on_error: collect }
    uses: shop/look
    with: { task: "${{ task }}" }
    next: wait
  wait:
    wait: { signal: worker.*, timeout: 15m }
    set: { facts: "${{ signal == null ? {} : {signal.name: 'seen'} }}" }
    routes:
      - { when: "${{ size(state.facts) > 2 || 'stop' in state.facts }}", to: [ say, judge ] }
      - { to: wait, max: 12 }
      - { to: ask }
  ask:
    gate:
      reason: ambiguous_spec
      ask: "What shall become of ${{ input.issue }}? ${{ error == null ? '' : error.message }}"
      answer: Verdict
      context: { plan: "${{ state.plan }}" }
      remind: 24h
    set: { verdict: "${{ answer.comment }}" }
    routes:
      - { when: "${{ answer.choice == 'replan' }}", to: plan, max: 3 }
      - { to: report }
  say: { uses: shop/say, set: { best: "${{ output.said }}" }, next: both }
  judge: { uses: shop/judge, next: both }
  both:
    when_all: [ say, judge ]
    run: { graph: child, queue: dev, detach: true, input: { tasks: "${{ state.tasks.filter(t, t.cost > 0.5) }}" }, labels: { issue: "${{ input.issue }}" } }
    next: report
  report: { uses: shop/report, next: $end }
"#;

pub(crate) const POLICIES: &str = r#"dsl: 1
policies:
  retry:
    transient: { max_attempts: 5, backoff: { initial: 2s, factor: 2, max: 2m, jitter: true }, when: "${{ error.class in ['io', 'rate_limit', 'timeout'] }}" }
    unused: { max_attempts: 9 }
"#;

pub(crate) fn whole() -> Memory {
    Memory::one("graphs/shop.yaml", WHOLE).with("graphs/policies.yaml", POLICIES)
}

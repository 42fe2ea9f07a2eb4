//! `swarm/escalate`: brings a worker's question to the people who watch the issue.
//!
//! The question itself is durable and can be answered without this; the comment only says so where
//! people look. One comment per question, rewritten when it is answered.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::escalation::{Ask, Block, Reason, Request, render};
use swarm_core::id::{BlockId, RunId, StepId};
use swarm_graph::information::Flow;
use swarm_graph::node::{NoConfig, Node, NodeContext, NodeError};

use super::WorkerSignal;
use crate::agent::clip;
use crate::handover::Issue;
use crate::parts::{Parts, forge_failure};

/// `swarm/escalate`
#[derive(Debug)]
pub struct Escalate {
    parts: Arc<Parts>,
}

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EscalateInput {
    /// The issue.
    pub issue: Issue,
    /// A worker's `worker.blocked` or `worker.answered`.
    pub signal: WorkerSignal,
}

/// What it gives: nothing.
#[derive(Debug, JsonSchema, Serialize)]
pub struct EscalateOutput {}

impl Escalate {
    pub(crate) fn new(parts: &Arc<Parts>, _config: NoConfig) -> Self {
        Self { parts: Arc::clone(parts) }
    }
}

#[derive(Deserialize)]
struct Payload {
    run: RunId,
    block: BlockId,
    reason: Reason,
    question: String,
    #[serde(default)]
    requested_input: Vec<Request>,
}

#[async_trait]
impl Node for Escalate {
    const KIND: &'static str = "swarm/escalate";
    const FLOW: Flow = Flow { sends_out: true, ..Flow::NONE };
    type Config = NoConfig;
    type Input = EscalateInput;
    type Output = EscalateOutput;

    async fn run(
        &self,
        ctx: &NodeContext,
        input: EscalateInput,
    ) -> Result<EscalateOutput, NodeError> {
        let EscalateInput { issue, signal } = input;
        let Ok(payload) = Payload::deserialize(&signal.payload) else {
            return Ok(EscalateOutput {});
        };
        let marker = format!("devinswarm:block={}", payload.block);
        let body = if signal.name == "worker.answered" {
            format!("✅ Answered: {} (`{}`).", payload.reason.title(), payload.block)
        } else {
            words(ctx, &issue, payload)
        };
        // Rewriting the comment of a marker is idempotent: no journal is needed.
        self.parts
            .forge
            .sticky_comment(&issue.repo, issue.number, &self.parts.bot.actor(), &marker, &body)
            .await
            .map_err(forge_failure)?;
        Ok(EscalateOutput {})
    }
}

fn words(ctx: &NodeContext, issue: &Issue, payload: Payload) -> String {
    let Payload { run, block, reason, question, mut requested_input } = payload;
    if requested_input.is_empty() {
        requested_input.push(Request::Text { question: question.clone() });
    }
    let step = StepId::new(ctx.step().as_str()).expect("a step id is a step id");
    let block = Block::open(
        block,
        run,
        step,
        Ask {
            reason,
            question: clip(&question, 4000),
            requested_input,
            answer_schema: Value::Null,
            context: Value::Null,
        },
        ctx.now(),
    );
    render(&block, &format!("#{} {}", issue.number, issue.title))
}

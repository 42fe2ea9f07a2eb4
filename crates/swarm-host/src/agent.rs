//! The agent loop: model turn → checked tool calls → results, until the model finishes.
//!
//! The loop has no memory of its own: every turn and every call is journaled, and a step that is
//! run again walks through its journal to where it stopped, pays nothing twice, and goes on from
//! the tree that the last call left. So everything between two journal entries must be a function
//! of what was journaled: no clock, no chance, no map order.

mod bench;
mod check;
mod elide;
mod repeat;
mod structured;
mod turn;
pub mod untrusted;

use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarm_core::escalation::{Ask, Reason};
use swarm_core::failure::Failure;
use swarm_core::port::model::{ChatModel, ChatRequest, Message};
use swarm_core::port::tool::{ToolResult, ToolSpec};
use swarm_graph::node::{NodeContext, NodeError};
use swarm_tools::git::TreeId;
use swarm_tools::model::answer::ToolSchemas;
use swarm_tools::toolbox::control::{self, AskPerson, Finish};

pub use bench::{Bench, TreeBench};
pub use structured::structured;
pub(crate) use turn::{clip, guarded};

use check::{Call, Checked};
use elide::Elision;
use repeat::Repeats;

/// What bounds one conversation.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Turns before a person is asked whether to go on; as many again when they say so.
    pub turns_max: u32,
    /// Unusable turns in a row before a person is asked.
    pub malformed_max: u32,
    /// From this many equal calls with equal results in a row on, the model is warned.
    pub repeats_warn: u32,
    /// At this many, a person is asked.
    pub repeats_ask: u32,
    /// The estimated size of a request, in tokens, above which old tool results are elided.
    pub context_tokens: usize,
    /// The most tokens of one turn.
    pub answer_tokens: u32,
    /// The most tool calls of one turn that are run.
    pub calls_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            turns_max: 80,
            malformed_max: 3,
            repeats_warn: 3,
            repeats_ask: 6,
            context_tokens: 100_000,
            answer_tokens: 16_384,
            calls_max: 16,
        }
    }
}

/// What a conversation is opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Whose model it is: `dev`, `reviewer`, `manager`.
    pub role: String,
    /// Which conversation it is, the same whenever the same work is done again.
    pub conversation: String,
    /// The rules.
    pub system: String,
    /// The first message: the task, with everything untrusted in it quoted.
    pub text: String,
}

/// How a conversation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The model called `finish`.
    Finished(Finish),
    /// A person stopped it, with a comment perhaps.
    Stopped(String),
}

/// What a person wants after a question about the conversation itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    Retry,
    Stop,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    choice: Choice,
    #[serde(default)]
    comment: String,
}

/// A journaled tool call.
#[derive(Debug, Deserialize, Serialize)]
struct CallRecord {
    result: ToolResult,
    /// The tree after it, when it may have changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree: Option<TreeId>,
}

/// A conversation under way.
struct Loop<'a> {
    ctx: &'a NodeContext,
    model: &'a dyn ChatModel,
    bench: &'a dyn Bench,
    limits: &'a Limits,
    opening: Opening,
    specs: Vec<ToolSpec>,
    schemas: ToolSchemas,
    messages: Vec<Message>,
    elision: Elision,
    repeats: Repeats,
    strikes: u32,
    tree: TreeId,
    /// Whether the bench holds `tree` for certain.
    in_place: AtomicBool,
}

/// What follows a turn.
enum Next {
    GoOn,
    End(Ending),
}

/// Holds a conversation to its end. Returns how it ended and the tree it left; nothing but the
/// journal and the bench's tree was changed.
///
/// # Errors
/// [`NodeError::Asked`] while a person is asked; the model's and the bench's failures.
pub async fn converse(
    ctx: &NodeContext,
    model: &dyn ChatModel,
    bench: &dyn Bench,
    tree: TreeId,
    opening: Opening,
    limits: &Limits,
) -> Result<(Ending, TreeId), NodeError> {
    let mut specs = bench.specs();
    specs.extend([control::ask_spec(), control::finish_spec()]);
    let schemas = ToolSchemas::new(&specs)
        .map_err(|error| Failure::fatal("broken_schema", error.to_string()))?;
    let first = Message::User { text: opening.text.clone() };
    let mut this = Loop {
        ctx,
        model,
        bench,
        limits,
        opening,
        specs,
        schemas,
        messages: vec![first],
        elision: Elision::new(limits.context_tokens),
        repeats: Repeats::default(),
        strikes: 0,
        tree,
        in_place: AtomicBool::new(false),
    };
    let ending = this.run().await?;
    Ok((ending, this.tree))
}

impl Loop<'_> {
    async fn run(&mut self) -> Result<Ending, NodeError> {
        let mut allowed = self.limits.turns_max;
        for turn in 1_u32.. {
            if turn > allowed {
                let question = format!(
                    "The agent has used {allowed} turns without finishing. `retry` gives it {} more; a comment is \
                     handed to it as advice. `stop` ends the work and keeps the workspace.",
                    self.limits.turns_max
                );
                let key = format!("turns/{turn}");
                if let Some(ending) = self.person(&key, Reason::Decision, question).await? {
                    return Ok(ending);
                }
                allowed += self.limits.turns_max;
            }
            match self.turn(turn).await? {
                Next::GoOn => {}
                Next::End(ending) => return Ok(ending),
            }
        }
        unreachable!("a person would have been asked four billion turns before")
    }

    async fn turn(&mut self, number: u32) -> Result<Next, NodeError> {
        let request = ChatRequest {
            system: self.opening.system.clone(),
            messages: self.elision.view(&self.messages),
            tools: self.specs.clone(),
            answer_schema: None,
            tokens_max: self.limits.answer_tokens,
            role: self.opening.role.clone(),
            conversation: self.opening.conversation.clone(),
        };
        let key = format!("turn/{number}");
        let turn = turn::take(self.ctx, self.model, &key, &request).await?;
        let turn = check::with_ids(turn, number);
        self.messages.push(turn.message());
        let problem = match check::check(&turn, &self.schemas, self.limits.calls_max) {
            Checked::Unusable(problem) => {
                self.refuse(&turn.tool_calls, &problem);
                Some(problem)
            }
            Checked::Calls(calls) => match self.calls(&key, calls).await? {
                Ok(problem) => problem,
                Err(ending) => return Ok(Next::End(ending)),
            },
        };
        match problem {
            None => self.strikes = 0,
            Some(problem) => {
                if let Some(ending) = self.strike(number, &problem).await? {
                    return Ok(Next::End(ending));
                }
            }
        }
        Ok(Next::GoOn)
    }

    /// Runs the calls of one turn in order. `Ok` holds what was wrong with one of them, if any;
    /// `Err` is the end of the conversation.
    async fn calls(
        &mut self,
        key: &str,
        calls: Vec<(String, Call)>,
    ) -> Result<Result<Option<String>, Ending>, NodeError> {
        let mut problem = None;
        for (index, (id, call)) in calls.into_iter().enumerate() {
            let key = format!("{key}/call/{index}");
            let result = match call {
                Call::Wrong(words) => {
                    problem = Some(words.clone());
                    ToolResult::error(words)
                }
                Call::Finish(finish) => return Ok(Err(Ending::Finished(finish))),
                Call::Ask(question) => self.model_asks(&key, question).await?,
                Call::Run { name, arguments } => {
                    let mut result = self.call(&key, &name, &arguments).await?;
                    let count = self.repeats.see(&name, &arguments, &result);
                    if count >= self.limits.repeats_ask {
                        let question = format!(
                            "The agent has called `{name}` {count} times in a row with the same arguments and the same \
                             result. `retry` lets it go on, with your comment as advice; `stop` ends the work and \
                             keeps the workspace."
                        );
                        let key = format!("{key}/loop");
                        let asked = self.ask_choice(&key, Reason::ModelUnusable, question).await?;
                        if let Choice::Stop = asked.choice {
                            return Ok(Err(Ending::Stopped(asked.comment)));
                        }
                        self.repeats = Repeats::default();
                        result.text += &advice(&asked.comment);
                    } else if count >= self.limits.repeats_warn {
                        result.text.push_str(&note(count));
                    }
                    result
                }
            };
            self.messages.push(Message::Tool {
                call: id,
                text: result.text,
                is_error: result.is_error,
            });
        }
        Ok(Ok(problem))
    }

    /// One call, made once. Before the first call that is not in the journal, the tree is put
    /// back to what the last journaled one left, so that half a call is never built upon.
    async fn call(
        &mut self,
        key: &str,
        name: &str,
        arguments: &Value,
    ) -> Result<ToolResult, NodeError> {
        let (ctx, bench) = (self.ctx, self.bench);
        let (before, in_place) = (&self.tree, &self.in_place);
        let record = turn::guarded(ctx, key, || async {
            ctx.memo(key, || async {
                if !in_place.load(Ordering::Relaxed) {
                    bench.restore(before).await?;
                }
                // Until the call has ended well, nobody knows what the tree holds.
                in_place.store(false, Ordering::Relaxed);
                let summary = bench::summary(name, arguments);
                ctx.emit("tool.called", json!({ "tool": name, "summary": summary })).await?;
                let began = ctx.now();
                let mut result = bench.call(name, arguments.clone()).await?;
                let tree = if bench.mutates(name) {
                    match bench.capture().await {
                        Ok(tree) => Some(tree),
                        // What the call left cannot be kept, such as a file of a gigabyte.
                        Err(failure) if failure.class == "workspace" => {
                            bench.restore(before).await?;
                            result = ToolResult::error(format!("The call was undone: {}.", failure.message));
                            None
                        }
                        Err(failure) => return Err(failure.into()),
                    }
                } else {
                    None
                };
                in_place.store(true, Ordering::Relaxed);
                let ms = u64::try_from(ctx.now().since(began).as_millis()).unwrap_or(u64::MAX);
                ctx.emit(
                    "tool.finished",
                    json!({ "tool": name, "summary": summary, "ms": ms, "is_error": result.is_error }),
                )
                .await?;
                Ok(CallRecord { result, tree })
            })
            .await
        })
        .await?;
        if let Some(tree) = record.tree {
            self.tree = tree;
        }
        Ok(record.result)
    }

    /// The model's own question to a person. The answer comes back as the call's result.
    async fn model_asks(
        &mut self,
        key: &str,
        question: AskPerson,
    ) -> Result<ToolResult, NodeError> {
        let answer: Value = self.ctx.ask(key, check::person_ask(question)).await?;
        self.repeats = Repeats::default();
        let text = serde_json::to_string_pretty(&answer).unwrap_or_default();
        Ok(ToolResult::ok(format!("A person with write permission answered:\n{text}")))
    }

    /// Tells the model that none of its turn was used. Each call needs a result of its own.
    fn refuse(&mut self, calls: &[swarm_core::port::model::ToolCall], problem: &str) {
        let text = format!("Nothing of this turn was used: {problem}");
        if calls.is_empty() {
            self.messages.push(Message::User { text });
            return;
        }
        for call in calls {
            self.messages.push(Message::Tool {
                call: call.id.clone(),
                text: text.clone(),
                is_error: true,
            });
        }
    }

    async fn strike(&mut self, turn: u32, problem: &str) -> Result<Option<Ending>, NodeError> {
        self.strikes += 1;
        if self.strikes < self.limits.malformed_max {
            return Ok(None);
        }
        let question = format!(
            "The model `{}` gave {} unusable answers in a row. The last one: {problem}\n\
             `retry` lets it try again, with your comment as advice; `stop` ends the work and keeps the workspace.",
            self.opening.role, self.strikes
        );
        self.strikes = 0;
        self.person(&format!("malformed/{turn}"), Reason::ModelUnusable, question).await
    }

    /// Asks whether to go on; a comment is handed to the model.
    async fn person(
        &mut self,
        key: &str,
        reason: Reason,
        question: String,
    ) -> Result<Option<Ending>, NodeError> {
        let Verdict { choice, comment } = self.ask_choice(key, reason, question).await?;
        match choice {
            Choice::Stop => Ok(Some(Ending::Stopped(comment))),
            Choice::Retry => {
                let text = format!("Go on.{}", advice(&comment));
                self.messages.push(Message::User { text });
                self.repeats = Repeats::default();
                Ok(None)
            }
        }
    }

    async fn ask_choice(
        &self,
        key: &str,
        reason: Reason,
        question: String,
    ) -> Result<Verdict, NodeError> {
        let context = json!({
            "conversation": self.opening.conversation,
            "tree": self.tree,
            "last_messages": bench::last_words(&self.messages),
        });
        let ask = Ask::choice(reason, question, &["retry", "stop"]).with_context(context);
        self.ctx.ask(key, ask).await
    }
}

fn note(count: u32) -> String {
    format!(
        "\n\n[The host notes: this is the same call with the same result, {count} times in a row. Do something \
         else, `finish`, or `ask`.]"
    )
}

fn advice(comment: &str) -> String {
    if comment.trim().is_empty() {
        return String::new();
    }
    format!("\n\nA person with write permission advises:\n{}", comment.trim())
}

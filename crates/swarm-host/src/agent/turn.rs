//! One model turn, journaled and paid once, its failures classed.
//!
//! A missing key or an empty account is not a failure of the run: a person is asked, and the same
//! turn is taken again after the answer. Everything else that may pass by itself is left to the
//! node's `retry`, with the wait that the provider asked for.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use swarm_core::escalation::{Ask, Reason, Request};
use swarm_core::failure::Failure;
use swarm_core::port::model::{self, ChatModel, ChatRequest, ChatTurn, ErrorClass, TurnListener};
use swarm_graph::node::{NodeContext, NodeError};

/// Takes one turn under `key`.
///
/// # Errors
/// [`NodeError::Asked`] while the budget or the account needs a person; the model's failure.
pub(super) async fn take(
    ctx: &NodeContext,
    model: &dyn ChatModel,
    key: &str,
    request: &ChatRequest,
) -> Result<ChatTurn, NodeError> {
    guarded(ctx, key, || ctx.spend(key, model.estimate(request), || chat(ctx, model, request)))
        .await
}

async fn chat(
    ctx: &NodeContext,
    model: &dyn ChatModel,
    request: &ChatRequest,
) -> Result<(ChatTurn, swarm_core::spend::Spend), NodeError> {
    let listener = Listener { ctx, retries: Mutex::new(Vec::new()) };
    let began = ctx.now();
    let answered = tokio::select! {
        () = ctx.cancelled().cancelled() => return Err(NodeError::Cancelled),
        answered = model.chat(request, &listener) => answered,
    };
    for retry in listener.retries.into_inner().expect("no panic while locked") {
        ctx.emit("model.retried", retry).await?;
    }
    let turn = answered.map_err(|error| failure_of(&error))?;
    let ms = u64::try_from(ctx.now().since(began).as_millis()).unwrap_or(u64::MAX);
    ctx.emit(
        "model.turn",
        json!({
            "role": request.role,
            "model": turn.model,
            "turn": request.turn() + 1,
            "ms": ms,
            "tokens": { "input": turn.usage.input, "cached": turn.usage.cached, "output": turn.usage.output },
            "usd": turn.usd.as_dollars(),
            "tools": turn.tool_calls.iter().map(|call| clip(&call.name, 60)).collect::<Vec<_>>(),
            "text": clip(turn.text.trim(), 200),
        }),
    )
    .await?;
    let spend = turn.spend();
    Ok((turn, spend))
}

/// A model's failure as a node's: what kind it is, and how long to wait.
pub(super) fn failure_of(error: &model::Error) -> Failure {
    let class = match error.class {
        ErrorClass::Auth => "model_auth",
        ErrorClass::Quota => "model_quota",
        ErrorClass::RateLimit => "rate_limit",
        ErrorClass::Server => "unavailable",
        ErrorClass::Connection => "io",
        ErrorClass::Timeout => "timeout",
        ErrorClass::ContextLength => "context_length",
        ErrorClass::Invalid => "model_refused",
        ErrorClass::Garbled => "garbled",
        ErrorClass::NotRecorded => "not_recorded",
    };
    let failure = if error.is_transient() {
        Failure::retryable(class, error.to_string())
    } else {
        Failure::fatal(class, error.to_string())
    };
    match error.retry_after {
        Some(wait) => failure.after(wait),
        None => failure,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mended {
    Retry,
    Stop,
}

#[derive(Deserialize)]
struct MendedAnswer {
    choice: Mended,
}

/// Runs `work`; when it fails for want of something that only a person can bring (a sandbox, a
/// key, money at the provider), asks for it and runs it again after the answer.
///
/// # Errors
/// [`NodeError::Asked`] while a person is asked; a fatal failure of class `stopped` when they
/// stop it; every other failure of `work`.
pub(crate) async fn guarded<T, F, Fut>(
    ctx: &NodeContext,
    key: &str,
    mut work: F,
) -> Result<T, NodeError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, NodeError>>,
{
    for round in 1_u32.. {
        let failure = match work().await {
            Err(NodeError::Failed(failure)) => failure,
            other => return other,
        };
        let Some(ask) = ask_for(&failure) else { return Err(failure.into()) };
        let answer: MendedAnswer = ctx.ask(&format!("{key}/needs/{round}"), ask).await?;
        if let Mended::Stop = answer.choice {
            let message = format!("stopped by a person after: {}", failure.message);
            return Err(Failure::fatal("stopped", message).into());
        }
    }
    unreachable!("nobody answers four billion questions")
}

fn ask_for(failure: &Failure) -> Option<Ask> {
    let choices = ["retry", "stop"];
    let why = failure.message.trim_end_matches('.');
    match failure.class.as_str() {
        "sandbox_unavailable" => {
            let question = format!(
                "Commands of the repository cannot be run: {why}. Mend it on the worker's machine, then choose `retry`; \
                 `stop` ends the step."
            );
            Some(Ask::choice(Reason::SandboxUnavailable, question, &choices))
        }
        "model_auth" => {
            let question = format!(
                "The model's provider does not accept the key: {why}. Give the worker a valid one and \
                 start it again, then choose `retry`."
            );
            let mut ask = Ask::choice(Reason::MissingSecret, question, &choices);
            ask.requested_input.insert(
                0,
                Request::Secret {
                    name: "OPENAI_API_KEY or ANTHROPIC_API_KEY".to_owned(),
                    create_at: "the console of the model's provider, under API keys".to_owned(),
                    scopes: vec!["inference (chat completions or messages)".to_owned()],
                    paste_into:
                        "the environment or the secret file of the worker (never into an answer)"
                            .to_owned(),
                },
            );
            Some(ask)
        }
        "model_quota" => {
            let question = format!(
                "The model's provider refuses for want of money or quota: {why}. Top up the account or change the model, \
                 then choose `retry`."
            );
            Some(Ask::choice(Reason::Budget, question, &choices))
        }
        _ => None,
    }
}

struct Listener<'a> {
    ctx: &'a NodeContext,
    retries: Mutex<Vec<serde_json::Value>>,
}

impl TurnListener for Listener<'_> {
    fn text(&self, piece: &str) {
        self.ctx.token(piece);
    }

    fn retrying(&self, attempt: u32, wait: Duration, error: &model::Error) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let error = clip(&error.to_string(), 300);
        tracing::warn!(run_id = %self.ctx.run_id(), attempt, wait_ms, error, "Model call is tried again.");
        self.retries
            .lock()
            .expect("no panic while locked")
            .push(json!({ "attempt": attempt, "wait_ms": wait_ms, "error": error }));
    }
}

/// The text, cut to at most `chars` characters.
pub(crate) fn clip(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

//! Several models in order of preference: the next one answers when the one before cannot.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::port::model::{ChatModel, ChatRequest, ChatTurn, Error, ErrorClass, TurnListener};
use swarm_core::spend::Spend;

/// A model and its fallbacks.
///
/// A fallback is asked when a model's trouble is its own: no key, no money, overload, silence,
/// gibberish, each after the model's own retries. A request that is refused for what it says is
/// not shown around.
pub struct FallbackModel {
    first: Arc<dyn ChatModel>,
    rest: Vec<Arc<dyn ChatModel>>,
}

impl fmt::Debug for FallbackModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackModel").field("fallbacks", &self.rest.len()).finish_non_exhaustive()
    }
}

impl FallbackModel {
    /// `first`, and after it `rest` in order.
    #[must_use]
    pub fn new(first: Arc<dyn ChatModel>, rest: Vec<Arc<dyn ChatModel>>) -> Self {
        Self { first, rest }
    }
}

#[async_trait]
impl ChatModel for FallbackModel {
    /// What the dearest of the models would cost.
    fn estimate(&self, request: &ChatRequest) -> Spend {
        self.rest.iter().fold(self.first.estimate(request), |most, model| {
            let spend = model.estimate(request);
            Spend { usd: most.usd.max(spend.usd), tokens: most.tokens.max(spend.tokens) }
        })
    }

    /// The first turn that a model gives. When none does, the error is of the preferred model's
    /// class and tells what each of them said.
    async fn chat(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let mut failed = match self.first.chat(request, listener).await {
            Ok(turn) => return Ok(turn),
            Err(error) => vec![error],
        };
        for model in &self.rest {
            let last = failed.last().expect("it began with one error");
            if !may_fall_back(last.class) {
                break;
            }
            tracing::warn!(role = %request.role, error = %last, "A model cannot answer; its fallback is asked.");
            let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
            listener.retrying(count, Duration::ZERO, last);
            match model.chat(request, listener).await {
                Ok(turn) => return Ok(turn),
                Err(error) => failed.push(error),
            }
        }
        Err(joined(failed))
    }
}

/// Whether another model may do what this one cannot.
fn may_fall_back(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Auth
        | ErrorClass::Quota
        | ErrorClass::RateLimit
        | ErrorClass::Server
        | ErrorClass::Connection
        | ErrorClass::Timeout
        | ErrorClass::Garbled => true,
        ErrorClass::ContextLength | ErrorClass::Invalid | ErrorClass::NotRecorded => false,
    }
}

fn joined(failed: Vec<Error>) -> Error {
    let later: Vec<String> = failed.iter().skip(1).map(ToString::to_string).collect();
    let mut first = failed.into_iter().next().expect("it began with one error");
    if !later.is_empty() {
        first.message = format!("{}; then {}", first.message, later.join("; then "));
    }
    first
}

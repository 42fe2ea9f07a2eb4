//! What the scripted server does with one request.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use swarm_core::port::model::{Stop, Usage};
use tokio_util::sync::CancellationToken;

/// What the server does with one request. Made by one of the first functions, refined by the
/// chained ones.
#[derive(Clone, Debug)]
pub struct Step {
    pub(super) reply: Reply,
    pub(super) headers: Vec<(String, String)>,
    pub(super) delay: Option<Duration>,
    pub(super) until: Option<CancellationToken>,
    pub(super) frames_max: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A turn in the request's wire format.
    Turn(Turn),
    /// A refusal with an error body in the request's wire format.
    Refusal { status: u16, kind: String, message: String },
    /// These bytes.
    Raw { status: u16, content_type: String, body: Bytes },
    /// Nothing, ever.
    Never,
}

/// A turn to be written in a wire format.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) thought: Option<String>,
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) usage: Option<Usage>,
    pub(super) stop: Option<Stop>,
}

/// A tool call with its arguments as the model wrote them.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: String,
}

impl Step {
    fn of(reply: Reply) -> Self {
        Self { reply, headers: Vec::new(), delay: None, until: None, frames_max: None }
    }

    fn turn(text: String, calls: Vec<Call>, stop: Stop) -> Self {
        let usage = Some(Usage { input: 100, cached: 0, output: 20 });
        Self::of(Reply::Turn(Turn { thought: None, text, calls, usage, stop: Some(stop) }))
    }

    /// Says this, in several pieces when streamed.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::turn(text.into(), Vec::new(), Stop::End)
    }

    /// Says this JSON.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
    pub fn json(value: Value) -> Self {
        Self::text(value.to_string())
    }

    /// Says nothing at all, and that it is done.
    #[must_use]
    pub fn empty() -> Self {
        Self::text("")
    }

    /// Says this many bytes.
    #[must_use]
    pub fn huge(bytes: usize) -> Self {
        Self::text("x".repeat(bytes))
    }

    /// Calls a tool, its arguments in several pieces when streamed. Ids are `call_0`, `call_1`…
    /// after the number of the request.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in place")]
    pub fn tool(name: impl Into<String>, arguments: Value) -> Self {
        Self::text("").and_tool(name, arguments.to_string())
    }

    /// Calls a tool with arguments that need not be JSON. Only OpenAI's wire format, and
    /// Anthropic's when streamed, can say them.
    #[must_use]
    pub fn tool_raw(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self::text("").and_tool(name, arguments)
    }

    /// Also calls this tool, with arguments as text.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn and_tool(mut self, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        let turn = self.turn_mut();
        turn.calls.push(Call { name: name.into(), arguments: arguments.into() });
        turn.stop = Some(Stop::Tools);
        self
    }

    /// Also says this, before the tools.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn saying(mut self, text: impl Into<String>) -> Self {
        self.turn_mut().text = text.into();
        self
    }

    /// Thinks this first. On Anthropic's wire the thought is signed `signature-of-LENGTH`.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn thinking(mut self, text: impl Into<String>) -> Self {
        self.turn_mut().thought = Some(text.into());
        self
    }

    /// Counts these tokens instead of 100 and 20.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.turn_mut().usage = Some(usage);
        self
    }

    /// Counts no tokens, as some OpenAI-compatible servers.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn without_usage(mut self) -> Self {
        self.turn_mut().usage = None;
        self
    }

    /// Stops for this reason.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.turn_mut().stop = Some(stop);
        self
    }

    /// Ends the stream in good order but never says why it stopped.
    ///
    /// # Panics
    /// When the step is not a turn.
    #[must_use]
    pub fn without_stop(mut self) -> Self {
        self.turn_mut().stop = None;
        self
    }

    /// Refuses with this status and an error body of the wire format; `kind` is the provider's word
    /// for it, such as `insufficient_quota` or `overloaded_error`.
    #[must_use]
    pub fn refuse(status: u16, kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of(Reply::Refusal { status, kind: kind.into(), message: message.into() })
    }

    /// Refuses with 429 and a `retry-after` header: seconds or an HTTP date.
    #[must_use]
    pub fn rate_limited(retry_after: impl Into<String>) -> Self {
        Self::refuse(429, "rate_limit_error", "too many requests")
            .header("retry-after", retry_after)
    }

    /// Fails with 500.
    #[must_use]
    pub fn server_error() -> Self {
        Self::refuse(500, "server_error", "the server had an error")
    }

    /// Fails with 529, Anthropic's word for too much load.
    #[must_use]
    pub fn overloaded() -> Self {
        Self::refuse(529, "overloaded_error", "overloaded")
    }

    /// Answers 200 with bytes that are neither UTF-8 nor JSON nor a stream.
    #[must_use]
    pub fn garbage() -> Self {
        Self::raw(200, "text/event-stream", &b"\xff\xfe\x00data: \xc3\x28\n\n"[..])
    }

    /// Answers 200 with a stream whose frames hold JSON that is cut off.
    #[must_use]
    pub fn wrong_json() -> Self {
        let frames = "event: message_start\ndata: {\"type\": \"message_start\", \"mess\n\ndata: {\"choices\": [\n\n";
        Self::raw(200, "text/event-stream", frames)
    }

    /// Answers with these bytes.
    #[must_use]
    pub fn raw(status: u16, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::of(Reply::Raw { status, content_type: content_type.into(), body: body.into() })
    }

    /// Takes the request and never answers.
    #[must_use]
    pub fn never() -> Self {
        Self::of(Reply::Never)
    }

    /// Cuts the connection after this many frames of the stream (bytes, when not streamed).
    #[must_use]
    pub fn cut_after(mut self, frames: usize) -> Self {
        self.frames_max = Some(frames);
        self
    }

    /// Waits this long before it answers, in real time. Prefer [`Step::until`].
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Waits before it answers until the test cancels `released`.
    #[must_use]
    pub fn until(mut self, released: &CancellationToken) -> Self {
        self.until = Some(released.clone());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn turn_mut(&mut self) -> &mut Turn {
        match &mut self.reply {
            Reply::Turn(turn) => turn,
            Reply::Refusal { .. } | Reply::Raw { .. } | Reply::Never => {
                panic!("only a step that answers with a turn can be refined so")
            }
        }
    }
}

/// Cuts a text into pieces of about `size` bytes, at least two when it has two characters.
pub(super) fn pieces(text: &str, size: usize) -> Vec<&str> {
    let size = size.min(text.len().div_ceil(2)).max(1);
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = size.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, tail) = rest.split_at(end);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

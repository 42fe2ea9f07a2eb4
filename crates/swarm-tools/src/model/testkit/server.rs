//! The server itself: accepts, asks the script, writes the step, keeps the journal.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::request::{Wire, WireRequest};
use super::step::{Reply, Step, Turn};
use super::{anthropic, openai};

/// Chooses what to do with a request.
pub type Script = Box<dyn Fn(&WireRequest) -> Step + Send + Sync>;

type Body = BoxBody<Bytes, std::io::Error>;

/// A model server on `127.0.0.1` that follows a script. Dropping it closes all connections.
pub struct ScriptedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    journal: Mutex<Vec<WireRequest>>,
    started: Instant,
    stopped: CancellationToken,
}

impl fmt::Debug for ScriptedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ScriptedServer {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When no port of `127.0.0.1` can be bound.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port of 127.0.0.1 can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            script,
            journal: Mutex::default(),
            started: Instant::now(),
            stopped: CancellationToken::new(),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Starts a server that takes these steps in order, one for each request, and refuses with 500
    /// what comes after them.
    ///
    /// # Panics
    /// As [`ScriptedServer::start`].
    pub async fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: Mutex<VecDeque<Step>> = Mutex::new(steps.into_iter().collect());
        Self::start(Box::new(move |_| {
            lock(&steps).pop_front().unwrap_or_else(|| {
                Step::refuse(500, "script_ended", "the script has no step for this request")
            })
        }))
        .await
    }

    /// What an OpenAI-compatible client takes as its base URL.
    ///
    /// # Panics
    /// Never: the address is one.
    #[must_use]
    pub fn openai_base_url(&self) -> Url {
        Url::parse(&format!("http://{}/v1/", self.address)).expect("an address makes a URL")
    }

    /// What an Anthropic client takes as its base URL.
    ///
    /// # Panics
    /// Never: the address is one.
    #[must_use]
    pub fn anthropic_base_url(&self) -> Url {
        self.openai_base_url()
    }

    /// All requests so far, in the order they came.
    #[must_use]
    pub fn requests(&self) -> Vec<WireRequest> {
        lock(&self.shared.journal).clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped.cancelled() => return,
        };
        let Ok((socket, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| respond(Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                // A connection that breaks is the client's business or the script's wish.
                _ = connection => {}
                () = shared.stopped.cancelled() => {}
            }
        });
    }
}

async fn respond(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let wire = if path.ends_with("/chat/completions") {
        Wire::OpenAi
    } else if path.ends_with("/messages") {
        Wire::Anthropic
    } else {
        let message = format!("no route `{path}`; the server speaks chat/completions and messages");
        return Ok(response(404, "text/plain", &[], full(message)));
    };
    let method = request.method().to_string();
    let path = request.uri().path_and_query().map_or(path, |whole| whole.as_str()).to_owned();
    let headers: BTreeMap<String, String> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let at = shared.started.elapsed();
    let request = {
        let mut journal = lock(&shared.journal);
        let request = WireRequest { nth: journal.len(), wire, method, path, headers, body, at };
        journal.push(request.clone());
        request
    };
    let step = (shared.script)(&request);
    if let Some(delay) = step.delay {
        tokio::time::sleep(delay).await;
    }
    if let Some(released) = &step.until {
        released.cancelled().await;
    }
    Ok(take(&request, step).await)
}

/// Takes the step.
async fn take(request: &WireRequest, step: Step) -> Response<Body> {
    match step.reply {
        Reply::Turn(turn) if request.stream() => {
            let frames = match request.wire {
                Wire::OpenAi => openai::frames(request, &turn),
                Wire::Anthropic => anthropic::frames(request, &turn),
            };
            let frames = frames.into_iter().map(Bytes::from).collect();
            response(200, "text/event-stream", &step.headers, chunked(frames, step.frames_max))
        }
        Reply::Turn(turn) => {
            let bytes = Bytes::from(whole(request, &turn).to_string());
            let body = match step.frames_max {
                None => full(bytes),
                Some(max) => chunked(vec![bytes.slice(..max.min(bytes.len()))], Some(1)),
            };
            response(200, "application/json", &step.headers, body)
        }
        Reply::Refusal { status, kind, message } => {
            let error = match request.wire {
                Wire::OpenAi => openai::error(&kind, &message),
                Wire::Anthropic => anthropic::error(&kind, &message),
            };
            response(status, "application/json", &step.headers, full(error.to_string()))
        }
        Reply::Raw { status, content_type, body } => {
            response(status, &content_type, &step.headers, full(body))
        }
        Reply::Never => std::future::pending().await,
    }
}

fn whole(request: &WireRequest, turn: &Turn) -> Value {
    match request.wire {
        Wire::OpenAi => openai::whole(request, turn),
        Wire::Anthropic => anthropic::whole(request, turn),
    }
}

fn response(
    status: u16,
    content_type: &str,
    headers: &[(String, String)],
    body: Body,
) -> Response<Body> {
    let mut builder = Response::builder().status(status).header("content-type", content_type);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(body).expect("a script names valid statuses and headers")
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// One chunk for each frame; the connection breaks after `frames_max` of them, once they are out.
fn chunked(frames: Vec<Bytes>, frames_max: Option<usize>) -> Body {
    let sent: Vec<Bytes> = frames.into_iter().take(frames_max.unwrap_or(usize::MAX)).collect();
    let frames = stream::iter(sent.into_iter().map(|bytes| Ok(Frame::data(bytes))));
    let cut = frames_max.map(|_| async {
        // While this waits, what was sent before leaves the buffer.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("the script cuts the connection"))
    });
    BodyExt::boxed(StreamBody::new(frames.chain(stream::iter(cut).then(|cut| cut))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Models over real HTTP: both wire formats, every misfortune, no real waiting.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::port::model::{
    ChatModel, ChatRequest, ChatTurn, Error, ErrorClass, Message, Stop, Thought, ToolCall,
    TurnListener, Usage,
};
use swarm_core::port::tool::ToolSpec;
use swarm_core::spend::UsdMicros;
use swarm_core::time::Timestamp;
use swarm_tools::model::testkit::{ScriptedServer, Step, Wire};
use swarm_tools::model::{FallbackModel, ModelConfig, Price, Provider, RemoteModel, config};

/// 2026-11-23 08:45:12 UTC.
const NOW: Timestamp = Timestamp(1_795_423_512_000);
const KEY: &str = "sk-a-secret-that-nobody-may-see";
const BOTH: [Provider; 2] = [Provider::OpenAi, Provider::Anthropic];

/// A clock on which waiting takes no time.
#[derive(Default)]
pub(crate) struct FakeClock {
    slept: Mutex<Vec<Duration>>,
}

impl FakeClock {
    fn slept_ms(&self) -> Vec<u128> {
        self.slept.lock().unwrap().iter().map(Duration::as_millis).collect()
    }
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.slept.lock().unwrap().iter().fold(NOW, |now, slept| now + *slept)
    }

    async fn sleep(&self, duration: Duration) {
        self.slept.lock().unwrap().push(duration);
    }
}

/// Chance that always adds nothing: each wait is the half of the full one.
struct NoChance;

impl Entropy for NoChance {
    fn next_u64(&self) -> u64 {
        0
    }
}

/// Writes down what it hears.
#[derive(Default)]
struct Heard {
    pieces: Mutex<Vec<String>>,
    retries: Mutex<Vec<(u32, u128, ErrorClass)>>,
}

impl TurnListener for Heard {
    fn text(&self, piece: &str) {
        self.pieces.lock().unwrap().push(piece.to_owned());
    }

    fn retrying(&self, attempt: u32, wait: Duration, error: &Error) {
        self.retries.lock().unwrap().push((attempt, wait.as_millis(), error.class));
    }
}

/// A server, a model that asks it, and what the two leave behind.
struct Bench {
    server: ScriptedServer,
    model: RemoteModel,
    clock: Arc<FakeClock>,
    heard: Heard,
}

impl Bench {
    async fn new(provider: Provider, steps: Vec<Step>) -> Self {
        Self::with(provider, steps, |_| {}).await
    }

    async fn with(
        provider: Provider,
        steps: Vec<Step>,
        refine: impl FnOnce(&mut ModelConfig),
    ) -> Self {
        let server = ScriptedServer::steps(steps).await;
        let mut config = configured(&server, provider);
        refine(&mut config);
        let clock = Arc::new(FakeClock::default());
        let http = reqwest::Client::new();
        let model = RemoteModel::new(config, http, clock.clone(), Arc::new(NoChance)).unwrap();
        Self { server, model, clock, heard: Heard::default() }
    }

    async fn ask(&self, request: &ChatRequest) -> Result<ChatTurn, Error> {
        self.model.chat(request, &self.heard).await
    }

    async fn hello(&self) -> Result<ChatTurn, Error> {
        self.ask(&request("Hello?")).await
    }
}

pub(crate) fn configured(server: &ScriptedServer, provider: Provider) -> ModelConfig {
    let name = match provider {
        Provider::OpenAi => "openai:gpt-x",
        Provider::Anthropic => "anthropic:claude-x",
    };
    let mut config = ModelConfig::new(name.parse().unwrap());
    config.base_url = Some(server.openai_base_url());
    config.key = Some(KEY.into());
    config
}

pub(crate) fn request(text: &str) -> ChatRequest {
    ChatRequest {
        system: "You are terse.".into(),
        messages: vec![Message::User { text: text.into() }],
        tools: Vec::new(),
        answer_schema: None,
        tokens_max: 1000,
        role: "dev".into(),
        conversation: "dev/implement#1".into(),
    }
}

pub(crate) fn read_file() -> ToolSpec {
    ToolSpec {
        name: "read_file".into(),
        description: "Reads a file.".into(),
        arguments: json!({
            "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"],
        }),
    }
}

#[tokio::test]
async fn a_turn_arrives_whole_and_is_heard_in_pieces() {
    for provider in BOTH {
        let text = "Good day to you, whoever you are. 🐝 Ça va?";
        let bench = Bench::new(provider, vec![Step::text(text)]).await;
        let turn = bench.hello().await.unwrap();
        assert_eq!(turn.text, text);
        assert_eq!(turn.stop, Stop::End);
        assert_eq!(turn.tool_calls, []);
        let pieces = bench.heard.pieces.lock().unwrap().clone();
        assert!(pieces.len() > 1, "{pieces:?}");
        assert_eq!(pieces.concat(), text);

        let [asked] = &bench.server.requests()[..] else { panic!("one request") };
        assert_eq!(asked.key(), Some(KEY));
        assert_eq!(asked.system(), "You are terse.");
        assert_eq!(asked.last_message(), "Hello?");
        assert!(asked.stream());
        let path = match asked.wire {
            Wire::OpenAi => "/v1/chat/completions",
            Wire::Anthropic => "/v1/messages",
        };
        assert_eq!(asked.path, path);
    }
}

#[tokio::test]
async fn tool_calls_are_assembled_from_deltas() {
    for provider in BOTH {
        let arguments =
            json!({ "path": "src/a/very/long/path/to/some/module.rs", "lines": [1, 20] });
        let step = Step::tool("read_file", arguments.clone())
            .and_tool("list", "{}")
            .and_tool("read_file", r#"{"path": "b.rs"}"#)
            .saying("Let me look.");
        let bench = Bench::new(provider, vec![step]).await;
        let turn =
            bench.ask(&ChatRequest { tools: vec![read_file()], ..request("Look.") }).await.unwrap();
        assert_eq!(turn.text, "Let me look.");
        assert_eq!(turn.stop, Stop::Tools);
        let called: Vec<_> =
            turn.tool_calls.iter().map(|call| (call.name.as_str(), &call.arguments)).collect();
        assert_eq!(
            called,
            [
                ("read_file", &arguments),
                ("list", &json!({})),
                ("read_file", &json!({"path": "b.rs"}))
            ]
        );
        let mut ids: Vec<_> = turn.tool_calls.iter().map(|call| &call.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert_eq!(bench.server.requests()[0].tools(), ["read_file"]);
    }
}

#[tokio::test]
async fn arguments_that_are_not_json_arrive_as_the_text_they_are() {
    for provider in BOTH {
        let bench = Bench::new(provider, vec![Step::tool_raw("read_file", r#"{"path": "#)]).await;
        let turn = bench.hello().await.unwrap();
        assert_eq!(turn.tool_calls[0].arguments, json!(r#"{"path": "#));
    }
}

#[tokio::test]
async fn a_conversation_with_tools_is_sent_in_the_providers_form() {
    let call = |id: &str, arguments: Value| ToolCall {
        id: id.into(),
        name: "read_file".into(),
        arguments,
    };
    let mut asked = ChatRequest { tools: vec![read_file()], ..request("Look.") };
    asked.messages.extend([
        Message::Assistant {
            text: String::new(),
            tool_calls: vec![call("c1", json!({"path": "a"})), call("c2", json!("{\"path"))],
            thoughts: None,
        },
        Message::Tool { call: "c1".into(), text: "fn main() {}".into(), is_error: false },
        Message::Tool { call: "c2".into(), text: "not JSON".into(), is_error: true },
        // A turn that said nothing must not become a message that providers refuse.
        Message::Assistant { text: String::new(), tool_calls: Vec::new(), thoughts: None },
        Message::User { text: "Say something.".into() },
    ]);

    let bench = Bench::new(Provider::OpenAi, vec![Step::text("ok")]).await;
    bench.ask(&asked).await.unwrap();
    assert_eq!(
        json!(bench.server.requests()[0].messages()),
        json!([
            { "role": "system", "content": "You are terse." },
            { "role": "user", "content": "Look." },
            { "role": "assistant", "content": "", "tool_calls": [
                { "type": "function", "id": "c1", "function": { "name": "read_file", "arguments": "{\"path\":\"a\"}" } },
                { "type": "function", "id": "c2", "function": { "name": "read_file", "arguments": "{\"not_an_object\":\"{\\\"path\"}" } },
            ] },
            { "role": "tool", "content": "fn main() {}", "tool_call_id": "c1" },
            { "role": "tool", "content": "error: not JSON", "tool_call_id": "c2" },
            { "role": "user", "content": "Say something." },
        ])
    );

    let bench = Bench::new(Provider::Anthropic, vec![Step::text("ok")]).await;
    bench.ask(&asked).await.unwrap();
    let cache = json!({ "type": "ephemeral" });
    let body = &bench.server.requests()[0].body;
    assert_eq!(
        body["system"],
        json!([{ "type": "text", "text": "You are terse.", "cache_control": cache }])
    );
    assert_eq!(
        body["messages"],
        json!([
            { "role": "user", "content": "Look." },
            { "role": "assistant", "content": [
                { "type": "tool_use", "id": "c1", "name": "read_file", "input": { "path": "a" } },
                { "type": "tool_use", "id": "c2", "name": "read_file", "input": { "not_an_object": "{\"path" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "content": "fn main() {}", "tool_use_id": "c1" },
                { "type": "tool_result", "content": "not JSON", "tool_use_id": "c2", "is_error": true },
            ] },
            { "role": "user", "content": [{ "type": "text", "text": "Say something.", "cache_control": cache }] },
        ])
    );
    assert_eq!(bench.server.requests()[0].headers["anthropic-version"], "2023-06-01");
}

#[tokio::test]
async fn reasoning_goes_back_to_the_model_that_thought_it_and_to_no_other() {
    for provider in BOTH {
        let steps = vec![
            Step::tool("read_file", json!({"path": "a"})).thinking("Hm, a file it must be."),
            Step::text("done"),
        ];
        let bench = Bench::new(provider, steps.clone()).await;
        let first = ChatRequest { tools: vec![read_file()], ..request("Look.") };
        let turn = bench.ask(&first).await.unwrap();
        let pieces = &turn.thoughts.as_ref().unwrap().pieces;
        let text = "Hm, a file it must be.".to_owned();
        match provider {
            Provider::OpenAi => assert_eq!(pieces, &[Thought::Plain { text: text.clone() }]),
            Provider::Anthropic => {
                let signature = "signature-of-22".to_owned();
                assert_eq!(pieces, &[Thought::Signed { text: text.clone(), signature }]);
            }
        }

        let result = Message::Tool {
            call: turn.tool_calls[0].id.clone(),
            text: "x".into(),
            is_error: false,
        };
        let mut second = first.clone();
        second.messages.extend([turn.message(), result]);
        bench.ask(&second).await.unwrap();
        let said = bench.server.requests()[1].body.to_string();
        assert!(said.contains(&text), "{said}");

        let stranger = Bench::with(provider, steps, |config| config.name = "another".into()).await;
        stranger.ask(&second).await.unwrap();
        let said = stranger.server.requests()[0].body.to_string();
        assert!(!said.contains(&text), "{said}");
    }
}

#[tokio::test]
async fn usage_and_cached_tokens_are_counted_and_priced() {
    for provider in BOTH {
        let usage = Usage { input: 1200, cached: 1000, output: 50 };
        let bench = Bench::with(provider, vec![Step::text("ok").usage(usage)], |config| {
            let (cached, cache_write) = (Some(0.5), None);
            config.price = Some(Price { input: 5.0, cached, cache_write, output: 20.0 });
        })
        .await;
        let turn = bench.hello().await.unwrap();
        assert_eq!(turn.usage, usage);
        assert_eq!(turn.usd, UsdMicros(200 * 5 + 500 + 50 * 20));
        let estimate = bench.model.estimate(&request("Hello?"));
        assert!(estimate.tokens >= 1000 && estimate.usd >= UsdMicros(20_000), "{estimate:?}");
    }
}

#[tokio::test]
async fn a_provider_that_counts_no_tokens_is_not_free_of_them() {
    for provider in BOTH {
        let bench = Bench::new(provider, vec![Step::text("x".repeat(300)).without_usage()]).await;
        let turn = bench.hello().await.unwrap();
        assert_eq!(turn.usage.output, 100);
        assert!(turn.usage.input > 0);
        assert_eq!(turn.usd, UsdMicros(0), "no price is configured");
    }
}

#[tokio::test]
async fn a_schema_is_demanded_natively_and_by_instruction_once_that_was_refused() {
    let schema = json!({
        "type": "object", "properties": { "n": { "type": "integer", "minimum": 0 } }, "required": ["n"],
    });
    let asked = ChatRequest { answer_schema: Some(schema.clone()), ..request("How many?") };
    for provider in BOTH {
        let refusal = Step::refuse(400, "invalid_request_error", "json_schema is not supported");
        let steps = vec![
            Step::json(json!({"n": 1})),
            refusal,
            Step::json(json!({"n": 2})),
            Step::json(json!({"n": 3})),
        ];
        let bench = Bench::new(provider, steps).await;
        for n in 1..=3 {
            assert_eq!(bench.ask(&asked).await.unwrap().text, json!({ "n": n }).to_string());
        }
        let requests = bench.server.requests();
        let native: Vec<bool> =
            requests.iter().map(|asked| asked.answer_schema().is_some()).collect();
        assert_eq!(native, [true, true, false, false]);
        assert_eq!(
            requests[0].answer_schema().unwrap()["properties"]["n"],
            json!({"type": "integer"})
        );
        assert!(requests[2].system().contains(&schema.to_string()), "{}", requests[2].system());
        assert_eq!(bench.clock.slept_ms(), [0_u128; 0]);
    }
}

#[tokio::test]
async fn an_invalid_request_with_a_schema_stays_invalid() {
    let refusal = || Step::refuse(400, "invalid_request_error", "no such parameter");
    let asked = ChatRequest { answer_schema: Some(json!({"type": "object"})), ..request("?") };
    let bench =
        Bench::new(Provider::OpenAi, vec![refusal(), refusal(), Step::text("never asked")]).await;
    assert_eq!(bench.ask(&asked).await.unwrap_err().class, ErrorClass::Invalid);
    assert_eq!(bench.server.requests().len(), 2);
}

#[tokio::test]
async fn what_passes_is_waited_for_and_the_listener_is_told() {
    use ErrorClass as Class;
    for provider in BOTH {
        let steps = vec![
            Step::rate_limited("7"),
            Step::rate_limited("Mon, 23 Nov 2026 08:45:49 GMT"),
            Step::server_error(),
            Step::overloaded(),
            Step::text("at last"),
        ];
        let bench = Bench::new(provider, steps).await;
        assert_eq!(bench.hello().await.unwrap().text, "at last");
        // 7 s as asked; the date is 37 s from the start and so 30 s from then; the rest is backoff:
        // halves of 4 s and 8 s.
        assert_eq!(bench.clock.slept_ms(), [7000, 30_000, 2000, 4000]);
        let retries = bench.heard.retries.lock().unwrap().clone();
        assert_eq!(
            retries,
            [
                (1, 7000, Class::RateLimit),
                (2, 30_000, Class::RateLimit),
                (3, 2000, Class::Server),
                (4, 4000, Class::Server),
            ]
        );
    }
}

#[tokio::test]
async fn attempts_end_and_the_last_error_says_why() {
    let bench =
        Bench::with(Provider::OpenAi, vec![Step::server_error(), Step::overloaded()], |config| {
            config.retries.attempts_max = 2;
        })
        .await;
    let error = bench.hello().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Server);
    insta::assert_snapshot!(error, @"model `openai:gpt-x`: status 529: overloaded_error: overloaded");
    assert_eq!(bench.server.requests().len(), 2);
}

#[tokio::test]
async fn a_provider_that_asks_for_an_hour_is_not_waited_for() {
    let bench =
        Bench::new(Provider::Anthropic, vec![Step::rate_limited("3600"), Step::text("no")]).await;
    let error = bench.hello().await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(bench.clock.slept_ms(), [0_u128; 0]);
}

#[tokio::test]
async fn what_only_a_person_can_mend_is_asked_once() {
    let cases = [
        (Step::refuse(401, "authentication_error", "invalid key"), ErrorClass::Auth),
        (Step::refuse(403, "permission_error", "not for you"), ErrorClass::Auth),
        (Step::refuse(429, "insufficient_quota", "pay first"), ErrorClass::Quota),
        (
            Step::refuse(400, "invalid_request_error", "prompt is too long: 9 > 8"),
            ErrorClass::ContextLength,
        ),
        (Step::refuse(404, "not_found_error", "no such model"), ErrorClass::Invalid),
    ];
    for provider in BOTH {
        for (step, class) in cases.clone() {
            let bench = Bench::new(provider, vec![step, Step::text("never asked")]).await;
            assert_eq!(bench.hello().await.unwrap_err().class, class);
            assert_eq!(bench.server.requests().len(), 1, "{class:?}");
        }
    }
}

#[tokio::test]
async fn a_cut_stream_is_an_error_and_never_half_an_answer() {
    for provider in BOTH {
        for frames in [0, 1, 3, 5, 7] {
            let text = "a sentence that takes more than a handful of frames to say, surely more than seven of sixteen bytes each";
            let steps = vec![Step::text(text).cut_after(frames), Step::text("whole")];
            let bench = Bench::new(provider, steps).await;
            assert_eq!(bench.hello().await.unwrap().text, "whole", "{frames}");
            let retries = bench.heard.retries.lock().unwrap().clone();
            assert_eq!(retries, [(1, 500, ErrorClass::Connection)], "{frames}");
        }
    }
}

#[tokio::test]
async fn what_was_heard_of_a_cut_stream_is_made_void() {
    for provider in BOTH {
        let steps = vec![
            Step::text("a sentence that is cut in its middle").cut_after(4),
            Step::text("whole"),
        ];
        let bench = Bench::new(provider, steps).await;
        bench.hello().await.unwrap();
        let heard = bench.heard.pieces.lock().unwrap().concat();
        assert!(heard.starts_with("a sentence") && heard.ends_with("whole"), "{heard}");
        assert_eq!(bench.heard.retries.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_ends_in_order_but_without_a_reason_is_cut_too() {
    for provider in BOTH {
        let bench =
            Bench::new(provider, vec![Step::text("half").without_stop(), Step::text("whole")])
                .await;
        assert_eq!(bench.hello().await.unwrap().text, "whole");
        assert_eq!(bench.heard.retries.lock().unwrap()[0].2, ErrorClass::Connection);
    }
}

#[tokio::test]
async fn gibberish_is_garbled_and_tried_again() {
    for provider in BOTH {
        for step in [
            Step::garbage(),
            Step::wrong_json(),
            Step::raw(200, "text/html", "<html>Welcome to the hotel's network</html>"),
            Step::raw(200, "text/event-stream", ""),
        ] {
            let bench = Bench::new(provider, vec![step.clone(), Step::text("clear")]).await;
            assert_eq!(bench.hello().await.unwrap().text, "clear", "{step:?}");
            assert_eq!(bench.heard.retries.lock().unwrap()[0].2, ErrorClass::Garbled, "{step:?}");
        }
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_is_classed_by_its_words() {
    let openai = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n\
        data: {\"error\":{\"message\":\"busy\",\"type\":\"server_error\",\"code\":503}}\n\n";
    let anthropic = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    for (provider, frames) in [(Provider::OpenAi, openai), (Provider::Anthropic, anthropic)] {
        let steps = vec![Step::raw(200, "text/event-stream", frames), Step::text("whole")];
        let bench = Bench::new(provider, steps).await;
        assert_eq!(bench.hello().await.unwrap().text, "whole");
        assert_eq!(bench.heard.retries.lock().unwrap()[0].2, ErrorClass::Server);
    }
}

#[tokio::test]
async fn an_empty_answer_is_a_turn_for_the_caller_to_judge() {
    for provider in BOTH {
        let bench = Bench::new(provider, vec![Step::empty()]).await;
        let turn = bench.hello().await.unwrap();
        assert_eq!((turn.text.as_str(), turn.stop), ("", Stop::End));
    }
}

#[tokio::test]
async fn why_it_stopped_is_told() {
    for provider in BOTH {
        for stop in [Stop::Length, Stop::Filter, Stop::End] {
            let bench = Bench::new(provider, vec![Step::text("so").stop(stop)]).await;
            assert_eq!(bench.hello().await.unwrap().stop, stop);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_far_longer_than_allowed_is_not_read_to_its_end() {
    for provider in BOTH {
        let bench = Bench::new(provider, vec![Step::huge(4_000_000)]).await;
        let error = bench.hello().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Invalid);
        assert!(error.message.contains("longer than"), "{error}");
        assert_eq!(bench.server.requests().len(), 1, "asking again would cost as much again");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    for provider in BOTH {
        let patience = |config: &mut ModelConfig| {
            config.timeouts.header = Duration::from_millis(40);
            config.retries.attempts_max = 2;
        };
        let bench = Bench::with(provider, vec![Step::never(), Step::never()], patience).await;
        assert_eq!(bench.hello().await.unwrap_err().class, ErrorClass::Timeout);
        assert_eq!(bench.server.requests().len(), 2);
    }
}

#[tokio::test]
async fn the_whole_answer_has_a_time_limit_of_its_own() {
    let bench = Bench::with(Provider::OpenAi, vec![Step::never()], |config| {
        config.timeouts.total = Duration::from_millis(40);
        config.retries.attempts_max = 1;
    })
    .await;
    let error = bench.hello().await.unwrap_err();
    insta::assert_snapshot!(error, @"model `openai:gpt-x`: no whole answer within 40ms");
    assert_eq!(error.class, ErrorClass::Timeout);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_connection_error_without_the_url() {
    let gone = ScriptedServer::steps([]).await;
    let mut config = configured(&gone, Provider::OpenAi);
    config.base_url = Some("http://127.0.0.1:1/v1?api-key=hush".parse().unwrap());
    let clock = Arc::new(FakeClock::default());
    let model = RemoteModel::new(config, reqwest::Client::new(), clock.clone(), Arc::new(NoChance))
        .unwrap();
    let error = model.chat(&request("?"), &()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Connection);
    assert!(!error.to_string().contains("hush"), "{error}");
    assert_eq!(clock.slept_ms(), [500, 1000, 2000, 4000]);
}

#[tokio::test]
async fn the_key_is_in_no_error_and_in_no_debug_text() {
    for provider in BOTH {
        let echo = Step::refuse(401, "authentication_error", format!("the key {KEY} is wrong"));
        let bench = Bench::new(provider, vec![echo]).await;
        let error = bench.hello().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Auth);
        for text in [error.to_string(), format!("{error:?}"), format!("{:?}", bench.model)] {
            assert!(!text.contains(KEY), "{text}");
        }
    }
}

#[tokio::test]
async fn a_model_without_a_key_is_asked_without_one() {
    for provider in BOTH {
        let bench = Bench::with(provider, vec![Step::text("ok")], |config| config.key = None).await;
        bench.hello().await.unwrap();
        assert_eq!(bench.server.requests()[0].key(), None);
    }
}

#[tokio::test]
async fn a_models_name_reaches_the_provider_uncut() {
    for provider in BOTH {
        for name in ["qwen3-max", "deepseek/deepseek-r1:free", "a::b", "o3-high", "gpt-6"] {
            let bench =
                Bench::with(provider, vec![Step::text("ok")], |config| config.name = name.into())
                    .await;
            let turn = bench.hello().await.unwrap();
            let body = &bench.server.requests()[0].body;
            assert_eq!(body["model"], name);
            assert_eq!(turn.model, format!("{}:{name}", provider.as_str()));
            for effort in ["reasoning_effort", "thinking", "output_config", "prompt_cache_options"]
            {
                assert_eq!(body.get(effort), None, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_answers_limit_is_the_smaller_of_the_requests_and_the_models() {
    for (most, sent) in [(None, 1000), (Some(300), 300), (Some(9000), 1000)] {
        let bench = Bench::with(Provider::OpenAi, vec![Step::text("ok")], |config| {
            config.tokens_max = most
        })
        .await;
        bench.hello().await.unwrap();
        assert_eq!(bench.server.requests()[0].body["max_tokens"], sent);
    }
}

#[tokio::test]
async fn effort_is_sent_when_it_is_configured() {
    let bench = Bench::with(Provider::OpenAi, vec![Step::text("ok")], |config| {
        config.effort = Some(config::Effort::High);
    })
    .await;
    bench.hello().await.unwrap();
    assert_eq!(bench.server.requests()[0].body["reasoning_effort"], "high");
}

/// A model over its own server, as one of several.
async fn member(name: &str, steps: Vec<Step>) -> (Arc<RemoteModel>, ScriptedServer) {
    let bench = Bench::with(Provider::OpenAi, steps, |config| {
        config.name = name.into();
        config.retries.attempts_max = 1;
    })
    .await;
    (Arc::new(bench.model), bench.server)
}

#[tokio::test]
async fn a_fallback_answers_when_the_models_before_it_cannot() {
    let (first, _a) = member("strong", vec![Step::refuse(401, "invalid_api_key", "no")]).await;
    let (second, _b) = member("middling", vec![Step::overloaded()]).await;
    let (third, _c) = member("cheap", vec![Step::text("here I am")]).await;
    let heard = Heard::default();
    let model = FallbackModel::new(first, vec![second, third]);
    let turn = model.chat(&request("?"), &heard).await.unwrap();
    assert_eq!((turn.text.as_str(), turn.model.as_str()), ("here I am", "openai:cheap"));
    let heard = heard.retries.lock().unwrap().clone();
    assert_eq!(heard, [(1, 0, ErrorClass::Auth), (2, 0, ErrorClass::Server)]);
}

#[tokio::test]
async fn a_request_that_is_refused_for_what_it_says_is_not_shown_around() {
    let (first, _a) =
        member("strong", vec![Step::refuse(400, "invalid_request_error", "no")]).await;
    let (second, other) = member("cheap", vec![Step::text("never asked")]).await;
    let model = FallbackModel::new(first, vec![second]);
    assert_eq!(model.chat(&request("?"), &()).await.unwrap_err().class, ErrorClass::Invalid);
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn when_no_model_answers_the_error_is_of_the_preferred_ones_class_and_tells_all() {
    let (first, _a) = member("strong", vec![Step::refuse(429, "insufficient_quota", "pay")]).await;
    let (second, _b) = member("cheap", vec![Step::server_error()]).await;
    let error = FallbackModel::new(first, vec![second]).chat(&request("?"), &()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Quota);
    insta::assert_snapshot!(error, @"model `openai:strong`: status 429: insufficient_quota: pay; then model `openai:cheap`: status 500: server_error: the server had an error");
}

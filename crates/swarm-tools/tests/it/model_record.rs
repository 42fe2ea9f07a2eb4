//! What was recorded is replayed: after a crash, in any order, with other words in the prompts.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use swarm_core::port::model::{ChatModel, ChatRequest, ErrorClass, Message, Stop, ToolCall, Usage};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_tools::model::recording::RecordedTurn;
use swarm_tools::model::testkit::{ScriptedServer, Step};
use swarm_tools::model::{Price, Provider, RecordingModel, RemoteModel, ReplayModel};

use crate::model::{FakeClock, configured, read_file, request};

struct NoChance;

impl swarm_core::port::clock::Entropy for NoChance {
    fn next_u64(&self) -> u64 {
        0
    }
}

fn recording(server: &ScriptedServer, path: &Path) -> RecordingModel {
    let mut config = configured(server, Provider::Anthropic);
    config.price = Some(Price { input: 2.0, cached: None, cache_write: None, output: 10.0 });
    let clock = Arc::new(FakeClock::default());
    let model =
        RemoteModel::new(config, reqwest::Client::new(), clock, Arc::new(NoChance)).unwrap();
    RecordingModel::open(Arc::new(model), path).unwrap()
}

/// A first request, and the one after a turn and its tool's result.
fn two_requests() -> (ChatRequest, impl Fn(Message) -> ChatRequest) {
    let first = ChatRequest { tools: vec![read_file()], ..request("Mend the parser.") };
    let next = first.clone();
    (first, move |said: Message| {
        let result = Message::Tool {
            call: "toolu_0_0".into(),
            text: "fn parse() {}\n".into(),
            is_error: false,
        };
        let mut next = next.clone();
        next.messages.extend([said, result]);
        next
    })
}

#[tokio::test]
async fn recorded_then_replayed_turns_are_equal_in_any_order_and_after_prompts_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.yaml");
    let server = ScriptedServer::steps([
        Step::tool("read_file", json!({"path": "src/parser.rs", "note": "line one\nline two\n"}))
            .saying("I look first.\n\n  - it is indented \n\ttabbed, and ends with spaces  \n")
            .thinking("A parser."),
        Step::text("Done: “mended” 🐝\u{2028}\r\nend").usage(Usage {
            input: 300,
            cached: 200,
            output: 7,
        }),
    ])
    .await;
    let model = recording(&server, &path);
    let (first, next) = two_requests();
    let one = model.chat(&first, &()).await.unwrap();
    let second = next(one.message());
    let two = model.chat(&second, &()).await.unwrap();
    assert_eq!(two.usd, UsdMicros(300 * 2 + 7 * 10));

    // A fresh model for each question: nothing is kept between them.
    let replay = || ReplayModel::open(&path).unwrap();
    assert_eq!(replay().chat(&second, &()).await.unwrap(), two);
    assert_eq!(replay().chat(&first, &()).await.unwrap(), one);
    assert_eq!(replay().strict().chat(&second, &()).await.unwrap(), two);
    let mut reworded = second.clone();
    reworded.system = "You are a careful engineer.".into();
    assert_eq!(replay().chat(&reworded, &()).await.unwrap(), two);
    let expected = Spend { usd: two.usd, tokens: 307 };
    assert_eq!((replay().estimate(&second), two.spend()), (expected, expected));
    assert_eq!(server.requests().len(), 2, "a replay asks nobody");
}

#[tokio::test]
async fn a_strict_replay_refuses_other_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.yaml");
    let server = ScriptedServer::steps([Step::text("ok")]).await;
    recording(&server, &path).chat(&request("a"), &()).await.unwrap();
    let replay = ReplayModel::open(&path).unwrap().strict();
    assert_eq!(replay.chat(&request("a"), &()).await.unwrap().text, "ok");
    let error = replay.chat(&request("b"), &()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotRecorded);
    assert!(
        error.message.starts_with(
            "turn 0 of `dev/implement#1` for role `dev` was recorded for another request"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_recorded_twice_is_told_apart_by_its_request_and_else_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.yaml");
    let server = ScriptedServer::steps([Step::text("to a"), Step::text("to b")]).await;
    for text in ["a", "b"] {
        recording(&server, &path).chat(&request(text), &()).await.unwrap();
    }
    let replay = ReplayModel::open(&path).unwrap();
    for (asked, answer) in [("a", "to a"), ("b", "to b"), ("c", "to b")] {
        assert_eq!(replay.chat(&request(asked), &()).await.unwrap().text, answer);
    }
}

#[tokio::test]
async fn a_turn_that_was_not_recorded_is_named_with_what_comes_nearest() {
    let text = "
role: dev
conversation: dev/implement#1
turn: 0
text: one
---
role: dev
conversation: dev/implement#1
turn: 1
text: two
---
role: manager
conversation: manager/plan#1
turn: 0
text: three
";
    let replay = ReplayModel::from_text("demo.yaml", text).unwrap();
    let asked = ChatRequest { conversation: "dev/implement#2".into(), ..request("?") };
    let error = replay.chat(&asked, &()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotRecorded);
    insta::assert_snapshot!(error, @"model `replay`: `demo.yaml` holds no turn 0 of `dev/implement#2` for role `dev`; nearest: `dev/implement#1` for role `dev` up to turn 1, `manager/plan#1` for role `manager` up to turn 0");
}

#[tokio::test]
async fn a_hand_written_turn_needs_its_key_and_its_words_only() {
    let text = "
role: dev
conversation: dev/implement#1
turn: 0
tool_calls:
- id: call_1
  name: write_file
  arguments:
    path: a.rs
    text: |
      fn main() {
          println!(\"hi\");
      }
";
    let replay = ReplayModel::from_text("demo.yaml", text).unwrap();
    let turn = replay.chat(&request("?"), &()).await.unwrap();
    assert_eq!((turn.stop, turn.usd, turn.model.as_str()), (Stop::Tools, UsdMicros(0), "recorded"));
    let arguments = json!({"path": "a.rs", "text": "fn main() {\n    println!(\"hi\");\n}\n"});
    assert_eq!(
        turn.tool_calls,
        [ToolCall { id: "call_1".into(), name: "write_file".into(), arguments }]
    );
}

#[test]
fn a_broken_recording_is_refused_with_the_place() {
    let error =
        ReplayModel::from_text("demo.yaml", "role: dev\nconversation: c\nturn: one\n").unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("recording `demo.yaml`: ") && message.contains("line 3"),
        "{message}"
    );
    let error =
        ReplayModel::from_text("demo.yaml", "role: dev\nconversation: c\nturn: 0\ntxt: x\n")
            .unwrap_err();
    assert!(error.to_string().contains("txt"), "{error}");
}

#[test]
fn a_recording_is_read_by_people() {
    let mut asked = request("?");
    asked.conversation = "dev/implement#2".into();
    let turn = swarm_core::port::model::ChatTurn {
        text: "I mend it.\n\nFirst the test:\n- one\n".into(),
        tool_calls: vec![ToolCall {
            id: "call_1".into(),
            name: "write_file".into(),
            arguments: json!({"path": "src/a.rs", "text": "fn a() {\n    b(); // ü\n}\n", "mode": "0644", "n": 7}),
        }],
        thoughts: None,
        stop: Stop::Tools,
        usage: Usage { input: 1200, cached: 1000, output: 80 },
        usd: UsdMicros(4200),
        model: "openai:gpt-x".into(),
    };
    insta::assert_snapshot!(RecordedTurn::of(&asked, &turn).to_document().unwrap(), @r#"
    ---
    role: dev
    conversation: dev/implement#2
    turn: 0
    digest: e3a18bedf0c8ce6c27b014336939eb28
    model: openai:gpt-x
    stop: tools
    usage:
      input: 1200
      cached: 1000
      output: 80
    usd_micros: 4200
    text: |
      I mend it.

      First the test:
      - one
    tool_calls:
    - id: call_1
      name: write_file
      arguments:
        path: src/a.rs
        text: |
          fn a() {
              b(); // ü
          }
        mode: "0644"
        "n": 7
    "#);
}

proptest! {
    #[test]
    fn any_text_is_written_so_that_it_reads_back_the_same(text in any::<String>(), value in "(?s)[ -~\n\t\r:#'\"|>é🐝\u{85}\u{2028}\u{feff}\0\u{7f}-]{0,40}") {
        let recorded = RecordedTurn {
            role: "dev".into(),
            conversation: value.clone(),
            turn: 0,
            digest: None,
            model: text.clone(),
            stop: None,
            usage: Usage::default(),
            usd_micros: UsdMicros(0),
            thoughts: None,
            text: text.clone(),
            tool_calls: vec![ToolCall { id: "1".into(), name: value.clone(), arguments: json!({ text: [value] }) }],
        };
        prop_assert!(recorded.to_document().is_ok());
    }
}

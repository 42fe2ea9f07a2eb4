//! A turn in the words of OpenAI's chat completions, whole or as a stream.

use serde_json::{Value, json};
use swarm_core::port::model::{Stop, Usage};

use super::request::WireRequest;
use super::step::{Turn, pieces};

/// The whole response.
pub(super) fn whole(request: &WireRequest, turn: &Turn) -> Value {
    let calls: Vec<Value> = turn.calls.iter().enumerate().map(|(index, call)| {
        json!({ "id": id(request, index), "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
    }).collect();
    let mut message = json!({ "role": "assistant", "content": turn.text });
    if let Some(thought) = &turn.thought {
        message["reasoning_content"] = json!(thought);
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let mut whole = json!({
        "id": "chatcmpl-scripted", "object": "chat.completion", "created": 0, "model": request.model(),
        "choices": [{ "index": 0, "message": message, "finish_reason": finish_reason(turn.stop) }],
    });
    if let Some(counted) = turn.usage {
        whole["usage"] = usage(counted);
    }
    whole
}

/// The frames of the stream.
pub(super) fn frames(request: &WireRequest, turn: &Turn) -> Vec<String> {
    let mut frames = vec![delta(request, &json!({ "role": "assistant", "content": "" }))];
    for piece in turn.thought.iter().flat_map(|thought| pieces(thought, 16)) {
        frames.push(delta(request, &json!({ "reasoning_content": piece })));
    }
    for piece in pieces(&turn.text, chunk_size(&turn.text)) {
        frames.push(delta(request, &json!({ "content": piece })));
    }
    for (index, call) in turn.calls.iter().enumerate() {
        frames.push(delta(
            request,
            &json!({ "tool_calls": [{
            "index": index, "id": id(request, index), "type": "function",
            "function": { "name": call.name, "arguments": "" },
        }] }),
        ));
        for piece in pieces(&call.arguments, chunk_size(&call.arguments)) {
            frames.push(delta(
                request,
                &json!({ "tool_calls": [{ "index": index, "function": { "arguments": piece } }] }),
            ));
        }
    }
    if turn.stop.is_some() {
        let choice = json!({ "index": 0, "delta": {}, "finish_reason": finish_reason(turn.stop) });
        frames.push(chunk(request, &json!([choice]), None));
    }
    let wants_usage =
        request.body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
    if let Some(counted) = turn.usage.filter(|_| wants_usage) {
        frames.push(chunk(request, &json!([]), Some(usage(counted))));
    }
    frames.push("data: [DONE]\n\n".to_owned());
    frames
}

/// An error body.
pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": kind } })
}

fn delta(request: &WireRequest, delta: &Value) -> String {
    chunk(request, &json!([{ "index": 0, "delta": delta, "finish_reason": null }]), None)
}

fn chunk(request: &WireRequest, choices: &Value, usage: Option<Value>) -> String {
    let mut chunk = json!({
        "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0,
        "model": request.model(), "choices": choices,
    });
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input, "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": { "cached_tokens": usage.cached },
    })
}

fn finish_reason(stop: Option<Stop>) -> Value {
    match stop {
        None => Value::Null,
        Some(Stop::End) => json!("stop"),
        Some(Stop::Tools) => json!("tool_calls"),
        Some(Stop::Length) => json!("length"),
        Some(Stop::Filter) => json!("content_filter"),
    }
}

fn id(request: &WireRequest, index: usize) -> String {
    format!("call_{}_{index}", request.nth)
}

/// Small pieces, but not a million of them.
fn chunk_size(text: &str) -> usize {
    (text.len() / 64).max(16)
}

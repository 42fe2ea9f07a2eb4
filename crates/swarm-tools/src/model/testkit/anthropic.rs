//! A turn in the words of Anthropic's messages, whole or as a stream.

use serde_json::{Value, json};
use swarm_core::port::model::{Stop, Usage};

use super::request::WireRequest;
use super::step::{Turn, pieces};

/// The whole response.
pub(super) fn whole(request: &WireRequest, turn: &Turn) -> Value {
    let mut content = Vec::new();
    if let Some(thought) = &turn.thought {
        content.push(
            json!({ "type": "thinking", "thinking": thought, "signature": signature(thought) }),
        );
    }
    if !turn.text.is_empty() {
        content.push(json!({ "type": "text", "text": turn.text }));
    }
    for (index, call) in turn.calls.iter().enumerate() {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        content.push(json!({ "type": "tool_use", "id": id(request, index), "name": call.name, "input": input }));
    }
    let counted = turn.usage.unwrap_or_default();
    let mut usage = input_usage(counted);
    usage["output_tokens"] = json!(counted.output);
    json!({
        "id": "msg_scripted", "type": "message", "role": "assistant", "model": request.model(),
        "content": content, "stop_reason": stop_reason(turn.stop), "stop_sequence": null, "usage": usage,
    })
}

/// The frames of the stream.
pub(super) fn frames(request: &WireRequest, turn: &Turn) -> Vec<String> {
    let mut usage = turn.usage.map(input_usage).unwrap_or_else(|| json!({}));
    if turn.usage.is_some() {
        usage["output_tokens"] = json!(1);
    }
    let mut frames = vec![
        frame(&json!({ "type": "message_start", "message": {
            "id": "msg_scripted", "type": "message", "role": "assistant", "model": request.model(),
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
        } })),
        frame(&json!({ "type": "ping" })),
    ];
    let mut index = 0;
    if let Some(thought) = &turn.thought {
        let mut deltas: Vec<Value> = pieces(thought, 16)
            .into_iter()
            .map(|piece| json!({ "type": "thinking_delta", "thinking": piece }))
            .collect();
        deltas.push(json!({ "type": "signature_delta", "signature": signature(thought) }));
        let start = json!({ "type": "thinking", "thinking": "", "signature": "" });
        block(&mut frames, &mut index, &start, deltas);
    }
    if !turn.text.is_empty() {
        let deltas = pieces(&turn.text, chunk_size(&turn.text))
            .into_iter()
            .map(|piece| json!({ "type": "text_delta", "text": piece }))
            .collect();
        block(&mut frames, &mut index, &json!({ "type": "text", "text": "" }), deltas);
    }
    for (call_index, call) in turn.calls.iter().enumerate() {
        let start = json!({ "type": "tool_use", "id": id(request, call_index), "name": call.name, "input": {} });
        let deltas = pieces(&call.arguments, chunk_size(&call.arguments))
            .into_iter()
            .map(|piece| json!({ "type": "input_json_delta", "partial_json": piece }))
            .collect();
        block(&mut frames, &mut index, &start, deltas);
    }
    let mut last = json!({
        "type": "message_delta", "delta": { "stop_reason": stop_reason(turn.stop), "stop_sequence": null },
    });
    if let Some(counted) = turn.usage {
        last["usage"] = json!({ "output_tokens": counted.output });
    }
    frames.push(frame(&last));
    frames.push(frame(&json!({ "type": "message_stop" })));
    frames
}

/// An error body.
pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

fn block(frames: &mut Vec<String>, index: &mut u32, start: &Value, deltas: Vec<Value>) {
    frames.push(frame(
        &json!({ "type": "content_block_start", "index": index, "content_block": start }),
    ));
    for delta in deltas {
        frames
            .push(frame(&json!({ "type": "content_block_delta", "index": index, "delta": delta })));
    }
    frames.push(frame(&json!({ "type": "content_block_stop", "index": index })));
    *index += 1;
}

fn frame(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

/// Anthropic counts cached tokens beside the input, not in it.
fn input_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input - usage.cached,
        "cache_read_input_tokens": usage.cached, "cache_creation_input_tokens": 0,
    })
}

fn stop_reason(stop: Option<Stop>) -> Value {
    match stop {
        None => Value::Null,
        Some(Stop::End) => json!("end_turn"),
        Some(Stop::Tools) => json!("tool_use"),
        Some(Stop::Length) => json!("max_tokens"),
        Some(Stop::Filter) => json!("refusal"),
    }
}

fn signature(thought: &str) -> String {
    format!("signature-of-{}", thought.len())
}

fn id(request: &WireRequest, index: usize) -> String {
    format!("toolu_{}_{index}", request.nth)
}

/// Small pieces, but not a million of them.
fn chunk_size(text: &str) -> usize {
    (text.len() / 64).max(16)
}

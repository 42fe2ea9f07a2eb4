//! Our request in genai's words, and genai's stream end as our turn.
//!
//! genai has habits that this file works around: it cuts `-high` and the like off a model's name,
//! sends tool arguments that are no object to providers that refuse them, and makes up a call when
//! a provider counts its calls from one.

use genai::chat::{
    CacheControl, ChatMessage, ChatOptions, ChatRole, ContentPart, CustomPart, JsonSpec,
    MessageContent, ReasoningEffort, StopReason, StreamEnd, Tool, ToolResponse,
};
use serde_json::{Map, Value, json};
use swarm_core::port::model::{
    ChatRequest, ChatTurn, Message, Stop, Thought, Thoughts, ToolCall, Usage,
};

use super::config::{Effort, ModelConfig, Provider, Structure};
use super::price::Price;

/// A request in genai's words.
pub(super) fn outgoing(
    config: &ModelConfig,
    request: &ChatRequest,
    structure: Structure,
) -> (genai::chat::ChatRequest, ChatOptions) {
    let instructed = matches!(structure, Structure::Instruct);
    let mut system = request.system.clone();
    if let Some(schema) = request.answer_schema.as_ref().filter(|_| instructed) {
        system.push_str("\n\n");
        system.push_str(&instruction(schema));
    }
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(ChatMessage::system(system));
    }
    messages.extend(conversation(config, &request.messages));
    // Only a conversation with tools goes on: there, what is written to the cache is read again.
    if config.provider == Provider::Anthropic && !request.tools.is_empty() {
        let (first, last) = (0, messages.len().saturating_sub(1));
        for at in [first, last] {
            if let Some(message) = messages.get_mut(at) {
                message.options = Some(CacheControl::Ephemeral.into());
            }
        }
    }
    let mut outgoing = genai::chat::ChatRequest::from_messages(messages);
    if !request.tools.is_empty() {
        outgoing = outgoing.with_tools(request.tools.iter().map(|spec| {
            Tool::new(spec.name.clone())
                .with_description(spec.description.clone())
                .with_schema(spec.arguments.clone())
        }));
    }
    let mut options = options(config, request.tokens_max);
    if let Some(schema) = request.answer_schema.as_ref().filter(|_| !instructed) {
        options = options.with_response_format(JsonSpec::new("answer", loosened(schema)));
    }
    (outgoing, options)
}

fn options(config: &ModelConfig, tokens_max: u32) -> ChatOptions {
    let tokens_max = config.tokens_max.map_or(tokens_max, |most| tokens_max.min(most));
    let mut options = ChatOptions::default()
        .with_max_tokens(tokens_max)
        .with_stream_header_timeout(config.timeouts.header)
        .with_stream_read_timeout(config.timeouts.read)
        .with_capture_usage(true)
        .with_capture_content(true)
        .with_capture_tool_calls(true)
        .with_capture_reasoning_content(true)
        // Merged last, it gives the model back the name that genai may have cut.
        .with_extra_body(json!({ "model": config.name }));
    if let Some(effort) = effort(config) {
        options = options.with_reasoning_effort(effort);
    }
    if config.provider == Provider::OpenAi {
        // Sends nothing, but keeps genai from turning off the caching that newer models do alone.
        options = options.with_cache_control(CacheControl::Ephemeral5m);
    }
    options
}

/// An effort that says what the configuration says; when it says nothing, one that sends nothing,
/// because genai would otherwise read it out of a name such as `qwen3-max`.
fn effort(config: &ModelConfig) -> Option<ReasoningEffort> {
    match (config.effort, config.provider) {
        (Some(Effort::None), _) => Some(ReasoningEffort::Zero),
        (Some(Effort::Low), _) => Some(ReasoningEffort::Low),
        (Some(Effort::Medium), _) => Some(ReasoningEffort::Medium),
        (Some(Effort::High), _) => Some(ReasoningEffort::High),
        (Some(Effort::Max), _) => Some(ReasoningEffort::Max),
        (None, Provider::OpenAi) => Some(ReasoningEffort::Budget(0)),
        (None, Provider::Anthropic) => {
            ReasoningEffort::from_model_name(&config.name).0.map(|_| ReasoningEffort::Zero)
        }
    }
}

/// The messages, with the results of one turn's calls in one message, as Anthropic wants them.
fn conversation(config: &ModelConfig, messages: &[Message]) -> Vec<ChatMessage> {
    let mut out: Vec<ChatMessage> = Vec::new();
    for message in messages {
        match message {
            Message::User { text } => out.push(ChatMessage::user(text.clone())),
            Message::Assistant { text, tool_calls, thoughts } => {
                let parts = said(config, text, tool_calls, thoughts.as_ref());
                // A turn that said nothing cannot be written: providers refuse an empty message.
                if !parts.is_empty() {
                    out.push(ChatMessage::assistant(MessageContent::from_parts(parts)));
                }
            }
            Message::Tool { call, text, is_error } => {
                let part = result(config.provider, call, text, *is_error);
                match out.last_mut() {
                    Some(last) if matches!(last.role, ChatRole::Tool) => last.content.push(part),
                    Some(_) | None => {
                        out.push(ChatMessage::tool(MessageContent::from_parts(vec![part])));
                    }
                }
            }
        }
    }
    out
}

fn said(
    config: &ModelConfig,
    text: &str,
    tool_calls: &[ToolCall],
    thoughts: Option<&Thoughts>,
) -> Vec<ContentPart> {
    let mut parts = Vec::new();
    let own = thoughts.filter(|thoughts| thoughts.model == config.model_name().to_string());
    // Providers want thoughts back where tools go on from them, and some refuse them elsewhere.
    for thought in own.filter(|_| !tool_calls.is_empty()).iter().flat_map(|own| &own.pieces) {
        match thought {
            Thought::Plain { text } => parts.push(ContentPart::ReasoningContent(text.clone())),
            Thought::Signed { text, signature } => {
                parts.push(ContentPart::ThoughtSignature(signature.clone()));
                parts.push(ContentPart::ReasoningContent(text.clone()));
            }
            Thought::Sealed { block } => {
                parts.push(ContentPart::Custom(CustomPart {
                    model_iden: None,
                    data: block.clone(),
                }));
            }
        }
    }
    if !text.is_empty() {
        parts.push(ContentPart::from_text(text));
    }
    parts.extend(tool_calls.iter().map(|call| {
        ContentPart::ToolCall(genai::chat::ToolCall {
            call_id: call.id.clone(),
            fn_name: call.name.clone(),
            fn_arguments: match &call.arguments {
                Value::Object(arguments) => Value::Object(arguments.clone()),
                other => json!({ "not_an_object": other }),
            },
            thought_signatures: None,
        })
    }));
    parts
}

fn result(provider: Provider, call: &str, text: &str, is_error: bool) -> ContentPart {
    match provider {
        Provider::Anthropic if is_error => ContentPart::Custom(CustomPart {
            model_iden: None,
            data: json!({
                "type": "tool_result", "tool_use_id": call, "content": text, "is_error": true,
            }),
        }),
        // OpenAI's wire has no flag for it.
        Provider::OpenAi if is_error => {
            ContentPart::ToolResponse(ToolResponse::new(call, format!("error: {text}")))
        }
        Provider::Anthropic | Provider::OpenAi => {
            ContentPart::ToolResponse(ToolResponse::new(call, text))
        }
    }
}

fn instruction(schema: &Value) -> String {
    format!(
        "Answer with one JSON value and nothing else: no words around it, no code fence. \
         It must satisfy this JSON schema:\n{schema}"
    )
}

/// The schema without the keywords that constrained decoding refuses. It admits more than before;
/// the answer is checked against the whole schema when it comes.
fn loosened(schema: &Value) -> Value {
    const REFUSED: [&str; 19] = [
        "$schema",
        "$id",
        "title",
        "default",
        "examples",
        "format",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    ];
    let Value::Object(keywords) = schema else { return schema.clone() };
    let mut loose = Map::new();
    for (keyword, value) in keywords {
        let value = match (keyword.as_str(), value) {
            (refused, _) if REFUSED.contains(&refused) => continue,
            // Here the keys are names, not keywords.
            ("properties" | "$defs" | "definitions", Value::Object(named)) => Value::Object(
                named.iter().map(|(name, inner)| (name.clone(), loosened(inner))).collect(),
            ),
            ("enum" | "const" | "required" | "type", value) => value.clone(),
            (_, Value::Array(inner)) => Value::Array(inner.iter().map(loosened).collect()),
            (_, value) => loosened(value),
        };
        let keyword = if keyword == "oneOf" { "anyOf" } else { keyword };
        loose.insert(keyword.to_owned(), value);
    }
    Value::Object(loose)
}

/// Why an ended stream is no turn.
pub(super) enum NoTurn {
    /// It never said why it stopped.
    Cut,
    /// It says that the provider failed.
    Failed(String),
}

/// The turn at the end of a stream.
pub(super) fn turn(
    model: String,
    price: Option<&Price>,
    request: &ChatRequest,
    end: StreamEnd,
) -> Result<ChatTurn, NoTurn> {
    let stopped = end.captured_stop_reason.ok_or(NoTurn::Cut)?;
    let mut text = String::new();
    let mut calls = Vec::new();
    let mut pieces = Vec::new();
    for part in end.captured_content.map(MessageContent::into_parts).unwrap_or_default() {
        match part {
            ContentPart::Text(piece) => text.push_str(&piece),
            ContentPart::ToolCall(call) => calls.push(call),
            ContentPart::ThoughtSignature(signature) => {
                pieces.push(Thought::Signed { text: String::new(), signature });
            }
            ContentPart::ReasoningContent(words) => match pieces.last_mut() {
                Some(Thought::Signed { text, .. }) if text.is_empty() => *text = words,
                Some(_) | None => pieces.push(Thought::Plain { text: words }),
            },
            ContentPart::Custom(part) => pieces.push(Thought::Sealed { block: part.data }),
            ContentPart::Binary(_) | ContentPart::ToolResponse(_) => {}
        }
    }
    if let Some(words) = end.captured_reasoning_content.filter(|_| pieces.is_empty()) {
        pieces.push(Thought::Plain { text: words });
    }
    let tool_calls = assembled(calls, request.turn());
    let stop = match stopped {
        StopReason::MaxTokens(_) => Stop::Length,
        StopReason::ContentFilter(_) => Stop::Filter,
        StopReason::Other(word) if ["error", "failed", "cancelled"].contains(&word.as_str()) => {
            return Err(NoTurn::Failed(word));
        }
        StopReason::Completed(_)
        | StopReason::ToolCall(_)
        | StopReason::StopSequence(_)
        | StopReason::Other(_) => {
            if tool_calls.is_empty() {
                Stop::End
            } else {
                Stop::Tools
            }
        }
    };
    let (usage, cache_written) = match end.captured_usage.filter(counts) {
        Some(counted) => read(&counted),
        None => (guessed(request, &text, &tool_calls), 0),
    };
    let usd = price.map(|price| price.of(usage, cache_written)).unwrap_or_default();
    let thoughts = (!pieces.is_empty()).then(|| Thoughts { model: model.clone(), pieces });
    Ok(ChatTurn { text, tool_calls, thoughts, stop, usage, usd, model })
}

/// The calls with ids that are there and differ, and with arguments for tools that take none.
fn assembled(calls: Vec<genai::chat::ToolCall>, turn: u32) -> Vec<ToolCall> {
    let mut out: Vec<ToolCall> = Vec::new();
    for call in calls {
        let arguments = match call.fn_arguments {
            Value::Null => json!({}),
            Value::String(text) if text.trim().is_empty() => json!({}),
            other => other,
        };
        let call = ToolCall { id: call.call_id, name: call.fn_name, arguments };
        // genai fills a gap before the first index with copies of the call that came first.
        out.retain(|earlier| call.id.is_empty() || earlier.id != call.id);
        out.push(call);
    }
    for (index, call) in out.iter_mut().enumerate() {
        if call.id.is_empty() {
            call.id = format!("call_{turn}_{index}");
        }
    }
    out
}

fn counts(usage: &genai::chat::Usage) -> bool {
    usage.prompt_tokens.is_some() || usage.completion_tokens.is_some()
}

/// The counted tokens, and how many of them went into the provider's cache.
fn read(counted: &genai::chat::Usage) -> (Usage, u64) {
    let count = |tokens: Option<i32>| u64::try_from(tokens.unwrap_or(0)).unwrap_or(0);
    let details = counted.prompt_tokens_details.as_ref();
    let usage = Usage {
        input: count(counted.prompt_tokens),
        cached: count(details.and_then(|details| details.cached_tokens)),
        output: count(counted.completion_tokens),
    };
    (usage, count(details.and_then(|details| details.cache_creation_tokens)))
}

/// For a provider that counts nothing: a budget must not be blind to it.
fn guessed(request: &ChatRequest, text: &str, tool_calls: &[ToolCall]) -> Usage {
    let called: usize =
        tool_calls.iter().map(|call| call.name.len() + call.arguments.to_string().len()).sum();
    Usage { input: size(request), cached: 0, output: tokens(text.len() + called) }
}

/// About how many tokens a request is, rather too many: a token is three bytes or more.
pub(super) fn size(request: &ChatRequest) -> u64 {
    let messages: usize = request
        .messages
        .iter()
        .map(|message| match message {
            Message::User { text } | Message::Tool { text, .. } => text.len(),
            Message::Assistant { text, tool_calls, .. } => {
                let calls = tool_calls.iter();
                let called = |call: &ToolCall| call.name.len() + call.arguments.to_string().len();
                text.len() + calls.map(called).sum::<usize>()
            }
        })
        .sum();
    let tools: usize = request
        .tools
        .iter()
        .map(|tool| tool.name.len() + tool.description.len() + tool.arguments.to_string().len())
        .sum();
    let schema = request.answer_schema.as_ref().map_or(0, |schema| schema.to_string().len());
    let overhead = 16 * (request.messages.len() + request.tools.len() + 1);
    tokens(request.system.len() + messages + tools + schema + overhead)
}

fn tokens(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(3)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_loses_what_decoders_refuse_but_no_property_of_that_name() {
        let schema = json!({
            "$schema": "x", "title": "T", "type": "object",
            "properties": {
                "format": { "type": "string", "format": "uri", "pattern": "^a" },
                "minimum": { "type": "integer", "minimum": 0, "format": "uint32" },
                "kind": { "oneOf": [{ "const": "a", "description": "A." }, { "const": "b" }] },
            },
            "required": ["format"],
        });
        assert_eq!(
            loosened(&schema),
            json!({
                "type": "object",
                "properties": {
                    "format": { "type": "string" },
                    "minimum": { "type": "integer" },
                    "kind": { "anyOf": [{ "const": "a", "description": "A." }, { "const": "b" }] },
                },
                "required": ["format"],
            })
        );
    }

    #[test]
    fn calls_get_ids_and_a_copied_call_goes() {
        let call = |id: &str, name: &str, arguments: Value| genai::chat::ToolCall {
            call_id: id.into(),
            fn_name: name.into(),
            fn_arguments: arguments,
            thought_signatures: None,
        };
        let calls = assembled(
            vec![
                call("a", "read", json!("")),
                call("a", "read", json!({ "path": "x" })),
                call("", "list", json!("")),
                call("", "list", Value::Null),
            ],
            3,
        );
        let seen: Vec<_> =
            calls.iter().map(|call| (call.id.as_str(), call.arguments.to_string())).collect();
        assert_eq!(
            seen,
            [
                ("a", r#"{"path":"x"}"#.to_owned()),
                ("call_3_1", "{}".to_owned()),
                ("call_3_2", "{}".to_owned())
            ]
        );
    }
}

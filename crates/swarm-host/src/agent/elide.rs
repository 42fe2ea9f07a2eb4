//! What a model is shown of a long conversation: the oldest tool results give way.
//!
//! The rule is a function of the messages alone, so that a resumed conversation looks the same.
//! It elides in large bites: between two of them the beginning of the request does not change,
//! which is what providers' caches need.

use serde_json::Value;
use swarm_core::port::model::Message;

/// Messages at the end that are never elided.
const RECENT: usize = 8;
/// Texts up to this size, in bytes, stay as they are.
const SMALL: usize = 400;
/// Bytes that make a token, as a careful estimate.
const BYTES_PER_TOKEN: usize = 3;

/// How far a conversation has been elided.
#[derive(Debug)]
pub(super) struct Elision {
    tokens_max: usize,
    /// Messages before this index are shown without their long texts.
    upto: usize,
}

impl Elision {
    /// Nothing elided yet; eliding begins above `tokens_max`.
    pub(super) fn new(tokens_max: usize) -> Self {
        Self { tokens_max, upto: 0 }
    }

    /// The messages as the model shall see them.
    pub(super) fn view(&mut self, messages: &[Message]) -> Vec<Message> {
        if self.tokens(messages) > self.tokens_max {
            // The first message is the task: it stays.
            let end = messages.len().saturating_sub(RECENT);
            self.upto = self.upto.max(1);
            while self.upto < end && self.tokens(messages) > self.tokens_max / 2 {
                self.upto += 1;
            }
        }
        messages.iter().enumerate().map(|(index, message)| self.shown(index, message)).collect()
    }

    fn tokens(&self, messages: &[Message]) -> usize {
        let bytes: usize = messages
            .iter()
            .enumerate()
            .map(|(index, message)| size(&self.shown(index, message)))
            .sum();
        bytes / BYTES_PER_TOKEN
    }

    fn shown(&self, index: usize, message: &Message) -> Message {
        if index == 0 || index >= self.upto {
            return message.clone();
        }
        match message {
            Message::Tool { call, text, is_error } if text.len() > SMALL => Message::Tool {
                call: call.clone(),
                text: format!(
                    "[{} bytes elided; call the tool again if you need them]",
                    text.len()
                ),
                is_error: *is_error,
            },
            Message::Assistant { text, tool_calls, thoughts } => {
                let mut tool_calls = tool_calls.clone();
                for call in &mut tool_calls {
                    shorten(&mut call.arguments);
                }
                Message::Assistant { text: text.clone(), tool_calls, thoughts: thoughts.clone() }
            }
            Message::User { .. } | Message::Tool { .. } => message.clone(),
        }
    }
}

fn shorten(arguments: &mut Value) {
    match arguments {
        Value::String(text) if text.len() > SMALL => {
            *text = format!("[{} bytes elided]", text.len())
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(entries) => entries.values_mut().for_each(shorten),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::User { text } | Message::Tool { text, .. } => text.len(),
        Message::Assistant { text, tool_calls, .. } => {
            let calls: usize = tool_calls
                .iter()
                .map(|call| call.name.len() + call.arguments.to_string().len())
                .sum();
            text.len() + calls
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_core::port::model::ToolCall;

    use super::*;

    fn conversation(rounds: usize) -> Vec<Message> {
        let mut messages = vec![Message::User { text: "t".repeat(2000) }];
        for round in 0..rounds {
            let call = ToolCall {
                id: format!("c{round}"),
                name: "write".to_owned(),
                arguments: json!({ "path": "a", "text": "w".repeat(600) }),
            };
            messages.push(Message::Assistant {
                text: String::new(),
                tool_calls: vec![call],
                thoughts: None,
            });
            messages.push(Message::Tool {
                call: format!("c{round}"),
                text: "r".repeat(600),
                is_error: false,
            });
        }
        messages
    }

    #[test]
    fn a_conversation_within_its_budget_is_shown_whole() {
        let messages = conversation(3);
        assert_eq!(Elision::new(100_000).view(&messages), messages);
    }

    #[test]
    fn the_oldest_results_go_first_and_the_task_and_the_latest_stay() {
        let messages = conversation(20);
        let mut elision = Elision::new(6000);
        let shown = elision.view(&messages);
        assert_eq!(shown.len(), messages.len());
        assert_eq!(shown[0], messages[0]);
        assert_eq!(shown[messages.len() - RECENT..], messages[messages.len() - RECENT..]);
        let Message::Tool { text, .. } = &shown[2] else { panic!("the second result") };
        assert_eq!(text, "[600 bytes elided; call the tool again if you need them]");
        let bytes: usize = shown.iter().map(size).sum();
        assert!(bytes / BYTES_PER_TOKEN <= 6000 / 2, "{bytes}");
    }

    #[test]
    fn what_is_shown_depends_on_the_messages_only() {
        let mut step_by_step = Elision::new(6000);
        for rounds in 1..20 {
            step_by_step.view(&conversation(rounds));
        }
        let mut again = Elision::new(6000);
        for rounds in 1..20 {
            again.view(&conversation(rounds));
        }
        assert_eq!(step_by_step.view(&conversation(20)), again.view(&conversation(20)));
    }

    #[test]
    fn between_two_bites_the_beginning_stays_the_same() {
        let mut elision = Elision::new(6000);
        let mut changes = 0;
        let mut before = Vec::new();
        for rounds in 1..40 {
            let shown = elision.view(&conversation(rounds));
            if !shown.starts_with(&before) {
                changes += 1;
            }
            before = shown;
        }
        assert!((1..8).contains(&changes), "{changes}");
    }
}

//! The signals of a graph, and the type of what a `wait` takes.

use std::sync::Arc;

use serde_json::Value;

use super::Checker;
use crate::defect::Code;
use crate::expr::Type;
use crate::signal::{self, Signals};
use crate::spec::read::{Entries, Record as _};
use crate::spec::yaml::{Span, Spanned};
use crate::spec::{DeclaredSpec, WaitSpec};

impl Checker<'_> {
    /// The declared signals and the built-in ones; `None` when the graph declares none at all.
    pub(super) fn signals(&mut self, spec: Option<&Entries<DeclaredSpec>>) -> Option<Signals> {
        let declared = spec?;
        let mut signals: Signals = signal::built_in()
            .into_iter()
            .map(|(name, schema)| (name.to_owned(), schema))
            .collect();
        for (name, payload) in &declared.0 {
            if !self.is_signal_name(name, false) {
                continue;
            }
            if signals.contains_key(&name.value) {
                let message = format!("`{}` is a signal that runs send by themselves", name.value);
                self.report.error(Code::DuplicateName, name.at, message).help =
                    Some("leave it out: its payload is known".to_owned());
                continue;
            }
            let keys: Vec<(&str, Span)> =
                payload.keys().iter().map(|key| (key.value, key.at)).collect();
            let what = format!("the signal `{}`", name.value);
            let needed = ["type", "schema"];
            self.exactly_one(Code::KeyClash, payload.at(), &what, &needed, &keys);
            let schema = self.type_or_schema(payload.r#type.as_ref(), payload.schema.as_ref());
            signals.insert(name.value.clone(), schema);
        }
        Some(signals)
    }

    /// Notes a name that no signal can have.
    pub(super) fn is_signal_name(&mut self, name: &Spanned<String>, may_be_pattern: bool) -> bool {
        let body = name.value.strip_suffix('*').filter(|_| may_be_pattern).unwrap_or(&name.value);
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_name = !name.value.is_empty() && body.chars().all(plain) && name.value.len() <= 200;
        if !is_name {
            let message = format!("`{}` cannot be the name of a signal", name.value);
            let ending = if may_be_pattern { "; a trailing `*` stands for any ending" } else { "" };
            self.report.error(Code::BadName, name.at, message).help =
                Some(format!("write words joined by dots, such as `worker.finished`{ending}"));
        }
        is_name
    }

    /// Notes a name or pattern that stands for no known signal.
    pub(super) fn known_signal(&mut self, name: &Spanned<String>, signals: Option<&Signals>) {
        let Some(signals) = signals else { return };
        if signal::matching(signals, &name.value).next().is_none() {
            let message = format!("no signal `{}` is declared", name.value);
            self.report.error(Code::UnknownSignal, name.at, message).help =
                signal::help(signals, &name.value);
        }
    }
}

/// The type of `signal`: null when the time is up.
pub(super) fn signal_type(wait: &WaitSpec, signals: Option<&Signals>) -> Type {
    let mut words = Vec::new();
    let mut payloads = Vec::new();
    if let (Some(signals), Some(name)) = (signals, &wait.signal) {
        for (name, schema) in signal::matching(signals, &name.value) {
            words.push(name.clone());
            payloads.push(Type::of_schema(schema));
        }
    }
    let (name, payload) = if words.is_empty() {
        (Type::Text(None), Type::Dyn)
    } else {
        (Type::Text(Some(Arc::from(words))), Type::union(payloads))
    };
    let signal = Type::record([("name".to_owned(), name), ("payload".to_owned(), payload)]);
    match (wait.has("signal"), wait.has("timeout")) {
        (true, false) => signal,
        (true, true) => Type::union([signal, Type::Null]),
        (false, _) => Type::Null,
    }
}

/// Whether the text of a stored version declares signals.
pub(crate) fn declares_any(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|top| top.get("signals").is_some())
}

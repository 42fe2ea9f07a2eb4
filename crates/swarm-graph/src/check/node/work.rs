//! What a node does: a kind, a run of another graph, a wait or a question.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::escalation::{Reason, Request};
use swarm_core::id::{GraphName, QueueName};

use super::Place;
use crate::check::signals::signal_type;
use crate::check::value::{Wanted, constant_value, value};
use crate::check::{Checker, Signature};
use crate::defect::{Code, suggest};
use crate::expr::{Env, Type};
use crate::graph::{Gate, Graph, Work};
use crate::spec::read::{Raw, Record as _};
use crate::spec::yaml::{Data, Span, Spanned, Yaml};
use crate::spec::{GateSpec, NodeSpec, RunSpec, WaitSpec};

impl Checker<'_> {
    pub(super) fn work(
        &mut self,
        spec: &NodeSpec,
        answer: Option<Value>,
        inside: Option<&Arc<Graph>>,
        env: &Env,
        place: &Place<'_>,
    ) -> Option<Work> {
        let uses = spec.uses.as_ref().map(|name| self.uses(name, spec, env));
        let run = spec.run.as_ref().map(|run| {
            if run.inline == Some(true) {
                self.inline(run, inside, env)
            } else {
                self.run(run, env)
            }
        });
        let wait = spec.wait.as_ref().map(|wait| self.wait(wait, place));
        let gate = spec.gate.as_ref().map(|gate| self.gate(gate, answer, env));
        uses.or(run).or(wait).or(gate).flatten()
    }

    pub(super) fn uses(
        &mut self,
        name: &Spanned<String>,
        spec: &NodeSpec,
        env: &Env,
    ) -> Option<Work> {
        let Some(kind) = self.registry.kind(&name.value) else {
            let message = format!("no node kind named `{}` is registered", name.value);
            self.report.error(Code::UnknownKind, name.at, message).help =
                suggest(&name.value, self.registry.kinds().map(|kind| kind.name));
            // What it is given is still looked at, for the sake of its expressions.
            if let Some(with) = &spec.with {
                value(self.report, &with.0, env, &Wanted::ty(Type::Dyn), "with");
            }
            return None;
        };
        let given = |raw: Option<&Raw>, schema: &Value| match raw {
            Some(raw) => raw.0.clone(),
            None => Yaml { at: name.at, data: nothing(schema) },
        };
        let with = given(spec.with.as_ref(), &kind.input_schema);
        let input = value(self.report, &with, env, &Wanted::schema(&kind.input_schema), "with");
        let config = given(spec.config.as_ref(), &kind.config_schema);
        let wanted = Wanted::schema(&kind.config_schema);
        let node =
            constant_value(self.report, &config, &wanted, "config").and_then(|config_value| {
                kind.build(config_value)
                    .map_err(|why| {
                        let message =
                            format!("`{}` does not take this `config`: {why}", name.value);
                        self.report.error(Code::BadConfig, config.at, message);
                    })
                    .ok()
            });
        Some(Work::Uses { kind: name.value.clone(), node: node?, input: input? })
    }

    pub(super) fn run(&mut self, spec: &RunSpec, env: &Env) -> Option<Work> {
        let graph = spec.graph.as_ref().and_then(|name| {
            GraphName::new(&name.value)
                .map_err(|error| self.report.error(Code::BadName, name.at, error.to_string()))
                .ok()
        });
        let queue = spec.queue.as_ref().map(|name| {
            QueueName::new(&name.value)
                .map_err(|error| self.report.error(Code::BadName, name.at, error.to_string()))
                .ok()
        });
        let child = spec
            .graph
            .as_ref()
            .and_then(|name| self.signature(name))
            .map(|child| child.input.clone());
        let child = child.unwrap_or(Value::Bool(true));
        let input = match &spec.input {
            Some(raw) => raw.0.clone(),
            None => Yaml { at: spec.at(), data: nothing(&child) },
        };
        let input = value(self.report, &input, env, &Wanted::schema(&child), "input");
        let text = Wanted::ty(Type::Text(None));
        let mut labels = Vec::new();
        for (name, raw) in spec.labels.iter().flat_map(|labels| &labels.0) {
            let template = value(self.report, &raw.0, env, &text, "labels");
            labels.extend(template.map(|template| (name.value.clone(), template)));
        }
        let queue = match queue {
            Some(named) => Some(named?),
            None => None,
        };
        let detach = spec.detach.unwrap_or(false);
        Some(Work::Run { graph: graph?, queue, input: input?, detach, labels })
    }

    /// The graph that a node runs inline, if it can.
    pub(super) fn inside(&mut self, spec: &NodeSpec, place: &Place<'_>) -> Option<Arc<Graph>> {
        let run = spec.run.as_ref().filter(|run| run.inline == Some(true))?;
        let name = run.graph.as_ref()?;
        let inside = self.inlined(name)?;
        self.may_be_inside(name, &inside, place.signals).then_some(inside)
    }

    fn inline(&mut self, spec: &RunSpec, inside: Option<&Arc<Graph>>, env: &Env) -> Option<Work> {
        let schema = inside.map_or(Value::Bool(true), |graph| graph.input_schema.clone());
        let input = match &spec.input {
            Some(raw) => raw.0.clone(),
            None => Yaml { at: spec.at(), data: nothing(&schema) },
        };
        let input = value(self.report, &input, env, &Wanted::schema(&schema), "input");
        Some(Work::Inline { graph: inside?.clone(), input: input? })
    }

    /// What is known of a graph by name; notes it when there is none.
    pub(super) fn signature(&mut self, name: &Spanned<String>) -> Option<&Signature> {
        let graphs = self.graphs?;
        if !graphs.contains_key(&name.value) {
            let message = format!("no graph named `{}`", name.value);
            self.report.error(Code::UnknownGraph, name.at, message).help =
                suggest(&name.value, graphs.keys().map(String::as_str));
        }
        graphs.get(&name.value)?.1.as_ref()
    }

    /// The name of what a node gives, and its type.
    pub(super) fn result_of(
        &self,
        spec: &NodeSpec,
        answer: Option<&Value>,
        inside: Option<&Graph>,
        place: &Place<'_>,
    ) -> (Option<&'static str>, Type) {
        if let Some(uses) = &spec.uses {
            let kind = self.registry.kind(&uses.value);
            let ty = kind.map(|kind| Type::of_schema(&kind.output_schema));
            return (Some("output"), ty.unwrap_or(Type::Dyn));
        }
        if let Some(run) = &spec.run {
            if run.detach == Some(true) {
                let child = Type::record([("run".to_owned(), Type::Text(None))]);
                return (Some("output"), child);
            }
            if run.inline == Some(true) {
                let output = inside.map(|graph| Signature::of(graph).output);
                return (Some("output"), output.unwrap_or(Type::Dyn));
            }
            let signature = run.graph.as_ref().and_then(|name| self.graphs?.get(&name.value));
            let ty = signature
                .and_then(|(_, signature)| signature.as_ref())
                .map(|known| known.output.clone());
            return (Some("output"), ty.unwrap_or(Type::Dyn));
        }
        if let Some(wait) = &spec.wait {
            return (Some("signal"), signal_type(wait, place.signals));
        }
        if spec.gate.is_some() {
            return (Some("answer"), answer.map_or(Type::Dyn, Type::of_schema));
        }
        (None, Type::Dyn)
    }

    pub(super) fn wait(&mut self, spec: &WaitSpec, place: &Place<'_>) -> Option<Work> {
        if !spec.has("signal") && !spec.has("timeout") {
            self.report
                .error(Code::MissingKey, spec.at(), "a `wait` that waits for nothing")
                .help = Some("give `signal`, `timeout` or both".to_owned());
            return None;
        }
        if let Some(signal) = &spec.signal
            && self.is_signal_name(signal, true)
        {
            self.known_signal(signal, place.signals);
        }
        Some(Work::Wait {
            signal: spec.signal.as_ref().map(|signal| signal.value.clone()),
            timeout: spec.timeout.map(|time| time.0),
        })
    }

    pub(super) fn gate(
        &mut self,
        spec: &GateSpec,
        answer: Option<Value>,
        env: &Env,
    ) -> Option<Work> {
        let answers: Vec<(&str, Span)> = ["answer", "schema", "choices"]
            .into_iter()
            .filter(|key| spec.has(key))
            .map(|key| (key, spec.key_at(key)))
            .collect();
        let keys = ["answer", "schema", "choices"];
        self.exactly_one(Code::KeyClash, spec.at(), "`gate`", &keys, &answers);
        let ask = spec
            .ask
            .as_ref()
            .and_then(|raw| value(self.report, &raw.0, env, &Wanted::ty(Type::Text(None)), "ask"));
        if let (Some(remind), Some(expires)) = (spec.remind, spec.expires)
            && remind.0 >= expires.0
        {
            let message = "`remind` is not before `expires`, so it never reminds anyone";
            self.report.error(Code::BadLimit, spec.key_at("remind"), message);
        }
        let request = schemars::schema_for!(Request).to_value();
        let wanted = Wanted::schema(&request);
        let requested_input = spec
            .requested_input
            .iter()
            .flatten()
            .filter_map(|raw| value(self.report, &raw.0, env, &wanted, "requested_input"))
            .collect();
        let context = spec
            .context
            .as_ref()
            .and_then(|raw| value(self.report, &raw.0, env, &Wanted::ty(Type::Dyn), "context"));
        Some(Work::Gate(Box::new(Gate {
            reason: spec.reason.map_or(Reason::Decision, |word| word.0),
            ask: ask?,
            requested_input,
            answer_schema: answer?,
            context,
            remind: spec.remind.map(|time| time.0),
            expires: spec.expires.map(|time| time.0),
        })))
    }

    pub(super) fn answer(&mut self, spec: &GateSpec) -> Option<Value> {
        if let Some(name) = &spec.answer {
            return self.type_named(name);
        }
        if let Some(raw) = &spec.schema {
            return self.schema(raw);
        }
        let choices = spec.choices.as_ref()?;
        let distinct: BTreeSet<&String> = choices.value.iter().collect();
        if choices.value.is_empty() || distinct.len() < choices.value.len() {
            let message = "`choices` must be different words, at least one";
            self.report.error(Code::BadValue, choices.at, message);
            return None;
        }
        Some(json!({
            "type": "object",
            "properties": {
                "choice": { "type": "string", "enum": choices.value },
                "comment": { "type": "string", "default": "" }
            },
            "required": ["choice"],
            "additionalProperties": false
        }))
    }
}

/// What stands for a `with` or `config` that is not there.
fn nothing(schema: &Value) -> Data {
    let nullable = jsonschema::validator_for(schema)
        .is_ok_and(|validator| validator.is_valid(&Value::Null) && !validator.is_valid(&json!({})));
    if nullable { Data::Null } else { Data::Map(Vec::new()) }
}

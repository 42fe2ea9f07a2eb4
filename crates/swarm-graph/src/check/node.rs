//! One node: what it does, what it writes, where it leads.
//!
//! A [`Draft`] keeps whatever could be made of a node, so that the flow of the graph can be
//! followed through a node whose work is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use swarm_core::escalation::{Reason, Request};
use swarm_core::id::{ChannelName, GraphName, NodeName, QueueName};

use super::policies::{Defaults, Policies};
use super::signals::signal_type;
use super::state::StateDraft;
use super::value::{Wanted, condition, constant_value, hold_type, value, whole};
use super::{Checker, Signature, failure_type};
use crate::defect::{Code, suggest};
use crate::expr::{Env, Template, Type};
use crate::graph::{
    Catch, Exits, Foreach, Gate, GraphNode, Limits, OnError, Retry, Route, Target, Work,
};
use crate::signal::Signals;
use crate::spec::read::{Entries, OneOrMany, Raw, Record as _};
use crate::spec::yaml::{Data, Span, Spanned, Yaml};
use crate::spec::{CatchSpec, ForeachSpec, GateSpec, NodeSpec, RouteSpec, RunSpec, WaitSpec};

/// Where a way leads when it leads to no node.
pub(super) const END: &str = "$end";
const MAX_MAX: u32 = 1_000_000;
const PARALLEL_MAX: u32 = 1000;
const TARGETS_MAX: usize = 32;
const TAKEN: [&str; 7] = ["input", "state", "run", "output", "answer", "signal", "error"];

/// What a node is checked against.
pub(super) struct Place<'p> {
    /// The names of all nodes, in the order of the file.
    pub(super) names: Vec<&'p str>,
    /// The names of nodes that a `catch` leads to.
    pub(super) caught: BTreeSet<&'p str>,
    /// The variables that there are everywhere.
    pub(super) base: &'p Env,
    pub(super) state: &'p StateDraft,
    pub(super) signals: Option<&'p Signals>,
    pub(super) policies: &'p Policies,
    pub(super) defaults: &'p Defaults,
    pub(super) limits: Limits,
}

/// What could be made of a node.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) at: Span,
    pub(super) ways: Vec<WayDraft>,
    pub(super) when_all: Vec<Spanned<String>>,
    pub(super) when_any: Vec<Spanned<String>>,
    /// The channels that it writes, and where it says so.
    pub(super) writes: Vec<(ChannelName, Span)>,
    /// The channels that it writes when it fails.
    pub(super) catch_writes: Vec<(ChannelName, Span)>,
    pub(super) is_loop: bool,
    /// Whether its ways are those that were meant: none could not be read.
    pub(super) is_whole: bool,
    node: Option<GraphNode>,
}

/// One way out of a node, as far as it could be read.
pub(super) struct WayDraft {
    pub(super) place: String,
    pub(super) at: Span,
    pub(super) when: Option<String>,
    pub(super) max: Option<u32>,
    pub(super) on_failure: bool,
    /// The targets that exist, or that were most likely meant.
    pub(super) to: Vec<(Option<usize>, Span)>,
}

impl Draft {
    /// The node, if nothing of it is missing.
    pub(super) fn into_node(self) -> Option<GraphNode> {
        self.node
    }
}

/// The names of nodes that a `catch` leads to.
pub(super) fn caught(nodes: &[(Spanned<String>, NodeSpec)]) -> BTreeSet<&str> {
    nodes
        .iter()
        .flat_map(|(_, node)| node.catch.iter().flatten())
        .flat_map(|catch| catch.to.iter().flat_map(|to| &to.0))
        .map(|to| to.value.as_str())
        .collect()
}

/// The variables at the places of one node.
struct Envs {
    /// In what it writes.
    set: Env,
    /// In the conditions of its routes.
    routes: Env,
    /// In its `catch`.
    catch: Env,
}

impl Checker<'_> {
    pub(super) fn node(
        &mut self,
        name: &Spanned<String>,
        spec: &NodeSpec,
        place: &Place<'_>,
    ) -> Draft {
        let before = self.report.errors();
        let node_name = NodeName::new(&name.value)
            .map_err(|error| self.report.error(Code::BadName, name.at, error.to_string()))
            .ok();
        self.key_rules(name, spec);
        let error = place.caught.contains(name.value.as_str());
        let base = if error {
            place.base.clone().with("error", Self::failure(true))
        } else {
            place.base.clone().only("error", "in a `catch`, and in nodes that a `catch` leads to")
        };
        let (foreach, item) = self.foreach(spec.foreach.as_ref(), &base, place);
        let inner = match &item {
            Some((var, ty)) => base.clone().with(var.clone(), ty.clone()),
            None => base.clone(),
        };
        let answer = spec.gate.as_ref().and_then(|gate| self.answer(gate));
        let (result, result_type) = self.result_of(spec, answer.as_ref(), place);
        let work = self.work(spec, answer, &before_result(&inner), place);
        let envs = envs(&base, &inner, result, &result_type, foreach.as_ref());
        let mut writes = Vec::new();
        let set = spec.set.as_ref().map(|set| self.set(set, &envs.set, place, &mut writes));
        if set.is_none() {
            self.implied_writes(spec, &result_type, place, &mut writes);
        }
        let mut ways = Vec::new();
        let exits = self.exits(name, spec, &envs.routes, place, &mut ways);
        let mut catch_writes = Vec::new();
        let catch = self.catches(name, spec, &envs.catch, place, &mut ways, &mut catch_writes);
        let retry = self.retry_of(spec, place);
        let timeout = self.timeouts(spec.timeout.as_ref(), place.defaults.timeout);
        let when_all = spec.when_all.clone().unwrap_or_default();
        let when_any = spec.when_any.clone().unwrap_or_default();
        let is_whole =
            exits.is_some() && !ways.is_empty() && ways.iter().all(|way| !way.to.is_empty());
        let is_loop = spec.foreach.is_some();
        let clean = self.report.errors() == before;
        let node = node_name.zip(work).zip(exits).filter(|_| clean).map(|((name, work), exits)| {
            let names = |list: &[Spanned<String>]| {
                list.iter().filter_map(|name| NodeName::new(&name.value).ok()).collect()
            };
            let (when_all, when_any) = (names(&when_all), names(&when_any));
            GraphNode { name, work, foreach, set, exits, catch, retry, timeout, when_all, when_any }
        });
        let (name, at) = (name.value.clone(), name.at);
        Draft { name, at, ways, when_all, when_any, writes, catch_writes, is_loop, is_whole, node }
    }

    /// Which keys exclude and need each other.
    fn key_rules(&mut self, name: &Spanned<String>, spec: &NodeSpec) {
        let present = |keys: &[&'static str]| -> Vec<(&'static str, Span)> {
            keys.iter().filter(|key| spec.has(key)).map(|key| (*key, spec.key_at(key))).collect()
        };
        let what = format!("node `{}`", name.value);
        let works = ["uses", "run", "wait", "gate"];
        self.exactly_one(Code::OneWork, name.at, &what, &works, &present(&works));
        let exits = ["next", "routes"];
        self.exactly_one(Code::OneExit, name.at, &what, &exits, &present(&exits));
        if spec.has("when_all") && spec.has("when_any") {
            let message = format!("{what} has both `when_all` and `when_any`");
            self.report.error(Code::KeyClash, spec.key_at("when_any"), message).help =
                Some("a join waits for all, a race for the first: use two nodes".to_owned());
        }
        for (key, needed) in [("config", "uses"), ("with", "uses")] {
            if spec.has(key) && !spec.has(needed) && works.iter().any(|work| spec.has(work)) {
                let message = format!("`{key}` is only for a node with `{needed}`");
                let help = (key == "with" && spec.has("run"))
                    .then(|| "write it as `run: { input: … }`".to_owned());
                self.report.error(Code::KeyClash, spec.key_at(key), message).help = help;
            }
        }
        for key in ["retry", "timeout"] {
            let waits = if spec.has("wait") { "wait" } else { "gate" };
            if spec.has(key) && (spec.has("wait") || spec.has("gate")) {
                let message = format!("`{key}` means nothing for a `{waits}`");
                let help = (key == "timeout" && spec.has("wait"))
                    .then(|| "write it as `wait: { timeout: … }`".to_owned());
                self.report.error(Code::KeyClash, spec.key_at(key), message).help = help;
            }
        }
    }

    fn retry_of(&mut self, spec: &NodeSpec, place: &Place<'_>) -> Option<Retry> {
        match &spec.retry {
            Some(name) => self.retry_named(name, place.policies),
            None if spec.has("wait") || spec.has("gate") => None,
            None => place.defaults.retry.clone(),
        }
    }

    fn foreach(
        &mut self,
        spec: Option<&ForeachSpec>,
        env: &Env,
        place: &Place<'_>,
    ) -> (Option<Foreach>, Option<(String, Type)>) {
        let Some(spec) = spec else { return (None, None) };
        let mut item = Type::Dyn;
        let items = spec.r#in.as_ref().and_then(|text| {
            let (expr, ty) = whole(self.report, text, env)?;
            let found: Vec<Type> = ty
                .options()
                .into_iter()
                .filter_map(|option| match option {
                    Type::Dyn => Some(Type::Dyn),
                    Type::List(item) => Some((*item).clone()),
                    _ => None,
                })
                .collect();
            if found.is_empty() {
                let message = format!("`in` must be a list, found {}", ty.describe());
                self.report.error(Code::TypeMismatch, text.at, message);
                return None;
            }
            item = Type::union(found);
            Some(expr)
        });
        if let Some(name) = &spec.r#as {
            let plain = NodeName::new(&name.value).is_ok() && !name.value.contains('-');
            if !plain || TAKEN.contains(&name.value.as_str()) {
                let message = format!("`{}` cannot be the name of an item", name.value);
                self.report.error(Code::BadName, name.at, message).help =
                    Some(format!("write letters, digits or `_`, and none of {}", TAKEN.join(", ")));
            }
        }
        if let Some(max) = &spec.max_parallel {
            self.bounded(max, PARALLEL_MAX, "`max_parallel`");
        }
        let var = spec.r#as.as_ref().map(|name| name.value.clone());
        let foreach = items.zip(var.clone()).map(|(items, var)| Foreach {
            items,
            var,
            max_parallel: spec
                .max_parallel
                .as_ref()
                .map_or(place.limits.concurrency, |max| max.value),
            on_error: spec.on_error.map_or_else(OnError::default, |word| word.0),
        });
        (foreach, var.map(|var| (var, item)))
    }

    fn work(
        &mut self,
        spec: &NodeSpec,
        answer: Option<Value>,
        env: &Env,
        place: &Place<'_>,
    ) -> Option<Work> {
        let uses = spec.uses.as_ref().map(|name| self.uses(name, spec, env));
        let run = spec.run.as_ref().map(|run| self.run(run, env));
        let wait = spec.wait.as_ref().map(|wait| self.wait(wait, place));
        let gate = spec.gate.as_ref().map(|gate| self.gate(gate, answer, env));
        uses.or(run).or(wait).or(gate).flatten()
    }

    fn uses(&mut self, name: &Spanned<String>, spec: &NodeSpec, env: &Env) -> Option<Work> {
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

    fn run(&mut self, spec: &RunSpec, env: &Env) -> Option<Work> {
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

    /// What is known of a graph by name; notes it when there is none.
    fn signature(&mut self, name: &Spanned<String>) -> Option<&Signature> {
        let graphs = self.graphs?;
        if !graphs.contains_key(&name.value) {
            let message = format!("no graph named `{}`", name.value);
            self.report.error(Code::UnknownGraph, name.at, message).help =
                suggest(&name.value, graphs.keys().map(String::as_str));
        }
        graphs.get(&name.value)?.1.as_ref()
    }

    /// The name of what a node gives, and its type.
    fn result_of(
        &self,
        spec: &NodeSpec,
        answer: Option<&Value>,
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

    fn wait(&mut self, spec: &WaitSpec, place: &Place<'_>) -> Option<Work> {
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

    fn gate(&mut self, spec: &GateSpec, answer: Option<Value>, env: &Env) -> Option<Work> {
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

    fn answer(&mut self, spec: &GateSpec) -> Option<Value> {
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

    fn set(
        &mut self,
        spec: &Entries<Raw>,
        env: &Env,
        place: &Place<'_>,
        writes: &mut Vec<(ChannelName, Span)>,
    ) -> Vec<(ChannelName, Template)> {
        let mut set = Vec::new();
        let channels = &place.state.channels;
        for (name, raw) in &spec.0 {
            let Some((channel, entry)) = channels.get_key_value(name.value.as_str()) else {
                value(self.report, &raw.0, env, &Wanted::ty(Type::Dyn), "set");
                if matches!(place.state.ty, Type::Dyn) {
                    continue;
                }
                let message = format!("the state has no channel `{}`", name.value);
                self.report.error(Code::UnknownChannel, name.at, message).help =
                    suggest(&name.value, channels.keys().map(ChannelName::as_str));
                continue;
            };
            writes.push((channel.clone(), name.at));
            let wanted = Wanted::ty(StateDraft::update_type(entry));
            let what = format!("set.{}", name.value);
            let template = value(self.report, &raw.0, env, &wanted, &what);
            set.extend(template.map(|template| (channel.clone(), template)));
        }
        set
    }

    /// Without `set`, each field of the output that is a channel is written.
    fn implied_writes(
        &mut self,
        spec: &NodeSpec,
        output: &Type,
        place: &Place<'_>,
        writes: &mut Vec<(ChannelName, Span)>,
    ) {
        let is_awaited = |run: &&RunSpec| run.detach != Some(true);
        let child = || spec.run.as_ref().filter(is_awaited)?.graph.as_ref();
        let Some(uses) = spec.uses.as_ref().or_else(child) else { return };
        let names = output.field_names();
        for (channel, entry) in &place.state.channels {
            let Some((ty, _)) = output
                .field(channel.as_str())
                .filter(|_| names.iter().any(|name| name == channel.as_str()))
            else {
                continue;
            };
            writes.push((channel.clone(), uses.at));
            let what = format!("`{}` writes channel `{channel}`", uses.value);
            hold_type(self.report, uses.at, &ty, &StateDraft::update_type(entry), &what);
        }
        if writes.is_empty() && !names.is_empty() && !matches!(place.state.ty, Type::Dyn) {
            let message = format!(
                "nothing of the output of `{}` is written: no channel is named {}",
                uses.value,
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
            );
            self.report.warn(Code::UnusedOutput, uses.at, message).help = Some(
                "say with `set` where it goes, or `set: {}` when only the effect counts".to_owned(),
            );
        }
    }

    fn exits(
        &mut self,
        name: &Spanned<String>,
        spec: &NodeSpec,
        env: &Env,
        place: &Place<'_>,
        ways: &mut Vec<WayDraft>,
    ) -> Option<Exits> {
        let next = spec.next.as_ref().map(|next| {
            let (targets, to) = self.targets(next, place);
            let at = spec.key_at("next");
            let place = format!("{}.next", name.value);
            ways.push(WayDraft { place, at, when: None, max: None, on_failure: false, to });
            Exits::Next(targets)
        });
        let routes = spec.routes.as_ref().map(|routes| {
            Exits::Routes(self.routes(name, spec.key_at("routes"), routes, env, place, ways))
        });
        next.or(routes)
    }

    fn routes(
        &mut self,
        name: &Spanned<String>,
        at: Span,
        specs: &[RouteSpec],
        env: &Env,
        place: &Place<'_>,
        ways: &mut Vec<WayDraft>,
    ) -> Vec<Route> {
        let mut routes = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let when = spec.when.as_ref().and_then(|when| condition(self.report, when, env));
            let max = self.max(spec.max.as_ref());
            let (to, drafts) =
                spec.to.as_ref().map(|to| self.targets(to, place)).unwrap_or_default();
            ways.push(WayDraft {
                place: format!("{}.routes[{index}]", name.value),
                at: spec.at(),
                when: spec.when.as_ref().map(|when| when.value.0.clone()),
                max: bound_meant(max, spec.has("max")),
                on_failure: false,
                to: drafts,
            });
            routes.push(Route { when, to, max });
        }
        let is_final = |spec: &RouteSpec| !spec.has("when") && !spec.has("max");
        self.dead(&specs.iter().map(|spec| (is_final(spec), spec.at())).collect::<Vec<_>>());
        match specs.last() {
            _ if specs.iter().any(is_final) => {}
            Some(last) if !last.has("when") => {
                let message = "the last route has a `max`: once it is used up, no route holds";
                self.report.error(Code::NoFinalRoute, last.key_at("max"), message).help =
                    Some("add a last route without `when` and `max`".to_owned());
            }
            _ => {
                let message = format!(
                    "node `{}` has no route for the case that no condition holds",
                    name.value
                );
                self.report.error(Code::NoFinalRoute, at, message).help =
                    Some("add a last route without `when`, such as `{ to: $end }`".to_owned());
            }
        }
        routes
    }

    /// Notes ways behind one that always holds.
    fn dead(&mut self, ways: &[(bool, Span)]) {
        let Some(last) = ways.iter().position(|(is_final, _)| *is_final) else { return };
        for (_, at) in &ways[last + 1..] {
            let message = "never taken: the one before it always holds";
            self.report.error(Code::DeadRoute, *at, message).help =
                Some("move it up, or give the other a `when`".to_owned());
        }
    }

    fn catches(
        &mut self,
        name: &Spanned<String>,
        spec: &NodeSpec,
        env: &Env,
        place: &Place<'_>,
        ways: &mut Vec<WayDraft>,
        writes: &mut Vec<(ChannelName, Span)>,
    ) -> Vec<Catch> {
        let specs = spec.catch.as_deref().unwrap_or_default();
        let mut catches = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let when = spec.when.as_ref().and_then(|when| condition(self.report, when, env));
            let max = self.max(spec.max.as_ref());
            let (to, drafts) =
                spec.to.as_ref().map(|to| self.targets(to, place)).unwrap_or_default();
            let set = spec.set.as_ref().map(|set| self.set(set, env, place, writes));
            ways.push(WayDraft {
                place: format!("{}.catch[{index}]", name.value),
                at: spec.at(),
                when: spec.when.as_ref().map(|when| when.value.0.clone()),
                max: bound_meant(max, spec.has("max")),
                on_failure: true,
                to: drafts,
            });
            catches.push(Catch { when, to, max, set: set.unwrap_or_default() });
        }
        let is_final = |spec: &CatchSpec| !spec.has("when") && !spec.has("max");
        self.dead(&specs.iter().map(|spec| (is_final(spec), spec.at())).collect::<Vec<_>>());
        catches
    }

    fn max(&mut self, max: Option<&Spanned<u32>>) -> Option<u32> {
        let max = max?;
        self.bounded(max, MAX_MAX, "`max`");
        Some(max.value.max(1))
    }

    fn targets(
        &mut self,
        names: &OneOrMany<Spanned<String>>,
        place: &Place<'_>,
    ) -> (Vec<Target>, Vec<(Option<usize>, Span)>) {
        if let Some(extra) = names.0.get(TARGETS_MAX) {
            let message = format!("{} targets; at most {TARGETS_MAX} are allowed", names.0.len());
            self.report.error(Code::BadLimit, extra.at, message).help =
                Some("a `foreach` does the same work for many".to_owned());
        }
        let mut targets = Vec::new();
        let mut drafts: Vec<(Option<usize>, Span)> = Vec::new();
        for name in names.0.iter().take(TARGETS_MAX) {
            let (target, draft) = if name.value == END {
                (Some(Target::End), None)
            } else {
                let index = self.target(name, place);
                (NodeName::new(&name.value).ok().map(Target::Node), index)
            };
            if target.as_ref().is_some_and(|target| targets.contains(target)) {
                let message = format!("`{}` is there twice", name.value);
                self.report.error(Code::DuplicateName, name.at, message);
                continue;
            }
            targets.extend(target);
            if name.value == END || draft.is_some() {
                drafts.push((draft, name.at));
            }
        }
        if targets.len() > 1 && targets.contains(&Target::End) {
            let at = names.0.iter().find(|name| name.value == END).map(|name| name.at);
            let message = "`$end` beside other targets does nothing: the run ends when all have";
            self.report.error(Code::KeyClash, at.unwrap_or_default(), message);
        }
        (targets, drafts)
    }

    /// The node that is meant; a name that is nearly right still counts for the flow.
    fn target(&mut self, name: &Spanned<String>, place: &Place<'_>) -> Option<usize> {
        if let Some(found) = place.names.iter().position(|known| *known == name.value) {
            return Some(found);
        }
        let known = || place.names.iter().copied().chain([END]);
        let message = format!("no node named `{}`", name.value);
        self.report.error(Code::UnknownNode, name.at, message).help = suggest(&name.value, known());
        let near = crate::defect::nearest(&name.value, known())?;
        place.names.iter().position(|known| *known == near)
    }
}

/// The bound of a way for the flow: one that could not be read is there all the same.
fn bound_meant(max: Option<u32>, is_given: bool) -> Option<u32> {
    max.or(is_given.then_some(1))
}

fn envs(
    base: &Env,
    inner: &Env,
    result: Option<&'static str>,
    ty: &Type,
    foreach: Option<&Foreach>,
) -> Envs {
    let after = |env: &Env, ty: &Type| {
        let mut env = env.clone();
        for (name, place) in [
            ("output", "in `set` and `routes` of a node with `uses` or `run`"),
            ("signal", "in `set` and `routes` of a node with `wait`"),
            ("answer", "in `set` and `routes` of a node with `gate`"),
        ] {
            env = if result == Some(name) {
                env.with(name, ty.clone())
            } else {
                env.only(name, place)
            };
        }
        env
    };
    let (set, routes) = match foreach {
        // Each item writes on its own, and sees its own failure; the routes see all of them.
        Some(foreach) => {
            let one = match foreach.on_error {
                OnError::Collect => Type::union([ty.clone(), Type::Null]),
                OnError::Fail | OnError::Ignore => ty.clone(),
            };
            let set = after(inner, &one).with("error", Checker::failure(true));
            let each = match foreach.on_error {
                OnError::Fail => ty.clone(),
                OnError::Collect | OnError::Ignore => Type::union([ty.clone(), Type::Null]),
            };
            (set, after(base, &Type::List(Arc::new(each))))
        }
        None => (after(inner, ty), after(base, ty)),
    };
    let catch = before_result(base).with("error", failure_type());
    Envs { set, routes, catch }
}

/// The variables of a node that has given nothing yet.
fn before_result(env: &Env) -> Env {
    env.clone()
        .only("output", "in `set` and `routes`, after the node has run")
        .only("signal", "in `set` and `routes` of a node with `wait`")
        .only("answer", "in `set` and `routes` of a node with `gate`")
}

/// What stands for a `with` or `config` that is not there.
fn nothing(schema: &Value) -> Data {
    let nullable = jsonschema::validator_for(schema)
        .is_ok_and(|validator| validator.is_valid(&Value::Null) && !validator.is_valid(&json!({})));
    if nullable { Data::Null } else { Data::Map(Vec::new()) }
}

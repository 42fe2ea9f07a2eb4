//! One node: what it does, what it writes, where it leads.
//!
//! A [`Draft`] keeps whatever could be made of a node, so that the flow of the graph can be
//! followed through a node whose work is wrong.

mod ways;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use swarm_core::id::{ChannelName, NodeName};

use super::policies::{Defaults, Policies};
use super::state::StateDraft;
use super::value::{Wanted, hold_type, value, whole};
use super::{Checker, failure_type};
use crate::defect::{Code, suggest};
use crate::expr::{Env, Template, Type};
use crate::graph::{Cache, Foreach, GraphNode, Limits, OnError, Pool, Retry, Timeouts};
use crate::signal::Signals;
use crate::spec::read::{Entries, Raw, Record as _};
use crate::spec::yaml::{Span, Spanned};
use crate::spec::{ForeachSpec, NodeSpec, RunSpec};

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
    pub(super) pools: &'p [Pool],
    /// The name of the graph.
    pub(super) graph: &'p str,
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

fn is_inline(spec: &NodeSpec) -> bool {
    spec.run.as_ref().is_some_and(|run| run.inline == Some(true))
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
        let node_name = self.node_name(name);
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
        let inside = self.inside(spec, place);
        let (result, result_type) = self.result_of(spec, answer.as_ref(), inside.as_deref(), place);
        let work = self.work(spec, answer, inside.as_ref(), &before_result(&inner), place);
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
        let default = if is_inline(spec) { Timeouts::default() } else { place.defaults.timeout };
        let timeout = self.timeouts(spec.timeout.as_ref(), default);
        let when_all = spec.when_all.clone().unwrap_or_default();
        let when_any = spec.when_any.clone().unwrap_or_default();
        let is_whole =
            exits.is_some() && !ways.is_empty() && ways.iter().all(|way| !way.to.is_empty());
        let is_loop = spec.foreach.is_some();
        let pool = self.pool(spec, place);
        let concurrency = spec.concurrency.as_ref().map(|most| {
            self.bounded(most, PARALLEL_MAX, "`concurrency`");
            most.value
        });
        let cache = self.cache(name, spec, &before_result(&inner), place);
        let is_deferred = spec.defer.unwrap_or(false);
        let clean = self.report.errors() == before;
        let node = node_name.zip(work).zip(exits).filter(|_| clean).map(|((name, work), exits)| {
            let names = |list: &[Spanned<String>]| {
                list.iter().filter_map(|name| NodeName::new(&name.value).ok()).collect()
            };
            let (when_all, when_any) = (names(&when_all), names(&when_any));
            GraphNode {
                name,
                work,
                foreach,
                set,
                exits,
                catch,
                retry,
                timeout,
                when_all,
                when_any,
                concurrency,
                pool,
                is_deferred,
                cache,
            }
        });
        let (name, at) = (name.value.clone(), name.at);
        Draft { name, at, ways, when_all, when_any, writes, catch_writes, is_loop, is_whole, node }
    }

    fn node_name(&mut self, name: &Spanned<String>) -> Option<NodeName> {
        let found = NodeName::new(&name.value);
        if found.as_ref().is_ok_and(|name| !name.is_path()) {
            return found.ok();
        }
        let message = format!("`{}` cannot be the name of a node", name.value);
        self.report.error(Code::BadName, name.at, message).help =
            Some("start with a letter, then letters, digits, `_` or `-`, at most 64".to_owned());
        None
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
        if spec.has("when_any") && spec.defer == Some(true) {
            let message = format!("{what} has both `when_any` and `defer`");
            self.report.error(Code::KeyClash, spec.key_at("defer"), message).help =
                Some("a race begins with the first arrival: defer the node behind it".to_owned());
        }
        for (key, needed) in
            [("config", "uses"), ("with", "uses"), ("pool", "uses"), ("cache", "uses")]
        {
            if spec.has(key) && !spec.has(needed) && works.iter().any(|work| spec.has(work)) {
                let message = format!("`{key}` is only for a node with `{needed}`");
                let help = (key == "with" && spec.has("run"))
                    .then(|| "write it as `run: { input: … }`".to_owned());
                self.report.error(Code::KeyClash, spec.key_at(key), message).help = help;
            }
        }
        if let Some(run) = spec.run.as_ref().filter(|_| is_inline(spec)) {
            self.inline_rules(run, spec);
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

    /// What only a run of its own can have.
    fn inline_rules(&mut self, run: &RunSpec, spec: &NodeSpec) {
        for key in ["queue", "labels", "detach"].into_iter().filter(|key| run.has(key)) {
            let message = format!("`{key}` means nothing for a graph that runs inline");
            self.report.error(Code::KeyClash, run.key_at(key), message).help =
                Some("leave it out, or `inline`".to_owned());
        }
        for key in ["retry", "timeout"].into_iter().filter(|key| spec.has(key)) {
            let message = format!("`{key}` means nothing for a graph that runs inline");
            self.report.error(Code::KeyClash, spec.key_at(key), message).help =
                Some(format!("give its nodes a `{key}`"));
        }
    }

    fn cache(
        &mut self,
        name: &Spanned<String>,
        spec: &NodeSpec,
        env: &Env,
        place: &Place<'_>,
    ) -> Option<Cache> {
        let cache = spec.cache.as_ref()?;
        let kind = self.registry.kind(&spec.uses.as_ref()?.value)?;
        let key = cache
            .key
            .as_ref()
            .and_then(|raw| value(self.report, &raw.0, env, &Wanted::ty(Type::Dyn), "cache.key"));
        let config = spec.config.as_ref().map(|raw| raw.0.to_json());
        let scope = json!([place.graph, name.value, kind.name, kind.version, config]).to_string();
        Some(Cache { ttl: cache.ttl?.0, key, scope })
    }

    fn pool(&mut self, spec: &NodeSpec, place: &Place<'_>) -> Option<Pool> {
        let name = spec.pool.as_ref()?;
        let found = place.pools.iter().find(|pool| pool.name == name.value).cloned();
        if found.is_none() {
            let message = format!("no pool named `{}` in `limits.pools`", name.value);
            let known = place.pools.iter().map(|pool| pool.name.as_str());
            self.report.error(Code::UnknownPool, name.at, message).help =
                suggest(&name.value, known);
        }
        found
    }

    fn retry_of(&mut self, spec: &NodeSpec, place: &Place<'_>) -> Option<Retry> {
        match &spec.retry {
            Some(name) => self.retry_named(name, place.policies),
            None if spec.has("wait") || spec.has("gate") || is_inline(spec) => None,
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
            let plain = NodeName::new(&name.value).is_ok() && !name.value.contains(['-', '/']);
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

//! Policies, imports, defaults and limits: everything named that nodes and runs refer to.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::time::Duration;

use serde_json::Value;

use super::value::condition;
use super::{Checker, failure_type};
use crate::defect::{Code, suggest};
use crate::expr::{Env, Type};
use crate::graph::{Budget, Limits, OnExceed, Pool, Retry, Timeouts};
use crate::spec::read::{Entries, Read as _, Record as _};
use crate::spec::yaml::{Span, Spanned, Yaml, parse};
use crate::spec::{
    BudgetSpec, DefaultsSpec, GraphSpec, LimitsSpec, PoliciesSpec, PolicyFileSpec, RetrySpec,
    TimeoutSpec,
};

const ATTEMPTS_MAX: u32 = 100;
const LIMIT_MAX: u32 = 1_000_000;
const CONCURRENCY_MAX: u32 = 1000;
/// The name that switches a default off.
const NONE: &str = "none";

/// One policy: its name as nodes write it, and what it is if it is right.
struct Named<T> {
    name: String,
    policy: Option<T>,
    /// Its text, if it comes from another file.
    imported: Option<Value>,
}

/// The policies that a graph knows.
#[derive(Default)]
pub(super) struct Policies {
    retry: Vec<Named<Retry>>,
    budget: Vec<Named<Budget>>,
    used: RefCell<BTreeSet<(&'static str, String)>>,
}

impl Policies {
    /// Group, name and text of each policy that comes from another file and is used.
    pub(super) fn imported_and_used(&self) -> Vec<(&'static str, &str, &Value)> {
        let used = self.used.borrow();
        let retry = self.retry.iter().map(|named| ("retry", &named.name, &named.imported));
        let budget = self.budget.iter().map(|named| ("budget", &named.name, &named.imported));
        retry
            .chain(budget)
            .filter(|(group, name, _)| used.contains(&(*group, (*name).clone())))
            .filter_map(|(group, name, text)| Some((group, name.as_str(), text.as_ref()?)))
            .collect()
    }
}

/// What holds for nodes and runs that say nothing themselves.
#[derive(Default)]
pub(super) struct Defaults {
    pub(super) retry: Option<Retry>,
    pub(super) timeout: Timeouts,
    pub(super) budget: Option<Budget>,
}

impl Checker<'_> {
    /// All policies, those of imports under `NAME.policy`.
    pub(super) fn policies(&mut self, spec: &GraphSpec) -> Policies {
        let mut policies = Policies::default();
        if let Some(own) = &spec.policies {
            self.add_policies(own, None, &mut policies);
        }
        let mut names: Vec<&str> = Vec::new();
        for import in spec.imports.iter().flatten() {
            let (Some(path), Some(name)) = (&import.path, &import.r#as) else { continue };
            if names.contains(&name.value.as_str()) {
                let message = format!("two imports are named `{}`", name.value);
                self.report.error(Code::DuplicateName, name.at, message);
                continue;
            }
            names.push(&name.value);
            if !is_plain_name(&name.value) {
                let message = format!("`{}` cannot be the name of an import", name.value);
                self.report.error(Code::BadName, name.at, message).help =
                    Some("write letters, digits, `_` or `-`".to_owned());
            }
            if let Some((tree, file)) = self.import(path) {
                let tree = tree.get("policies").cloned();
                if let Some(imported) = &file.policies {
                    let from = tree.as_ref().map(|tree| (name.value.as_str(), tree));
                    self.add_policies(imported, from, &mut policies);
                }
            }
        }
        policies
    }

    fn import(&mut self, path: &Spanned<String>) -> Option<(Yaml, PolicyFileSpec)> {
        let relative = Path::new(&path.value);
        let inside = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || path.value.is_empty() || path.value.contains('\\') {
            let message = format!("`{}` is not a file beside this one or below", path.value);
            self.report.error(Code::BadImport, path.at, message).help =
                Some("write a path from this file on, such as `./policies.yaml`".to_owned());
            return None;
        }
        let directory = Path::new(self.path).parent().unwrap_or_else(|| Path::new(""));
        let full: std::path::PathBuf = directory
            .join(relative)
            .components()
            .filter(|part| !matches!(part, Component::CurDir))
            .collect();
        let full = full.to_string_lossy();
        let text = match self.sources.read(&full) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("`{}` cannot be read: {why}", path.value);
                self.report.error(Code::UnreadableFile, path.at, message);
                return None;
            }
        };
        let file = self.report.add_file(&full, &text);
        match parse(&text, file) {
            Ok(tree) => {
                let spec = PolicyFileSpec::read(&tree, self.report)?;
                self.dsl(spec.dsl.as_ref());
                Some((tree, spec))
            }
            Err(error) => {
                self.report.error(Code::Syntax, error.at, error.message);
                None
            }
        }
    }

    fn add_policies(
        &mut self,
        spec: &PoliciesSpec,
        from: Option<(&str, &Yaml)>,
        policies: &mut Policies,
    ) {
        let empty = (Entries::default(), Entries::default());
        for (name, retry) in &spec.retry.as_ref().unwrap_or(&empty.0).0 {
            let imported = self.policy_text("retry", name, from);
            let name = self.policy_name(name, from.map(|(name, _)| name));
            let policy = self.retry(retry);
            policies.retry.push(Named { name, policy, imported });
        }
        for (name, budget) in &spec.budget.as_ref().unwrap_or(&empty.1).0 {
            let imported = self.policy_text("budget", name, from);
            let name = self.policy_name(name, from.map(|(name, _)| name));
            let policy = self.budget(budget);
            policies.budget.push(Named { name, policy, imported });
        }
    }

    fn policy_text(
        &self,
        group: &str,
        name: &Spanned<String>,
        from: Option<(&str, &Yaml)>,
    ) -> Option<Value> {
        from.and_then(|(_, tree)| tree.get(group)?.get(&name.value)).map(Yaml::to_json)
    }

    /// The name as nodes write it. Own names may have a dot, because a bundle holds imported ones.
    fn policy_name(&mut self, name: &Spanned<String>, import: Option<&str>) -> String {
        let parts: Vec<&str> = name.value.split('.').collect();
        let most = if import.is_some() { 1 } else { 2 };
        if parts.len() > most || name.value == NONE || !parts.iter().all(|part| is_plain_name(part))
        {
            let message = format!("`{}` cannot be the name of a policy", name.value);
            self.report.error(Code::BadName, name.at, message).help =
                Some("write letters, digits, `_` or `-`, and not `none`".to_owned());
        }
        import.map_or_else(|| name.value.clone(), |import| format!("{import}.{}", name.value))
    }

    fn retry(&mut self, spec: &RetrySpec) -> Option<Retry> {
        let before = self.report.errors();
        let attempts = spec.max_attempts.as_ref();
        if let Some(attempts) = attempts {
            self.bounded(attempts, ATTEMPTS_MAX, "`max_attempts`");
        }
        let backoff = spec.backoff.as_ref();
        let initial = backoff.and_then(|backoff| backoff.initial.as_ref());
        let max = backoff.and_then(|backoff| backoff.max.as_ref());
        let factor = backoff.and_then(|backoff| backoff.factor.as_ref());
        if let Some(factor) = factor
            && !(1.0..=100.0).contains(&factor.value)
        {
            let message = format!("a `factor` of {} makes waits shorter or endless", factor.value);
            self.report.error(Code::BadLimit, factor.at, message).help =
                Some("write a number from 1 to 100".to_owned());
        }
        if let (Some(initial), Some(max)) = (initial, max)
            && initial.value.0 > max.value.0
        {
            self.report.error(Code::BadLimit, max.at, "`max` is shorter than `initial`");
        }
        let env = Env::default().with("error", failure_type());
        let when = spec.when.as_ref().map(|when| condition(self.report, when, &env));
        let initial = initial.map_or(Duration::from_secs(1), |time| time.value.0);
        let max = max.map_or(Duration::from_secs(300), |time| time.value.0);
        let retry = Retry {
            attempts_max: attempts?.value,
            initial,
            factor: factor.map_or(2.0, |factor| factor.value),
            max: max.max(initial),
            jitter: backoff.and_then(|backoff| backoff.jitter).unwrap_or(true),
            when: when.flatten(),
        };
        (self.report.errors() == before).then_some(retry)
    }

    fn budget(&mut self, spec: &BudgetSpec) -> Option<Budget> {
        let before = self.report.errors();
        if let Some(usd) = &spec.usd
            && !(usd.value > 0.0 && usd.value <= 1.0e9)
        {
            let message = format!("a budget of {} US dollars allows nothing", usd.value);
            self.report.error(Code::BadLimit, usd.at, message);
        }
        if let Some(tokens) = &spec.tokens
            && tokens.value == 0
        {
            self.report.error(Code::BadLimit, tokens.at, "a budget of no tokens allows nothing");
        }
        if !["usd", "tokens", "wall"].into_iter().any(|key| spec.has(key)) {
            self.report.error(Code::MissingKey, spec.at(), "a budget without any bound").help =
                Some("give at least one of `usd`, `tokens`, `wall`".to_owned());
        }
        let budget = Budget {
            usd: spec.usd.as_ref().map(|usd| usd.value),
            tokens: spec.tokens.as_ref().map(|tokens| tokens.value),
            wall: spec.wall.as_ref().map(|wall| wall.value.0),
            on_exceed: spec.on_exceed.map_or_else(OnExceed::default, |word| word.0),
        };
        (self.report.errors() == before).then_some(budget)
    }

    /// A retry policy by name; `None` also when it is switched off.
    pub(super) fn retry_named(
        &mut self,
        name: &Spanned<String>,
        policies: &Policies,
    ) -> Option<Retry> {
        if name.value == NONE {
            return None;
        }
        policies.used.borrow_mut().insert(("retry", name.value.clone()));
        self.policy(name, &policies.retry, "retry")
    }

    fn policy<T: Clone>(
        &mut self,
        name: &Spanned<String>,
        known: &[Named<T>],
        what: &str,
    ) -> Option<T> {
        match known.iter().find(|named| named.name == name.value) {
            Some(named) => named.policy.clone(),
            None => {
                let message = format!("no {what} policy named `{}`", name.value);
                self.report.error(Code::UnknownPolicy, name.at, message).help =
                    suggest(&name.value, known.iter().map(|named| named.name.as_str()));
                None
            }
        }
    }

    pub(super) fn defaults(
        &mut self,
        spec: Option<&DefaultsSpec>,
        policies: &Policies,
    ) -> Defaults {
        let Some(spec) = spec else { return Defaults::default() };
        let budget = spec.budget.as_ref().and_then(|name| {
            policies.used.borrow_mut().insert(("budget", name.value.clone()));
            self.policy(name, &policies.budget, "budget")
        });
        Defaults {
            retry: spec.retry.as_ref().and_then(|name| self.retry_named(name, policies)),
            timeout: self.timeouts(spec.timeout.as_ref(), Timeouts::default()),
            budget,
        }
    }

    pub(super) fn timeouts(&mut self, spec: Option<&TimeoutSpec>, default: Timeouts) -> Timeouts {
        let Some(spec) = spec else { return default };
        let timeouts = Timeouts {
            run: spec.run.map(|time| time.0).or(default.run),
            idle: spec.idle.map(|time| time.0).or(default.idle),
        };
        if let (Some(run), Some(idle)) = (spec.run, spec.idle)
            && idle.0 > run.0
        {
            let at = spec.key_at("idle");
            self.report.error(
                Code::BadLimit,
                at,
                "`idle` is longer than `run`, so it never ends anything",
            );
        }
        timeouts
    }

    pub(super) fn limits(&mut self, spec: Option<&LimitsSpec>) -> Limits {
        let mut limits = Limits::default();
        let Some(spec) = spec else { return limits };
        for (given, limit, most, what) in [
            (&spec.supersteps, &mut limits.supersteps, LIMIT_MAX, "`supersteps`"),
            (&spec.visits_per_node, &mut limits.visits_per_node, LIMIT_MAX, "`visits_per_node`"),
            (&spec.concurrency, &mut limits.concurrency, CONCURRENCY_MAX, "`concurrency`"),
        ] {
            if let Some(given) = given {
                self.bounded(given, most, what);
                *limit = given.value;
            }
        }
        limits
    }

    /// The pools, each with its limit.
    pub(super) fn pools(&mut self, spec: Option<&LimitsSpec>) -> Vec<Pool> {
        let named = spec.and_then(|spec| spec.pools.as_ref());
        let mut pools = Vec::new();
        for (name, limit) in named.iter().flat_map(|named| &named.0) {
            if !is_plain_name(&name.value) {
                let message = format!("`{}` cannot be the name of a pool", name.value);
                self.report.error(Code::BadName, name.at, message).help =
                    Some("write letters, digits, `_` or `-`".to_owned());
            }
            self.bounded(limit, CONCURRENCY_MAX, "a pool");
            pools.push(Pool { name: name.value.clone(), limit: limit.value });
        }
        pools
    }

    /// A count from 1 to `most`.
    pub(super) fn bounded(&mut self, count: &Spanned<u32>, most: u32, what: &str) {
        if !(1..=most).contains(&count.value) {
            let message = format!("{what} is {}", count.value);
            self.report.error(Code::BadLimit, count.at, message).help =
                Some(format!("write a number from 1 to {most}"));
        }
    }

    /// The expression environment's failure type, nullable where none need have happened.
    pub(super) fn failure(nullable: bool) -> Type {
        if nullable { Type::union([failure_type(), Type::Null]) } else { failure_type() }
    }

    /// Notes that exactly one of some keys must be there.
    pub(super) fn exactly_one(
        &mut self,
        code: Code,
        at: Span,
        what: &str,
        of: &[&str],
        found: &[(&str, Span)],
    ) {
        let list = of.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        match found {
            [] => {
                let help = match code {
                    Code::OneExit => "give exactly one; a last node has `next: $end`",
                    _ => "give exactly one",
                };
                self.report.error(code, at, format!("{what} has none of {list}")).help =
                    Some(help.to_owned());
            }
            [_] => {}
            [(first, _), rest @ ..] => {
                let (second, at) = rest[0];
                let message = format!("{what} has both `{first}` and `{second}`");
                self.report.error(code, at, message).help =
                    Some(format!("give exactly one of {list}"));
            }
        }
    }
}

/// A letter, then letters, digits, `_` or `-`.
fn is_plain_name(name: &str) -> bool {
    swarm_core::id::NodeName::new(name).is_ok_and(|name| !name.is_path())
}

//! Where a node leads: after it did well, and after a failure.

use swarm_core::id::{ChannelName, NodeName};

use super::{END, MAX_MAX, Place, TARGETS_MAX, WayDraft};
use crate::check::Checker;
use crate::check::value::condition;
use crate::defect::{Code, suggest};
use crate::expr::Env;
use crate::graph::{Catch, Exits, Route, Target};
use crate::spec::read::{OneOrMany, Record as _};
use crate::spec::yaml::{Span, Spanned};
use crate::spec::{CatchSpec, NodeSpec, RouteSpec};

impl Checker<'_> {
    pub(super) fn exits(
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

    pub(super) fn routes(
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
    pub(super) fn dead(&mut self, ways: &[(bool, Span)]) {
        let Some(last) = ways.iter().position(|(is_final, _)| *is_final) else { return };
        for (_, at) in &ways[last + 1..] {
            let message = "never taken: the one before it always holds";
            self.report.error(Code::DeadRoute, *at, message).help =
                Some("move it up, or give the other a `when`".to_owned());
        }
    }

    pub(super) fn catches(
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

    pub(super) fn max(&mut self, max: Option<&Spanned<u32>>) -> Option<u32> {
        let max = max?;
        self.bounded(max, MAX_MAX, "`max`");
        Some(max.value.max(1))
    }

    pub(super) fn targets(
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
    pub(super) fn target(&mut self, name: &Spanned<String>, place: &Place<'_>) -> Option<usize> {
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

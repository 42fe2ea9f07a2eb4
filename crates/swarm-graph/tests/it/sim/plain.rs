//! What a program must come to, by walking its tree.
//!
//! Nothing of the engine is used here: no cursor, no supersteps, no expressions, no reducers. What
//! depends on chance is said as such: a fact may be certain or possible, and a log is a tree whose
//! branches may be mixed.

use std::collections::{BTreeMap, BTreeSet};

use super::program::{
    Act, Bound, Caught, Each, EachOf, Fault, OnError, Program, Retry, Stmt, Wait, Work,
};

/// The order that a log must have.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Entry(String),
    /// One after the other.
    Seq(Vec<Self>),
    /// In any order, mixed.
    Par(Vec<Self>),
}

/// All that is known in advance.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// `kind run.step:place`, and whether it must happen or only may.
    pub(super) all: BTreeMap<String, bool>,
    /// What each spending costs, in tokens.
    pub(super) costs: BTreeMap<String, u64>,
    /// Steps taken, as a measure of size.
    pub(super) steps: u32,
}

/// How a run ends.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) order: Order,
    pub(super) sum: u64,
    /// The classes that its failure may have; empty when it succeeds.
    pub(super) failures: BTreeSet<&'static str>,
    pub(super) visits: BTreeMap<String, u32>,
    /// The last visit of each node of work that gave an output.
    pub(super) seen: BTreeMap<String, u32>,
    pub(super) facts: Facts,
}

/// Runs the program.
pub(super) fn interpret(program: &Program, run: &str, input: u32) -> Outcome {
    run_graph(program, 0, run, input)
}

fn run_graph(program: &Program, graph: usize, run: &str, input: u32) -> Outcome {
    let mut walk = Walk {
        program,
        run,
        input,
        visits: BTreeMap::new(),
        seen: BTreeMap::new(),
        taken: BTreeMap::new(),
        counters: BTreeMap::new(),
        facts: Facts::default(),
        sum: 0,
    };
    let (order, end) = walk.block(&program.graphs[graph].body);
    Outcome {
        order,
        sum: walk.sum,
        failures: end.err().unwrap_or_default(),
        visits: walk.visits,
        seen: walk.seen,
        facts: walk.facts,
    }
}

struct Walk<'p> {
    program: &'p Program,
    run: &'p str,
    input: u32,
    visits: BTreeMap<String, u32>,
    seen: BTreeMap<String, u32>,
    taken: BTreeMap<String, u32>,
    counters: BTreeMap<u32, u32>,
    facts: Facts,
    sum: u64,
}

type End = Result<(), BTreeSet<&'static str>>;

impl Walk<'_> {
    fn block(&mut self, stmts: &[Stmt]) -> (Order, End) {
        let mut orders = Vec::new();
        for stmt in stmts {
            let (order, end) = self.stmt(stmt);
            orders.push(order);
            if end.is_err() {
                return (Order::Seq(orders), end);
            }
        }
        (Order::Seq(orders), Ok(()))
    }

    fn stmt(&mut self, stmt: &Stmt) -> (Order, End) {
        match stmt {
            Stmt::Work(work) => self.work(work),
            Stmt::If { at, counter, then, other } => {
                let (first, end) = self.work(at);
                if end.is_err() {
                    return (first, end);
                }
                let count = counter.and_then(|counter| self.counters.get(&counter)).unwrap_or(&0);
                let (rest, end) =
                    self.block(if (count + self.input).is_multiple_of(2) { then } else { other });
                (Order::Seq(vec![first, rest]), end)
            }
            Stmt::Loop { body, tick, counter, bound } => self.repeat(body, tick, *counter, *bound),
            Stmt::Par { fork, branches, join } => {
                let (first, end) = self.work(fork);
                if end.is_err() {
                    return (first, end);
                }
                let (middle, end) = self.branches(branches);
                if end.is_err() {
                    return (Order::Seq(vec![first, middle]), end);
                }
                let (last, end) = self.work(join);
                (Order::Seq(vec![first, middle, last]), end)
            }
            Stmt::Each(each) => self.each(each),
            Stmt::Gate { node, then, other } => {
                let step = self.visit(node);
                let block = format!("{}.{step}", self.run);
                self.fact("question", &block);
                let (order, end) = self.block(if super::says_yes(&block) { then } else { other });
                (Order::Seq(vec![Order::Entry(block), order]), end)
            }
            Stmt::Wait { node, what } => {
                let step = self.visit(node);
                let order = match what {
                    Wait::Signal => self.entry(&step),
                    Wait::Timer { .. } | Wait::Silence { .. } => Order::Seq(Vec::new()),
                };
                (order, Ok(()))
            }
            Stmt::Child { node, graph, caught } => {
                let step = self.visit(node);
                let (order, sum, failures) = self.child(*graph, &step, self.input);
                if failures.is_empty() {
                    self.sum += sum;
                    (order, Ok(()))
                } else {
                    self.catch(node, caught.as_ref(), failures)
                }
            }
        }
    }

    fn repeat(&mut self, body: &[Stmt], tick: &str, counter: u32, bound: Bound) -> (Order, End) {
        let mut orders = Vec::new();
        let mut rounds = 0;
        loop {
            let (order, end) = self.block(body);
            orders.push(order);
            if end.is_err() {
                return (Order::Seq(orders), end);
            }
            self.visit(tick);
            *self.counters.entry(counter).or_default() += 1;
            rounds += 1;
            let goes_back = match bound {
                Bound::Count(times) => rounds < times,
                Bound::Max(max) => self.take(&format!("{tick}.routes"), max),
            };
            if !goes_back {
                return (Order::Seq(orders), Ok(()));
            }
        }
    }

    fn branches(&mut self, branches: &[(Vec<Stmt>, Work)]) -> (Order, End) {
        let mut orders = Vec::new();
        let mut failures: Vec<BTreeSet<&'static str>> = Vec::new();
        let mut parts = Vec::new();
        for (body, last) in branches {
            let before = std::mem::take(&mut self.facts);
            let (order, mut end) = self.block(body);
            let mut branch = vec![order];
            if end.is_ok() {
                let (order, last) = self.work(last);
                branch.push(order);
                end = last;
            }
            let failed = end.err();
            parts.push((std::mem::replace(&mut self.facts, before), failed.is_some()));
            failures.extend(failed);
            orders.push(Order::Seq(branch));
        }
        // When one branch ends the run, nobody can say how far the others came; when two do,
        // either may be the first.
        for (part, has_failed) in parts {
            let is_certain = failures.is_empty() || (failures.len() == 1 && has_failed);
            self.facts.join(part, is_certain);
        }
        let end = if failures.is_empty() { Ok(()) } else { Err(failures.concat_sets()) };
        (Order::Par(orders), end)
    }

    fn work(&mut self, work: &Work) -> (Order, End) {
        let step = self.visit(&work.node);
        self.acts(&step, &work.acts);
        if exhausts(work) {
            return self.catch(&work.node, work.caught.as_ref(), [work.how.class()].into());
        }
        self.sum += u64::from(work.add);
        self.seen.insert(work.node.clone(), self.visits[&work.node]);
        (self.entry(&step), Ok(()))
    }

    fn acts(&mut self, step: &str, acts: &[Act]) {
        for (index, act) in acts.iter().enumerate() {
            let place = format!("{}.{step}:{index}", self.run);
            match act {
                Act::Memo => self.fact("memo", &place),
                Act::Spend(tokens) => {
                    self.fact("spend", &place);
                    self.facts.costs.insert(format!("spend {place}"), u64::from(*tokens));
                }
                Act::Effect => self.fact("effect", &place),
                Act::Ask => self.fact("question", &place),
                Act::Sleep(_) | Act::Emit => {}
            }
        }
    }

    fn each(&mut self, each: &Each) -> (Order, End) {
        let group = self.visit(&each.node);
        let mut orders = Vec::new();
        let mut failures: Vec<BTreeSet<&'static str>> = Vec::new();
        let mut parts = Vec::new();
        let mut sum = 0;
        for item in 0..each.items {
            let step = format!("{group}/{item}");
            let before = std::mem::take(&mut self.facts);
            self.facts.steps += 1;
            let mut failed = BTreeSet::new();
            match &each.what {
                EachOf::Work { acts, failing } => {
                    self.acts(&step, acts);
                    if failing.contains(&item) {
                        failed.insert(Fault::Fatal.class());
                    } else {
                        orders.push(self.entry(&step));
                        sum += u64::from(item);
                    }
                }
                EachOf::Child { graph } => {
                    let (order, more, failures) = self.child(*graph, &step, item);
                    if failures.is_empty() {
                        orders.push(order);
                        sum += more;
                    }
                    failed = failures;
                }
                EachOf::Gate => {
                    self.fact("question", &format!("{}.{step}", self.run));
                    orders.push(self.entry(&step));
                }
            }
            parts.push(std::mem::replace(&mut self.facts, before));
            if !failed.is_empty() {
                failures.push(failed);
                if each.on_error == OnError::Fail && each.parallel == 1 {
                    break;
                }
            }
        }
        let has_failed = each.on_error == OnError::Fail && !failures.is_empty();
        // One at a time: what is before the failure happened, and nothing is after it.
        let is_certain = !has_failed || each.parallel == 1;
        for part in parts {
            self.facts.join(part, is_certain);
        }
        if has_failed {
            return self.catch(&each.node, each.caught.as_ref(), failures.concat_sets());
        }
        self.sum += sum;
        (Order::Seq(orders), Ok(()))
    }

    fn child(
        &mut self,
        graph: usize,
        step: &str,
        input: u32,
    ) -> (Order, u64, BTreeSet<&'static str>) {
        let run = format!("{}.{step}", self.run);
        let outcome = run_graph(self.program, graph, &run, input);
        self.facts.join(outcome.facts, true);
        (outcome.order, outcome.sum, outcome.failures)
    }

    fn catch(
        &mut self,
        node: &str,
        caught: Option<&Caught>,
        failures: BTreeSet<&'static str>,
    ) -> (Order, End) {
        let Some(caught) = caught else { return (Order::Seq(Vec::new()), Err(failures)) };
        if let Some(max) = caught.max
            && !self.take(&format!("{node}.catch"), max)
        {
            return (Order::Seq(Vec::new()), Err(failures));
        }
        self.block(&caught.by)
    }

    fn entry(&self, step: &str) -> Order {
        Order::Entry(format!("{}.{step}", self.run))
    }

    fn take(&mut self, way: &str, max: u32) -> bool {
        let taken = self.taken.entry(way.to_owned()).or_default();
        let is_left = *taken < max;
        *taken += u32::from(is_left);
        is_left
    }

    fn visit(&mut self, node: &str) -> String {
        self.facts.steps += 1;
        let visit = self.visits.entry(node.to_owned()).or_default();
        *visit += 1;
        format!("{node}#{visit}")
    }

    fn fact(&mut self, kind: &str, place: &str) {
        self.facts.all.insert(format!("{kind} {place}"), true);
    }
}

impl Facts {
    fn join(&mut self, other: Self, is_certain: bool) {
        self.all.extend(other.all.into_iter().map(|(fact, must)| (fact, must && is_certain)));
        self.costs.extend(other.costs);
        self.steps += other.steps;
    }
}

trait ConcatSets {
    fn concat_sets(self) -> BTreeSet<&'static str>;
}

impl ConcatSets for Vec<BTreeSet<&'static str>> {
    fn concat_sets(self) -> BTreeSet<&'static str> {
        self.into_iter().flatten().collect()
    }
}

/// Whether a step of work ends in failure.
pub(super) fn exhausts(work: &Work) -> bool {
    let attempts = match (work.retry, work.how) {
        (Some(Retry::Plain), Fault::Retryable | Fault::Timeout) => 3,
        (Some(Retry::Odd), Fault::Fatal) => 2,
        (Some(Retry::Plain), Fault::Fatal | Fault::Panic)
        | (Some(Retry::Odd), Fault::Retryable | Fault::Panic | Fault::Timeout)
        | (None, _) => 1,
    };
    work.fails >= attempts
}

/// Checks that a log is one of the orders; `Err` says what is wrong.
pub(super) fn check_order(order: &Order, log: &[String]) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for (place, entry) in log.iter().enumerate() {
        if places.insert(entry.as_str(), place).is_some() {
            return Err(format!("`{entry}` is in the log twice"));
        }
    }
    let mut seen = 0;
    span(order, &places, &mut seen)?;
    if seen == log.len() {
        Ok(())
    } else {
        Err(format!("the log has {} entries, {seen} were expected", log.len()))
    }
}

/// The first and last place of what an order holds.
fn span(
    order: &Order,
    places: &BTreeMap<&str, usize>,
    seen: &mut usize,
) -> Result<Option<(usize, usize)>, String> {
    match order {
        Order::Entry(entry) => {
            let place = places.get(entry.as_str());
            let place = *place.ok_or_else(|| format!("`{entry}` is not in the log"))?;
            *seen += 1;
            Ok(Some((place, place)))
        }
        Order::Seq(parts) => {
            let mut whole: Option<(usize, usize)> = None;
            for part in parts {
                let Some((first, last)) = span(part, places, seen)? else { continue };
                if whole.is_some_and(|(_, before)| before >= first) {
                    return Err(format!("{part:?} is not behind what goes before it"));
                }
                whole = Some((whole.map_or(first, |(start, _)| start), last));
            }
            Ok(whole)
        }
        Order::Par(parts) => {
            let mut whole: Option<(usize, usize)> = None;
            for part in parts {
                let Some((first, last)) = span(part, places, seen)? else { continue };
                whole = Some(whole.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            }
            Ok(whole)
        }
    }
}

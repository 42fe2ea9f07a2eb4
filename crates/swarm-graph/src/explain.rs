//! A graph told in words: what it does from entry to end, its loops and their bounds, who is
//! asked and when, what runs at the same time, what it may cost.
//!
//! What a newcomer gets wrong: this tells what the graph says. What the code behind a node does,
//! and whom it asks, only that code knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use petgraph::algo::has_path_connecting;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef as _;
use serde_json::Value;

use crate::expr::{Piece, Template};
use crate::graph::{
    Catch, Durability, Exits, Gate, Graph, GraphNode, OnError, OnExceed, Retry, Target, Timeouts,
    Work,
};
use crate::signal;

/// The graph in words, as Markdown without any markup that a terminal would not bear.
#[must_use]
pub fn in_words(graph: &Graph) -> String {
    let mut told = Told { graph, text: String::new() };
    told.head();
    told.nodes();
    told.signals();
    told.loops();
    told.people();
    told.together();
    told.cost();
    told.inside();
    told.text
}

struct Told<'g> {
    graph: &'g Graph,
    text: String,
}

impl Told<'_> {
    /// The graphs inside, each told once.
    fn inside(&mut self) {
        let mut told: Vec<&str> = Vec::new();
        for (_, graph) in self.graph.inlined() {
            if !told.contains(&graph.name.as_str()) {
                told.push(graph.name.as_str());
                self.line("");
                self.text.push_str(&in_words(graph));
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line(&format!("\n{heading}\n"));
    }

    fn head(&mut self) {
        let graph = self.graph;
        self.line(&format!("Graph `{}`, version {}", graph.name, graph.version));
        let given = fields(&graph.input_schema);
        let given = if given.is_empty() { "nothing in particular".to_owned() } else { given };
        self.line(&format!("\nIt is given {given}, and begins with `{}`.", graph.entry));
        let returned = match &graph.output {
            // That a field may be left out says nothing here: what the graph gives is there.
            Some(output) => match fields(&output.schema).replace("perhaps ", "") {
                fields if fields.is_empty() => "what its `output` says".to_owned(),
                fields => fields,
            },
            None => "its whole state".to_owned(),
        };
        self.line(&format!("When nothing of it is left to do, it returns {returned}."));
    }

    fn nodes(&mut self) {
        self.heading("What it does:");
        let usual = Usual::of(self.graph);
        for (number, node) in self.graph.nodes.values().enumerate() {
            self.line(&format!("{}. {}", number + 1, work(node)));
            if !node.when_all.is_empty() {
                let all = node.when_all.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
                self.line(&format!("   It begins only when {} have all come to it.", and(&all)));
            }
            if !node.when_any.is_empty() {
                let any = node.when_any.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
                self.line(&format!(
                    "   It begins when the first of {} has ended well; the others are called off.",
                    or(&any)
                ));
            }
            if node.is_deferred {
                self.line("   It begins only when nothing else is left to do.");
            }
            if let Some(most) = node.concurrency {
                self.line(&format!("   At most {most} of it have begun at once."));
            }
            if let Some(cache) = &node.cache {
                let ttl = time(cache.ttl);
                self.line(&format!("   What it gives is kept for {ttl}, for later runs as well."));
            }
            if let Some(pool) = &node.pool {
                let (name, most) = (&pool.name, pool.limit);
                self.line(&format!(
                    "   At most {most} are at work in pool `{name}` of the process."
                ));
            }
            self.exits(node);
            for catch in &node.catch {
                self.line(&format!("   - {}", caught(catch, node)));
            }
            if let Some(odd) = usual.unlike(node) {
                self.line(&format!("   - {odd}"));
            }
        }
        if let Some(usual) = usual.in_words() {
            self.line(&format!("\n{usual}"));
        }
    }

    fn signals(&mut self) {
        let Some(signals) = &self.graph.signals else { return };
        let built_in = signal::built_in().map(|(name, _)| name);
        let declared = signals.iter().filter(|(name, _)| !built_in.contains(&name.as_str()));
        let told: Vec<String> = declared
            .map(|(name, schema)| match fields(schema) {
                carried if carried.is_empty() => format!("- `{name}`."),
                carried => format!("- `{name}`, with {carried}."),
            })
            .collect();
        self.heading("What it may be told from outside:");
        for line in &told {
            self.line(line);
        }
        if told.is_empty() {
            self.line("- Nothing.");
        }
    }

    fn exits(&mut self, node: &GraphNode) {
        match &node.exits {
            Exits::Next(to) => self.line(&format!("   - Then {}.", targets(to, node))),
            Exits::Routes(routes) => {
                for (index, route) in routes.iter().enumerate() {
                    let bound =
                        route.max.map(|max| format!(", {}", times(max))).unwrap_or_default();
                    let to = targets(&route.to, node);
                    let line = match (&route.when, index) {
                        (Some(when), 0) => format!("If `{}`: {to}{bound}.", when.source()),
                        (Some(when), _) => format!("Else, if `{}`: {to}{bound}.", when.source()),
                        (None, 0) if routes.len() == 1 => format!("Then {to}{bound}."),
                        (None, 0) => format!("First {to}{bound}."),
                        (None, _) => format!("Otherwise {to}{bound}."),
                    };
                    self.line(&format!("   - {line}"));
                }
            }
        }
    }

    /// Every bounded way that leads back, with the shortest way round.
    fn loops(&mut self) {
        let topology = &self.graph.topology;
        let mut rounds = Vec::new();
        for edge in topology.edge_references() {
            let Some(max) = edge.weight().max else { continue };
            let (from, to) = (edge.source(), edge.target());
            if !has_path_connecting(topology, to, from, None) {
                continue;
            }
            let names: Vec<String> = [from]
                .into_iter()
                .chain(self.way_back(to, from))
                .map(|node| format!("`{}`", self.name(node)))
                .collect();
            let when = if edge.weight().on_failure { " after a failure" } else { "" };
            rounds.push((from.index(), format!("- {}{when}: {}.", names.join(" → "), times(max))));
        }
        if rounds.is_empty() {
            return;
        }
        rounds.sort_by_key(|(from, _)| *from);
        rounds.dedup();
        self.heading("Where it goes round, and how often in one run at most:");
        for (_, round) in rounds {
            self.line(&round);
        }
    }

    fn name(&self, node: NodeIndex) -> &str {
        let spot =
            self.graph.topology[node].and_then(|spot| self.graph.nodes.get_index(spot.index));
        spot.map_or("$end", |(name, _)| name.as_str())
    }

    /// The shortest way from one node to another, both included.
    fn way_back(&self, from: NodeIndex, to: NodeIndex) -> Vec<NodeIndex> {
        let mut came: BTreeMap<NodeIndex, Option<NodeIndex>> = BTreeMap::from([(from, None)]);
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node == to {
                break;
            }
            let mut next: Vec<NodeIndex> = self.graph.topology.neighbors(node).collect();
            next.sort_unstable();
            for next in next {
                came.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    Some(node)
                });
            }
        }
        let mut path = vec![to];
        while let Some(Some(before)) = path.last().and_then(|node| came.get(node)) {
            path.push(*before);
        }
        path.reverse();
        path
    }

    fn people(&mut self) {
        self.heading("Who is asked, and when:");
        let gates: Vec<(&GraphNode, &Gate)> = self
            .graph
            .nodes
            .values()
            .filter_map(|node| match &node.work {
                Work::Gate(gate) => Some((node, &**gate)),
                Work::Uses { .. } | Work::Run { .. } | Work::Inline { .. } | Work::Wait { .. } => {
                    None
                }
            })
            .collect();
        for (node, gate) in &gates {
            let index = self.graph.nodes.get_index_of(&node.name).map(NodeIndex::new);
            let from = index.map(|index| self.before(index)).unwrap_or_default();
            let remind = gate
                .remind
                .map(|wait| format!(" Reminded after {}.", time(wait)))
                .unwrap_or_default();
            let expires = gate
                .expires
                .map(|wait| format!(" Too late after {}.", time(wait)))
                .unwrap_or_default();
            let line = format!(
                "- At `{}`, a person ({}){from}: “{}” {}{remind}{expires}",
                node.name,
                gate.reason.title().to_lowercase(),
                text(&gate.ask),
                answers(&gate.answer_schema)
            );
            self.line(&line);
        }
        if gates.is_empty() {
            self.line("- The graph itself asks nobody.");
        }
        self.line("- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.");
    }

    /// After which nodes this one comes.
    fn before(&self, node: NodeIndex) -> String {
        let topology = &self.graph.topology;
        let mut from: Vec<(NodeIndex, bool)> = topology
            .edges_directed(node, petgraph::Direction::Incoming)
            .map(|edge| (edge.source(), edge.weight().on_failure))
            .collect();
        from.sort_unstable();
        from.dedup();
        let from: Vec<String> = from
            .into_iter()
            .map(|(node, on_failure)| {
                let failure = if on_failure { " failed" } else { "" };
                format!("`{}`{failure}", self.name(node))
            })
            .collect();
        if from.is_empty() { String::new() } else { format!(", after {}", or(&from)) }
    }

    fn together(&mut self) {
        let graph = self.graph;
        self.heading("What runs at the same time:");
        let mut is_alone = true;
        for node in graph.nodes.values() {
            if let Some(foreach) = &node.foreach {
                is_alone = false;
                self.line(&format!(
                    "- The items of `{}`, up to {} at once.",
                    node.name, foreach.max_parallel
                ));
            }
        }
        let together = &graph.together;
        for (index, name) in graph.nodes.keys().enumerate() {
            let beside: Vec<String> = graph
                .nodes
                .keys()
                .enumerate()
                .filter(|(other, _)| *other > index && together.may_be(index, *other))
                .map(|(_, other)| format!("`{other}`"))
                .collect();
            if !beside.is_empty() {
                is_alone = false;
                self.line(&format!("- `{name}` with {}.", or(&beside)));
            }
            if together.may_be(index, index) {
                is_alone = false;
                self.line(&format!("- `{name}` with itself: several ways may come to it."));
            }
        }
        if is_alone {
            self.line("- Nothing: one step after the other.");
        } else {
            self.line(&format!("- At most {} steps of a run in all.", graph.limits.concurrency));
        }
    }

    fn cost(&mut self) {
        self.heading("What it may cost:");
        match &self.graph.budget {
            Some(budget) => {
                let mut parts = Vec::new();
                parts.extend(budget.usd.map(|usd| format!("{usd:.2} US dollars")));
                parts.extend(budget.tokens.map(|tokens| format!("{tokens} model tokens")));
                parts.extend(budget.wall.map(|wall| format!("{} from start to end", time(wall))));
                let then = match budget.on_exceed {
                    OnExceed::Escalate => "Before it goes beyond, a person is asked.",
                    OnExceed::Fail => "Beyond that it fails.",
                };
                self.line(&format!(
                    "- At most {}, with all runs that it starts. {then}",
                    and(&parts)
                ));
            }
            None => {
                self.line("- It has no budget of its own; that of the run that started it holds.")
            }
        }
        if self.graph.durability == Durability::Exit {
            self.line(
                "- After a crash, the steps since it last rested, asked or did something outside are run again.",
            );
        }
        let limits = self.graph.limits;
        self.line(&format!(
            "- It fails after {} supersteps, or when a node is to run for more than the {}th time.",
            limits.supersteps, limits.visits_per_node
        ));
    }
}

/// What most nodes have in common, told once.
struct Usual {
    retry: Option<Retry>,
    timeout: Timeouts,
}

impl Usual {
    fn of(graph: &Graph) -> Self {
        let works: Vec<&GraphNode> = graph.nodes.values().filter(|node| is_tried(node)).collect();
        let most = |count: &dyn Fn(&GraphNode) -> usize| {
            works.iter().copied().max_by_key(|node| count(node))
        };
        let retry = most(&|node| works.iter().filter(|other| other.retry == node.retry).count());
        let timeout =
            most(&|node| works.iter().filter(|other| other.timeout == node.timeout).count());
        Self {
            retry: retry.and_then(|node| node.retry.clone()),
            timeout: timeout.map(|node| node.timeout).unwrap_or_default(),
        }
    }

    fn in_words(&self) -> Option<String> {
        let parts: Vec<String> =
            self.retry.as_ref().map(retry).into_iter().chain(timeout(self.timeout)).collect();
        (!parts.is_empty())
            .then(|| format!("Unless said otherwise, a step {}.", parts.join("; it ")))
    }

    fn unlike(&self, node: &GraphNode) -> Option<String> {
        if !is_tried(node) {
            return None;
        }
        let mut parts = Vec::new();
        if node.retry != self.retry {
            parts.push(node.retry.as_ref().map_or("is not tried again".to_owned(), retry));
        }
        if node.timeout != self.timeout {
            parts.push(timeout(node.timeout).unwrap_or_else(|| "may take any time".to_owned()));
        }
        (!parts.is_empty()).then(|| format!("It {}.", parts.join("; it ")))
    }
}

fn is_tried(node: &GraphNode) -> bool {
    match node.work {
        Work::Uses { .. } | Work::Run { .. } => true,
        Work::Inline { .. } | Work::Wait { .. } | Work::Gate(_) => false,
    }
}

fn retry(retry: &Retry) -> String {
    let which = match &retry.when {
        Some(when) => format!("when `{}`", when.source()),
        None => "when a failure may pass by itself".to_owned(),
    };
    format!(
        "is tried up to {} times {which}, with {} to {} between",
        retry.attempts_max,
        time(retry.initial),
        time(retry.max)
    )
}

fn timeout(timeouts: Timeouts) -> Option<String> {
    match (timeouts.run, timeouts.idle) {
        (None, None) => None,
        (Some(run), None) => Some(format!("may take {} at a time", time(run))),
        (None, Some(idle)) => Some(format!("may be silent for {}", time(idle))),
        (Some(run), Some(idle)) => {
            Some(format!("may take {} at a time and be silent for {}", time(run), time(idle)))
        }
    }
}

fn work(node: &GraphNode) -> String {
    let name = &node.name;
    let mut told = match &node.work {
        Work::Uses { kind, .. } => format!("`{name}` runs `{kind}`"),
        Work::Run { graph, queue, detach, .. } => {
            let queue =
                queue.as_ref().map(|queue| format!(" on queue `{queue}`")).unwrap_or_default();
            let end = if *detach { "does not wait for it" } else { "waits for its end" };
            format!("`{name}` starts a run of graph `{graph}`{queue} and {end}")
        }
        Work::Inline { graph, .. } => {
            format!("`{name}` runs graph `{}` inside this run", graph.name)
        }
        Work::Wait { signal, timeout } => match (signal, timeout) {
            (Some(signal), None) => format!("`{name}` waits for the signal `{signal}`"),
            (Some(signal), Some(wait)) => {
                format!("`{name}` waits for the signal `{signal}`, at most {}", time(*wait))
            }
            (None, Some(wait)) => format!("`{name}` waits {}", time(*wait)),
            (None, None) => format!("`{name}` waits"),
        },
        Work::Gate(gate) => {
            format!("`{name}` asks a person ({})", gate.reason.title().to_lowercase())
        }
    };
    if let Some(foreach) = &node.foreach {
        let failed = match foreach.on_error {
            OnError::Fail => "one that fails fails the node",
            OnError::Collect => "one that fails is noted, and the others go on",
            OnError::Ignore => "one that fails is left out",
        };
        let _ = write!(
            told,
            ", once for each `{}` in `{}`; {failed}",
            foreach.var,
            foreach.items.source()
        );
    }
    told.push('.');
    told
}

fn caught(catch: &Catch, node: &GraphNode) -> String {
    let when = catch.when.as_ref().map(|when| format!(" with `{}`", when.source()));
    let bound = catch.max.map(|max| format!(", {}", times(max))).unwrap_or_default();
    format!("If it fails{}: {}{bound}.", when.unwrap_or_default(), targets(&catch.to, node))
}

fn targets(to: &[Target], from: &GraphNode) -> String {
    let names: Vec<String> = to
        .iter()
        .map(|target| match target {
            Target::Node(name) if *name == from.name => format!("`{name}` again"),
            Target::Node(name) => format!("`{name}`"),
            Target::End => "the end".to_owned(),
        })
        .collect();
    let all = and(&names);
    if names.len() > 1 { format!("{all} at the same time") } else { all }
}

fn times(max: u32) -> String {
    match max {
        1 => "at most once".to_owned(),
        max => format!("at most {max} times"),
    }
}

/// The fields of an object's schema; the optional ones say so.
fn fields(schema: &Value) -> String {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else {
        return String::new();
    };
    let names: Vec<String> = fields
        .keys()
        .map(|name| {
            let perhaps = if required.contains(&name.as_str()) { "" } else { "perhaps " };
            format!("{perhaps}`{name}`")
        })
        .collect();
    and(&names)
}

/// What a person may answer.
fn answers(schema: &Value) -> String {
    let choices = schema.pointer("/properties/choice/enum").and_then(Value::as_array);
    let words: Vec<String> = choices
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|word| format!("`{word}`"))
        .collect();
    if !words.is_empty() {
        return format!("Choices: {}.", or(&words));
    }
    match fields(schema) {
        fields if fields.is_empty() => "Any answer.".to_owned(),
        fields => format!("The answer has {fields}."),
    }
}

/// A text as written, with its expressions in angle quotes.
fn text(template: &Template) -> String {
    match template {
        Template::Literal(Value::String(text)) => text.clone(),
        Template::Literal(value) => value.to_string(),
        Template::Expr(expr) => format!("‹{}›", expr.source()),
        Template::Text(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Expr(expr) => format!("‹{}›", expr.source()),
            })
            .collect(),
        Template::List(_) | Template::Object(_) => "…".to_owned(),
    }
}

/// A duration in its largest whole unit.
pub(crate) fn time(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.into_iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn and(parts: &[String]) -> String {
    joined(parts, "and")
}

fn or(parts: &[String]) -> String {
    joined(parts, "or")
}

fn joined(parts: &[String], word: &str) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} {word} {last}", all.join(", ")),
    }
}

//! What is going on, kept up to date by events.
//!
//! A board knows one root run and everything below it. It is told events of all of them in any
//! interleaving; of one run they come in order.

use std::collections::BTreeMap;

use swarm_core::event::Event;
use swarm_core::id::RunId;
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;

use super::clean::{clean, clip};
use super::words;

/// How a line is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// Detail.
    Quiet,
    /// A step forward.
    Plain,
    /// Something was reached.
    Good,
    /// Something failed.
    Bad,
    /// A person is asked.
    Asks,
}

/// One line about one event. The text is harmless for a terminal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// Which node of which graph, such as `dev/implement`.
    pub place: String,
    /// What.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
}

/// What a node that is at work is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Doing {
    /// Which node of which graph.
    pub place: String,
    /// The tool it has called, if one is running.
    pub tool: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// What is going on in a root run and below.
#[derive(Clone, Debug)]
pub struct Board {
    graphs: BTreeMap<RunId, String>,
    doing: BTreeMap<(RunId, String), Doing>,
    spent: Spend,
    turns: u64,
}

impl Board {
    /// A board for `root`, a run of `graph`.
    #[must_use]
    pub fn new(root: &RunId, graph: &str) -> Self {
        Self {
            graphs: BTreeMap::from([(root.clone(), graph.to_owned())]),
            doing: BTreeMap::new(),
            spent: Spend::default(),
            turns: 0,
        }
    }

    /// Takes note of an event and says it in a line, if it is worth one.
    pub fn tell(&mut self, event: &Event) -> Option<Line> {
        self.note(event);
        let (tone, text) = words::describe(event)?;
        Some(Line { at: event.at, place: self.place(event), text, tone })
    }

    /// What is being done now, oldest first; nodes that only wait for a child are left out.
    #[must_use]
    pub fn doing(&self) -> Vec<&Doing> {
        let mut doing: Vec<&Doing> = self
            .doing
            .iter()
            .filter(|((run, step), _)| {
                let below = format!("{run}.{step}");
                !self.graphs.keys().any(|other| other.as_str().starts_with(&below))
            })
            .map(|(_, doing)| doing)
            .collect();
        doing.sort_by_key(|doing| doing.since);
        doing
    }

    /// What all turns together have cost.
    #[must_use]
    pub fn spent(&self) -> Spend {
        self.spent
    }

    /// Turns and their cost in a few words.
    #[must_use]
    pub fn totals(&self) -> String {
        let tokens = words::thousands(self.spent.tokens);
        let usd = self.spent.usd;
        let turns = if self.turns == 1 { "turn" } else { "turns" };
        if usd.0 == 0 {
            format!("{} model {turns}, {tokens} tokens", self.turns)
        } else {
            format!("{} model {turns}, {tokens} tokens, {usd}", self.turns)
        }
    }

    /// The line for an event that no words were made for: its kind and its data.
    #[must_use]
    pub fn plain(&self, event: &Event) -> String {
        let place = self.place(event);
        let data = if event.data.is_null() { String::new() } else { event.data.to_string() };
        let text = clip(&format!("{} {data}", event.kind), 200);
        Line { at: event.at, place, text, tone: Tone::Quiet }.plain()
    }

    fn place(&self, event: &Event) -> String {
        let graph = self.graphs.get(&event.run).map_or("?", String::as_str);
        match &event.step {
            None => graph.to_owned(),
            Some(step) => {
                let step = step.as_str();
                let (node, visit) = step.split_once('#').unwrap_or((step, "1"));
                let again = if visit == "1" { String::new() } else { format!("#{visit}") };
                clean(&format!("{graph}/{node}{again}"))
            }
        }
    }

    fn note(&mut self, event: &Event) {
        let data = &event.data;
        match event.kind.as_str() {
            "child.started" => {
                let child = data["run"].as_str().and_then(|id| RunId::new(id).ok());
                if let (Some(child), Some(graph)) = (child, data["graph"].as_str()) {
                    self.graphs.insert(child, clean(graph));
                }
            }
            "model.turn" => {
                let tokens = &data["tokens"];
                let count = |key: &str| tokens[key].as_u64().unwrap_or(0);
                self.turns += 1;
                self.spent += Spend {
                    usd: UsdMicros::from_dollars(data["usd"].as_f64().unwrap_or(0.0)),
                    tokens: count("input") + count("output"),
                };
            }
            "run.succeeded" | "run.failed" | "run.cancelled" | "run.released" | "run.waiting" => {
                self.doing.retain(|(run, _), _| *run != event.run);
            }
            _ => {}
        }
        if let Some(step) = &event.step {
            let key = (event.run.clone(), step.to_string());
            match event.kind.as_str() {
                "node.finished" | "node.failed" | "node.caught" | "node.cancelled"
                | "question.asked" => {
                    self.doing.remove(&key);
                }
                _ => {
                    let place = self.place(event);
                    let since = event.at;
                    let doing = self.doing.entry(key).or_insert(Doing { place, tool: None, since });
                    match event.kind.as_str() {
                        "tool.called" => {
                            let name = data["tool"].as_str().unwrap_or_default();
                            let summary = data["summary"].as_str().unwrap_or_default();
                            doing.tool = Some(clip(&format!("{name} {summary}"), 60));
                            doing.since = event.at;
                        }
                        "tool.finished" | "model.turn" => {
                            doing.tool = None;
                            doing.since = event.at;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

impl Line {
    /// The line for a log: time, place, text.
    #[must_use]
    pub fn plain(&self) -> String {
        let at = self.at.to_string();
        let time = at.get(11..19).unwrap_or(&at);
        format!("{time}  {:<20} {}", self.place, self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use swarm_core::event::EventKind;
    use swarm_core::id::StepId;

    use super::*;

    const CHILD: &str = "fix-1.assign#1/0";

    fn event(run: &str, seq: u64, kind: &'static str, step: Option<&str>, data: Value) -> Event {
        Event {
            run: RunId::new(run).unwrap(),
            seq,
            at: Timestamp(1_795_423_502_000 + i64::try_from(seq).unwrap() * 1_000),
            kind: EventKind::of(kind),
            step: step.map(|step| StepId::new(step).unwrap()),
            data: std::sync::Arc::new(data),
        }
    }

    fn told(events: &[Event]) -> (Board, String) {
        let mut board = Board::new(&RunId::new("fix-1").unwrap(), "manager");
        let lines: Vec<String> =
            events.iter().filter_map(|event| board.tell(event)).map(|line| line.plain()).collect();
        (board, lines.join("\n"))
    }

    fn work() -> Vec<Event> {
        vec![
            event("fix-1", 1, "run.created", None, Value::Null),
            event("fix-1", 2, "node.started", Some("intake#1"), json!({"node": "intake"})),
            event(
                "fix-1",
                3,
                "issue.frozen",
                Some("intake#1"),
                json!({"issue": 1, "title": "add() is wrong", "hash": "x"}),
            ),
            event("fix-1", 4, "node.finished", Some("intake#1"), json!({"ms": 12})),
            event(
                "fix-1",
                5,
                "plan.made",
                Some("plan#1"),
                json!({"ambiguous": false, "tasks": [{"id": "t1", "title": "Mend add"}]}),
            ),
            event("fix-1", 5, "node.finished", Some("plan#1"), json!({"ms": 1500})),
            event(
                "fix-1",
                6,
                "child.started",
                Some("assign#1/0"),
                json!({"run": CHILD, "graph": "dev"}),
            ),
            event(CHILD, 7, "node.started", Some("implement#2"), json!({"node": "implement"})),
            event(
                CHILD,
                8,
                "model.turn",
                Some("implement#2"),
                json!({"role": "dev", "model": "m", "turn": 1, "ms": 900, "tokens": {"input": 1200, "cached": 0, "output": 34}, "usd": 0.0123, "tools": ["shell"], "text": "I run the tests."}),
            ),
            event(
                CHILD,
                9,
                "tool.called",
                Some("implement#2"),
                json!({"tool": "shell", "summary": "cargo test"}),
            ),
        ]
    }

    #[test]
    fn a_run_reads_as_a_story() {
        let mut events = work();
        events.extend([
            event(CHILD, 10, "tool.finished", Some("implement#2"), json!({"tool": "shell", "summary": "cargo test", "ms": 2345, "is_error": true})),
            event(CHILD, 11, "node.failed", Some("implement#2"), json!({"error": {"class": "io", "message": "disk full", "remedy": "retry"}, "attempt": 1, "retry_at": 5})),
            event(CHILD, 12, "question.asked", Some("verify#1"), json!({"id": "b", "reason": "tests_failing", "question": "Tests still fail. Go on?"})),
            event(CHILD, 13, "gate.decided", Some("gate#1"), json!({"decision": {"decision": "blocked", "reasons": [{}, {}]}})),
            event(CHILD, 14, "change.merged", Some("merge#1"), json!({"pr": 2, "head": "h", "merge_sha": "0123456789abcdef"})),
            event("fix-1", 15, "garden.watered", Some("rain#1"), json!({"litres": 3})),
            event("fix-1", 16, "run.succeeded", None, json!({"output": {}})),
        ]);
        let (board, story) = told(&events);
        assert_eq!(board.totals(), "1 model turn, 1,234 tokens, $0.0123");
        insta::assert_snapshot!(story, @r"
08:45:05  manager/intake       issue #1: add() is wrong
08:45:07  manager/plan         plan: Mend add
08:45:07  manager/plan         done in 1.5 s
08:45:10  dev/implement#2      turn 1, 1,200 in, 34 out, $0.0123: I run the tests.
08:45:12  dev/implement#2      shell cargo test: refused or failed (2.3 s)
08:45:13  dev/implement#2      attempt 1 failed, will be tried again: disk full (io)
08:45:14  dev/verify           asks: Tests still fail. Go on?
08:45:15  dev/gate             gate: not yet, 2 reasons
08:45:16  dev/merge            merged #2 as 0123456789
08:45:17  manager/rain         garden.watered litres=3
08:45:18  manager              finished
");
    }

    #[test]
    fn only_what_is_at_work_itself_is_shown_as_being_done() {
        let (board, _) = told(&work());
        let doing: Vec<(&str, Option<&str>)> = board
            .doing()
            .iter()
            .map(|doing| (doing.place.as_str(), doing.tool.as_deref()))
            .collect();
        assert_eq!(doing, [("dev/implement#2", Some("shell cargo test"))]);
    }

    #[test]
    fn a_question_ends_what_its_node_was_doing() {
        let mut events = work();
        events.push(event(
            CHILD,
            10,
            "question.asked",
            Some("implement#2"),
            json!({"question": "?"}),
        ));
        assert_eq!(told(&events).0.doing(), Vec::<&Doing>::new());
    }
}

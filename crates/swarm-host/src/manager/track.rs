//! `swarm/track`: what a worker's signal means for the tasks.
//!
//! Signals come from every run below this one: those of `deliver` end a task, those of the runs
//! below it only tell who waits for a person. A signal may come twice or late; each is judged by
//! what is known, never counted.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::run::RunStatus;
use swarm_graph::node::{Node, NodeContext, NodeError};

use super::{TrackedTask, WorkerSignal};
use crate::handover::{TaskOutcome, TaskStatus};
use swarm_graph::node::NoConfig;

/// `swarm/track`
#[derive(Debug)]
pub struct Track;

/// What it takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrackInput {
    /// The signal.
    pub signal: WorkerSignal,
    /// The tasks as known before it.
    pub tasks: Vec<TrackedTask>,
}

/// What it gives.
#[derive(Debug, JsonSchema, PartialEq, Serialize)]
pub struct TrackOutput {
    /// The tasks that changed.
    pub tasks: Vec<TrackedTask>,
    /// What people should hear.
    pub news: News,
}

/// What people should hear of a signal.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// Nothing.
    None,
    /// A worker asks a person, or has its answer.
    Question,
}

#[async_trait]
impl Node for Track {
    const KIND: &'static str = "swarm/track";
    type Config = NoConfig;
    type Input = TrackInput;
    type Output = TrackOutput;

    async fn run(&self, _ctx: &NodeContext, input: TrackInput) -> Result<TrackOutput, NodeError> {
        Ok(track(&input.signal, input.tasks))
    }
}

/// The part of a signal's payload that counts here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    run: String,
    block: String,
    status: Option<RunStatus>,
    output: Value,
    failure: Option<swarm_core::failure::Failure>,
}

fn track(signal: &WorkerSignal, tasks: Vec<TrackedTask>) -> TrackOutput {
    let nothing = TrackOutput { tasks: Vec::new(), news: News::None };
    let Ok(payload) = Payload::deserialize(&signal.payload) else { return nothing };
    let Some(mut task) = tasks.into_iter().find(|task| is_at_or_below(&payload.run, &task.run))
    else {
        return nothing;
    };
    let before = task.clone();
    let news = match signal.name.as_str() {
        "worker.blocked" => {
            if !task.waiting.contains(&payload.block) {
                task.waiting.push(payload.block);
            }
            News::Question
        }
        "worker.answered" => {
            task.waiting.retain(|block| *block != payload.block);
            News::Question
        }
        "worker.finished" => {
            let prefix = format!("{}.", payload.run);
            task.waiting.retain(|block| !block.starts_with(&prefix));
            if payload.run == task.run {
                task.outcome = outcome(&task.task, &payload);
                task.waiting.clear();
            }
            News::None
        }
        _ => News::None,
    };
    task.status = match (task.outcome.status, task.waiting.is_empty()) {
        (TaskStatus::Open | TaskStatus::Blocked, true) => TaskStatus::Open,
        (TaskStatus::Open | TaskStatus::Blocked, false) => TaskStatus::Blocked,
        (ended @ (TaskStatus::Merged | TaskStatus::Stopped | TaskStatus::Failed), _) => ended,
    };
    let tasks = if task == before { Vec::new() } else { vec![task] };
    TrackOutput { tasks, news }
}

fn is_at_or_below(run: &str, above: &str) -> bool {
    run.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn outcome(task: &str, payload: &Payload) -> TaskOutcome {
    let ended = TaskOutcome { task: task.to_owned(), ..TaskOutcome::default() };
    match payload.status {
        Some(RunStatus::Succeeded) => match TaskOutcome::deserialize(&payload.output) {
            Ok(TaskOutcome { status: TaskStatus::Open | TaskStatus::Blocked, .. }) | Err(_) => {
                let reasons = vec!["the worker ended without an outcome".to_owned()];
                TaskOutcome { status: TaskStatus::Failed, reasons, ..ended }
            }
            Ok(outcome) => TaskOutcome { task: task.to_owned(), ..outcome },
        },
        Some(RunStatus::Cancelled) => TaskOutcome {
            status: TaskStatus::Stopped,
            reasons: vec!["cancelled".to_owned()],
            ..ended
        },
        Some(RunStatus::Failed | RunStatus::Ready | RunStatus::Running | RunStatus::Waiting)
        | None => {
            let reason = payload
                .failure
                .as_ref()
                .map_or_else(|| "the worker failed".to_owned(), ToString::to_string);
            TaskOutcome { status: TaskStatus::Failed, reasons: vec![reason], ..ended }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tasks() -> Vec<TrackedTask> {
        let task = |run: &str, task: &str| TrackedTask {
            run: run.to_owned(),
            task: task.to_owned(),
            ..TrackedTask::default()
        };
        vec![task("r.assign#1/1", "t1"), task("r.assign#1/10", "t2")]
    }

    fn signal(name: &str, payload: Value) -> WorkerSignal {
        WorkerSignal { name: name.to_owned(), payload }
    }

    #[test]
    fn a_question_below_a_task_blocks_that_task_and_no_other() {
        let run = "r.assign#1/10.dev#1";
        let asked = json!({ "run": run, "block": format!("{run}.implement#1:turn/3/call/0") });
        let told = track(&signal("worker.blocked", asked.clone()), tasks());
        assert_eq!(told.news, News::Question);
        assert_eq!(told.tasks.len(), 1);
        assert_eq!(
            (told.tasks[0].task.as_str(), told.tasks[0].status),
            ("t2", TaskStatus::Blocked)
        );

        let told = track(&signal("worker.answered", asked), told.tasks);
        assert_eq!(told.tasks[0].status, TaskStatus::Open);
    }

    #[test]
    fn only_the_run_of_the_task_ends_it() {
        let below = json!({ "run": "r.assign#1/1.dev#1", "status": "succeeded", "output": { "status": "merged" } });
        assert_eq!(track(&signal("worker.finished", below), tasks()).tasks, []);

        let own = json!({ "run": "r.assign#1/1", "status": "succeeded", "output": { "status": "merged", "pr": 7 } });
        let told = track(&signal("worker.finished", own), tasks());
        assert_eq!((told.tasks[0].status, told.tasks[0].outcome.pr), (TaskStatus::Merged, 7));
        assert_eq!(told.tasks[0].outcome.task, "t1");
    }

    #[test]
    fn a_run_that_failed_or_ended_without_an_outcome_is_a_failed_task() {
        for payload in [
            json!({ "run": "r.assign#1/1", "status": "succeeded", "output": {} }),
            json!({ "run": "r.assign#1/1", "status": "succeeded", "output": null }),
            json!({ "run": "r.assign#1/1", "status": "failed", "failure": { "class": "io", "message": "m", "remedy": "retry" } }),
        ] {
            let told = track(&signal("worker.finished", payload), tasks());
            assert_eq!(told.tasks[0].status, TaskStatus::Failed);
            assert_eq!(told.tasks[0].outcome.reasons.len(), 1);
        }
    }

    #[test]
    fn a_signal_of_nobody_we_know_changes_nothing() {
        for payload in [json!(null), json!({ "run": "other" }), json!({ "run": 3 })] {
            assert_eq!(track(&signal("worker.finished", payload), tasks()).tasks, []);
        }
    }
}

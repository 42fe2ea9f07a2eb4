//! `runs`: what was started, how far it is, and everything that happened in it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use swarm_core::checkpoint::{StepEnding, StepRecord};
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::port::clock::Clock;
use swarm_core::port::store::{RunFilter, Store};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::time::Timestamp;

use super::{find, out, out::Out};
use crate::cli;
use crate::config::Settings;
use crate::progress::{Board, Cost, Final, Follower, Rest, clean, clip, final_of, took};

/// How often events are looked for when another process makes them.
const LOOK: Duration = Duration::from_millis(300);

/// Runs the command.
///
/// # Errors
/// [`Usage`](super::Usage) for an unknown run; the store's failure.
pub async fn run(
    store: Arc<dyn Store>,
    clock: &dyn Clock,
    out: Out,
    settings: &Settings,
    what: &cli::Runs,
) -> Result<()> {
    match what {
        cli::Runs::List { all, status, limit } => {
            let filter = RunFilter {
                status: status.iter().copied().map(status_of).collect(),
                only_roots: !all,
                limit: *limit,
                ..RunFilter::default()
            };
            let runs: Vec<Summary> = store.runs(&filter).await?.iter().map(Summary::of).collect();
            out.print(&runs, || list(&runs, clock.now()))
        }
        cli::Runs::Show { run } => {
            let shown = Shown::of(store.as_ref(), run).await?;
            out.print(&shown, || shown.text(settings))
        }
        cli::Runs::Events { run, follow } => {
            let root = find::run(store.as_ref(), run).await?;
            events(store, clock, out, &root, *follow).await
        }
        cli::Runs::Checkpoints { .. }
        | cli::Runs::Replay { .. }
        | cli::Runs::Fork { .. }
        | cli::Runs::Edit { .. }
        | cli::Runs::Copy { .. }
        | cli::Runs::Delete { .. }
        | cli::Runs::Prune => Ok(()),
    }
}

/// One run with everything below it, for people.
///
/// # Errors
/// As for [`run`].
pub async fn show(store: &dyn Store, typed: &str, settings: &Settings) -> Result<String> {
    Ok(Shown::of(store, typed).await?.text(settings))
}

fn status_of(typed: cli::Status) -> RunStatus {
    match typed {
        cli::Status::Ready => RunStatus::Ready,
        cli::Status::Running => RunStatus::Running,
        cli::Status::Waiting => RunStatus::Waiting,
        cli::Status::Succeeded => RunStatus::Succeeded,
        cli::Status::Failed => RunStatus::Failed,
        cli::Status::Cancelled => RunStatus::Cancelled,
    }
}

/// A run in a list.
#[derive(Debug, Serialize)]
struct Summary {
    run: String,
    status: RunStatus,
    graph: String,
    title: String,
    repo: String,
    cost: Cost,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Summary {
    fn of(run: &RunRecord) -> Self {
        let label = |name| run.start.labels.get(name).cloned().unwrap_or_default();
        Self {
            run: run.start.id.to_string(),
            status: run.status,
            graph: run.start.graph.to_string(),
            title: label("title"),
            repo: label("repo"),
            cost: Cost { usd: run.spent.usd.as_dollars(), tokens: run.spent.tokens },
            created_at: run.created_at,
            updated_at: run.updated_at,
        }
    }
}

fn list(runs: &[Summary], now: Timestamp) -> String {
    if runs.is_empty() {
        return "There are no such runs.".to_owned();
    }
    let rows = runs.iter().map(|run| {
        vec![
            run.run.clone(),
            run.status.as_str().to_owned(),
            run.graph.clone(),
            super::age(now, run.created_at),
            format!("${:.4}", run.cost.usd),
            clip(&run.title, 60),
        ]
    });
    out::table(&["RUN", "STATUS", "GRAPH", "AGE", "COST", "ISSUE"], rows)
}

/// One run with everything below it.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(rename = "final")]
    last: Final,
    title: String,
    repo: String,
    runs: Vec<ShownRun>,
    questions: Vec<Block>,
}

#[derive(Debug, Serialize)]
struct ShownRun {
    run: String,
    graph: String,
    graph_hash: String,
    status: RunStatus,
    spent: Cost,
    worker: Option<String>,
    failure: Option<String>,
    steps: Vec<StepRecord>,
}

impl Shown {
    async fn of(store: &dyn Store, typed: &str) -> Result<Self> {
        let root = find::run(store, typed).await?;
        let tree = find::tree(store, &root).await?;
        let (mut runs, mut questions) = (Vec::new(), Vec::new());
        for run in &tree {
            let id = &run.start.id;
            questions.extend(store.blocks(Some(id), None).await?);
            runs.push(ShownRun {
                run: id.to_string(),
                graph: run.start.graph.to_string(),
                graph_hash: run.start.graph_hash.to_string(),
                status: run.status,
                spent: Cost { usd: run.spent.usd.as_dollars(), tokens: run.spent.tokens },
                worker: run.lease_owner.as_ref().map(ToString::to_string),
                failure: run.failure.as_ref().map(ToString::to_string),
                steps: store.steps(id).await?,
            });
        }
        let below: Vec<_> = tree.iter().map(|run| run.start.id.clone()).collect();
        let open: Vec<Block> =
            questions.iter().filter(|block| block.status == BlockStatus::Open).cloned().collect();
        let last = final_of(store, &root, &below, &open).await?;
        let label = |name| root.start.labels.get(name).cloned().unwrap_or_default();
        Ok(Self { last, title: label("title"), repo: label("repo"), runs, questions })
    }

    fn text(&self, settings: &Settings) -> String {
        let last = &self.last;
        let mut lines = vec![format!("Run {}  {}", last.run, last.outcome.as_str())];
        let mut fact = |name: &str, value: String| {
            if !value.is_empty() {
                lines.push(format!("  {name:<12} {value}"));
            }
        };
        fact("issue", clip(&self.title, 100));
        fact("repository", clean(&self.repo));
        fact("pull request", last.pr.map(|pr| format!("#{pr}")).unwrap_or_default());
        fact("branch", last.branch.as_deref().map(clean).unwrap_or_default());
        fact("merge commit", last.merge_sha.as_deref().map(clean).unwrap_or_default());
        fact("cost", format!("${:.4}, {} tokens", last.cost.usd, last.cost.tokens));
        for reason in &last.reasons {
            fact("because", clip(reason, 300));
        }
        for run in &self.runs {
            lines.push(String::new());
            let worker = run.worker.as_ref().filter(|_| run.status == RunStatus::Running);
            let worker = worker.map(|worker| format!(" on {worker}")).unwrap_or_default();
            lines.push(format!("{} · {}{worker}  ({})", run.graph, run.status.as_str(), run.run));
            if let Some(failure) = &run.failure {
                lines.push(format!("  failed: {}", clip(failure, 300)));
            }
            lines.extend(run.steps.iter().map(step));
        }
        let open = self.questions.iter().filter(|block| block.status == BlockStatus::Open);
        for block in open {
            lines.push(String::new());
            lines.push(super::blocks::show(block, &self.title, settings));
        }
        lines.join("\n")
    }
}

fn step(step: &StepRecord) -> String {
    let at = step.started_at.to_string();
    let at = at.get(11..19).unwrap_or(&at);
    let took = took(step.ended_at.since(step.started_at));
    match &step.ending {
        StepEnding::Output(_) => format!("  {at} ✓ {:<20} {took}", step.step),
        StepEnding::Failed(failure) => {
            format!("  {at} ✗ {:<20} {took}  {}", step.step, clip(&failure.to_string(), 200))
        }
    }
}

async fn events(
    store: Arc<dyn Store>,
    clock: &dyn Clock,
    out: Out,
    root: &RunRecord,
    follow: bool,
) -> Result<()> {
    let id = &root.start.id;
    let mut follower = Follower::new(store, id.clone());
    let mut board = Board::new(id, root.start.graph.as_str());
    loop {
        let rest = follower.rest(clock.now()).await?;
        for event in follower.read().await? {
            let said = board.tell(&event);
            let kind = event.kind.as_str();
            out.line(&event, || match said {
                Some(line) => format!("{}  [{}]", line.plain(), clean(kind)),
                None => board.plain(&event),
            })?;
        }
        if !follow || rest != Rest::Moving {
            return Ok(());
        }
        clock.sleep(LOOK).await;
    }
}

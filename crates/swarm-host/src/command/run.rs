//! `run`: serves queued runs until told to stop, or works on one issue and follows it live.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use swarm_core::escalation::Reason;
use swarm_core::id::RunId;
use swarm_graph::engine::Control;
use swarm_graph::worker::Worker;
use tokio::task::JoinHandle;

use super::follow::{Asking, follow};
use super::out::{Out, quoted};
use crate::cli;
use crate::order::Order;
use crate::progress::{Final, Outcome, Screen};
use crate::retention;
use crate::wire::Host;
use crate::worker::{TreeWorker, stop_on_signals};

/// The exit code of a command that was left by SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// How long nodes at work may go on once nobody watches any more.
const LEAVING: Duration = Duration::from_millis(500);

/// Works on queued runs until SIGTERM.
///
/// # Errors
/// When the process cannot listen to signals.
pub async fn serve(host: &Host, out: Out) -> Result<ExitCode> {
    let control = Control::default();
    let worker = &host.settings().values.worker;
    let watch = stop_on_signals(&control, worker.grace.0).context("cannot listen to signals")?;
    let id = host.life().worker().clone();
    let slots = usize::try_from(worker.slots).unwrap_or(1);
    let serving = serde_json::json!({
        "serving": host.settings().data_dir, "worker": id, "slots": slots, "queues": host.queues(),
    });
    out.line(&serving, || {
        format!(
            "Serving {} as {id} with {slots} slots. Queue work with `swarm-host submit`; stop with SIGTERM.",
            host.settings().data_dir.display()
        )
    })?;
    let _burying = host.life().watch(host.engine(), worker.poll.0);
    let _pruning = retention::watch(host.engine(), &host.settings().values.retention);
    Worker::new(host.engine().clone(), id, host.queues(), slots)
        .poll_every(worker.poll.0)
        .serve(control)
        .await;
    watch.abort();
    Ok(ExitCode::SUCCESS)
}

/// Works on one issue, or attaches to its run, and follows it.
///
/// # Errors
/// [`Usage`](super::Usage) for a repository or an issue that cannot be meant; the store's failure.
pub async fn one(host: &Host, out: Out, work: &cli::Work) -> Result<ExitCode> {
    let order = Order::read(host.settings(), work)?;
    let started = host.start(&order, work.new, 0).await?;
    let mut screen = Screen::new(out.is_json());
    let id = &started.id;
    screen.say(&if started.is_new {
        format!("Run {id}: {}", order.title)
    } else {
        format!("Run {id} is there already; attaching to it (--new would start another one).")
    });
    let (last, was_left) = attend(host, &mut screen, id, Asking::AtTerminal).await?;
    let again = format!(
        "swarm-host{} run --repo {} --issue …",
        host.settings().flags(),
        quoted(&order.repo.0)
    );
    conclude(host, out, &last, was_left.then_some(again.as_str()))
}

/// Works on one run and everything below it while it is followed. The flag is whether the person
/// left before it rested.
///
/// # Errors
/// The store's failure.
pub async fn attend(
    host: &Host,
    screen: &mut Screen,
    id: &RunId,
    asking: Asking,
) -> Result<(Final, bool)> {
    let control = Control::default();
    let watch = stop_on_signals(&control, LEAVING).context("cannot listen to signals")?;
    let settings = host.settings();
    let slots = usize::try_from(settings.values.worker.slots).unwrap_or(1);
    let poll = settings.values.worker.poll.0;
    let worker = TreeWorker::new(
        host.engine().clone(),
        host.life().worker().clone(),
        id.clone(),
        slots,
        poll,
    );
    let _burying = host.life().watch(host.engine(), poll);
    let working: JoinHandle<()> = tokio::spawn(worker.serve(control.clone()));
    let left = control.drain.clone();
    let last = follow(host.engine(), settings, screen, id, asking, &left).await;
    let was_left = left.is_cancelled();
    control.drain.cancel();
    // What is still at work is handed back, so that the next process need not wait for a lease.
    if !was_left {
        control.halt.cancel();
    }
    let _ = working.await;
    watch.abort();
    Ok((last?, was_left))
}

/// Says how it ended and gives the exit code. `again` is the command that goes on.
///
/// # Errors
/// When standard output is closed.
pub fn conclude(host: &Host, out: Out, last: &Final, again: Option<&str>) -> Result<ExitCode> {
    let flags = host.settings().flags();
    out.line(last, || words(last, &flags, again))?;
    let was_interrupted = again.is_some() && last.outcome == Outcome::Running;
    Ok(ExitCode::from(if was_interrupted { INTERRUPTED } else { last.outcome.exit_code() }))
}

fn words(last: &Final, flags: &str, again: Option<&str>) -> String {
    let run = &last.run;
    let mut lines = vec![String::new()];
    lines.push(match last.outcome {
        Outcome::Merged => {
            let sha = last.merge_sha.as_deref().unwrap_or_default();
            format!("Merged pull request #{} as {sha}.", last.pr.unwrap_or(0))
        }
        Outcome::Done => "Done.".to_owned(),
        Outcome::Waiting => "Waiting for a person. Everything is kept.".to_owned(),
        Outcome::Running => "Left. Nothing is lost.".to_owned(),
        Outcome::Stopped => "Stopped by a person before a merge.".to_owned(),
        Outcome::Failed => "Failed.".to_owned(),
        Outcome::Cancelled => "Cancelled.".to_owned(),
    });
    lines.extend(last.reasons.iter().map(|reason| format!("  {}", crate::progress::clean(reason))));
    if let Some(branch) = &last.branch {
        lines.push(format!("  branch {}", crate::progress::clean(branch)));
    }
    lines.push(format!("  cost ${:.4}, {} tokens", last.cost.usd, last.cost.tokens));
    match last.outcome {
        Outcome::Waiting => {
            if last.reasons.iter().any(|why| why.starts_with(Reason::Approval.title())) {
                lines.push(format!("  approve  swarm-host{flags} approve {run}"));
            }
            lines.push(format!("  see      swarm-host{flags} blocks list --run {run}"));
            lines.push(format!("  answer   swarm-host{flags} blocks show BLOCK, which says how"));
            lines.push("Once answered, the same command again goes on.".to_owned());
        }
        Outcome::Running => {
            lines.extend(again.map(|again| format!("  go on    {again}")));
            lines.push(format!("  stop it  swarm-host{flags} cancel {run}"));
        }
        Outcome::Merged
        | Outcome::Done
        | Outcome::Stopped
        | Outcome::Failed
        | Outcome::Cancelled => {
            lines.push(format!("  history  swarm-host{flags} runs show {run}"));
        }
    }
    lines.join("\n")
}

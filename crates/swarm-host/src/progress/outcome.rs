//! The final object: what a script learns of a run, and the exit code that goes with it.
//!
//! Its keys are a promise to scripts. New ones may come; none changes its meaning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::escalation::Block;
use swarm_core::id::RunId;
use swarm_core::port::store::{self, Store};
use swarm_core::run::{RunRecord, RunStatus};

/// How a run stands, in a word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The change is merged.
    Merged,
    /// The graph reached its end, and a merge was not its aim.
    Done,
    /// A person must answer; the run keeps everything and goes on by itself afterwards.
    Waiting,
    /// Someone works on it, or will: the command only queued it, or stopped following.
    Running,
    /// A person stopped it before a merge.
    Stopped,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Outcome {
    /// The exit code of a command that ends so.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Merged | Self::Done | Self::Running => 0,
            Self::Stopped | Self::Failed | Self::Cancelled => 1,
            Self::Waiting => 3,
        }
    }

    /// The word as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Done => "done",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What was spent on a run and all below it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Cost {
    /// Dollars, by the configured prices.
    pub usd: f64,
    /// Model tokens, in and out.
    pub tokens: u64,
}

/// The last line of `--json`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Final {
    /// The run.
    pub run: RunId,
    /// How it stands.
    pub outcome: Outcome,
    /// The pull request's number, once there is one; with several, the first.
    pub pr: Option<u64>,
    /// Its branch.
    pub branch: Option<String>,
    /// The merge commit, once merged.
    pub merge_sha: Option<String>,
    /// What it cost.
    pub cost: Cost,
    /// Why it waits, stopped or failed.
    pub reasons: Vec<String>,
}

/// The final object of a run: `record` as read now, and the open questions of it and below it.
///
/// # Errors
/// The store's failure.
pub async fn final_of(
    store: &dyn Store,
    record: &RunRecord,
    below: &[RunId],
    blocks: &[Block],
) -> store::Result<Final> {
    let output = record.output.as_deref().unwrap_or(&Value::Null);
    let (outcome, reasons) = outcome(record, output, blocks);
    let change = match change_in(output) {
        Some(change) => change,
        None => change_of(store, below).await?.unwrap_or_default(),
    };
    Ok(Final {
        run: record.start.id.clone(),
        outcome,
        pr: change.pr,
        branch: change.branch,
        merge_sha: change.merge_sha,
        cost: Cost { usd: record.spent.usd.as_dollars(), tokens: record.spent.tokens },
        reasons,
    })
}

fn outcome(record: &RunRecord, output: &Value, blocks: &[Block]) -> (Outcome, Vec<String>) {
    let said = || {
        let reasons = output["reasons"].as_array().into_iter().flatten();
        reasons.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    match record.status {
        RunStatus::Succeeded => match output["outcome"].as_str() {
            Some("merged") => (Outcome::Merged, said()),
            Some("stopped") => (Outcome::Stopped, said()),
            Some("failed") => (Outcome::Failed, said()),
            Some(_) | None => (Outcome::Done, said()),
        },
        RunStatus::Failed => {
            (Outcome::Failed, record.failure.iter().map(ToString::to_string).collect())
        }
        RunStatus::Cancelled => (Outcome::Cancelled, vec!["cancelled".to_owned()]),
        RunStatus::Ready | RunStatus::Running | RunStatus::Waiting if blocks.is_empty() => {
            (Outcome::Running, Vec::new())
        }
        RunStatus::Ready | RunStatus::Running | RunStatus::Waiting => {
            let asks = |block: &Block| format!("{}: {}", block.ask.reason.title(), block.id);
            (Outcome::Waiting, blocks.iter().map(asks).collect())
        }
    }
}

#[derive(Default)]
struct Change {
    pr: Option<u64>,
    branch: Option<String>,
    merge_sha: Option<String>,
}

/// The change that an output or a channel names; 0 and empty texts stand for none.
fn change_in(value: &Value) -> Option<Change> {
    let word = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let pr = value["pr"].as_u64().filter(|number| *number != 0)?;
    Some(Change { pr: Some(pr), branch: word("branch"), merge_sha: word("merge_sha") })
}

/// The change that a run below has made, while no output says so yet.
async fn change_of(store: &dyn Store, below: &[RunId]) -> store::Result<Option<Change>> {
    for run in below {
        let Some(checkpoint) = store.checkpoint(run, None).await? else { continue };
        if let Some(change) = checkpoint.state.get("change").and_then(|value| change_in(value)) {
            return Ok(Some(change));
        }
    }
    Ok(None)
}

//! One event in words: what a line says about it.
//!
//! Every kind that is worth a line has an arm; a kind that a custom node made up is shown as it
//! is. `None` is for facts that only programs want, which `--json` and `runs events` show.

use std::time::Duration;

use serde_json::Value;
use swarm_core::event::Event;
use swarm_core::spend::UsdMicros;

use super::board::Tone;
use super::clean::{clean, clip};

const TEXT_MAX: usize = 160;

/// From how many milliseconds on it is said how long a node took.
const SLOW_MS: u64 = 1_000;

/// What is said about an event, and how loud.
pub(super) fn describe(event: &Event) -> Option<(Tone, String)> {
    let data = &event.data;
    let said = match event.kind.as_str() {
        "run.created" | "run.claimed" | "run.waiting" | "node.started" | "child.started"
        | "child.ended" | "signal.taken" | "timer.fired" | "tool.called" | "check.started" => {
            return None;
        }
        // What is over at once has said what it did, or did nothing worth saying.
        "node.finished" if data["ms"].as_u64().unwrap_or(0) < SLOW_MS => return None,
        "node.finished" => (Tone::Quiet, format!("done in {}", millis(&data["ms"]))),
        "node.failed" => (Tone::Bad, node_failed(data)),
        "node.caught" => {
            (Tone::Plain, format!("goes on with {} after: {}", text(&data["to"]), failure(data)))
        }
        "node.cancelled" => {
            (Tone::Plain, format!("called off: {} was first", text(&data["winner"])))
        }
        "run.succeeded" => (Tone::Good, "finished".to_owned()),
        "run.failed" => (Tone::Bad, format!("failed: {}", failure(data))),
        "run.cancelled" => (Tone::Bad, format!("cancelled by {}", text(&data["by"]))),
        "run.released" => (Tone::Plain, "handed back; another worker goes on".to_owned()),
        "question.asked" => (Tone::Asks, format!("asks: {}", text(&data["question"]))),
        "question.reminded" => (Tone::Asks, "still waits for its answer".to_owned()),
        "question.expired" => (Tone::Bad, "got no answer in time".to_owned()),
        "question.answered" => (Tone::Good, "has its answer".to_owned()),
        "budget.raised" => (Tone::Plain, format!("has a new limit: {}", compact(data))),
        "issue.frozen" => {
            (Tone::Plain, format!("issue #{}: {}", data["issue"], text(&data["title"])))
        }
        "plan.made" => (Tone::Plain, plan(data)),
        "model.turn" => (Tone::Quiet, turn(data)),
        "model.retried" => (Tone::Plain, format!("model asked again: {}", compact(data))),
        "tool.finished" => tool(data),
        "check.finished" => check(data),
        "workspace.ready" => (
            Tone::Plain,
            format!("workspace at {} for {}", short(&data["start"]), text(&data["branch"])),
        ),
        "change.inspected" => inspected(data),
        "commit.made" => (Tone::Plain, format!("commit {}", short(&data["sha"]))),
        "branch.pushed" => {
            (Tone::Plain, format!("pushed {} at {}", text(&data["branch"]), short(&data["sha"])))
        }
        "pr.opened" => {
            (Tone::Good, format!("pull request #{} from {}", data["pr"], text(&data["branch"])))
        }
        "review.submitted" => {
            let remarks = counted(data["findings"].as_u64().unwrap_or(0), "finding");
            (
                Tone::Plain,
                format!("review of #{}: {}, {remarks}", data["pr"], text(&data["verdict"])),
            )
        }
        "gate.decided" => gate(&data["decision"]),
        "change.merged" => {
            (Tone::Good, format!("merged #{} as {}", data["pr"], short(&data["merge_sha"])))
        }
        "review.refused" => (
            Tone::Bad,
            format!("approval of {} not accepted: {}", text(&data["by"]), text(&data["why"])),
        ),
        other => (Tone::Plain, format!("{} {}", clean(other), compact(data))),
    };
    Some(said)
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => clip(text, TEXT_MAX),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => compact(value),
    }
}

fn short(sha: &Value) -> String {
    clean(str_of(sha)).chars().take(10).collect()
}

fn compact(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(entries) => {
            let pairs = entries.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key}={text}"),
                other => format!("{key}={other}"),
            });
            clip(&pairs.collect::<Vec<_>>().join(" "), TEXT_MAX)
        }
        other => clip(&other.to_string(), TEXT_MAX),
    }
}

fn failure(data: &Value) -> String {
    let error = &data["error"];
    format!("{} ({})", text(&error["message"]), clean(str_of(&error["class"])))
}

fn node_failed(data: &Value) -> String {
    let attempt = &data["attempt"];
    if data["retry_at"].is_null() {
        format!("failed: {}", failure(data))
    } else {
        format!("attempt {attempt} failed, will be tried again: {}", failure(data))
    }
}

fn plan(data: &Value) -> String {
    let tasks: Vec<String> = data["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| text(if task.is_object() { &task["title"] } else { task }))
        .collect();
    match tasks.as_slice() {
        [] if data["ambiguous"] == true => "plan: the issue can be read in several ways".to_owned(),
        [] => "plan: nothing to do".to_owned(),
        tasks => format!("plan: {}", tasks.join("; ")),
    }
}

fn turn(data: &Value) -> String {
    let count = |key: &str| data["tokens"][key].as_u64().unwrap_or(0);
    let mut line = format!("turn {}", data["turn"]);
    if count("input") + count("output") > 0 {
        let (read, written) = (thousands(count("input")), thousands(count("output")));
        line = format!("{line}, {read} in, {written} out");
    }
    let usd = UsdMicros::from_dollars(data["usd"].as_f64().unwrap_or(0.0));
    if usd.0 > 0 {
        line = format!("{line}, {usd}");
    }
    let said = text(&data["text"]);
    // A structured answer is told by what follows from it.
    if said.is_empty() || said.starts_with('{') { line } else { format!("{line}: {said}") }
}

fn tool(data: &Value) -> (Tone, String) {
    let name = clip(str_of(&data["tool"]), 40);
    let summary = text(&data["summary"]);
    let call = match (summary.is_empty(), summary.starts_with(&name)) {
        (true, _) => name,
        (false, true) => summary,
        (false, false) => format!("{name} {summary}"),
    };
    let ms = millis(&data["ms"]);
    if data["is_error"] == true {
        (Tone::Plain, format!("{call}: refused or failed ({ms})"))
    } else {
        (Tone::Plain, format!("{call} ({ms})"))
    }
}

fn check(data: &Value) -> (Tone, String) {
    let outcome = &data["outcome"];
    let (tone, verdict) = match str_of(&outcome["is"]) {
        "passed" => (Tone::Good, "passed".to_owned()),
        "failed" => (Tone::Bad, "failed".to_owned()),
        "no_tests" => (Tone::Plain, "there are no tests".to_owned()),
        "skipped" => (Tone::Quiet, format!("skipped: {}", text(&outcome["why"]))),
        _ => (Tone::Bad, format!("could not be run: {}", text(&outcome["why"]))),
    };
    let mut line = format!("{}: {verdict}", text(&data["name"]));
    let counts = &data["counts"];
    if counts.is_object() {
        line = format!("{line}, {} of {} tests", counts["passed"], total(counts));
    }
    let findings = data["findings"].as_u64().unwrap_or(0);
    if findings > 0 {
        line = format!("{line}, {}", counted(findings, "finding"));
    }
    let failures: Vec<String> =
        data["failures"].as_array().into_iter().flatten().take(3).map(text).collect();
    if !failures.is_empty() {
        line = format!("{line}: {}", failures.join(", "));
    }
    (tone, format!("{line} ({})", millis(&data["ms"])))
}

fn total(counts: &Value) -> u64 {
    ["passed", "failed"].iter().filter_map(|key| counts[*key].as_u64()).sum()
}

fn inspected(data: &Value) -> (Tone, String) {
    let stat = text(&data["stat"]);
    let findings = data["findings"].as_array().map_or(0, Vec::len) as u64;
    match (str_of(&data["verdict"]), findings) {
        ("allowed", 0) => (Tone::Plain, format!("change: {stat}")),
        (verdict, findings) => {
            let findings = counted(findings, "finding");
            (Tone::Bad, format!("change: {stat}; {} by policy, {findings}", clean(verdict)))
        }
    }
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn gate(decision: &Value) -> (Tone, String) {
    if decision["decision"] == "merge" {
        return (Tone::Good, format!("gate: {} may be merged", short(&decision["sha"])));
    }
    let count = decision["reasons"].as_array().map_or(0, Vec::len);
    (
        Tone::Plain,
        format!("gate: not yet, {count} {}", if count == 1 { "reason" } else { "reasons" }),
    )
}

fn millis(ms: &Value) -> String {
    took(Duration::from_millis(ms.as_u64().unwrap_or(0)))
}

/// A duration in the unit that people would say.
#[must_use]
pub fn took(duration: Duration) -> String {
    let (secs, millis) = (duration.as_secs(), duration.subsec_millis());
    match secs {
        0 => format!("{millis} ms"),
        1..60 => format!("{secs}.{} s", millis / 100),
        _ => format!("{} min {} s", secs / 60, secs % 60),
    }
}

/// A count with a separator every three digits.
pub(super) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut parts: Vec<&str> =
        digits.as_bytes().rchunks(3).map(|part| std::str::from_utf8(part).unwrap_or("")).collect();
    parts.reverse();
    parts.join(",")
}

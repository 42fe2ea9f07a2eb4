//! `run`: one issue on a real repository, against a server that speaks the wire format.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use swarm_tools::model::testkit::{ScriptedServer, Step, WireRequest};
use tokio::sync::Notify;

use crate::bench::{Bench, PYTHON, RUST, finish, git, mend_python, server};

const ISSUE: &str = "# add() subtracts\n\nadd(2, 3) must be 5.\n";

async fn run_json(bench: &Bench, repository: &Path) -> crate::bench::Done {
    let repository = repository.to_str().expect("UTF-8");
    bench.run(&["run", "--repo", repository, "--issue", "issue.md", "--json"]).await
}

/// The developer who mends [`PYTHON`], but hangs in this turn until let go.
struct Held {
    reached: Arc<Notify>,
    holds: Arc<AtomicBool>,
}

impl Held {
    async fn server(turn: usize) -> (Self, ScriptedServer) {
        let held = Self { reached: Arc::default(), holds: Arc::new(AtomicBool::new(true)) };
        let (reached, holds, mend) = (held.reached.clone(), held.holds.clone(), mend_python());
        let server = server(move |request| {
            if request.turn() == turn && holds.load(Ordering::SeqCst) {
                reached.notify_one();
                Step::never()
            } else {
                mend(request)
            }
        });
        (held, server.await)
    }

    /// Returns once the developer hangs.
    async fn reached(&self) {
        let waited = tokio::time::timeout(Duration::from_secs(60), self.reached.notified());
        waited.await.expect("the developer gets there within a minute");
    }

    fn let_go(&self) {
        self.holds.store(false, Ordering::SeqCst);
    }
}

/// Turns by model name.
fn turns(server: &ScriptedServer, model: &str) -> usize {
    server.requests().iter().filter(|request| request.model() == model).count()
}

/// From the issue to the merge: the change is exactly the model's, `main` moves only after the
/// approval, and what is merged is what was approved.
async fn issue_to_merge(
    files: &[(&str, &str)],
    changed: &str,
    dev: impl Fn(&WireRequest) -> Step + Send + Sync + 'static,
) {
    let bench = Bench::new();
    let server = server(dev).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", files);
    let begin = git(&repository, &["rev-parse", "main"]);

    let waiting = run_json(&bench, &repository).await;
    let last = waiting.last();
    assert_eq!((waiting.code, &last["outcome"]), (3, &json!("waiting")), "{waiting:?}");
    assert_eq!(git(&repository, &["rev-parse", "main"]), begin, "main waits for the approval");
    let branch = last["branch"].as_str().expect("a branch").to_owned();
    assert_eq!(git(&repository, &["diff", "--name-only", "main", &branch]), changed);
    assert!(last["cost"]["tokens"].as_u64() > Some(0), "{last}");

    let run = last["run"].as_str().expect("a run").to_owned();
    let approved = bench.run(&["approve", &run]).await;
    assert_eq!(approved.code, 0, "{approved:?}");
    let asked = server.requests().len();
    let merged = run_json(&bench, &repository).await;
    let last = merged.last();
    assert_eq!((merged.code, &last["outcome"]), (0, &json!("merged")), "{merged:?}");
    assert_eq!(last["run"], json!(run), "the same command attaches to the same run");
    assert_eq!(server.requests().len(), asked, "an approval costs no model turn");
    assert_eq!(last["merge_sha"], json!(git(&repository, &["rev-parse", "main"])));
    assert_eq!(
        git(&repository, &["rev-parse", "main^{tree}"]),
        git(&repository, &["rev-parse", &format!("{branch}^{{tree}}")]),
        "what is merged is what was approved"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_of_a_python_repository_becomes_a_merge() {
    issue_to_merge(PYTHON, "sums.py", mend_python()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_of_a_rust_repository_becomes_a_merge() {
    let dev = crate::bench::one_edit("src/lib.rs", "a - b", "a + b", "cargo test --offline");
    issue_to_merge(RUST, "src/lib.rs", dev).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_of_a_javascript_repository_becomes_a_merge() {
    let files = [
        (
            "package.json",
            "{ \"name\": \"sums\", \"version\": \"1.0.0\", \"scripts\": { \"test\": \"node --test\" } }\n",
        ),
        ("sums.js", "exports.add = (a, b) => a - b;\n"),
        (
            "sums.test.js",
            "const test = require('node:test');\nconst assert = require('node:assert');\nconst { add } = require('./sums');\n\ntest('two and three are five', () => assert.strictEqual(add(2, 3), 5));\n",
        ),
    ];
    let dev = crate::bench::one_edit("sums.js", "a - b", "a + b", "node --test");
    issue_to_merge(&files, "sums.js", dev).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_added_to_a_graph_file_is_obeyed_by_the_same_program() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let shipped = swarm_host::defaults::GRAPHS.iter().find(|(name, _)| *name == "dev.yaml");
    let (_, dev) = shipped.expect("dev.yaml is shipped");
    let gated = dev.replace("    next: push\n", "    next: before_push\n").replace(
        "  push:\n",
        "  before_push:
    gate: { reason: decision, ask: \"May the branch be pushed?\", choices: [ push, stop ] }
    routes:
      - { when: \"${{ answer.choice == 'push' }}\", to: push }
      - { to: $end }

  push:
",
    );
    assert_ne!(gated, *dev, "the gate stands in the file");
    bench.write("data/graphs/dev.yaml", &gated);

    let asks = run_json(&bench, &repository).await;
    assert_eq!(asks.code, 3, "{asks:?}");
    assert_eq!(git(&repository, &["branch", "--list"]).lines().count(), 1, "nothing is pushed yet");
    let blocks = bench.run(&["blocks", "list", "--json"]).await.json();
    assert_eq!(blocks[0]["ask"]["question"], json!("May the branch be pushed?"), "{blocks}");
    let answered = bench.run(&["answer", "before_push", "--choice", "push"]).await;
    assert_eq!(answered.code, 0, "{answered:?}");
    let waiting = run_json(&bench, &repository).await;
    assert!(waiting.last()["pr"].as_u64().is_some(), "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_run_is_replayed_without_a_model() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let path = repository.to_str().expect("UTF-8").to_owned();
    let run = |data: &'static str, flag: &'static str| {
        let path = path.clone();
        let bench = &bench;
        async move {
            let arguments = ["run", "--repo", &path, "--issue", "issue.md", "--json"];
            bench.run(&[&arguments[..], &["--data-dir", data, flag, "turns.yaml"]].concat()).await
        }
    };
    let recorded = run("one", "--record").await;
    assert_eq!(recorded.code, 3, "{recorded:?}");
    let turns = server.requests().len();
    let branch = recorded.last()["branch"].as_str().expect("a branch").to_owned();
    let tree = git(&repository, &["rev-parse", &format!("{branch}^{{tree}}")]);
    git(&repository, &["branch", "-D", &branch]);

    let replayed = run("other", "--replay").await;
    assert_eq!(replayed.code, 3, "{replayed:?}");
    assert_eq!(server.requests().len(), turns, "nobody was asked");
    let branch = replayed.last()["branch"].as_str().expect("a branch").to_owned();
    assert_eq!(git(&repository, &["rev-parse", &format!("{branch}^{{tree}}")]), tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_write_permission_may_not_approve() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let waiting = run_json(&bench, &repository).await;
    let run = waiting.last()["run"].as_str().expect("a run").to_owned();
    let refused = bench.run(&["approve", &run, "--as", "stranger"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("`stranger` may not answer"), "{refused:?}");
    let still = bench.run(&["blocks", "list", "--json"]).await.json();
    assert_eq!(still[0]["status"], json!("open"), "{still}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_fails_and_keeps_its_branch() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let waiting = run_json(&bench, &repository).await;
    let run = waiting.last()["run"].as_str().expect("a run").to_owned();
    assert_eq!(bench.run(&["cancel", &run]).await.code, 0);
    // Nobody works on it, and still all of it has ended.
    let open = bench.run(&["blocks", "list", "--json"]).await.json();
    assert_eq!(open, json!([]));
    let runs = bench.run(&["runs", "list", "--all", "--json"]).await.json();
    let statuses = runs.as_array().expect("a list").iter().map(|run| &run["status"]);
    let left: Vec<_> = statuses.filter(|status| **status == json!("waiting")).collect();
    assert!(left.is_empty(), "{runs}");
    let cancelled = run_json(&bench, &repository).await;
    assert_eq!(
        (cancelled.code, &cancelled.last()["outcome"]),
        (1, &json!("cancelled")),
        "{cancelled:?}"
    );
    assert_eq!(git(&repository, &["branch", "--list"]).lines().count(), 2, "the branch is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_goes_on_in_the_middle_of_its_conversation() {
    let bench = Bench::new();
    let (held, server) = Held::server(2).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let path = repository.to_str().expect("UTF-8");
    let mut child = bench
        .command(&["run", "--repo", path, "--issue", "issue.md", "--json"])
        .spawn()
        .expect("it starts");
    held.reached().await;
    child.kill().await.expect("it is killed");
    held.let_go();

    let waiting = run_json(&bench, &repository).await;
    assert_eq!(waiting.code, 3, "{waiting:?}");
    // Four turns, and the one that was cut off once more.
    assert_eq!(
        (turns(&server, "manager"), turns(&server, "dev"), turns(&server, "reviewer")),
        (1, 5, 1)
    );
    assert_eq!(git(&repository, &["branch", "--list"]).lines().count(), 2, "main and one branch");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_data_directory_make_one_pull_request() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let (one, other) = tokio::join!(run_json(&bench, &repository), run_json(&bench, &repository));
    assert_eq!((one.code, other.code), (3, 3), "{one:?} {other:?}");
    assert_eq!(one.last()["pr"], other.last()["pr"]);
    assert_eq!(
        (turns(&server, "manager"), turns(&server, "dev"), turns(&server, "reviewer")),
        (1, 4, 1)
    );
    assert_eq!(git(&repository, &["branch", "--list"]).lines().count(), 2, "main and one branch");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_starts_another_run_of_the_same_issue() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let path = repository.to_str().expect("UTF-8");
    let submit = ["submit", "--repo", path, "--issue", "issue.md", "--json"];
    let first = bench.run(&submit).await.json();
    let again = bench.run(&submit).await.json();
    let other = bench.run(&[&submit[..], &["--new"]].concat()).await.json();
    assert_eq!(
        (&first["new"], &again["new"], &other["new"]),
        (&json!(true), &json!(false), &json!(true))
    );
    assert_eq!(first["run"], again["run"]);
    assert_ne!(first["run"], other["run"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_says_nothing_usable_ends_in_a_question_and_never_in_a_merge() {
    let bench = Bench::new();
    let server = server(|_| Step::text("I would rather talk about bees.")).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let waiting = run_json(&bench, &repository).await;
    assert_eq!(waiting.code, 3, "{waiting:?}");
    let reasons = waiting.last()["reasons"].to_string();
    assert!(reasons.contains("Model answers unusable"), "{reasons}");
    assert_eq!(git(&repository, &["branch", "--list"]).lines().count(), 1, "nothing was pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_asked_for_and_the_run_goes_on_once_it_is_there() {
    let bench = Bench::new();
    let mend = mend_python();
    let server = ScriptedServer::start(Box::new(move |request: &WireRequest| {
        if request.key() != Some("sk-right") {
            return Step::refuse(401, "invalid_api_key", "Incorrect API key provided");
        }
        match request.model() {
            "manager" => crate::bench::plan(),
            "reviewer" => crate::bench::review(),
            _ => mend(request),
        }
    }))
    .await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let waiting = run_json(&bench, &repository).await;
    assert_eq!(waiting.code, 3, "{waiting:?}");
    let blocks = bench.run(&["blocks", "list", "--json"]).await.json();
    assert_eq!(blocks[0]["ask"]["reason"], json!("missing_secret"), "{blocks}");
    let shown = bench.run(&["blocks", "show", blocks[0]["id"].as_str().expect("an id")]).await;
    assert!(shown.stdout.contains("🛑 Escalation: Missing secret"), "{shown:?}");
    assert!(!waiting.stdout.contains("sk-test"), "a key is never shown");

    let id = blocks[0]["id"].as_str().expect("an id");
    let answered = bench.run(&["answer", id, "--choice", "retry"]).await;
    assert_eq!(answered.code, 0, "{answered:?}");
    let path = repository.to_str().expect("UTF-8");
    let mut command = bench.command(&["run", "--repo", path, "--issue", "issue.md", "--json"]);
    let going_on =
        finish(command.env("OPENAI_API_KEY", "sk-right").spawn().expect("it starts")).await;
    assert_eq!(going_on.last()["outcome"], json!("waiting"), "{going_on:?}");
    assert!(
        going_on.last()["pr"].as_u64().is_some(),
        "it went on to the pull request: {going_on:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_over_its_budget_asks_and_goes_on_when_the_limit_is_raised() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    // Less than one turn may need.
    bench.ask_with(&server, "budget: { tokens: 10000 }\n");
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let waiting = run_json(&bench, &repository).await;
    assert_eq!(waiting.code, 3, "{waiting:?}");
    assert!(server.requests().is_empty(), "nothing was bought");
    let block = bench.run(&["blocks", "list", "--json"]).await.json()[0].clone();
    assert_eq!(block["ask"]["reason"], json!("budget"), "{block}");
    let id = block["id"].as_str().expect("an id");
    let lower =
        bench.run(&["answer", id, "--value", r#"{"choice":"raise","tokens":"many"}"#]).await;
    assert_eq!(lower.code, 2, "{lower:?}");
    let raise = r#"{"choice":"raise","tokens":1000000}"#;
    assert_eq!(bench.run(&["answer", id, "--value", raise]).await.code, 0);
    let going_on = run_json(&bench, &repository).await;
    assert!(going_on.last()["pr"].as_u64().is_some(), "{going_on:?}");
    assert!(going_on.last()["reasons"].to_string().contains("Approval needed"), "{going_on:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_lines_of_json_and_the_last_one_is_the_final_object() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let done = run_json(&bench, &repository).await;
    let lines: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, events) = lines.split_last().expect("there are lines");
    assert!(events.iter().all(|event| event["kind"].is_string()), "{events:?}");
    let keys: Vec<&String> = last.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["run", "outcome", "pr", "branch", "merge_sha", "cost", "reasons"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_leaves_the_run_and_the_same_command_goes_on() {
    let bench = Bench::new();
    let (held, server) = Held::server(1).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let path = repository.to_str().expect("UTF-8");
    let child =
        bench.command(&["run", "--repo", path, "--issue", "issue.md"]).spawn().expect("it starts");
    held.reached().await;
    signal(child.id(), "INT");
    let left = finish(child).await;
    assert_eq!(left.code, 130, "{left:?}");
    assert!(left.stdout.contains("Left. Nothing is lost."), "{left:?}");
    held.let_go();
    assert_eq!(run_json(&bench, &repository).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_works_on_what_is_submitted_and_drains_on_sigterm() {
    let bench = Bench::new();
    let server = server(mend_python()).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let path = repository.to_str().expect("UTF-8");
    let serving = bench.command(&["run"]).spawn().expect("it starts");
    let queued =
        bench.run(&["submit", "--repo", path, "--issue", "issue.md", "--json"]).await.json();
    let run = queued["run"].as_str().expect("a run").to_owned();
    // Follows until a person is needed.
    let followed = bench.run(&["runs", "events", &run, "--follow"]).await;
    assert_eq!(followed.code, 0, "{followed:?}");
    let shown = bench.run(&["runs", "show", &run, "--json"]).await.json();
    assert_eq!(shown["final"]["outcome"], json!("waiting"), "{shown}");
    signal(serving.id(), "TERM");
    let served = finish(serving).await;
    assert_eq!(served.code, 0, "{served:?}");
}

fn signal(pid: Option<u32>, name: &str) {
    let pid = pid.expect("it is running").to_string();
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
    assert!(status.expect("kill is installed").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_run_is_moved_to_another_version_only_when_that_is_asked_for() {
    let bench = Bench::new();
    let server = server(|_| Step::text("I would rather talk about bees.")).await;
    bench.ask(&server);
    bench.write("issue.md", ISSUE);
    let repository = bench.repository("app", PYTHON);
    let waiting = run_json(&bench, &repository).await;
    assert_eq!(waiting.code, 3, "{waiting:?}");
    let run = waiting.last()["run"].as_str().expect("an id").to_owned();
    for (path, text) in swarm_host::defaults::GRAPHS {
        bench.write(
            &format!("new-{path}").replace("new-policies", "policies"),
            &text.replace("unplanned", "no_plan"),
        );
    }
    let diff = bench.run(&["graph", "diff", "manager", "new-manager.yaml", "--live"]).await;
    assert_eq!(diff.code, 0, "{diff:?}");
    assert!(diff.stdout.contains("! node `unplanned` was renamed to `no_plan`"), "{diff:?}");
    let blocks = bench.run(&["blocks", "list", "--json"]).await.json();
    let block = blocks[0]["id"].as_str().expect("an id").to_owned();
    assert!(!block.starts_with(&format!("{run}.unplanned#")), "{block}");
    let rename = ["graph", "migrate", "new-manager.yaml", "--rename", "unplanned=no_plan"];
    let dry = bench.run(&rename).await;
    assert_eq!(dry.code, 0, "{dry:?}");
    let said = format!("{run}: can be moved\n\nNothing was changed; `--apply` moves them.\n");
    assert_eq!(dry.stdout, said);
    let moved = bench.run(&[&rename[..], &["--apply", "--json"]].concat()).await;
    assert_eq!(moved.json()[0]["outcome"], json!("moved"), "{moved:?}");
    let none = bench.run(&rename).await;
    assert_eq!(none.stdout, "No live run is on another version of `manager`.\n");
}

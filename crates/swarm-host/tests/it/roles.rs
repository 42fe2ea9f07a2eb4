//! The whole flow on a real repository: issue → plan → change → review → approval → merge.

use serde_json::{Value, json};
use swarm_core::escalation::{Block, Reason};
use swarm_core::gate;
use swarm_core::port::forge::{ForgeRead, ForgeWrite, PullState, Verdict};
use swarm_core::port::model::{ChatRequest, ErrorClass};
use swarm_core::run::RunStatus;

use crate::rig::{Rig, Said, Setup, call, finish, last, mend, no_findings, one_task};

/// Whose turn it is: the conversation up to the node, and the turn from 0.
fn place(request: &ChatRequest) -> (String, u32) {
    let node = request.conversation.split('/').next_back().unwrap_or_default();
    (format!("{} {node}", request.role), request.turn())
}

/// Plans, mends the sum, reviews without a finding.
fn good(request: &ChatRequest) -> Said {
    match (request.role.as_str(), request.turn()) {
        ("manager", _) => one_task(),
        ("dev", 0) => mend(),
        ("dev", _) => finish("Add instead of subtracting"),
        _ => no_findings(),
    }
}

fn asks(block: &Block, reason: Reason) {
    assert_eq!(block.ask.reason, reason, "{}", block.ask.question);
}

#[tokio::test]
async fn an_issue_becomes_a_merged_change_once_a_person_approves_it() {
    let rig = Rig::new(Setup::default(), good);
    let before = rig.repo.head("main");
    rig.run("The sum is wrong\n\n2 and 3 give -1.").await;

    let question = rig.question().await;
    asks(&question, Reason::Approval);
    assert_eq!(rig.repo.head("main"), before, "nothing is merged unseen");
    let context = &question.ask.context;
    let number = context["pr"].as_u64().unwrap();
    let pull = rig.pull(number).await;
    assert_eq!(context["head_sha"], json!(pull.head_sha));
    assert_eq!(context["diff"]["files"], 1);
    let checks: Vec<String> = context["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| format!("{} {}", check["name"], check["state"]))
        .collect();
    let mut sorted = checks;
    sorted.sort();
    insta::assert_snapshot!(sorted.join("\n"), @r#"
    "swarm/lint" "skipped"
    "swarm/review" "success"
    "swarm/tests" "success"
    "#);

    rig.answer(json!({ "choice": "approve" })).await;
    let output = rig.output().await;
    assert_eq!(output["outcome"], "merged", "{output:#}");
    assert_eq!(output["pr"], number);
    assert_eq!(output["merge_sha"], json!(rig.repo.head("main")));
    assert_eq!(rig.repo.show("main:sum.sh"), "echo $(( $1 + $2 ))");
    assert_eq!(rig.pull(number).await.state, PullState::Merged);
    let merge = rig.repo.git(&["rev-parse", "main^{tree}", &format!("{}^{{tree}}", pull.head_sha)]);
    let trees: Vec<&str> = merge.lines().collect();
    assert_eq!(trees[0], trees[1], "the merge has the approved tree");
    let issue = rig.forge.issue(&rig.id, output["issue"].as_u64().unwrap()).await.unwrap();
    assert!(!issue.is_open);

    let reviews = rig.forge.reviews(&rig.id, number).await.unwrap();
    let said: Vec<_> =
        reviews.iter().map(|r| (r.author.login.as_str(), r.verdict, &r.commit)).collect();
    assert_eq!(
        said,
        [
            ("devinswarm[bot]", Verdict::Comment, &pull.head_sha),
            ("ann", Verdict::Approve, &pull.head_sha)
        ]
    );
    for (turn, count) in rig.model.asked() {
        assert_eq!(count, 1, "{turn:?}");
    }

    let decisions = rig.events("gate.decided").await;
    let merge = decisions.last().unwrap();
    assert_eq!(merge.data["decision"]["decision"], "merge");
    // A stored decision can be made again from what is stored with it.
    let snapshot = serde_json::from_value(merge.data["snapshot"].clone()).unwrap();
    assert_eq!(json!(gate::decide(&snapshot)), merge.data["decision"]);
    let tools: Vec<Value> =
        rig.events("tool.finished").await.into_iter().map(|e| e.data["summary"].clone()).collect();
    assert_eq!(tools, ["write sum.sh"]);
}

#[tokio::test]
async fn a_work_tree_in_the_way_of_the_merge_is_a_question_and_nothing_is_lost() {
    let rig = Rig::new(Setup::default(), good);
    rig.run("The sum is wrong").await;
    let edited = rig.repo.path.join("sum.sh");
    std::fs::write(&edited, "# my own work\n").unwrap();
    rig.answer(json!({ "choice": "approve" })).await;
    let question = rig.question().await;
    asks(&question, Reason::Decision);
    assert_eq!(std::fs::read_to_string(&edited).unwrap(), "# my own work\n");
    rig.repo.git(&["checkout", "--quiet", "--", "sum.sh"]);
    rig.answer(json!({ "choice": "retry" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
}

#[tokio::test]
async fn the_commit_is_the_bots_and_names_issue_and_run() {
    let rig = Rig::new(Setup::default(), good);
    rig.run("The sum is wrong").await;
    let pull = rig.pull(rig.question().await.ask.context["pr"].as_u64().unwrap()).await;
    let shown = rig.repo.git(&["log", "-1", "--format=%an <%ae>%n%cn <%ce>%n%n%B", &pull.head]);
    insta::assert_snapshot!(shown, @r#"
    devinswarm[bot] <bot@devinswarm.invalid>
    devinswarm[bot] <bot@devinswarm.invalid>

    Add instead of subtracting

    Issue: #1
    Swarm-Run: r
    "#);
    assert_eq!(rig.repo.branches(), [pull.head.as_str(), "main"]);
    assert!(pull.body.contains("| tests before | failed |"), "{}", pull.body);
    assert!(pull.body.contains("| tests after | passed |"), "{}", pull.body);
}

#[tokio::test]
async fn claimed_success_over_failing_tests_becomes_a_question_after_two_retries() {
    let rig = Rig::new(Setup::default(), |request| match (request.role.as_str(), request.turn()) {
        ("manager", _) => one_task(),
        ("dev", 0) => call("write", json!({ "path": "note.txt", "content": "done\n" })),
        ("dev", _) => finish("All tests pass now, trust me"),
        _ => no_findings(),
    });
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    asks(&question, Reason::TestsFailing);
    let rounds: Vec<String> = rig
        .model
        .requests()
        .iter()
        .filter(|request| request.role == "dev" && request.turn() == 0)
        .map(|request| place(request).0)
        .collect();
    assert_eq!(rounds, ["dev implement#1", "dev implement#2", "dev implement#3"]);
    let told = last(&rig.model.requests().into_iter().rfind(|r| r.turn() == 0).unwrap());
    assert!(told.contains("sum is wrong"), "the output of the tests is shown: {told}");

    // The people who watch the issue read it in the template's words.
    let comments = || async { rig.forge.issue(&rig.id, 1).await.unwrap().comments };
    let escalation = comments().await.pop().unwrap().body;
    assert!(escalation.contains("Escalation: Tests keep failing"), "{escalation}");
    assert!(escalation.contains("Choose one of: retry, stop."), "{escalation}");
    assert!(escalation.contains(&format!("UNBLOCK #{}", question.id)), "{escalation}");

    rig.answer(json!({ "choice": "stop" })).await;
    let output = rig.output().await;
    assert_eq!(output["outcome"], "stopped");
    assert_eq!(output["pr"], 0);
    let said: Vec<String> = comments().await.into_iter().map(|comment| comment.body).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("Answered"), "{}", said[0]);
    assert_eq!(rig.repo.branches(), ["main"], "nothing was pushed");
}

#[tokio::test]
async fn a_persons_advice_reaches_the_developer_who_tries_again() {
    let rig = Rig::new(Setup::default(), |request| match (request.role.as_str(), request.turn()) {
        ("manager", _) => one_task(),
        ("dev", 0) if last(request).contains("use a plus") => mend(),
        ("dev", 0) => call("write", json!({ "path": "note.txt", "content": "?\n" })),
        ("dev", _) => finish("Try"),
        _ => no_findings(),
    });
    rig.run("The sum is wrong").await;
    rig.answer(json!({ "choice": "retry", "comment": "use a plus" })).await;
    asks(&rig.question().await, Reason::Approval);
}

#[tokio::test]
async fn an_ambiguous_issue_is_asked_about_and_the_answer_reaches_the_plan() {
    let rig = Rig::new(Setup::default(), |request| {
        if request.role == "manager" && !last(request).contains("add them") {
            return Said::Text(
                json!({ "summary": "?", "ambiguous": true, "questions": ["Add or subtract?"], "tasks": [] })
                    .to_string(),
            );
        }
        good(request)
    });
    rig.run("Do something with the sum").await;
    let question = rig.question().await;
    asks(&question, Reason::AmbiguousSpec);
    assert!(question.ask.question.contains("Add or subtract?"), "{}", question.ask.question);
    rig.answer(json!({ "comment": "add them" })).await;
    asks(&rig.question().await, Reason::Approval);
}

#[tokio::test]
async fn a_change_of_a_protected_file_is_asked_about_before_anything_is_pushed() {
    let rig = Rig::new(Setup::default(), |request| match (request.role.as_str(), request.turn()) {
        ("dev", 0) => Said::Calls(vec![
            ("write", json!({ "path": "sum.sh", "content": "echo $(( $1 + $2 ))\n" })),
            ("write", json!({ "path": ".github/workflows/ci.yml", "content": "on: push\n" })),
        ]),
        _ => good(request),
    });
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    asks(&question, Reason::DestructiveChange);
    assert_eq!(rig.repo.branches(), ["main"]);
    rig.answer(json!({ "choice": "allow" })).await;
    asks(&rig.question().await, Reason::Approval);
}

#[tokio::test]
async fn no_change_at_all_is_a_question_and_no_pull_request() {
    let files: &[(&str, &str)] = &[("test.sh", "true\n")];
    let setup = Setup { files, ..Setup::default() };
    let rig = Rig::new(setup, |request| match request.role.as_str() {
        "dev" => finish("Nothing to do"),
        _ => good(request),
    });
    rig.run("Do nothing").await;
    asks(&rig.question().await, Reason::Decision);
    assert_eq!(rig.repo.branches(), ["main"]);
}

#[tokio::test]
async fn a_blocking_finding_goes_back_to_the_developer_on_the_same_pull_request() {
    let rig = Rig::new(Setup::default(), |request| {
        let second = request.conversation.contains("/t1/1/");
        match (request.role.as_str(), request.turn()) {
            ("dev", 0) if second => {
                assert!(last(request).contains("Say what it does"), "{}", last(request));
                call(
                    "write",
                    json!({ "path": "sum.sh", "content": "# Adds.\necho $(( $1 + $2 ))\n" }),
                )
            }
            ("dev", _) if second => finish("Say what it does"),
            ("reviewer", _) if request.conversation.contains("/t1/1/") => {
                let finding = json!({
                    "path": "sum.sh", "line": 1, "weight": "blocking", "text": "Say what it does.",
                });
                Said::Text(json!({ "summary": "Nearly.", "findings": [finding] }).to_string())
            }
            _ => good(request),
        }
    });
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    asks(&question, Reason::Approval);
    let number = question.ask.context["pr"].as_u64().unwrap();
    let pull = rig.pull(number).await;
    assert_eq!(rig.repo.show(&format!("{}:sum.sh", pull.head)), "# Adds.\necho $(( $1 + $2 ))");
    let count = rig.repo.git(&["rev-list", "--count", &format!("main..{}", pull.head)]);
    assert_eq!(count, "2", "a new commit on top, nothing rewritten");
    assert_eq!(rig.repo.branches().len(), 2, "one branch");
    let verdicts: Vec<Verdict> =
        rig.forge.reviews(&rig.id, number).await.unwrap().iter().map(|r| r.verdict).collect();
    assert_eq!(verdicts, [Verdict::RequestChanges, Verdict::Comment]);
    rig.answer(json!({ "choice": "approve" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
}

#[tokio::test]
async fn a_person_who_requests_changes_gets_a_new_head_and_is_asked_again() {
    let rig = Rig::new(Setup::default(), |request| match (request.role.as_str(), request.turn()) {
        ("dev", 0) if last(request).contains("no spaces") => {
            call("write", json!({ "path": "sum.sh", "content": "echo $(($1+$2))\n" }))
        }
        _ => good(request),
    });
    rig.run("The sum is wrong").await;
    let first = rig.question().await.ask.context["head_sha"].clone();
    rig.answer(json!({ "choice": "request_changes", "comment": "no spaces, please" })).await;
    let question = rig.question().await;
    asks(&question, Reason::Approval);
    assert_ne!(question.ask.context["head_sha"], first);
    rig.answer(json!({ "choice": "approve" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
    assert_eq!(rig.repo.show("main:sum.sh"), "echo $(($1+$2))");
}

#[tokio::test]
async fn whoever_may_not_approve_has_not_approved() {
    for login in ["bob", "mallory", "devinswarm[bot]"] {
        let rig = Rig::new(Setup::default(), good);
        let before = rig.repo.head("main");
        rig.run("The sum is wrong").await;
        let first = rig.question().await.id;
        rig.answer_as(login, "write", json!({ "choice": "approve" })).await;
        let again = rig.question().await;
        asks(&again, Reason::Approval);
        assert_ne!(again.id, first, "{login} is asked again");
        assert_eq!(rig.repo.head("main"), before, "{login}");
    }
}

#[tokio::test]
async fn a_new_commit_on_the_branch_voids_the_approval() {
    let rig = Rig::new(Setup::default(), good);
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    let number = question.ask.context["pr"].as_u64().unwrap();
    let pull = rig.pull(number).await;
    // Someone pushes to our branch while the question is open.
    rig.repo.git(&["switch", "--quiet", &pull.head]);
    rig.repo.commit_as("Eve", &[("extra.txt", "unseen\n")], "Sneak in");
    rig.repo.git(&["switch", "--quiet", "main"]);
    let before = rig.repo.head("main");
    rig.answer(json!({ "choice": "approve" })).await;

    let again = rig.question().await;
    asks(&again, Reason::Approval);
    assert_eq!(rig.repo.head("main"), before);
    assert_eq!(again.ask.context["head_sha"], json!(rig.repo.head(&pull.head)));
    rig.answer(json!({ "choice": "approve" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
}

#[tokio::test]
async fn an_approval_given_on_the_forge_counts_when_the_question_is_answered() {
    let rig = Rig::new(Setup::default(), good);
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    let number = question.ask.context["pr"].as_u64().unwrap();
    let review = swarm_core::port::forge::NewReview {
        author: swarm_core::port::forge::Actor { login: "ann".to_owned(), is_bot: false },
        verdict: Verdict::Approve,
        commit: rig.pull(number).await.head_sha,
        body: String::new(),
        comments: Vec::new(),
        key: "by hand".to_owned(),
    };
    rig.forge.submit_review(&rig.id, number, review).await.unwrap();
    rig.answer(json!({ "choice": "approve" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
    let by_ann = rig
        .forge
        .reviews(&rig.id, number)
        .await
        .unwrap()
        .iter()
        .filter(|r| r.author.login == "ann")
        .count();
    assert_eq!(by_ann, 1, "said once");
}

#[tokio::test]
async fn a_base_that_moved_is_taken_in_tested_and_asked_about_anew() {
    let rig = Rig::new(Setup::default(), good);
    rig.run("The sum is wrong").await;
    let first = rig.question().await;
    rig.repo.commit(&[("README.md", "# The sum\n")], "Rename");
    rig.answer(json!({ "choice": "approve" })).await;

    let again = rig.question().await;
    asks(&again, Reason::Approval);
    assert_ne!(again.ask.context["head_sha"], first.ask.context["head_sha"]);
    rig.answer(json!({ "choice": "approve" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
    assert_eq!(rig.repo.show("main:README.md"), "# The sum");
    assert_eq!(rig.repo.show("main:sum.sh"), "echo $(( $1 + $2 ))");
    let rounds = rig.model.requests().iter().filter(|r| r.role == "dev" && r.turn() == 0).count();
    assert_eq!(rounds, 1, "no model is needed to take in what does not conflict");
}

#[tokio::test]
async fn a_conflict_with_the_base_is_resolved_by_the_developer_and_marks_are_refused() {
    let resolve =
        call("write", json!({ "path": "sum.sh", "content": "# Sums.\necho $(( $1 + $2 ))\n" }));
    let rig = Rig::new(Setup::default(), move |request| {
        let conflict = request.conversation.contains("/t1/1/");
        match (request.role.as_str(), request.turn()) {
            ("dev", 0) if conflict && last(request).contains("conflict mark was left") => {
                resolve.clone()
            }
            // The first attempt leaves the marks where no test sees them.
            ("dev", 0) if conflict => {
                assert!(last(request).contains("- sum.sh"), "{}", last(request));
                call(
                    "write",
                    json!({
                        "path": "sum.sh",
                        "content": "echo $(( $1 + $2 )); exit\n<<<<<<< ours\n=======\n>>>>>>> base\n",
                    }),
                )
            }
            _ => good(request),
        }
    });
    rig.run("The sum is wrong").await;
    rig.repo.commit(&[("sum.sh", "# Sums.\necho $(( $1 - $2 ))\n")], "Explain");
    rig.answer(json!({ "choice": "approve" })).await;
    asks(&rig.question().await, Reason::Approval);
    rig.answer(json!({ "choice": "approve" })).await;
    assert_eq!(rig.output().await["outcome"], "merged");
    assert_eq!(rig.repo.show("main:sum.sh"), "# Sums.\necho $(( $1 + $2 ))");
}

#[tokio::test]
async fn without_tests_the_pull_request_says_so_and_the_gate_stays_shut() {
    const FILES: &[(&str, &str)] = &[("sum.sh", "echo $(( $1 - $2 ))\n")];
    let setup = Setup { files: FILES, tests: None, ..Setup::default() };
    let rig = Rig::new(setup, good);
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    asks(&question, Reason::Decision);
    let pull = rig.pull(question.ask.context["pr"].as_u64().unwrap()).await;
    assert!(pull.body.contains("**Nothing was tested:**"), "{}", pull.body);
    rig.answer(json!({ "choice": "stop" })).await;
    assert_eq!(rig.output().await["outcome"], "stopped");
}

#[tokio::test]
async fn two_tasks_become_two_pull_requests_and_one_report() {
    let rig = Rig::new(Setup { base: gate::BaseRule::MayMove, ..Setup::default() }, |request| {
        let second = request.conversation.contains("/t2/");
        match (request.role.as_str(), request.turn()) {
            ("manager", _) => {
                let task = |id: &str| json!({ "id": id, "title": format!("Do {id}"), "goal": "g" });
                Said::Text(
                    json!({ "summary": "s", "ambiguous": false, "tasks": [task("t1"), task("t2")] })
                        .to_string(),
                )
            }
            ("dev", 0) if second => Said::Calls(vec![
                ("write", json!({ "path": "sum.sh", "content": "echo $(( $1 + $2 ))\n" })),
                ("write", json!({ "path": "second.txt", "content": "2\n" })),
            ]),
            _ => good(request),
        }
    });
    rig.run("Two things").await;
    for _ in 0..2 {
        let open =
            rig.store.blocks(None, Some(swarm_core::escalation::BlockStatus::Open)).await.unwrap();
        let by = swarm_core::escalation::Answerer {
            login: "ann".to_owned(),
            via: "cli".to_owned(),
            permission: "admin".to_owned(),
        };
        rig.engine.answer(&open[0].id, json!({ "choice": "approve" }), by).await.unwrap();
        rig.work().await;
    }
    let output = rig.output().await;
    assert_eq!(output["outcome"], "merged", "{output:#}\n{}", rig.troubles().await);
    assert_eq!(output["tasks"].as_array().map(Vec::len), Some(2));
    assert_eq!(output["pr"], Value::from(0), "two are not one");
    assert_eq!(rig.record().await.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_worker_that_breaks_off_is_a_question_and_its_part_is_begun_again() {
    let rig = Rig::new(Setup::default(), |request| match request.role.as_str() {
        // Fatal at once: nothing of it mends itself.
        "reviewer" if request.conversation.ends_with("review#1") => {
            Said::Fails(ErrorClass::ContextLength)
        }
        _ => good(request),
    });
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    asks(&question, Reason::ModelUnusable);
    assert!(
        question.ask.question.contains("context_length")
            || question.ask.question.contains("as the test wants"),
        "{}",
        question.ask.question
    );
    rig.answer(json!({ "choice": "retry" })).await;
    asks(&rig.question().await, Reason::Approval);
}

#[tokio::test]
async fn a_repository_that_is_gone_for_a_while_is_a_question_and_no_failed_task() {
    let rig = Rig::new(Setup::default(), |request| match (request.role.as_str(), request.turn()) {
        ("dev", 1) => {
            // Gone just before the push.
            let gone = std::path::PathBuf::from(GONE.lock().unwrap().clone());
            if gone.exists() {
                std::fs::rename(&gone, gone.with_extension("away")).unwrap();
            }
            finish("Add")
        }
        _ => good(request),
    });
    *GONE.lock().unwrap() = rig.repo.path.display().to_string();
    rig.run("The sum is wrong").await;
    let question = rig.question().await;
    asks(&question, Reason::Decision);
    std::fs::rename(rig.repo.path.with_extension("away"), &rig.repo.path).unwrap();
    *GONE.lock().unwrap() = String::new();
    rig.answer(json!({ "choice": "retry" })).await;
    asks(&rig.question().await, Reason::Approval);
}

/// The repository that one test takes away.
static GONE: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

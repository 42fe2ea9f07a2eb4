//! The command line: what it says of itself, and how it refuses what cannot be meant.

use serde_json::json;

use crate::bench::{Bench, PYTHON};

async fn refused(bench: &Bench, arguments: &[&str]) -> String {
    let done = bench.run(arguments).await;
    assert_eq!(done.code, 2, "{done:?}");
    assert_eq!(done.stdout, "", "{done:?}");
    done.stderr.replace(bench.path().to_str().expect("UTF-8"), "DIR").trim().to_owned()
}

#[tokio::test]
async fn help_names_every_command_and_exit_code() {
    let help = Bench::new().run(&["--help"]).await;
    insta::assert_snapshot!(help.stdout.trim(), @r"
Turns issues into reviewed, human-approved, merged changes

Usage: swarm-host [OPTIONS] <COMMAND>

Commands:
  demo         Watch an issue of a small repository become a merged change, without any account
  run          Work on one issue and follow it live, or serve queued runs until SIGTERM
  submit       Queue an issue and return at once
  start        Queue a run of any graph and return at once
  runs         Look at runs
  blocks       Look at questions to people
  answer       Answer a question
  approve      Approve a change, bound to the commit that was shown
  cancel       Stop a run and its children; what it made is kept
  graph        Check and show graphs
  db           Look after the store: its schema, and moving it
  config       Check and show the configuration
  doctor       Say what is there and what is missing
  completions  Write a completion script for a shell
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help
  -V, --version  Print version

Everywhere:
      --config <FILE>   The configuration file; else ./swarm.yaml, else swarm.yaml in the data
                        directory
      --data-dir <DIR>  Where everything is kept [default: $XDG_STATE_HOME/devinswarm or
                        ~/.local/state/devinswarm]
      --json            Write JSON for programs

Exit codes:
  0  merged, or done
  1  failed, stopped or cancelled
  2  wrong usage or configuration
  3  waiting for a person
");
}

#[tokio::test]
async fn the_help_of_run_documents_the_final_object_and_the_environment() {
    let help = Bench::new().run(&["run", "--help"]).await;
    insta::assert_snapshot!(help.stdout.trim(), @r#"
Work on one issue and follow it live, or serve queued runs until SIGTERM

Usage: swarm-host run [OPTIONS]

Options:
      --repo <PATH>
          A git repository on this machine

      --issue <FILE|TEXT>
          A file with the issue, or its text; `-` reads standard input

      --new
          Start a new run even if there is one for this repository and issue

      --model <PROVIDER:NAME>
          The model of every role, such as openai:NAME or anthropic:NAME

      --record <FILE>
          Write every model turn to this file, to be replayed later

      --replay <FILE>
          Answer from a recording instead of a model

      --slots <N>
          How many runs to work on at once [default: worker.slots of the configuration]

  -h, --help
          Print help (see a summary with '-h')

Everywhere:
      --config <FILE>
          The configuration file; else ./swarm.yaml, else swarm.yaml in the data directory

      --data-dir <DIR>
          Where everything is kept [default: $XDG_STATE_HOME/devinswarm or
          ~/.local/state/devinswarm]

      --json
          Write JSON for programs

With --repo and --issue one issue is worked on and followed live, then the program exits; the same
command again attaches to the same run, live or finished, instead of starting a second one. Without
them the program works on queued runs until SIGTERM. SIGINT leaves the run, which then goes on with
the same command.

With --json each event is one line of JSON, and the last line is
  {"run", "outcome", "pr", "branch", "merge_sha", "cost", "reasons"}
where outcome is merged, done, waiting, running, stopped, failed or cancelled; cost is
{"usd", "tokens"}; pr, branch and merge_sha are null until there is one; reasons says why it waits,
was stopped or failed.

Environment (over swarm.yaml; flags are over both):
  OPENAI_API_KEY, OPENAI_BASE_URL        key and address for `openai:NAME` models; the address may
                                         be any server that speaks the same format
  ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL  the same for `anthropic:NAME` models
  SWARM_MODEL                            PROVIDER:NAME, as --model
  SWARM_DATA_DIR, SWARM_CONFIG           as --data-dir, --config
  DATABASE_URL                           keep runs in PostgreSQL, such as postgres://user@host/name
  RUST_LOG                               what is logged, such as `swarm_host=debug`
  NO_COLOR                               any value: no colours

Exit codes:
  0  merged, or done
  1  failed, stopped or cancelled
  2  wrong usage or configuration
  3  waiting for a person
  130  left by SIGINT
"#);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_every_defect() {
    let bench = Bench::new();
    bench.write("swarm.yaml", "worker: { slot: 1 }\nbudget: { usd: many }\n");
    insta::assert_snapshot!(refused(&bench, &["config", "check"]).await, @r#"
error: DIR/swarm.yaml has 2 defects

worker.slot: unknown key `slot`
 --> DIR/swarm.yaml:1:11
  |
1 | worker: { slot: 1 }
  |           ^^^^
  = help: perhaps `slots`; known: grace, lease, poll, slots

budget.usd: "many", where a number is wanted
 --> DIR/swarm.yaml:2:16
  |
2 | budget: { usd: many }
  |                ^^^^
"#);
}

#[tokio::test]
async fn the_configuration_s_schema_is_one_that_validates_it() {
    let schema = Bench::new().run(&["config", "schema"]).await.json();
    assert_eq!(schema["title"], json!("swarm.yaml"));
    assert_eq!(schema["additionalProperties"], json!(false));
}

#[tokio::test]
async fn an_unknown_run_is_refused_with_what_there_is() {
    let error = refused(&Bench::new(), &["runs", "show", "nothing"]).await;
    insta::assert_snapshot!(error, @"error: no run begins with `nothing`; there are no runs yet");
}

#[tokio::test]
async fn an_unknown_question_is_refused_with_what_there_is() {
    let error = refused(&Bench::new(), &["answer", "nothing", "--choice", "x"]).await;
    insta::assert_snapshot!(error, @"error: no question's id contains `nothing`; no question is open");
}

#[tokio::test]
async fn a_folder_that_is_no_repository_is_refused() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path().join("folder")).expect("writable");
    let error =
        refused(&bench, &["run", "--repo", "folder", "--issue", "Mend it", "--model", "openai:x"])
            .await;
    insta::assert_snapshot!(error, @"error: DIR/folder is not a git repository; name its top directory, or make it one with `git init`");
}

#[tokio::test]
async fn an_issue_file_that_is_not_there_is_not_taken_for_its_text() {
    let bench = Bench::new();
    bench.repository("app", PYTHON);
    let error =
        refused(&bench, &["run", "--repo", "app.git", "--issue", "isue.md", "--model", "openai:x"])
            .await;
    insta::assert_snapshot!(error, @"error: there is no issue file DIR/isue.md");
}

#[tokio::test]
async fn a_repository_that_is_not_listed_is_refused() {
    let bench = Bench::new();
    bench.repository("app", PYTHON);
    bench.write("swarm.yaml", "repositories: []\n");
    let error =
        refused(&bench, &["run", "--repo", "app.git", "--issue", "Mend it", "--model", "openai:x"])
            .await;
    insta::assert_snapshot!(error, @"error: DIR/app.git may not be worked on: `repositories` in swarm.yaml does not list it");
}

#[tokio::test]
async fn a_run_without_a_model_says_how_to_name_one() {
    let bench = Bench::new();
    bench.repository("app", PYTHON);
    let error = refused(&bench, &["run", "--repo", "app.git", "--issue", "Mend it"]).await;
    insta::assert_snapshot!(error, @"error: no model is configured for role `manager`; name one with --model PROVIDER:NAME (such as openai:NAME with OPENAI_API_KEY, and OPENAI_BASE_URL for any other server that speaks its format; or anthropic:NAME with ANTHROPIC_API_KEY), or as models.default in swarm.yaml");
}

#[tokio::test]
async fn an_empty_data_directory_has_no_runs_and_no_questions() {
    let bench = Bench::new();
    let (runs, blocks) = (bench.run(&["runs", "list"]).await, bench.run(&["blocks", "list"]).await);
    assert_eq!((runs.code, runs.stdout.as_str()), (0, "There are no such runs.\n"));
    assert_eq!((blocks.code, blocks.stdout.as_str()), (0, "No question is open.\n"));
    assert_eq!(bench.run(&["runs", "list", "--json"]).await.json(), json!([]));
}

#[tokio::test]
async fn the_shipped_graphs_are_right_and_each_can_be_drawn() {
    let bench = Bench::new();
    let checked = bench.run(&["graph", "check", "--json"]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let graphs = checked.json();
    let names: Vec<&str> =
        graphs.as_array().expect("a list").iter().filter_map(|one| one["graph"].as_str()).collect();
    assert_eq!(names, ["deliver", "dev", "manager", "ops", "reviewer"]);
    for name in names {
        let drawn = bench.run(&["graph", "show", name]).await;
        assert!(drawn.code == 0 && !drawn.stdout.trim().is_empty(), "{name}: {drawn:?}");
    }
}

#[tokio::test]
async fn a_wrong_graph_fails_the_check_with_line_and_column() {
    let bench = Bench::new();
    bench.write(
        "wrong.yaml",
        "dsl: 1\ngraph: { name: wrong, version: 1.0.0 }\nentry: no\nnodes: {}\n",
    );
    let checked = bench.run(&["graph", "check", "wrong.yaml"]).await;
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.stdout.contains("wrong.yaml:3:8"), "{checked:?}");
}

#[tokio::test]
async fn the_doctor_says_what_is_missing_in_the_words_of_an_escalation() {
    let bench = Bench::new();
    let mut command = bench.command(&["doctor", "--model", "openai:x"]);
    command.env_remove("OPENAI_API_KEY");
    let done = crate::bench::finish(command.spawn().expect("it starts")).await;
    assert_eq!(done.code, 1, "{done:?}");
    let (_, escalation) = done.stdout.split_once("\n\n").expect("findings and an escalation");
    insta::assert_snapshot!(escalation.trim(), @r"
> **🛑 Escalation: Missing secret**
> **What I need from you:**
> 1) Secret `OPENAI_API_KEY` → Where to create it: https://platform.openai.com/api-keys, **exact scopes**: model requests (chat), and where to paste it: variable OPENAI_API_KEY, or another place that models.default.key_env or key_file in swarm.yaml names.
> Then run `swarm-host doctor` again.
");
}

#[tokio::test]
async fn the_doctor_never_prints_a_key() {
    let bench = Bench::new();
    let mut command = bench.command(&["doctor", "--model", "openai:x", "--json"]);
    command.env("OPENAI_API_KEY", "sk-verysecret");
    let done = crate::bench::finish(command.spawn().expect("it starts")).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!format!("{done:?}").contains("verysecret"));
}

#[tokio::test]
async fn completions_are_written_for_a_shell() {
    let done = Bench::new().run(&["completions", "bash"]).await;
    assert!(done.code == 0 && done.stdout.contains("complete -F _swarm__host"), "{done:?}");
}

#[tokio::test]
async fn a_history_is_listed_forked_copied_deleted_and_pruned() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.data()).expect("writable");
    let made = concat!(env!("CARGO_MANIFEST_DIR"), "/../swarm-graph/tests/fixtures/schema-1.db");
    std::fs::copy(made, bench.data().join("swarm.sqlite3")).expect("the fixture is there");
    let listed = bench.run(&["runs", "checkpoints", "half", "--json"]).await.json();
    let last = &listed[0];
    assert_eq!(last["active"][0]["step"], json!("ask#1"));
    assert_eq!(last["active"][0]["doing"], json!("answer"));
    let seq = last["seq"].to_string();
    let text = bench.run(&["runs", "checkpoints", "half", "--ended", "deed"]).await;
    assert!(text.stdout.contains("log"), "{text:?}");

    let forked = bench.run(&["runs", "fork", "half", "--at", &seq, "--json"]).await.json();
    assert_eq!(forked["run"], json!(format!("half@{seq}")));
    assert_eq!(forked["new"], json!(true));
    let error = refused(&bench, &["runs", "edit", "half", "--at", &seq, "--set", "n"]).await;
    insta::assert_snapshot!(error, @"error: --set wants CHANNEL=JSON, found `n`");
    let copied = bench.run(&["runs", "copy", "half", "kept", "--json"]).await.json();
    assert_eq!(copied["copied_from"], json!("half"));

    let error = refused(&bench, &["runs", "delete", "up"]).await;
    insta::assert_snapshot!(error, @"error: run `up` is waiting: cancel it first, or add --force");
    let error = refused(&bench, &["runs", "delete", "don"]).await;
    insta::assert_snapshot!(error, @"error: deleting cannot be undone, so it wants the whole id: `done`");
    let deleted = bench.run(&["runs", "delete", "up", "--force", "--json"]).await.json();
    assert_eq!(deleted["deleted"], json!(2), "with the run below it");

    // What the fixture holds is of 2027, and so not old; nothing is kept of ended runs.
    bench.write("swarm.yaml", "retention: { ended: { last: 1 } }\n");
    let pruned = bench.run(&["runs", "prune", "--json"]).await.json();
    assert_ne!(pruned["checkpoints"], json!(0));
    let kept = bench.run(&["runs", "checkpoints", "kept", "--json"]).await.json();
    assert_eq!(kept.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn start_refuses_what_the_graph_does_not_take() {
    let bench = Bench::new();
    bench.write(
        "graphs/nap.yaml",
        "dsl: 1
graph: { name: nap, version: 1.0.0 }
input: { schema: { type: object, properties: { depth: { type: integer } }, required: [depth] } }
entry: nap
nodes: { nap: { wait: { timeout: 1ms }, next: $end } }
",
    );
    bench.write("swarm.yaml", "graphs: graphs\n");
    let mut said = String::new();
    for given in [
        &["start", "nop"][..],
        &["start", "nap", "--input", "{ depth"],
        &["start", "nap", "--input", "@missing.json"],
        &["start", "nap"],
        &["start", "nap", "--input", "{\"depth\":1}", "--label", "team"],
        &["start", "nap", "--input", "{\"depth\":1}", "--id", "a.b"],
    ] {
        said.push_str(&refused(&bench, given).await);
        said.push('\n');
    }
    insta::assert_snapshot!(said, @r#"
error: no graph named `nop`; known: deliver, dev, manager, nap, ops, reviewer
error: the input is no JSON: key must be a string at line 1 column 3
error: cannot read `missing.json`: No such file or directory (os error 2)
error: the input of graph `nap`: "depth" is a required property
error: `team` is no label; write NAME=VALUE
error: `a.b` has a dot: dots lead to child runs
"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_graph_is_started_once_for_an_input() {
    let bench = Bench::new();
    bench.write(
        "graphs/nap.yaml",
        "dsl: 1
graph: { name: nap, version: 1.0.0 }
entry: nap
nodes: { nap: { wait: { timeout: 1ms }, next: $end } }
",
    );
    bench.write("swarm.yaml", "graphs: graphs\n");
    bench.write("input.json", "{ \"depth\": 2 }");
    let start = ["start", "nap", "--input", "@input.json", "--label", "team=web", "--json"];
    let first = bench.run(&start).await.json();
    let again = bench.run(&start).await.json();
    assert_eq!((&first["new"], &again["new"]), (&json!(true), &json!(false)));
    assert_eq!(first["run"], again["run"]);
    let other = bench.run(&[&start[..], &["--new"]].concat()).await.json();
    assert_eq!(other["run"], json!(format!("{}-2", first["run"].as_str().expect("an id"))));
    let queued = bench.run(&["runs", "list", "--json"]).await.json();
    assert_eq!(queued.as_array().expect("a list").len(), 2, "{queued}");
}

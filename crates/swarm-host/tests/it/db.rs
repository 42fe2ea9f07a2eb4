//! `db`, and the whole program on PostgreSQL: a swarm moves from one store to another in the middle
//! of an issue.

use serde_json::json;
use swarm_graph::testkit::postgres::Server;

use crate::bench::{Bench, Done, PYTHON, finish, git, mend_python, server};

async fn on(bench: &Bench, url: &str, arguments: &[&str]) -> Done {
    finish(bench.command(arguments).env("DATABASE_URL", url).spawn().expect("it starts")).await
}

fn shared() -> Server {
    Server::shared().unwrap_or_else(|missing| panic!("{missing}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_waits_moves_to_postgres_and_is_merged_there() {
    let postgres = shared();
    let url = postgres.database().await.expect("a database");
    let bench = Bench::new();
    let model = server(mend_python()).await;
    bench.ask(&model);
    bench.write("issue.md", "# add() subtracts\n\nadd(2, 3) must be 5.\n");
    let repository = bench.repository("app", PYTHON);
    let run =
        ["run", "--repo", repository.to_str().expect("UTF-8"), "--issue", "issue.md", "--json"];
    let waiting = bench.run(&run).await;
    let last = waiting.last();
    assert_eq!((waiting.code, &last["outcome"]), (3, &json!("waiting")), "{waiting:?}");
    let asked = model.requests().len();

    let dumped = bench.run(&["db", "export", "swarm.jsonl"]).await;
    assert_eq!(dumped.code, 0, "{dumped:?}");
    let filled = on(&bench, &url, &["db", "import", "swarm.jsonl", "--json"]).await;
    assert_eq!(filled.code, 0, "{filled:?}");
    assert!(filled.json()["rows"].as_u64() > Some(50), "{filled:?}");
    let (here, there) = (["runs", "list", "--all", "--json"], ["runs", "list", "--all", "--json"]);
    assert_eq!(bench.run(&here).await.json(), on(&bench, &url, &there).await.json());

    let id = last["run"].as_str().expect("a run");
    let approved = on(&bench, &url, &["approve", id]).await;
    assert_eq!(approved.code, 0, "{approved:?}");
    let merged = on(&bench, &url, &run).await;
    let done = merged.last();
    assert_eq!((merged.code, &done["outcome"]), (0, &json!("merged")), "{merged:?}");
    assert_eq!((&done["run"], &done["branch"]), (&last["run"], &last["branch"]));
    assert_eq!(done["merge_sha"], json!(git(&repository, &["rev-parse", "main"])));
    assert_eq!(model.requests().len(), asked, "moving costs no model turn");

    // And back: what happened on PostgreSQL is told by a file again.
    let dumped = on(&bench, &url, &["db", "export", "back.jsonl"]).await;
    assert_eq!(dumped.code, 0, "{dumped:?}");
    let other = bench.path().join("other");
    let other = ["--data-dir", other.to_str().expect("UTF-8")];
    let filled = bench.run(&[&other[..], &["db", "import", "back.jsonl"]].concat()).await;
    assert_eq!(filled.code, 0, "{filled:?}");
    let again = bench.run(&[&other[..], &["db", "export", "again.jsonl"]].concat()).await;
    assert_eq!(again.code, 0, "{again:?}");
    let read = |name| std::fs::read_to_string(bench.path().join(name)).expect("it was written");
    assert!(read("back.jsonl") == read("again.jsonl"), "a dump of a filled store is the same dump");
    let twice = bench.run(&[&other[..], &["db", "import", "back.jsonl"]].concat()).await;
    assert_eq!(twice.code, 1, "{twice:?}");
    assert!(twice.stderr.contains("is not empty: use a new store"), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_becomes_a_merge_on_postgres_alone() {
    let postgres = shared();
    let url = postgres.database().await.expect("a database");
    let bench = Bench::new();
    let model = server(mend_python()).await;
    bench.ask(&model);
    bench.write("issue.md", "# add() subtracts\n\nadd(2, 3) must be 5.\n");
    let repository = bench.repository("app", PYTHON);
    let run =
        ["run", "--repo", repository.to_str().expect("UTF-8"), "--issue", "issue.md", "--json"];
    let waiting = on(&bench, &url, &run).await;
    assert_eq!(waiting.code, 3, "{waiting:?}");
    let id = waiting.last()["run"].as_str().expect("a run").to_owned();
    let approved = on(&bench, &url, &["approve", &id]).await;
    assert_eq!(approved.code, 0, "{approved:?}");
    let merged = on(&bench, &url, &run).await;
    assert_eq!((merged.code, &merged.last()["outcome"]), (0, &json!("merged")), "{merged:?}");
    assert!(!bench.data().join("swarm.sqlite3").exists(), "all of it is in PostgreSQL");
}

#[tokio::test]
async fn the_state_of_a_store_is_told_and_an_old_one_is_migrated() {
    let postgres = shared();
    let url = postgres.database().await.expect("a database");
    let bench = Bench::new();
    let told = bench.run(&["db", "status"]).await.stdout;
    let told = told.replace(bench.path().to_str().expect("UTF-8"), "DIR");
    insta::assert_snapshot!(
        told.trim(),
        @"Runs are kept in DIR/data/swarm.sqlite3, which is made by the first command."
    );
    insta::assert_snapshot!(
        on(&bench, &url, &["db", "status"]).await.stdout.trim(),
        @"Runs are kept in PostgreSQL, as variable DATABASE_URL says; schema `swarm`: empty; `db migrate` makes version 1."
    );
    bench.write("swarm.yaml", "store: { schema: other, migrate: false }\n");
    let refused = on(&bench, &url, &["runs", "list"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    insta::assert_snapshot!(refused.stderr.trim(), @"
    error: cannot open the store that variable DATABASE_URL names
      because: schema `other` has version 0, and this program needs 1: run `swarm-host db migrate`
    ");
    insta::assert_snapshot!(
        on(&bench, &url, &["db", "migrate"]).await.stdout.trim(),
        @"Schema `other` has version 1 now; it had 0."
    );
    insta::assert_snapshot!(
        on(&bench, &url, &["db", "migrate"]).await.stdout.trim(),
        @"Schema `other` has version 1 already."
    );
    assert_eq!(on(&bench, &url, &["runs", "list"]).await.code, 0);
}

#[tokio::test]
async fn a_url_of_another_program_is_refused_without_being_repeated() {
    let bench = Bench::new();
    let refused = on(&bench, "mysql://app:hunter2@db/shop", &["runs", "list"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    insta::assert_snapshot!(refused.stderr.trim(), @"error: the store's URL: variable DATABASE_URL holds none of PostgreSQL, such as `postgres://user@host:5432/name`; if it is meant for another program, name another variable as `store.url_env`");
}

//! Golden histories: a recorded run of each shipped graph is planned again by today's engine over
//! today's graph, and every checkpoint must come out as recorded.
//!
//! `UPDATE_GOLDEN=1` records anew, from the whole flow on a real repository with a scripted model:
//! do that when a shipped graph was changed on purpose, and look at what `git diff` shows. A file
//! that was recorded by a released version stays beside it, under a name with that version: what
//! is stored must be read for ever.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;
use swarm_core::port::model::ChatRequest;
use swarm_core::port::store::RunFilter;
use swarm_graph::replay::{Recording, replay};
use swarm_host::defaults;

use crate::rig::{Rig, Said, Setup, finish, mend, no_findings, one_task};

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
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

/// The names of the shipped graphs.
fn shipped() -> BTreeSet<String> {
    let graphs = defaults::GRAPHS.iter().filter(|(_, text)| text.contains("\ngraph:"));
    graphs.map(|(path, _)| path.trim_end_matches(".yaml").to_owned()).collect()
}

/// Runs the whole flow; one recording of each graph that took part.
async fn record(rig: &Rig) -> Vec<(String, Recording)> {
    rig.run("The sum is wrong\n\n2 and 3 give -1.").await;
    rig.answer(json!({ "choice": "approve" })).await;
    rig.output().await;
    let mut recordings = Vec::new();
    for run in rig.store.runs(&RunFilter::default()).await.expect("it lives") {
        let recording = Recording::read(&*rig.store, &run.start.id).await.expect("it lives");
        let recording = recording.expect("it was listed");
        recordings.push((run.start.graph.to_string(), recording));
    }
    recordings
}

#[tokio::test]
async fn what_was_just_recorded_comes_out_the_same() {
    let rig = Rig::new(Setup::default(), good);
    let recordings = record(&rig).await;
    let graphs: BTreeSet<String> = recordings.iter().map(|(graph, _)| graph.clone()).collect();
    assert_eq!(graphs, shipped());
    for (name, recording) in recordings {
        let graph = rig.engine.library().named(&name).unwrap();
        let replayed = replay(&graph, &recording).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(replayed.skipped, 0, "{name}");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(dir()).unwrap();
            let text = serde_json::to_string_pretty(&recording).unwrap();
            std::fs::write(dir().join(format!("{name}.json")), text + "\n").unwrap();
        }
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what the run is for")]
async fn every_golden_history_comes_out_as_recorded() {
    let rig = Rig::new(Setup::default(), good);
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir()).expect("UPDATE_GOLDEN=1 records them") {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let recording: Recording = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = recording.run.start.graph.to_string();
        let graph = rig.engine.library().named(&name).expect("it is shipped");
        let replayed = replay(&graph, &recording).unwrap_or_else(|why| {
            panic!(
                "{}: {why}\nif the graph was changed on purpose: UPDATE_GOLDEN=1",
                path.display()
            )
        });
        println!("{}: {replayed}", path.display());
        assert!(replayed.supersteps > 1, "{}", path.display());
        found.insert(name);
    }
    assert_eq!(found, shipped());
}

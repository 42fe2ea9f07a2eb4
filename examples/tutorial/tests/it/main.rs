//! The tutorial, run.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use swarm_core::escalation::{Answerer, BlockStatus};
use swarm_core::id::{RunId, WorkerId};
use swarm_core::port::store::CheckpointFilter;
use swarm_graph::archive::ForkOptions;
use swarm_graph::engine::{Control, Driven, Engine, StartOptions};
use swarm_graph::store::sqlite::{Options, SqliteStore};
use swarm_graph::testkit::{World, crash_everywhere};
use tutorial::{Newsroom, library};

/// A newsroom that counts. A moody model says something else each time.
struct Counted {
    world: World,
    is_moody: bool,
}

impl Newsroom for Counted {
    fn write(&self, topic: &str) -> String {
        let nth = self.world.call("write");
        format!("{topic}, draft {}", if self.is_moody { nth } else { 1 })
    }

    fn print(&self, line: &str) {
        self.world.effect(line);
    }

    fn has_printed(&self, line: &str) -> bool {
        self.world.has(line)
    }
}

type Fallible = Result<(), Box<dyn std::error::Error>>;

/// A new process on the same file.
async fn process(
    file: &Path,
    world: &World,
) -> Result<(Engine, WorkerId), Box<dyn std::error::Error>> {
    let store = SqliteStore::open(file, Options::default()).await?;
    let room = Counted { world: world.clone(), is_moody: true };
    let engine = Engine::on(store, library(Arc::new(room))?);
    Ok((engine, WorkerId::new("me")?))
}

async fn answer(engine: &Engine, run: &RunId, choice: &str) -> Fallible {
    let open = engine.store().blocks(Some(run), Some(BlockStatus::Open)).await?;
    let by = Answerer { login: "ada".into(), via: "page".into(), permission: "write".into() };
    engine.answer(&open[0].id, json!({ "choice": choice }), by).await?;
    Ok(())
}

#[tokio::test]
async fn a_run_asks_survives_its_process_and_is_forked() -> Fallible {
    let (dir, world) = (tempfile::tempdir()?, World::new());
    let file = dir.path().join("runs.db");
    let run = RunId::new("spring-fair")?;

    let (engine, me) = process(&file, &world).await?;
    let input = json!({ "topic": "The fair is on Sunday" });
    engine.start(run.clone(), "announce", input, StartOptions::default()).await?;
    let rest = engine.work_on(&run, &me, &Control::default()).await?;
    assert!(matches!(rest, Driven::Waiting { .. }));
    drop(engine);

    let (engine, me) = process(&file, &world).await?;
    answer(&engine, &run, "again").await?;
    engine.work_on(&run, &me, &Control::default()).await?;
    answer(&engine, &run, "print").await?;
    engine.work_on(&run, &me, &Control::default()).await?;
    assert!(world.has("[spring-fair] The fair is on Sunday, draft 2"));

    let asked = CheckpointFilter { active: Some("review".parse()?), ..Default::default() };
    let first = engine.checkpoints(&run, &asked).await?.pop().ok_or("it was reviewed")?;
    let other = RunId::new("spring-fair-b")?;
    engine.fork(&run, first.seq, other.clone(), ForkOptions::default()).await?;
    engine.work_on(&other, &me, &Control::default()).await?;
    answer(&engine, &other, "print").await?;
    engine.work_on(&other, &me, &Control::default()).await?;
    assert!(world.has("[spring-fair-b] The fair is on Sunday, draft 1"));
    assert_eq!(world.count("write"), 2, "the fork pays for nothing twice");
    Ok(())
}

#[test]
fn it_is_printed_once_wherever_the_process_dies() {
    let topic = json!({ "topic": "The fair is on Sunday" });
    let report = crash_everywhere("announce", topic, |world| {
        let room = Counted { world: world.clone(), is_moody: false };
        library(Arc::new(room)).expect("the graph loads")
    })
    .answering(|_question| json!({ "choice": "print" }))
    .run();
    assert!(report.crashes > 20, "{report}");
}

/// Everything that the page shows is in these files.
#[test]
fn the_page_shows_what_is_run_here() {
    let page = include_str!("../../../../docs/tutorial.md");
    let sources = [
        include_str!("main.rs"),
        include_str!("../../src/lib.rs"),
        include_str!("../../announce.yaml"),
        include_str!("../../Cargo.toml"),
    ];
    let squeezed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let sources: Vec<String> = sources.iter().map(|source| squeezed(source)).collect();
    let mut shown = 0;
    for block in page.split("\n```").skip(1).step_by(2) {
        let Some((language, block)) = block.split_once('\n') else { continue };
        if ["rust", "yaml", "toml"].contains(&language) {
            let block = squeezed(block);
            assert!(sources.iter().any(|source| source.contains(&block)), "not run:\n{block}");
            shown += 1;
        }
    }
    assert!(shown >= 9, "{shown} blocks");
}

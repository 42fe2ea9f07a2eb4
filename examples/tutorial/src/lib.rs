//! Announcements: a model drafts one, a person looks at it, and it is printed, once.
//!
//! This is what `docs/tutorial.md` builds, piece by piece. A test holds the page to it.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_graph::check;
use swarm_graph::defect::Defects;
use swarm_graph::library::Library;
use swarm_graph::node::{Node, NodeContext, NodeError, Probe};
use swarm_graph::registry::Registry;

/// What a run is started with.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
pub struct Topic {
    /// What the announcement is about.
    pub topic: String,
}

/// What a run knows.
#[derive(Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Announcement {
    /// All drafts, the last one last.
    pub drafts: Vec<String>,
    /// The line in the paper, once it is printed.
    pub printed: Option<String>,
}

/// The world outside: a model that writes, and a paper that prints.
pub trait Newsroom: Send + Sync {
    /// Costs money, and says something else each time.
    fn write(&self, topic: &str) -> String;
    /// Cannot be undone.
    fn print(&self, line: &str);
    /// Whether a line is in the paper.
    fn has_printed(&self, line: &str) -> bool;
}

struct Draft(Arc<dyn Newsroom>);

#[derive(JsonSchema, Serialize)]
struct Drafted {
    drafts: Vec<String>,
}

#[async_trait]
impl Node for Draft {
    const KIND: &'static str = "news/draft";
    type Config = ();
    type Input = Topic;
    type Output = Drafted;

    async fn run(&self, ctx: &NodeContext, input: Topic) -> Result<Drafted, NodeError> {
        let draft = ctx.memo("draft", || async { Ok(self.0.write(&input.topic)) }).await?;
        Ok(Drafted { drafts: vec![draft] })
    }
}

struct Print(Arc<dyn Newsroom>);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Line {
    line: String,
}

#[derive(JsonSchema, Serialize)]
struct Printed {
    printed: Option<String>,
}

#[async_trait]
impl Node for Print {
    const KIND: &'static str = "news/print";
    type Config = ();
    type Input = Line;
    type Output = Printed;

    async fn run(&self, ctx: &NodeContext, Line { line }: Line) -> Result<Printed, NodeError> {
        let line = format!("[{}] {line}", ctx.run_id());
        let probe = || async {
            let has_printed = self.0.has_printed(&line);
            Ok(if has_printed { Probe::Landed(()) } else { Probe::DidNotHappen })
        };
        let act = || async {
            self.0.print(&line);
            Ok(())
        };
        ctx.effect("print", json!({ "line": line }), probe, act).await?;
        Ok(Printed { printed: Some(line) })
    }
}

/// Everything that a process of ours is built of.
///
/// # Errors
/// All that is wrong in `announce.yaml`.
pub fn library(room: Arc<dyn Newsroom>) -> Result<Library, Defects> {
    let (writer, printer) = (room.clone(), room);
    let registry = Registry::new()
        .ty_without_default::<Topic>("Topic")
        .ty::<Announcement>("Announcement")
        .node::<Draft>(move |()| Ok(Draft(writer.clone())))
        .node::<Print>(move |()| Ok(Print(printer.clone())));
    let text = check::Memory::one("announce.yaml", include_str!("../announce.yaml"));
    let graph = check::load(&text, "announce.yaml", &registry)?;
    Ok(Library::new(registry).with(graph))
}

//! `graph`: checks graphs, draws them, prints the schema of their files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use swarm_graph::check::{self, Files};
use swarm_graph::defect::{Code, Defects};
use swarm_graph::graph::Graph;
use swarm_graph::registry::Registry;
use swarm_graph::{dot, explain, schema};

use super::versions::{self, Parts};
use super::{Usage, out, out::Out};
use crate::cli::{self, Drawing};
use crate::wire::Layers;

/// Runs the command.
///
/// # Errors
/// [`Usage`] for a graph that is not there; the defects of one that is to be drawn.
pub async fn run(parts: Parts<'_>, what: &cli::Graph) -> Result<ExitCode> {
    let Parts { registry, texts, out, .. } = parts;
    match what {
        cli::Graph::Diff { old, new, live } => versions::run_diff(parts, old, new, *live).await,
        cli::Graph::Migrate(given) => versions::run_migrate(parts, given).await,
        cli::Graph::Check { files } => check_all(registry, texts, out, files),
        cli::Graph::Show { graph, format } => {
            let graph = one(registry, texts, graph)?;
            out::line(&draw(&graph, *format))?;
            Ok(ExitCode::SUCCESS)
        }
        cli::Graph::Explain { what } => {
            out::line(&explained(registry, texts, what.as_deref())?)?;
            Ok(ExitCode::SUCCESS)
        }
        cli::Graph::Schema => {
            out::line(&serde_json::to_string_pretty(&schema::graph_file())?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

type Checked = (String, Result<Graph, Box<Defects>>);

fn check_all(registry: &Registry, texts: &Layers, out: Out, files: &[PathBuf]) -> Result<ExitCode> {
    let checked: Vec<Checked> = if files.is_empty() {
        let loaded = texts.load_each(registry).into_iter();
        loaded.map(|(file, result)| (texts.place(&file), result)).collect()
    } else {
        files.iter().map(|file| check_file(registry, file)).collect::<Result<_>>()?
    };
    let all_right = checked.iter().all(|(_, result)| result.is_ok());
    let listed: Vec<_> = checked
        .iter()
        .map(|(file, result)| match result {
            Ok(graph) => json!({
                "file": file, "graph": graph.name(), "hash": graph.hash(),
                "warnings": graph.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(),
            }),
            Err(defects) => json!({
                "file": file,
                "defects": defects.list.iter().map(|defect| json!({
                    "code": defect.code.as_str(), "file": defect.file, "line": defect.line,
                    "column": defect.column, "message": defect.message, "help": defect.help,
                })).collect::<Vec<_>>(),
            }),
        })
        .collect();
    out.print(&listed, || {
        let said = checked.iter().map(|(file, result)| match result {
            Ok(graph) => {
                let warnings = graph.warnings().iter().map(|warning| format!("\n{warning}"));
                format!("✓ {file}: {}{}", graph.name(), warnings.collect::<String>())
            }
            Err(defects) => format!("✗ {file}\n{defects}"),
        });
        let said = said.collect::<Vec<_>>().join("\n");
        match first_code(&checked) {
            Some(code) => format!(
                "{said}\n\n`swarm-host graph explain CODE` tells more, such as `swarm-host graph explain {code}`"
            ),
            None => said,
        }
    })?;
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The code of the first defect or warning.
fn first_code(checked: &[Checked]) -> Option<Code> {
    let lists = checked.iter().map(|(_, result)| match result {
        Ok(graph) => graph.warnings(),
        Err(defects) => &defects.list,
    });
    lists.flatten().next().map(|defect| defect.code)
}

fn check_file(registry: &Registry, file: &Path) -> Result<Checked> {
    if !file.is_file() {
        bail!(Usage(format!("there is no graph file {}", file.display())));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let files = Files::below(parent.unwrap_or(Path::new(".")));
    let result = check::load(&files, &name, registry).map_err(Box::new);
    Ok((file.display().to_string(), result))
}

/// A graph by its name among those of the host, or by its file.
pub(super) fn one(registry: &Registry, texts: &Layers, typed: &str) -> Result<Arc<Graph>> {
    let path = Path::new(typed);
    if path.is_file() {
        return match check_file(registry, path)?.1 {
            Ok(graph) => Ok(Arc::new(graph)),
            Err(defects) => bail!("{defects}"),
        };
    }
    let library = texts.load(registry.clone())?;
    library.named(typed).with_context(|| {
        Usage(format!(
            "no graph named `{typed}`, and no such file; known: {}",
            library.names().join(", ")
        ))
    })
}

/// A code's page, a graph in words, or all graphs in words.
fn explained(registry: &Registry, texts: &Layers, what: Option<&str>) -> Result<String> {
    let Some(what) = what else {
        let library = texts.load(registry.clone())?;
        let graphs = library.names().into_iter().filter_map(|name| library.named(&name));
        return Ok(graphs.map(|graph| explain::in_words(&graph)).collect::<Vec<_>>().join("\n"));
    };
    match Code::named(what) {
        Some(code) => Ok(code.page().to_owned()),
        None => Ok(explain::in_words(&*one(registry, texts, what)?)),
    }
}

fn draw(graph: &Graph, format: Drawing) -> String {
    match format {
        Drawing::Mermaid => dot::mermaid(graph),
        Drawing::Dot => dot::dot(graph),
        Drawing::Svg => dot::svg(graph),
    }
}

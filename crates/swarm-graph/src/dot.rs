//! A graph printed for people: Mermaid, DOT and SVG.
//!
//! All three draw the same drawing. What a newcomer gets wrong: a label is text of whoever
//! wrote the graph; each form escapes it in its own way, and nothing of it is markup.

mod layout;
mod svg;

use std::fmt::Write as _;

use petgraph::visit::EdgeRef;

use crate::graph::{Graph, GraphNode, Way, Work};

const CONDITION_LEN_MAX: usize = 44;

/// What is drawn: boxes and lines, without places.
#[derive(Debug)]
struct Drawing {
    title: String,
    /// In the order of the file; the end comes last.
    boxes: Vec<Shape>,
    lines: Vec<Line>,
    /// The box that a run begins in.
    entry: usize,
}

#[derive(Debug)]
struct Shape {
    title: String,
    detail: String,
    form: Form,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Uses,
    Run,
    Wait,
    Gate,
    End,
}

#[derive(Debug)]
struct Line {
    from: usize,
    to: usize,
    label: String,
    on_failure: bool,
}

impl Drawing {
    fn of(graph: &Graph) -> Self {
        let mut boxes: Vec<Shape> = graph.nodes.values().map(box_of).collect();
        boxes.push(Shape { title: "end".to_owned(), detail: String::new(), form: Form::End });
        let end = boxes.len() - 1;
        let mut lines: Vec<Line> = Vec::new();
        for edge in graph.topology.edge_references() {
            let place = |index: petgraph::graph::NodeIndex| {
                graph.topology[index].map_or(end, |spot| spot.index)
            };
            let (from, to, way) = (place(edge.source()), place(edge.target()), edge.weight());
            lines.push(Line { from, to, label: label_of(way), on_failure: way.on_failure });
        }
        lines.sort_by_key(|line| line.from);
        Self {
            title: format!("{} {}", graph.name, graph.version),
            boxes,
            lines,
            entry: graph.nodes.get_index_of(&graph.entry).unwrap_or(0),
        }
    }
}

fn box_of(node: &GraphNode) -> Shape {
    let (form, mut detail) = match &node.work {
        Work::Uses { kind, .. } => (Form::Uses, kind.clone()),
        Work::Run { graph, detach, .. } => {
            (Form::Run, format!("{} {graph}", if *detach { "starts" } else { "runs" }))
        }
        Work::Inline { graph, .. } => (Form::Run, format!("runs {} inside", graph.name())),
        Work::Wait { signal, timeout } => {
            let signal = signal.as_ref().map(|signal| format!("waits for {signal}"));
            let timeout = timeout.map(|time| format!("{}", humantime::format_duration(time)));
            let detail = match (signal, timeout) {
                (Some(signal), Some(timeout)) => format!("{signal}, at most {timeout}"),
                (Some(signal), None) => signal,
                (None, timeout) => format!("waits {}", timeout.unwrap_or_default()),
            };
            (Form::Wait, detail)
        }
        Work::Gate(gate) => (Form::Gate, format!("asks: {}", gate.reason.title())),
    };
    if let Some(foreach) = &node.foreach {
        let _ = write!(detail, ", for each {}", foreach.var);
    }
    if !node.when_all.is_empty() {
        detail.push_str(", joins");
    }
    if !node.when_any.is_empty() {
        detail.push_str(", the first wins");
    }
    if node.is_deferred {
        detail.push_str(", last of all");
    }
    if let Some(most) = node.concurrency {
        let _ = write!(detail, ", at most {most} at once");
    }
    Shape { title: node.name.to_string(), detail, form }
}

fn label_of(way: &Way) -> String {
    let mut parts = Vec::new();
    if let Some(when) = &way.when {
        let inside = when.trim().trim_start_matches("${{").trim_end_matches("}}").trim();
        let line = inside.split_whitespace().collect::<Vec<_>>().join(" ");
        parts.push(clip(&line, CONDITION_LEN_MAX));
    } else if way.on_failure {
        parts.push("any failure".to_owned());
    }
    if let Some(max) = way.max {
        parts.push(format!("max {max}"));
    }
    parts.join(", ")
}

fn clip(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

/// The graph as a Mermaid flowchart.
#[must_use]
pub fn mermaid(graph: &Graph) -> String {
    let drawing = Drawing::of(graph);
    let mut text = String::from("flowchart TD\n");
    let _ = writeln!(text, "  begin(( )) --> n{}", drawing.entry);
    for (index, shape) in drawing.boxes.iter().enumerate() {
        let title = mermaid_text(&shape.title);
        let label = match shape.detail.as_str() {
            "" => title,
            detail => format!("{title}<br/>{}", mermaid_text(detail)),
        };
        let (open, close) = match shape.form {
            Form::Uses => ("[", "]"),
            Form::Run => ("[[", "]]"),
            Form::Wait => ("([", "])"),
            Form::Gate => ("{{", "}}"),
            Form::End => ("(((", ")))"),
        };
        let _ = writeln!(text, "  n{index}{open}\"{label}\"{close}");
    }
    for line in &drawing.lines {
        let arrow = if line.on_failure { "-.->" } else { "-->" };
        let label = match line.label.as_str() {
            "" => String::new(),
            label => format!("|\"{}\"|", mermaid_text(label)),
        };
        let _ = writeln!(text, "  n{} {arrow}{label} n{}", line.from, line.to);
    }
    text
}

/// Mermaid takes entities as `#name;`, so that a quote or a tag stays text.
fn mermaid_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || " _-./:,'=!|+*…".contains(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "#{};", u32::from(c));
        }
    }
    escaped
}

/// The graph in Graphviz's language.
#[must_use]
pub fn dot(graph: &Graph) -> String {
    let drawing = Drawing::of(graph);
    let mut text = format!("digraph \"{}\" {{\n", dot_text(&drawing.title));
    text.push_str("  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n");
    let _ = writeln!(text, "  begin [shape=point];\n  begin -> n{};", drawing.entry);
    for (index, shape) in drawing.boxes.iter().enumerate() {
        let form = match shape.form {
            Form::Uses => "shape=box",
            Form::Run => "shape=box, peripheries=2",
            Form::Wait => "shape=box, style=rounded",
            Form::Gate => "shape=hexagon",
            Form::End => "shape=doublecircle",
        };
        let label = match shape.detail.as_str() {
            "" => dot_text(&shape.title),
            detail => format!("{}\\n{}", dot_text(&shape.title), dot_text(detail)),
        };
        let _ = writeln!(text, "  n{index} [{form}, label=\"{label}\"];");
    }
    for line in &drawing.lines {
        let style = if line.on_failure { ", style=dashed" } else { "" };
        let label = dot_text(&line.label);
        let _ = writeln!(text, "  n{} -> n{} [label=\"{label}\"{style}];", line.from, line.to);
    }
    text.push_str("}\n");
    text
}

fn dot_text(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('\\', "\\\\").replace('"', "\\\"")
}

/// The graph as a picture; needs no other program.
#[must_use]
pub fn svg(graph: &Graph) -> String {
    svg::draw(&Drawing::of(graph))
}

/// The graph as a picture in which each box has the classes that `class` gives its node: a page
/// colours them.
#[must_use]
pub fn svg_with(graph: &Graph, class: impl Fn(&str) -> &'static str) -> String {
    svg::draw_with(&Drawing::of(graph), class)
}

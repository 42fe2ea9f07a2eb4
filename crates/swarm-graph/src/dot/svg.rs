//! The picture: boxes, lines and labels as SVG.

use std::fmt::Write as _;

use super::layout::{Layout, Sizes, layout};
use super::{Drawing, Form, Line, Shape};

const BOX_HEIGHT: f64 = 44.0;
const LABEL_HEIGHT: f64 = 14.0;
const ROW_GAP: f64 = 22.0;
const GAP: f64 = 18.0;
const MARGIN: f64 = 30.0;
const LOOP: f64 = 20.0;
const CHAR_WIDTH: f64 = 7.4;
const SMALL_CHAR_WIDTH: f64 = 6.0;

const STYLE: &str = "text{font:13px sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}\
.label{font-size:10.5px;fill:#59636e;paint-order:stroke;stroke:#fff;stroke-width:4px}\
.box{fill:#f6f8fa;stroke:#59636e}.gate .box{fill:#fff8c5;stroke:#9a6700}\
.wait .box{fill:#ddf4ff;stroke:#0969da}.run .box{fill:#fbefff;stroke:#8250df}\
.end .box{fill:#1f2328}.end text{fill:#fff}\
.way{fill:none;stroke:#59636e;stroke-width:1.3}.failure{stroke:#cf222e;stroke-dasharray:5 4}";

/// The middle of a box, and its width.
struct Place {
    x: f64,
    y: f64,
    width: f64,
}

pub(super) fn draw(drawing: &Drawing) -> String {
    draw_with(drawing, |_| "")
}

pub(super) fn draw_with(drawing: &Drawing, class: impl Fn(&str) -> &'static str) -> String {
    let widths: Vec<f64> = drawing.boxes.iter().map(box_width).collect();
    let loops: Vec<f64> = (0..widths.len()).map(|index| loop_width(drawing, index)).collect();
    let sizes = Sizes {
        // A loop hangs on the right; the same on the left keeps the box in the middle.
        boxes: widths.iter().zip(&loops).map(|(width, more)| width + 2.0 * more).collect(),
        labels: drawing.lines.iter().map(|line| label_width(&line.label)).collect(),
        gap: GAP,
    };
    let layout = layout(drawing, &sizes);
    let x = |x: f64| x - layout.left + MARGIN;
    let places: Vec<Place> = layout
        .boxes
        .iter()
        .zip(&widths)
        .map(|((middle, row), width)| Place { x: x(*middle), y: row_y(*row), width: *width })
        .collect();
    let width = layout.right - layout.left + 2.0 * MARGIN;
    let height = row_y(layout.rows - 1) + BOX_HEIGHT / 2.0 + MARGIN;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\"><title>{}</title>\
         <style>{STYLE}</style><defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" \
         markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" \
         fill=\"#59636e\"/></marker></defs>",
        escape(&drawing.title)
    );
    if let Some(entry) = places.get(drawing.entry) {
        let (x, y) = (entry.x, entry.y - BOX_HEIGHT / 2.0);
        let _ = writeln!(
            text,
            "<path class=\"way\" marker-end=\"url(#tip)\" d=\"M{x:.1} {:.1}V{y:.1}\"/>",
            y - 22.0
        );
    }
    ways(&mut text, drawing, &layout, &places, &x);
    for (shape, place) in drawing.boxes.iter().zip(&places) {
        box_of(&mut text, shape, place, class(&shape.title));
    }
    text.push_str("</svg>\n");
    text
}

fn box_width(shape: &Shape) -> f64 {
    let title = shape.title.chars().count() as f64 * CHAR_WIDTH;
    let detail = shape.detail.chars().count() as f64 * SMALL_CHAR_WIDTH;
    (title.max(detail) + 30.0).max(72.0)
}

fn label_width(label: &str) -> f64 {
    label.chars().count() as f64 * SMALL_CHAR_WIDTH
}

/// How far the ways from a box to itself, and their labels, reach out on its right.
fn loop_width(drawing: &Drawing, index: usize) -> f64 {
    let own = drawing.lines.iter().filter(|line| line.from == index && line.to == index);
    own.map(|line| LOOP + 6.0 + label_width(&line.label)).fold(0.0, f64::max)
}

/// Even rows hold boxes, odd rows labels.
fn row_y(row: usize) -> f64 {
    let pair = BOX_HEIGHT + LABEL_HEIGHT + 2.0 * ROW_GAP;
    let first = MARGIN + BOX_HEIGHT / 2.0 + (row / 2) as f64 * pair;
    if row.is_multiple_of(2) { first } else { first + pair / 2.0 }
}

fn ways(
    text: &mut String,
    drawing: &Drawing,
    layout: &Layout,
    places: &[Place],
    x: &impl Fn(f64) -> f64,
) {
    let mut loops = vec![0_u32; places.len()];
    for (line, points) in drawing.lines.iter().zip(&layout.lines) {
        let class = if line.on_failure { "way failure" } else { "way" };
        let (path, label, anchor) = if line.from == line.to {
            let nth = loops[line.from];
            loops[line.from] += 1;
            own_way(&places[line.from], nth)
        } else if points.is_empty() {
            side_way(&places[line.from], &places[line.to])
        } else {
            let points: Vec<(f64, f64)> =
                points.iter().map(|(at, row)| (x(*at), row_y(*row))).collect();
            (curve(line, &points, places), points[0], "middle")
        };
        let _ = writeln!(text, "<path class=\"{class}\" marker-end=\"url(#tip)\" d=\"{path}\"/>");
        if !line.label.is_empty() {
            let _ = writeln!(
                text,
                "<text class=\"label\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                label.0,
                label.1 + 3.5,
                escape(&line.label)
            );
        }
    }
}

/// Through the places that a line holds.
fn curve(line: &Line, points: &[(f64, f64)], places: &[Place]) -> String {
    let (from, to) = (&places[line.from], &places[line.to]);
    let (first, last) = (points[0], points[points.len() - 1]);
    let sign = if from.y < to.y { 1.0 } else { -1.0 };
    // Ways of one box leave and reach it side by side.
    let lean = |place: &Place, towards: f64| {
        ((towards - place.x) * 0.3).clamp(-place.width * 0.36, place.width * 0.36)
    };
    let start = (from.x + lean(from, first.0), from.y + sign * BOX_HEIGHT / 2.0);
    let end = (to.x + lean(to, last.0), to.y - sign * BOX_HEIGHT / 2.0);
    let all: Vec<(f64, f64)> =
        [start].into_iter().chain(points.iter().copied()).chain([end]).collect();
    let leans = leans(&all);
    let mut path = format!("M{:.1} {:.1}", start.0, start.1);
    for at in 1..all.len() {
        let (here, next) = (all[at - 1], all[at]);
        let third = (next.1 - here.1) / 3.0;
        let _ = write!(
            path,
            "C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}",
            here.0 + leans[at - 1] * third,
            here.1 + third,
            next.0 - leans[at] * third,
            next.1 - third,
            next.0,
            next.1
        );
    }
    path
}

/// How far a line leans in each of its points, in x for y: upright at its ends and where it turns,
/// else the harmonic mean of both sides, so that it never swings past a point (Fritsch and Butland,
/// 1984).
fn leans(points: &[(f64, f64)]) -> Vec<f64> {
    let sides: Vec<f64> =
        points.windows(2).map(|two| (two[1].0 - two[0].0) / (two[1].1 - two[0].1)).collect();
    let between = sides.windows(2).map(|two| {
        let (before, after) = (two[0], two[1]);
        if before * after <= 0.0 { 0.0 } else { 2.0 * before * after / (before + after) }
    });
    std::iter::once(0.0).chain(between).chain([0.0]).collect()
}

/// From a box to itself, on its right.
fn own_way(place: &Place, nth: u32) -> (String, (f64, f64), &'static str) {
    let (right, out) = (place.x + place.width / 2.0, LOOP + f64::from(nth) * 4.0);
    let (top, bottom) = (place.y - 9.0, place.y + 9.0);
    let path = format!(
        "M{right:.1} {bottom:.1}C{x:.1} {:.1} {x:.1} {:.1} {right:.1} {top:.1}",
        bottom + 4.0,
        top - 4.0,
        x = right + out
    );
    (path, (right + LOOP, place.y + f64::from(nth) * 13.0), "start")
}

/// Between two boxes of one row.
fn side_way(from: &Place, to: &Place) -> (String, (f64, f64), &'static str) {
    let y = from.y + BOX_HEIGHT / 2.0;
    let path = format!(
        "M{:.1} {y:.1}C{:.1} {low:.1} {:.1} {low:.1} {:.1} {y:.1}",
        from.x,
        from.x,
        to.x,
        to.x,
        low = y + 34.0
    );
    (path, ((from.x + to.x) / 2.0, y + 24.0), "middle")
}

fn box_of(text: &mut String, shape: &Shape, place: &Place, class: &str) {
    let (left, top) = (place.x - place.width / 2.0, place.y - BOX_HEIGHT / 2.0);
    let (right, bottom) = (left + place.width, top + BOX_HEIGHT);
    let width = place.width;
    let form = match shape.form {
        Form::Uses => "uses",
        Form::Run => "run",
        Form::Wait => "wait",
        Form::Gate => "gate",
        Form::End => "end",
    };
    let outline = match shape.form {
        Form::Gate => format!(
            "<path class=\"box\" d=\"M{:.1} {top:.1}H{:.1}L{right:.1} {y:.1}L{:.1} {bottom:.1}H{:.1}L{left:.1} {y:.1}z\"/>",
            left + 12.0,
            right - 12.0,
            right - 12.0,
            left + 12.0,
            y = place.y
        ),
        Form::Uses | Form::Run | Form::Wait | Form::End => {
            let radius = if matches!(shape.form, Form::Wait | Form::End) { 22 } else { 4 };
            format!(
                "<rect class=\"box\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{BOX_HEIGHT}\" rx=\"{radius}\"/>"
            )
        }
    };
    let title_y = if shape.detail.is_empty() { place.y + 4.5 } else { place.y - 2.5 };
    let _ = write!(
        text,
        "<g class=\"node {form} {class}\" data-node=\"{title}\">{outline}\
         <text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{title_y:.1}\">{title}</text>",
        title = escape(&shape.title),
        x = place.x
    );
    if !shape.detail.is_empty() {
        let _ = write!(
            text,
            "<text class=\"small\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            place.x,
            place.y + 13.5,
            escape(&shape.detail)
        );
    }
    text.push_str("</g>\n");
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

//! The picture: boxes, lines and labels as SVG.

use std::fmt::Write as _;

use super::layout::{Layout, layout};
use super::{Drawing, Form, Line};

const BOX_HEIGHT: f64 = 44.0;
const ROW_GAP: f64 = 74.0;
const BOX_GAP: f64 = 48.0;
const MARGIN: f64 = 32.0;
const LANE: f64 = 22.0;
const CHAR_WIDTH: f64 = 7.2;
const SMALL_CHAR_WIDTH: f64 = 5.9;

const STYLE: &str = "text{font:13px sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}\
.label{font-size:10.5px;fill:#59636e;paint-order:stroke;stroke:#fff;stroke-width:4px}\
.box{fill:#f6f8fa;stroke:#59636e}.gate .box{fill:#fff8c5;stroke:#9a6700}\
.wait .box{fill:#ddf4ff;stroke:#0969da}.run .box{fill:#fbefff;stroke:#8250df}\
.end .box{fill:#1f2328}.end text{fill:#fff}\
.way{fill:none;stroke:#59636e;stroke-width:1.3}.failure{stroke:#cf222e;stroke-dasharray:5 4}";

struct Place {
    x: f64,
    y: f64,
    width: f64,
}

pub(super) fn draw(drawing: &Drawing) -> String {
    draw_with(drawing, |_| "")
}

pub(super) fn draw_with(drawing: &Drawing, class: impl Fn(&str) -> &'static str) -> String {
    let layout = layout(drawing);
    let (places, width) = places(drawing, &layout);
    let mut lanes = 0;
    let mut ways = String::new();
    for line in &drawing.lines {
        way(&mut ways, line, &places, &layout, width, &mut lanes);
    }
    let full_width =
        width + f64::from(lanes) * LANE + longest_back_label(drawing, &layout) + MARGIN;
    let height = MARGIN * 2.0 + layout.rows.len() as f64 * (BOX_HEIGHT + ROW_GAP) - ROW_GAP;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {full_width:.0} {height:.0}\" \
         width=\"{full_width:.0}\" height=\"{height:.0}\" role=\"img\"><title>{}</title>\
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
    text.push_str(&ways);
    for (shape, place) in drawing.boxes.iter().zip(&places) {
        box_of(&mut text, shape, place, class(&shape.title));
    }
    text.push_str("</svg>\n");
    text
}

fn places(drawing: &Drawing, layout: &Layout) -> (Vec<Place>, f64) {
    let widths: Vec<f64> = drawing
        .boxes
        .iter()
        .map(|shape| {
            let title = shape.title.chars().count() as f64 * CHAR_WIDTH;
            let detail = shape.detail.chars().count() as f64 * SMALL_CHAR_WIDTH;
            (title.max(detail) + 30.0).max(72.0)
        })
        .collect();
    let row_width = |row: &[usize]| -> f64 {
        row.iter().map(|index| widths[*index]).sum::<f64>() + BOX_GAP * (row.len() as f64 - 1.0)
    };
    let widest = layout.rows.iter().map(|row| row_width(row)).fold(0.0, f64::max);
    let mut places: Vec<Place> =
        widths.iter().map(|width| Place { x: 0.0, y: 0.0, width: *width }).collect();
    for (at, row) in layout.rows.iter().enumerate() {
        let mut x = MARGIN + (widest - row_width(row)) / 2.0;
        for index in row {
            let place = &mut places[*index];
            place.x = x + place.width / 2.0;
            place.y = MARGIN + BOX_HEIGHT / 2.0 + at as f64 * (BOX_HEIGHT + ROW_GAP);
            x += place.width + BOX_GAP;
        }
    }
    (places, widest + MARGIN)
}

fn box_of(text: &mut String, shape: &super::Shape, place: &Place, class: &str) {
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

/// A way down is a curve; any other goes around the right side in a lane of its own.
fn way(
    text: &mut String,
    line: &Line,
    places: &[Place],
    layout: &Layout,
    width: f64,
    lanes: &mut u16,
) {
    let (from, to) = (&places[line.from], &places[line.to]);
    let class = if line.on_failure { "way failure" } else { "way" };
    let (path, x, y, anchor);
    if is_down(line, layout) {
        let (start, end) = (from.y + BOX_HEIGHT / 2.0, to.y - BOX_HEIGHT / 2.0);
        let bend = ((end - start) / 2.0).min(60.0);
        // Ways of one box leave it side by side.
        let lean = ((to.x - from.x) * 0.2).clamp(-from.width / 3.0, from.width / 3.0);
        path = format!(
            "M{:.1} {start:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {end:.1}",
            from.x + lean,
            from.x + lean,
            start + bend,
            to.x,
            end - bend,
            to.x
        );
        (x, y, anchor) = ((from.x + lean + to.x) / 2.0, (start + end) / 2.0 + 3.0, "middle");
    } else {
        *lanes += 1;
        let lane = width + f64::from(*lanes) * LANE;
        let (start_x, end_x) = (from.x + from.width / 2.0, to.x + to.width / 2.0);
        let (start_y, end_y) = (from.y + 8.0, to.y - 8.0);
        path = format!(
            "M{start_x:.1} {start_y:.1}H{:.1}Q{lane:.1} {start_y:.1} {lane:.1} {:.1}V{:.1}Q{lane:.1} {end_y:.1} {:.1} {end_y:.1}H{end_x:.1}",
            lane - 8.0,
            if end_y < start_y { start_y - 8.0 } else { start_y + 8.0 },
            if end_y < start_y { end_y + 8.0 } else { end_y - 8.0 },
            lane - 8.0
        );
        (x, y, anchor) = (lane + 4.0, (start_y + end_y) / 2.0, "start");
    }
    let _ = writeln!(text, "<path class=\"{class}\" marker-end=\"url(#tip)\" d=\"{path}\"/>");
    if !line.label.is_empty() {
        let _ = writeln!(
            text,
            "<text class=\"label\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            escape(&line.label)
        );
    }
}

fn is_down(line: &Line, layout: &Layout) -> bool {
    layout.row_of[line.to] > layout.row_of[line.from]
}

fn longest_back_label(drawing: &Drawing, layout: &Layout) -> f64 {
    drawing
        .lines
        .iter()
        .filter(|line| !is_down(line, layout))
        .map(|line| line.label.chars().count() as f64 * SMALL_CHAR_WIDTH)
        .fold(0.0, f64::max)
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

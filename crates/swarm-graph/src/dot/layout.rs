//! Where boxes, lines and labels go: in rows from the first node down.
//!
//! A way to a node further down in the file goes down; any other goes back up, and counts for the
//! rows as if it were turned round. A way over several rows holds a place in each of them, so that
//! it passes between boxes, and its label has a place of its own; that is what keeps lines and
//! labels off each other.

use std::collections::BTreeMap;

use super::Drawing;

const SWEEPS: usize = 12;
const SHIFTS: usize = 24;
const LINE_WIDTH: f64 = 14.0;

/// What a drawing needs room for, in pixels.
pub(super) struct Sizes {
    /// The width of each box, with what hangs on its right.
    pub(super) boxes: Vec<f64>,
    /// The width of each line's label.
    pub(super) labels: Vec<f64>,
    /// Between two things of a row.
    pub(super) gap: f64,
}

/// Where everything is: rows count from 0, boxes stand in the even ones.
pub(super) struct Layout {
    /// The middle of each box, and its row.
    pub(super) boxes: Vec<(f64, usize)>,
    /// The points of each line between its ends, from its beginning on.
    pub(super) lines: Vec<Vec<(f64, usize)>>,
    pub(super) rows: usize,
    pub(super) left: f64,
    pub(super) right: f64,
}

/// A thing that holds a place in a row.
struct Spot {
    row: usize,
    width: f64,
    x: f64,
    near: Vec<(usize, f64)>,
}

pub(super) fn layout(drawing: &Drawing, sizes: &Sizes) -> Layout {
    let row_of = rows(drawing);
    let mut spots: Vec<Spot> = sizes
        .boxes
        .iter()
        .zip(&row_of)
        .map(|(width, row)| Spot { row: row * 2, width: *width, x: 0.0, near: Vec::new() })
        .collect();
    let mut chains: Vec<Vec<usize>> = Vec::with_capacity(drawing.lines.len());
    for (line, label) in drawing.lines.iter().zip(&sizes.labels) {
        chains.push(chain(&mut spots, line.from, line.to, *label));
    }
    let mut order = vec![Vec::new(); row_of.iter().max().map_or(1, |row| row * 2 + 1)];
    for (index, spot) in spots.iter().enumerate() {
        order[spot.row].push(index);
    }
    untangle(&mut order, &spots);
    place(&order, &mut spots, sizes.gap);
    let left = spots.iter().map(|spot| spot.x - spot.width / 2.0).fold(f64::MAX, f64::min);
    let right = spots.iter().map(|spot| spot.x + spot.width / 2.0).fold(f64::MIN, f64::max);
    let at = |index: &usize| (spots[*index].x, spots[*index].row);
    Layout {
        boxes: (0..sizes.boxes.len()).map(|index| at(&index)).collect(),
        lines: chains.iter().map(|chain| chain.iter().map(at).collect()).collect(),
        rows: order.len(),
        left,
        right,
    }
}

/// The row of each box: below everything that leads down to it; the end is last.
fn rows(drawing: &Drawing) -> Vec<usize> {
    let mut rows = vec![0_usize; drawing.boxes.len()];
    // Boxes are in the order of the file, and ways down only lead to later ones.
    for index in 0..rows.len() {
        let above = drawing.lines.iter().filter(|line| line.to == index && line.from < index);
        rows[index] = above.map(|line| rows[line.from] + 1).max().unwrap_or(rows[index]);
    }
    if let Some((end, others)) = rows.split_last_mut() {
        *end = others.iter().max().map_or(1, |last| last + 1);
    }
    rows
}

/// Gives a line a place in each row that it passes, the label's next to its beginning.
fn chain(spots: &mut Vec<Spot>, from: usize, to: usize, label: f64) -> Vec<usize> {
    let (start, end) = (spots[from].row, spots[to].row);
    if start == end {
        return Vec::new();
    }
    let between: Vec<usize> =
        if start < end { (start + 1..end).collect() } else { (end + 1..start).rev().collect() };
    let mut chain = Vec::with_capacity(between.len());
    let mut previous = from;
    for (position, row) in between.iter().enumerate() {
        let width = if position == 0 { label.max(LINE_WIDTH) } else { LINE_WIDTH };
        spots.push(Spot { row: *row, width, x: 0.0, near: Vec::new() });
        let here = spots.len() - 1;
        join(spots, previous, here);
        chain.push(here);
        previous = here;
    }
    join(spots, previous, to);
    chain
}

/// Two places follow each other on a line; the inside of a line should be straight above all.
fn join(spots: &mut [Spot], first: usize, second: usize) {
    let inner = |spot: &Spot| spot.row % 2 == 1 || spot.width <= LINE_WIDTH;
    let weight = if inner(&spots[first]) && inner(&spots[second]) { 4.0 } else { 1.0 };
    spots[first].near.push((second, weight));
    spots[second].near.push((first, weight));
}

/// Sorts each row by the mean place of what it is joined to, down and up in turn.
fn untangle(order: &mut [Vec<usize>], spots: &[Spot]) {
    let mut place: BTreeMap<usize, f64> = BTreeMap::new();
    let number = |row: &[usize], place: &mut BTreeMap<usize, f64>| {
        let middle = (row.len() as f64 - 1.0) / 2.0;
        place.extend(row.iter().enumerate().map(|(at, index)| (*index, at as f64 - middle)));
    };
    for row in order.iter() {
        number(row, &mut place);
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        for step in 0..order.len() {
            let row = if down { step } else { order.len() - 1 - step };
            let mean = |index: usize| {
                let side = spots[index].near.iter().filter(|(other, _)| {
                    if down { spots[*other].row < row } else { spots[*other].row > row }
                });
                let near: Vec<f64> = side.map(|(other, _)| place[other]).collect();
                if near.is_empty() {
                    place[&index]
                } else {
                    near.iter().sum::<f64>() / near.len() as f64
                }
            };
            let mut sorted: Vec<(f64, usize)> =
                order[row].iter().map(|index| (mean(*index), *index)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            order[row] = sorted.into_iter().map(|(_, index)| index).collect();
            number(&order[row], &mut place);
        }
    }
}

/// Moves everything towards what it is joined to, as far as its neighbours in the row allow.
fn place(order: &[Vec<usize>], spots: &mut [Spot], gap: f64) {
    for row in order {
        let mut x = 0.0;
        for index in row {
            spots[*index].x = x + spots[*index].width / 2.0;
            x += spots[*index].width + gap;
        }
    }
    for shift in 0..SHIFTS {
        for step in 0..order.len() {
            let row = &order[if shift % 2 == 0 { step } else { order.len() - 1 - step }];
            let wanted: Vec<f64> = row
                .iter()
                .map(|index| {
                    let near = &spots[*index].near;
                    let weight: f64 = near.iter().map(|(_, weight)| weight).sum();
                    if near.is_empty() {
                        spots[*index].x
                    } else {
                        near.iter().map(|(other, weight)| spots[*other].x * weight).sum::<f64>()
                            / weight
                    }
                })
                .collect();
            let mut offsets = Vec::with_capacity(row.len());
            let mut offset = 0.0;
            for (position, index) in row.iter().enumerate() {
                if position > 0 {
                    offset += (spots[row[position - 1]].width + spots[*index].width) / 2.0 + gap;
                }
                offsets.push(offset);
            }
            for ((index, x), offset) in row.iter().zip(ascending(&wanted, &offsets)).zip(&offsets) {
                spots[*index].x = x + offset;
            }
        }
    }
}

/// The ascending numbers nearest to `wanted` less `offsets`: neighbours that would change sides
/// meet at their mean.
fn ascending(wanted: &[f64], offsets: &[f64]) -> Vec<f64> {
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(offsets) {
        let mut block = (wanted - offset, 1);
        while let Some((mean, count)) = blocks.last().copied()
            && mean > block.0
        {
            let all = count + block.1;
            block = ((mean * count as f64 + block.0 * block.1 as f64) / all as f64, all);
            blocks.pop();
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count)).collect()
}

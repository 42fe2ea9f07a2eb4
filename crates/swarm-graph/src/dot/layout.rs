//! Where boxes go: in layers from the entry down, each a row.
//!
//! Ways back (to a layer above or the same) do not count for the layers; they are drawn around
//! the side. Within a row, boxes are sorted by the mean place of what leads to them, a few times
//! over, which takes most crossings away.

use super::Drawing;

const SWEEPS: usize = 6;

/// The row of each box, and its place in the row, counted in boxes and centred.
pub(super) struct Layout {
    pub(super) rows: Vec<Vec<usize>>,
    pub(super) row_of: Vec<usize>,
}

pub(super) fn layout(drawing: &Drawing) -> Layout {
    let count = drawing.boxes.len();
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    for line in &drawing.lines {
        if !next[line.from].contains(&line.to) {
            next[line.from].push(line.to);
        }
    }
    let forward = forward(&next, drawing.entry);
    let mut row_of = vec![0_usize; count];
    // Longest ways first: each pass moves boxes down; without cycles it ends after `count`.
    for _ in 0..count {
        let mut moved = false;
        for (from, to) in &forward {
            if row_of[*to] <= row_of[*from] {
                row_of[*to] = row_of[*from] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let end = count - 1;
    row_of[end] = row_of.iter().copied().max().unwrap_or(0).max(1);
    if row_of.iter().enumerate().any(|(index, row)| index != end && *row == row_of[end]) {
        row_of[end] += 1;
    }
    let mut rows = vec![Vec::new(); row_of[end] + 1];
    for (index, row) in row_of.iter().enumerate() {
        rows[*row].push(index);
    }
    rows.retain(|row| !row.is_empty());
    for (place, row) in rows.iter().enumerate() {
        for index in row {
            row_of[*index] = place;
        }
    }
    sort_rows(&mut rows, &forward, count);
    Layout { rows, row_of }
}

/// The ways that do not go back to a box that is still being followed.
fn forward(next: &[Vec<usize>], entry: usize) -> Vec<(usize, usize)> {
    let mut forward = Vec::new();
    let mut state = vec![0_u8; next.len()];
    for start in std::iter::once(entry).chain(0..next.len()) {
        if state[start] != 0 {
            continue;
        }
        state[start] = 1;
        let mut stack = vec![(start, 0_usize)];
        while let Some((here, at)) = stack.last_mut() {
            let here = *here;
            let Some(to) = next[here].get(*at).copied() else {
                state[here] = 2;
                stack.pop();
                continue;
            };
            *at += 1;
            if state[to] != 1 {
                forward.push((here, to));
            }
            if state[to] == 0 {
                state[to] = 1;
                stack.push((to, 0));
            }
        }
    }
    forward
}

fn sort_rows(rows: &mut [Vec<usize>], forward: &[(usize, usize)], count: usize) {
    let mut place = vec![0.0_f64; count];
    let centre = |row: &[usize], place: &mut [f64]| {
        for (at, index) in row.iter().enumerate() {
            place[*index] = at as f64 - (row.len() as f64 - 1.0) / 2.0;
        }
    };
    for row in rows.iter() {
        centre(row, &mut place);
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let order: Vec<usize> =
            if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for at in order {
            let mean = |index: usize| {
                let near: Vec<f64> = forward
                    .iter()
                    .filter_map(|(from, to)| match down {
                        true if *to == index => Some(place[*from]),
                        false if *from == index => Some(place[*to]),
                        _ => None,
                    })
                    .collect();
                if near.is_empty() {
                    place[index]
                } else {
                    near.iter().sum::<f64>() / near.len() as f64
                }
            };
            let mut row: Vec<(f64, usize)> =
                rows[at].iter().map(|index| (mean(*index), *index)).collect();
            row.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[at] = row.into_iter().map(|(_, index)| index).collect();
            centre(&rows[at], &mut place);
        }
    }
}

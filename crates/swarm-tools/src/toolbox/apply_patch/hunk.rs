//! Hunks applied to a text: found by their old lines, exactly.
//!
//! A hunk's line number only chooses between places that fit; it never makes one fit. Without a
//! number that fits, two places that do are an error, not a choice.

use std::fmt::Write as _;

use super::super::Trouble;
use super::super::edit::nearest_lines;
use super::super::text::{Text, cut_line};
use super::parse::{Hunk, Line};

/// The raw text with all hunks applied, in order.
pub(super) fn apply(path: &str, text: &Text, hunks: &[Hunk]) -> Result<String, Trouble> {
    let lines = Lines::new(text.plain());
    let mut changes: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    let mut from = 0;
    for (index, hunk) in hunks.iter().enumerate() {
        let name = format!("hunk {} of {} for `{path}` (`{}`)", index + 1, hunks.len(), hunk.head);
        let at = place(&lines, hunk, from).map_err(|words| format!("{name} {words}"))?;
        change(&lines, hunk, at, &mut changes);
        from = at + old_lines(hunk).count();
    }
    let changes: Vec<_> =
        changes.iter().map(|(range, new)| (range.clone(), new.as_str())).collect();
    Ok(text.replaced(&changes))
}

/// The lines of a text, with where each begins.
struct Lines<'a> {
    plain: &'a str,
    lines: Vec<&'a str>,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(plain: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(plain.match_indices('\n').map(|(at, _)| at + 1));
        if starts.last() == Some(&plain.len()) {
            starts.pop();
        }
        Self { plain, lines: plain.lines().collect(), starts }
    }

    fn start(&self, line: usize) -> usize {
        self.starts.get(line).copied().unwrap_or(self.plain.len())
    }

    fn fits(&self, old: &[&str], at: usize) -> bool {
        self.lines
            .get(at..at + old.len())
            .is_some_and(|there| there.iter().zip(old).all(|(there, old)| there == old))
    }
}

fn old_lines(hunk: &Hunk) -> impl Iterator<Item = &str> {
    hunk.lines.iter().filter_map(|line| match line {
        Line::Both(text) | Line::Old(text) => Some(text.as_str()),
        Line::New(_) => None,
    })
}

/// The line, from 0, at which a hunk's old lines stand, not before `from`.
fn place(lines: &Lines<'_>, hunk: &Hunk, from: usize) -> Result<usize, String> {
    let old: Vec<&str> = old_lines(hunk).collect();
    if old.is_empty() {
        // Nothing but new lines: `-N,0` means after line N.
        return match hunk.start {
            _ if lines.lines.is_empty() => Ok(0),
            Some(after) if (from..=lines.lines.len()).contains(&after) => Ok(after),
            Some(after) => Err(format!(
                "adds after line {after}, but the file has {} lines (and hunks must be in order)",
                lines.lines.len()
            )),
            None => Err("only adds lines: give some context around them".to_owned()),
        };
    }
    if let Some(start) = hunk.start.and_then(|start| start.checked_sub(1))
        && start >= from
        && lines.fits(&old, start)
    {
        return Ok(start);
    }
    let fitting: Vec<usize> =
        (from..lines.lines.len()).filter(|at| lines.fits(&old, *at)).collect();
    match fitting.as_slice() {
        [] => Err(absent(lines, &old, from)),
        [at] => Ok(*at),
        several => {
            let several: Vec<String> =
                several.iter().take(10).map(|at| (at + 1).to_string()).collect();
            Err(format!(
                "fits at lines {}: give its line number or more context",
                several.join(", ")
            ))
        }
    }
}

/// Why a hunk fits nowhere, with the lines that it was perhaps meant for.
fn absent(lines: &Lines<'_>, old: &[&str], from: usize) -> String {
    if (0..from).any(|at| lines.fits(old, at)) {
        return "fits only before the end of the hunk before it: hunks must be in order and must \
                not overlap"
            .to_owned();
    }
    let mut words = "does not apply: its old lines are not in the file".to_owned();
    let Some((first, count, only_space)) = nearest_lines(lines.plain, &old.join("\n")) else {
        return words;
    };
    words += if only_space {
        "; only white space differs here:"
    } else {
        "; the most similar lines are:"
    };
    for (at, line) in lines.lines.iter().enumerate().skip(first).take(count.min(20)) {
        let mark = if old.contains(line) { ' ' } else { '!' };
        let _ = write!(words, "\n{:>6}{mark}\t{}", at + 1, cut_line(line, 200));
    }
    words
}

/// What a hunk at a place replaces: each run of old and new lines between context.
fn change(
    lines: &Lines<'_>,
    hunk: &Hunk,
    at: usize,
    changes: &mut Vec<(std::ops::Range<usize>, String)>,
) {
    let mut line = at;
    let mut rest = hunk.lines.as_slice();
    while let Some(first) = rest.first() {
        if matches!(first, Line::Both(_)) {
            line += 1;
            rest = &rest[1..];
            continue;
        }
        let run = rest.iter().position(|l| matches!(l, Line::Both(_))).unwrap_or(rest.len());
        let (run, after) = rest.split_at(run);
        let start = line;
        line += run.iter().filter(|l| matches!(l, Line::Old(_))).count();
        let mut new = String::new();
        for text in run.iter().filter_map(|l| match l {
            Line::New(text) => Some(text),
            Line::Both(_) | Line::Old(_) => None,
        }) {
            new.push_str(text);
            new.push('\n');
        }
        let is_last = line >= lines.lines.len();
        if is_last && after.is_empty() && hunk.is_new_unended {
            new.pop();
        }
        // Lines added after a last line that has no newline need one before them.
        let mut begin = lines.start(start);
        let is_unended = !lines.plain.is_empty() && !lines.plain.ends_with('\n');
        if start >= lines.lines.len() && is_unended && !new.is_empty() {
            new.insert(0, '\n');
            begin = lines.plain.len();
        }
        changes.push((begin..lines.start(line), new));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn patched(file: &str, hunks: &str) -> Result<String, String> {
        let patch = parse(&format!("--- a/f\n+++ b/f\n{hunks}")).unwrap().remove(0);
        apply("f", &Text::new(file.to_owned()), &patch.hunks).map_err(|trouble| match trouble {
            Trouble::Refused(words) => words,
            Trouble::Failed(failure) => panic!("{failure}"),
        })
    }

    #[test]
    fn a_wrong_number_is_forgiven_where_the_place_is_clear() {
        assert_eq!(patched("a\nb\nc\n", "@@ -7,2 +9,2 @@\n b\n-c\n+d\n").unwrap(), "a\nb\nd\n");
        assert_eq!(patched("a\nb\n", "@@\n-b\n+c\n").unwrap(), "a\nc\n");
    }

    #[test]
    fn a_number_chooses_between_places_that_fit() {
        let file = "x\ny\nx\ny\n";
        assert_eq!(patched(file, "@@ -3 +3 @@\n-x\n+z\n").unwrap(), "x\ny\nz\ny\n");
        insta::assert_snapshot!(patched(file, "@@ -2 +2 @@\n-x\n+z\n").unwrap_err(), @"hunk 1 of 1 for `f` (`@@ -2 +2 @@`) fits at lines 1, 3: give its line number or more context");
    }

    #[test]
    fn wrong_context_never_applies() {
        let file = "fn one() {\n    1\n}\n";
        insta::assert_snapshot!(patched(file, "@@ -1,3 +1,3 @@\n fn one() {\n-  1\n+  2\n }\n").unwrap_err(), @"
        hunk 1 of 1 for `f` (`@@ -1,3 +1,3 @@`) does not apply: its old lines are not in the file; only white space differs here:
             1 	fn one() {
             2!	    1
             3 	}
        ");
        insta::assert_snapshot!(patched("a\nb\n", "@@\n-b\n+c\n@@\n-a\n+d\n").unwrap_err(), @"hunk 2 of 2 for `f` (`@@`) fits only before the end of the hunk before it: hunks must be in order and must not overlap");
    }

    #[test]
    fn the_end_of_the_file_keeps_or_takes_its_newline_as_told() {
        assert_eq!(patched("a\nb", "@@ -1,2 +1,2 @@\n-a\n+c\n b\n").unwrap(), "c\nb");
        assert_eq!(
            patched("a", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n").unwrap(),
            "b\n"
        );
        assert_eq!(
            patched("a\n", "@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n").unwrap(),
            "b"
        );
        assert_eq!(patched("a", "@@ -1 +1,2 @@\n a\n+b\n").unwrap(), "a\nb\n");
        assert_eq!(patched("a\nb\n", "@@ -1,2 +1 @@\n a\n-b\n").unwrap(), "a\n");
        assert_eq!(patched("", "@@ -0,0 +1 @@\n+a\n").unwrap(), "a\n");
    }

    #[test]
    fn line_endings_stay_as_they_are() {
        assert_eq!(patched("a\r\nb\r\n", "@@\n a\n+n\n b\n").unwrap(), "a\r\nn\r\nb\r\n");
        assert_eq!(patched("a\r\nb\nc\nd\n", "@@\n a\n-b\n+n\n").unwrap(), "a\r\nn\nc\nd\n");
    }
}

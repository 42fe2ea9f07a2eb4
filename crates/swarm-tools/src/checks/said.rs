//! What a finished check said, read by what it is for.
//!
//! Everything here comes from text that the repository wrote: it explains an outcome and never
//! makes one.

use swarm_core::port::sandbox::Finished;

use super::{Counts, Finding, Kind, TestFailure, remarks, results};

/// How much of the end of an output is kept, in lines and bytes, of stdout and stderr each.
const TAIL_LINES: usize = 60;
const TAIL_BYTES: usize = 6 * 1024;

/// What an output says.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) counts: Option<Counts>,
    pub(super) failures: Vec<TestFailure>,
    pub(super) findings: Vec<Finding>,
    pub(super) tail: String,
    /// Whether some of the output is missing.
    pub(super) is_cut: bool,
    /// Set when all of the output is there and says that no test ran: whether in words.
    pub(super) no_tests: Option<bool>,
}

impl Said {
    pub(super) fn read(kind: Kind, finished: &Finished) -> Self {
        let stdout = plain(&finished.stdout.text);
        let stderr = plain(&finished.stderr.text);
        let both = format!("{stdout}\n{stderr}");
        let dropped = finished.stdout.dropped_bytes + finished.stderr.dropped_bytes;
        let mut said = Self { is_cut: dropped > 0, ..Self::default() };
        let mut readable = None;
        match kind {
            Kind::Test => {
                let results = results::read(&both);
                let is_none = !said.is_cut && results.ran_none();
                said.no_tests = is_none.then_some(results.says_none);
                said.counts = results.counts;
                said.failures = results.failures;
            }
            Kind::Lint => {
                let remarks = remarks::read(&both);
                said.findings = remarks.findings;
                readable = remarks.readable;
            }
            Kind::Setup => {}
        }
        said.tail = match (readable, tail(&stdout), tail(&stderr)) {
            (Some(text), _, _) => tail(&text),
            (None, out, err) if err.is_empty() => out,
            (None, out, err) if out.is_empty() => err,
            (None, out, err) => format!("{out}\n--- stderr\n{err}"),
        };
        said
    }
}

/// Text without colours and other terminal sequences.
fn plain(text: &str) -> String {
    if !text.contains('\u{1b}') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
            Some(_) | None => {}
        }
    }
    out
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let text = text.trim_end();
    let mut from = text.len().saturating_sub(TAIL_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let mut lines: Vec<&str> = text[from..].lines().collect();
    if from > 0 && lines.len() > 1 {
        lines.remove(0);
    }
    lines.split_off(lines.len().saturating_sub(TAIL_LINES)).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_are_taken_out() {
        assert_eq!(plain("\u{1b}[1;31mred\u{1b}[0m \u{1b}]0;title\u{7}x"), "red x");
    }

    #[test]
    fn a_tail_is_whole_lines() {
        let text: String = (0..5000).map(|n| format!("zeile {n} ß\n")).collect();
        let tail = tail(&text);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("zeile ") && tail.ends_with("zeile 4999 ß"));
    }
}

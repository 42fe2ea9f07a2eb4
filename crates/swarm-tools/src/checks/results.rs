//! What test runners say: their closing counts, and which tests failed.
//!
//! Every reader looks at every output, since `make test` or `npm test` may run any of them, or
//! several. Nothing here decides whether a check passed: the exit code does.

use super::{Counts, TestFailure};

mod go;
mod javascript;
mod python;
mod rust;

/// The most failed tests that are kept, and the most characters of what is said about one.
const FAILURES: usize = 100;
const MESSAGE_CHARS: usize = 600;

/// What an output says about tests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Results {
    /// The sum of all closing counts; `None` when none is known.
    pub(super) counts: Option<Counts>,
    /// The failed tests.
    pub(super) failures: Vec<TestFailure>,
    /// Whether a runner said in words that there was no test.
    pub(super) says_none: bool,
}

impl Results {
    fn count(&mut self, passed: u64, failed: u64, skipped: u64) {
        let counts = self.counts.get_or_insert_default();
        counts.passed += passed;
        counts.failed += failed;
        counts.skipped += skipped;
    }

    /// Whether a failure of this name would be kept. To be asked before looking around for its
    /// place: a hostile output may name a million, each far from what is said about it.
    fn wants(&self, name: &str) -> bool {
        self.failures.len() < FAILURES && self.failures.iter().all(|known| known.name != name)
    }

    fn fail(&mut self, failure: TestFailure) {
        if self.wants(&failure.name) {
            self.failures.push(failure);
        }
    }

    /// Whether the output says that no test ran. Skipped ones did not run.
    pub(super) fn ran_none(&self) -> bool {
        self.counts.is_some_and(|counts| counts.passed + counts.failed == 0)
    }
}

/// Reads an output: stdout, and stderr after it.
pub(super) fn read(output: &str) -> Results {
    let lines: Vec<&str> = output.lines().collect();
    let mut results = Results::default();
    rust::read(&lines, &mut results);
    python::read(&lines, &mut results);
    javascript::read(&lines, &mut results);
    go::read(&lines, &mut results);
    results
}

fn failure(name: &str, place: Option<(String, u32)>, message: &str) -> TestFailure {
    let (file, line) = place.unzip();
    let message = message.trim();
    let cut = message.char_indices().nth(MESSAGE_CHARS).map_or(message.len(), |(at, _)| at);
    TestFailure { name: name.to_owned(), file, line, message: message[..cut].to_owned() }
}

/// The number before a word, as in `3 passed`; 0 when the word is not there.
fn number_before(text: &str, word: &str) -> u64 {
    let mut before = None;
    for part in text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
        if part == word {
            return before.unwrap_or(0);
        }
        before = part.parse().ok();
    }
    0
}

/// A place from `file:line` or `file:line:column`.
fn place(text: &str) -> Option<(String, u32)> {
    let text = text.trim().trim_end_matches(':');
    let (head, last) = text.rsplit_once(':')?;
    let last: u32 = last.parse().ok()?;
    if let Some((file, line)) = head.rsplit_once(':')
        && let Ok(line) = line.parse()
    {
        return Some((file.to_owned(), line));
    }
    Some((head.to_owned(), last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checks::remarks;

    const PIECES: [&str; 48] = [
        "FAILED ",
        "ERROR ",
        "FAIL: ",
        "a.py::t",
        " - ",
        "= 1 failed in 0.1s =",
        "Ran 3 tests in 1s",
        "OK",
        "___ t ___",
        "a.py:3: E",
        "File \"a\", line 3",
        "test result: ",
        "1 passed; ",
        "---- t stdout ----",
        "panicked at a.rs:1:2:",
        "FAIL [ 1s] ",
        "Summary [ 1s] 2 tests run: 1 passed",
        "not ok 1 - ",
        "  ---",
        "error: |-",
        "  ...",
        "location: 'a:1:2'",
        "# tests 1",
        "# pass 1",
        "✖ ",
        "test at a:1:2",
        "● a › b",
        "at x (a:1:2)",
        "Tests: 1 failed, 2 total",
        "1 passing",
        "1) a",
        "--- FAIL: T (0s)",
        "=== RUN   T",
        "FAIL\tp",
        "ok  \tp",
        "{\"reason\":",
        "[{\"filePath\":",
        "Diff in a:1:",
        "  1:2  error  m  r",
        "a:1:2: m",
        ":",
        "(",
        ")",
        "é",
        "\n",
        "\n",
        "\n",
        " ",
    ];

    proptest! {
        /// Outputs are written by whoever wrote the tests; reading one never panics.
        #[test]
        fn any_output_can_be_read(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
            let output = pieces.concat();
            let _ = (read(&output), remarks::read(&output));
        }
    }

    #[test]
    fn a_hostile_output_takes_no_quadratic_time() {
        for line in [
            "FAILED a.py::x\n",
            "--- FAIL: T (0s)\nFAIL\tp\n",
            "1 passing\n",
            "ERROR: x\n\n",
            "✖ x\n",
        ] {
            let started = std::time::Instant::now();
            read(&line.repeat((1 << 21) / line.len()));
            // A quadratic reader would need minutes; a linear one is far below a second.
            assert!(started.elapsed().as_secs() < 20, "{line:?} took {:?}", started.elapsed());
        }
    }
}

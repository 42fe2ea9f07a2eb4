//! pytest and unittest.

use super::{Results, failure, number_before, place};

pub(super) fn read(lines: &[&str], results: &mut Results) {
    for (at, line) in lines.iter().enumerate() {
        if let Some(closing) = pytest_closing(line) {
            let failed = ["failed", "error", "errors"].map(|word| number_before(closing, word));
            let passed = ["passed", "xfailed", "xpassed"].map(|word| number_before(closing, word));
            let skipped = number_before(closing, "skipped");
            results.count(passed.iter().sum(), failed.iter().sum(), skipped);
            results.says_none |= closing.starts_with("no tests ran");
        } else if let Some((name, message)) = pytest_failed(line) {
            if results.wants(name) {
                results.fail(failure(name, pytest_place(lines, name), message));
            }
        } else if let Some(ran) = line.strip_prefix("Ran ").and_then(unittest_ran) {
            let closing = lines[at + 1..].iter().take(5).find(|line| !line.trim().is_empty());
            let closing = closing.copied().unwrap_or_default();
            let word = |word: &str| number_in(closing, word);
            let failed = word("failures=") + word("errors=") + word("unexpected successes=");
            let skipped = word("skipped=");
            results.count(ran.saturating_sub(failed + skipped), failed, skipped);
            results.says_none |= closing.starts_with("NO TESTS RAN");
        } else if let Some(name) =
            line.strip_prefix("FAIL: ").or_else(|| line.strip_prefix("ERROR: "))
            && lines.get(at + 1).is_some_and(|next| is_rule(next) || !next.trim().is_empty())
        {
            let (place, message) = traceback(&lines[at + 1..]);
            results.fail(failure(name.trim(), place, &message));
        }
    }
}

/// `1 failed, 2 passed in 0.12s`, with or without `=` around it.
fn pytest_closing(line: &str) -> Option<&str> {
    let line = line.trim_matches(['=', ' ']);
    let (counts, time) = line.rsplit_once(" in ")?;
    let is_time = time.split(['s', ' ']).next().is_some_and(|t| t.parse::<f64>().is_ok());
    let words = [
        "failed",
        "passed",
        "skipped",
        "error",
        "errors",
        "xfailed",
        "xpassed",
        "deselected",
        "warning",
        "warnings",
    ];
    let is_counts = counts.split(", ").all(|part| {
        part.split_once(' ')
            .is_some_and(|(number, word)| number.parse::<u64>().is_ok() && words.contains(&word))
    });
    (is_time && (is_counts || counts == "no tests ran")).then_some(line)
}

/// `FAILED tests/test_a.py::test_x - AssertionError: ..`, from the short summary.
fn pytest_failed(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("FAILED ").or_else(|| line.strip_prefix("ERROR "))?;
    let (name, message) = rest.split_once(" - ").unwrap_or((rest, ""));
    let file = name.split("::").next().unwrap_or_default();
    file.ends_with(".py").then_some((name, message))
}

/// The last place in the section of a test, such as `tests/test_a.py:5: AssertionError`.
fn pytest_place(lines: &[&str], name: &str) -> Option<(String, u32)> {
    let (file, test) = name.split_once("::")?;
    let test = test.replace("::", ".");
    let head = lines
        .iter()
        .position(|line| line.starts_with("___") && line.trim_matches(['_', ' ']) == test)?;
    let section = lines[head + 1..]
        .iter()
        .take_while(|line| !line.starts_with("___") && !line.starts_with("==="));
    section
        .filter_map(|line| {
            let (at, _) = line
                .rsplit_once(": ")
                .or_else(|| line.rsplit_once(':').filter(|(_, rest)| rest.is_empty()))?;
            place(at).filter(|(path, _)| path == file)
        })
        .last()
}

/// The number in `3 tests in 0.001s`.
fn unittest_ran(rest: &str) -> Option<u64> {
    let (number, rest) = rest.split_once(' ')?;
    (rest.starts_with("test in ") || rest.starts_with("tests in "))
        .then(|| number.parse().ok())
        .flatten()
}

fn number_in(text: &str, key: &str) -> u64 {
    let Some((_, rest)) = text.split_once(key) else { return 0 };
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn is_rule(line: &str) -> bool {
    line.len() > 20 && line.bytes().all(|byte| byte == b'-')
}

/// The innermost place of a traceback that is not Python's own, and its last words.
fn traceback(lines: &[&str]) -> (Option<(String, u32)>, String) {
    let mut place = None;
    let mut message: Vec<&str> = Vec::new();
    let body = lines.iter().skip_while(|line| !is_rule(line)).skip(1);
    for line in body.take(200) {
        if is_rule(line) || line.len() > 20 && line.bytes().all(|byte| byte == b'=') {
            break;
        }
        if let Some(rest) = line.trim_start().strip_prefix("File \"") {
            let at = rest.split_once("\", line ").and_then(|(file, rest)| {
                let line = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
                Some((file.to_owned(), line))
            });
            if let Some(at) = at
                && (place.is_none() || !at.0.contains("/lib/python"))
            {
                place = Some(at);
            }
            message.clear();
        } else if !line.starts_with("    ") && !line.trim().is_empty() {
            message.push(line);
        }
    }
    (place, message.join("\n"))
}

#[cfg(test)]
mod tests {
    use crate::checks::results::read;

    #[test]
    fn pytest_is_read() {
        let output = "============ test session starts ============\ncollected 3 items\n\ntests/test_a.py .F                  [100%]\n\n=========== FAILURES ===========\n_______ test_add _______\n\n    def test_add():\n>       assert add(1, 2) == 4\nE       assert 3 == 4\n\ntests/test_a.py:5: AssertionError\n======= short test summary info =======\nFAILED tests/test_a.py::test_add - assert 3 == 4\nERROR tests/test_b.py - ModuleNotFoundError: No module named 'x'\n==== 1 failed, 1 passed, 1 skipped, 1 error in 0.02s ====\n";
        insta::assert_debug_snapshot!(read(output), @r#"
        Results {
            counts: Some(
                Counts {
                    passed: 1,
                    failed: 2,
                    skipped: 1,
                },
            ),
            failures: [
                TestFailure {
                    name: "tests/test_a.py::test_add",
                    file: Some(
                        "tests/test_a.py",
                    ),
                    line: Some(
                        5,
                    ),
                    message: "assert 3 == 4",
                },
                TestFailure {
                    name: "tests/test_b.py",
                    file: None,
                    line: None,
                    message: "ModuleNotFoundError: No module named 'x'",
                },
            ],
            says_none: false,
        }
        "#);
        assert!(read("2 passed in 0.01s").counts.is_some());
        assert!(read("=== no tests ran in 0.01s ===").says_none);
        assert!(read("he was 3 years in 5 days").counts.is_none());
    }

    #[test]
    fn unittest_is_read() {
        let output = "F.s\n======================================================================\nFAIL: test_add (tests.test_a.Adds.test_add)\n----------------------------------------------------------------------\nTraceback (most recent call last):\n  File \"/w/tests/test_a.py\", line 7, in test_add\n    self.assertEqual(add(1, 2), 4)\n  File \"/usr/lib/python3.11/unittest/case.py\", line 873, in assertEqual\n    assertion_func(first, second)\nAssertionError: 3 != 4\n\n----------------------------------------------------------------------\nRan 3 tests in 0.001s\n\nFAILED (failures=1, skipped=1)\n";
        insta::assert_debug_snapshot!(read(output), @r#"
        Results {
            counts: Some(
                Counts {
                    passed: 1,
                    failed: 1,
                    skipped: 1,
                },
            ),
            failures: [
                TestFailure {
                    name: "test_add (tests.test_a.Adds.test_add)",
                    file: Some(
                        "/w/tests/test_a.py",
                    ),
                    line: Some(
                        7,
                    ),
                    message: "AssertionError: 3 != 4",
                },
            ],
            says_none: false,
        }
        "#);
        let none = read("\n----------\nRan 0 tests in 0.000s\n\nNO TESTS RAN\n");
        assert!(none.says_none && none.ran_none());
    }
}

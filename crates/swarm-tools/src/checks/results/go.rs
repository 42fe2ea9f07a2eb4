//! go test, with `-v` or without.

use super::{Results, failure, place};

pub(super) fn read(lines: &[&str], results: &mut Results) {
    let is_go = lines.iter().any(|line| {
        ["ok  \t", "FAIL\t", "?   \t"].iter().any(|mark| line.starts_with(mark))
            || line.starts_with("\t") && line.contains("coverage: ")
    });
    if !is_go {
        return;
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut is_verbose = false;
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        is_verbose |= text.starts_with("=== RUN");
        if text.starts_with("--- PASS: ") {
            passed += 1;
        } else if text.starts_with("--- SKIP: ") {
            skipped += 1;
        } else if let Some(rest) = text.strip_prefix("--- FAIL: ") {
            failed += 1;
            let name = rest.split(" (").next().unwrap_or(rest);
            if results.wants(name) {
                let (at, message) = told(lines, at, name);
                results.fail(failure(name, at, &message));
            }
        }
    }
    // Without `-v` only failures are named: a package that is `ok` says not how many.
    let is_ok =
        lines.iter().any(|line| line.starts_with("ok  \t") && !line.contains("[no tests to run]"));
    if is_verbose || passed + failed > 0 || !is_ok {
        let has_none = lines
            .iter()
            .any(|line| line.contains("[no test files]") || line.contains("[no tests to run]"));
        if passed + failed + skipped > 0 || has_none {
            results.count(passed, failed, skipped);
        }
    }
}

/// What a failed test logged: below its name, or since it was run when it was verbose.
fn told(lines: &[&str], at: usize, name: &str) -> (Option<(String, u32)>, String) {
    let is_log = |line: &&&str| line.starts_with("    ") && !line.trim_start().starts_with("--- ");
    let mut logged: Vec<&str> = lines[at + 1..].iter().take_while(is_log).copied().collect();
    if logged.is_empty() {
        let start = lines[..at]
            .iter()
            .rposition(|line| line.strip_prefix("=== RUN").is_some_and(|run| run.trim() == name));
        let start = start.map_or(at, |start| start + 1);
        logged = lines[start..at].iter().filter(is_log).copied().collect();
    }
    let mut found = None;
    let mut message = Vec::new();
    for line in logged.iter().take(12) {
        let text = line.trim();
        match text.split_once(": ").and_then(|(head, rest)| Some((place(head)?, rest))) {
            Some((place, rest)) => {
                found.get_or_insert(place);
                message.push(rest);
            }
            None => message.push(text),
        }
    }
    (found, message.join("\n"))
}

#[cfg(test)]
mod tests {
    use crate::checks::results::read;

    #[test]
    fn go_test_is_read() {
        let output = "=== RUN   TestGood\n--- PASS: TestGood (0.00s)\n=== RUN   TestBad\n    a_test.go:9: got 3\n--- FAIL: TestBad (0.00s)\nFAIL\nFAIL\texample.com/a\t0.002s\n?   \texample.com/b\t[no test files]\n";
        let results = read(output);
        let counts = results.counts.unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped), (1, 1, 0));
        let bad = &results.failures[0];
        assert_eq!(
            (bad.name.as_str(), bad.file.as_deref(), bad.line),
            ("TestBad", Some("a_test.go"), Some(9))
        );
        assert_eq!(bad.message, "got 3");
        assert!(read("?   \texample.com/b\t[no test files]\n").ran_none());
        assert_eq!(read("ok  \texample.com/a\t0.002s\n").counts, None);
    }
}

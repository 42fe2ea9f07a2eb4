//! Node's runner (both of its reporters), jest, vitest and mocha.

use super::{Results, failure, number_before, place};

pub(super) fn read(lines: &[&str], results: &mut Results) {
    node_counts(lines, results);
    let mut is_mocha = false;
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim();
        if let Some(rest) = text.strip_prefix("Tests:").filter(|rest| rest.contains(" total")) {
            jest_counts(rest, results);
        } else if let Some(rest) = text.strip_prefix("Tests ").filter(|rest| is_vitest(rest)) {
            jest_counts(rest, results);
        } else if text.starts_with("No tests found, exiting with code")
            || text.starts_with("No test files found, exiting with code")
        {
            results.count(0, 0, 0);
            results.says_none = true;
        } else if let Some(passed) = mocha_number(text, "passing") {
            let next = lines[at + 1..].iter().take(3).map(|line| line.trim());
            let mut after = [0, 0];
            for line in next {
                after[0] += mocha_number(line, "failing").unwrap_or(0);
                after[1] += mocha_number(line, "pending").unwrap_or(0);
            }
            results.count(passed, after[0], after[1]);
            if !is_mocha {
                mocha_failures(&lines[at + 1..], results);
            }
            is_mocha = true;
        } else if let Some(name) = text.strip_prefix("not ok ") {
            tap_failure(name, &lines[at + 1..], results);
        } else if let Some(rest) = text.strip_prefix("✖ ") {
            let before = at.checked_sub(1).map(|before| lines[before].trim());
            if let Some(said) = before.and_then(|line| line.strip_prefix("test at ")) {
                let message = lines[at + 1..].iter().take_while(|line| !line.trim().is_empty());
                let message: Vec<&str> = message.take(8).map(|line| line.trim()).collect();
                results.fail(failure(untimed(rest), place(said), &message.join("\n")));
            }
        } else if let Some(name) =
            text.strip_prefix("● ").filter(|name| name.contains(" › ") || line.starts_with("  ●"))
        {
            let section = &lines[at + 1..];
            let message: Vec<&str> = section
                .iter()
                .skip_while(|line| line.trim().is_empty())
                .take_while(|line| {
                    !line.trim_start().starts_with("at ") && !line.trim_start().starts_with("● ")
                })
                .take(12)
                .map(|line| line.trim())
                .collect();
            results.fail(failure(name, stack_place(section), &message.join("\n")));
        } else if let Some(name) = text.strip_prefix("FAIL  ").filter(|name| name.contains(" > ")) {
            let message = lines.get(at + 1).copied().unwrap_or_default();
            let place = lines[at + 1..].iter().take(30).find_map(|line| {
                line.trim().strip_prefix("❯ ").and_then(|rest| place(rest.split(' ').next_back()?))
            });
            results.fail(failure(name, place, message));
        }
    }
}

/// `# tests 3` or `ℹ tests 3` and the lines below it.
fn node_counts(lines: &[&str], results: &mut Results) {
    let number = |line: &str, word: &str| -> Option<u64> {
        let rest = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ "))?;
        rest.strip_prefix(word)?.strip_prefix(' ')?.parse().ok()
    };
    for (at, line) in lines.iter().enumerate() {
        if number(line, "tests").is_none() {
            continue;
        }
        let below = &lines[at..lines.len().min(at + 9)];
        let sum = |word: &str| below.iter().find_map(|line| number(line, word));
        let Some(passed) = sum("pass") else { continue };
        let failed = sum("fail").unwrap_or(0) + sum("cancelled").unwrap_or(0);
        let skipped = sum("skipped").unwrap_or(0) + sum("todo").unwrap_or(0);
        results.count(passed, failed, skipped);
    }
}

fn jest_counts(rest: &str, results: &mut Results) {
    let skipped = number_before(rest, "skipped") + number_before(rest, "todo");
    results.count(number_before(rest, "passed"), number_before(rest, "failed"), skipped);
}

fn is_vitest(rest: &str) -> bool {
    let rest = rest.trim();
    rest.ends_with(')')
        && rest.chars().next().is_some_and(|c| c.is_ascii_digit())
        && ["passed", "failed", "skipped", "todo"].iter().any(|word| rest.contains(word))
}

/// `3 passing (5ms)`, `1 failing`.
fn mocha_number(text: &str, word: &str) -> Option<u64> {
    let (number, rest) = text.split_once(' ')?;
    let rest = rest.strip_prefix(word)?;
    (rest.is_empty() || rest.starts_with(" (")).then(|| number.parse().ok())?
}

/// `1) suite`, the test below it ending in a colon, and the error.
fn mocha_failures(lines: &[&str], results: &mut Results) {
    for (at, line) in lines.iter().enumerate() {
        let Some((number, first)) = line.trim().split_once(") ") else { continue };
        if number.parse::<u32>().is_err() || !line.starts_with("  ") {
            continue;
        }
        let mut names = vec![first.trim()];
        let mut end = at;
        while !names.last().is_some_and(|name| name.ends_with(':'))
            && end + 1 < lines.len()
            && end < at + 6
        {
            end += 1;
            names.push(lines[end].trim());
        }
        let message: Vec<&str> = lines[end + 1..]
            .iter()
            .take(20)
            .skip_while(|line| line.trim().is_empty())
            .take_while(|line| !line.trim_start().starts_with("at "))
            .map(|line| line.trim())
            .collect();
        let name = names.join(" ");
        let place = stack_place(&lines[end + 1..]);
        results.fail(failure(name.trim_end_matches(':'), place, &message.join("\n")));
    }
}

/// `1 - adds`, with a YAML block below that says where and why.
fn tap_failure(rest: &str, below: &[&str], results: &mut Results) {
    let name = rest.split_once(" - ").map_or(rest, |(_, name)| name);
    if name.contains(" # SKIP") || name.contains(" # TODO") {
        return;
    }
    let mut at = None;
    let mut message = Vec::new();
    let mut is_message = false;
    if below.first().is_some_and(|line| line.trim() == "---") {
        for line in below[1..].iter().take(60).map(|line| line.trim()) {
            if line == "..." {
                break;
            }
            if line.contains("subtestsFailed") {
                return;
            }
            let key =
                |key: &str| line.strip_prefix(key).map(|v| v.trim().trim_matches(['\'', '"']));
            if let Some(value) = key("location:") {
                at = place(value);
            } else if let Some(value) = key("error:") {
                is_message = value.starts_with('|') || value.starts_with('>');
                if !is_message {
                    message.push(value.to_owned());
                }
            } else if line.starts_with("code:")
                || line.starts_with("stack:")
                || line.starts_with("name:")
            {
                is_message = false;
            } else if is_message {
                message.push(line.to_owned());
            }
        }
    }
    results.fail(failure(name, at, message.join("\n").trim()));
}

/// The first place of a stack that is in the repository.
fn stack_place(lines: &[&str]) -> Option<(String, u32)> {
    lines
        .iter()
        .take(40)
        .map(|line| line.trim())
        .filter(|line| {
            line.starts_with("at ") && !line.contains("node_modules") && !line.contains("node:")
        })
        .find_map(|line| {
            let at = line.rsplit_once('(').map_or(&line[3..], |(_, at)| at.trim_end_matches(')'));
            place(at.trim_start_matches("file://"))
        })
}

/// A name without the time after it.
fn untimed(text: &str) -> &str {
    match text.rsplit_once(" (") {
        Some((name, time)) if time.ends_with("ms)") => name,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use crate::checks::results::read;

    fn counts(output: &str) -> (u64, u64, u64) {
        let counts = read(output).counts.expect(output);
        (counts.passed, counts.failed, counts.skipped)
    }

    #[test]
    fn node_is_read_in_both_forms() {
        let tap = "TAP version 13\n# Subtest: adds\nnot ok 1 - adds\n  ---\n  duration_ms: 1.2\n  location: '/w/test/a.test.js:3:1'\n  failureType: 'testCodeFailure'\n  error: |-\n    Expected values to be strictly equal:\n    \n    3 !== 4\n    \n  code: 'ERR_ASSERTION'\n  ...\nnot ok 2 - later # SKIP\n1..2\n# tests 2\n# suites 0\n# pass 0\n# fail 1\n# cancelled 0\n# skipped 1\n# todo 0\n";
        assert_eq!(counts(tap), (0, 1, 1));
        insta::assert_debug_snapshot!(read(tap).failures, @r#"
        [
            TestFailure {
                name: "adds",
                file: Some(
                    "/w/test/a.test.js",
                ),
                line: Some(
                    3,
                ),
                message: "Expected values to be strictly equal:\n\n3 !== 4",
            },
        ]
        "#);
        let spec = "✖ adds (1.1ms)\nℹ tests 1\nℹ suites 0\nℹ pass 0\nℹ fail 1\nℹ cancelled 0\nℹ skipped 0\nℹ todo 0\n\n✖ failing tests:\n\ntest at test/a.test.js:3:1\n✖ adds (1.1ms)\n  AssertionError [ERR_ASSERTION]: boom\n\n";
        assert_eq!(counts(spec), (0, 1, 0));
        let failures = read(spec).failures;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!((failures[0].name.as_str(), failures[0].line), ("adds", Some(3)));
        assert!(read("# tests 0\n# suites 0\n# pass 0\n# fail 0\n").ran_none());
    }

    #[test]
    fn jest_vitest_and_mocha_are_read() {
        let jest = "  ● sum › adds\n\n    expect(received).toBe(expected)\n\n      at Object.<anonymous> (src/sum.test.js:5:11)\n\nTests:       1 failed, 1 skipped, 2 passed, 4 total\n";
        assert_eq!(counts(jest), (2, 1, 1));
        let failures = read(jest).failures;
        assert_eq!(failures[0].name, "sum › adds");
        assert_eq!(
            (failures[0].file.as_deref(), failures[0].line),
            (Some("src/sum.test.js"), Some(5))
        );
        assert_eq!(counts("      Tests  1 failed | 2 passed (3)\n"), (2, 1, 0));
        let mocha = "  2 passing (5ms)\n  1 pending\n  1 failing\n\n  1) sum\n       adds:\n\n      AssertionError: 3 == 4\n      at Context.<anonymous> (test/sum.js:7:12)\n";
        assert_eq!(counts(mocha), (2, 1, 1));
        let failures = read(mocha).failures;
        assert_eq!((failures[0].name.as_str(), failures[0].line), ("sum adds", Some(7)));
        assert!(read("No tests found, exiting with code 1\n").says_none);
    }
}

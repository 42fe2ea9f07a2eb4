//! cargo test and nextest.

use super::{Results, failure, number_before, place};

pub(super) fn read(lines: &[&str], results: &mut Results) {
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("test result: ") {
            results.count(
                number_before(rest, "passed"),
                number_before(rest, "failed"),
                number_before(rest, "ignored"),
            );
        } else if let Some(rest) = line.strip_prefix("Summary [")
            && rest.contains(" run:")
        {
            let failed = number_before(rest, "failed") + number_before(rest, "timed");
            results.count(number_before(rest, "passed"), failed, number_before(rest, "skipped"));
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            let told = told(&lines[at + 1..]);
            results.fail(failure(name, told.0, &told.1));
        } else if let Some(name) = nextest_name(line) {
            let told = told(&lines[at + 1..]);
            results.fail(failure(name, told.0, &told.1));
        }
    }
    // Tests whose output was not captured have no section of their own.
    for line in lines {
        if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            results.fail(failure(name.trim_end_matches(" - should panic"), None, ""));
        }
    }
}

/// The test of a line such as `FAIL [   0.006s] (1/9) crate module::test`.
fn nextest_name(line: &str) -> Option<&str> {
    let rest = ["FAIL", "SIGABRT", "SIGSEGV", "TIMEOUT", "LEAK-FAIL"]
        .iter()
        .find_map(|status| line.strip_prefix(status))?;
    let rest = rest.trim_start().strip_prefix('[')?;
    let (time, rest) = rest.split_once(']')?;
    let is_time = time.trim().trim_start_matches('>').ends_with('s');
    let rest = rest.trim();
    let name = match rest.strip_prefix('(') {
        Some(counted) => counted.split_once(')')?.1.trim(),
        None => rest,
    };
    (is_time && !name.is_empty()).then_some(name)
}

/// Where a test panicked and what it said, from the lines after its head.
fn told(lines: &[&str]) -> (Option<(String, u32)>, String) {
    let mut at = None;
    let mut message = Vec::new();
    for line in lines.iter().take(60) {
        if line.starts_with("---- ")
            || line.starts_with("failures:")
            || nextest_name(line.trim()).is_some()
        {
            break;
        }
        if let Some((_, rest)) = line.split_once("panicked at ")
            && at.is_none()
        {
            at = place(rest);
            continue;
        }
        let is_note = line.trim_start().starts_with("note: run with `RUST_BACKTRACE");
        if at.is_some() && is_note {
            break;
        }
        if at.is_some() || !line.trim().is_empty() {
            message.push(line.trim_end());
        }
    }
    (at, message.join("\n"))
}

#[cfg(test)]
mod tests {
    use crate::checks::results::read;

    #[test]
    fn cargo_test_is_read() {
        let output = "\nrunning 3 tests\ntest tests::good ... ok\ntest tests::bad ... FAILED\ntest tests::slow ... ignored\n\nfailures:\n\n---- tests::bad stdout ----\n\nthread 'tests::bad' (4711) panicked at src/lib.rs:12:9:\nassertion `left == right` failed\n  left: 1\n right: 2\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n\nfailures:\n    tests::bad\n\ntest result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        insta::assert_debug_snapshot!(read(output), @r#"
        Results {
            counts: Some(
                Counts {
                    passed: 3,
                    failed: 1,
                    skipped: 1,
                },
            ),
            failures: [
                TestFailure {
                    name: "tests::bad",
                    file: Some(
                        "src/lib.rs",
                    ),
                    line: Some(
                        12,
                    ),
                    message: "assertion `left == right` failed\n  left: 1\n right: 2",
                },
            ],
            says_none: false,
        }
        "#);
        assert!(read("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured").ran_none());
    }

    #[test]
    fn nextest_is_read() {
        let output = "        PASS [   0.006s] (1/2) demo tests::good\n        FAIL [   0.004s] (2/2) demo tests::bad\n  stdout ───\n\n    running 1 test\n    test tests::bad ... FAILED\n\n  stderr ───\n\n    thread 'tests::bad' panicked at src/lib.rs:9:5:\n    boom\n    note: run with `RUST_BACKTRACE=1` environment variable\n────\n     Summary [   0.010s] 2 tests run: 1 passed, 1 failed, 3 skipped\n        FAIL [   0.004s] (2/2) demo tests::bad\nerror: test run failed\n";
        let results = read(output);
        let counts = results.counts.unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped), (1, 1, 3));
        assert_eq!(results.failures.len(), 1, "{results:?}");
        assert_eq!(results.failures[0].name, "demo tests::bad");
        assert_eq!(results.failures[0].line, Some(9));
    }
}

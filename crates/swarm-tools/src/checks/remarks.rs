//! What linters say, as findings with file and line.
//!
//! As with tests, nothing here decides whether a check passed.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::Finding;

/// The most findings that are kept, and the most characters of one.
const FINDINGS: usize = 500;
const MESSAGE_CHARS: usize = 500;

/// `path:line:column: message`, the column optional.
static GENERIC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:vet: )?([^\s:][^\s:]*):(\d+)(?::(\d+))?:?\s+(\S.*)$")
        .expect("it is a pattern")
});

/// A rule's code before a message: `E501`, `F401 [*]`, `PLR0913`.
static CODE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([A-Z]{1,6}\d{1,5}):?\s+(?:\[\*\]\s+)?(.+)$").expect("it is a pattern")
});

/// A line of eslint's usual form: `  12:5  error  message  rule`.
static STYLISH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s+(\d+):\d+\s+(?:error|warning)\s+(.+?)(?:\s{2,}(\S+))?$")
        .expect("it is a pattern")
});

/// What an output says about the code.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Remarks {
    /// The findings, each once.
    pub(super) findings: Vec<Finding>,
    /// The output in words, when it itself is for machines.
    pub(super) readable: Option<String>,
}

impl Remarks {
    fn add(&mut self, path: &str, line: u32, rule: &str, message: &str) {
        let message = message.trim();
        let cut = message.char_indices().nth(MESSAGE_CHARS).map_or(message.len(), |(at, _)| at);
        let finding = Finding {
            path: path.to_owned(),
            line,
            rule: rule.to_owned(),
            message: message[..cut].to_owned(),
        };
        if self.findings.len() < FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Reads an output: stdout, and stderr after it.
pub(super) fn read(output: &str) -> Remarks {
    let mut remarks = Remarks::default();
    let mut rendered = Vec::new();
    let mut is_json = false;
    let mut file = None;
    for line in output.lines() {
        if line.starts_with("{\"reason\":") {
            is_json = true;
            if let Ok(message) = serde_json::from_str(line) {
                cargo_message(&message, &mut remarks, &mut rendered);
            }
        } else if line.starts_with("[{\"filePath\":") {
            is_json = true;
            if let Ok(files) = serde_json::from_str(line) {
                eslint_files(&files, &mut remarks, &mut rendered);
            }
        } else if let Some(rest) = line.strip_prefix("Diff in ") {
            rustfmt(rest, &mut remarks);
        } else if let Some(found) = STYLISH.captures(line) {
            if let (Some(file), Ok(number)) = (file, found[1].parse()) {
                remarks.add(file, number, found.get(3).map_or("", |rule| rule.as_str()), &found[2]);
            }
        } else if let Some(found) = GENERIC.captures(line) {
            generic(&found, &mut remarks);
        } else if !line.starts_with(' ') && !line.is_empty() {
            file = Some(line.trim_end());
        }
        if !is_json || !line.starts_with(['{', '[']) {
            rendered.push(line.to_owned());
        }
    }
    remarks.readable = is_json.then(|| rendered.join("\n"));
    remarks
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|line| u32::try_from(line).ok()).unwrap_or(0)
}

/// One line of `cargo --message-format=json`.
fn cargo_message(line: &Value, remarks: &mut Remarks, rendered: &mut Vec<String>) {
    let message = &line["message"];
    let text = message["message"].as_str().unwrap_or_default();
    if line["reason"] != "compiler-message" || text.is_empty() {
        return;
    }
    let Some(spans) = message["spans"].as_array() else { return };
    let Some(span) = spans.iter().find(|span| span["is_primary"] == true) else { return };
    let rule = message["code"]["code"].as_str().unwrap_or_default();
    let before = remarks.findings.len();
    remarks.add(
        span["file_name"].as_str().unwrap_or_default(),
        number(&span["line_start"]),
        rule,
        text,
    );
    // With all targets the same code is compiled, and remarked on, more than once.
    if remarks.findings.len() > before
        && let Some(text) = message["rendered"].as_str()
    {
        rendered.extend(text.lines().map(str::to_owned));
    }
}

/// The array of `eslint --format json`.
fn eslint_files(files: &Value, remarks: &mut Remarks, rendered: &mut Vec<String>) {
    for file in files.as_array().into_iter().flatten() {
        let path = file["filePath"].as_str().unwrap_or_default();
        for message in file["messages"].as_array().into_iter().flatten() {
            let text = message["message"].as_str().unwrap_or_default();
            let rule = message["ruleId"].as_str().unwrap_or_default();
            let line = number(&message["line"]);
            remarks.add(path, line, rule, text);
            rendered.push(format!("{path}:{line}: {text} ({rule})"));
        }
    }
}

/// `src/lib.rs:3:` or, from older ones, `src/lib.rs at line 3:`.
fn rustfmt(rest: &str, remarks: &mut Remarks) {
    let rest = rest.trim_end_matches(':');
    let split = rest.rsplit_once(" at line ").or_else(|| rest.rsplit_once(':'));
    if let Some((path, line)) = split
        && let Ok(line) = line.parse()
    {
        remarks.add(path, line, "rustfmt", "not formatted as rustfmt would");
    }
}

fn generic(found: &regex::Captures<'_>, remarks: &mut Remarks) {
    let path = &found[1];
    let is_path = path.contains(['.', '/']) && !path.starts_with("http") && !path.starts_with("//");
    let Ok(line) = found[2].parse() else { return };
    if !is_path {
        return;
    }
    let text = ["error: ", "warning: ", "note: "]
        .iter()
        .find_map(|level| found[4].strip_prefix(level))
        .unwrap_or(&found[4]);
    match CODE.captures(text) {
        Some(coded) => remarks.add(path, line, &coded[1], &coded[2]),
        None => remarks.add(path, line, "", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(output: &str) -> String {
        let found = read(output).findings;
        let line = |f: &Finding| format!("{}:{} [{}] {}", f.path, f.line, f.rule, f.message);
        found.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_usual_forms_are_read() {
        insta::assert_snapshot!(lines("src/a.py:1:8: F401 [*] `os` imported but unused\n./b.py:3:80: E501 line too long\n./x.go:3:2: undefined: y\nsrc/m.c:9: warning: unused\nFound 2 errors.\nsee http://a.b:80: no\nserver listening on 1:2: x\n"), @"
        src/a.py:1 [F401] `os` imported but unused
        ./b.py:3 [E501] line too long
        ./x.go:3 [] undefined: y
        src/m.c:9 [] unused
        ");
        insta::assert_snapshot!(lines("\n/w/src/a.js\n  1:7  error  'x' is assigned a value but never used  no-unused-vars\n  3:1  warning  Unexpected console\n\n✖ 2 problems\n"), @"
        /w/src/a.js:1 [no-unused-vars] 'x' is assigned a value but never used
        /w/src/a.js:3 [] Unexpected console
        ");
        insta::assert_snapshot!(lines("Diff in /w/src/main.rs:1:\n-fn  main\nDiff in src/b.rs at line 7:\n"), @"
        /w/src/main.rs:1 [rustfmt] not formatted as rustfmt would
        src/b.rs:7 [rustfmt] not formatted as rustfmt would
        ");
    }

    #[test]
    fn machine_output_is_read_once_and_told_in_words() {
        let line = r#"{"reason":"compiler-message","message":{"rendered":"warning: unused\n --> src/a.rs:2:9\n","code":{"code":"unused_variables"},"message":"unused variable: `x`","spans":[{"file_name":"src/a.rs","line_start":2,"is_primary":true}]}}"#;
        let output = format!(
            "{line}\n{line}\n{{\"reason\":\"build-finished\",\"success\":true}}\nwarning: 1 warning\n"
        );
        let remarks = read(&output);
        assert_eq!(lines(&output), "src/a.rs:2 [unused_variables] unused variable: `x`");
        assert_eq!(
            remarks.readable.unwrap(),
            "warning: unused\n --> src/a.rs:2:9\nwarning: 1 warning"
        );
        let eslint = r#"[{"filePath":"/w/a.js","messages":[{"ruleId":"eqeqeq","severity":2,"message":"Expected","line":4}]}]"#;
        assert_eq!(lines(eslint), "/w/a.js:4 [eqeqeq] Expected");
    }
}

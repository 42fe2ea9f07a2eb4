//! What is wrong in a configuration file, each with its place and what would be right.
//!
//! They read like the defects of graphs. A file is refused with all its defects at once, never
//! with the first one only. Whoever writes a key into the file by mistake must not find it in a
//! log: what looks like one is veiled in the lines that are shown.

use std::fmt;
use std::path::PathBuf;

use super::tree::{Place, columns};

/// One thing wrong in the file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Defect {
    /// Where.
    pub place: Place,
    /// The path of keys, such as `models.default.name`; empty for the whole file.
    pub path: String,
    /// What is wrong; a lowercase fragment.
    pub message: String,
    /// What would be right, where the message does not say it.
    pub help: Option<String>,
}

/// All that is wrong in one file.
#[derive(Clone, Debug)]
pub struct Defects {
    /// The file.
    pub file: PathBuf,
    /// Its text, for the snippets.
    pub text: String,
    /// At least one, in the order of the text.
    pub defects: Vec<Defect>,
}

impl std::error::Error for Defects {}

impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let count = self.defects.len();
        write!(f, "{file} has {count} {}", if count == 1 { "defect" } else { "defects" })?;
        for defect in &self.defects {
            let Place { line, column, .. } = defect.place;
            let at =
                if defect.path.is_empty() { String::new() } else { format!("{}: ", defect.path) };
            let gutter = " ".repeat(line.to_string().len());
            write!(f, "\n\n{at}{}\n{gutter}--> {file}:{line}:{column}", defect.message)?;
            if let Some(source) = self.text.lines().nth(line.saturating_sub(1)) {
                let marked = columns(source, defect.place);
                let before = " ".repeat(source[..marked.start].chars().count());
                let marks = "^".repeat(source[marked].chars().count().max(1));
                write!(f, "\n{gutter} |\n{line} | {}\n{gutter} | {before}{marks}", veiled(source))?;
            }
            if let Some(help) = &defect.help {
                write!(f, "\n{gutter} = help: {help}")?;
            }
        }
        Ok(())
    }
}

/// The line with dots over everything that could be a key: long words with digits in them, and
/// the value of `key_env`, which is a name unless it is a mistake.
fn veiled(line: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let mut veiled = String::with_capacity(line.len());
    let mut rest = line;
    let mut after_key_env = false;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|letter| is_part(letter) != is_part(first)).unwrap_or(rest.len());
        let (word, later) = rest.split_at(end);
        let is_name = word.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        let is_long = word.len() >= 20 && word.bytes().any(|byte| byte.is_ascii_digit());
        if is_part(first) && !is_name && (is_long || after_key_env) {
            veiled.extend(word.chars().map(|_| '•'));
        } else {
            veiled.push_str(word);
        }
        if is_part(first) {
            after_key_env = word == "key_env";
        }
        rest = later;
    }
    veiled
}

#[cfg(test)]
mod tests {
    use super::veiled;

    #[test]
    fn what_looks_like_a_key_is_veiled_and_nothing_else() {
        for (line, shown) in [
            ("key: sk-proj-1234567890abcdef", "key: ••••••••••••••••••••••••"),
            ("default: { key_env: sk-short }", "default: { key_env: •••••••• }"),
            ("key_env: OPENAI_API_KEY", "key_env: OPENAI_API_KEY"),
            ("base_url: https://api.example.com/v1", "base_url: https://api.example.com/v1"),
            ("name: claude-some-model", "name: claude-some-model"),
        ] {
            assert_eq!(veiled(line), shown);
        }
    }
}

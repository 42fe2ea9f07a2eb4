//! What commands print: text for people or JSON for programs, never both.

use std::io::Write as _;

use serde::Serialize;

/// Who goes on with a run once its question is answered: the command that answers does not.
pub const WHO_GOES_ON: &str = "Whoever works on it does so by itself; if nobody does, start \
                               `swarm-host run`, or the command that began it, again.";

/// Standard output of one command.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    json: bool,
}

impl Out {
    /// JSON if `json`, else text.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read this.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value` as JSON, or what `text` says.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        line(&text)
    }

    /// Prints `value` as one line of JSON, or what `text` says.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn line<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string(value)? } else { text() };
        line(&text)
    }
}

/// Prints a text as it is, without final spaces.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(anstream::stdout(), "{}", text.trim_end())?)
}

/// Rows in columns, the first as heading.
#[must_use]
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(heading.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> =
        table.lines().map(|line| line.trim_end().trim_start_matches(' ').to_owned()).collect();
    lines.join("\n")
}

/// A path as a shell reads it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:=@%,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

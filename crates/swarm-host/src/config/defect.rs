//! What is wrong in a configuration file, each with its place and what would be right.
//!
//! A file is refused with all its defects at once, never with the first one only.

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
    /// What is wrong and what would be right; a lowercase fragment.
    pub message: String,
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
            write!(f, "\n\n{file}:{line}:{column}: ")?;
            if !defect.path.is_empty() {
                write!(f, "{}: ", defect.path)?;
            }
            write!(f, "{}", defect.message)?;
            if let Some(source) = self.text.lines().nth(line.saturating_sub(1)) {
                let marked = columns(source, defect.place);
                let before = source[..marked.start].chars().count();
                let marks = source[marked].chars().count().max(1);
                write!(f, "\n{line:>5} | {source}")?;
                write!(f, "\n      | {}{}", " ".repeat(before), "^".repeat(marks))?;
            }
        }
        Ok(())
    }
}

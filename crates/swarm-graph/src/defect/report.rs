//! Collecting defects: from places in files to lines with marks.

use std::sync::Arc;

use super::{Code, Defect, Defects, Severity, Snippet};
use crate::spec::yaml::Span;

const SNIPPET_LEN_MAX: usize = 120;
/// More than this many defects help nobody, and cost memory on a hostile text.
const DEFECTS_MAX: usize = 200;

struct File {
    name: Arc<str>,
    text: String,
}

/// The files of a graph, and what is wrong with them so far.
#[derive(Default)]
pub(crate) struct Report {
    files: Vec<File>,
    list: Vec<Defect>,
    overflow: Option<Defect>,
}

impl Report {
    /// Adds a file; spans refer to it by the number that this returns.
    pub(crate) fn add_file(&mut self, name: &str, text: &str) -> u16 {
        self.files.push(File { name: name.into(), text: text.to_owned() });
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    /// The name of a file.
    pub(crate) fn file_name(&self, file: u16) -> Arc<str> {
        self.files.get(usize::from(file)).map_or_else(|| "?".into(), |file| Arc::clone(&file.name))
    }

    /// Notes an error; the caller may add `help` to what this returns.
    pub(crate) fn error(
        &mut self,
        code: Code,
        at: Span,
        message: impl Into<String>,
    ) -> &mut Defect {
        self.note(Severity::Error, code, at, message.into())
    }

    /// Notes a warning; the caller may add `help` to what this returns.
    pub(crate) fn warn(&mut self, code: Code, at: Span, message: impl Into<String>) -> &mut Defect {
        self.note(Severity::Warning, code, at, message.into())
    }

    fn note(&mut self, severity: Severity, code: Code, at: Span, message: String) -> &mut Defect {
        let defect = Defect {
            code,
            severity,
            file: self.file_name(at.file),
            line: at.line,
            column: at.column,
            message,
            help: None,
            snippet: self.snippet(at),
        };
        if self.list.len() >= DEFECTS_MAX {
            return self.overflow.insert(defect);
        }
        self.list.push(defect);
        self.list.last_mut().expect("just pushed")
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.list.iter().filter(|defect| defect.severity == Severity::Error).count()
    }

    /// The warnings, if nothing worse was found; else everything, in the order of the text.
    pub(crate) fn finish(mut self) -> Result<Vec<Defect>, Defects> {
        let rank = |defect: &Defect| {
            let file = self.files.iter().position(|file| file.name == defect.file);
            (file, defect.line, defect.column, defect.severity, defect.code)
        };
        self.list.sort_by_key(rank);
        self.list.dedup();
        if self.errors() == 0 {
            return Ok(self.list);
        }
        let file = self.file_name(0);
        Err(Defects { file, list: self.list })
    }

    /// The place of a byte inside a text at `at`: `text` is the value as parsed, `offset` a byte
    /// in it, `needle` what stands there. Escapes and block scalars move things, so the needle is
    /// looked for; if it is not found, the place of the whole text is the best there is.
    pub(crate) fn inside(&self, at: Span, text: &str, offset: usize, needle: &str) -> Span {
        let Some(source) =
            self.files.get(usize::from(at.file)).and_then(|file| file.text.get(at.start..))
        else {
            return at;
        };
        let quoted = usize::from(source.starts_with(['"', '\'']));
        let direct = text
            .get(..offset)
            .filter(|before| source.get(quoted..).is_some_and(|inside| inside.starts_with(before)));
        let found = match direct {
            Some(before) => Some(quoted + before.len()),
            None => source.find(needle),
        };
        found.map_or(at, |offset| shifted(at, source, offset))
    }

    fn snippet(&self, at: Span) -> Option<Snippet> {
        let text = &self.files.get(usize::from(at.file))?.text;
        let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
        let line = text.lines().nth(index)?.trim_end();
        let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
        let token: String = line.chars().skip(column).collect();
        let len = token_len(&token).max(1);
        // Long lines are cut around the place; tabs would move the marks.
        let skip = column.saturating_sub(SNIPPET_LEN_MAX / 2);
        let shown: String = line
            .chars()
            .skip(skip)
            .take(SNIPPET_LEN_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let start = column - skip;
        let len = len.min(shown.chars().count().saturating_sub(start).max(1));
        Some(Snippet { text: shown, start, len })
    }
}

fn shifted(at: Span, source: &str, offset: usize) -> Span {
    let mut moved = Span { start: at.start + offset, ..at };
    for c in source.get(..offset).unwrap_or_default().chars() {
        if c == '\n' {
            moved.line += 1;
            moved.column = 1;
        } else {
            moved.column += 1;
        }
    }
    moved
}

/// How many characters the YAML token at the start of `text` has on its line.
fn token_len(text: &str) -> usize {
    let mut chars = text.chars();
    match chars.next() {
        Some(quote @ ('"' | '\'')) => {
            let mut escaped = false;
            let mut len = 1;
            for c in chars {
                len += 1;
                if escaped {
                    escaped = false;
                } else if c == '\\' && quote == '"' {
                    escaped = true;
                } else if c == quote {
                    break;
                }
            }
            len
        }
        Some('{' | '[' | '|' | '>' | '-') => 1,
        _ => {
            let mut len = 0;
            let mut previous = ' ';
            for (at, c) in text.char_indices() {
                let next = text[at + c.len_utf8()..].chars().next();
                let ends = matches!(c, ',' | ']' | '}' | '"' | ')')
                    || (c == ':' && next.is_none_or(char::is_whitespace))
                    || (c == '#' && previous == ' ');
                if ends {
                    break;
                }
                previous = c;
                len += 1;
            }
            text.chars().take(len).collect::<String>().trim_end().chars().count()
        }
    }
}

//! Text of a file as a model sees it: lines end in a bare newline, whatever the file does.
//!
//! A change must not touch what it does not mean: [`Text`] keeps the raw text and maps places in
//! the plain one back to it, so that a file with mixed line endings stays mixed.

use super::Trouble;

/// A file's text.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    raw: String,
    plain: String,
    /// Places in `plain` of the newlines that have a carriage return before them in `raw`.
    returns: Vec<usize>,
}

impl Text {
    /// The text of `bytes`, refused when it is binary or not UTF-8.
    pub(crate) fn decode(path: &str, bytes: Vec<u8>) -> Result<Self, Trouble> {
        let size = bytes.len();
        if bytes.contains(&0) {
            return Err(Trouble::Refused(format!(
                "`{path}` is binary ({size} bytes) and cannot be shown or edited as text"
            )));
        }
        let raw = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            format!(
                "`{path}` is not UTF-8 text ({size} bytes, the first bad one at {at}) and cannot be shown or edited without loss"
            )
        })?;
        Ok(Self::new(raw))
    }

    /// The text `raw`.
    pub(crate) fn new(raw: String) -> Self {
        let mut returns = Vec::new();
        let mut plain = String::with_capacity(raw.len());
        let mut rest = raw.as_str();
        while let Some(at) = rest.find("\r\n") {
            plain.push_str(&rest[..at]);
            returns.push(plain.len());
            plain.push('\n');
            rest = &rest[at + 2..];
        }
        plain.push_str(rest);
        Self { raw, plain, returns }
    }

    /// The text with bare newlines.
    pub(crate) fn plain(&self) -> &str {
        &self.plain
    }

    /// Whether most lines end in carriage return and newline.
    pub(crate) fn is_crlf(&self) -> bool {
        let newlines = self.plain.bytes().filter(|byte| *byte == b'\n').count();
        self.returns.len() * 2 > newlines
    }

    /// The place in the raw text of a place in the plain one.
    fn raw_at(&self, plain: usize) -> usize {
        plain + self.returns.partition_point(|newline| *newline < plain)
    }

    /// The raw text with the given ranges of the plain one replaced. Ranges are in order and do
    /// not overlap; what is put in takes the line endings of the file.
    pub(crate) fn replaced(&self, changes: &[(std::ops::Range<usize>, &str)]) -> String {
        let mut out = String::with_capacity(self.raw.len());
        let mut done = 0;
        for (range, new) in changes {
            out.push_str(&self.raw[done..self.raw_at(range.start)]);
            out.push_str(&self.ended(new));
            done = self.raw_at(range.end);
        }
        out.push_str(&self.raw[done..]);
        out
    }

    /// `new`, with this file's line endings unless it brings carriage returns of its own.
    pub(crate) fn ended(&self, new: &str) -> String {
        if self.is_crlf() && !new.contains('\r') {
            new.replace('\n', "\r\n")
        } else {
            new.to_owned()
        }
    }
}

/// The first `max` characters of a line, saying how many more there are.
pub(crate) fn cut_line(line: &str, max: usize) -> std::borrow::Cow<'_, str> {
    match line.char_indices().nth(max) {
        None => line.into(),
        Some((at, _)) => {
            let more = line[at..].chars().count();
            format!("{} … ({more} more characters)", &line[..at]).into()
        }
    }
}

/// The line, from 1, in which a place of a text is.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_other_lines_endings_alone() {
        let text = Text::new("a\r\nb\nc\r\nd\r\n".to_owned());
        assert_eq!(text.plain(), "a\nb\nc\nd\n");
        let at = text.plain().find("c\n").unwrap();
        assert_eq!(text.replaced(&[(at..at + 1, "x\ny")]), "a\r\nb\nx\r\ny\r\nd\r\n");
        assert_eq!(text.replaced(&[(0..8, "")]), "");
        assert_eq!(text.replaced(&[]), "a\r\nb\nc\r\nd\r\n");
    }

    #[test]
    fn a_lone_carriage_return_is_text() {
        let text = Text::new("a\rb\n".to_owned());
        assert_eq!(text.plain(), "a\rb\n");
        assert!(!text.is_crlf());
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        for bytes in [&b"a\0b"[..], &b"\xff\xfe"[..], &b"caf\xe9"[..]] {
            assert!(matches!(Text::decode("f", bytes.to_vec()), Err(Trouble::Refused(_))));
        }
    }
}

//! A unified diff's text, parsed: which files, which hunks.
//!
//! Numbers in a hunk's head are hints here. Where a hunk ends is told by what follows it, for a
//! model's counts are often off by one; only a line that can be read both ways asks the counts.

use super::super::Trouble;

/// What a patch does to one file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct FilePatch {
    /// The file before; `None` when it is made.
    pub(super) old: Option<String>,
    /// The file after; `None` when it is deleted.
    pub(super) new: Option<String>,
    /// Its new permission bits, if they are given.
    pub(super) mode: Option<u32>,
    /// What changes in it, in order.
    pub(super) hunks: Vec<Hunk>,
}

/// One changed place.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Hunk {
    /// The head as written.
    pub(super) head: String,
    /// The first old line, from 1, if the head names one.
    pub(super) start: Option<usize>,
    /// Its lines.
    pub(super) lines: Vec<Line>,
    /// Whether the new text's last line has no newline.
    pub(super) is_new_unended: bool,
}

/// One line of a hunk, without its mark.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// In the old and the new file.
    Both(String),
    /// Only in the old.
    Old(String),
    /// Only in the new.
    New(String),
}

/// Parses a patch; one without any change is refused.
pub(super) fn parse(patch: &str) -> Result<Vec<FilePatch>, Trouble> {
    let lines: Vec<&str> =
        patch.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let mut parser = Parser { lines, at: 0 };
    let mut patches = Vec::new();
    while let Some(patch) = parser.file()? {
        patches.push(patch);
    }
    if patches.is_empty() {
        return Err(Trouble::Refused(
            "there is no file in the patch: it must be a unified diff with `--- a/PATH`, \
             `+++ b/PATH` and `@@` lines"
                .to_owned(),
        ));
    }
    Ok(patches)
}

struct Parser<'a> {
    lines: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn line(&self, ahead: usize) -> Option<&'a str> {
        self.lines.get(self.at + ahead).copied()
    }

    /// Whether a file's `---`, `+++` stand at this line.
    fn is_names(&self, ahead: usize) -> bool {
        self.line(ahead).is_some_and(|line| line.starts_with("--- "))
            && self.line(ahead + 1).is_some_and(|line| line.starts_with("+++ "))
    }

    /// The next file's patch, whatever prose stands before it.
    fn file(&mut self) -> Result<Option<FilePatch>, Trouble> {
        while let Some(line) = self.line(0) {
            if line.starts_with("diff --git ") || self.is_names(0) {
                break;
            }
            if line.starts_with("@@") {
                return self.refuse("a hunk without `--- a/PATH` and `+++ b/PATH` before it");
            }
            self.at += 1;
        }
        if self.line(0).is_none() {
            return Ok(None);
        }
        let mut patch = FilePatch::default();
        let mut is_made = false;
        let mut is_deleted = false;
        if let Some(names) = self.line(0).and_then(|line| line.strip_prefix("diff --git ")) {
            self.at += 1;
            if let Some((old, new)) = git_names(names) {
                (patch.old, patch.new) = (Some(old), Some(new));
            }
            while let Some(line) = self.line(0) {
                if line.starts_with("diff --git ") || line.starts_with("@@") || self.is_names(0) {
                    break;
                }
                if let Some(mode) = line.strip_prefix("new file mode ") {
                    is_made = true;
                    patch.mode = Some(self.mode(mode)?);
                } else if let Some(mode) = line.strip_prefix("new mode ") {
                    patch.mode = Some(self.mode(mode)?);
                } else if let Some(mode) = line.strip_prefix("deleted file mode ") {
                    is_deleted = true;
                    self.mode(mode)?;
                } else if let Some(name) = line.strip_prefix("rename from ") {
                    patch.old = Some(unquoted(name));
                } else if let Some(name) = line.strip_prefix("rename to ") {
                    patch.new = Some(unquoted(name));
                } else if line.starts_with("copy from ") {
                    return self.refuse("copies are not supported; make the file with `write`");
                } else if line.starts_with("Binary files ") || line.starts_with("GIT binary patch")
                {
                    return self.refuse("binary files cannot be patched");
                }
                self.at += 1;
            }
        }
        if self.is_names(0) {
            let old = self.line(0).map(|line| named(&line[4..])).unwrap_or_default();
            let new = self.line(1).map(|line| named(&line[4..])).unwrap_or_default();
            self.at += 2;
            (patch.old, patch.new) = without_prefixes(old, new);
            is_made |= patch.old.is_none();
            is_deleted |= patch.new.is_none();
        }
        if is_made {
            patch.old = None;
        }
        if is_deleted {
            patch.new = None;
        }
        while self.line(0).is_some_and(|line| line.starts_with("@@")) {
            let hunk = self.hunk()?;
            patch.hunks.push(hunk);
        }
        if patch.old.is_none() && patch.new.is_none() {
            return self.refuse("which file is meant cannot be told");
        }
        Ok(Some(patch))
    }

    fn mode(&self, mode: &str) -> Result<u32, Trouble> {
        match mode.trim() {
            "100644" => Ok(0o644),
            "100755" => Ok(0o755),
            "120000" => self.refuse("symbolic links cannot be patched"),
            "160000" => self.refuse("submodules cannot be patched"),
            _ => self.refuse("a file mode must be 100644 or 100755"),
        }
    }

    /// Whether a hunk ends before this line. `left` tells how many old and new lines its head
    /// still promises, if it promised any.
    fn ends(&self, left: Option<(usize, usize)>) -> bool {
        let Some(line) = self.line(0) else { return true };
        if line.starts_with("diff --git ") || line.starts_with("@@") {
            return true;
        }
        if self.is_names(0) {
            // A deleted `-- x` and an added `++ y` look like this too.
            return left == Some((0, 0)) || self.line(2).is_some_and(|line| line.starts_with("@@"));
        }
        // `-- ` is the signature under a mailed patch.
        left == Some((0, 0)) && (line == "-- " || !line.starts_with([' ', '+', '-', '\\']))
    }

    fn hunk(&mut self) -> Result<Hunk, Trouble> {
        let head = self.line(0).unwrap_or_default();
        let (start, counts) = head_numbers(head);
        let mut hunk = Hunk { head: head.to_owned(), start, ..Hunk::default() };
        let mut left = counts;
        self.at += 1;
        while !self.ends(left) {
            let line = self.line(0).unwrap_or_default();
            let (old, new) = match line.split_at_checked(1) {
                Some((" ", text)) => {
                    hunk.lines.push(Line::Both(text.to_owned()));
                    (1, 1)
                }
                Some(("-", text)) => {
                    hunk.lines.push(Line::Old(text.to_owned()));
                    (1, 0)
                }
                Some(("+", text)) => {
                    hunk.lines.push(Line::New(text.to_owned()));
                    (0, 1)
                }
                Some(("\\", _)) => {
                    hunk.is_new_unended |= !matches!(hunk.lines.last(), Some(Line::Old(_)));
                    (0, 0)
                }
                // Editors and models drop the space of an empty context line.
                None if line.is_empty() => {
                    hunk.lines.push(Line::Both(String::new()));
                    (1, 1)
                }
                _ => {
                    return self
                        .refuse("a line of a hunk must begin with a space, `-`, `+` or `\\`");
                }
            };
            left =
                left.map(|(o, n): (usize, usize)| (o.saturating_sub(old), n.saturating_sub(new)));
            self.at += 1;
        }
        self.trim(&mut hunk, counts);
        if !hunk.lines.iter().any(|line| !matches!(line, Line::Both(_))) {
            self.at -= 1;
            return self.refuse(&format!("hunk `{}` changes nothing", hunk.head));
        }
        Ok(hunk)
    }

    /// Takes away empty lines at the end that are no context but the space between files, or the
    /// end of the text.
    fn trim(&self, hunk: &mut Hunk, counts: Option<(usize, usize)>) {
        let olds = |lines: &[Line]| lines.iter().filter(|l| !matches!(l, Line::New(_))).count();
        let mut back = 1;
        while matches!(hunk.lines.last(), Some(Line::Both(text)) if text.is_empty())
            && self.lines[self.at - back].is_empty()
            && counts.is_none_or(|(old, _)| olds(&hunk.lines) > old)
        {
            hunk.lines.pop();
            back += 1;
        }
    }

    fn refuse<T>(&self, words: &str) -> Result<T, Trouble> {
        let at = self.at.min(self.lines.len().saturating_sub(1));
        let line: String = self.lines[at].chars().take(120).collect();
        Err(Trouble::Refused(format!("line {} of the patch (`{line}`): {words}", at + 1)))
    }
}

/// The first old line and the counts of `@@ -START,OLD +START,NEW @@`, as far as they are there.
fn head_numbers(head: &str) -> (Option<usize>, Option<(usize, usize)>) {
    let mut words = head.trim_start_matches('@').split_whitespace();
    let mut side = |mark: char| {
        let word = words.next()?.strip_prefix(mark)?;
        let (start, count) = word.split_once(',').unwrap_or((word, "1"));
        Some((start.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
    };
    match (side('-'), side('+')) {
        (Some((start, old)), Some((_, new))) => (Some(start), Some((old, new))),
        (Some((start, _)), None) => (Some(start), None),
        _ => (None, None),
    }
}

/// A name after `---` or `+++`: unquoted, without the time that some programs add.
fn named(text: &str) -> String {
    if text.starts_with('"') {
        return unquoted(text);
    }
    text.split('\t').next().unwrap_or_default().trim_end().to_owned()
}

/// The two names with git's `a/` and `b/` taken off; `None` for `/dev/null`.
fn without_prefixes(old: String, new: String) -> (Option<String>, Option<String>) {
    let is_null = |name: &str| name == "/dev/null";
    let has = |name: &str, prefix: &str| is_null(name) || name.starts_with(prefix);
    let is_prefixed = has(&old, "a/") && has(&new, "b/");
    let plain = |name: String| match is_null(&name) {
        true => None,
        false if is_prefixed => Some(name[2..].to_owned()),
        false => Some(name),
    };
    (plain(old), plain(new))
}

/// The names of `diff --git a/X b/X`, when they can be told apart.
fn git_names(text: &str) -> Option<(String, String)> {
    let (old, new) = if let Some(rest) = text.strip_prefix('"') {
        let end = rest.find("\" ")?;
        (unquoted(&text[..end + 2]), unquoted(&rest[end + 2..]))
    } else {
        // A name may hold spaces: the middle is where both halves name the same file.
        let middle = text
            .match_indices(" b/")
            .map(|(at, _)| at)
            .find(|at| text[..*at].strip_prefix("a/") == text[at + 1..].strip_prefix("b/"));
        let middle = middle.or_else(|| text.find(" b/"))?;
        (text[..middle].to_owned(), text[middle + 1..].to_owned())
    };
    match without_prefixes(old, new) {
        (Some(old), Some(new)) => Some((old, new)),
        _ => None,
    }
}

/// A name without the quotes and escapes that git puts around unusual ones.
fn unquoted(text: &str) -> String {
    let text = text.trim_end();
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut bytes = Vec::new();
    let mut rest = inner.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(next @ b'0'..=b'7') = rest.peek().copied() {
                        value = value * 8 + u32::from(next - b'0');
                        rest.next();
                    }
                }
                bytes.push(u8::try_from(value & 0xff).unwrap_or(b'?'));
            }
            Some(other) => bytes.push(other),
            None => bytes.push(b'\\'),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(patch: &str) -> FilePatch {
        let mut patches = parse(patch).unwrap();
        assert_eq!(patches.len(), 1, "{patches:?}");
        patches.remove(0)
    }

    fn refused(patch: &str) -> String {
        match parse(patch) {
            Err(Trouble::Refused(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_of_dashes_in_a_hunk_is_a_line() {
        let patch = only("--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1,2 @@\n--- old\n+++ new\n x\n");
        let lines = &patch.hunks[0].lines;
        assert_eq!(lines[0], Line::Old("-- old".to_owned()));
        assert_eq!(lines[1], Line::New("++ new".to_owned()));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn wrong_counts_do_not_swallow_the_next_file() {
        let patch = "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n-a\n+b\n--- a/y\n+++ b/y\n@@ -1,1 +1,1 @@\n-c\n+d\n";
        let patches = parse(patch).unwrap();
        assert_eq!(patches.len(), 2);
        assert_eq!(patches[0].hunks[0].lines.len(), 2);
        assert_eq!(patches[1].new.as_deref(), Some("y"));
    }

    #[test]
    fn a_bare_head_is_enough() {
        let patch = only("--- x\n+++ x\n@@\n a\n-b\n+c\n@@ fn main\n-d\n");
        assert_eq!(patch.old.as_deref(), Some("x"));
        assert_eq!(patch.hunks.len(), 2);
        assert_eq!(patch.hunks[0].start, None);
    }

    #[test]
    fn empty_lines_after_a_hunk_are_no_context() {
        let patch = only("--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-a\n+b\n\n\n");
        assert_eq!(patch.hunks[0].lines.len(), 2);
        let patch = only("--- a/x\n+++ b/x\n@@\n-a\n+b\n\n");
        assert_eq!(patch.hunks[0].lines.len(), 2);
        let patch = only("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n-a\n+b\n\n c\n");
        assert_eq!(patch.hunks[0].lines[2], Line::Both(String::new()));
    }

    #[test]
    fn git_heads_are_read() {
        let patch = only("diff --git a/x y b/x y\nold mode 100644\nnew mode 100755\n");
        assert_eq!((patch.old.as_deref(), patch.mode), (Some("x y"), Some(0o755)));
        let patch = only("diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n");
        assert_eq!((patch.old.as_deref(), patch.new.as_deref()), (Some("a"), Some("b")));
        let patch = only("diff --git a/e b/e\nnew file mode 100644\nindex 000..e69\n");
        assert_eq!((patch.old.as_deref(), patch.new.as_deref()), (None, Some("e")));
        let patch =
            only("diff --git \"a/\\303\\251\" \"b/\\303\\251\"\ndeleted file mode 100644\n");
        assert_eq!((patch.old.as_deref(), patch.new), (Some("é"), None));
    }

    #[test]
    fn what_cannot_be_patched_is_named_with_its_line() {
        insta::assert_snapshot!(refused("hello"), @"there is no file in the patch: it must be a unified diff with `--- a/PATH`, `+++ b/PATH` and `@@` lines");
        insta::assert_snapshot!(refused("@@ -1 +1 @@\n-a\n"), @"line 1 of the patch (`@@ -1 +1 @@`): a hunk without `--- a/PATH` and `+++ b/PATH` before it");
        insta::assert_snapshot!(refused("diff --git a/l b/l\nnew file mode 120000\n"), @"line 2 of the patch (`new file mode 120000`): symbolic links cannot be patched");
        insta::assert_snapshot!(refused("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\nb\n+c\n"), @r"line 5 of the patch (`b`): a line of a hunk must begin with a space, `-`, `+` or `\`");
        insta::assert_snapshot!(refused("--- a/x\n+++ b/x\n@@ -1 +1 @@\n a\n"), @"line 4 of the patch (` a`): hunk `@@ -1 +1 @@` changes nothing");
    }

    proptest::proptest! {
        /// Patches are written by a model; parsing and applying one never panics.
        #[test]
        fn any_text_can_be_parsed(pieces in proptest::collection::vec(proptest::sample::select(&[
            "--- a/x", "+++ b/x", "--- /dev/null", "+++ \"b/\\303", "diff --git ", "a/x b/x", "\"a/x\" \"b/x\"", "@@", "@@ -1,2 +1,3 @@",
            "@@ -0,0 +9 @@", " a", "-a", "+a", "\\ No newline", "rename from x", "new file mode 100755", "é", "-", "+", " ", "\n", "\n", "\n", "\n", "\r\n",
        ][..]), 0..40)) {
            let text = crate::toolbox::text::Text::new("a\nb\r\na\n\nc".to_owned());
            for patch in parse(&pieces.concat()).unwrap_or_default() {
                let _ = super::super::hunk::apply("x", &text, &patch.hunks);
            }
        }
    }
}

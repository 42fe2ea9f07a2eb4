//! Text of unknown origin, made harmless for a terminal.

/// One line without control characters, escape sequences and characters that reorder or hide
/// text; white space is single spaces.
#[must_use]
pub fn clean(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|letter| if letter.is_whitespace() { ' ' } else { letter })
        .filter(|&letter| !letter.is_control() && !is_hidden(letter))
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// [`clean`], and at most `max` characters with `…` for what is left out.
#[must_use]
pub fn clip(text: &str, max: usize) -> String {
    // Cutting first keeps a text of megabytes cheap.
    let head: String = text.chars().take(max.saturating_mul(4)).collect();
    let cleaned = clean(&head);
    if cleaned.chars().count() <= max && head.len() == text.len() {
        return cleaned;
    }
    let kept: String = cleaned.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// [`clean`] for a text of several lines: lines and their indentation stay.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    let line = |line: &str| -> String {
        line.replace('\t', "    ")
            .chars()
            .filter(|&letter| !letter.is_control() && !is_hidden(letter))
            .collect()
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Characters that are drawn as nothing or change the order of others.
fn is_hidden(letter: char) -> bool {
    matches!(letter,
        '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_move_the_cursor_or_hide_words() {
        assert_eq!(clean("a\u{1b}[2J\nb\u{202e}c\r\u{7}"), "a[2J bc");
    }

    #[test]
    fn a_text_keeps_its_lines_and_nothing_that_moves_the_cursor() {
        assert_eq!(clean_lines("a\r\n\tb\u{1b}[1A\u{200b}c"), "a\n    b[1Ac");
    }

    #[test]
    fn a_long_text_ends_in_an_ellipsis() {
        assert_eq!(clip("one two three", 8), "one two…");
        assert_eq!(clip("one two", 8), "one two");
    }
}

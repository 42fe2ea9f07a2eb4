//! Templates: JSON with expressions inside, as written under `with`, `set`, `input` and `ask`.
//!
//! A string that is one `${{ }}` and nothing else gives the value of the expression, of whatever
//! type; an expression inside a longer text is written into it. `$${{` is the text `${{`.

use serde_json::{Map, Value};

use super::eval::number_text;
use super::{Error, ErrorKind, Expr, Scope};

/// JSON with expressions inside, compiled.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// A constant, without any expression inside.
    Literal(Value),
    /// The value of an expression.
    Expr(Expr),
    /// A text with expressions inside; always gives a string.
    Text(Vec<Piece>),
    /// A list.
    List(Vec<Self>),
    /// An object, in the order of the file.
    Object(Vec<(String, Self)>),
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// An expression: strings as they are, `null` as nothing, all else as JSON.
    Expr(Expr),
}

impl Template {
    /// The value.
    ///
    /// # Errors
    /// The first expression that has none.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, Error> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Expr(expr) => expr.eval(scope)?,
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(part) => text.push_str(part),
                        Piece::Expr(expr) => match expr.eval(scope)? {
                            Value::String(part) => text.push_str(&part),
                            Value::Null => {}
                            Value::Number(number) => text.push_str(&number_text(&number)),
                            other => text.push_str(&other.to_string()),
                        },
                    }
                }
                Value::String(text)
            }
            Self::List(items) => {
                Value::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            Self::Object(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), value.render(scope)?)))
                    .collect::<Result<Map<_, _>, Error>>()?,
            ),
        })
    }

    /// The value as a string.
    ///
    /// # Errors
    /// As [`render`](Self::render), and when the value is no string.
    pub fn render_text(&self, scope: &Scope<'_>) -> Result<String, Error> {
        match self.render(scope)? {
            Value::String(text) => Ok(text),
            other => Err(Error {
                expression: match self {
                    Self::Expr(expr) => expr.source().into(),
                    Self::Literal(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => "".into(),
                },
                kind: ErrorKind::Type {
                    wanted: "a string",
                    found: swarm_core::reducer::kind_of(&other),
                },
            }),
        }
    }
}

/// A part of a string as written: where it begins, in bytes, and what it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RawPiece<'t> {
    /// Text as it stands.
    Text(&'t str),
    /// The inside of `${{ }}`, trimmed, with the byte at which it begins.
    Expr(&'t str, usize),
    /// A `${{` without its end.
    Open(usize),
}

/// Cuts a string at its `${{ }}`. Quotes inside an expression may hold `}}`.
pub(crate) fn pieces(text: &str) -> Vec<RawPiece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(found) = text[from..].find("${{").map(|at| at + from) {
        if found > start && text.as_bytes()[found - 1] == b'$' {
            pieces.push(RawPiece::Text(&text[start..found - 1]));
            pieces.push(RawPiece::Text("${{"));
            start = found + 3;
            from = start;
            continue;
        }
        if found > start {
            pieces.push(RawPiece::Text(&text[start..found]));
        }
        let Some(len) = end(&text[found + 3..]) else {
            pieces.push(RawPiece::Open(found));
            return pieces;
        };
        let inside = &text[found + 3..found + 3 + len];
        let lead = inside.len() - inside.trim_start().len();
        pieces.push(RawPiece::Expr(inside.trim(), found + 3 + lead));
        start = found + 3 + len + 2;
        from = start;
    }
    if start < text.len() {
        pieces.push(RawPiece::Text(&text[start..]));
    }
    pieces
}

/// Where the `}}` of an expression is: not inside quotes, and not the end of a map in a map.
fn end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut braces = 0_u32;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => {
                bytes.next();
            }
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => braces += 1,
            (None, b'}') if braces > 0 => braces -= 1,
            (None, b'}') if bytes.peek().is_some_and(|(_, next)| *next == b'}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::RawPiece::{Expr, Open, Text};
    use super::*;

    #[test]
    fn a_string_is_cut_at_its_expressions() {
        let check = |text, expected: &[RawPiece<'_>]| assert_eq!(pieces(text), expected, "{text}");
        check("", &[]);
        check("plain", &[Text("plain")]);
        check("${{ a }}", &[Expr("a", 4)]);
        check("a ${{b}} c", &[Text("a "), Expr("b", 5), Text(" c")]);
        check("${{ {'a': {'b': 1}} }}", &[Expr("{'a': {'b': 1}}", 4)]);
        check("${{ '}}' }}", &[Expr("'}}'", 4)]);
        check("${{ '\\'}}' }}", &[Expr("'\\'}}'", 4)]);
        check("${{ a ", &[Open(0)]);
        check("$${{ a }}", &[Text(""), Text("${{"), Text(" a }}")]);
    }
}

//! A YAML text as a tree in which every key and value knows its place.
//!
//! Typed decoding stops at the first mistake and forgets places; this keeps both, so that all
//! mistakes can be named at once. Nothing here knows what the keys mean.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::{DuplicateKeyPolicy, Location, Spanned};

/// A place in the text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub len: usize,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            line: whole(location.line()),
            column: whole(location.column()),
            len: whole(location.span().len()).max(1),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) place: Place,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, a truth, a number or a text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the text; a key may come twice.
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The key.
    pub(super) name: String,
    /// Where it begins.
    pub(super) place: Place,
}

/// A text that is not YAML at all.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    /// Where reading stopped.
    pub(super) place: Place,
    /// Why.
    pub(super) why: String,
}

impl Node {
    /// Reads one document. An empty text is an empty map.
    ///
    /// # Errors
    /// [`Unreadable`] when the text is not YAML, or too deep or large to be meant.
    pub(super) fn read(text: &str) -> Result<Self, Unreadable> {
        let options = serde_yaml::options! {
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            budget: serde_yaml::budget! { max_nodes: 20_000, max_depth: 32 },
        };
        match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
            Ok(raw) => Ok(match Self::from(raw) {
                Self { place, kind: Kind::Scalar(Value::Null) } => {
                    Self { place, kind: Kind::Map(Vec::new()) }
                }
                node => node,
            }),
            Err(error) => {
                let place = error.location().map(Place::from).unwrap_or_default();
                let why = error.without_snippet().to_string();
                let why = why.split(" at line ").next().unwrap_or_default().to_owned();
                Err(Unreadable { place, why })
            }
        }
    }

    /// The value without places. Of a key that comes twice, the last counts.
    #[must_use]
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.name.clone(), node.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The value behind a path of keys and indices, if it is there.
    #[must_use]
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match &node.kind {
            Kind::Scalar(_) => None,
            Kind::List(items) => items.get(step.parse::<usize>().ok()?),
            Kind::Map(entries) => {
                entries.iter().rev().find(|(key, _)| key.name == *step).map(|(_, node)| node)
            }
        })
    }

    /// The first text below here that reads `text`.
    pub(super) fn find(&self, text: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Scalar(value) => (value == text).then_some(self),
            Kind::List(items) => items.iter().find_map(|item| item.find(text)),
            Kind::Map(entries) => entries.iter().find_map(|(_, node)| node.find(text)),
        }
    }
}

/// The characters of `line` that a place means, as a byte range.
#[must_use]
pub(super) fn columns(line: &str, place: Place) -> Range<usize> {
    let byte = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let start = place.column.saturating_sub(1);
    byte(start)..byte(start + place.len)
}

impl From<Spanned<Raw>> for Node {
    fn from(raw: Spanned<Raw>) -> Self {
        let kind = match raw.value {
            Raw::Scalar(value) => Kind::Scalar(value),
            Raw::List(items) => Kind::List(items.into_iter().map(Self::from).collect()),
            Raw::Map(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let place = key.referenced.into();
                        (Key { name: key.value, place }, Self::from(value))
                    })
                    .collect(),
            ),
        };
        Self { place: raw.referenced.into(), kind }
    }
}

enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Number(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_place() {
        let tree = Node::read("worker:\n  slots: 4\n  poll: 'ü'\n").unwrap();
        let slots = tree.at(&["worker", "slots"]).unwrap();
        assert_eq!(slots.place, Place { line: 2, column: 10, len: 1 });
        assert_eq!(tree.to_value(), serde_json::json!({"worker": {"slots": 4, "poll": "ü"}}));
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        assert_eq!(Node::read("# nothing yet\n").unwrap().to_value(), serde_json::json!({}));
    }

    #[test]
    fn a_text_that_is_no_yaml_says_where_reading_stopped() {
        let unreadable = Node::read("a: [1\nb: 2\n").unwrap_err();
        assert_eq!((unreadable.place.line, unreadable.place.column), (2, 2));
        assert_eq!(unreadable.why, "illegal placement of ':' indicator");
    }

    #[test]
    fn a_file_that_grows_by_its_anchors_is_refused() {
        let level = |level: u32| {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            format!("a{level}: &a{level} [{items}]\n")
        };
        let text = format!("a0: &a0 [x, x, x]\n{}", (1..8).map(level).collect::<String>());
        assert!(Node::read(&text).is_err());
    }
}

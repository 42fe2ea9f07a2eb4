//! YAML as a tree in which every node knows its place.
//!
//! The only module that sees the YAML crate. A tree comes first and the spec is read from it, so
//! that one bad key or type does not hide the next: serde stops at the first. Only a text that is
//! not YAML at all, or breaks a budget, ends the reading of its file.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, UserMessageFormatter};

/// The largest file, in bytes.
pub(crate) const FILE_LEN_MAX: usize = 1024 * 1024;
const NODES_MAX: usize = 60_000;
const DEPTH_MAX: usize = 64;
const ALIASES_MAX: usize = 100;
const REPLAYED_EVENTS_MAX: usize = 20_000;
const STACK_NEEDED: usize = 16 * 1024 * 1024;

/// A place in one of the loaded files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Span {
    /// Which file, by its place in the list of files.
    pub(crate) file: u16,
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// The byte in the file at which it begins.
    pub(crate) start: usize,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spanned<T> {
    pub(crate) at: Span,
    pub(crate) value: T,
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Yaml {
    pub(crate) at: Span,
    pub(crate) data: Data,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Yaml>),
    /// In the order of the file; keys may occur twice until they were checked.
    Map(Vec<(Yaml, Yaml)>),
    /// A number that JSON does not have: infinite, or too large.
    NoJson,
}

impl Yaml {
    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "a boolean",
            Data::Number(_) | Data::NoJson => "a number",
            Data::Text(_) => "a text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// The entry of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().find(|(known, _)| known.data == Data::Text(key.to_owned())).map(|(_, v)| v)
    }

    /// The same data without places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null | Data::NoJson => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(number) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => Value::Object(
                entries
                    .iter()
                    .filter_map(|(k, v)| Some((k.as_key()?, v.to_json())))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    fn as_key(&self) -> Option<String> {
        match &self.data {
            Data::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The part of the tree at a path of keys and indices, as far as it exists.
    pub(crate) fn deepest(&self, path: impl IntoIterator<Item = String>) -> &Self {
        let mut here = self;
        for part in path {
            let next = match &here.data {
                Data::List(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
                Data::Map(_) => here.get(&part),
                Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::NoJson => None,
            };
            let Some(next) = next else { return here };
            here = next;
        }
        here
    }
}

/// Why a text is no YAML tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NoYaml {
    pub(crate) at: Span,
    pub(crate) message: String,
}

/// Parses one file.
pub(crate) fn parse(text: &str, file: u16) -> Result<Yaml, NoYaml> {
    let top = Span { file, line: 1, column: 1, start: 0 };
    if text.len() > FILE_LEN_MAX {
        let message =
            format!("the file has {} bytes, at most {FILE_LEN_MAX} are allowed", text.len());
        return Err(NoYaml { at: top, message });
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_documents: 1,
            max_total_scalar_bytes: FILE_LEN_MAX,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: REPLAYED_EVENTS_MAX,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    // The YAML crate recurses: a tree of the allowed depth needs more than a thread's usual 2 MiB.
    let tree = stacker::maybe_grow(STACK_NEEDED, STACK_NEEDED, || {
        serde_yaml::from_str_with_options::<serde_yaml::Spanned<Tree>>(text, options)
    });
    match tree {
        Ok(tree) => Ok(place(tree, file)),
        Err(error) => {
            let at = error.location().map_or(top, |location| span(location, file));
            let at = Span { start: byte_of(text, at).unwrap_or(at.start), ..at };
            let message = error.without_snippet().render_with_formatter(&UserMessageFormatter);
            // The place is told apart from the message, so it is cut off here.
            let message = message.split(" at line ").next().unwrap_or_default();
            Err(NoYaml { at, message: format!("not a graph's YAML: {message}") })
        }
    }
}

/// Scanner errors carry line and column, but no byte.
fn byte_of(text: &str, at: Span) -> Option<usize> {
    let line = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let inside: usize = text.get(before..)?.chars().take(column).map(char::len_utf8).sum();
    Some(before + inside)
}

fn span(location: Location, file: u16) -> Span {
    Span {
        file,
        line: u32::try_from(location.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX).max(1),
        start: location.span().byte_offset().and_then(|at| usize::try_from(at).ok()).unwrap_or(0),
    }
}

fn place(tree: serde_yaml::Spanned<Tree>, file: u16) -> Yaml {
    let at = span(tree.referenced, file);
    let data = match tree.value {
        Tree::Leaf(data) => data,
        Tree::List(items) => Data::List(items.into_iter().map(|item| place(item, file)).collect()),
        Tree::Map(entries) => Data::Map(
            entries
                .into_iter()
                .map(|(key, value)| (place(key, file), place(value, file)))
                .collect(),
        ),
    };
    Yaml { at, data }
}

/// What serde builds: the tree before its places are ours.
enum Tree {
    Leaf(Data),
    List(Vec<serde_yaml::Spanned<Self>>),
    Map(Vec<(serde_yaml::Spanned<Self>, serde_yaml::Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Number(value.into())))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::NoJson))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::NoJson))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(Number::from_f64(value).map_or(Data::NoJson, Data::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Leaf(Data::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(yaml: &Yaml) -> (u32, u32, usize) {
        (yaml.at.line, yaml.at.column, yaml.at.start)
    }

    #[test]
    fn every_node_knows_its_place() {
        let text = "é: 1\nlist:\n  - a\n  - { k: \"v\", k: w }\nb: |\n  text\n";
        let yaml = parse(text, 0).unwrap();
        assert_eq!(at(yaml.get("é").unwrap()), (1, 4, 4));
        let Data::List(items) = &yaml.get("list").unwrap().data else { panic!() };
        assert_eq!(at(&items[0]), (3, 5, 16));
        let Data::Map(entries) = &items[1].data else { panic!() };
        assert_eq!(entries.len(), 2, "repeated keys are seen");
        assert_eq!(at(&entries[0].1), (4, 10, 27));
        assert_eq!(yaml.get("b").unwrap().data, Data::Text("text\n".into()));
    }

    #[test]
    fn booleans_and_numbers_are_strict() {
        let check =
            |text: &str, data: Data| assert_eq!(parse(text, 0).unwrap().data, data, "{text}");
        check("yes", Data::Text("yes".into()));
        check("true", Data::Bool(true));
        check("012", Data::Text("012".into()));
        check("1_000", Data::Text("1_000".into()));
        check("1.0.0", Data::Text("1.0.0".into()));
        check("1.5", Data::Number(Number::from_f64(1.5).unwrap()));
        check(".inf", Data::NoJson);
        check("~", Data::Null);
        check("", Data::Null);
        check("'1'", Data::Text("1".into()));
    }

    #[test]
    fn bombs_end_quickly() {
        let nested = "[".repeat(100_000);
        assert!(parse(&nested, 0).is_err());
        let block: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(parse(&block, 0).is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb = [bomb, format!("a{level}: &a{level} [{below}]\n")].concat();
        }
        assert!(parse(&bomb, 0).is_err());
        assert!(parse(&"x, ".repeat(400_000), 0).is_err());
    }
}

//! From a YAML tree to plain structs: every key and type that is wrong is noted, none stops the
//! rest.
//!
//! `record!` writes a struct, how it is read and its JSON schema from one list of fields, so that
//! the loader and the schema that editors use cannot drift apart.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::yaml::{Data, Span, Spanned, Yaml};
use crate::defect::report::Report;
use crate::defect::{Code, suggest};

/// What can be read from a node of the tree.
pub(crate) trait Read: Sized {
    /// Reads it, or notes why not.
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self>;
}

/// What every struct that is read from a mapping can tell about its text.
pub(crate) trait Record {
    /// Where it begins.
    fn at(&self) -> Span;

    /// The keys that are there, readable or not.
    fn keys(&self) -> &[Spanned<&'static str>];

    /// Whether a key is there, readable or not.
    fn has(&self, key: &str) -> bool {
        self.keys().iter().any(|known| known.value == key)
    }

    /// Where a key is; where the whole begins, if it is not there.
    fn key_at(&self, key: &str) -> Span {
        self.keys().iter().find(|known| known.value == key).map_or(self.at(), |known| known.at)
    }
}

/// Declares structs that are read from mappings.
macro_rules! record {
    ($(
        $(#[doc = $doc:literal])+
        struct $name:ident($what:literal) {
            $(
                $(#[doc = $field_doc:literal])+
                $need:ident $field:ident: $ty:ty,
            )*
        }
    )*) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            /// Where it begins.
            at: Span,
            /// The keys that are there, readable or not.
            keys: Vec<Spanned<&'static str>>,
            $( $(#[doc = $field_doc])+ pub(crate) $field: Option<$ty>, )*
        }

        impl $name {
            const KEYS: &[&str] = &[$(key(stringify!($field)),)*];
        }

        impl Read for $name {
            fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
                let fields = Fields::of(yaml, $what, Self::KEYS, report)?;
                Some(Self {
                    at: yaml.at,
                    $( $field: fields.$need(key(stringify!($field)), report), )*
                    keys: fields.keys(),
                })
            }
        }

        impl Record for $name {
            fn at(&self) -> Span {
                self.at
            }

            fn keys(&self) -> &[Spanned<&'static str>] {
                &self.keys
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).trim_end_matches("Spec").into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut object = Object::new(concat!($($doc,)+));
                $(
                    let field = generator.subschema_for::<$ty>();
                    object.$need(key(stringify!($field)), field, concat!($($field_doc,)+));
                )*
                object.into_schema()
            }
        }
    )*};
}
pub(crate) use record;

/// Declares enums that are read from one word.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])+
        enum $name:ident for $target:ty { $($text:literal => $variant:expr,)+ }
    )*) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) struct $name(pub(crate) $target);

        impl Read for $name {
            fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
                let word = String::read(yaml, report)?;
                match word.as_str() {
                    $($text => Some(Self($variant)),)+
                    _ => {
                        report
                            .error(Code::BadValue, yaml.at, format!("`{word}` is none of the words allowed here"))
                            .help = suggest(&word, [$($text),+]);
                        None
                    }
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "enum": [$($text),+] })
            }
        }
    )*};
}
pub(crate) use words;

/// The key of a field: Rust's keywords are written raw.
pub(crate) const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// The entries of a mapping with known keys.
pub(crate) struct Fields<'y> {
    at: Span,
    what: &'static str,
    entries: Vec<(Spanned<&'static str>, &'y Yaml)>,
}

impl<'y> Fields<'y> {
    /// Notes unknown and repeated keys; `None` when it is no mapping.
    pub(crate) fn of(
        yaml: &'y Yaml,
        what: &'static str,
        known: &'static [&'static str],
        report: &mut Report,
    ) -> Option<Self> {
        let Data::Map(map) = &yaml.data else {
            report
                .error(Code::BadValue, yaml.at, format!("{what} is {}, not a mapping", yaml.kind()))
                .help = Some(format!("write a mapping with {}", known.join(", ")));
            return None;
        };
        let mut entries: Vec<(Spanned<&'static str>, &Yaml)> = Vec::new();
        for (name, value) in map {
            let Some(text) = name_of(name, report) else { continue };
            match known.iter().find(|known| **known == text) {
                Some(known) if entries.iter().any(|(seen, _)| seen.value == *known) => {
                    repeated(text, name.at, report);
                }
                Some(known) => entries.push((Spanned { at: name.at, value: known }, value)),
                None => {
                    report
                        .error(Code::UnknownKey, name.at, format!("{what} has no key `{text}`"))
                        .help = suggest(text, known.iter().copied());
                }
            }
        }
        Some(Self { at: yaml.at, what, entries })
    }

    /// A value that may be left out.
    pub(crate) fn optional<T: Read>(&self, key: &'static str, report: &mut Report) -> Option<T> {
        self.entries
            .iter()
            .find(|(known, _)| known.value == key)
            .and_then(|(_, value)| T::read(value, report))
    }

    /// A value that must be there.
    pub(crate) fn required<T: Read>(&self, key: &'static str, report: &mut Report) -> Option<T> {
        if !self.entries.iter().any(|(known, _)| known.value == key) {
            report.error(Code::MissingKey, self.at, format!("{} has no `{key}`", self.what));
            return None;
        }
        self.optional(key, report)
    }

    /// The keys that are there.
    pub(crate) fn keys(&self) -> Vec<Spanned<&'static str>> {
        self.entries.iter().map(|(key, _)| key.clone()).collect()
    }
}

/// A key as text; anything else is noted.
fn name_of<'y>(name: &'y Yaml, report: &mut Report) -> Option<&'y str> {
    match &name.data {
        Data::Text(text) => Some(text),
        _ => {
            let message = format!("a key must be a text, found {}", name.kind());
            report.error(Code::BadName, name.at, message).help = Some("put it in quotes".into());
            None
        }
    }
}

fn repeated(text: &str, at: Span, report: &mut Report) {
    report.error(Code::DuplicateKey, at, format!("the key `{text}` is there twice"));
}

/// A mapping from free names to values, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entries<T>(pub(crate) Vec<(Spanned<String>, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Read> Read for Entries<T> {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        let Data::Map(map) = &yaml.data else {
            return wrong(yaml, "a mapping from names to values", report);
        };
        let mut entries: Vec<(Spanned<String>, T)> = Vec::new();
        for (name, value) in map {
            let Some(text) = name_of(name, report) else { continue };
            if entries.iter().any(|(known, _)| known.value == text) {
                repeated(text, name.at, report);
                continue;
            }
            if let Some(value) = T::read(value, report) {
                entries.push((Spanned { at: name.at, value: text.to_owned() }, value));
            }
        }
        Some(Self(entries))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<T: Read> Read for OneOrMany<T> {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        match &yaml.data {
            Data::List(items) if items.is_empty() => {
                report.error(Code::BadValue, yaml.at, "the list is empty");
                None
            }
            Data::List(_) => Vec::read(yaml, report).map(Self),
            _ => T::read(yaml, report).map(|one| Self(vec![one])),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        let Data::List(items) = &yaml.data else { return wrong(yaml, "a list", report) };
        Some(items.iter().filter_map(|item| T::read(item, report)).collect())
    }
}

impl<T: Read> Read for Box<T> {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        T::read(yaml, report).map(Self::new)
    }
}

impl<T: Read> Read for Spanned<T> {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        Some(Self { at: yaml.at, value: T::read(yaml, report)? })
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

fn wrong<T>(yaml: &Yaml, wanted: &str, report: &mut Report) -> Option<T> {
    report.error(Code::BadValue, yaml.at, format!("expected {wanted}, found {}", yaml.kind()));
    None
}

impl Read for String {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        match &yaml.data {
            Data::Text(text) => Some(text.clone()),
            Data::Number(_) | Data::NoJson | Data::Bool(_) => {
                let message = format!("expected a text, found {}", yaml.kind());
                report.error(Code::BadValue, yaml.at, message).help =
                    Some("put it in quotes".to_owned());
                None
            }
            Data::Null | Data::List(_) | Data::Map(_) => wrong(yaml, "a text", report),
        }
    }
}

impl Read for bool {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        match &yaml.data {
            Data::Bool(value) => Some(*value),
            _ => wrong(yaml, "`true` or `false`", report),
        }
    }
}

impl Read for u32 {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        let whole = u64::read(yaml, report)?;
        Self::try_from(whole).map_err(|_| too_large(whole, yaml, report)).ok()
    }
}

fn too_large(found: u64, yaml: &Yaml, report: &mut Report) {
    report.error(Code::BadLimit, yaml.at, format!("{found} is larger than {}", u32::MAX));
}

impl Read for u64 {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        match &yaml.data {
            Data::Number(number) if number.is_u64() => number.as_u64(),
            Data::Number(number) => wrong_number(
                number.to_string().as_str(),
                "a whole number of at least 0",
                yaml,
                report,
            ),
            _ => wrong(yaml, "a whole number", report),
        }
    }
}

impl Read for f64 {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        match &yaml.data {
            Data::Number(number) => number.as_f64(),
            _ => wrong(yaml, "a number", report),
        }
    }
}

fn wrong_number<T>(found: &str, wanted: &str, yaml: &Yaml, report: &mut Report) -> Option<T> {
    report.error(Code::BadLimit, yaml.at, format!("expected {wanted}, found {found}"));
    None
}

/// A time, such as `500ms`, `2s`, `15m`, `8h`, `30d`; never zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Time(pub(crate) Duration);

impl Read for Time {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        let text = match &yaml.data {
            Data::Text(text) => text.clone(),
            Data::Number(number) => number.to_string(),
            _ => return wrong(yaml, "a duration such as `15m`", report),
        };
        match duration(&text) {
            Some(time) if time.is_zero() => {
                report.error(Code::BadDuration, yaml.at, "the duration is zero");
                None
            }
            Some(time) => Some(Self(time)),
            None => {
                report.error(Code::BadDuration, yaml.at, format!("`{text}` is no duration")).help =
                    Some(
                        "write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `15m`".into(),
                    );
                None
            }
        }
    }
}

/// Reads a duration: a whole number and a unit, at most ten years.
fn duration(text: &str) -> Option<Duration> {
    const YEARS_10_MS: u64 = 10 * 366 * 86_400_000;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(ms)?;
    (ms <= YEARS_10_MS).then(|| Duration::from_millis(ms))
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time: a whole number and `ms`, `s`, `m`, `h` or `d`.",
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "examples": ["500ms", "2s", "15m", "8h", "30d"]
        })
    }
}

/// An expression: one `${{ }}` and nothing else. Compiled by the check, not here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExprText(pub(crate) String);

impl Read for ExprText {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        match &yaml.data {
            Data::Text(text) => Some(Self(text.clone())),
            _ => wrong(yaml, "an expression such as `\"${{ state.done }}\"`", report),
        }
    }
}

impl JsonSchema for ExprText {
    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A CEL expression in `${{ }}`, such as `${{ state.plan.ambiguous }}`.",
            "type": "string",
            "pattern": "^\\$\\{\\{[\\s\\S]*\\}\\}$"
        })
    }
}

/// Any YAML, kept as it is: values with expressions inside, schemas, configurations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raw(pub(crate) Yaml);

impl Read for Raw {
    fn read(yaml: &Yaml, report: &mut Report) -> Option<Self> {
        check_raw(yaml, report);
        Some(Self(yaml.clone()))
    }
}

/// Keys of free YAML must be texts and unique, and its numbers ones that JSON has.
fn check_raw(yaml: &Yaml, report: &mut Report) {
    match &yaml.data {
        Data::Map(entries) => {
            let mut seen = std::collections::BTreeSet::new();
            for (name, value) in entries {
                if let Some(text) = name_of(name, report)
                    && !seen.insert(text)
                {
                    repeated(text, name.at, report);
                }
                check_raw(value, report);
            }
        }
        Data::List(items) => items.iter().for_each(|item| check_raw(item, report)),
        Data::NoJson => {
            report.error(Code::BadValue, yaml.at, "the number is not finite, or too large");
        }
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => {}
    }
}

impl JsonSchema for Raw {
    fn schema_name() -> Cow<'static, str> {
        "Any".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::from(true)
    }
}

/// A JSON schema of an object while it is being written.
pub(crate) struct Object {
    properties: serde_json::Map<String, Value>,
    required: Vec<&'static str>,
    doc: String,
}

impl Object {
    pub(crate) fn new(doc: &str) -> Self {
        Self {
            properties: serde_json::Map::new(),
            required: Vec::new(),
            doc: doc.trim().to_owned(),
        }
    }

    pub(crate) fn optional(&mut self, key: &'static str, schema: Schema, doc: &str) {
        let mut schema = schema.to_value();
        if schema == Value::Bool(true) {
            schema = serde_json::json!({});
        }
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), doc.trim().into());
        }
        self.properties.insert(key.to_owned(), schema);
    }

    pub(crate) fn required(&mut self, key: &'static str, schema: Schema, doc: &str) {
        self.optional(key, schema, doc);
        self.required.push(key);
    }

    pub(crate) fn into_schema(self) -> Schema {
        let mut schema = json_schema!({
            "description": self.doc,
            "type": "object",
            "properties": self.properties,
            "additionalProperties": false
        });
        if !self.required.is_empty() {
            schema.insert("required".to_owned(), self.required.into());
        }
        schema
    }
}

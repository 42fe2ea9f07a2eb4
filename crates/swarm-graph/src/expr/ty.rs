//! Types of expressions: JSON schemas, as far as an expression can tell their values apart.
//!
//! What a newcomer gets wrong: `Dyn` is not an error. It stands for "the schema does not say",
//! and is let through everywhere; only what is certainly wrong is a defect. References stay
//! references until they are looked at, because types may contain themselves.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

const REFERENCES_MAX: usize = 32;

/// The schema that local references point into.
#[derive(Clone, Debug)]
pub(crate) struct SchemaRoot(pub(crate) Arc<Value>);

/// What is known about a value.
#[derive(Clone, Debug)]
pub(crate) enum Type {
    /// Nothing.
    Dyn,
    Null,
    Bool,
    Int,
    Number,
    /// A string; one of these, if the schema says which.
    Text(Option<Arc<[String]>>),
    List(Arc<Self>),
    /// An object with free keys.
    Map(Arc<Self>),
    /// An object with known fields.
    Record(Arc<Fields>),
    /// One of these; never nested, never empty.
    Union(Arc<[Self]>),
    /// A reference into a schema.
    Ref(SchemaRoot, Arc<str>),
}

/// The fields of an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) fields: IndexMap<String, Field>,
    /// The type of all other fields; `None`: there are none that are known.
    pub(crate) rest: Option<Type>,
    /// Whether other fields are refused.
    pub(crate) closed: bool,
}

/// One field.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) ty: Type,
    pub(crate) required: bool,
}

impl Type {
    /// The type that a whole schema describes.
    pub(crate) fn of_schema(schema: &Value) -> Self {
        Self::of(schema, &SchemaRoot(Arc::new(schema.clone())))
    }

    fn of(schema: &Value, root: &SchemaRoot) -> Self {
        let Value::Object(keys) = schema else { return Self::Dyn };
        let mut parts = Vec::new();
        if let Some(Value::String(target)) = keys.get("$ref") {
            parts.push(Self::Ref(root.clone(), target.as_str().into()));
        }
        if let Some(value) = keys.get("const") {
            parts.push(Self::of_value(value));
        } else if let Some(Value::Array(values)) = keys.get("enum") {
            parts.push(Self::union(values.iter().map(Self::of_value)));
        } else {
            match keys.get("type") {
                Some(Value::String(name)) => parts.push(Self::of_named(name, schema, root)),
                Some(Value::Array(names)) => parts.push(Self::union(
                    names
                        .iter()
                        .filter_map(Value::as_str)
                        .map(|name| Self::of_named(name, schema, root)),
                )),
                _ if keys.contains_key("properties") => {
                    parts.push(Self::of_named("object", schema, root));
                }
                _ => {}
            }
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(options)) = keys.get(key) {
                parts.push(Self::union(options.iter().map(|option| Self::of(option, root))));
            }
        }
        if let Some(Value::Array(all)) = keys.get("allOf") {
            parts.extend(all.iter().map(|part| Self::of(part, root)));
        }
        Self::all_of(parts)
    }

    fn of_named(name: &str, schema: &Value, root: &SchemaRoot) -> Self {
        match name {
            "null" => Self::Null,
            "boolean" => Self::Bool,
            "integer" => Self::Int,
            "number" => Self::Number,
            "string" => Self::Text(None),
            "array" => {
                let item = match (schema.get("items"), schema.get("prefixItems")) {
                    (Some(items), None) => Self::of(items, root),
                    (_, Some(Value::Array(items))) => {
                        Self::union(items.iter().map(|item| Self::of(item, root)))
                    }
                    _ => Self::Dyn,
                };
                Self::List(Arc::new(item))
            }
            "object" => Self::of_object(schema, root),
            _ => Self::Dyn,
        }
    }

    fn of_object(schema: &Value, root: &SchemaRoot) -> Self {
        let more = schema.get("additionalProperties");
        let rest = match more {
            Some(Value::Bool(_)) | None => None,
            Some(more) => Some(Self::of(more, root)),
        };
        let closed = more == Some(&Value::Bool(false));
        let properties = schema.get("properties").and_then(Value::as_object);
        if properties.is_none_or(serde_json::Map::is_empty) && !closed {
            return Self::Map(Arc::new(rest.unwrap_or(Self::Dyn)));
        }
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let fields = properties
            .into_iter()
            .flatten()
            .map(|(name, field)| {
                let required = required.contains(&name.as_str());
                (name.clone(), Field { ty: Self::of(field, root), required })
            })
            .collect();
        Self::Record(Arc::new(Fields { fields, rest, closed }))
    }

    /// The type of a constant.
    pub(crate) fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_f64() => Self::Number,
            Value::Number(_) => Self::Int,
            Value::String(text) => Self::Text(Some([text.clone()].into())),
            Value::Array(items) => {
                Self::List(Arc::new(Self::union(items.iter().map(Self::of_value))))
            }
            Value::Object(entries) => Self::record(
                entries.iter().map(|(name, value)| (name.clone(), Self::of_value(value))),
            ),
        }
    }

    /// An object of which every field is known.
    pub(crate) fn record(fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields =
            fields.into_iter().map(|(name, ty)| (name, Field { ty, required: true })).collect();
        Self::Record(Arc::new(Fields { fields, rest: None, closed: true }))
    }

    /// Either of these; `Dyn` when there are none.
    pub(crate) fn union(options: impl IntoIterator<Item = Self>) -> Self {
        let mut flat: Vec<Self> = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        let (mut text, mut free_text) = (false, false);
        let mut add = |option: Self| match option {
            Self::Text(None) => (text, free_text) = (true, true),
            Self::Text(Some(words)) => {
                text = true;
                texts.extend(
                    words.iter().filter(|word| !texts.contains(word)).cloned().collect::<Vec<_>>(),
                );
            }
            Self::Null | Self::Bool | Self::Int | Self::Number
                if flat.iter().any(|known| known.same_scalar(&option)) => {}
            other => flat.push(other),
        };
        for option in options {
            match option {
                Self::Dyn => return Self::Dyn,
                Self::Union(inner) => inner.iter().cloned().for_each(&mut add),
                other => add(other),
            }
        }
        if text {
            flat.push(Self::Text(if free_text { None } else { Some(texts.into()) }));
        }
        if flat.iter().any(|option| matches!(option, Self::Number)) {
            flat.retain(|option| !matches!(option, Self::Int));
        }
        match flat.len() {
            0 => Self::Dyn,
            1 => flat.remove(0),
            _ => Self::Union(flat.into()),
        }
    }

    fn same_scalar(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Null, Self::Null)
                | (Self::Bool, Self::Bool)
                | (Self::Int, Self::Int)
                | (Self::Number, Self::Number)
        )
    }

    /// All of these at once: fields of objects are joined, else the first that says something.
    fn all_of(mut parts: Vec<Self>) -> Self {
        if parts.len() < 2 {
            return parts.pop().unwrap_or(Self::Dyn);
        }
        let resolved: Vec<Self> = parts.iter().map(Self::resolved).collect();
        let records: Vec<&Arc<Fields>> = resolved
            .iter()
            .filter_map(|part| if let Self::Record(fields) = part { Some(fields) } else { None })
            .collect();
        if records.len() != resolved.len() {
            return resolved
                .into_iter()
                .find(|part| !matches!(part, Self::Dyn))
                .unwrap_or(Self::Dyn);
        }
        let mut joined = Fields::default();
        for record in records {
            joined
                .fields
                .extend(record.fields.iter().map(|(name, field)| (name.clone(), field.clone())));
            joined.rest = joined.rest.or_else(|| record.rest.clone());
        }
        Self::Record(Arc::new(joined))
    }

    /// The type behind references.
    pub(crate) fn resolved(&self) -> Self {
        let mut here = self.clone();
        for _ in 0..REFERENCES_MAX {
            let Self::Ref(root, target) = &here else { return here };
            let Some(schema) = target.strip_prefix('#').and_then(|path| root.0.pointer(path))
            else {
                return Self::Dyn;
            };
            here = Self::of(schema, root);
        }
        Self::Dyn
    }

    /// The same type with no field required.
    pub(crate) fn partial(&self) -> Self {
        Self::union(self.options().into_iter().map(|option| match option {
            Self::Record(record) => {
                let mut record = (*record).clone();
                record.fields.values_mut().for_each(|field| field.required = false);
                Self::Record(Arc::new(record))
            }
            other => other,
        }))
    }

    /// Every alternative, references resolved.
    pub(crate) fn options(&self) -> Vec<Self> {
        fn collect(ty: &Type, into: &mut Vec<Type>, depth: usize) {
            match ty.resolved() {
                Type::Union(options) if depth < REFERENCES_MAX => {
                    options.iter().for_each(|option| collect(option, into, depth + 1));
                }
                other => into.push(other),
            }
        }
        let mut options = Vec::new();
        collect(self, &mut options, 0);
        options
    }

    /// Whether any alternative is what `wanted` says; `Dyn` may be anything.
    pub(crate) fn may_be(&self, wanted: impl Fn(&Self) -> bool) -> bool {
        self.options().iter().any(|option| matches!(option, Self::Dyn) || wanted(option))
    }

    /// The type of a field: `None` when no alternative has it. The flag tells whether all have.
    pub(crate) fn field(&self, name: &str) -> Option<(Self, bool)> {
        let mut found = Vec::new();
        let mut always = true;
        for option in self.options() {
            match option {
                Self::Dyn => found.push(Self::Dyn),
                Self::Map(value) => {
                    always = false;
                    found.push((*value).clone());
                }
                Self::Record(record) => match (record.fields.get(name), &record.rest) {
                    (Some(field), _) => {
                        always &= field.required;
                        found.push(field.ty.clone());
                    }
                    (None, Some(rest)) => {
                        always = false;
                        found.push(rest.clone());
                    }
                    (None, None) => always = false,
                },
                Self::Null
                | Self::Bool
                | Self::Int
                | Self::Number
                | Self::Text(_)
                | Self::List(_)
                | Self::Union(_)
                | Self::Ref(..) => always = false,
            }
        }
        if found.is_empty() { None } else { Some((Self::union(found), always)) }
    }

    /// The names of all fields that any alternative has.
    pub(crate) fn field_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for option in self.options() {
            if let Self::Record(record) = option {
                names.extend(record.fields.keys().cloned());
            }
        }
        names
    }

    /// In words, for messages.
    pub(crate) fn describe(&self) -> String {
        self.describe_to(2)
    }

    fn describe_to(&self, depth: usize) -> String {
        const SHOWN_MAX: usize = 5;
        match self {
            Self::Dyn => "anything".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Bool => "a boolean".to_owned(),
            Self::Int => "a whole number".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Text(None) => "a string".to_owned(),
            Self::Text(Some(words)) if words.len() == 1 => format!("the string '{}'", words[0]),
            Self::Text(Some(words)) => {
                let mut shown: Vec<String> =
                    words.iter().take(SHOWN_MAX).map(|word| format!("'{word}'")).collect();
                if words.len() > SHOWN_MAX {
                    shown.push("…".to_owned());
                }
                format!("one of {}", shown.join(", "))
            }
            Self::List(item) if matches!(**item, Self::Dyn) || depth == 0 => "a list".to_owned(),
            Self::List(item) => format!("a list of {}", plural(&item.describe_to(depth - 1))),
            Self::Map(_) => "an object".to_owned(),
            Self::Record(record) => {
                let mut names: Vec<&str> =
                    record.fields.keys().take(SHOWN_MAX).map(String::as_str).collect();
                if record.fields.len() > SHOWN_MAX {
                    names.push("…");
                }
                if names.is_empty() {
                    "an empty object".to_owned()
                } else {
                    format!("an object with {}", names.join(", "))
                }
            }
            Self::Union(options) => {
                let mut parts: Vec<String> =
                    options.iter().map(|option| option.describe_to(depth)).collect();
                parts.dedup();
                parts.join(" or ")
            }
            Self::Ref(_, target) => match (self.resolved(), target.rsplit('/').next()) {
                // A few words say more than the name of their type.
                (words @ Self::Text(Some(_)), _) => words.describe_to(depth),
                (_, Some(name)) if !name.is_empty() && name != "#" => format!("a `{name}`"),
                (resolved, _) => resolved.describe_to(depth.saturating_sub(1)),
            },
        }
    }
}

/// "a string" → "strings"; what does not follow that form stays as it is.
fn plural(one: &str) -> String {
    match one.strip_prefix("a ").or_else(|| one.strip_prefix("an ")) {
        Some(noun) if noun.chars().all(|c| c.is_alphabetic() || c == ' ') => format!("{noun}s"),
        Some(noun) if noun.starts_with('`') => noun.to_owned(),
        _ => one.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only their schemas matter")]
    struct Tree {
        name: String,
        size: Option<u32>,
        children: Vec<Self>,
        kind: Kind,
        note: Option<Note>,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only their schemas matter")]
    enum Kind {
        /// documented
        Leaf,
        Branch,
    }

    #[derive(JsonSchema)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    #[expect(dead_code, reason = "only their schemas matter")]
    enum Note {
        Text { text: String },
        Link { url: String },
    }

    fn tree() -> Type {
        Type::of_schema(&schemars::schema_for!(Tree).to_value())
    }

    #[test]
    fn fields_are_found_through_references_options_and_unions() {
        let check = |path: &[&str], expected: &str| {
            let mut here = tree();
            for name in path {
                here = match here.field(name) {
                    Some((ty, _)) => ty,
                    None => panic!("no {name} in {}", here.describe()),
                };
            }
            assert_eq!(here.resolved().describe(), expected, "{path:?}");
        };
        check(&["name"], "a string");
        check(&["size"], "a whole number or null");
        check(&["children"], "a list of an object with name, size, children, kind, note");
        check(&["kind"], "one of 'branch', 'leaf'");
        check(&["note", "kind"], "one of 'text', 'link'");
        check(&["note", "url"], "a string");
        assert!(tree().field("nmae").is_none());
    }

    #[test]
    fn a_schema_that_says_nothing_is_dyn() {
        for schema in [json!(true), json!({}), json!({"$ref": "#/nowhere"}), json!({"type": "odd"})]
        {
            assert!(matches!(Type::of_schema(&schema).resolved(), Type::Dyn), "{schema}");
        }
    }
}

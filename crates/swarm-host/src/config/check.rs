//! A tree against the JSON schema of the configuration: every defect, each with its place.
//!
//! The schema is generated from the types that the file is decoded into, so this cannot allow
//! what decoding refuses. It knows the part of JSON schema that those types use.

use serde_json::Value;

use super::defect::Defect;
use super::tree::{Kind, Node, Place};
use super::value;

/// Names every way in which `tree` does not fit `schema`.
#[must_use]
pub(super) fn check(tree: &Node, schema: &Value) -> Vec<Defect> {
    let mut check = Check { root: schema, defects: Vec::new() };
    check.node(tree, schema, "");
    check.defects.sort();
    check.defects
}

/// The known name that `name` was most likely meant to be.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len().min(name.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

struct Check<'a> {
    root: &'a Value,
    defects: Vec<Defect>,
}

impl<'a> Check<'a> {
    fn defect(&mut self, place: Place, path: &str, message: impl Into<String>) {
        let (path, message) = (path.to_owned(), message.into());
        self.defects.push(Defect { place, path, message, help: None });
    }

    /// A word that is none of the known ones.
    fn unknown<'k>(
        &mut self,
        place: Place,
        path: &str,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        let perhaps = nearest(name, known.iter().copied())
            .map(|nearest| format!("perhaps `{nearest}`; "))
            .unwrap_or_default();
        self.defects.push(Defect {
            place,
            path: path.to_owned(),
            message: format!("unknown {what} `{name}`"),
            help: Some(format!("{perhaps}known: {}", known.join(", "))),
        });
    }

    /// Follows references and the `anyOf: [it, null]` of optional fields.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        loop {
            schema = if let Some(target) = schema["$ref"].as_str() {
                let Some(found) = self.root.pointer(target.trim_start_matches('#')) else {
                    return schema;
                };
                found
            } else if let Some([one, null]) = schema["anyOf"].as_array().map(Vec::as_slice)
                && null["type"] == "null"
            {
                one
            } else {
                return schema;
            };
        }
    }

    fn node(&mut self, node: &Node, schema: &'a Value, path: &str) {
        let schema = self.resolve(schema);
        match &node.kind {
            Kind::Scalar(value) => self.scalar(node.place, value, schema, path),
            Kind::List(items) => {
                if !allows(schema, "array") {
                    let message = format!("a list, where {} is wanted", wanted(schema));
                    return self.defect(node.place, path, message);
                }
                for (index, item) in items.iter().enumerate() {
                    self.node(item, &schema["items"], &format!("{path}[{index}]"));
                }
            }
            Kind::Map(entries) => {
                if !allows(schema, "object") {
                    let message = format!("keys and values, where {} is wanted", wanted(schema));
                    return self.defect(node.place, path, message);
                }
                self.map(node.place, entries, schema, path);
            }
        }
    }

    fn map(
        &mut self,
        place: Place,
        entries: &[(super::tree::Key, Node)],
        schema: &'a Value,
        path: &str,
    ) {
        let properties = schema["properties"].as_object();
        let known = || properties.into_iter().flat_map(|all| all.keys().map(String::as_str));
        for (index, (key, node)) in entries.iter().enumerate() {
            let name = key.name.as_str();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            if let Some((first, _)) = entries[..index].iter().find(|(first, _)| first.name == name)
            {
                let message = format!("written a second time, first on line {}", first.place.line);
                self.defect(key.place, &path, message);
            }
            if let Some(schema) = properties.and_then(|all| all.get(name)) {
                self.node(node, schema, &path);
            } else if schema["additionalProperties"].is_object() {
                if let Some(names) = schema["propertyNames"].as_object() {
                    self.name(key, names, &path);
                }
                self.node(node, &schema["additionalProperties"], &path);
            } else {
                self.unknown(key.place, &path, "key", name, known());
            }
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            let required = required.as_str().unwrap_or_default();
            if !entries.iter().any(|(key, _)| key.name == required) {
                self.defect(place, path, format!("`{required}` is missing"));
            }
        }
    }

    fn name(&mut self, key: &super::tree::Key, names: &serde_json::Map<String, Value>, path: &str) {
        let known: Vec<&str> = names
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !known.is_empty() && !known.contains(&key.name.as_str()) {
            self.unknown(key.place, path, "name", &key.name, known);
        }
    }

    fn scalar(&mut self, place: Place, value: &Value, schema: &'a Value, path: &str) {
        if value.is_null() {
            let message =
                format!("empty, where {} is wanted; or leave the key out", wanted(schema));
            return self.defect(place, path, message);
        }
        let words = words_of(schema);
        if !words.is_empty() {
            let Some(text) = value.as_str() else {
                let message = format!("{value}, where {} is wanted", wanted(schema));
                return self.defect(place, path, message);
            };
            if !words.contains(&text) {
                self.unknown(place, path, "value", text, words);
            }
            return;
        }
        let fits = match value {
            Value::Bool(_) => allows(schema, "boolean"),
            Value::Number(number) => {
                allows(schema, "number") || (allows(schema, "integer") && !number.is_f64())
            }
            Value::String(_) => allows(schema, "string"),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        if !fits {
            let message = format!("{value}, where {} is wanted", wanted(schema));
            return self.defect(place, path, message);
        }
        if let Some(number) = value.as_f64() {
            let below = schema["minimum"].as_f64().filter(|minimum| number < *minimum);
            let above = schema["maximum"].as_f64().filter(|maximum| number > *maximum);
            if let Some(minimum) = below {
                self.defect(place, path, format!("{value} is too small, the least is {minimum}"));
            }
            if let Some(maximum) = above {
                self.defect(place, path, format!("{value} is too large, the most is {maximum}"));
            }
        }
        if let (Some(text), Some(format)) = (value.as_str(), schema["format"].as_str())
            && let Err(message) = value::fits(format, text)
        {
            self.defect(place, path, message);
        }
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

fn allows(schema: &Value, kind: &str) -> bool {
    let types = types(schema);
    types.is_empty() && words_of(schema).is_empty() || types.contains(&kind)
}

/// The words of an enum, written as `enum` or as `oneOf` of constants with descriptions.
fn words_of(schema: &Value) -> Vec<&str> {
    let plain = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let described = schema["oneOf"].as_array().into_iter().flatten();
    plain.chain(described.filter_map(|one| one["const"].as_str())).collect()
}

fn wanted(schema: &Value) -> String {
    let words = words_of(schema);
    if !words.is_empty() {
        return format!("one of {}", words.join(", "));
    }
    if let Some(format) = schema["format"].as_str()
        && let Some(name) = value::name(format)
    {
        return name.to_owned();
    }
    types(schema)
        .into_iter()
        .filter_map(|kind| match kind {
            "object" => Some("a map of keys and values"),
            "array" => Some("a list"),
            "string" => Some("a text"),
            "integer" => Some("a whole number"),
            "number" => Some("a number"),
            "boolean" => Some("true or false"),
            _ => None,
        })
        .next()
        .unwrap_or("something else")
        .to_owned()
}

//! Input, output and state: the types that every expression is checked against.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use swarm_core::id::ChannelName;
use swarm_core::reducer::Reducer;

use super::Checker;
use super::value::{Wanted, constant_value, value};
use crate::defect::{Code, suggest};
use crate::expr::{Env, Template, Type};
use crate::graph::Channel;
use crate::registry::ReduceFn;
use crate::spec::read::{Raw, Record as _};
use crate::spec::yaml::{Span, Spanned};
use crate::spec::{ChannelSpec, DeclaredSpec, OutputSpec, StateSpec};

const REDUCERS: [&str; 6] = ["replace", "append", "merge", "merge_by_key", "sum", "max"];

/// The state of a graph.
pub(super) struct StateDraft {
    pub(super) channels: IndexMap<ChannelName, Channel>,
    /// The type of `state` in expressions.
    pub(super) ty: Type,
}

impl StateDraft {
    /// The type that an update of a channel must have.
    pub(super) fn update_type(channel: &Channel) -> Type {
        let ty = Type::of_schema(&channel.schema);
        match channel.reducer {
            Reducer::Replace | Reducer::Append | Reducer::MergeByKey { .. } => ty,
            Reducer::Merge => ty.partial(),
            Reducer::Sum | Reducer::Max => Type::Number,
            Reducer::Custom { .. } => Type::Dyn,
        }
    }
}

/// The types of JSON schema.
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

impl Checker<'_> {
    /// The schema of a declaration; `true` when there is none, or it is wrong.
    pub(super) fn declared(&mut self, spec: Option<&DeclaredSpec>) -> Value {
        let Some(spec) = spec else { return Value::Bool(true) };
        let keys: Vec<(&str, Span)> = spec.keys().iter().map(|key| (key.value, key.at)).collect();
        self.exactly_one(Code::KeyClash, spec.at(), "`input`", &["type", "schema"], &keys);
        self.type_or_schema(spec.r#type.as_ref(), spec.schema.as_ref())
    }

    /// The schema and the value of the output.
    pub(super) fn output(&mut self, spec: &OutputSpec, env: &Env) -> (Value, Option<Template>) {
        let keys: Vec<(&str, Span)> = spec
            .keys()
            .iter()
            .filter(|key| key.value != "value")
            .map(|key| (key.value, key.at))
            .collect();
        self.exactly_one(Code::KeyClash, spec.at(), "`output`", &["type", "schema"], &keys);
        let schema = self.type_or_schema(spec.r#type.as_ref(), spec.schema.as_ref());
        let template = spec.value.as_ref().and_then(|raw| {
            value(self.report, &raw.0, env, &Wanted::schema(&schema), "output.value")
        });
        (schema, template)
    }

    pub(super) fn type_or_schema(
        &mut self,
        name: Option<&Spanned<String>>,
        schema: Option<&Raw>,
    ) -> Value {
        let named = name.and_then(|name| self.type_named(name));
        let inline = schema.and_then(|schema| self.schema(schema));
        named.or(inline).unwrap_or(Value::Bool(true))
    }

    /// The schema of a registered type.
    pub(super) fn type_named(&mut self, name: &Spanned<String>) -> Option<Value> {
        match self.registry.type_named(&name.value) {
            Some(entry) => Some(entry.schema.clone()),
            None => {
                let message = format!("no type named `{}` is registered", name.value);
                self.report.error(Code::UnknownType, name.at, message).help =
                    suggest(&name.value, self.registry.types().map(|(known, _)| known));
                None
            }
        }
    }

    /// A schema in the text, if it is one.
    pub(super) fn schema(&mut self, raw: &Raw) -> Option<Value> {
        let schema = raw.0.to_json();
        let error = match jsonschema::draft202012::meta::validate(&schema) {
            Ok(()) => match jsonschema::validator_for(&schema) {
                Ok(_) => return Some(schema),
                Err(error) => error.to_string(),
            },
            Err(error) => {
                let path = error.instance_path().to_string();
                let parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
                let is_type = parts.last().is_some_and(|key| key == "type");
                let at = raw.0.deepest(parts).at;
                // What the meta-schema says of a wrong type helps nobody.
                match error.instance().as_str().filter(|_| is_type) {
                    Some(found) => {
                        let message = format!("no JSON schema: there is no type `{found}`");
                        self.report.error(Code::BadSchema, at, message).help =
                            suggest(found, TYPES);
                    }
                    None => {
                        let message = format!("no JSON schema: {error}");
                        self.report.error(Code::BadSchema, at, message);
                    }
                }
                return None;
            }
        };
        self.report.error(Code::BadSchema, raw.0.at, format!("no JSON schema: {error}"));
        None
    }

    /// The channels: the fields of the type, then what `channels` says about them and adds.
    pub(super) fn state(&mut self, spec: Option<&StateSpec>) -> StateDraft {
        let Some(spec) = spec else {
            return StateDraft { channels: IndexMap::new(), ty: Type::record([]) };
        };
        if let (true, true) = (spec.has("type"), spec.has("schema")) {
            let message = "`state` has both `type` and `schema`";
            self.report.error(Code::KeyClash, spec.key_at("schema"), message).help =
                Some("give one; `channels` may add channels with a schema of their own".to_owned());
        }
        let schema = self.type_or_schema(spec.r#type.as_ref(), spec.schema.as_ref());
        let defaults = spec
            .r#type
            .as_ref()
            .and_then(|name| self.registry.type_named(&name.value))
            .and_then(|entry| entry.default.clone())
            .unwrap_or(Value::Null);
        let mut channels = self.typed_channels(spec, &schema, &defaults);
        // A type that is not known would make every channel of it unknown, too.
        let is_typed = spec.has("type") || spec.has("schema");
        let known = !is_typed || !channels.is_empty();
        for (name, channel) in spec.channels.iter().flat_map(|channels| &channels.0) {
            self.channel(name, channel, &mut channels, is_typed && known);
        }
        let ty = if known {
            Type::record(
                channels
                    .iter()
                    .map(|(name, channel)| (name.to_string(), Type::of_schema(&channel.schema))),
            )
        } else {
            Type::Dyn
        };
        StateDraft { channels, ty }
    }

    fn typed_channels(
        &mut self,
        spec: &StateSpec,
        schema: &Value,
        defaults: &Value,
    ) -> IndexMap<ChannelName, Channel> {
        let mut channels = IndexMap::new();
        let at = if spec.has("type") { spec.key_at("type") } else { spec.key_at("schema") };
        let Some(fields) = schema.get("properties").and_then(Value::as_object) else {
            if schema != &Value::Bool(true) {
                let message = "the state must be an object with fields: each is a channel";
                self.report.error(Code::BadSchema, at, message);
            }
            return channels;
        };
        for (name, field) in fields {
            let Some(channel) = ChannelName::new(name).ok().filter(|name| name.frame().is_none())
            else {
                let message = format!("the field `{name}` cannot be a channel");
                self.report.error(Code::BadName, at, message);
                continue;
            };
            let schema = with_definitions(field, schema);
            let default = defaults.get(name).or_else(|| field.get("default")).cloned();
            let default = Arc::new(default.unwrap_or_else(|| empty(&schema)));
            let reducer = Reducer::Replace;
            channels.insert(channel, Channel { reducer, custom: None, default, schema });
        }
        channels
    }

    fn channel(
        &mut self,
        name: &Spanned<String>,
        spec: &ChannelSpec,
        channels: &mut IndexMap<ChannelName, Channel>,
        needs_schema: bool,
    ) {
        let channel_name = match ChannelName::new(&name.value) {
            Ok(channel_name) if channel_name.frame().is_none() => channel_name,
            Ok(_) => {
                let message = format!("`{}` cannot be the name of a channel", name.value);
                self.report.error(Code::BadName, name.at, message);
                return;
            }
            Err(error) => {
                self.report.error(Code::BadName, name.at, error.to_string());
                return;
            }
        };
        let typed = channels.get(&channel_name).cloned();
        if typed.is_none() && needs_schema && !spec.has("schema") {
            let message = format!("the state has no channel `{}`", name.value);
            let help = suggest(&name.value, channels.keys().map(ChannelName::as_str));
            self.report.error(Code::UnknownChannel, name.at, message).help =
                help.map(|help| format!("{help}; a further channel needs a `schema`"));
            return;
        }
        if typed.is_some() && spec.has("schema") {
            let message = format!("the state's type already has the schema of `{}`", name.value);
            self.report.error(Code::KeyClash, spec.key_at("schema"), message);
        }
        let schema = match (&typed, &spec.schema) {
            (Some(channel), _) => channel.schema.clone(),
            (None, Some(raw)) => self.schema(raw).unwrap_or(Value::Bool(true)),
            (None, None) => Value::Bool(true),
        };
        let (reducer, custom) = self.reducer(spec, &schema);
        let given = spec.default.as_ref().and_then(|raw| {
            constant_value(self.report, &raw.0, &Wanted::schema(&schema), "default")
        });
        let default = given.map(Arc::new).unwrap_or_else(|| match typed {
            Some(channel) => channel.default,
            None => Arc::new(schema.get("default").cloned().unwrap_or_else(|| {
                let by_schema = empty(&schema);
                if by_schema.is_null() { empty_for(&reducer) } else { by_schema }
            })),
        });
        channels.insert(channel_name, Channel { reducer, custom, default, schema });
    }

    fn reducer(&mut self, spec: &ChannelSpec, schema: &Value) -> (Reducer, Option<ReduceFn>) {
        let Some(name) = &spec.reducer else {
            self.no_key(spec);
            return (Reducer::Replace, None);
        };
        let reducer = match name.value.as_str() {
            "replace" => Reducer::Replace,
            "append" => Reducer::Append,
            "merge" => Reducer::Merge,
            "merge_by_key" => {
                let Some(key) = &spec.key else {
                    if !spec.has("key") {
                        let message = "`merge_by_key` needs the `key` that identifies an item";
                        self.report.error(Code::MissingKey, name.at, message);
                    }
                    return (Reducer::Replace, None);
                };
                Reducer::MergeByKey { key: key.value.clone() }
            }
            "sum" => Reducer::Sum,
            "max" => Reducer::Max,
            custom => {
                self.no_key(spec);
                return match self.registry.reducer_named(custom) {
                    Some(reduce) => (Reducer::Custom { name: custom.to_owned() }, Some(reduce)),
                    None => {
                        let known = REDUCERS.into_iter().chain(self.registry.reducers());
                        let help = suggest(custom, known);
                        let message = format!("no reducer named `{custom}`");
                        self.report.error(Code::UnknownReducer, name.at, message).help = help;
                        (Reducer::Replace, None)
                    }
                };
            }
        };
        if !matches!(reducer, Reducer::MergeByKey { .. }) {
            self.no_key(spec);
        }
        self.reducer_fits(&reducer, name.at, spec, &Type::of_schema(schema));
        (reducer, None)
    }

    fn no_key(&mut self, spec: &ChannelSpec) {
        if spec.has("key") {
            let message = "`key` is only for the reducer `merge_by_key`";
            self.report.error(Code::KeyClash, spec.key_at("key"), message);
        }
    }

    fn reducer_fits(&mut self, reducer: &Reducer, at: Span, spec: &ChannelSpec, ty: &Type) {
        let (wanted, fits) = match reducer {
            Reducer::Append => ("a list", ty.may_be(|ty| matches!(ty, Type::List(_)))),
            Reducer::Merge => {
                ("an object", ty.may_be(|ty| matches!(ty, Type::Map(_) | Type::Record(_))))
            }
            Reducer::Sum | Reducer::Max => {
                ("a number", ty.may_be(|ty| matches!(ty, Type::Int | Type::Number)))
            }
            Reducer::MergeByKey { key } => {
                let items = |ty: &Type| matches!(ty, Type::List(item) if item.field(key).is_some());
                let lists = ty.may_be(|ty| matches!(ty, Type::List(_)));
                if lists && !ty.may_be(items) {
                    let message = format!("the items of the channel have no field `{key}`");
                    let at = spec.key.as_ref().map_or(at, |key| key.at);
                    self.report.error(Code::UnknownField, at, message);
                }
                ("a list of objects", lists)
            }
            Reducer::Replace | Reducer::Custom { .. } => return,
        };
        if !fits {
            let (name, found) = (reducer.name(), ty.describe());
            let message = format!("`{name}` is for {wanted}; the channel is {found}");
            self.report.error(Code::ReducerMismatch, at, message);
        }
    }
}

/// The schema of a field with the definitions that it may refer to.
fn with_definitions(field: &Value, root: &Value) -> Value {
    let mut schema = match field {
        Value::Object(keys) => keys.clone(),
        _ => Map::new(),
    };
    if let (Some(definitions), true) = (root.get("$defs"), refers(field)) {
        schema.insert("$defs".to_owned(), definitions.clone());
    }
    Value::Object(schema)
}

fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(keys) => keys.contains_key("$ref") || keys.values().any(refers),
        Value::Array(items) => items.iter().any(refers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The value of a channel that nothing was written to: empty, where its type has an empty value.
fn empty(schema: &Value) -> Value {
    let options = Type::of_schema(schema).options();
    if options.iter().any(|option| matches!(option, Type::Null | Type::Dyn)) {
        return Value::Null;
    }
    match options.first() {
        Some(Type::List(_)) => json!([]),
        Some(Type::Map(_)) => json!({}),
        _ => Value::Null,
    }
}

fn empty_for(reducer: &Reducer) -> Value {
    match reducer {
        Reducer::Append | Reducer::MergeByKey { .. } => json!([]),
        Reducer::Merge => json!({}),
        Reducer::Replace | Reducer::Sum | Reducer::Max | Reducer::Custom { .. } => Value::Null,
    }
}

//! Reducers: update + value → value, pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// How a channel takes an update.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reducer {
    /// The update becomes the value. Two parallel writers are a defect of the graph.
    #[default]
    Replace,
    /// The update, a list, is put behind the list.
    Append,
    /// The update, an object, overwrites the keys it names.
    Merge,
    /// The update, a list of objects, replaces the items of the same key and appends the rest.
    MergeByKey {
        /// The field that identifies an item.
        key: String,
    },
    /// Numbers are added.
    Sum,
    /// The larger number stays.
    Max,
    /// A reducer that the host registered under this name.
    Custom {
        /// Its name in the registry.
        name: String,
    },
}

/// An update that does not fit its reducer.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("reducer `{reducer}` takes {wanted}, found {found}")]
pub struct Misfit {
    /// The reducer's name.
    pub reducer: String,
    /// What it takes.
    pub wanted: &'static str,
    /// What was given.
    pub found: &'static str,
}

impl Reducer {
    /// The name as written in a graph file.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Merge => "merge",
            Self::MergeByKey { .. } => "merge_by_key",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Custom { name } => name,
        }
    }

    /// Whether several writers of one superstep may write the channel.
    #[must_use]
    pub fn takes_parallel_writes(&self) -> bool {
        !matches!(self, Self::Replace)
    }

    /// Applies one update in place. `null` stands for a channel that was never written.
    ///
    /// A custom reducer is not known here: the engine calls it through its registry, and this
    /// refuses it.
    ///
    /// # Errors
    /// [`Misfit`] when value or update have the wrong shape; `value` is then unchanged.
    pub fn apply(&self, value: &mut Value, update: Value) -> Result<(), Misfit> {
        match self {
            Self::Replace => *value = update,
            Self::Append => {
                let Value::Array(items) = update else {
                    return Err(self.misfit("a list", &update));
                };
                self.list(value)?.extend(items);
            }
            Self::Merge => {
                let Value::Object(entries) = update else {
                    return Err(self.misfit("an object", &update));
                };
                self.object(value)?.extend(entries);
            }
            Self::MergeByKey { key } => {
                let Value::Array(items) = update else {
                    return Err(self.misfit("a list of objects", &update));
                };
                if let Some(item) = items.iter().find(|item| item.get(key).is_none()) {
                    return Err(self.misfit("objects that have the key", item));
                }
                let list = self.list(value)?;
                for item in items {
                    match list.iter_mut().find(|old| old.get(key) == item.get(key)) {
                        Some(old) => *old = item,
                        None => list.push(item),
                    }
                }
            }
            Self::Sum => *value = self.number(value, &update, |a, b| a + b, i64::checked_add)?,
            Self::Max => *value = self.number(value, &update, f64::max, |a, b| Some(a.max(b)))?,
            Self::Custom { .. } => return Err(self.misfit("a call through the registry", &update)),
        }
        Ok(())
    }

    fn misfit(&self, wanted: &'static str, found: &Value) -> Misfit {
        Misfit { reducer: self.name().to_owned(), wanted, found: kind_of(found) }
    }

    fn list<'v>(&self, value: &'v mut Value) -> Result<&'v mut Vec<Value>, Misfit> {
        if value.is_null() {
            *value = Value::Array(Vec::new());
        }
        match value {
            Value::Array(items) => Ok(items),
            other => Err(self.misfit("a list as the current value", other)),
        }
    }

    fn object<'v>(&self, value: &'v mut Value) -> Result<&'v mut Map<String, Value>, Misfit> {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(entries) => Ok(entries),
            other => Err(self.misfit("an object as the current value", other)),
        }
    }

    /// Integers stay integers as long as both are and the result fits.
    fn number(
        &self,
        value: &Value,
        update: &Value,
        floats: fn(f64, f64) -> f64,
        integers: fn(i64, i64) -> Option<i64>,
    ) -> Result<Value, Misfit> {
        if !update.is_number() {
            return Err(self.misfit("a number", update));
        }
        if value.is_null() {
            return Ok(update.clone());
        }
        if let (Some(a), Some(b)) = (value.as_i64(), update.as_i64())
            && let Some(result) = integers(a, b)
        {
            return Ok(result.into());
        }
        let (Some(a), Some(b)) = (value.as_f64(), update.as_f64()) else {
            return Err(self.misfit("a number as the current value", value));
        };
        Ok(floats(a, b).into())
    }
}

/// The JSON type of a value, in words.
#[must_use]
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(reducer: &Reducer, mut value: Value, update: Value, expected: Result<Value, &str>) {
        let got =
            reducer.apply(&mut value, update).map(|()| value).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{}", reducer.name());
    }

    #[test]
    fn each_reducer_does_what_its_name_says() {
        let by_id = Reducer::MergeByKey { key: "id".into() };
        check(&Reducer::Replace, json!(1), json!([2]), Ok(json!([2])));
        check(&Reducer::Append, Value::Null, json!([1]), Ok(json!([1])));
        check(&Reducer::Append, json!([1]), json!([2, 3]), Ok(json!([1, 2, 3])));
        check(
            &Reducer::Merge,
            json!({"a": 1, "b": 1}),
            json!({"b": 2}),
            Ok(json!({"a": 1, "b": 2})),
        );
        check(
            &by_id,
            json!([{"id": 1, "s": "open"}]),
            json!([{"id": 2}, {"id": 1, "s": "done"}]),
            Ok(json!([{"id": 1, "s": "done"}, {"id": 2}])),
        );
        check(&Reducer::Sum, json!(2), json!(3), Ok(json!(5)));
        check(&Reducer::Sum, json!(2), json!(0.5), Ok(json!(2.5)));
        check(&Reducer::Sum, json!(i64::MAX), json!(1), Ok(json!(i64::MAX as f64)));
        check(&Reducer::Max, json!(2), json!(1), Ok(json!(2)));
    }

    #[test]
    fn a_misfit_says_what_was_wanted_and_found() {
        check(
            &Reducer::Append,
            json!([]),
            json!(1),
            Err("reducer `append` takes a list, found a number"),
        );
        check(
            &Reducer::Append,
            json!("x"),
            json!([1]),
            Err("reducer `append` takes a list as the current value, found a string"),
        );
        check(
            &Reducer::MergeByKey { key: "id".into() },
            json!([]),
            json!([{"name": 1}]),
            Err("reducer `merge_by_key` takes objects that have the key, found an object"),
        );
    }
}

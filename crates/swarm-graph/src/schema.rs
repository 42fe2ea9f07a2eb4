//! Schemas: the one of graph files, and whether a value of one type fits where another is wanted.
//!
//! The schema of graph files is made from the same declarations that read them
//! (`spec`), is kept in `graphs/`, and a test fails when it is stale.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::defect::Code;
use crate::expr::Type;
use crate::spec::GraphSpec;

/// The name of the schema file, as the first line of each graph gives it.
pub const FILE_NAME: &str = "swarm-graph.v1.schema.json";
const DEPTH_MAX: usize = 12;

/// The JSON schema of a graph file.
#[must_use]
pub fn graph_file() -> Value {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<GraphSpec>();
    schema.insert("title".to_owned(), "DevinSwarm graph, version 1".into());
    schema.to_value()
}

/// Why a value does not fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Misfit {
    pub(crate) code: Code,
    /// The fields down to where it does not, joined by dots; empty for the whole.
    pub(crate) path: String,
    /// What is wrong there.
    pub(crate) message: String,
}

impl Misfit {
    fn of(wanted: &Type, found: &Type) -> Self {
        Self {
            code: Code::TypeMismatch,
            path: String::new(),
            message: format!("expected {}, found {}", wanted.describe(), found.describe()),
        }
    }

    fn under(mut self, part: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => part.to_owned(),
            rest if rest.starts_with('[') => format!("{part}{rest}"),
            rest => format!("{part}.{rest}"),
        };
        self
    }
}

/// Whether every value of type `found` may be what `wanted` asks for. Only what is certainly
/// wrong is a misfit: a value that may be null where none is wanted is trusted, because types do
/// not tell which nodes have run before.
pub(crate) fn fits(found: &Type, wanted: &Type) -> Result<(), Misfit> {
    fits_to(found, wanted, DEPTH_MAX)
}

fn fits_to(found: &Type, wanted: &Type, depth: usize) -> Result<(), Misfit> {
    if depth == 0 {
        return Ok(());
    }
    let (founds, wanteds) = (found.options(), wanted.options());
    let nullable = wanteds.iter().any(|option| matches!(option, Type::Null | Type::Dyn));
    if founds.iter().all(|option| matches!(option, Type::Null)) {
        return if nullable { Ok(()) } else { Err(Misfit::of(wanted, found)) };
    }
    for option in founds.iter().filter(|option| !matches!(option, Type::Null)) {
        let mut first = None;
        let mut fitted = false;
        for target in wanteds.iter().filter(|target| !matches!(target, Type::Null)) {
            match fits_one(option, target, depth) {
                Ok(()) => fitted = true,
                Err(misfit) => first = Some(first.unwrap_or(misfit)),
            }
        }
        if fitted || wanteds.is_empty() {
            continue;
        }
        let alone = wanteds.iter().filter(|target| !matches!(target, Type::Null)).count() == 1;
        return Err(match first {
            Some(misfit) if alone && !misfit.path.is_empty() => misfit,
            _ => Misfit::of(wanted, found),
        });
    }
    Ok(())
}

/// Both are no unions, and resolved.
fn fits_one(found: &Type, wanted: &Type, depth: usize) -> Result<(), Misfit> {
    let misfit = || Err(Misfit::of(wanted, found));
    match (found, wanted) {
        (Type::Dyn, _) | (_, Type::Dyn) => Ok(()),
        (Type::Bool, Type::Bool)
        | (Type::Int, Type::Int | Type::Number)
        | (Type::Number, Type::Number)
        | (Type::Text(None), Type::Text(_))
        | (Type::Text(_), Type::Text(None)) => Ok(()),
        (Type::Text(Some(words)), Type::Text(Some(known))) => {
            if words.iter().all(|word| known.contains(word)) { Ok(()) } else { misfit() }
        }
        (Type::List(item), Type::List(target)) => {
            fits_to(item, target, depth - 1).map_err(|misfit| misfit.under("[]"))
        }
        (Type::Map(value), Type::Map(target)) => {
            fits_to(value, target, depth - 1).map_err(|misfit| misfit.under("*"))
        }
        (Type::Map(_), Type::Record(_)) => Ok(()),
        (Type::Record(record), Type::Map(target)) => {
            for (name, field) in &record.fields {
                fits_to(&field.ty, target, depth - 1).map_err(|misfit| misfit.under(name))?;
            }
            Ok(())
        }
        (Type::Record(record), Type::Record(target)) => {
            for (name, field) in &target.fields {
                match record.fields.get(name) {
                    Some(given) => fits_to(&given.ty, &field.ty, depth - 1)
                        .map_err(|misfit| misfit.under(name))?,
                    None if field.required && record.rest.is_none() => {
                        return Err(Misfit {
                            code: Code::MissingField,
                            path: String::new(),
                            message: format!("no field `{name}` in {}", found.describe()),
                        }
                        .under(name));
                    }
                    None => {}
                }
            }
            if target.closed
                && let Some(name) =
                    record.fields.keys().find(|name| !target.fields.contains_key(*name))
            {
                return Err(Misfit {
                    code: Code::UnknownField,
                    path: String::new(),
                    message: format!("a field `{name}` that {} does not have", wanted.describe()),
                }
                .under(name));
            }
            Ok(())
        }
        _ => misfit(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the tests read better without `&`")]
    fn check(found: Value, wanted: Value, expected: Result<(), (&str, &str)>) {
        let got = fits(&Type::of_schema(&found), &Type::of_schema(&wanted));
        let got = got.map_err(|misfit| (misfit.path, misfit.message));
        let expected = expected.map_err(|(path, message)| (path.to_owned(), message.to_owned()));
        assert_eq!(got, expected, "{found} into {wanted}");
    }

    #[test]
    fn only_what_is_certainly_wrong_does_not_fit() {
        let text = json!({"type": "string"});
        let maybe = json!({"type": ["string", "null"]});
        let int = json!({"type": "integer"});
        let number = json!({"type": "number"});
        let words = json!({"enum": ["a", "b"]});
        check(text.clone(), maybe.clone(), Ok(()));
        check(maybe.clone(), text.clone(), Ok(()));
        check(int.clone(), number.clone(), Ok(()));
        check(number, int.clone(), Err(("", "expected a whole number, found a number")));
        check(int.clone(), text.clone(), Err(("", "expected a string, found a whole number")));
        check(text.clone(), words.clone(), Ok(()));
        check(words, text.clone(), Ok(()));
        check(
            json!({"enum": ["a", "c"]}),
            json!({"enum": ["a", "b"]}),
            Err(("", "expected one of 'a', 'b', found one of 'a', 'c'")),
        );
        check(json!({"type": "null"}), maybe, Ok(()));
        check(json!({"type": "null"}), text.clone(), Err(("", "expected a string, found null")));
        let lists = |item: &Value| json!({"type": "array", "items": item});
        check(lists(&int), lists(&text), Err(("[]", "expected a string, found a whole number")));
        check(json!({}), lists(&text), Ok(()));
    }

    #[test]
    fn objects_are_compared_field_by_field() {
        let object = |fields: Value, required: Value, closed: bool| json!({"type": "object", "properties": fields, "required": required, "additionalProperties": !closed});
        let wanted = object(
            json!({"id": {"type": "string"}, "n": {"type": "integer"}}),
            json!(["id"]),
            true,
        );
        check(
            object(json!({"id": {"type": "string"}}), json!(["id"]), false),
            wanted.clone(),
            Ok(()),
        );
        check(
            object(json!({"id": {"type": "boolean"}}), json!(["id"]), false),
            wanted.clone(),
            Err(("id", "expected a string, found a boolean")),
        );
        check(
            object(json!({"n": {"type": "integer"}}), json!([]), false),
            wanted.clone(),
            Err(("id", "no field `id` in an object with n")),
        );
        check(
            object(json!({"id": {"type": "string"}, "x": {}}), json!([]), false),
            wanted,
            Err(("x", "a field `x` that an object with id, n does not have")),
        );
    }
}

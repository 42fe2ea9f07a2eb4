//! Expressions and values with expressions inside: compiled, typed, and held against what is
//! wanted where they go.

use serde_json::{Map, Value};

use crate::defect::report::Report;
use crate::defect::{Code, suggest};
use crate::expr::{Env, Expr, ParseError, Piece, RawPiece, Template, Type, infer, pieces};
use crate::schema::fits;
use crate::spec::read::ExprText;
use crate::spec::yaml::{Data, Span, Spanned, Yaml};

/// A compiled value that still knows its places and types.
pub(super) struct Made {
    at: Span,
    template: Template,
    shape: Shape,
}

enum Shape {
    /// A constant or an expression.
    Leaf(Type),
    Object(Vec<(Spanned<String>, Made)>),
    List(Vec<Made>),
}

/// What is wanted where a value goes: a schema, and the type that it describes.
pub(super) struct Wanted<'s> {
    ty: Type,
    schema: Option<&'s Value>,
}

impl<'s> Wanted<'s> {
    /// What a schema describes.
    pub(super) fn schema(schema: &'s Value) -> Self {
        Self { ty: Type::of_schema(schema), schema: Some(schema) }
    }

    /// Values of a type.
    pub(super) fn ty(ty: Type) -> Self {
        Self { ty, schema: None }
    }
}

/// Compiles a value and holds it against what is wanted; `what` is its key, for messages.
pub(super) fn value(
    report: &mut Report,
    yaml: &Yaml,
    env: &Env,
    wanted: &Wanted<'_>,
    what: &str,
) -> Option<Template> {
    let made = make(report, yaml, env)?;
    let before = report.errors();
    hold(report, &made, &wanted.ty, what);
    if report.errors() == before
        && let Some(schema) = wanted.schema
    {
        literals(report, yaml, &made, schema, what);
    }
    Some(made.template)
}

/// Compiles a condition.
pub(super) fn condition(report: &mut Report, text: &Spanned<ExprText>, env: &Env) -> Option<Expr> {
    let (expr, ty) = whole(report, text, env)?;
    if !ty.may_be(|option| matches!(option, Type::Bool)) {
        let message = format!("a condition must be a boolean, found {}", ty.describe());
        report.error(Code::TypeMismatch, text.at, message);
        return None;
    }
    Some(expr)
}

/// Compiles an expression that must be one `${{ }}` and nothing else.
pub(super) fn whole(
    report: &mut Report,
    text: &Spanned<ExprText>,
    env: &Env,
) -> Option<(Expr, Type)> {
    let source = text.value.0.trim();
    let lead = text.value.0.len() - text.value.0.trim_start().len();
    match pieces(source).as_slice() {
        [RawPiece::Expr(inside, at)] => {
            compile(report, text.at, &text.value.0, inside, lead + at, env)
        }
        _ => {
            let message = format!("`{}` is not one expression", short(source));
            report.error(Code::BadExpression, text.at, message).help =
                Some("write `${{ … }}` around all of it, and nothing outside".to_owned());
            None
        }
    }
}

fn short(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_MAX).chain(['…']).collect()
}

/// Compiles the inside of one `${{ }}` that begins at the byte `offset` of `text`.
fn compile(
    report: &mut Report,
    at: Span,
    text: &str,
    source: &str,
    offset: usize,
    env: &Env,
) -> Option<(Expr, Type)> {
    let expr = match Expr::parse(source) {
        Ok(expr) => expr,
        Err(error) => {
            let (inside, needle, help) = match &error {
                ParseError::Syntax { at, .. } => (*at, source.get(*at..).unwrap_or_default(), None),
                ParseError::NoFunction { name } => (
                    source.find(name.as_str()).unwrap_or(0),
                    name.as_str(),
                    suggest(name, FUNCTIONS),
                ),
                ParseError::TooLong(_)
                | ParseError::TooDeep(_)
                | ParseError::Unsupported(_)
                | ParseError::Arguments(_) => (0, source, None),
            };
            let at = report.inside(at, text, offset + inside, needle);
            report.error(Code::BadExpression, at, error.to_string()).help = help;
            return None;
        }
    };
    let (ty, mistakes) = infer(&expr, env);
    let clean = mistakes.is_empty();
    for mistake in mistakes {
        let needle = mistake.needle.as_deref().unwrap_or(source);
        let skip = usize::from(needle.starts_with('.'));
        let inside = word(source, needle).map_or(0, |found| found + skip);
        let at = report.inside(at, text, offset + inside, &needle[skip..]);
        report.error(mistake.code, at, mistake.message).help = mistake.help;
    }
    Some((expr, if clean { ty } else { Type::Dyn }))
}

const FUNCTIONS: [&str; 17] = [
    "all",
    "bool",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "join",
    "map",
    "matches",
    "size",
    "startsWith",
    "string",
];

/// Where a word stands in a text, not as a part of a longer word.
fn word(text: &str, needle: &str) -> Option<usize> {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(at) = text[from..].find(needle).map(|at| at + from) {
        let before = text[..at].chars().next_back().is_some_and(inner) && !needle.starts_with('.');
        let after = text[at + needle.len()..].chars().next().is_some_and(inner);
        if !before && !after {
            return Some(at);
        }
        from = at + needle.chars().next().map_or(1, char::len_utf8);
    }
    text.find(needle)
}

/// Compiles a value, places and types kept.
fn make(report: &mut Report, yaml: &Yaml, env: &Env) -> Option<Made> {
    let at = yaml.at;
    let (template, shape) = match &yaml.data {
        Data::Text(text) => make_text(report, at, text, env)?,
        Data::List(items) => {
            let all: Vec<Option<Made>> = items.iter().map(|item| make(report, item, env)).collect();
            let made: Vec<Made> = all.into_iter().collect::<Option<_>>()?;
            let constants: Option<Vec<Value>> = made.iter().map(constant).collect();
            let template = match constants {
                Some(values) => Template::Literal(Value::Array(values)),
                None => Template::List(made.iter().map(|item| item.template.clone()).collect()),
            };
            (template, Shape::List(made))
        }
        Data::Map(entries) => {
            let mut made = Vec::with_capacity(entries.len());
            let mut complete = true;
            for (name, value) in entries {
                let value = make(report, value, env);
                match (&name.data, value) {
                    (Data::Text(text), Some(value)) => {
                        made.push((Spanned { at: name.at, value: text.clone() }, value));
                    }
                    _ => complete = false,
                }
            }
            if !complete {
                return None;
            }
            let constants: Option<Map<String, Value>> = made
                .iter()
                .map(|(name, value)| Some((name.value.clone(), constant(value)?)))
                .collect();
            let template = match constants {
                Some(entries) => Template::Literal(Value::Object(entries)),
                None => Template::Object(
                    made.iter()
                        .map(|(name, value)| (name.value.clone(), value.template.clone()))
                        .collect(),
                ),
            };
            (template, Shape::Object(made))
        }
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::NoJson => {
            let value = yaml.to_json();
            let ty = Type::of_value(&value);
            (Template::Literal(value), Shape::Leaf(ty))
        }
    };
    Some(Made { at, template, shape })
}

fn constant(made: &Made) -> Option<Value> {
    match &made.template {
        Template::Literal(value) => Some(value.clone()),
        Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Object(_) => None,
    }
}

fn make_text(report: &mut Report, at: Span, text: &str, env: &Env) -> Option<(Template, Shape)> {
    let raw = pieces(text);
    if let [RawPiece::Expr(source, offset)] = raw.as_slice() {
        let (expr, ty) = compile(report, at, text, source, *offset, env)?;
        return Some((Template::Expr(expr), Shape::Leaf(ty)));
    }
    let mut compiled: Vec<Piece> = Vec::new();
    let mut complete = true;
    for piece in raw {
        match piece {
            RawPiece::Text(part) => match compiled.last_mut() {
                Some(Piece::Text(before)) => before.push_str(part),
                _ => compiled.push(Piece::Text(part.to_owned())),
            },
            RawPiece::Expr(source, offset) => {
                match compile(report, at, text, source, offset, env) {
                    Some((expr, _)) => compiled.push(Piece::Expr(expr)),
                    None => complete = false,
                }
            }
            RawPiece::Open(offset) => {
                let at = report.inside(at, text, offset, "${{");
                report.error(Code::BadExpression, at, "`${{` without `}}`").help =
                    Some("close it, or write `$${{` for the text itself".to_owned());
                complete = false;
            }
        }
    }
    if !complete {
        return None;
    }
    let literal = match compiled.as_slice() {
        [] => Some(String::new()),
        [Piece::Text(part)] => Some(part.clone()),
        _ => None,
    };
    Some(match literal {
        Some(text) => {
            let ty = Type::of_value(&Value::String(text.clone()));
            (Template::Literal(Value::String(text)), Shape::Leaf(ty))
        }
        None => (Template::Text(compiled), Shape::Leaf(Type::Text(None))),
    })
}

/// Holds a value against a type, down to each leaf.
fn hold(report: &mut Report, made: &Made, wanted: &Type, what: &str) {
    let options = wanted.options();
    if options.iter().any(|option| matches!(option, Type::Dyn)) {
        return;
    }
    match &made.shape {
        Shape::Leaf(ty) => hold_type(report, made.at, ty, wanted, &format!("`{what}`")),
        Shape::List(items) => {
            let targets: Vec<Type> = options
                .into_iter()
                .filter_map(|option| match option {
                    Type::List(item) => Some((*item).clone()),
                    _ => None,
                })
                .collect();
            if targets.is_empty() {
                let message = format!("`{what}`: expected {}, found a list", wanted.describe());
                report.error(Code::TypeMismatch, made.at, message);
                return;
            }
            let target = Type::union(targets);
            for item in items {
                hold(report, item, &target, what);
            }
        }
        Shape::Object(entries) => hold_object(report, made, entries, wanted, &options, what),
    }
}

/// Holds a type against a type; `what` is said as it is.
pub(super) fn hold_type(report: &mut Report, at: Span, ty: &Type, wanted: &Type, what: &str) {
    if let Err(misfit) = fits(ty, wanted) {
        let place = if misfit.path.is_empty() {
            what.to_owned()
        } else {
            format!("{what}, at `{}`", misfit.path)
        };
        let defect = report.error(misfit.code, at, format!("{place}: {}", misfit.message));
        if let (Type::Text(Some(words)), true) = (ty, misfit.path.is_empty()) {
            let known: Vec<String> = wanted
                .options()
                .into_iter()
                .filter_map(|option| match option {
                    Type::Text(Some(words)) => Some(words.to_vec()),
                    _ => None,
                })
                .flatten()
                .collect();
            if let [word] = &**words {
                defect.help = suggest(word, known.iter().map(String::as_str));
            }
        }
    }
}

fn hold_object(
    report: &mut Report,
    made: &Made,
    entries: &[(Spanned<String>, Made)],
    wanted: &Type,
    options: &[Type],
    what: &str,
) {
    let mut maps = Vec::new();
    let mut records = Vec::new();
    for option in options {
        match option {
            Type::Map(value) => maps.push((**value).clone()),
            Type::Record(record) => records.push(record),
            _ => {}
        }
    }
    if maps.is_empty() && records.is_empty() {
        let message = format!("`{what}`: expected {}, found an object", wanted.describe());
        report.error(Code::TypeMismatch, made.at, message);
        return;
    }
    // Of several forms only those are meant whose constant fields agree, such as `kind`.
    let agrees = |record: &&&std::sync::Arc<crate::expr::Fields>| {
        entries.iter().all(|(name, value)| match (&value.shape, record.fields.get(&name.value)) {
            (Shape::Leaf(ty @ Type::Text(Some(_))), Some(field)) => fits(ty, &field.ty).is_ok(),
            _ => true,
        })
    };
    let meant: Vec<_> = records.iter().filter(agrees).collect();
    let meant = if meant.is_empty() { records.iter().collect() } else { meant };
    for (name, value) in entries {
        let mut targets = maps.clone();
        for record in &meant {
            targets.extend(record.fields.get(&name.value).map(|field| field.ty.clone()));
            targets.extend(record.rest.clone());
        }
        if targets.is_empty() {
            let known = meant.iter().flat_map(|record| record.fields.keys()).map(String::as_str);
            let help = suggest(&name.value, known).or_else(|| Some("it has no fields".to_owned()));
            let message = format!("`{what}` has no field `{}`", name.value);
            report.error(Code::UnknownField, name.at, message).help = help;
            continue;
        }
        let what = format!("{what}.{}", name.value);
        hold(report, value, &Type::union(targets), &what);
    }
    if let ([record], true) = (meant.as_slice(), maps.is_empty()) {
        for (name, field) in &record.fields {
            if field.required && !entries.iter().any(|(given, _)| given.value == *name) {
                let message = format!("`{what}` needs a field `{name}`: {}", field.ty.describe());
                report.error(Code::MissingField, made.at, message);
            }
        }
    }
}

/// Holds the constants in a value against the finer points of a schema: patterns, bounds. What
/// lies above an expression is left out, because its value is not known.
fn literals(report: &mut Report, yaml: &Yaml, made: &Made, schema: &Value, what: &str) {
    let Ok(validator) = jsonschema::validator_for(schema) else { return };
    let mut open = Vec::new();
    let instance = sample(made, "", &mut open);
    for error in validator.iter_errors(&instance) {
        let path = error.instance_path().to_string();
        let touches = |expr: &String| {
            expr == &path
                || expr.starts_with(&format!("{path}/"))
                || path.starts_with(&format!("{expr}/"))
        };
        if open.iter().any(touches) {
            continue;
        }
        let parts = path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
        let at = yaml.deepest(parts).at;
        report.error(
            Code::TypeMismatch,
            at,
            format!("`{what}`: {}", short_error(&error.to_string())),
        );
    }
}

fn short_error(message: &str) -> String {
    const SHOWN_MAX: usize = 200;
    message.chars().take(SHOWN_MAX).collect()
}

/// The value with `null` for each expression, and the paths of those.
fn sample(made: &Made, path: &str, open: &mut Vec<String>) -> Value {
    match (&made.template, &made.shape) {
        (Template::Literal(value), _) => value.clone(),
        (_, Shape::Leaf(_)) => {
            open.push(path.to_owned());
            Value::Null
        }
        (_, Shape::List(items)) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(at, item)| sample(item, &format!("{path}/{at}"), open))
                .collect(),
        ),
        (_, Shape::Object(entries)) => Value::Object(
            entries
                .iter()
                .map(|(name, value)| {
                    let part = name.value.replace('~', "~0").replace('/', "~1");
                    (name.value.clone(), sample(value, &format!("{path}/{part}"), open))
                })
                .collect(),
        ),
    }
}

/// Holds a constant without expressions, such as `config`, against a schema.
pub(super) fn constant_value(
    report: &mut Report,
    yaml: &Yaml,
    wanted: &Wanted<'_>,
    what: &str,
) -> Option<Value> {
    if let Some(at) = first_expression(yaml) {
        report.error(Code::BadValue, at, format!("`{what}` holds constants, no expressions"));
        return None;
    }
    let before = report.errors();
    match value(report, yaml, &Env::default(), wanted, what)? {
        Template::Literal(value) if report.errors() == before => Some(value),
        Template::Literal(_)
        | Template::Expr(_)
        | Template::Text(_)
        | Template::List(_)
        | Template::Object(_) => None,
    }
}

fn first_expression(yaml: &Yaml) -> Option<Span> {
    match &yaml.data {
        Data::Text(text) => pieces(text)
            .iter()
            .any(|piece| matches!(piece, RawPiece::Expr(..) | RawPiece::Open(_)))
            .then_some(yaml.at),
        Data::List(items) => items.iter().find_map(first_expression),
        Data::Map(entries) => entries.iter().find_map(|(_, value)| first_expression(value)),
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::NoJson => None,
    }
}

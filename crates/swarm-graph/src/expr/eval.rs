//! Evaluation: a tree over borrowed JSON, with a bound on its steps.
//!
//! What a newcomer gets wrong: `&&` and `||` are commutative about errors in CEL. A side that
//! decides the result hides an error of the other side, left or right.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};
use swarm_core::reducer::kind_of;

use super::ir::{Function, Loop, LoopKind, Node, Operator};
use super::parse::with_stack;
use super::{ErrorKind, Scope, StateView};

/// The most steps of one evaluation; copying a value costs a step per item and 64 bytes.
pub(super) const STEPS_MAX: u64 = 2_000_000;
const PATTERN_SIZE_MAX: usize = 1 << 20;

type Result<T> = std::result::Result<T, ErrorKind>;

/// Evaluates a whole expression.
pub(super) fn eval(node: &Node, scope: &Scope<'_>) -> Result<Value> {
    let run = Run { scope, steps: Cell::new(0) };
    with_stack(|| {
        let value = run.eval(node, None)?;
        run.own(value)
    })
}

/// What a loop variable stands for, innermost first.
struct Frame<'f> {
    name: &'f str,
    value: &'f Value,
    outer: Option<&'f Self>,
}

struct Run<'s> {
    scope: &'s Scope<'s>,
    steps: Cell<u64>,
}

impl<'s> Run<'s> {
    fn spend(&self, steps: u64) -> Result<()> {
        let spent = self.steps.get().saturating_add(steps);
        self.steps.set(spent);
        if spent > STEPS_MAX { Err(ErrorKind::TooCostly) } else { Ok(()) }
    }

    fn own(&self, value: Cow<'_, Value>) -> Result<Value> {
        match value {
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => {
                self.spend(size(value))?;
                Ok(value.clone())
            }
        }
    }

    fn eval<'e>(&self, node: &'e Node, frame: Option<&'e Frame<'e>>) -> Result<Cow<'e, Value>>
    where
        's: 'e,
    {
        self.spend(1)?;
        Ok(match node {
            Node::Literal(value) => Cow::Borrowed(value),
            Node::Var(name) => self.var(name, frame)?,
            Node::Select(base, field) => {
                if let Some(state) = self.state(base, frame) {
                    return match state.get(field) {
                        Some(value) => Ok(Cow::Borrowed(&**value)),
                        None => Err(ErrorKind::NoKey(field.clone())),
                    };
                }
                select(self.eval(base, frame)?, field)?
            }
            Node::Has(base, field) => {
                if let Some(state) = self.state(base, frame) {
                    return Ok(truth(state.get(field).is_some()));
                }
                match &*self.eval(base, frame)? {
                    Value::Object(entries) => truth(entries.contains_key(field)),
                    other => return Err(wrong("an object", other)),
                }
            }
            Node::Index(base, index) => {
                let (base, index) = (self.eval(base, frame)?, self.eval(index, frame)?);
                item(base, &index)?
            }
            Node::List(items) => Cow::Owned(Value::Array(
                items
                    .iter()
                    .map(|item| self.eval(item, frame).and_then(|item| self.own(item)))
                    .collect::<Result<_>>()?,
            )),
            Node::Map(entries) => {
                let mut object = Map::new();
                for (key, value) in entries {
                    let key = match &*self.eval(key, frame)? {
                        Value::String(key) => key.clone(),
                        other => return Err(wrong("a string as key", other)),
                    };
                    let value = self.eval(value, frame)?;
                    object.insert(key, self.own(value)?);
                }
                Cow::Owned(Value::Object(object))
            }
            Node::Not(a) => truth(!self.truth_of(a, frame)?),
            Node::Negate(a) => {
                let value = self.eval(a, frame)?;
                Cow::Owned(negate(&value)?)
            }
            Node::And(a, b) => truth(self.decide(a, b, false, frame)?),
            Node::Or(a, b) => truth(self.decide(a, b, true, frame)?),
            Node::Choose(condition, yes, no) => {
                if self.truth_of(condition, frame)? {
                    self.eval(yes, frame)?
                } else {
                    self.eval(no, frame)?
                }
            }
            Node::Binary(operator, a, b) => {
                let (a, b) = (self.eval(a, frame)?, self.eval(b, frame)?);
                self.spend(size(&a).min(size(&b)))?;
                self.binary(*operator, a, &b)?
            }
            Node::Call(function, args) => self.call(*function, args, frame)?,
            Node::Loop(inner) => self.run_loop(inner, frame)?,
        })
    }

    fn var<'e>(&self, name: &str, frame: Option<&'e Frame<'e>>) -> Result<Cow<'e, Value>>
    where
        's: 'e,
    {
        let mut frame = frame;
        while let Some(inner) = frame {
            if inner.name == name {
                return Ok(Cow::Borrowed(inner.value));
            }
            frame = inner.outer;
        }
        if let Some(value) = self.scope.get(name) {
            return Ok(Cow::Borrowed(value));
        }
        match self.scope.state {
            Some(state) if name == "state" => {
                self.spend(state.state.0.values().map(|value| size(value)).sum())?;
                Ok(Cow::Owned(state.to_value()))
            }
            // A node that a `catch` leads to can be reached without a failure too.
            _ if name == "error" => Ok(Cow::Borrowed(&Value::Null)),
            _ => Err(ErrorKind::NoVariable(name.to_owned())),
        }
    }

    /// The state, if `node` is the variable `state` and nothing hides it.
    fn state(&self, node: &Node, frame: Option<&Frame<'_>>) -> Option<StateView<'s>> {
        let Node::Var(name) = node else { return None };
        let mut frame = frame;
        while let Some(inner) = frame {
            if inner.name == name {
                return None;
            }
            frame = inner.outer;
        }
        if name == "state" && self.scope.get(name).is_none() { self.scope.state } else { None }
    }

    fn truth_of<'e>(&self, node: &'e Node, frame: Option<&'e Frame<'e>>) -> Result<bool>
    where
        's: 'e,
    {
        match &*self.eval(node, frame)? {
            Value::Bool(value) => Ok(*value),
            other => Err(wrong("a boolean", other)),
        }
    }

    /// `a || b` with `decisive` true, `a && b` with `decisive` false.
    fn decide<'e>(
        &self,
        a: &'e Node,
        b: &'e Node,
        decisive: bool,
        frame: Option<&'e Frame<'e>>,
    ) -> Result<bool>
    where
        's: 'e,
    {
        let left = self.truth_of(a, frame);
        if left == Ok(decisive) || left == Err(ErrorKind::TooCostly) {
            return left;
        }
        match (left, self.truth_of(b, frame)) {
            (_, Ok(right)) if right == decisive => Ok(decisive),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Ok(!decisive),
        }
    }

    fn binary<'e>(
        &self,
        operator: Operator,
        a: Cow<'e, Value>,
        b: &Value,
    ) -> Result<Cow<'e, Value>> {
        use Operator::{
            Add, Divide, Equal, Greater, GreaterEqual, In, Less, LessEqual, Modulo, Multiply,
            NotEqual, Subtract,
        };
        let operands = |a: &Value| ErrorKind::Operands {
            operator: operator.sign(),
            left: kind_of(a),
            right: kind_of(b),
        };
        Ok(match operator {
            Equal => truth(equal(&a, b)),
            NotEqual => truth(!equal(&a, b)),
            Less | LessEqual | Greater | GreaterEqual => {
                let order = compare(&a, b).ok_or_else(|| operands(&a))?;
                truth(match operator {
                    Less => order == Some(Ordering::Less),
                    LessEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    Greater => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                })
            }
            In => match b {
                Value::Array(items) => {
                    self.spend(items.len() as u64)?;
                    truth(items.iter().any(|item| equal(&a, item)))
                }
                Value::Object(entries) => match &*a {
                    Value::String(key) => truth(entries.contains_key(key)),
                    _ => truth(false),
                },
                _ => return Err(operands(&a)),
            },
            Add => match (&*a, b) {
                (Value::Number(x), Value::Number(y)) => Cow::Owned(arithmetic(operator, x, y)?),
                (Value::String(x), Value::String(y)) => {
                    self.spend((x.len() + y.len()) as u64 / 64)?;
                    Cow::Owned(Value::String([x.as_str(), y.as_str()].concat()))
                }
                (Value::Array(_), Value::Array(more)) => {
                    self.spend(size(b))?;
                    let Value::Array(mut items) = self.own(a)? else {
                        return Err(wrong("a list", b));
                    };
                    items.extend(more.iter().cloned());
                    Cow::Owned(Value::Array(items))
                }
                _ => return Err(operands(&a)),
            },
            Subtract | Multiply | Divide | Modulo => match (&*a, b) {
                (Value::Number(x), Value::Number(y)) => Cow::Owned(arithmetic(operator, x, y)?),
                _ => return Err(operands(&a)),
            },
        })
    }

    fn call<'e>(
        &self,
        function: Function,
        args: &'e [Node],
        frame: Option<&'e Frame<'e>>,
    ) -> Result<Cow<'e, Value>>
    where
        's: 'e,
    {
        let arg = |index: usize| self.eval(&args[index], frame);
        let texts = |f: fn(&str, &str) -> bool| -> Result<Cow<'e, Value>> {
            let (text, part) = (arg(0)?, arg(1)?);
            let (text, part) = (string(&text)?, string(&part)?);
            self.spend(text.len() as u64 / 64)?;
            Ok(truth(f(text, part)))
        };
        Ok(match function {
            Function::Size => {
                let value = arg(0)?;
                let len = match &*value {
                    Value::String(text) => {
                        self.spend(text.len() as u64 / 64)?;
                        text.chars().count()
                    }
                    Value::Array(items) => items.len(),
                    Value::Object(entries) => entries.len(),
                    other => return Err(wrong("a string, a list or an object", other)),
                };
                Cow::Owned(len.into())
            }
            Function::Contains => texts(|text, part| text.contains(part))?,
            Function::StartsWith => texts(|text, part| text.starts_with(part))?,
            Function::EndsWith => texts(|text, part| text.ends_with(part))?,
            Function::Matches => {
                let (text, pattern) = (arg(0)?, arg(1)?);
                let (text, pattern) = (string(&text)?, string(&pattern)?);
                self.spend(1000 + text.len() as u64 / 16)?;
                truth(pattern_of(pattern)?.is_match(text))
            }
            Function::Join => {
                let (list, separator) = (arg(0)?, arg(1)?);
                let Value::Array(items) = &*list else { return Err(wrong("a list", &list)) };
                self.spend(size(&list))?;
                let parts = items.iter().map(string).collect::<Result<Vec<_>>>()?;
                Cow::Owned(Value::String(parts.join(string(&separator)?)))
            }
            Function::String => {
                let value = arg(0)?;
                match &*value {
                    Value::String(_) => value,
                    Value::Number(number) => Cow::Owned(number_text(number).into()),
                    Value::Bool(value) => Cow::Owned(value.to_string().into()),
                    other => return Err(wrong("a string, a number or a boolean", other)),
                }
            }
            Function::Int => Cow::Owned(to_int(arg(0)?.as_ref())?),
            Function::Double => Cow::Owned(to_double(arg(0)?.as_ref())?),
            Function::Bool => {
                let value = arg(0)?;
                match &*value {
                    Value::Bool(_) => value,
                    Value::String(text) if text == "true" => truth(true),
                    Value::String(text) if text == "false" => truth(false),
                    Value::String(text) => {
                        return Err(ErrorKind::Conversion(format!("`{text}` is no boolean")));
                    }
                    other => return Err(wrong("a boolean or a string", other)),
                }
            }
            Function::Dyn => arg(0)?,
        })
    }

    fn run_loop<'e>(&self, inner: &'e Loop, frame: Option<&'e Frame<'e>>) -> Result<Cow<'e, Value>>
    where
        's: 'e,
    {
        let range = self.eval(&inner.range, frame)?;
        let keys: Vec<Value>;
        let items: &[Value] = match &*range {
            Value::Array(items) => items,
            Value::Object(entries) => {
                self.spend(entries.len() as u64)?;
                keys = entries.keys().map(|key| Value::String(key.clone())).collect();
                &keys
            }
            other => return Err(wrong("a list or an object", other)),
        };
        match inner.kind {
            LoopKind::Exists => self.any(inner, items, true, frame).map(truth),
            LoopKind::All => self.any(inner, items, false, frame).map(|found| truth(!found)),
            LoopKind::ExistsOne => {
                let mut count = 0;
                for value in items {
                    let frame = Frame { name: &inner.var, value, outer: frame };
                    count += u32::from(self.truth_of(&inner.body, Some(&frame))?);
                }
                Ok(truth(count == 1))
            }
            LoopKind::Collect => {
                let mut collected = Vec::new();
                for value in items {
                    let frame = Frame { name: &inner.var, value, outer: frame };
                    if let Some(only) = &inner.only
                        && !self.truth_of(only, Some(&frame))?
                    {
                        continue;
                    }
                    let item = self.eval(&inner.body, Some(&frame))?;
                    collected.push(self.own(item)?);
                }
                Ok(Cow::Owned(Value::Array(collected)))
            }
        }
    }

    /// Whether the condition is `wanted` for any item; an error counts only if none is.
    fn any(
        &self,
        inner: &Loop,
        items: &[Value],
        wanted: bool,
        frame: Option<&Frame<'_>>,
    ) -> Result<bool> {
        let mut failed = None;
        for value in items {
            let frame = Frame { name: &inner.var, value, outer: frame };
            match self.truth_of(&inner.body, Some(&frame)) {
                Ok(found) if found == wanted => return Ok(true),
                Ok(_) => {}
                Err(ErrorKind::TooCostly) => return Err(ErrorKind::TooCostly),
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
        failed.map_or(Ok(false), Err)
    }
}

fn truth<'e>(value: bool) -> Cow<'e, Value> {
    Cow::Owned(Value::Bool(value))
}

fn wrong(wanted: &'static str, found: &Value) -> ErrorKind {
    ErrorKind::Type { wanted, found: kind_of(found) }
}

fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| wrong("a string", value))
}

/// What copying or comparing a value costs.
fn size(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() as u64 / 64,
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::Object(entries) => {
            1 + entries.iter().map(|(key, value)| key.len() as u64 / 64 + size(value)).sum::<u64>()
        }
    }
}

fn select<'e>(base: Cow<'e, Value>, field: &str) -> Result<Cow<'e, Value>> {
    let missing = || ErrorKind::NoKey(field.to_owned());
    match base {
        Cow::Borrowed(Value::Object(entries)) => {
            entries.get(field).map(Cow::Borrowed).ok_or_else(missing)
        }
        Cow::Owned(Value::Object(mut entries)) => {
            entries.swap_remove(field).map(Cow::Owned).ok_or_else(missing)
        }
        other => Err(wrong("an object", &other)),
    }
}

fn item<'e>(base: Cow<'e, Value>, index: &Value) -> Result<Cow<'e, Value>> {
    match (&*base, index) {
        (Value::Object(_), Value::String(key)) => select(base, key),
        (Value::Object(_), other) => Err(wrong("a string as key", other)),
        (Value::Array(items), Value::Number(number)) => {
            let len = items.len();
            let Some(at) = whole(number) else { return Err(wrong("a whole number", index)) };
            let missing = || ErrorKind::NoItem { index: at, len };
            let at = usize::try_from(at).ok().filter(|at| *at < len).ok_or_else(missing)?;
            Ok(match base {
                Cow::Borrowed(list) => Cow::Borrowed(&list[at]),
                Cow::Owned(mut list) => Cow::Owned(list[at].take()),
            })
        }
        (Value::Array(_), other) => Err(wrong("a whole number", other)),
        (other, _) => Err(wrong("a list or an object", other)),
    }
}

/// The integer that a number is, also when it is written as a float.
fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 9.0e15).then_some(float as i64)
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => order(x, y) == Some(Ordering::Equal),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| equal(x, y)))
        }
        _ => a == b,
    }
}

/// `None`: the two have no order. `Some(None)`: they have, but for a NaN.
#[expect(clippy::option_option, reason = "no order at all differs from unordered numbers")]
fn compare(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => Some(order(x, y)),
        (Value::String(x), Value::String(y)) => Some(Some(x.cmp(y))),
        (Value::Bool(x), Value::Bool(y)) => Some(Some(x.cmp(y))),
        _ => None,
    }
}

fn order(x: &Number, y: &Number) -> Option<Ordering> {
    match (integer(x), integer(y)) {
        (Some(x), Some(y)) => Some(x.cmp(&y)),
        _ => x.as_f64()?.partial_cmp(&y.as_f64()?),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn arithmetic(operator: Operator, x: &Number, y: &Number) -> Result<Value> {
    let overflow = || ErrorKind::Overflow(operator.sign());
    if let (Some(x), Some(y)) = (integer(x), integer(y)) {
        if y == 0 && matches!(operator, Operator::Divide | Operator::Modulo) {
            return Err(ErrorKind::DivisionByZero);
        }
        let result = match operator {
            Operator::Add => x.checked_add(y),
            Operator::Subtract => x.checked_sub(y),
            Operator::Multiply => x.checked_mul(y),
            Operator::Divide => x.checked_div(y),
            _ => x.checked_rem(y),
        };
        return result
            .and_then(|result| i64::try_from(result).ok())
            .map(Value::from)
            .ok_or_else(overflow);
    }
    let (Some(x), Some(y)) = (x.as_f64(), y.as_f64()) else { return Err(overflow()) };
    let result = match operator {
        Operator::Add => x + y,
        Operator::Subtract => x - y,
        Operator::Multiply => x * y,
        Operator::Divide => x / y,
        _ => {
            return Err(ErrorKind::Operands {
                operator: operator.sign(),
                left: "a float",
                right: "a float",
            });
        }
    };
    Number::from_f64(result).map(Value::Number).ok_or_else(overflow)
}

fn negate(value: &Value) -> Result<Value> {
    let Value::Number(number) = value else { return Err(wrong("a number", value)) };
    if let Some(integer) = integer(number) {
        return i64::try_from(-integer).map(Value::from).map_err(|_| ErrorKind::Overflow("-"));
    }
    Ok(number.as_f64().map_or(Value::Null, |float| (-float).into()))
}

fn to_int(value: &Value) -> Result<Value> {
    let overflow = || ErrorKind::Overflow("int");
    match value {
        Value::Number(number) => match integer(number) {
            Some(integer) => i64::try_from(integer).map(Value::from).map_err(|_| overflow()),
            None => {
                let float = number.as_f64().ok_or_else(overflow)?.trunc();
                if float.abs() < 9.2e18 { Ok((float as i64).into()) } else { Err(overflow()) }
            }
        },
        Value::String(text) => text
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| ErrorKind::Conversion(format!("`{text}` is no whole number"))),
        other => Err(wrong("a number or a string", other)),
    }
}

fn to_double(value: &Value) -> Result<Value> {
    let float = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse::<f64>().ok(),
        other => return Err(wrong("a number or a string", other)),
    };
    float
        .and_then(Number::from_f64)
        .map(Value::Number)
        .ok_or_else(|| ErrorKind::Conversion(format!("{value} is no finite number")))
}

/// Compiles a pattern; also used to check literal ones when a graph is loaded.
pub(super) fn pattern_of(pattern: &str) -> Result<regex::Regex> {
    regex::RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE_MAX)
        .build()
        .map_err(|_| ErrorKind::Conversion(format!("`{pattern}` is no regular expression")))
}

/// A number as CEL's `string` writes it: one that is whole has no fraction.
pub(super) fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float.to_string(),
        Some(_) | None => number.to_string(),
    }
}

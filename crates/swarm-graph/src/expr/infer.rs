//! What type an expression has, and every mistake in it.
//!
//! What a newcomer gets wrong: a mistake gives `Dyn`, so that one wrong name is one defect and
//! not a trail of them. Where values may be null or absent the expression is trusted: no schema
//! tells which nodes have run before.

use std::sync::Arc;

use serde_json::Value;

use super::ir::{Function, Loop, LoopKind, Node, Operator};
use super::ty::Type;
use super::{Expr, eval};
use crate::defect::{Code, suggest};

/// The variables at one place of a graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env {
    vars: Vec<(String, Type)>,
    elsewhere: Vec<(&'static str, &'static str)>,
}

impl Env {
    /// With one more variable.
    pub(crate) fn with(mut self, name: impl Into<String>, ty: Type) -> Self {
        self.vars.push((name.into(), ty));
        self
    }

    /// With a note about a variable that there is only at other places.
    pub(crate) fn only(mut self, name: &'static str, place: &'static str) -> Self {
        self.elsewhere.push((name, place));
        self
    }

    fn get(&self, name: &str) -> Option<&Type> {
        self.vars.iter().rev().find(|(known, _)| known == name).map(|(_, ty)| ty)
    }
}

/// One thing wrong in an expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mistake {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// The word in the source that it is about.
    pub(crate) needle: Option<String>,
}

/// The type of an expression, and what is wrong in it.
pub(crate) fn infer(expr: &Expr, env: &Env) -> (Type, Vec<Mistake>) {
    let mut infer = Infer { env: env.clone(), mistakes: Vec::new() };
    let ty = infer.ty(expr.root());
    (ty, infer.mistakes)
}

struct Infer {
    env: Env,
    mistakes: Vec<Mistake>,
}

impl Infer {
    fn mistake(&mut self, message: String) -> Type {
        self.mistakes.push(Mistake { code: Code::TypeMismatch, message, help: None, needle: None });
        Type::Dyn
    }

    fn ty(&mut self, node: &Node) -> Type {
        match node {
            Node::Literal(value) => Type::of_value(value),
            Node::Var(name) => self.var(name),
            Node::Select(base, field) => self.select(base, field),
            Node::Has(base, field) => {
                self.select(base, field);
                Type::Bool
            }
            Node::Index(base, index) => self.index(base, index),
            Node::List(items) => {
                let items: Vec<Type> = items.iter().map(|item| self.ty(item)).collect();
                Type::List(Arc::new(Type::union(items)))
            }
            Node::Map(entries) => self.map(entries),
            Node::Not(a) => {
                self.bool(a, "`!`");
                Type::Bool
            }
            Node::Negate(a) => {
                let ty = self.ty(a);
                if ty.may_be(is_number) {
                    ty
                } else {
                    self.mistake(format!("`-` needs a number, found {}", ty.describe()))
                }
            }
            Node::And(a, b) => self.both(a, b, "`&&`"),
            Node::Or(a, b) => self.both(a, b, "`||`"),
            Node::Choose(condition, yes, no) => {
                self.bool(condition, "the condition before `?`");
                let options = [self.ty(yes), self.ty(no)];
                Type::union(options)
            }
            Node::Binary(operator, a, b) => self.binary(*operator, a, b),
            Node::Call(function, args) => self.call(*function, args),
            Node::Loop(inner) => self.run_loop(inner),
        }
    }

    fn var(&mut self, name: &str) -> Type {
        if let Some(ty) = self.env.get(name) {
            return ty.clone();
        }
        let place = self.env.elsewhere.iter().find(|(known, _)| *known == name);
        let help = match place {
            Some((_, place)) => Some(format!("`{name}` is only known {place}")),
            None => suggest(name, self.env.vars.iter().map(|(known, _)| known.as_str())),
        };
        self.mistakes.push(Mistake {
            code: Code::UnknownVariable,
            message: format!("no variable `{name}` here"),
            help,
            needle: Some(name.to_owned()),
        });
        Type::Dyn
    }

    fn select(&mut self, base: &Node, field: &str) -> Type {
        let ty = self.ty(base);
        if let Some((found, _)) = ty.field(field) {
            return found;
        }
        let names = ty.field_names();
        let is_state = matches!(base, Node::Var(name) if name == "state");
        let (code, message) = if is_state {
            (Code::UnknownChannel, format!("the state has no channel `{field}`"))
        } else if names.is_empty() {
            (Code::TypeMismatch, format!("{} has no fields, so no `{field}`", ty.describe()))
        } else {
            (Code::UnknownField, format!("no field `{field}` in {}", owner(base)))
        };
        let help = suggest(field, names.iter().map(String::as_str));
        let needle = Some(format!(".{field}"));
        self.mistakes.push(Mistake { code, message, help, needle });
        Type::Dyn
    }

    fn index(&mut self, base: &Node, index: &Node) -> Type {
        if let Node::Literal(Value::String(field)) = index {
            let ty = self.ty(base);
            if ty.may_be(is_object) {
                return self.select(base, field);
            }
            return self.mistake(format!("{} has no fields, so no `{field}`", ty.describe()));
        }
        let (ty, at) = (self.ty(base), self.ty(index));
        let mut found = Vec::new();
        for option in ty.options() {
            match option {
                Type::Dyn => found.push(Type::Dyn),
                Type::List(item) if at.may_be(is_number) => found.push((*item).clone()),
                Type::Map(value) if at.may_be(is_text) => found.push((*value).clone()),
                Type::Record(_) if at.may_be(is_text) => found.push(Type::Dyn),
                _ => {}
            }
        }
        if found.is_empty() {
            return self.mistake(format!("{} has no items by {}", ty.describe(), at.describe()));
        }
        Type::union(found)
    }

    fn map(&mut self, entries: &[(Node, Node)]) -> Type {
        let mut fields = Vec::new();
        let mut values = Vec::new();
        for (key, value) in entries {
            let (key_ty, value) = (self.ty(key), self.ty(value));
            match key {
                Node::Literal(Value::String(name)) => fields.push((name.clone(), value.clone())),
                _ if key_ty.may_be(is_text) => {}
                _ => {
                    self.mistake(format!("a key must be a string, found {}", key_ty.describe()));
                }
            }
            values.push(value);
        }
        if fields.len() == entries.len() {
            Type::record(fields)
        } else {
            Type::Map(Arc::new(Type::union(values)))
        }
    }

    fn bool(&mut self, node: &Node, who: &str) {
        let ty = self.ty(node);
        if !ty.may_be(|option| matches!(option, Type::Bool)) {
            self.mistake(format!("{who} needs a boolean, found {}", ty.describe()));
        }
    }

    fn both(&mut self, a: &Node, b: &Node, who: &str) -> Type {
        self.bool(a, who);
        self.bool(b, who);
        Type::Bool
    }

    fn binary(&mut self, operator: Operator, a: &Node, b: &Node) -> Type {
        let (left, right) = (self.ty(a), self.ty(b));
        match operator {
            Operator::Equal | Operator::NotEqual => {
                if let Some(word) = never_equal(&left, &right) {
                    self.never(operator, &left, &right, word);
                }
                Type::Bool
            }
            Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
                let ordered = [is_number as fn(&Type) -> bool, is_text, is_bool]
                    .into_iter()
                    .any(|kind| left.may_be(kind) && right.may_be(kind));
                if !ordered {
                    self.operands(operator, &left, &right);
                }
                Type::Bool
            }
            Operator::In => {
                self.within(&left, &right);
                Type::Bool
            }
            Operator::Add => self.add(&left, &right),
            Operator::Modulo => {
                let whole = |option: &Type| matches!(option, Type::Int | Type::Number);
                if left.may_be(whole) && right.may_be(whole) {
                    Type::Int
                } else {
                    self.operands(operator, &left, &right)
                }
            }
            Operator::Subtract | Operator::Multiply | Operator::Divide => {
                if left.may_be(is_number) && right.may_be(is_number) {
                    number_of(&left, &right)
                } else {
                    self.operands(operator, &left, &right)
                }
            }
        }
    }

    fn operands(&mut self, operator: Operator, left: &Type, right: &Type) -> Type {
        let (sign, left, right) = (operator.sign(), left.describe(), right.describe());
        self.mistake(format!("`{sign}` does not join {left} and {right}"))
    }

    fn never(&mut self, operator: Operator, left: &Type, right: &Type, word: Option<Word>) {
        let result = if operator == Operator::Equal { "false" } else { "true" };
        let mistake = match word {
            Some(Word { word, known }) => Mistake {
                code: Code::TypeMismatch,
                message: format!(
                    "`{}` is always {result}: '{word}' is none of its values",
                    operator.sign()
                ),
                help: suggest(&word, known.iter().map(String::as_str)),
                needle: Some(word),
            },
            None => Mistake {
                code: Code::TypeMismatch,
                message: format!(
                    "`{}` is always {result}: {} is never {}",
                    operator.sign(),
                    left.describe(),
                    right.describe()
                ),
                help: None,
                needle: None,
            },
        };
        self.mistakes.push(mistake);
    }

    fn within(&mut self, left: &Type, right: &Type) {
        let mut holds = false;
        let mut reason = None;
        for option in right.options() {
            match option {
                Type::Dyn => holds = true,
                Type::List(item) => match words_never_within(left, &item) {
                    Some(word) => reason = Some(word),
                    None => holds = true,
                },
                Type::Map(_) | Type::Record(_) if left.may_be(is_text) => holds = true,
                _ => {}
            }
        }
        match (holds, reason) {
            (true, _) => {}
            (false, Some(Some(word))) => {
                let mistake = Mistake {
                    code: Code::TypeMismatch,
                    message: format!("'{}' is none of the values on the left of `in`", word.word),
                    help: suggest(&word.word, word.known.iter().map(String::as_str)),
                    needle: Some(word.word),
                };
                self.mistakes.push(mistake);
            }
            (false, _) => {
                self.operands(Operator::In, left, right);
            }
        }
    }

    fn add(&mut self, left: &Type, right: &Type) -> Type {
        let mut found = Vec::new();
        if left.may_be(is_number) && right.may_be(is_number) {
            found.push(number_of(left, right));
        }
        if left.may_be(is_text) && right.may_be(is_text) {
            found.push(Type::Text(None));
        }
        let items = |ty: &Type| -> Vec<Type> {
            let item =
                |option| if let Type::List(item) = option { Some((*item).clone()) } else { None };
            ty.options().into_iter().filter_map(item).collect()
        };
        let (mut more, others) = (items(left), items(right));
        if !more.is_empty() && !others.is_empty() {
            more.extend(others);
            found.push(Type::List(Arc::new(Type::union(more))));
        }
        let unknown = |ty: &Type| ty.options().iter().any(|option| matches!(option, Type::Dyn));
        if unknown(left) || unknown(right) {
            return Type::Dyn;
        }
        if found.is_empty() {
            self.operands(Operator::Add, left, right)
        } else {
            Type::union(found)
        }
    }

    fn call(&mut self, function: Function, args: &[Node]) -> Type {
        let types: Vec<Type> = args.iter().map(|arg| self.ty(arg)).collect();
        let name = function.name();
        let (wanted, fits, result): (&str, fn(&Type) -> bool, Type) = match function {
            Function::Size => (
                "a string, a list or an object",
                |ty| is_text(ty) || is_list(ty) || is_object(ty),
                Type::Int,
            ),
            Function::Contains | Function::StartsWith | Function::EndsWith | Function::Matches => {
                ("strings", is_text, Type::Bool)
            }
            Function::Join => return self.join(&types),
            Function::String => (
                "a string, a number or a boolean",
                |ty| is_text(ty) || is_number(ty) || is_bool(ty),
                Type::Text(None),
            ),
            Function::Int => ("a number or a string", |ty| is_number(ty) || is_text(ty), Type::Int),
            Function::Double => {
                ("a number or a string", |ty| is_number(ty) || is_text(ty), Type::Number)
            }
            Function::Bool => {
                ("a boolean or a string", |ty| is_bool(ty) || is_text(ty), Type::Bool)
            }
            Function::Dyn => ("anything", |_| true, Type::Dyn),
        };
        for ty in &types {
            if !ty.may_be(fits) {
                let help = (name == "contains" && ty.may_be(is_list))
                    .then(|| "for a list write `x in list`".to_owned());
                self.mistakes.push(Mistake {
                    code: Code::TypeMismatch,
                    message: format!("`{name}` takes {wanted}, found {}", ty.describe()),
                    help,
                    needle: Some(name.to_owned()),
                });
            }
        }
        if let (Function::Matches, Some(Node::Literal(Value::String(pattern)))) =
            (function, args.get(1))
            && let Err(error) = eval::pattern_of(pattern)
        {
            self.mistake(error.to_string());
        }
        result
    }

    fn join(&mut self, types: &[Type]) -> Type {
        let [list, separator] = types else { return Type::Text(None) };
        let texts = |option: &Type| matches!(option, Type::List(item) if item.may_be(is_text));
        if !list.may_be(texts) {
            self.mistake(format!("`join` takes a list of strings, found {}", list.describe()));
        }
        if !separator.may_be(is_text) {
            let found = separator.describe();
            self.mistake(format!("`join` takes a string between the items, found {found}"));
        }
        Type::Text(None)
    }

    fn run_loop(&mut self, inner: &Loop) -> Type {
        let range = self.ty(&inner.range);
        let mut items = Vec::new();
        for option in range.options() {
            match option {
                Type::Dyn => items.push(Type::Dyn),
                Type::List(item) => items.push((*item).clone()),
                Type::Map(_) | Type::Record(_) => items.push(Type::Text(None)),
                _ => {}
            }
        }
        if items.is_empty() {
            let message = format!("a loop needs a list or an object, found {}", range.describe());
            self.mistake(message);
        }
        self.env.vars.push((inner.var.clone(), Type::union(items)));
        if let Some(only) = &inner.only {
            self.bool(only, "the condition of the loop");
        }
        let result = if inner.kind == LoopKind::Collect {
            Type::List(Arc::new(self.ty(&inner.body)))
        } else {
            self.bool(&inner.body, "the condition of the loop");
            Type::Bool
        };
        self.env.vars.pop();
        result
    }
}

/// A word that is none of the known ones.
struct Word {
    word: String,
    known: Vec<String>,
}

/// Whether two values can never be equal; with the word that makes it so, if it is one.
#[expect(clippy::option_option, reason = "never, and perhaps for a reason worth a better message")]
fn never_equal(left: &Type, right: &Type) -> Option<Option<Word>> {
    let (lefts, rights) = (left.options(), right.options());
    let mut word = None;
    for a in &lefts {
        for b in &rights {
            match (a, b) {
                (Type::Text(Some(known)), Type::Text(Some(words)))
                | (Type::Text(Some(words)), Type::Text(Some(known)))
                    if words.len() == 1 && !known.contains(&words[0]) =>
                {
                    word = Some(Word { word: words[0].clone(), known: known.to_vec() });
                }
                _ if same_kind(a, b) => return None,
                _ => {}
            }
        }
    }
    Some(word)
}

#[expect(clippy::option_option, reason = "never, and perhaps for a reason worth a better message")]
fn words_never_within(left: &Type, item: &Type) -> Option<Option<Word>> {
    // A list of literals: each must be possible on the left.
    for option in item.options() {
        let (Type::Text(Some(words)), lefts) = (&option, left.options()) else { continue };
        let mut known = Vec::new();
        for left in &lefts {
            match left {
                Type::Text(Some(more)) => known.extend(more.iter().cloned()),
                Type::Text(None) | Type::Dyn => return None,
                _ => {}
            }
        }
        if let Some(word) = words.iter().find(|word| !known.is_empty() && !known.contains(word)) {
            return Some(Some(Word { word: word.clone(), known }));
        }
    }
    never_equal(left, item)
}

fn same_kind(a: &Type, b: &Type) -> bool {
    // A channel that nothing was written to may be null, whatever its schema says.
    matches!((a, b), (Type::Dyn | Type::Null, _) | (_, Type::Dyn | Type::Null))
        || [is_number as fn(&Type) -> bool, is_text, is_bool, is_list, is_object]
            .into_iter()
            .any(|kind| kind(a) && kind(b))
}

fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Int | Type::Number)
}

fn is_text(ty: &Type) -> bool {
    matches!(ty, Type::Text(_))
}

fn is_bool(ty: &Type) -> bool {
    matches!(ty, Type::Bool)
}

fn is_list(ty: &Type) -> bool {
    matches!(ty, Type::List(_))
}

fn is_object(ty: &Type) -> bool {
    matches!(ty, Type::Map(_) | Type::Record(_))
}

fn number_of(left: &Type, right: &Type) -> Type {
    let whole = |ty: &Type| ty.options().iter().all(|option| matches!(option, Type::Int));
    if whole(left) && whole(right) { Type::Int } else { Type::Number }
}

/// What the left of a dot is called in messages.
fn owner(base: &Node) -> String {
    match base {
        Node::Var(name) => format!("`{name}`"),
        Node::Select(_, field) => format!("`{field}`"),
        _ => "this".to_owned(),
    }
}

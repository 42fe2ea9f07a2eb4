//! Text to tree, guarded: the parser is bounded before it starts and its result again after.
//!
//! What a newcomer gets wrong: the parser recurses by itself, so the limits here must hold
//! *before* it is called (length, brackets) and a larger stack must stand ready while it runs.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::parser::PrattParser;
use serde_json::{Number, Value};
use thiserror::Error;

use super::ir::{Function, Loop, LoopKind, Node, Operator};

/// The longest expression, in bytes.
pub const SOURCE_LEN_MAX: usize = 2048;
/// The most nodes that the parser may make of an expression.
pub const NODES_MAX: usize = 512;
const RECURSION_MAX: u16 = 32;
const DEPTH_MAX: usize = 64;
const LOOPS_NESTED_MAX: usize = 2;
const STACK_LEFT_MIN: usize = 1024 * 1024;
const STACK_GROWTH: usize = 4 * 1024 * 1024;

/// Which nesting goes too deep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NestingLimit {
    /// Brackets and operators.
    Depth,
    /// `exists`, `all`, `map`, `filter` inside each other: cost grows with the power.
    Loops,
}

/// A text that is no expression.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParseError {
    /// Longer than [`SOURCE_LEN_MAX`].
    #[error("the expression has {0} bytes, at most {SOURCE_LEN_MAX} are allowed")]
    TooLong(usize),
    /// Nested deeper than allowed.
    #[error("the expression nests too deep: {}", match .0 {
        NestingLimit::Depth => "at most 64 levels",
        NestingLimit::Loops => "at most 2 of `exists`, `all`, `map`, `filter` inside each other",
    })]
    TooDeep(NestingLimit),
    /// Not an expression.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// The byte in the source at which it is.
        at: usize,
    },
    /// CEL that has no meaning on JSON, or that graphs do not have.
    #[error("{0}")]
    Unsupported(String),
    /// A function that there is not.
    #[error("no function `{name}`")]
    NoFunction {
        /// Its name.
        name: String,
    },
    /// A function with too many or too few arguments, or not written as it must be.
    #[error("{0}")]
    Arguments(String),
}

/// Parses and folds one expression.
pub(super) fn parse(source: &str) -> Result<Node, ParseError> {
    if source.len() > SOURCE_LEN_MAX {
        return Err(ParseError::TooLong(source.len()));
    }
    if source.trim().is_empty() {
        return Err(ParseError::Syntax { message: "the expression is empty".to_owned(), at: 0 });
    }
    let node = stacker::maybe_grow(STACK_LEFT_MIN, STACK_GROWTH, || {
        let tree = PrattParser::new()
            .max_recursion_depth(RECURSION_MAX)
            .max_expression_node_count(NODES_MAX)
            .error_recovery_limit(4)
            .parse(source)
            .map_err(|errors| syntax(source, &errors))?;
        fold(tree.expr, 0)
    })?;
    if loops(&node) > LOOPS_NESTED_MAX {
        return Err(ParseError::TooDeep(NestingLimit::Loops));
    }
    Ok(node)
}

/// Runs `f` with enough stack for a tree of the allowed depth.
pub(super) fn with_stack<T>(f: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_LEFT_MIN, STACK_GROWTH, f)
}

fn syntax(source: &str, errors: &cel::ParseErrors) -> ParseError {
    let Some(error) = errors.errors.first() else {
        return ParseError::Syntax { message: "not an expression".to_owned(), at: 0 };
    };
    let message = error.msg.trim_start_matches("Syntax error: ").replace("<EOF>", "the end");
    if message.contains("recursion") {
        return ParseError::TooDeep(NestingLimit::Depth);
    }
    let (line, column) = (error.pos.0.max(1).unsigned_abs(), error.pos.1.max(1).unsigned_abs());
    let before: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let at = (before + column - 1).min(source.len());
    ParseError::Syntax { message, at }
}

fn fold(expr: Expr, depth: usize) -> Result<Node, ParseError> {
    if depth > DEPTH_MAX {
        return Err(ParseError::TooDeep(NestingLimit::Depth));
    }
    let next = |expr: Expr| fold(expr, depth + 1);
    Ok(match expr {
        Expr::Literal(literal) => Node::Literal(constant(&literal)?),
        Expr::Ident(name) => Node::Var(name.trim_start_matches('.').to_owned()),
        Expr::Select(select) => {
            let base = Box::new(next(select.operand.expr)?);
            if select.test {
                Node::Has(base, select.field)
            } else {
                Node::Select(base, select.field)
            }
        }
        Expr::List(list) => Node::List(
            list.elements.into_iter().map(|item| next(item.expr)).collect::<Result<_, _>>()?,
        ),
        Expr::Map(map) => {
            let mut entries = Vec::with_capacity(map.entries.len());
            for entry in map.entries {
                let EntryExpr::MapEntry(entry) = entry.expr else {
                    return Err(unsupported("a message literal"));
                };
                entries.push((next(entry.key.expr)?, next(entry.value.expr)?));
            }
            Node::Map(entries)
        }
        Expr::Call(call) => fold_call(call, depth)?,
        Expr::Comprehension(comprehension) => fold_loop(*comprehension, depth)?,
        Expr::Struct(made) => {
            return Err(unsupported(&format!("a message literal `{}{{}}`", made.type_name)));
        }
        Expr::Unspecified => return Err(unsupported("an empty part")),
    })
}

fn unsupported(what: &str) -> ParseError {
    ParseError::Unsupported(format!("{what} has no meaning here: values are JSON"))
}

fn constant(literal: &LiteralValue) -> Result<Value, ParseError> {
    Ok(match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Int(value) => (*value.inner()).into(),
        LiteralValue::UInt(value) => (*value.inner()).into(),
        LiteralValue::Double(value) => {
            Number::from_f64(*value.inner()).map(Value::Number).ok_or_else(|| {
                ParseError::Unsupported("a number that is not finite is no JSON".to_owned())
            })?
        }
        LiteralValue::String(value) => Value::String(value.inner().to_owned()),
        LiteralValue::Null => Value::Null,
        LiteralValue::Bytes(_) => return Err(unsupported("a bytes literal")),
    })
}

fn fold_call(call: CallExpr, depth: usize) -> Result<Node, ParseError> {
    let CallExpr { func_name, target, args } = call;
    let is_method = target.is_some();
    let mut nodes = Vec::with_capacity(args.len() + 1);
    for arg in target.map(|target| *target).into_iter().chain(args) {
        nodes.push(fold(arg.expr, depth + 1)?);
    }
    if is_method {
        return function(&func_name, nodes, true);
    }
    let count = nodes.len();
    let mut args = nodes.into_iter().map(Box::new);
    let mut arg = || args.next().expect("an operator has its operands");
    Ok(match (func_name.as_str(), count) {
        (operators::CONDITIONAL, 3) => Node::Choose(arg(), arg(), arg()),
        (operators::LOGICAL_AND, 2) => Node::And(arg(), arg()),
        (operators::LOGICAL_OR, 2) => Node::Or(arg(), arg()),
        (operators::LOGICAL_NOT, 1) => Node::Not(arg()),
        (operators::NEGATE, 1) => Node::Negate(arg()),
        (operators::INDEX, 2) => Node::Index(arg(), arg()),
        (sign, 2) if operator(sign).is_some() => {
            Node::Binary(operator(sign).expect("just matched"), arg(), arg())
        }
        (name, _) => return function(name, args.map(|node| *node).collect(), false),
    })
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Modulo,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}

fn function(name: &str, args: Vec<Node>, is_method: bool) -> Result<Node, ParseError> {
    if name == "has" && !is_method {
        return Err(ParseError::Arguments(
            "`has` takes one field, as in `has(state.plan)`".to_owned(),
        ));
    }
    let Some((_, function, count, as_function, as_method)) =
        Function::ALL.into_iter().find(|(known, ..)| *known == name)
    else {
        return Err(ParseError::NoFunction { name: name.to_owned() });
    };
    if is_method && !as_method {
        return Err(ParseError::Arguments(format!("`{name}` is a function: write `{name}(x)`")));
    }
    if !is_method && !as_function {
        return Err(ParseError::Arguments(format!("`{name}` is a method: write `x.{name}(y)`")));
    }
    if args.len() != count {
        let (found, wanted) =
            if is_method { (args.len() - 1, count - 1) } else { (args.len(), count) };
        return Err(ParseError::Arguments(format!(
            "`{name}` takes {wanted} argument{}, found {found}",
            if wanted == 1 { "" } else { "s" }
        )));
    }
    Ok(Node::Call(function, args))
}

/// Folds the parser's expansion of a macro back. The shapes are those of `cel` 0.15.0; a shape
/// that is not known is refused, never guessed at.
fn fold_loop(expansion: ComprehensionExpr, depth: usize) -> Result<Node, ParseError> {
    let unknown = || ParseError::Unsupported("a macro of a form that is not known".to_owned());
    let (kind, only, body) = match (expansion.accu_init.expr, expansion.loop_step.expr) {
        (Expr::Literal(LiteralValue::Boolean(_)), Expr::Call(mut step)) if step.args.len() == 2 => {
            let kind = match step.func_name.as_str() {
                operators::LOGICAL_OR => LoopKind::Exists,
                operators::LOGICAL_AND => LoopKind::All,
                _ => return Err(unknown()),
            };
            (kind, None, step.args.pop().ok_or_else(unknown)?.expr)
        }
        (Expr::Literal(LiteralValue::Int(_)), Expr::Call(step))
            if step.func_name == operators::CONDITIONAL =>
        {
            let condition = step.args.into_iter().next().ok_or_else(unknown)?;
            (LoopKind::ExistsOne, None, condition.expr)
        }
        (Expr::List(_), Expr::Call(step)) => {
            let (only, added) = if step.func_name == operators::CONDITIONAL {
                let mut args = step.args.into_iter();
                let only = args.next().ok_or_else(unknown)?;
                (Some(only.expr), args.next().ok_or_else(unknown)?.expr)
            } else {
                (None, Expr::Call(step))
            };
            let Expr::Call(mut added) = added else { return Err(unknown()) };
            let Some(Expr::List(mut item)) = added.args.pop().map(|arg| arg.expr) else {
                return Err(unknown());
            };
            (LoopKind::Collect, only, item.elements.pop().ok_or_else(unknown)?.expr)
        }
        _ => return Err(unknown()),
    };
    Ok(Node::Loop(Box::new(Loop {
        kind,
        range: fold(expansion.iter_range.expr, depth + 1)?,
        var: expansion.iter_var,
        only: only.map(|only| fold(only, depth + 1)).transpose()?,
        body: fold(body, depth + 1)?,
    })))
}

/// How deep loops nest: a loop in the range of another runs beside it, not inside it.
fn loops(node: &Node) -> usize {
    fn most<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> usize {
        nodes.into_iter().map(loops).max().unwrap_or(0)
    }
    match node {
        Node::Literal(_) | Node::Var(_) => 0,
        Node::Select(a, _) | Node::Has(a, _) | Node::Not(a) | Node::Negate(a) => loops(a),
        Node::Index(a, b) | Node::And(a, b) | Node::Or(a, b) | Node::Binary(_, a, b) => {
            loops(a).max(loops(b))
        }
        Node::Choose(a, b, c) => loops(a).max(loops(b)).max(loops(c)),
        Node::List(items) | Node::Call(_, items) => most(items),
        Node::Map(entries) => most(entries.iter().flat_map(|(key, value)| [key, value])),
        Node::Loop(inner) => {
            let inside = loops(&inner.body).max(inner.only.as_ref().map_or(0, loops));
            loops(&inner.range).max(1 + inside)
        }
    }
}

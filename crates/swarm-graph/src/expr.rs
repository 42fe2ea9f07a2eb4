//! Expressions: CEL inside `${{ }}`, compiled when a graph is loaded, evaluated on JSON as it lies.
//!
//! The `cel` crate only parses. Its interpreter converts every variable before it starts, copies
//! a list for each item that `map` or `filter` adds, loses the order of keys, and knows no limit
//! of cost; `eval` walks the same tree over borrowed `serde_json` values, counts its steps, and
//! keeps integers and floats apart as CEL does. Tests compare the two on the same expressions.

mod eval;
mod infer;
mod ir;
mod parse;
mod template;
mod ty;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use swarm_core::checkpoint::State;
use swarm_core::id::ChannelName;
use thiserror::Error;

pub(crate) use self::infer::{Env, infer};
pub use self::parse::{NODES_MAX, NestingLimit, ParseError, SOURCE_LEN_MAX};

pub use self::template::{Piece, Template};
pub(crate) use self::template::{RawPiece, pieces};
pub(crate) use self::ty::{Fields, Type};

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expr {
    source: Arc<str>,
    root: Arc<ir::Node>,
}

impl Expr {
    /// Compiles one expression, without its `${{ }}`. Names and types are checked when the graph
    /// is, not here.
    ///
    /// # Errors
    /// [`ParseError`] with the place in `source`, also when the expression is too long or nests
    /// too deep.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        Ok(Self { source: source.into(), root: Arc::new(parse::parse(source)?) })
    }

    /// The text, without `${{ }}`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value of the expression.
    ///
    /// # Errors
    /// [`struct@Error`]: a missing key, a wrong type, an overflow, too many steps.
    pub fn eval(&self, scope: &Scope<'_>) -> Result<Value, Error> {
        eval::eval(&self.root, scope).map_err(|kind| self.error(kind))
    }

    /// The value of a condition.
    ///
    /// # Errors
    /// [`struct@Error`], also when the value is no boolean.
    pub fn is_true(&self, scope: &Scope<'_>) -> Result<bool, Error> {
        match self.eval(scope)? {
            Value::Bool(value) => Ok(value),
            other => Err(self.error(ErrorKind::Type {
                wanted: "a boolean",
                found: swarm_core::reducer::kind_of(&other),
            })),
        }
    }

    pub(crate) fn root(&self) -> &ir::Node {
        &self.root
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error { expression: Arc::clone(&self.source), kind }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{{ {} }}}}", self.source)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// An expression that has no value.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("`{expression}`: {kind}")]
pub struct Error {
    /// The expression.
    pub expression: Arc<str>,
    /// What went wrong.
    pub kind: ErrorKind,
}

/// Why an expression has no value.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ErrorKind {
    /// A variable that does not exist at this place.
    #[error("no variable `{0}` here")]
    NoVariable(String),
    /// An object without this key; `has(x.key)` asks first.
    #[error("no key `{0}`; `has()` tells whether there is one")]
    NoKey(String),
    /// An index outside of a list.
    #[error("no item {index} in a list of {len}")]
    NoItem {
        /// The index.
        index: i64,
        /// The items there are.
        len: usize,
    },
    /// A value of the wrong type.
    #[error("needs {wanted}, found {found}")]
    Type {
        /// What would be right.
        wanted: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// An operator on two values that it does not join.
    #[error("`{operator}` does not join {left} and {right}")]
    Operands {
        /// The operator.
        operator: &'static str,
        /// The type on its left.
        left: &'static str,
        /// The type on its right.
        right: &'static str,
    },
    /// A division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A result that does not fit 64 bits.
    #[error("the result of `{0}` does not fit 64 bits")]
    Overflow(&'static str),
    /// A text that is no number, boolean or pattern.
    #[error("{0}")]
    Conversion(String),
    /// More work than an expression may be.
    #[error("takes more than {} steps", eval::STEPS_MAX)]
    TooCostly,
    /// Nested deeper than can be evaluated.
    #[error("a value nests too deep")]
    TooDeep,
}

/// What an expression can refer to: borrowed, nothing is converted.
#[derive(Clone, Debug, Default)]
pub struct Scope<'a> {
    state: Option<StateView<'a>>,
    vars: Vec<(&'a str, &'a Value)>,
}

impl<'a> Scope<'a> {
    /// A scope without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the state of the run as `state`.
    #[must_use]
    pub fn state(mut self, state: &'a State) -> Self {
        self.state = Some(StateView { state, frame: None });
        self
    }

    /// With the state of the graph that a step runs inline as `state`.
    pub(crate) fn state_of(mut self, state: &'a State, frame: &'a str) -> Self {
        self.state = Some(StateView { state, frame: Some(frame) });
        self
    }

    /// With a variable; a later one of the same name hides an earlier one.
    #[must_use]
    pub fn var(mut self, name: &'a str, value: &'a Value) -> Self {
        self.vars.push((name, value));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.vars.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// The channels of one graph, out of the state of a run that may have others inside.
#[derive(Clone, Copy, Debug)]
struct StateView<'a> {
    state: &'a State,
    frame: Option<&'a str>,
}

impl<'a> StateView<'a> {
    fn get(self, channel: &str) -> Option<&'a Arc<Value>> {
        match self.frame {
            None => self.state.get(channel),
            Some(frame) => self.state.get(&format!("{frame}/{channel}")),
        }
    }

    fn to_value(self) -> Value {
        let own = self.state.0.iter().filter(|(name, _)| name.frame() == self.frame);
        let local = |name: &ChannelName| match name.as_str().rsplit_once('/') {
            Some((_, local)) => local.to_owned(),
            None => name.to_string(),
        };
        Value::Object(own.map(|(name, value)| (local(name), (**value).clone())).collect())
    }
}

//! The tree of an expression: what the parser's tree becomes, macros folded back.
//!
//! CEL's macros arrive expanded to generic loops over an accumulator; here each is one [`Loop`]
//! again, so that it costs what it does, and messages speak of `exists`, not of its expansion.

use serde_json::Value;

/// One node of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// A constant.
    Literal(Value),
    /// A variable.
    Var(String),
    /// `base.field`
    Select(Box<Self>, String),
    /// `has(base.field)`
    Has(Box<Self>, String),
    /// `base[index]`
    Index(Box<Self>, Box<Self>),
    /// `[a, b]`
    List(Vec<Self>),
    /// `{key: value}`
    Map(Vec<(Self, Self)>),
    /// `!a`
    Not(Box<Self>),
    /// `-a`
    Negate(Box<Self>),
    /// `a && b`
    And(Box<Self>, Box<Self>),
    /// `a || b`
    Or(Box<Self>, Box<Self>),
    /// `a ? b : c`
    Choose(Box<Self>, Box<Self>, Box<Self>),
    /// Two operands and an operator.
    Binary(Operator, Box<Self>, Box<Self>),
    /// A function; a method has its target as first argument.
    Call(Function, Vec<Self>),
    /// A macro over a list, or the keys of an object.
    Loop(Box<Loop>),
}

/// A macro over a list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loop {
    pub(crate) kind: LoopKind,
    pub(crate) range: Node,
    pub(crate) var: String,
    /// Only in `map` with three arguments, and in `filter`.
    pub(crate) only: Option<Node>,
    /// The condition, or what `map` makes of an item.
    pub(crate) body: Node,
}

/// Which macro.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LoopKind {
    /// `exists`
    Exists,
    /// `all`
    All,
    /// `exists_one`
    ExistsOne,
    /// `map` and `filter`
    Collect,
}

/// A binary operator, except for the logical ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

impl Operator {
    /// As written.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
        }
    }
}

/// The functions there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Join,
    String,
    Int,
    Double,
    Bool,
    Dyn,
}

impl Function {
    /// Every function: its name, how many arguments it takes with its target, and whether it may
    /// be written as a function, and as a method.
    pub(crate) const ALL: [(&'static str, Self, usize, bool, bool); 11] = [
        ("size", Self::Size, 1, true, true),
        ("contains", Self::Contains, 2, false, true),
        ("startsWith", Self::StartsWith, 2, false, true),
        ("endsWith", Self::EndsWith, 2, false, true),
        ("matches", Self::Matches, 2, true, true),
        ("join", Self::Join, 2, false, true),
        ("string", Self::String, 1, true, false),
        ("int", Self::Int, 1, true, false),
        ("double", Self::Double, 1, true, false),
        ("bool", Self::Bool, 1, true, false),
        ("dyn", Self::Dyn, 1, true, false),
    ];

    /// As written.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known, ..)| *known == self).map_or("", |(name, ..)| name)
    }
}

//! Defects: what is wrong with a graph file, where, and what would be right.
//!
//! What a newcomer gets wrong: a [`Defects`] is complete. Loading never stops at the first thing
//! that is wrong, so a list of one means that there was one.

pub(crate) mod report;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

/// Whether a graph with this defect can be used.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The graph is refused.
    Error,
    /// The graph loads, but it is most likely not what was meant.
    Warning,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)*) => {
        /// The stable name of a kind of defect; `docs/errors/` has a page for each.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as printed.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii_start(),)* }
            }

            /// Its page in Markdown: why it is refused, a graph that has it, and the same graph
            /// mended.
            #[must_use]
            pub fn page(self) -> &'static str {
                match self {
                    $(Self::$name => {
                        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/errors/", $text, ".md"))
                    })*
                }
            }

            /// The code of this name, as printed.
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

codes! {
    /// A file cannot be read.
    UnreadableFile = "unreadable-file",
    /// The text is not YAML, or larger or deeper than a graph may be.
    Syntax = "syntax",
    /// A key occurs twice in the same mapping.
    DuplicateKey = "duplicate-key",
    /// A key that means nothing here.
    UnknownKey = "unknown-key",
    /// A key that must be there is not.
    MissingKey = "missing-key",
    /// A value of the wrong type or form.
    BadValue = "bad-value",
    /// A duration that cannot be read, or is zero.
    BadDuration = "bad-duration",
    /// A limit of zero, or beyond what is possible.
    BadLimit = "bad-limit",
    /// A version that cannot be read, or that this program does not know.
    BadVersion = "bad-version",
    /// A name that cannot be one.
    BadName = "bad-name",
    /// A schema that is not one.
    BadSchema = "bad-schema",
    /// A node has none, or more than one, of `uses`, `run`, `wait`, `gate`.
    OneWork = "one-work",
    /// A node has none, or both, of `next` and `routes`.
    OneExit = "one-exit",
    /// Keys that exclude or need each other.
    KeyClash = "key-clash",
    /// No node of this name.
    UnknownNode = "unknown-node",
    /// No node kind of this name is registered.
    UnknownKind = "unknown-kind",
    /// No channel of this name.
    UnknownChannel = "unknown-channel",
    /// No type of this name is registered.
    UnknownType = "unknown-type",
    /// No reducer of this name.
    UnknownReducer = "unknown-reducer",
    /// No policy of this name.
    UnknownPolicy = "unknown-policy",
    /// No pool of this name.
    UnknownPool = "unknown-pool",
    /// No signal of this name.
    UnknownSignal = "unknown-signal",
    /// No graph of this name.
    UnknownGraph = "unknown-graph",
    /// A graph that cannot run inside this one.
    BadInline = "bad-inline",
    /// A graph that would run inside itself.
    InlineCycle = "inline-cycle",
    /// An import that cannot be.
    BadImport = "bad-import",
    /// The same name twice.
    DuplicateName = "duplicate-name",
    /// A `config` that its kind does not take.
    BadConfig = "bad-config",
    /// A value of a type that does not fit where it goes.
    TypeMismatch = "type-mismatch",
    /// A field that the place where it goes does not have.
    UnknownField = "unknown-field",
    /// A field that must be given is not.
    MissingField = "missing-field",
    /// An expression that cannot be parsed.
    BadExpression = "bad-expression",
    /// An expression with a variable that there is not at this place.
    UnknownVariable = "unknown-variable",
    /// A reducer that does not fit the type of its channel.
    ReducerMismatch = "reducer-mismatch",
    /// A node that no way leads to.
    UnreachableNode = "unreachable-node",
    /// A node that no way leads from to `$end`.
    NoWayToEnd = "no-way-to-end",
    /// A cycle that nothing bounds.
    UnboundedCycle = "unbounded-cycle",
    /// Routes of which none may hold.
    NoFinalRoute = "no-final-route",
    /// A route behind one that always holds.
    DeadRoute = "dead-route",
    /// Two writers of a channel at the same time, whose reducer keeps only one.
    ParallelWriters = "parallel-writers",
    /// A join that can never be met.
    JoinNeverMet = "join-never-met",
    /// A race without rivals, or one whose lines cannot be told apart.
    BadRace = "bad-race",
    /// A way on which text of strangers, a secret and a way out meet, and no person stands between.
    UnguardedFlow = "unguarded-flow",
    /// An effect that needs a person's leave, and a way to it that asks nobody.
    EffectBeforeGate = "effect-before-gate",
    /// A node whose output goes nowhere.
    UnusedOutput = "unused-output",
    /// A route's `max` that a lower limit of the graph makes meaningless.
    BoundAboveLimit = "bound-above-limit",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One thing wrong in a graph file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Defect {
    /// What kind of thing.
    pub code: Code,
    /// Whether the graph can still be used.
    pub severity: Severity,
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What was found.
    pub message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line itself.
    #[serde(skip)]
    pub snippet: Option<Snippet>,
}

/// The line a defect is in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    /// Its text, cut when it is long.
    pub text: String,
    /// Where the marks begin, in characters from 0.
    pub start: usize,
    /// How many marks, at least 1.
    pub len: usize,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let line = self.line.to_string();
        let gutter = " ".repeat(line.len());
        write!(f, "{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
        if let Some(snippet) = &self.snippet {
            let marks = format!("{}{}", " ".repeat(snippet.start), "^".repeat(snippet.len));
            write!(f, "\n{gutter} |\n{line} | {}\n{gutter} | {marks}", snippet.text)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a graph, in the order of the files and lines.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct Defects {
    /// The file that was to be loaded.
    pub file: Arc<str>,
    /// At least one of them is an error.
    pub list: Vec<Defect>,
}

impl Defects {
    /// How many are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|defect| defect.severity == Severity::Error).count()
    }
}

impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for defect in &self.list {
            writeln!(f, "{defect}\n")?;
        }
        let errors = self.errors();
        write!(f, "`{}` has {errors} defect{}", self.file, if errors == 1 { "" } else { "s" })?;
        match self.list.len() - errors {
            0 => Ok(()),
            1 => write!(f, " and 1 warning"),
            warnings => write!(f, " and {warnings} warnings"),
        }
    }
}

/// The known name nearest to `name`, if one is near enough to be meant.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let reach = (name.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .filter(|other| *other != name)
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .filter(|(distance, _)| *distance <= reach)
        .min()
        .map(|(_, other)| other)
}

/// What would be right instead of an unknown name: the nearest one, and all there are.
pub(crate) fn suggest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    const SHOWN_MAX: usize = 12;
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let near = nearest(name, known.iter().copied());
    let mut list = known.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
    if known.len() > SHOWN_MAX {
        list.push_str(", …");
    }
    match (near, known.is_empty()) {
        (_, true) => None,
        (Some(near), false) => Some(format!("perhaps `{near}`; known: {list}")),
        (None, false) => Some(format!("known: {list}")),
    }
}

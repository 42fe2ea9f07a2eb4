//! Prompts: templates in files, rendered with strict, sandboxed minijinja.
//!
//! A prompt is a Markdown file such as `dev/implement.md`, named by its path beneath the prompts'
//! root. All are read and compiled at the start; a template can only include another of them, so
//! no path leads out of the root. A name that the caller does not give is an error, never an empty
//! text. Text from issues, repositories and models goes through the filter `untrusted`:
//!
//! ```jinja
//! {{ untrusted_rule }}
//! {{ issue.title | untrusted("issue title") }}
//! {{ issue.body | untrusted("issue body", chars_max=20000) }}
//! ```
//!
//! A file may begin with a head between two lines of `---`: the keys of [`Head`].

mod check;
mod untrusted;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use untrusted::{UNTRUSTED_RULE, cleaned, untrusted};

/// The longest template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// The longest rendered prompt, in bytes.
pub const PROMPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much work one rendering may be, in minijinja's instructions.
const FUEL: u64 = 2_000_000;
/// How deep templates may include one another.
const RECURSION_MAX: usize = 32;
/// minijinja parses and renders recursively; deep nesting must not end the process.
const STACK_LEFT_MIN: usize = 1024 * 1024;
const STACK_GROWTH: usize = 8 * 1024 * 1024;

/// What the head of a prompt's file may say.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Whose prompt it is: `dev`, `reviewer`, `manager`.
    #[serde(default)]
    pub role: Option<String>,
    /// What it is for, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// The most tokens to answer it with.
    #[serde(default)]
    pub tokens_max: Option<u32>,
}

/// One thing wrong in one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Defect {
    /// The file.
    pub file: String,
    /// The line, from 1, if it is in one.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// All that is wrong with a set of prompts.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct Defects(pub Vec<Defect>);

impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "defect" } else { "defects" };
        write!(f, "prompts have {} {noun}", self.0.len())?;
        self.0.iter().try_for_each(|defect| write!(f, "\n  {defect}"))
    }
}

/// A prompt that could not be rendered.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("prompt `{name}`{}: {message}", .line.map(|line| format!(" line {line}")).unwrap_or_default())]
pub struct RenderError {
    /// The prompt, or the one it includes, where it went wrong.
    pub name: String,
    /// The line, if known.
    pub line: Option<usize>,
    /// What went wrong.
    pub message: String,
}

/// A set of prompts, all of them compiled.
pub struct Prompts {
    env: Environment<'static>,
    heads: BTreeMap<String, Head>,
}

impl fmt::Debug for Prompts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompts").field("heads", &self.heads).finish_non_exhaustive()
    }
}

/// The text of a prompt and the name of its file for people.
struct Source {
    file: String,
    text: String,
}

impl Prompts {
    /// Prompts that are part of the program: pairs of path and text.
    ///
    /// # Errors
    /// [`Defects`]: all of them, in all files.
    pub fn embedded<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Defects> {
        Self::compile(&embedded_sources(pairs), Vec::new())
    }

    /// The prompts in a directory and beneath it: each `*.md`.
    ///
    /// # Errors
    /// [`Defects`]: all of them, in all files.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, Defects> {
        Self::load_over([], dir)
    }

    /// The prompts in a directory, and those of `defaults` that are not in it.
    ///
    /// # Errors
    /// [`Defects`]: all of them, in all files.
    pub fn load_over<'a>(
        defaults: impl IntoIterator<Item = (&'a str, &'a str)>,
        dir: impl AsRef<Path>,
    ) -> Result<Self, Defects> {
        let mut sources = embedded_sources(defaults);
        let mut defects = Vec::new();
        read_dir(dir.as_ref(), "", &mut sources, &mut defects);
        Self::compile(&sources, defects)
    }

    fn compile(
        sources: &BTreeMap<String, Source>,
        mut defects: Vec<Defect>,
    ) -> Result<Self, Defects> {
        let mut env = environment();
        let mut heads = BTreeMap::new();
        for (name, source) in sources {
            let found = compile_one(&mut env, name, source);
            match found {
                Ok(head) => {
                    heads.insert(name.clone(), head);
                }
                Err(defect) => defects.push(defect),
            }
        }
        for source in sources.values() {
            defects.extend(check::references(&env, sources, source));
        }
        defects.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        if defects.is_empty() { Ok(Self { env, heads }) } else { Err(Defects(defects)) }
    }

    /// Renders a prompt with the fields of `context` as its names.
    ///
    /// # Errors
    /// [`RenderError`] when there is no such prompt, a name in it is not in `context`, or it grows
    /// beyond [`PROMPT_BYTES_MAX`] or a fixed amount of work.
    pub fn render<C: Serialize>(&self, name: &str, context: &C) -> Result<String, RenderError> {
        stacker::maybe_grow(STACK_LEFT_MIN, STACK_GROWTH, || {
            let template = self.env.get_template(name).map_err(|_| self.unknown(name))?;
            let mut out = Capped { bytes: Vec::new() };
            template
                .render_captured_to(Value::from(Serde(context)), &mut out)
                .map_err(|error| render_error(name, &error))?;
            String::from_utf8(out.bytes).map_err(|_| RenderError {
                name: name.to_owned(),
                line: None,
                message: "the rendered text is not UTF-8".to_owned(),
            })
        })
    }

    /// What the head of a prompt's file says, if there is such a prompt.
    #[must_use]
    pub fn head(&self, name: &str) -> Option<&Head> {
        self.heads.get(name)
    }

    /// The names of all prompts, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.heads.keys().map(String::as_str)
    }

    fn unknown(&self, name: &str) -> RenderError {
        let message = format!("there is no such prompt{}", check::perhaps(name, self.names()));
        RenderError { name: name.to_owned(), line: None, message }
    }
}

/// Collects what is rendered, up to the limit.
struct Capped {
    bytes: Vec<u8>,
}

impl io::Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > PROMPT_BYTES_MAX {
            return Err(io::Error::other(format!(
                "the prompt is longer than {PROMPT_BYTES_MAX} bytes"
            )));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION_MAX);
    env.add_global("untrusted_rule", UNTRUSTED_RULE);
    env.add_filter("untrusted", untrusted_filter);
    env
}

/// `{{ text | untrusted("label", chars_max=1000) }}`; a value that is no text is quoted as JSON.
#[expect(clippy::needless_pass_by_value, reason = "minijinja gives a filter its options so")]
fn untrusted_filter(
    value: &Value,
    label: &str,
    options: Kwargs,
) -> Result<String, minijinja::Error> {
    let chars_max: Option<usize> = options.get("chars_max")?;
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(minijinja::Error::from(ErrorKind::UndefinedError));
    }
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_none() => String::new(),
        None => serde_json::to_string_pretty(value).map_err(|error| {
            minijinja::Error::new(ErrorKind::BadSerialization, "cannot be quoted")
                .with_source(error)
        })?,
    };
    Ok(untrusted::untrusted_up_to(label, &text, chars_max.unwrap_or(untrusted::CHARS_MAX)))
}

fn compile_one(
    env: &mut Environment<'static>,
    name: &str,
    source: &Source,
) -> Result<Head, Defect> {
    let defect = |line, message| Defect { file: source.file.clone(), line, message };
    if source.text.len() > TEMPLATE_BYTES_MAX {
        let message = format!(
            "is {} bytes long; at most {TEMPLATE_BYTES_MAX} are allowed",
            source.text.len()
        );
        return Err(defect(None, message));
    }
    let (head, body) = split_head(&source.text).map_err(|(line, message)| defect(line, message))?;
    let added = stacker::maybe_grow(STACK_LEFT_MIN, STACK_GROWTH, || {
        env.add_template_owned(name.to_owned(), body)
    });
    added.map_err(|error| defect(error.line(), words(&error)))?;
    Ok(head)
}

/// The head, and the text with a comment of as many lines in its place, so that lines keep their
/// numbers.
fn split_head(text: &str) -> Result<(Head, String), (Option<usize>, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let Some(rest) = text.strip_prefix("---\n") else { return Ok((Head::default(), text)) };
    let end =
        if rest.starts_with("---\n") { Some(0) } else { rest.find("\n---\n").map(|end| end + 1) };
    let Some(end) = end else {
        return Err((Some(1), "the head is not closed: end it with a line `---`".to_owned()));
    };
    let (head, body) = (&rest[..end], &rest[end + 4..]);
    let lines = head.matches('\n').count() + 2;
    let parsed: Option<Head> = serde_yaml::from_str(head).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().and_then(|place| usize::try_from(place.line()).ok());
        (line.map(|line| line + 1), format!("the head is not valid: {error}"))
    })?;
    Ok((parsed.unwrap_or_default(), format!("{{#{}-#}}{body}", "\n".repeat(lines))))
}

fn embedded_sources<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, Source> {
    pairs
        .into_iter()
        .map(|(name, text)| {
            (name.to_owned(), Source { file: name.to_owned(), text: text.to_owned() })
        })
        .collect()
}

/// Reads each `*.md` beneath `dir`. A link is a defect: it may lead out of the root.
fn read_dir(
    dir: &Path,
    prefix: &str,
    sources: &mut BTreeMap<String, Source>,
    defects: &mut Vec<Defect>,
) {
    let mut defect = |path: &Path, message: String| {
        defects.push(Defect { file: path.display().to_string(), line: None, message });
    };
    let entries = match std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(error) => return defect(dir, format!("cannot be listed: {error}")),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => dirs.push((path, format!("{name}/"))),
            Ok(kind) if kind.is_symlink() => {
                defect(&path, "is a symbolic link; write a file".to_owned());
            }
            Ok(_) if !name.ends_with(".md") => {}
            Ok(_) => match std::fs::read_to_string(&path) {
                Ok(text) => {
                    sources.insert(name, Source { file: path.display().to_string(), text });
                }
                Err(error) => defect(&path, format!("cannot be read: {error}")),
            },
            Err(error) => defect(&path, format!("cannot be read: {error}")),
        }
    }
    for (path, prefix) in dirs {
        read_dir(&path, &prefix, sources, defects);
    }
}

/// minijinja's error and its causes, without their places.
fn words(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// The innermost error: where an included template went wrong, it is there and not in the includer.
fn render_error(name: &str, error: &minijinja::Error) -> RenderError {
    let mut cause = error;
    let mut message = words(error);
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        match inner.downcast_ref::<minijinja::Error>() {
            Some(inner) => {
                cause = inner;
                message = words(inner);
            }
            None => message = format!("{message}: {inner}"),
        }
        source = inner.source();
    }
    RenderError { name: cause.name().unwrap_or(name).to_owned(), line: cause.line(), message }
}

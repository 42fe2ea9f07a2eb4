//! `search`: a regular expression over the tree.
//!
//! The expression is the model's: it is compiled with a size limit and matched in linear time,
//! so no expression hangs a search.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::text::{Text, cut_line};
use super::tree::{Found, Tree, read_entry};
use super::walk::{Next, Walk, What, shown};
use super::{Limits, Trouble};

/// The largest compiled expression, in bytes, and the most lines of context.
const REGEX_BYTES: usize = 1 << 20;
const CONTEXT: usize = 10;

/// The most bytes that one search reads.
const BYTES: usize = 256 << 20;

/// The arguments of `search`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// A regular expression in Rust's syntax (no look-around, no back-references), matched within
    /// lines.
    pub pattern: String,
    /// The directory or file to search, from the root of the workspace; all of it when left out.
    #[serde(default)]
    pub path: Option<String>,
    /// Only files whose path fits this glob, such as `*.rs` (in any directory) or `src/**/*.py`.
    #[serde(default)]
    pub glob: Option<String>,
    /// Lines to show before and after each match; at most 10.
    #[serde(default)]
    pub context: Option<usize>,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: Option<bool>,
    /// Whether to search what the ignore files leave out.
    #[serde(default)]
    pub include_ignored: Option<bool>,
}

/// The tool `search`.
#[derive(Debug)]
pub struct SearchTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
}

impl SearchTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits) }
    }
}

#[async_trait]
impl Tool for SearchTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<Search>(
            "search",
            "Finds lines that match a regular expression, as `path:line: text`; lines of context \
             have `-` in place of `:`. Binary files and what the ignore files name are left out.",
        )
    }

    fn mutates(&self) -> bool {
        false
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let (tree, limits) = (Arc::clone(&self.tree), Arc::clone(&self.limits));
        super::blocking(arguments, move |arguments| search(&tree, &limits, &arguments)).await
    }
}

/// What is looked for and what was found.
struct Hunt<'a> {
    regex: Regex,
    glob: Option<GlobMatcher>,
    context: usize,
    limits: &'a Limits,
    out: String,
    matches: usize,
    files: usize,
    too_large: usize,
    bytes: usize,
}

fn search(tree: &Tree, limits: &Limits, arguments: &Search) -> Result<String, Trouble> {
    let regex = RegexBuilder::new(&arguments.pattern)
        .case_insensitive(arguments.ignore_case == Some(true))
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(2 * REGEX_BYTES)
        .nest_limit(64)
        .build()
        .map_err(|error| format!("`pattern` cannot be used: {error}"))?;
    let mut hunt = Hunt {
        regex,
        glob: arguments.glob.as_deref().map(glob).transpose()?,
        context: arguments.context.unwrap_or(0).min(CONTEXT),
        limits,
        out: String::new(),
        matches: 0,
        files: 0,
        too_large: 0,
        bytes: 0,
    };
    let start = arguments.path.as_deref().unwrap_or(".");
    let is_whole = match tree.place(start)?.found {
        Found::Entry(_) => {
            let file = tree.read(start, limits.file_bytes)?;
            hunt.look_in(&file.path.clone(), file.bytes)
        }
        Found::Directory | Found::Nothing(_) => {
            let walk = Walk::new(tree, limits.visited, arguments.include_ignored == Some(true));
            walk.run(start, &mut |entry| {
                let Some(name) = entry.name.filter(|_| entry.what == What::File) else {
                    return Ok(Next::Into);
                };
                if hunt.glob.as_ref().is_some_and(|glob| !glob.is_match(entry.path)) {
                    return Ok(Next::Into);
                }
                match read_entry(entry.dir, name, entry.path.to_owned(), limits.file_bytes) {
                    Ok(file) => {
                        let goes_on = hunt.look_in(entry.path, file.bytes);
                        Ok(if goes_on { Next::Into } else { Next::Stop })
                    }
                    Err(Trouble::Refused(_)) => {
                        hunt.too_large += 1;
                        Ok(Next::Into)
                    }
                    Err(trouble) => Err(trouble),
                }
            })?
        }
    };
    Ok(hunt.told(is_whole))
}

fn glob(text: &str) -> Result<GlobMatcher, Trouble> {
    let anywhere = if text.contains('/') {
        text.trim_start_matches("./").to_owned()
    } else {
        format!("**/{text}")
    };
    let glob = GlobBuilder::new(&anywhere)
        .literal_separator(true)
        .build()
        .map_err(|error| format!("`glob` cannot be used: {error}"))?;
    Ok(glob.compile_matcher())
}

impl Hunt<'_> {
    fn is_full(&self) -> bool {
        self.matches >= self.limits.matches || self.out.len() >= self.limits.output_bytes
    }

    /// Looks for matches in a file; `false` when no more can be shown.
    fn look_in(&mut self, path: &str, bytes: Vec<u8>) -> bool {
        self.bytes += bytes.len();
        if self.bytes > BYTES {
            return false;
        }
        let Ok(text) = Text::decode(path, bytes) else { return true };
        let lines: Vec<&str> = text.plain().lines().collect();
        let path = shown(path);
        let mut shown_until = 0;
        let mut found = false;
        for (index, line) in lines.iter().enumerate() {
            if !self.regex.is_match(line) {
                continue;
            }
            if self.is_full() {
                return false;
            }
            let from = index.saturating_sub(self.context).max(shown_until);
            if self.context > 0 && !self.out.is_empty() && (!found || from > shown_until) {
                self.out.push_str("--\n");
            }
            for (at, before) in lines.iter().enumerate().take(index).skip(from) {
                self.line(&path, at, before, '-');
            }
            self.line(&path, index, line, ':');
            // Context after a match ends before the next match, which shows itself.
            shown_until = index + 1;
            let until = (index + 1 + self.context).min(lines.len());
            for (at, after) in lines.iter().enumerate().take(until).skip(index + 1) {
                if self.regex.is_match(after) {
                    break;
                }
                self.line(&path, at, after, '-');
                shown_until = at + 1;
            }
            self.matches += 1;
            self.files += usize::from(!found);
            found = true;
        }
        true
    }

    fn line(&mut self, path: &str, index: usize, line: &str, mark: char) {
        let number = index + 1;
        let line = cut_line(line, self.limits.line_chars.min(400));
        let _ = writeln!(self.out, "{path}{mark}{number}{mark} {line}");
    }

    fn told(mut self, is_whole: bool) -> String {
        if self.matches == 0 {
            self.out.push_str("no match");
        } else {
            let (matches, files) = (self.matches, self.files);
            let _ = write!(self.out, "({matches} matching lines in {files} files)");
        }
        if !is_whole {
            self.out.push_str(" (cut off: there may be more; narrow `pattern`, `path` or `glob`)");
        }
        if self.too_large > 0 {
            let _ = write!(self.out, " ({} files too large or unreadable)", self.too_large);
        }
        self.out
    }
}

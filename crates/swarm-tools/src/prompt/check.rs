//! What a template refers to, checked before anything is rendered: other templates, filters, tests.
//!
//! minijinja looks these up when it renders, so that a typing error would wait in a branch that is
//! rarely taken. This reads the tags by their look; what it cannot see (a name that is computed)
//! is left to the rendering.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind};
use regex::Regex;

use super::{Defect, Source};

/// Comments and raw text, which refer to nothing.
static IGNORED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?s)\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}")
});
static TAG: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)\{%.*?%\}|\{\{.*?\}\}"));
static INCLUDED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"^\{%[-+]?\s*(?:include|extends|import|from)\s+(?:"([^"]*)"|'([^']*)')"#)
});
static STRING: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"#));
static FILTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\|\s*([A-Za-z_][A-Za-z0-9_]*)"));
static TEST: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\bis\s+(?:not\s+)?([A-Za-z_][A-Za-z0-9_]*)"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is valid")
}

/// The references of a template that lead nowhere.
pub(super) fn references(
    env: &Environment<'static>,
    sources: &BTreeMap<String, Source>,
    source: &Source,
) -> Vec<Defect> {
    let text = IGNORED.replace_all(&source.text, |found: &regex::Captures<'_>| {
        found[0].replace(|c: char| c != '\n', " ")
    });
    let mut defects = Vec::new();
    for tag in TAG.find_iter(&text) {
        let mut defect = |at: usize, message: String| {
            let line = text[..tag.start() + at].matches('\n').count() + 1;
            defects.push(Defect { file: source.file.clone(), line: Some(line), message });
        };
        if let Some(found) = INCLUDED.captures(tag.as_str()) {
            let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
            if !sources.contains_key(name) {
                let hint = perhaps(name, sources.keys().map(String::as_str));
                defect(0, format!("there is no prompt `{name}` to include{hint}"));
            }
        }
        // Strings are blanked, not cut: the place of what follows stays.
        let plain = STRING.replace_all(tag.as_str(), |found: &regex::Captures<'_>| {
            found[0].replace(|c: char| c != '\n', " ")
        });
        for found in FILTER.captures_iter(&plain) {
            let filtered = env.empty_state().apply_filter(&found[1], &[]);
            if filtered.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
                let place = found.get(1).map_or(0, |name| name.start());
                defect(place, format!("there is no filter `{}`", &found[1]));
            }
        }
        for found in TEST.captures_iter(&plain) {
            let tested = env.empty_state().perform_test(&found[1], &[]);
            if tested.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
                let place = found.get(1).map_or(0, |name| name.start());
                defect(place, format!("there is no test `{}`", &found[1]));
            }
        }
    }
    defects
}

/// `, perhaps …` with the nearest of the known names, if one is near.
pub(super) fn perhaps<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, known)) if likeness > 0.8 => format!(", perhaps `{known}`"),
        Some(_) | None => String::new(),
    }
}

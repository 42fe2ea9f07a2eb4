//! Makefiles and pre-commit: runners of other tools.

use super::{Check, Here, Kind};

/// Copies the tree and runs the hooks on the copy, which has a history of one commit: hooks may
/// rewrite files, and most want a git repository, which a workspace is not.
const PRE_COMMIT: &str = "set -e; d=$(mktemp -d); \
    tar --exclude=./target --exclude=./node_modules --exclude=./.venv --exclude=./.git -cf - . \
    | tar -xf - -C \"$d\"; cd \"$d\"; git init -q; git add -A; \
    exec pre-commit run --all-files --color never";

pub(super) fn checks(here: &Here) -> Vec<Check> {
    let Some(name) = here.first(&["GNUmakefile", "makefile", "Makefile"]) else {
        return Vec::new();
    };
    let text = here.text(name).unwrap_or_default();
    let has = |target: &str| {
        text.lines().filter(|line| !line.starts_with(['\t', '#', '.'])).any(|line| {
            line.split_once(':').is_some_and(|(targets, rest)| {
                !rest.starts_with('=') && targets.split_whitespace().any(|word| word == target)
            })
        })
    };
    let mut found = Vec::new();
    if let Some(target) = ["test", "tests", "check"].into_iter().find(|target| has(target)) {
        let why = format!("{name} has the target `{target}`");
        found.push(here.check(Kind::Test, &format!("make {target}"), &["make", target], why));
    }
    if has("lint") {
        let why = format!("{name} has the target `lint`");
        found.push(here.check(Kind::Lint, "make lint", &["make", "lint"], why));
    }
    found
}

pub(super) fn pre_commit(here: &Here) -> Option<Check> {
    let name = here.first(&[".pre-commit-config.yaml", ".pre-commit-config.yml"])?;
    let probe = "command -v pre-commit >/dev/null && command -v git >/dev/null";
    let check = here.check(Kind::Lint, "pre-commit", &["sh", "-c", PRE_COMMIT], name);
    Some(check.probed(&["sh", "-c", probe]))
}

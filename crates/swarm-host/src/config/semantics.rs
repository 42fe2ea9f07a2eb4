//! What a schema cannot say about a configuration file: values that do not go together, paths
//! that lead nowhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use swarm_core::paths::InvalidGlob;

use super::defect::Defect;
use super::file::{File, Role};
use super::tree::Node;

/// Names every value that cannot be meant, and makes paths absolute: relative ones begin where
/// the file lies.
pub(super) fn check(values: &mut File, tree: &Node, base: &Path) -> Vec<Defect> {
    let mut check = Check { tree, base, defects: Vec::new() };
    check.models(values);
    check.repositories(values);
    for (index, path) in values.sandbox.read_only.iter_mut().enumerate() {
        check.directory(path, &["sandbox", "read_only", &index.to_string()]);
    }
    if let Some(path) = &mut values.graphs {
        check.directory(path, &["graphs"]);
    }
    if let Some(path) = &mut values.prompts {
        check.directory(path, &["prompts"]);
    }
    if values.worker.lease.0 < Duration::from_secs(3) {
        check.defect(&["worker", "lease"], "too short to be renewed in time, the least is 3s");
    }
    if values.worker.poll.0.is_zero() {
        check.defect(&["worker", "poll"], "no time at all, the least is 1ms");
    }
    let schema = &values.store.schema;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts_well = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !starts_well || schema.len() > 40 || !schema.chars().all(is_name) {
        let why = "no name for a schema; use lower-case letters, digits and `_`, at most 40";
        check.defect(&["store", "schema"], why);
    }
    check.people(values);
    check.policy(values);
    check.defects
}

/// Whether a text can be a login: what GitHub allows, and `_` and `.` of user accounts.
pub(super) fn is_login(text: &str) -> bool {
    (1..=39).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
}

struct Check<'a> {
    tree: &'a Node,
    base: &'a Path,
    defects: Vec<Defect>,
}

impl Check<'_> {
    /// A defect at the deepest part of `path` that the text has.
    fn defect(&mut self, path: &[&str], message: impl Into<String>) {
        let place = (0..=path.len())
            .rev()
            .find_map(|len| self.tree.at(&path[..len]))
            .map_or(self.tree.place, |node| node.place);
        self.defects.push(Defect {
            place,
            path: path.join("."),
            message: message.into(),
            help: None,
        });
    }

    fn directory(&mut self, path: &mut PathBuf, keys: &[&str]) {
        *path = self.base.join(&*path);
        if !path.is_dir() {
            self.defect(keys, format!("there is no directory {}", path.display()));
        }
    }

    fn models(&mut self, values: &File) {
        let default = &values.models.default;
        for role in std::iter::once(None).chain(Role::ALL.map(Some)) {
            let model = role.map_or(default, |role| values.models.roles.get(role));
            let at: Vec<&str> = match role {
                None => vec!["models", "default"],
                Some(role) => vec!["models", "roles", role.as_str()],
            };
            let with = |key| [at.as_slice(), &[key]].concat();
            if model.key_env.is_some() && model.key_file.is_some() {
                self.defect(&with("key_file"), "beside `key_env`; keep one of the two");
            }
            if model.name.as_deref() == Some("") {
                self.defect(&with("name"), "empty; write the model's name at the provider");
            }
            let changes_provider =
                model.provider.is_some() && role.is_some() && model.provider != default.provider;
            if model.provider.is_some()
                && model.name.is_none()
                && (role.is_none() || changes_provider)
            {
                self.defect(&at, "`name` is missing: which of the provider's models?");
            }
            if model.name.is_some() && model.provider.is_none() && default.provider.is_none() {
                self.defect(&at, "`provider` is missing: openai or anthropic");
            }
            for (index, fallback) in model.fallbacks.iter().enumerate() {
                if fallback.key_env.is_some() && fallback.key_file.is_some() {
                    let index = index.to_string();
                    let keys = [at.as_slice(), &["fallbacks", &index, "key_file"]].concat();
                    self.defect(&keys, "beside `key_env`; keep one of the two");
                }
            }
        }
    }

    fn glob(&mut self, keys: &[&str], invalid: &InvalidGlob) {
        let found = self.tree.at(keys).and_then(|node| node.find(&invalid.glob));
        let place = found.map_or(self.tree.place, |node| node.place);
        let message = invalid.to_string();
        self.defects.push(Defect { place, path: keys.join("."), message, help: None });
    }

    fn policy(&mut self, values: &File) {
        for defect in values.policy.change.defects() {
            self.glob(&["policy", "change"], &defect);
        }
    }

    fn repositories(&mut self, values: &mut File) {
        let mut seen: Vec<PathBuf> = Vec::new();
        for (index, repository) in values.repositories.iter_mut().flatten().enumerate() {
            let keys = ["repositories", &index.to_string(), "path"];
            self.directory(&mut repository.path, &keys);
            if seen.contains(&repository.path) {
                self.defect(&keys, "named a second time");
            }
            seen.push(repository.path.clone());
        }
    }

    fn people(&mut self, values: &File) {
        const RULE: &str = "no login; write letters, digits, `-`, `_` or `.`, at most 39";
        if values.people.owner.as_deref().is_some_and(|owner| !is_login(owner)) {
            self.defect(&["people", "owner"], RULE);
        }
        for login in values.people.permissions.keys().filter(|login| !is_login(login)) {
            self.defect(&["people", "permissions", login], RULE);
        }
    }
}

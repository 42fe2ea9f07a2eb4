//! JavaScript and TypeScript: the package's scripts, else Node's own test runner.

use serde_json::Value;

use super::{Check, Here, Kind};

pub(super) fn checks(here: &Here) -> Vec<Check> {
    let package: Option<Value> =
        here.text("package.json").and_then(|text| serde_json::from_str(&text).ok());
    let mut found = Vec::new();
    let Some(package) = package else {
        found.extend(has_test_files(here).then(|| node_test(here, "test files")));
        return found;
    };
    let manager = manager(here, &package);
    let script = |name: &str| package["scripts"][name].as_str().filter(|text| !text.is_empty());
    let probe = format!("command -v {manager} >/dev/null && command -v node >/dev/null");
    match script("test") {
        // What `npm init` puts there.
        Some(text) if !text.contains("no test specified") => found.push(
            here.check(
                Kind::Test,
                &format!("{manager} test"),
                &[manager, "test"],
                format!("package.json has the script `test`: {text}"),
            )
            .probed(&["sh", "-c", &probe]),
        ),
        Some(_) | None if has_test_files(here) => {
            found.push(node_test(here, "package.json and test files"))
        }
        Some(_) | None => {}
    }
    let eslint = here
        .names
        .iter()
        .find(|name| name.starts_with("eslint.config.") || name.starts_with(".eslintrc"));
    match (script("lint"), eslint) {
        (Some(text), _) => found.push(
            here.check(
                Kind::Lint,
                &format!("{manager} run lint"),
                &[manager, "run", "lint"],
                format!("package.json has the script `lint`: {text}"),
            )
            .probed(&["sh", "-c", &probe]),
        ),
        (None, Some(config)) => {
            let argv = ["node_modules/.bin/eslint", "--format", "json", "."];
            found.push(here.check(Kind::Lint, "eslint", &argv, config.as_str()));
        }
        (None, None) => {}
    }
    let has_any = |key: &str| package[key].as_object().is_some_and(|names| !names.is_empty());
    if has_any("dependencies") || has_any("devDependencies") || has_any("workspaces") {
        found.push(install(here, manager));
    }
    found
}

fn manager(here: &Here, package: &Value) -> &'static str {
    let named = package["packageManager"].as_str().unwrap_or_default();
    let is = |name: &str, lock: &str| {
        named.split('@').next() == Some(name) || named.is_empty() && here.has(lock)
    };
    if is("pnpm", "pnpm-lock.yaml") {
        "pnpm"
    } else if is("yarn", "yarn.lock") {
        "yarn"
    } else {
        "npm"
    }
}

fn install(here: &Here, manager: &str) -> Check {
    let lock = here.first(&["package-lock.json", "npm-shrinkwrap.json"]);
    let argv: &[&str] = match manager {
        "pnpm" if here.has("pnpm-lock.yaml") => &["pnpm", "install", "--frozen-lockfile"],
        "pnpm" => &["pnpm", "install", "--no-lockfile"],
        "yarn" if here.has("yarn.lock") => &["yarn", "install", "--frozen-lockfile"],
        "yarn" => &["yarn", "install", "--no-lockfile"],
        _ if lock.is_some() => &["npm", "ci", "--no-audit", "--no-fund"],
        _ => &["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"],
    };
    here.check(Kind::Setup, &argv[..2].join(" "), argv, "package.json has dependencies")
        .leaving(&["node_modules"])
}

fn node_test(here: &Here, why: &str) -> Check {
    here.check(Kind::Test, "node --test", &["node", "--test"], why)
}

/// Whether Node's runner would find something.
fn has_test_files(here: &Here) -> bool {
    let is_script =
        |name: &str| [".js", ".mjs", ".cjs"].iter().any(|ending| name.ends_with(ending));
    let is_test = |name: &str| {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        is_script(name)
            && (stem == "test"
                || stem.starts_with("test-")
                || [".test", "-test", "_test"].iter().any(|ending| stem.ends_with(ending)))
    };
    here.any(2, &is_test) || here.below("test").is_some_and(|tests| tests.any(2, &is_script))
}

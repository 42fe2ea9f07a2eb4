//! Python: pytest where it is configured or installed, else unittest; ruff and flake8.
//!
//! Packages are installed into `.venv` in the workspace: it must last from the set-up to the
//! tests, and marks itself as ignored.

use super::{Check, Here, Kind, has_section};

const VENV: &str = ".venv/bin/python";

pub(super) fn checks(here: &Here) -> Vec<Check> {
    let project = here.text("pyproject.toml").unwrap_or_default();
    let ini = |name: &str, section: &str| {
        here.text(name).is_some_and(|text| has_section(&text, section)).then(|| name.to_owned())
    };
    let in_project =
        |section: &str| has_section(&project, section).then(|| "pyproject.toml".to_owned());
    let requirements: Vec<&String> = here
        .names
        .iter()
        .filter(|name| name.ends_with(".txt") && name.contains("requirements"))
        .collect();
    let tests = test_directory(here);
    let mentions = |text: &str| text.lines().any(|line| line.starts_with("pytest"));
    let names_pytest = ["\"pytest", "'pytest", "\npytest ="].iter().any(|it| project.contains(it));
    let pytest = ["pytest.ini", ".pytest.ini", "conftest.py"]
        .iter()
        .find(|name| here.has(name))
        .map(|&name| name.to_owned())
        .or_else(|| in_project("[tool.pytest"))
        .or_else(|| ini("setup.cfg", "[tool:pytest]"))
        .or_else(|| ini("tox.ini", "[pytest]"))
        .or_else(|| {
            let directory = here.below(tests.as_deref()?)?;
            directory.has("conftest.py").then(|| format!("{}/conftest.py", directory.path))
        })
        .or_else(|| {
            let named = requirements
                .iter()
                .find(|name| here.text(name).is_some_and(|text| mentions(&text)));
            named.map(|name| format!("{name} names pytest"))
        })
        .or_else(|| names_pytest.then(|| "pyproject.toml names pytest".to_owned()));
    let mut found = Vec::new();
    if let Some(why) = &pytest {
        found.push(run_pytest(here, why));
    } else if let Some(directory) = &tests {
        found.push(run_either(here, directory));
    }
    if let Some(why) = here
        .first(&["ruff.toml", ".ruff.toml"])
        .map(str::to_owned)
        .or_else(|| in_project("[tool.ruff"))
    {
        let arguments = ["check", "--output-format", "concise", "."];
        let way = |program: &[&'static str]| [program, &arguments].concat();
        found.push(
            here.check(Kind::Lint, "ruff", &way(&[".venv/bin/ruff"]), why)
                .or(&way(&["ruff"]), &[])
                .or(&way(&["python3", "-m", "ruff"]), &["python3", "-m", "ruff", "--version"]),
        );
    }
    if let Some(why) = here
        .first(&[".flake8"])
        .map(str::to_owned)
        .or_else(|| ini("setup.cfg", "[flake8]"))
        .or_else(|| ini("tox.ini", "[flake8]"))
    {
        found.push(
            here.check(Kind::Lint, "flake8", &[VENV, "-m", "flake8", "--exclude=.venv"], why)
                .probed(&[VENV, "-m", "flake8", "--version"])
                .or(
                    &["python3", "-m", "flake8", "--exclude=.venv"],
                    &["python3", "-m", "flake8", "--version"],
                ),
        );
    }
    found.extend(install(here, &project, &requirements, pytest.is_some()));
    found
}

fn run_pytest(here: &Here, why: &str) -> Check {
    here.check(Kind::Test, "pytest", &[VENV, "-m", "pytest"], why)
        .probed(&[VENV, "-c", "import pytest"])
        .or(&["python3", "-m", "pytest"], &["python3", "-c", "import pytest"])
}

/// Test files, but no word of a runner: pytest if it is there, for it runs unittest's too.
fn run_either(here: &Here, directory: &str) -> Check {
    let mut check = run_pytest(here, &format!("test files in `{directory}`"));
    check.name = "python tests".to_owned();
    for python in [VENV, "python3"] {
        // An uninstalled `src` layout is not importable by itself.
        let mut argv = match here.has("src") {
            true => vec!["env", "PYTHONPATH=src", python],
            false => vec![python],
        };
        argv.extend(["-m", "unittest", "discover"]);
        if directory != "." {
            argv.extend(["-s", directory]);
        }
        check = check.or(&argv, &[python, "--version"]);
    }
    check
}

/// Where test files are: the root, or the first directory by the usual names; with the names of
/// packages, so that unittest finds them from the root.
fn test_directory(here: &Here) -> Option<String> {
    let is_test = |name: &str| {
        name.strip_suffix(".py").is_some_and(|stem| {
            stem.starts_with("test_")
                || stem.ends_with("_test")
                || stem == "tests"
                || stem == "test"
        })
    };
    let below = ["tests", "test"].into_iter().find_map(|name| {
        let directory = here.below(name)?;
        directory.any(2, &is_test).then(|| match directory.has("__init__.py") {
            true => ".".to_owned(),
            false => name.to_owned(),
        })
    });
    below.or_else(|| here.any(0, &is_test).then(|| ".".to_owned()))
}

/// Packages installed into a virtual environment, which sees those of the system: what is there
/// already needs no network.
fn install(here: &Here, project: &str, requirements: &[&String], is_pytest: bool) -> Option<Check> {
    let is_plain = |name: &&&String| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let mut arguments = Vec::new();
    for name in requirements.iter().filter(is_plain) {
        arguments.push(format!("-r ./{name}"));
    }
    let is_package = has_section(project, "[project]")
        || has_section(project, "[tool.poetry]")
        || here.has("setup.py");
    if is_package {
        let extras = extras(project);
        arguments.push(match extras.is_empty() {
            true => "-e .".to_owned(),
            false => format!("-e '.[{}]'", extras.join(",")),
        });
    }
    if arguments.is_empty() {
        return None;
    }
    if is_pytest {
        arguments.push("pytest".to_owned());
    }
    let line = format!(
        "python3 -m venv --system-site-packages .venv && {VENV} -m pip install {}",
        arguments.join(" ")
    );
    let why = if is_package { "a Python package" } else { "requirements files" };
    let check = here.check(Kind::Setup, "pip install", &["sh", "-c", &line], why);
    Some(check.probed(&["python3", "--version"]).leaving(&[".venv"]))
}

/// The optional dependencies of a `pyproject.toml` that tests are known to want.
fn extras(project: &str) -> Vec<&'static str> {
    let section = project
        .lines()
        .skip_while(|line| line.trim() != "[project.optional-dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let keys: Vec<&str> = section.filter_map(|line| Some(line.split_once('=')?.0.trim())).collect();
    ["test", "tests", "testing", "dev"].into_iter().filter(|name| keys.contains(name)).collect()
}

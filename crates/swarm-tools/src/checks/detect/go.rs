//! Go: test and vet.

use super::{Check, Here, Kind};

pub(super) fn checks(here: &Here) -> Vec<Check> {
    let Some(module) = here.text("go.mod") else { return Vec::new() };
    let mut found = vec![
        here.check(Kind::Test, "go test", &["go", "test", "-v", "./..."], "go.mod"),
        here.check(Kind::Lint, "go vet", &["go", "vet", "./..."], "go.mod"),
    ];
    if module.lines().any(|line| line.trim_start().starts_with("require")) {
        let argv = ["go", "mod", "download"];
        found.push(here.check(Kind::Setup, "go mod download", &argv, "go.mod"));
    }
    found
}

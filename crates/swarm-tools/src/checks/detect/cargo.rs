//! Rust: cargo's tests, or nextest's where it is configured; clippy and rustfmt.

use super::{Check, Here, Kind};

pub(super) fn checks(here: &Here) -> Vec<Check> {
    let Some(manifest) = here.text("Cargo.toml") else { return Vec::new() };
    let lock = here.text("Cargo.lock");
    let is_workspace = super::has_section(&manifest, "[workspace]");
    let wide: &[&str] = if is_workspace { &["--workspace"] } else { &[] };
    // A lock file that only a build of ours made is no part of a change.
    let leaves: &[&str] = if lock.is_some() { &["target"] } else { &["target", "Cargo.lock"] };
    let plain = [&["cargo", "test", "--no-fail-fast"], wide].concat();
    let test = if here.below(".config").is_some_and(|config| config.has("nextest.toml")) {
        let nextest = [&["cargo", "nextest", "run", "--no-fail-fast"], wide].concat();
        here.check(Kind::Test, "cargo nextest", &nextest, ".config/nextest.toml")
            .probed(&["cargo", "nextest", "--version"])
            .or(&plain, &["cargo", "--version"])
    } else {
        here.check(Kind::Test, "cargo test", &plain, "Cargo.toml").probed(&["cargo", "--version"])
    };
    let clippy = [&["cargo", "clippy", "--all-targets", "--message-format=json"], wide].concat();
    let mut found = vec![
        test.leaving(leaves),
        here.check(Kind::Lint, "cargo clippy", &clippy, "Cargo.toml")
            .probed(&["cargo", "clippy", "--version"])
            .leaving(leaves),
        here.check(Kind::Lint, "cargo fmt", &["cargo", "fmt", "--all", "--check"], "Cargo.toml")
            .probed(&["cargo", "fmt", "--version"])
            .leaving(leaves),
    ];
    // Nothing is fetched for a lock file that names no package from elsewhere.
    if lock.as_ref().is_none_or(|lock| lock.contains("\nsource = ")) {
        let fetch: &[&str] =
            if lock.is_some() { &["cargo", "fetch", "--locked"] } else { &["cargo", "fetch"] };
        found.push(here.check(Kind::Setup, "cargo fetch", fetch, "Cargo.toml").leaving(leaves));
    }
    found
}

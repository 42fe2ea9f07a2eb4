use super::*;
use crate::diff::{Hunk, Line, LineKind};

/// A changed text file with these added lines, from line 1 on.
fn added(path: &str, lines: &[&str]) -> FileChange {
    let lines: Vec<Line> = lines
        .iter()
        .zip(1..)
        .map(|(text, number)| Line {
            kind: LineKind::Added,
            old_line: None,
            new_line: Some(number),
            text: (*text).to_owned(),
        })
        .collect();
    FileChange {
        path: path.to_owned(),
        old_path: None,
        status: FileStatus::Modified,
        old_mode: Some(FileMode::File),
        new_mode: Some(FileMode::File),
        added: lines.len() as u64,
        removed: 0,
        old_bytes: 10,
        new_bytes: 20,
        is_binary: false,
        is_cut: false,
        hunks: vec![Hunk {
            old_start: 0,
            old_lines: 0,
            new_start: 1,
            new_lines: u32::try_from(lines.len()).unwrap(),
            lines,
        }],
    }
}

fn deleted(path: &str, lines: u64) -> FileChange {
    FileChange {
        status: FileStatus::Deleted,
        new_mode: None,
        new_bytes: 0,
        removed: lines,
        hunks: Vec::new(),
        added: 0,
        ..added(path, &[])
    }
}

fn findings_in(files: Vec<FileChange>) -> String {
    let diff = Diff { files, base_files: 1000, ..Diff::default() };
    let findings = judge(&diff, &ChangePolicy::default());
    findings.iter().map(|f| format!("{:?} {f}", f.severity)).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_ordinary_change_needs_nobody() {
    let file = added("src/lib.rs", &["fn main() { let token = next_token(); }"]);
    assert_eq!(findings_in(vec![file, deleted("src/old.rs", 40)]), "");
}

#[test]
fn a_change_that_deletes_much_needs_a_person() {
    let files: Vec<FileChange> = (0..11).map(|n| deleted(&format!("src/{n}.rs"), 50)).collect();
    insta::assert_snapshot!(findings_in(files), @r"
    NeedsPerson deletes or empties 11 files, 10 may go unseen
    NeedsPerson removes 550 lines, 500 may go unseen
    ");
    let small = Diff {
        files: (0..3).map(|n| deleted(&format!("{n}.md"), 1)).collect(),
        base_files: 10,
        ..Diff::default()
    };
    let findings = judge(&small, &ChangePolicy::default());
    assert_eq!(findings[0].message, "deletes or empties 30 % of all files, 20 % may go unseen");
}

#[test]
fn a_file_that_is_emptied_counts_as_deleted() {
    let mut policy = ChangePolicy::default();
    policy.destructive.deleted_files_max = 0;
    let emptied = FileChange { new_bytes: 0, ..added("data.csv", &[]) };
    let diff = Diff { files: vec![emptied], base_files: 9, ..Diff::default() };
    assert_eq!(judge(&diff, &policy)[0].rule, Rule::Destructive);
}

#[test]
fn removed_lines_of_generated_files_do_not_count() {
    let lock =
        FileChange { status: FileStatus::Modified, removed: 9000, ..added("Cargo.lock", &[]) };
    assert_eq!(findings_in(vec![lock]), "");
}

#[test]
fn what_steers_ci_agents_and_review_needs_a_person_under_any_spelling_and_name() {
    for path in [
        ".github/workflows/ci.yml",
        ".GitHub/Workflows/x.yml",
        "AGENTS.md",
        "docs/agents.md",
        "CODEOWNERS",
        ".github/CODEOWNERS",
        ".gitattributes",
        "sub/.gitattributes",
        ".gitmodules",
        "swarm.yaml",
        "Jenkinsfile",
        ".vscode/tasks.json",
        ".husky/pre-commit",
    ] {
        let found = findings_in(vec![added(path, &["x"])]);
        assert!(found.starts_with("NeedsPerson"), "{path}: {found:?}");
    }
    // Moving it away is a change of it, too.
    let moved = FileChange {
        status: FileStatus::Renamed,
        old_path: Some("AGENTS.md".to_owned()),
        ..added("old.md", &[])
    };
    insta::assert_snapshot!(findings_in(vec![moved, deleted(".github/workflows/ci.yml", 3)]), @r"
    NeedsPerson AGENTS.md: is protected (`**/agents.md`): a person must agree to this change
    NeedsPerson .github/workflows/ci.yml: is protected (`.github/workflows/`): a person must agree to this change
    ");
}

#[test]
fn a_forbidden_path_is_refused() {
    insta::assert_snapshot!(
        findings_in(vec![added("sub/.GIT/hooks/pre-commit", &["#!/bin/sh"])]),
        @"Refuse sub/.GIT/hooks/pre-commit: must not be touched (`**/.git/**`)"
    );
}

#[test]
fn a_secret_is_refused_with_its_line_and_without_the_secret() {
    let token = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    let line = format!("TOKEN = \"{token}\"");
    let found = findings_in(vec![added("config.py", &["import os", &line])]);
    insta::assert_snapshot!(found, @"Refuse config.py:2: holds what looks like a GitHub token (`ghp_… (40 characters)`): keep it in the secret store and read it at run time");
}

#[test]
fn a_secret_in_an_allowed_file_is_let_through() {
    let mut policy = ChangePolicy::default();
    policy.secrets.allowed_paths = vec!["tests/keys/".to_owned()];
    let key = ["-----BEGIN ", "PRIVATE KEY-----"].concat();
    let file = |path| Diff { files: vec![added(path, &[&key])], ..Diff::default() };
    assert_eq!(judge(&file("tests/keys/a.pem"), &policy), []);
    assert_eq!(judge(&file("src/a.pem"), &policy)[0].severity, Severity::Refuse);
}

#[test]
fn links_submodules_binaries_and_huge_texts_need_a_person_when_they_hide_something() {
    let link = |path: &str, target: &str| FileChange {
        new_mode: Some(FileMode::Symlink),
        ..added(path, &[target])
    };
    let submodule = FileChange { new_mode: Some(FileMode::Submodule), ..added("vendor/x", &[]) };
    let binary = FileChange { is_binary: true, new_bytes: 2_000_000, ..added("logo.png", &[]) };
    let small = FileChange { is_binary: true, new_bytes: 2_000, ..added("icon.png", &[]) };
    let huge = FileChange { is_cut: true, new_bytes: 9_000_000, ..added("data.json", &[]) };
    insta::assert_snapshot!(findings_in(vec![
        link("a", "b/c"), link("x/y/a", "../../b"),
        link("etc", "/etc"), link("x/up", "../../home"), link("x/long", "y/../../../z"),
        submodule, binary, small, huge,
    ]), @r"
    NeedsPerson etc: links out of the repository, to `/etc`
    NeedsPerson x/up: links out of the repository, to `../../home`
    NeedsPerson x/long: links out of the repository, to `y/../../../z`
    NeedsPerson vendor/x: is a submodule: it brings in code that this diff does not show
    NeedsPerson logo.png: is a binary file of 2000000 bytes, 1048576 may go unseen
    NeedsPerson data.json: is a text of 9000000 bytes, too large to be judged line by line
    ");
}

#[test]
fn text_that_looks_other_than_it_is_needs_a_person() {
    insta::assert_snapshot!(findings_in(vec![
        added("a.rs", &["ok", "if admin \u{202e} { }"]),
        added("line\nbreak", &[]),
    ]), @r"
    NeedsPerson a.rs:2: has U+202E, which makes text look other than it is
    NeedsPerson line\nbreak: has control characters in its name
    ");
}

#[test]
fn a_policy_that_cannot_be_read_refuses_everything_and_names_all_its_defects() {
    let policy = ChangePolicy {
        protected_paths: vec!["ok/".to_owned(), "a[".to_owned()],
        forbidden_paths: vec!["{b".to_owned()],
        ..ChangePolicy::default()
    };
    let diff = Diff { files: vec![added("x", &["y"])], ..Diff::default() };
    let findings = judge(&diff, &policy);
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Refuse));
    let globs: Vec<String> = policy.defects().into_iter().map(|defect| defect.glob).collect();
    assert_eq!(globs, ["a[", "{b"]);
    assert_eq!(ChangePolicy::default().defects(), []);
}

#[test]
fn a_policy_is_read_with_defaults_and_without_unknown_keys() {
    let policy: ChangePolicy =
        serde_json::from_str(r#"{"destructive": {"deleted_files_max": 1}}"#).unwrap();
    assert_eq!(policy.destructive.deleted_files_max, 1);
    assert_eq!(policy.protected_paths, ChangePolicy::default().protected_paths);
    assert!(serde_json::from_str::<ChangePolicy>(r#"{"deleted_files_max": 1}"#).is_err());
}

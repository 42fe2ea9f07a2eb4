//! The example as a program: it asks, ends, goes on with the answer, and survives SIGKILL.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

fn program(dir: &Path, answer: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed-graph"));
    command.arg(dir).args(answer);
    command
}

/// What a process prints that runs to its end.
fn run(dir: &Path, answer: &[&str]) -> String {
    let output = program(dir, answer).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The lines of a file, each without its beginning up to the colon.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split_once(": ").expect("a colon").1.to_owned()).collect()
}

/// The beginning of a file's last line: run, step and moment.
fn last_id(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("the file is there");
    let last = text.lines().last().expect("it has a line");
    last.split_once(": ").expect("a colon").0.to_owned()
}

const HELD: &str = "1200 cents from shop to escrow";
const PAID: &str = "1200 cents from escrow to ada";

#[test]
fn it_ends_at_the_question_and_goes_on_from_there_with_the_answer() {
    let dir = TempDir::new().expect("a temporary directory");
    let (dir, ledger) = (dir.path(), dir.path().join("ledger.txt"));
    let asks = run(dir, &[]);
    assert!(asks.contains("Refund 1200 cents to ada?") && asks.contains("Waiting"), "{asks}");
    assert_eq!(lines(&ledger), [HELD], "nothing is paid before the answer");

    let still = run(dir, &[]);
    assert!(!still.contains("node.started") && still.contains("Waiting"), "{still}");

    let ends = run(dir, &["pay", "ben"]);
    assert!(ends.contains("Ended(Succeeded)"), "{ends}");
    assert_eq!(lines(&ledger), [HELD, PAID]);

    let over = run(dir, &["refuse", "ben"]);
    assert!(over.contains("Ended(Succeeded)"), "{over}");
    assert_eq!(lines(&ledger), [HELD, PAID], "a run that has ended does nothing");
}

#[test]
fn a_refusal_gives_the_money_back() {
    let dir = TempDir::new().expect("a temporary directory");
    run(dir.path(), &[]);
    run(dir.path(), &["refuse", "ben"]);
    assert_eq!(lines(&dir.path().join("ledger.txt")), [HELD, "1200 cents from escrow to shop"]);
}

#[test]
fn an_answer_that_is_none_of_the_choices_is_refused_and_the_question_stays() {
    let dir = TempDir::new().expect("a temporary directory");
    run(dir.path(), &[]);
    let refused = program(dir.path(), &["maybe", "ben"]).output().expect("it starts");
    assert!(!refused.status.success());
    assert!(run(dir.path(), &["pay", "ben"]).contains("Ended(Succeeded)"));
}

/// Lets a process begin to pay, and kills it when the transfer is booked and the letter is being
/// written: the file for that is a pipe that nobody reads, so that it gets no further.
fn killed_between_transfer_and_letter(dir: &Path) {
    run(dir, &[]);
    let letters = dir.join("letters.txt");
    std::fs::remove_file(&letters).expect("a letter was written");
    let made = Command::new("mkfifo").arg(&letters).status().expect("mkfifo is installed");
    assert!(made.success());
    let mut child =
        program(dir, &["pay", "ben"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let said = BufReader::new(child.stdout.take().expect("it is piped"));
    let is_letter = |line: &str| line.starts_with("line.begun") && line.contains("letters.txt");
    assert!(said.lines().any(|line| is_letter(&line.expect("text"))), "it writes the letter");
    child.kill().expect("it is killed");
    child.wait().expect("it is dead");
    std::fs::remove_file(&letters).expect("the pipe is there");
}

#[test]
fn a_killed_process_is_gone_on_with_and_what_it_had_done_is_not_done_again() {
    let dir = TempDir::new().expect("a temporary directory");
    let (dir, ledger) = (dir.path(), dir.path().join("ledger.txt"));
    killed_between_transfer_and_letter(dir);
    assert_eq!(lines(&ledger), [HELD, PAID]);
    // Out of sight: the journal alone knows that the transfer was booked.
    let kept = dir.join("kept.txt");
    std::fs::rename(&ledger, &kept).expect("the ledger is there");

    let ends = run(dir, &[]);
    assert!(ends.contains("Ended(Succeeded)"), "{ends}");
    assert!(!ledger.exists(), "the transfer is not booked again");
    let letters = dir.join("letters.txt");
    assert_eq!(lines(&letters), ["1200 cents have gone from escrow to ada."]);
    assert_eq!(last_id(&letters), last_id(&kept), "the moment is the one of before the kill");
}

#[test]
fn a_letter_that_got_there_before_the_kill_is_found_and_not_written_again() {
    let dir = TempDir::new().expect("a temporary directory");
    let (dir, letters) = (dir.path(), dir.path().join("letters.txt"));
    killed_between_transfer_and_letter(dir);
    // What the killed process would have left if it had died a moment later.
    let id = last_id(&dir.join("ledger.txt"));
    let landed = format!("{id}: 1200 cents have gone from escrow to ada.\n");
    std::fs::write(&letters, &landed).expect("writable");

    assert!(run(dir, &[]).contains("Ended(Succeeded)"));
    assert_eq!(std::fs::read_to_string(&letters).expect("a letter"), landed);
}

//! The fuzz targets on the stable toolchain: every file of their corpora, and thousands of seeded
//! mutations of them, within bounds of time and memory.
//!
//! `SWARM_MUTATIONS=100000` tries so many for each target, `SWARM_SEED` begins elsewhere. What is
//! found goes into `fuzz/corpus`, and stays there.

use std::path::Path;
use std::time::{Duration, Instant};

use swarm_core::checkpoint::{Checkpoint, Cursor, StepEnding, StepRecord};
use swarm_core::event::Event;
use swarm_core::port::clock::Entropy as _;
use swarm_core::port::store::SignalKind;
use swarm_graph::testkit::SeededEntropy;

#[expect(unreachable_pub, reason = "the fuzz targets call them")]
#[path = "../../../../fuzz/src/lib.rs"]
mod targets;

/// Debug builds on a busy machine; what must not happen is minutes.
const SLOWEST: Duration = Duration::from_secs(10);
const MEMORY_MAX_KIB: u64 = 1024 * 1024;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).expect("the corpus is there");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() > 10, "{} files", files.len());
    files
}

/// Cuts, doubles, swaps, splices and flips pieces of a text.
fn mutated(dice: &SeededEntropy, of: &[u8], with: &[u8]) -> Vec<u8> {
    let roll = |below: usize| usize::try_from(dice.next_u64() % below.max(1) as u64).unwrap();
    let mut data = of.to_vec();
    for _ in 0..=roll(4) {
        let at = roll(data.len() + 1);
        let end = (at + roll(40)).min(data.len());
        match roll(6) {
            0 => drop(data.drain(at..end)),
            1 => {
                let piece = data[at..end].repeat(1 + roll(8));
                data.splice(at..at, piece);
            }
            2 => {
                let from = roll(with.len() + 1);
                let piece = with[from..(from + roll(60)).min(with.len())].to_vec();
                data.splice(at..end, piece);
            }
            3 if at < data.len() => data[at] ^= 1 << roll(8),
            4 if at < data.len() => data[at] = b"{}[]:,'\"$&*!|>-#0\n\\"[roll(19)],
            _ => data.truncate(data.len().min(8192)),
        }
    }
    data
}

/// The most memory that this process ever had, in KiB; only Linux says.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stdout, reason = "the figures are what the run is for")]
fn run(target: &'static str, feed: fn(&[u8]), mutations: u64) {
    // As much stack as a thread of a server has.
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let tried = thread.spawn(move || {
        let (corpus, seed) = (corpus(target), from_env("SWARM_SEED", 1));
        let mut slowest = Duration::ZERO;
        let mut timed = |name: &str, data: &[u8]| {
            let begun = Instant::now();
            feed(data);
            slowest = slowest.max(begun.elapsed());
            assert!(begun.elapsed() < SLOWEST, "{target} {name}: {:?}", begun.elapsed());
        };
        corpus.iter().for_each(|(name, data)| timed(name, data));
        for number in 0..from_env("SWARM_MUTATIONS", mutations) {
            let dice = SeededEntropy::new(seed.wrapping_add(number.wrapping_mul(7919)));
            let pick = || &corpus[usize::try_from(dice.next_u64()).unwrap() % corpus.len()].1;
            timed(&format!("mutation {number} of seed {seed}"), &mutated(&dice, pick(), pick()));
        }
        println!(
            "{target}: {} files and {mutations} mutations, the slowest took {slowest:?}, at most {} MiB in all",
            corpus.len(),
            memory_kib() / 1024
        );
    });
    tried.unwrap().join().expect("no input makes it panic");
    assert!(memory_kib() < MEMORY_MAX_KIB, "{} KiB", memory_kib());
}

#[test]
fn no_graph_text_panics_or_takes_long() {
    run("graph", targets::graph, 600);
}

#[test]
fn no_expression_panics_or_takes_long() {
    run("expr", targets::expr, 3000);
}

#[test]
fn no_stored_bytes_panic_or_take_long() {
    run("stored", targets::stored, 1500);
}

/// Files of the corpus that are what a store holds, of each kind that a run can wait in.
#[test]
fn what_this_release_stores_is_read() {
    let corpus = corpus("stored");
    let file = |name: &str| &corpus.iter().find(|(file, _)| file == name).expect("it is there").1;
    let checkpoint: Checkpoint = serde_json::from_slice(file("checkpoint.json")).unwrap();
    let doing: Vec<&str> =
        checkpoint.cursor.places().iter().map(|place| place.doing.as_str()).collect();
    assert_eq!(doing, ["due", "backoff", "answer", "child", "signal", "foreach"]);
    let old: Cursor = serde_json::from_slice(file("old-cursor.json")).unwrap();
    assert_eq!(old, Cursor::default());
    let step: StepRecord = serde_json::from_slice(file("step.json")).unwrap();
    assert!(matches!(step.ending, StepEnding::Output(_)));
    assert!(serde_json::from_slice::<StepEnding>(file("failed.json")).is_ok());
    assert!(serde_json::from_slice::<Event>(file("event.json")).is_ok());
    for signal in ["signal.json", "child.json"] {
        assert!(serde_json::from_slice::<SignalKind>(file(signal)).is_ok(), "{signal}");
    }
}

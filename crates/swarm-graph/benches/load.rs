//! What loading and checking a graph costs, by its size.
//!
//! `chain` is one way down with a `set` and a condition in each node; `forked` forks at every
//! tenth node and joins again, so that the check of parallel writers has something to follow.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use swarm_graph::check::{self, Memory};
use swarm_graph::registry::Registry;

const HEAD: &str = "dsl: 1
graph: { name: main, version: 1.0.0 }
state: { channels: { log: { reducer: append, schema: { type: array, items: { type: string } }, default: [] } } }
entry: n0
limits: { supersteps: 100000 }
nodes:
";

fn chain(nodes: usize) -> String {
    let mut text = HEAD.to_owned();
    for n in 0..nodes {
        let to = if n + 1 < nodes { format!("n{}", n + 1) } else { "$end".to_owned() };
        let _ = writeln!(
            text,
            "  n{n}:\n    wait: {{ signal: go, timeout: 1m }}\n    set: {{ log: \"${{{{ ['n{n}', string(state.log.size())] }}}}\" }}\n    routes:\n      - {{ when: \"${{{{ signal != null && state.log.size() > {n} }}}}\", to: {to} }}\n      - {{ to: {to} }}"
        );
    }
    text
}

fn forked(nodes: usize) -> String {
    let mut text = HEAD.to_owned();
    for first in (0..nodes).step_by(10) {
        let arms: Vec<String> = (first + 1..first + 9).map(|n| format!("n{n}")).collect();
        let (arms, join) = (arms.join(", "), first + 9);
        let _ = writeln!(text, "  n{first}: {{ wait: {{ timeout: 1m }}, next: [ {arms} ] }}");
        for n in first + 1..join {
            let _ = writeln!(
                text,
                "  n{n}: {{ wait: {{ timeout: 1m }}, set: {{ log: [ n{n} ] }}, next: n{join} }}"
            );
        }
        let to = if first + 10 < nodes { format!("n{}", first + 10) } else { "$end".to_owned() };
        let _ = writeln!(
            text,
            "  n{join}: {{ wait: {{ timeout: 1m }}, when_all: [ {arms} ], next: {to} }}"
        );
    }
    text
}

fn load(criterion: &mut Criterion) {
    let registry = Registry::new();
    let mut group = criterion.benchmark_group("load");
    group.sample_size(20);
    for nodes in [10, 100, 1000] {
        for (name, text) in [("chain", chain(nodes)), ("forked", forked(nodes))] {
            let sources = Memory::one("main.yaml", text);
            let check = || match check::load(&sources, "main.yaml", &registry) {
                Ok(graph) => black_box(graph),
                Err(defects) => panic!("{defects}"),
            };
            group.bench_function(BenchmarkId::new(name, nodes), |bencher| bencher.iter(check));
        }
    }
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);

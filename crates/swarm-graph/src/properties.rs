//! Properties of reducers and of the planner, on random values.
//!
//! `PROPTEST_CASES=10000` tries more than the default of 256.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use swarm_core::checkpoint::{Activation, Change, Cursor, Phase};
use swarm_core::id::{BlockId, RunId, StepId};
use swarm_core::reducer::Reducer;
use swarm_core::time::Timestamp;

use crate::check;
use crate::graph::{Channel, Graph};
use crate::plan;
use crate::registry::Registry;
use crate::settle;

const NOW: Timestamp = Timestamp(1_000_000);

fn channel(reducer: Reducer) -> Channel {
    Channel { reducer, custom: None, default: Arc::default(), schema: Value::Null }
}

fn by_id() -> Reducer {
    Reducer::MergeByKey { key: "id".to_owned() }
}

/// A reducer, and updates that fit it; numbers are small, so that adding is exact.
fn updates() -> impl Strategy<Value = (Reducer, Vec<Value>)> {
    let number = || (-1000_i64..1000).prop_map(Value::from);
    let numbers = || prop::collection::vec(number(), 0..4).prop_map(Value::from);
    let object = || {
        let entries = prop::collection::vec(("[a-d]", number()), 0..4);
        entries.prop_map(|entries| Value::Object(entries.into_iter().collect()))
    };
    let items = || {
        let item = (0..4_i64, number()).prop_map(|(id, n)| json!({ "id": id, "n": n }));
        prop::collection::vec(item, 0..4).prop_map(Value::from)
    };
    let many = |update: BoxedStrategy<Value>| prop::collection::vec(update, 1..6);
    prop_oneof![
        many(number().boxed()).prop_map(|all| (Reducer::Replace, all)),
        many(numbers().boxed()).prop_map(|all| (Reducer::Append, all)),
        many(object().boxed()).prop_map(|all| (Reducer::Merge, all)),
        many(items().boxed()).prop_map(|all| (by_id(), all)),
        many(number().boxed()).prop_map(|all| (Reducer::Sum, all)),
        many(number().boxed()).prop_map(|all| (Reducer::Max, all)),
    ]
}

fn reduced(reducer: &Reducer, mut value: Value, updates: &[Value]) -> Value {
    for update in updates {
        reducer.apply(&mut value, update.clone()).unwrap();
    }
    value
}

/// What the stores do with a change.
fn applied(value: Value, change: &Change) -> Value {
    match change {
        Change::Full(value) => (**value).clone(),
        Change::Append(items) => reduced(&Reducer::Append, value, &[(**items).clone()]),
        Change::Merge(entries) => reduced(&Reducer::Merge, value, &[(**entries).clone()]),
    }
}

/// Phases that an activation may be in.
fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        3 => Just(Phase::Due),
        1 => (-5_i64..5).prop_map(|ms| Phase::Backoff { until: Timestamp(NOW.0 + ms) }),
        1 => Just(Phase::Answer { blocks: vec![BlockId::new("r.a#1").unwrap()] }),
        1 => Just(Phase::Child { run: RunId::new("r.a#1").unwrap() }),
        1 => Just(Phase::Signal { name: Some("go".to_owned()), until: None }),
    ]
}

/// A graph with eight plain nodes and two loops, bounded at so many at once.
fn graph(concurrency: u32, parallel: u32) -> Graph {
    let names: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let mut text = format!(
        "dsl: 1\ngraph: {{ name: g, version: 1.0.0 }}\nlimits: {{ concurrency: {concurrency} }}\nentry: start\nnodes:\n"
    );
    let mut node = |name: &str, rest: &str| {
        text.extend(["  ", name, ": { ", rest, " }\n"]);
    };
    let all = names.join(", ");
    node("start", &format!("wait: {{ timeout: 1s }}, next: [{all}, l0, l1]"));
    for name in &names {
        node(name, "wait: { timeout: 1s }, next: $end");
    }
    for name in ["l0", "l1"] {
        let each =
            format!("foreach: {{ in: \"${{{{ [1, 2] }}}}\", as: item, max_parallel: {parallel} }}");
        node(name, &format!("{each}, wait: {{ timeout: 1s }}, next: $end"));
    }
    check::load_text(&text, &Registry::new()).unwrap_or_else(|defects| panic!("{defects}"))
}

fn activation(node: &str, phase: Phase) -> Activation {
    let node = swarm_core::id::NodeName::new(node).unwrap();
    let step = StepId::of(&node, 1, None);
    Activation { step, node, visit: 1, item: None, frame: None, attempts: 0, phase, error: None }
}

/// Some nodes in some phases, and two loops with items left.
fn cursor() -> impl Strategy<Value = Cursor> {
    let plain = prop::collection::vec(prop::option::of(phase()), 8);
    let loops = prop::collection::vec(prop::option::of(0..6_usize), 2);
    (plain, loops).prop_map(|(plain, loops)| {
        let mut cursor = Cursor::default();
        for (n, phase) in plain.into_iter().enumerate() {
            cursor.active.extend(phase.map(|phase| activation(&format!("n{n}"), phase)));
        }
        for (n, items) in loops.into_iter().enumerate() {
            let Some(items) = items else { continue };
            let items = Arc::new(json!(vec![0; items]));
            let phase = Phase::Foreach { items, next: 0, done: BTreeMap::new() };
            cursor.active.push(activation(&format!("l{n}"), phase));
        }
        cursor
    })
}

/// Everything that may start now, one after the other, nothing ending meanwhile.
fn started(graph: &Graph, cursor: &mut Cursor) -> Vec<StepId> {
    let mut running = BTreeSet::new();
    let mut order = Vec::new();
    while let Some(next) = plan::next_to_start(graph, cursor, &running, false, NOW) {
        assert!(running.insert(next.step.clone()), "`{}` is started twice", next.step);
        order.push(next.step);
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_delta_applied_is_the_value_reduced((reducer, updates) in updates()) {
        let channel = channel(reducer.clone());
        let (mut direct, mut stored) = (Arc::new(Value::Null), Value::Null);
        for update in updates.clone() {
            let change = settle::apply(&channel, &mut direct, update).unwrap();
            stored = applied(stored, &change);
            prop_assert_eq!(&stored, &*direct);
        }
        prop_assert_eq!(stored, reduced(&reducer, Value::Null, &updates));
    }

    /// Reducing in two goes is reducing in one: what lets deltas be put together.
    #[test]
    fn updates_that_are_put_together_reduce_as_one_by_one(
        (reducer, updates) in updates(),
        cut in any::<prop::sample::Index>(),
    ) {
        let one_by_one = reduced(&reducer, Value::Null, &updates);
        let (head, tail) = updates.split_at(cut.index(updates.len()));
        // Associative: (a · b) · c = a · (b · c), with nothing as the neutral value.
        let tail_first = reduced(&reducer, Value::Null, tail);
        let head = reduced(&reducer, Value::Null, head);
        let grouped = if tail.is_empty() { head } else { reduced(&reducer, head, &[tail_first]) };
        prop_assert_eq!(grouped, one_by_one);
    }

    #[test]
    fn what_commutes_commutes((reducer, updates) in updates()) {
        prop_assume!(matches!(reducer, Reducer::Sum | Reducer::Max));
        let mut reversed = updates.clone();
        reversed.reverse();
        prop_assert_eq!(
            reduced(&reducer, Value::Null, &updates),
            reduced(&reducer, Value::Null, &reversed)
        );
    }

    #[test]
    fn a_misfit_leaves_the_value_alone(
        (reducer, updates) in updates(),
        odd in prop_oneof![Just(json!("x")), Just(json!(true)), Just(json!([7])), Just(json!({ "b": 1 }))],
    ) {
        let mut value = reduced(&reducer, Value::Null, &updates);
        let before = value.clone();
        if reducer.apply(&mut value, odd).is_err() {
            prop_assert_eq!(value, before);
        }
    }

    #[test]
    fn the_planner_starts_all_that_is_due_once_and_nothing_else(
        cursor in cursor(),
        concurrency in 1..24_u32,
        parallel in 1..4_u32,
    ) {
        let graph = graph(concurrency, parallel);
        let mut planned = cursor.clone();
        let order = started(&graph, &mut planned);
        prop_assert!(order.len() <= concurrency as usize);
        let is_due = |other: &&Activation| match other.phase {
            Phase::Due => true,
            Phase::Backoff { until } => until <= NOW,
            _ => false,
        };
        let due: Vec<StepId> =
            cursor.active.iter().filter(is_due).map(|other| other.step.clone()).collect();
        let (plain, items): (Vec<StepId>, Vec<StepId>) =
            order.into_iter().partition(|step| !step.as_str().contains('/'));
        // In the order of the cursor, and whole unless the bound is in the way.
        prop_assert_eq!(&plain[..], &due[..due.len().min(concurrency as usize)]);
        for group in cursor.active.iter().filter(|other| matches!(other.phase, Phase::Foreach { .. })) {
            let Phase::Foreach { items: list, .. } = &group.phase else { continue };
            let of_group =
                items.iter().filter(|step| step.as_str().starts_with(&format!("{}/", group.step)));
            let count = of_group.count();
            prop_assert!(count <= parallel as usize && count <= list.as_array().unwrap().len());
            let has_room = plain.len() + items.len() < concurrency as usize;
            let wanted = list.as_array().unwrap().len().min(parallel as usize);
            prop_assert!(!has_room || count == wanted, "{} of {}", count, wanted);
        }
    }

    #[test]
    fn a_plan_is_a_function_of_the_checkpoint(cursor in cursor(), concurrency in 1..12_u32) {
        let graph = graph(concurrency, 2);
        let (mut first, mut second) = (cursor.clone(), cursor);
        prop_assert_eq!(started(&graph, &mut first), started(&graph, &mut second));
        prop_assert_eq!(&first, &second);
        // Nothing is left to start, however often one asks.
        let running: BTreeSet<StepId> = first.active.iter().map(|other| other.step.clone()).collect();
        let mut again = first.clone();
        prop_assert!(plan::next_to_start(&graph, &mut again, &running, false, NOW).is_none() || again != first);
    }
}

//! Everything that is refused: its code, its place, and what would be right.

use swarm_graph::check::{self, Memory};
use swarm_graph::defect::Code;

use crate::shop::{defects, graph, load, registry};

/// A graph with ten different mistakes.
const TEN: &str = r#"dsl: 1
graph: { name: shop, version: 1.0.0 }
input: { type: ShopInput }
state:
  type: ShopState
  channels:
    findings: { reducer: apend }
policies:
  retry: { again: { max_attempts: 3, backoff: { initial: 2 sec } } }
entry: plan
nodes:
  plan:
    uses: shop/plan
    with: { issue: "${{ input.isue }}" }
    routes:
      - { when: "${{ state.plan.tasks.size() }}", to: look }
      - { to: reprot }
  look:
    uses: shop/lok
    next: plan
  idle:
    wait: { signal: worker.* }
    nxt: $end
    next: plan
  report:
    uses: shop/report
    set: { verdct: done }
    next: $end
"#;

#[test]
fn a_graph_with_ten_mistakes_is_refused_once_naming_all_ten() {
    let defects = load(TEN).unwrap_err();
    let mut codes: Vec<&str> = defects.list.iter().map(|defect| defect.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert!(codes.len() >= 10, "{codes:?}");
    insta::assert_snapshot!(defects, @r#"
error[unknown-reducer]: no reducer named `apend`
 --> g.yaml:7:26
  |
7 |     findings: { reducer: apend }
  |                          ^^^^^
  = help: perhaps `append`; known: append, longest, max, merge, merge_by_key, replace, sum

error[bad-duration]: `2 sec` is no duration
 --> g.yaml:9:58
  |
9 |   retry: { again: { max_attempts: 3, backoff: { initial: 2 sec } } }
  |                                                          ^^^^^
  = help: write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `15m`

error[unknown-field]: no field `isue` in `input`
  --> g.yaml:14:31
   |
14 |     with: { issue: "${{ input.isue }}" }
   |                               ^^^^
   = help: perhaps `issue`; known: issue, labels

error[type-mismatch]: a condition must be a boolean, found a whole number
  --> g.yaml:16:17
   |
16 |       - { when: "${{ state.plan.tasks.size() }}", to: look }
   |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error[unknown-node]: no node named `reprot`
  --> g.yaml:17:15
   |
17 |       - { to: reprot }
   |               ^^^^^^
   = help: perhaps `report`; known: $end, idle, look, plan, report

error[unknown-kind]: no node kind named `shop/lok` is registered
  --> g.yaml:19:11
   |
19 |     uses: shop/lok
   |           ^^^^^^^^
   = help: perhaps `shop/look`; known: shop/accounts, shop/judge, shop/look, shop/plan, shop/read_mail, shop/refund, shop/report, shop/say, shop/send

error[unbounded-cycle]: the cycle plan → look → plan has no bound
  --> g.yaml:20:11
   |
20 |     next: plan
   |           ^^^^
   = help: put a `max` on a route or a `catch` of it; waiting and `limits` are no bound

error[unreachable-node]: no way leads from `entry` to node `idle`
  --> g.yaml:21:3
   |
21 |   idle:
   |   ^^^^
   = help: lead a `next`, a route or a `catch` to it, or leave it out

error[unknown-key]: a node has no key `nxt`
  --> g.yaml:23:5
   |
23 |     nxt: $end
   |     ^^^
   = help: perhaps `next`; known: cache, catch, concurrency, config, defer, foreach, gate, next, pool, retry, routes, run, …

error[unknown-channel]: the state has no channel `verdct`
  --> g.yaml:27:12
   |
27 |     set: { verdct: done }
   |            ^^^^^^
   = help: perhaps `verdict`; known: facts, findings, plan, spent, tasks, verdict

`g.yaml` has 10 defects
"#);
}

/// The defects of a graph with these nodes, a line each.
fn nodes(text: &str) -> String {
    defects(&graph(text)).join("\n")
}

#[test]
fn names_that_nothing_has_are_refused_with_the_nearest_one() {
    let text = r#"
  start: { uses: shop/jugde, next: [ ende, $end ] }
  mid: { uses: shop/judge, retry: agan, set: { verdikt: x }, next: $ende }
  end: { uses: shop/judge, when_all: [ mid, strat ], next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    unknown-kind 13:18 no node kind named `shop/jugde` is registered (perhaps `shop/judge`; known: shop/accounts, shop/judge, shop/look, shop/plan, shop/read_mail, shop/refund, shop/report, shop/say, shop/send)
    unknown-node 13:38 no node named `ende` (perhaps `end`; known: $end, end, mid, start)
    join-never-met 13:38 `start` leads to the join `end`, which does not wait for it (add `start` to its `when_all`)
    key-clash 13:44 `$end` beside other targets does nothing: the run ends when all have
    unreachable-node 14:3 no way leads from `entry` to node `mid` (lead a `next`, a route or a `catch` to it, or leave it out)
    unknown-policy 14:35 no retry policy named `agan` (perhaps `again`; known: again)
    unknown-channel 14:48 the state has no channel `verdikt` (perhaps `verdict`; known: facts, findings, plan, spent, tasks, verdict)
    unknown-node 14:68 no node named `$ende` (perhaps `$end`; known: $end, end, mid, start)
    unknown-node 15:45 no node named `strat` (perhaps `start`; known: end, mid, start)
    ");
}

#[test]
fn a_node_has_exactly_one_work_and_one_exit() {
    let text = r#"
  start: { next: none }
  none: { uses: shop/judge, run: { graph: x }, wait: { timeout: 1s }, next: both }
  both: { uses: shop/judge, next: last, routes: [ { to: last } ] }
  last: { uses: shop/judge }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    one-work 13:3 node `start` has none of `uses`, `run`, `wait`, `gate` (give exactly one)
    one-work 14:29 node `none` has both `uses` and `run` (give exactly one of `uses`, `run`, `wait`, `gate`)
    one-exit 15:41 node `both` has both `next` and `routes` (give exactly one of `next`, `routes`)
    one-exit 16:3 node `last` has none of `next`, `routes` (give exactly one; a last node has `next: $end`)
    ");
}

#[test]
fn keys_that_need_another_are_refused_without_it() {
    let text = r#"
  start: { run: { graph: x }, with: { a: 1 }, next: wait }
  wait: { wait: { signal: go }, timeout: { run: 1s }, config: {}, next: gate }
  gate: { gate: { ask: "?", choices: [ a ], answer: Verdict }, retry: again, next: idle }
  idle: { wait: {}, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    key-clash 13:31 `with` is only for a node with `uses` (write it as `run: { input: … }`)
    key-clash 14:33 `timeout` means nothing for a `wait` (write it as `wait: { timeout: … }`)
    key-clash 14:55 `config` is only for a node with `uses`
    key-clash 15:29 `gate` has both `answer` and `choices` (give exactly one of `answer`, `schema`, `choices`)
    key-clash 15:64 `retry` means nothing for a `gate`
    missing-key 16:17 a `wait` that waits for nothing (give `signal`, `timeout` or both)
    ");
}

#[test]
fn unknown_and_repeated_keys_and_wrong_types_do_not_hide_each_other() {
    let text = r#"
  start:
    uses: shop/judge
    uses: shop/say
    nexd: end
    timeout: 5m
    foreach: { in: 3, as: input, max_paralel: 2, max_parallel: many, on_error: skip }
    next: [ ]
  end: [ x ]
  3: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r#"
parallel-writers 14:11 the items of `start` write channel `verdict` at the same time (give the channel a reducer that takes several, such as `append`, or join the ways first)
duplicate-key 15:5 the key `uses` is there twice
unknown-key 16:5 a node has no key `nexd` (perhaps `next`; known: cache, catch, concurrency, config, defer, foreach, gate, next, pool, retry, routes, run, …)
bad-value 17:14 `timeout` is a text, not a mapping (write a mapping with run, idle)
bad-value 18:20 expected an expression such as `"${{ state.done }}"`, found a number
bad-name 18:27 `input` cannot be the name of an item (write letters, digits or `_`, and none of input, state, run, output, answer, signal, error)
unknown-key 18:34 `foreach` has no key `max_paralel` (perhaps `max_parallel`; known: as, in, max_parallel, on_error)
bad-value 18:64 expected a whole number, found a text
bad-value 18:80 `skip` is none of the words allowed here (known: collect, fail, ignore)
bad-value 19:11 the list is empty
bad-value 20:8 a node is a list, not a mapping (write a mapping with uses, run, wait, gate, config, with, set, next, routes, foreach, catch, retry, timeout, when_all, when_any, concurrency, pool, cache, defer)
bad-name 21:3 a key must be a text, found a number (put it in quotes)
"#);
}

#[test]
fn durations_and_limits_are_checked() {
    let text = r#"
  start: { uses: shop/judge, timeout: { run: 0s, idle: 5 minutes }, next: wait }
  wait: { wait: { timeout: 90 }, routes: [ { to: wait, max: 0 }, { to: gate } ] }
  gate: { gate: { ask: "?", choices: [ a, a ], remind: 99999d }, next: loop }
  loop: { foreach: { in: "${{ [1] }}", as: i, max_parallel: 0 }, uses: shop/report, timeout: { run: 1s, idle: 2s }, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    bad-duration 13:46 the duration is zero
    bad-duration 13:56 `5 minutes` is no duration (write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `15m`)
    bad-duration 14:28 `90` is no duration (write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `15m`)
    bad-limit 14:61 `max` is 0 (write a number from 1 to 1000000)
    bad-value 15:38 `choices` must be different words, at least one
    bad-duration 15:56 `99999d` is no duration (write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `15m`)
    bad-limit 16:61 `max_parallel` is 0 (write a number from 1 to 1000)
    bad-limit 16:105 `idle` is longer than `run`, so it never ends anything
    ");
}

#[test]
fn config_is_held_against_the_kind() {
    let text = r#"
  start: { uses: shop/plan, with: { issue: x }, config: { modl: big, depth: three }, next: b }
  b: { uses: shop/plan, with: { issue: x }, config: { depth: 12 }, next: c }
  c: { uses: shop/plan, with: { issue: x }, config: { model: none }, next: d }
  d: { uses: shop/plan, with: { issue: x }, config: { model: "${{ input.issue }}" }, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    unknown-field 13:59 `config` has no field `modl` (perhaps `model`; known: depth, model)
    type-mismatch 13:77 `config.depth`: expected a whole number, found the string 'three'
    type-mismatch 14:62 `config`: 12 is greater than the maximum of 9
    bad-config 15:53 `shop/plan` does not take this `config`: no model named `none` at depth 3
    bad-value 16:62 `config` holds constants, no expressions
    ");
}

#[test]
fn with_is_held_against_the_kind() {
    let text = r#"
  start: { uses: shop/plan, next: b }
  b: { uses: shop/plan, with: { issue: 3, hints: none }, next: c }
  c: { uses: shop/plan, with: { issue: "${{ input.labels }}", hints: [ a, 1, "${{ state.spent }}" ], more: x }, next: d }
  d: { uses: shop/look, with: { task: { id: x, status: opne, cost: 1, tries: 1.5 } }, next: e }
  e: { uses: shop/look, with: { task: "${{ state.plan }}" }, next: f }
  f: { uses: shop/look, with: text, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    missing-field 13:18 `with` needs a field `issue`: a string
    type-mismatch 14:40 `with.issue`: expected a string, found a whole number
    type-mismatch 14:50 `with.hints`: expected a list of strings, found the string 'none'
    type-mismatch 15:40 `with.issue`: expected a string, found a list of strings
    type-mismatch 15:75 `with.hints`: expected a string, found a whole number
    type-mismatch 15:78 `with.hints`: expected a string, found a number
    unknown-field 15:102 `with` has no field `more` (known: hints, issue)
    type-mismatch 16:56 `with.task.status`: expected one of 'open', 'done', 'taken', found the string 'opne' (perhaps `open`; known: done, open, taken)
    type-mismatch 16:78 `with.task.tries`: expected a whole number, found a number
    missing-field 17:39 `with.task`, at `id`: no field `id` in an object with tasks, ambiguous, note
    type-mismatch 18:31 `with`: expected an object with task, found the string 'text'
    ");
}

#[test]
fn set_is_held_against_the_channel() {
    let text = r#"
  start:
    uses: shop/judge
    set:
      verdict: "${{ output.verdict.size() }}"
      findings: one
      spent: "${{ output.verdict }}"
      tasks: [ { id: x, status: "${{ 'gone' }}", cost: 1.0, tries: 0 } ]
      plan: null
    next: $end
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    type-mismatch 16:16 `set.verdict`: expected a string, found a whole number
    type-mismatch 17:17 `set.findings`: expected a list of strings, found the string 'one'
    type-mismatch 18:14 `set.spent`: expected a number, found a string
    type-mismatch 19:33 `set.tasks.status`: expected one of 'open', 'done', 'taken', found the string 'gone' (perhaps `done`; known: done, open, taken)
    ");
}

#[test]
fn implied_writes_are_held_against_the_channel() {
    let text = "dsl: 1\ngraph: { name: shop, version: 1.0.0 }\nstate:\n  channels: { verdict: { schema: { type: integer } }, findings: { reducer: sum } }\nentry: start\nnodes:\n  start: { uses: shop/judge, next: look }\n  look: { uses: shop/look, with: { task: \"${{ state.findings }}\" }, next: $end }\n";
    insta::assert_snapshot!(defects(text).join("\n"), @r"
    type-mismatch 7:18 `shop/judge` writes channel `verdict`: expected a whole number, found a string
    type-mismatch 8:17 `shop/look` writes channel `findings`: expected a number, found a list of strings
    ");
}

#[test]
fn expressions_are_checked_in_every_place() {
    let text = r#"
  start:
    foreach: { in: "${{ state.verdict }}", as: task }
    uses: shop/look
    with: { task: "${{ tsk }}" }
    set: { findings: "${{ [task.nope] }}" }
    routes:
      - { when: "${{ task.id == 'x' }}", to: gate }
      - { when: "state.verdict == 'x'", to: gate }
      - { when: "${{ state.verdict == }}", to: gate }
      - { when: "${{ output.size() > 'x' }}", to: gate }
      - { when: true, to: gate }
      - { to: gate }
    catch: [ { when: "${{ error.clas == 'io' }}", to: gate, set: { verdict: "${{ output }}" } } ]
  gate:
    gate: { ask: "${{ answer.choice }} and ${{ state.facts.x.y }} and ${{ ", answer: Verdict, context: "${{ state.plan.tusks }}" }
    routes:
      - { when: "${{ answer.choice == 'replann' }}", to: $end }
      - { when: "${{ answer.choice in ['stop', 'go'] }}", to: $end }
      - { when: "${{ signal == null }}", to: $end }
      - { when: "${{ state.tasks.exists(t, t.status == 3) }}", to: $end }
      - { when: "${{ state.tasks.exist(t, t.status == 'open') }}", to: $end }
      - { when: "${{ state.findings.contains('x') }}", to: $end }
      - { when: "${{ state.verdict.matches('(') }}", to: $end }
      - { when: "${{ state.tasks.map(t, t.tries + t.id) == [] && state.spent }}", to: $end }
      - { when: "${{ !state.plan || -state.verdict < 1 }}", to: $end }
      - { when: "${{ state.plan.tasks['x'] == 1 }}", to: $end }
      - { when: "${{ {1: 2} == {} }}", to: $end }
      - { to: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r#"
    type-mismatch 14:20 `in` must be a list, found a string
    unknown-variable 16:24 no variable `tsk` here (perhaps `task`; known: input, run, state, task)
    unknown-variable 19:22 no variable `task` here (known: input, output, run, state)
    bad-expression 20:17 `state.verdict == 'x'` is not one expression (write `${{ … }}` around all of it, and nothing outside)
    bad-expression 21:38 mismatched input 'the end' expecting expression
    type-mismatch 22:22 `>` does not join a whole number and the string 'x'
    bad-value 23:17 expected an expression such as `"${{ state.done }}"`, found a boolean
    unknown-field 25:33 no field `clas` in `error` (perhaps `class`; known: class, message, remedy, retry_after_ms)
    unknown-variable 25:82 no variable `output` here (`output` is only known in `set` and `routes`, after the node has run)
    unknown-variable 27:23 no variable `answer` here (`answer` is only known in `set` and `routes` of a node with `gate`)
    type-mismatch 27:62 a string has no fields, so no `y`
    bad-expression 27:71 `${{` without `}}` (close it, or write `$${{` for the text itself)
    unknown-field 27:120 no field `tusks` in `plan` (perhaps `tasks`; known: ambiguous, note, tasks)
    type-mismatch 29:40 `==` is always false: 'replann' is none of its values (perhaps `replan`; known: replan, stop)
    type-mismatch 30:49 'go' is none of the values on the left of `in` (known: replan, stop)
    unknown-variable 31:22 no variable `signal` here (`signal` is only known in `set` and `routes` of a node with `wait`)
    type-mismatch 32:22 `==` is always false: one of 'open', 'done', 'taken' is never a whole number
    bad-expression 33:34 no function `exist` (perhaps `exists`; known: all, bool, contains, double, dyn, endsWith, exists, exists_one, filter, has, int, join, …)
    type-mismatch 34:37 `contains` takes strings, found a list of strings (for a list write `x in list`)
    type-mismatch 35:22 `(` is no regular expression
    type-mismatch 36:22 `+` does not join a whole number and a string
    type-mismatch 36:22 `&&` needs a boolean, found a number
    type-mismatch 37:22 `!` needs a boolean, found a `Plan` or null
    type-mismatch 37:22 `-` needs a number, found a string
    type-mismatch 38:22 a list of `Task` has no fields, so no `x`
    type-mismatch 39:22 a key must be a string, found a whole number
    "#);
}

#[test]
fn a_node_out_of_reach_or_without_an_end_is_refused() {
    let text = r#"
  start: { uses: shop/judge, routes: [ { when: "${{ state.verdict == 'x' }}", to: trap }, { to: $end } ] }
  trap: { wait: { timeout: 1s }, routes: [ { to: trap, max: 3 }, { to: trap2 } ] }
  trap2: { uses: shop/judge, routes: [ { to: trap, max: 3 }, { when: "${{ state.spent > 1.0 }}", to: trap }, { to: trap } ] }
  island: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    no-way-to-end 14:3 no way leads from node `trap` to `$end` (lead one of its ways out, at last to `$end`)
    no-way-to-end 15:3 no way leads from node `trap2` to `$end` (lead one of its ways out, at last to `$end`)
    unbounded-cycle 15:46 the cycle trap → trap2 → trap has no bound (put a `max` on a route or a `catch` of it; waiting and `limits` are no bound)
    unreachable-node 16:3 no way leads from `entry` to node `island` (lead a `next`, a route or a `catch` to it, or leave it out)
    ");
}

#[test]
fn a_cycle_without_a_bound_is_refused() {
    let text = r#"
  start: { uses: shop/judge, routes: [ { when: "${{ state.verdict == 'x' }}", to: wait }, { to: start, max: 3 }, { to: $end } ] }
  wait: { wait: { signal: x }, next: gate }
  gate: { gate: { ask: "?", choices: [ a ] }, routes: [ { when: "${{ answer.choice == 'a' }}", to: wait }, { to: self } ] }
  self: { uses: shop/judge, routes: [ { to: self, max: 2 }, { to: done } ], catch: [ { to: self } ] }
  done: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    unbounded-cycle 15:100 the cycle wait → gate → wait has no bound (put a `max` on a route or a `catch` of it; waiting and `limits` are no bound)
    unbounded-cycle 16:45 the cycle self → self has no bound (put a `max` on a route or a `catch` of it; waiting and `limits` are no bound)
    ");
}

#[test]
fn a_bound_on_any_way_of_a_cycle_is_enough() {
    let text = r#"
  start: { uses: shop/judge, next: b }
  b: { uses: shop/judge, next: c }
  c: { uses: shop/judge, routes: [ { when: "${{ state.verdict == 'x' }}", to: start, max: 2 }, { to: $end } ], catch: [ { to: b, max: 1 } ] }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"");
}

#[test]
fn routes_end_with_one_that_always_holds() {
    let text = r#"
  start: { uses: shop/judge, routes: [ { when: "${{ state.verdict == 'x' }}", to: b } ] }
  b: { uses: shop/judge, routes: [ { when: "${{ state.verdict == 'x' }}", to: c }, { to: c, max: 3 } ] }
  c: { uses: shop/judge, routes: [ { to: d }, { when: "${{ state.verdict == 'x' }}", to: $end }, { to: $end } ] }
  d: { uses: shop/judge, next: $end, catch: [ { to: e }, { to: $end } ] }
  e: { uses: shop/judge, routes: [] }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    no-final-route 13:30 node `start` has no route for the case that no condition holds (add a last route without `when`, such as `{ to: $end }`)
    no-final-route 14:93 the last route has a `max`: once it is used up, no route holds (add a last route without `when` and `max`)
    dead-route 15:47 never taken: the one before it always holds (move it up, or give the other a `when`)
    dead-route 15:98 never taken: the one before it always holds (move it up, or give the other a `when`)
    dead-route 16:58 never taken: the one before it always holds (move it up, or give the other a `when`)
    no-final-route 17:26 node `e` has no route for the case that no condition holds (add a last route without `when`, such as `{ to: $end }`)
    ");
}

#[test]
fn two_writers_of_a_channel_at_once_are_refused() {
    let text = r#"
  start: { uses: shop/say, set: {}, next: [ a, b ] }
  a: { uses: shop/judge, next: a2 }
  a2: { uses: shop/say, set: { facts: { x: y }, findings: [ x ] }, next: join }
  b: { uses: shop/judge, next: b2 }
  b2: { uses: shop/say, set: { findings: [ y ], spent: 1 }, next: join }
  join: { uses: shop/judge, when_all: [ a2, b2 ], next: after }
  after: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"parallel-writers 14:14 `a` and `b` may write channel `verdict` at the same time (give the channel a reducer that takes several, such as `append`, or join the ways first)");
}

#[test]
fn without_a_join_the_rest_runs_once_for_each_way() {
    let text = r#"
  start: { uses: shop/say, set: {}, next: [ a, b ] }
  a: { uses: shop/say, set: {}, next: c }
  b: { uses: shop/say, set: {}, next: c }
  c: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"parallel-writers 16:14 `c` may run twice at the same time, and writes channel `verdict` (give the channel a reducer that takes several, such as `append`, or join the ways first)");
}

#[test]
fn items_of_a_loop_write_at_once() {
    let text = r#"
  start: { foreach: { in: "${{ state.tasks }}", as: task }, uses: shop/judge, next: b }
  b: { foreach: { in: "${{ state.tasks }}", as: task }, uses: shop/look, with: { task: "${{ task }}" }, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"parallel-writers 13:67 the items of `start` write channel `verdict` at the same time (give the channel a reducer that takes several, such as `append`, or join the ways first)");
}

#[test]
fn a_join_that_can_never_be_met_is_refused() {
    let text = r#"
  start: { uses: shop/say, set: {}, routes: [ { when: "${{ state.verdict == 'x' }}", to: a }, { to: b } ] }
  a: { uses: shop/say, set: {}, next: join }
  b: { uses: shop/say, set: {}, next: join }
  join: { uses: shop/say, set: {}, when_all: [ a, b ], next: [ c, d ] }
  c: { uses: shop/say, set: {}, next: e }
  d: { uses: shop/say, set: {}, next: join2 }
  e: { uses: shop/say, set: {}, next: join2 }
  join2: { uses: shop/say, set: {}, when_all: [ c, d, d ], next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    join-never-met 16:3 the join `join` is never met: a run comes from `a` or from `b`, never from both (leave out `when_all` if either is enough, or let a node before them lead to both)
    join-never-met 19:39 `e` leads to the join `join2`, which does not wait for it (add `e` to its `when_all`)
    join-never-met 20:49 the join `join2` is never met: `c` does not lead to it
    duplicate-name 20:55 `d` is there twice
    ");
}

#[test]
fn a_join_of_ways_one_after_the_other_is_met() {
    let text = r#"
  start: { uses: shop/say, set: {}, next: [ a, join ] }
  a: { uses: shop/say, set: {}, next: join }
  join: { uses: shop/say, set: {}, when_all: [ a, start ], next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"");
}

#[test]
fn a_join_whose_ways_exclude_each_other_after_a_fork_is_refused() {
    let text = r#"
  start: { uses: shop/say, set: {}, next: [ a, b ] }
  a: { uses: shop/say, set: {}, routes: [ { when: "${{ state.verdict == 'x' }}", to: join }, { to: c } ] }
  b: { uses: shop/say, set: {}, next: join }
  c: { uses: shop/say, set: {}, next: join }
  join: { uses: shop/say, set: {}, when_all: [ a, b, c ], next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"join-never-met 17:3 the join `join` is never met: a run comes from `a` or from `c`, never from both (leave out `when_all` if either is enough, or let a node before them lead to both)");
}

#[test]
fn what_follows_a_join_may_meet_only_what_never_joined() {
    let text = r#"
  start: { uses: shop/say, set: {}, next: [ a, b, c ] }
  a: { uses: shop/say, set: {}, next: join }
  b: { uses: shop/judge, next: join }
  c: { uses: shop/say, set: {}, next: d }
  d: { uses: shop/judge, next: $end }
  join: { uses: shop/say, set: {}, when_all: [ a, b ], next: after }
  after: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    parallel-writers 15:14 `b` and `d` may write channel `verdict` at the same time (give the channel a reducer that takes several, such as `append`, or join the ways first)
    parallel-writers 17:14 `d` and `after` may write channel `verdict` at the same time (give the channel a reducer that takes several, such as `append`, or join the ways first)
    ");
}

#[test]
fn a_fork_that_goes_round_may_meet_itself() {
    let text = r#"
  start: { uses: shop/say, set: {}, next: [ a, b ] }
  a: { uses: shop/say, set: {}, routes: [ { to: start, max: 2 }, { to: $end } ] }
  b: { uses: shop/judge, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"parallel-writers 15:14 `b` may run twice at the same time, and writes channel `verdict` (give the channel a reducer that takes several, such as `append`, or join the ways first)");
}

#[test]
fn an_output_that_goes_nowhere_is_a_warning() {
    let text = r#"
  start: { uses: shop/say, next: b }
  b: { uses: shop/say, set: { verdict: "${{ output.said }}" }, next: c }
  c: { uses: shop/report, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"warning unused-output 13:18 nothing of the output of `shop/say` is written: no channel is named `said` (say with `set` where it goes, or `set: {}` when only the effect counts)");
}

#[test]
fn a_bound_above_the_limit_is_a_warning() {
    let text = r#"
  start: { uses: shop/judge, routes: [ { to: start, max: 200 }, { to: $end } ] }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @"warning bound-above-limit 13:40 `max: 200` is never reached: `limits.visits_per_node` is 25 (raise the limit, or lower the `max`)");
}

#[test]
fn requests_of_a_gate_have_the_form_of_one() {
    let text = r#"
  start:
    gate:
      reason: approvel
      ask: [ x ]
      choices: [ a ]
      requested_input:
        - { kind: secret, name: TOKEN, create_at: here, scopes: [ a ], paste_into: there }
        - { kind: secrt, name: TOKEN }
        - { kind: text }
        - { kind: decision, question: "${{ input.issue }}", choices: "${{ input.issue }}" }
    next: $end
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
    bad-value 15:15 `approvel` is none of the words allowed here (perhaps `approval`; known: ambiguous_spec, approval, budget, decision, destructive_change, effect_in_doubt, missing_secret, model_unusable, sandbox_unavailable, tests_failing)
    type-mismatch 16:12 `ask`: expected a string, found a list
    type-mismatch 20:19 `requested_input.kind`: expected one of 'secret', 'permission', 'decision', 'text', found the string 'secrt' (perhaps `secret`; known: decision, permission, secret, text)
    missing-field 21:11 `requested_input` needs a field `question`: a string
    type-mismatch 22:70 `requested_input.choices`: expected a list of strings, found a string
    ");
}

#[test]
fn names_have_a_form() {
    let text = r#"
  start: { run: { graph: "a graph", queue: "" }, next: the end }
  the end: { foreach: { in: "${{ [1] }}", as: a-b }, wait: { signal: "a b" }, next: $end }
"#;
    insta::assert_snapshot!(nodes(text.trim_start_matches('\n')), @r"
bad-name 13:26 `a graph` is not a graph name: start with a letter, then letters, digits, `_` or `-`, at most 64
bad-name 13:44 `` is not a queue name: start with a letter, then letters, digits, `_` or `-`, at most 64
bad-name 14:3 `the end` cannot be the name of a node (start with a letter, then letters, digits, `_` or `-`, at most 64)
bad-name 14:47 `a-b` cannot be the name of an item (write letters, digits or `_`, and none of input, state, run, output, answer, signal, error)
bad-name 14:70 `a b` cannot be the name of a signal (write words joined by dots, such as `worker.finished`; a trailing `*` stands for any ending)
");
}

#[test]
fn versions_limits_and_names_of_a_graph_are_checked() {
    let text = r#"
dsl: 2
graph: { name: my shop, version: 1.0 }
limits: { supersteps: 0, visits_per_node: -1, concurrency: 5000, more: 1 }
policies:
  retry:
    a: { max_attempts: 0, backoff: { initial: 5s, max: 1s, factor: 0.5 } }
    none: { max_attempts: 3, when: "${{ state.x }}" }
    b.c.d: { backoff: {} }
  budget:
    free: { usd: 0, tokens: 0 }
    empty: {}
defaults: { retry: again, budget: fre }
entry: strat
nodes:
  start: { wait: { timeout: 1s }, next: $end }
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @r"
bad-version 1:6 version 2 of the format is not known (this program reads version 1)
bad-name 2:16 `my shop` is not a graph name: start with a letter, then letters, digits, `_` or `-`, at most 64
bad-value 2:34 expected a text, found a number (put it in quotes)
bad-limit 3:23 `supersteps` is 0 (write a number from 1 to 1000000)
bad-limit 3:43 expected a whole number of at least 0, found -1
bad-limit 3:60 `concurrency` is 5000 (write a number from 1 to 1000)
unknown-key 3:66 `limits` has no key `more` (known: concurrency, pools, supersteps, visits_per_node)
bad-limit 6:24 `max_attempts` is 0 (write a number from 1 to 100)
bad-limit 6:56 `max` is shorter than `initial`
bad-limit 6:68 a `factor` of 0.5 makes waits shorter or endless (write a number from 1 to 100)
bad-name 7:5 `none` cannot be the name of a policy (write letters, digits, `_` or `-`, and not `none`)
unknown-variable 7:41 no variable `state` here (known: error)
bad-name 8:5 `b.c.d` cannot be the name of a policy (write letters, digits, `_` or `-`, and not `none`)
missing-key 8:12 a retry policy has no `max_attempts`
bad-limit 10:18 a budget of 0 US dollars allows nothing
bad-limit 10:29 a budget of no tokens allows nothing
missing-key 11:12 a budget without any bound (give at least one of `usd`, `tokens`, `wall`)
unknown-policy 12:20 no retry policy named `again` (known: a, b.c.d, none)
unknown-policy 12:35 no budget policy named `fre` (perhaps `free`; known: empty, free)
unknown-node 13:8 no node named `strat` (perhaps `start`; known: start)
");
}

#[test]
fn types_channels_and_reducers_are_checked() {
    let text = r#"
dsl: 1
graph: { name: shop, version: 1.2.3 }
input: { type: ShopInputs, schema: {} }
output: { value: "${{ state.verdict + 1 }}" }
state:
  type: ShopState
  channels:
    plans: { reducer: replace }
    plan: { reducer: append, key: id }
    verdict: { reducer: merge, schema: { type: string } }
    spent: { reducer: summ }
    tasks: { reducer: merge_by_key, key: ident, default: [ { id: 1 } ] }
    facts: { reducer: merge_by_key }
    extra: { reducer: max, schema: { type: strin } }
    other: { reducer: sum, schema: { type: string } }
    more: { schema: { type: array, items: { type: integer, minimum: 1 } }, default: [ 0 ] }
entry: start
nodes:
  start: { wait: { timeout: 1s }, set: { more: [ 0 ] }, next: $end }
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @r#"
    unknown-type 3:16 no type named `ShopInputs` is registered (perhaps `ShopInput`; known: ShopInput, ShopState, Verdict)
    key-clash 3:28 `input` has both `type` and `schema` (give exactly one of `type`, `schema`)
    key-clash 4:9 `output` has none of `type`, `schema` (give exactly one)
    type-mismatch 4:23 `+` does not join a string and a whole number
    unknown-channel 8:5 the state has no channel `plans` (perhaps `plan`; known: facts, findings, plan, spent, tasks, verdict; a further channel needs a `schema`)
    reducer-mismatch 9:22 `append` is for a list; the channel is a `Plan` or null
    key-clash 9:30 `key` is only for the reducer `merge_by_key`
    reducer-mismatch 10:25 `merge` is for an object; the channel is a string
    key-clash 10:32 the state's type already has the schema of `verdict`
    unknown-reducer 11:23 no reducer named `summ` (perhaps `sum`; known: append, longest, max, merge, merge_by_key, replace, sum)
    unknown-field 12:42 the items of the channel have no field `ident`
    missing-field 12:60 `default` needs a field `status`: one of 'open', 'done', 'taken'
    missing-field 12:60 `default` needs a field `cost`: a number
    missing-field 12:60 `default` needs a field `tries`: a whole number
    type-mismatch 12:66 `default.id`: expected a string, found a whole number
    missing-key 13:23 `merge_by_key` needs the `key` that identifies an item
    bad-schema 14:44 no JSON schema: there is no type `strin` (perhaps `string`; known: array, boolean, integer, null, number, object, string)
    reducer-mismatch 15:23 `sum` is for a number; the channel is a string
    type-mismatch 16:87 `default`: 0 is less than the minimum of 1
    "#);
}

#[test]
fn output_is_held_against_its_schema() {
    let text = r#"
dsl: 1
graph: { name: shop, version: 1.2.3 }
output:
  schema: { type: object, properties: { a: { type: string }, b: { type: integer } }, required: [ a, b ] }
  value: { a: 3, c: 1 }
state: { schema: { type: object, properties: { n: { type: integer } } } }
entry: start
nodes:
  start: { wait: { timeout: 1s }, set: { n: 1.5 }, next: $end }
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @r"
    missing-field 5:10 `output.value` needs a field `b`: a whole number
    type-mismatch 5:15 `output.value.a`: expected a string, found a whole number
    unknown-field 5:18 `output.value` has no field `c` (perhaps `a`; known: a, b)
    type-mismatch 9:45 `set.n`: expected a whole number, found a number
    ");
}

#[test]
fn what_must_be_there_is_named() {
    let text = r#"
graph: { name: shop }
nodes: {}
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @r"
    missing-key 1:1 a graph has no `dsl`
    missing-key 1:1 a graph has no `entry`
    missing-key 1:8 `graph` has no `version`
    missing-key 2:8 a graph needs at least one node
    ");
}

#[test]
fn a_type_that_is_not_known_is_one_defect() {
    let text = r#"
dsl: 1
graph: { name: shop, version: 1.2.3 }
state: { type: ShopStat, channels: { x: { reducer: append } } }
entry: start
nodes:
  start: { wait: { timeout: 1s }, set: { anything: 1 }, routes: [ { when: "${{ state.some.thing }}", to: $end }, { to: $end } ] }
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @"unknown-type 3:16 no type named `ShopStat` is registered (perhaps `ShopState`; known: ShopInput, ShopState, Verdict)");
}

#[test]
fn a_text_that_is_no_yaml_is_one_defect_with_its_place() {
    let text = r#"
dsl: 1
graph: { name: shop, version: 1.0.0
entry: start
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @"syntax 3:6 not a graph's YAML: while parsing a flow mapping, did not find expected ',' or '}'");
}

#[test]
fn yaml_that_is_no_graph_is_one_defect() {
    let text = r#"
- a
- b
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @"bad-value 1:1 a graph is a list, not a mapping (write a mapping with dsl, graph, imports, input, output, state, signals, policies, defaults, limits, durability, entry, nodes, graphs)");
}

#[test]
fn an_alias_bomb_is_one_defect() {
    let text = r#"
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]
f: [*e, *e, *e, *e, *e, *e, *e, *e, *e]
"#;
    insta::assert_snapshot!(defects(text.trim_start_matches('\n')).join("\n"), @"syntax 5:12 not a graph's YAML: YAML document too large or too complex: total_replayed_events=20001 > 20000");
}

#[test]
fn defects_in_imported_files_are_named_with_their_file() {
    let sources = Memory::one(
        "graphs/g.yaml",
        "dsl: 1\ngraph: { name: shop, version: 1.0.0 }\nimports:\n  - { path: ./p.yaml, as: org }\n  - { path: ../up.yaml, as: up }\n  - { path: /etc/passwd, as: etc }\n  - { path: no.yaml, as: no }\n  - { path: broken.yaml, as: org }\n  - { path: broken.yaml, as: broken }\ndefaults: { retry: org.trans }\nentry: a\nnodes:\n  a: { wait: { timeout: 1s }, next: $end }\n",
    )
    .with("graphs/p.yaml", "dsl: 1\npolicies:\n  retry: { transient: { max_attempts: 0 } }\nnodes: {}\n")
    .with("graphs/broken.yaml", "dsl: [\n");
    let defects = check::load(&sources, "graphs/g.yaml", &registry()).unwrap_err();
    insta::assert_snapshot!(defects, @r"
    error[bad-import]: `../up.yaml` is not a file beside this one or below
     --> graphs/g.yaml:5:13
      |
    5 |   - { path: ../up.yaml, as: up }
      |             ^^^^^^^^^^
      = help: write a path from this file on, such as `./policies.yaml`

    error[bad-import]: `/etc/passwd` is not a file beside this one or below
     --> graphs/g.yaml:6:13
      |
    6 |   - { path: /etc/passwd, as: etc }
      |             ^^^^^^^^^^^
      = help: write a path from this file on, such as `./policies.yaml`

    error[unreadable-file]: `no.yaml` cannot be read: no such file
     --> graphs/g.yaml:7:13
      |
    7 |   - { path: no.yaml, as: no }
      |             ^^^^^^^

    error[duplicate-name]: two imports are named `org`
     --> graphs/g.yaml:8:30
      |
    8 |   - { path: broken.yaml, as: org }
      |                              ^^^

    error[unknown-policy]: no retry policy named `org.trans`
      --> graphs/g.yaml:10:20
       |
    10 | defaults: { retry: org.trans }
       |                    ^^^^^^^^^
       = help: known: org.transient

    error[bad-limit]: `max_attempts` is 0
     --> graphs/p.yaml:3:39
      |
    3 |   retry: { transient: { max_attempts: 0 } }
      |                                       ^
      = help: write a number from 1 to 100

    error[unknown-key]: a file of policies has no key `nodes`
     --> graphs/p.yaml:4:1
      |
    4 | nodes: {}
      | ^^^^^
      = help: known: dsl, policies

    error[syntax]: not a graph's YAML: unclosed bracket '['
     --> graphs/broken.yaml:1:6
      |
    1 | dsl: [
      |      ^

    `graphs/g.yaml` has 8 defects
    ");
}

#[test]
fn a_defect_is_data_too() {
    let defects = load("dsl: 1\ngraph: { name: a, version: 1.0.0 }\nentry: b\nnodes:\n  a: { wait: { timeout: 1s }, next: $end }\n").unwrap_err();
    assert_eq!(
        serde_json::to_value(&defects.list).unwrap(),
        serde_json::json!([{
            "code": "unknown-node", "severity": "error", "file": "g.yaml", "line": 3, "column": 8,
            "message": "no node named `b`", "help": "perhaps `a`; known: a"
        }])
    );
}

#[test]
fn every_code_is_told_apart_and_explained() {
    let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
    assert!(Code::ALL.iter().all(|code| code.meaning().ends_with('.')));
}

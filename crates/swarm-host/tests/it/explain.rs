//! `graph explain`: the shipped graphs in words, and the pages of defects.

use crate::bench::Bench;

async fn explained(what: &str) -> String {
    let done = Bench::new().run(&["graph", "explain", what]).await;
    assert_eq!(done.code, 0, "{done:?}");
    done.stdout
}

#[tokio::test]
async fn the_operations_graph_is_told_in_words() {
    insta::assert_snapshot!(explained("ops").await.trim(), @r#"
Graph `ops`, version 1.0.0

It is given `repo`, `issue` and `change`, and begins with `look`.
When nothing of it is left to do, it returns `outcome`, `merge_sha` and `reasons`.

What it does:

1. `look` runs `swarm/decide`.
   - If `state.step == 'merge'`: `merge`, at most 20 times.
   - Else, if `state.step == 'approval'`: `approval`, at most 20 times.
   - Else, if `state.step == 'wait'`: `pause`, at most 240 times.
   - Otherwise the end.
2. `pause` waits 30s.
   - Then `look`.
3. `approval` runs `swarm/approval`.
   - If `output.choice == 'approve'`: `look`.
   - Otherwise the end.
4. `merge` runs `swarm/merge`.
   - Then the end.
   - If it fails with `error.class in ['gate_closed', 'head_moved', 'base_moved']`: `look`, at most 10 times.
   - If it fails with `error.class in ['not_mergeable', 'refused', 'denied']`: the end.

Unless said otherwise, a step is tried up to 6 times when a failure may pass by itself, with 2s to 2m between; it may take 15m at a time and be silent for 10m.

Where it goes round, and how often in one run at most:

- `look` → `merge` → `look`: at most 20 times.
- `look` → `approval` → `look`: at most 20 times.
- `look` → `pause` → `look`: at most 240 times.
- `merge` → `look` → `merge` after a failure: at most 10 times.

Who is asked, and when:

- The graph itself asks nobody.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- Nothing: one step after the other.

What it may cost:

- It has no budget of its own; that of the run that started it holds.
- It fails after 2000 supersteps, or when a node is to run for more than the 500th time.
"#);
}

#[tokio::test]
async fn the_delivery_graph_is_told_in_words() {
    insta::assert_snapshot!(explained("deliver").await.trim(), @r#"
Graph `deliver`, version 1.0.0

It is given `repo`, `issue`, `plan` and `task`, and begins with `dev`.
When nothing of it is left to do, it returns `task`, `status`, `pr`, `url`, `branch`, `merge_sha` and `reasons`.

What it does:

1. `dev` starts a run of graph `dev` on queue `dev` and waits for its end.
   - If `state.outcome == 'proposed'`: `review`.
   - Otherwise the end.
   - If it fails with `!(error.class in ['stopped', 'budget', 'cancelled'])`: `trouble`, at most 5 times.
2. `review` starts a run of graph `reviewer` on queue `reviewer` and waits for its end.
   - If `state.verdict == 'changes_requested'`: `dev`, at most 2 times.
   - Otherwise `ops`.
   - If it fails with `!(error.class in ['stopped', 'budget', 'cancelled'])`: `trouble`, at most 5 times.
3. `ops` starts a run of graph `ops` on queue `ops` and waits for its end.
   - If `state.gate == 'merged' || state.gate == 'stopped'`: the end.
   - Else, if `state.gate == 'changes_requested'`: `dev`, at most 10 times.
   - Else, if `state.gate == 'outdated'`: `dev`, at most 10 times.
   - Else, if `state.gate == 'head_moved'`: `review`, at most 10 times.
   - Otherwise `stuck`.
   - If it fails with `!(error.class in ['stopped', 'budget', 'cancelled'])`: `trouble`, at most 5 times.
4. `stuck` asks a person (decision needed).
   - If `answer.choice == 'retry'`: `ops`, at most 10 times.
   - Else, if `answer.choice == 'develop'`: `dev`, at most 10 times.
   - Otherwise the end.
5. `trouble` asks a person (decision needed).
   - If `answer.choice == 'retry' && state.at == 'dev'`: `dev`, at most 5 times.
   - Else, if `answer.choice == 'retry' && state.at == 'review'`: `review`, at most 5 times.
   - Else, if `answer.choice == 'retry'`: `ops`, at most 5 times.
   - Otherwise the end.

Unless said otherwise, a step is tried up to 6 times when a failure may pass by itself, with 2s to 2m between.

Where it goes round, and how often in one run at most:

- `dev` → `trouble` → `dev` after a failure: at most 5 times.
- `review` → `dev` → `review`: at most 2 times.
- `review` → `trouble` → `review` after a failure: at most 5 times.
- `ops` → `dev` → `review` → `ops`: at most 10 times.
- `ops` → `review` → `ops`: at most 10 times.
- `ops` → `trouble` → `ops` after a failure: at most 5 times.
- `stuck` → `ops` → `stuck`: at most 10 times.
- `stuck` → `dev` → `review` → `ops` → `stuck`: at most 10 times.
- `trouble` → `dev` → `trouble`: at most 5 times.
- `trouble` → `review` → `trouble`: at most 5 times.
- `trouble` → `ops` → `trouble`: at most 5 times.

Who is asked, and when:

- At `stuck`, a person (decision needed), after `ops`: “Pull request #‹string(state.change.pr)› cannot be merged: ‹state.reasons.join('; ')›. `retry` looks again, `develop` hands it back to the developer with your comment, `stop` leaves it.” Choices: `retry`, `develop` or `stop`. Reminded after 1d.
- At `trouble`, a person (decision needed), after `dev` failed, `review` failed or `ops` failed: “The work broke off in `‹state.at›`: ‹state.reasons.join('; ')›. `retry` begins that part again, `stop` ends the task and keeps what there is.” Choices: `retry` or `stop`. Reminded after 1d.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- Nothing: one step after the other.

What it may cost:

- It has no budget of its own; that of the run that started it holds.
- It fails after 200 supersteps, or when a node is to run for more than the 40th time.
"#);
}

#[tokio::test]
async fn the_manager_graph_is_told_in_words() {
    insta::assert_snapshot!(explained("manager").await.trim(), @r#"
Graph `manager`, version 1.0.0

It is given `repo` and `issue`, and begins with `intake`.
When nothing of it is left to do, it returns `outcome`, `repo`, `issue`, `tasks`, `pr`, `branch`, `merge_sha` and `reasons`.

What it does:

1. `intake` runs `swarm/intake`.
   - Then `plan`.
2. `plan` runs `swarm/plan`.
   - If `state.plan.ambiguous`: `clarify`, at most 5 times.
   - Else, if `state.plan.ambiguous`: `unclear`.
   - Otherwise `assign`.
   - If it fails with `error.class == 'invalid_plan'`: `plan` again, at most 2 times.
   - If it fails with `!(error.class in ['stopped', 'budget', 'cancelled'])`: `unplanned`, at most 10 times.
3. `clarify` asks a person (ambiguous specification).
   - Then `plan`.
4. `unplanned` asks a person (model answers unusable).
   - If `answer.choice == 'retry'`: `plan`, at most 10 times.
   - Otherwise `unclear`.
5. `unclear` runs `swarm/report`.
   - Then the end.
6. `assign` starts a run of graph `deliver` on queue `manager` and does not wait for it, once for each `task` in `state.plan.tasks`; one that fails is noted, and the others go on.
   - Then `monitor`.
7. `monitor` waits for the signal `worker.*`.
   - Then `track`.
8. `track` runs `swarm/track`.
   - If `output.news == 'question'`: `escalate`, at most 2000 times.
   - Else, if `state.tasks.exists(t, t.status == 'open' || t.status == 'blocked')`: `monitor`, at most 4000 times.
   - Otherwise `report`.
9. `escalate` runs `swarm/escalate`.
   - Then `monitor`.
   - If it fails: `monitor`, at most 2000 times.
10. `report` runs `swarm/report`.
   - Then the end.

Unless said otherwise, a step is tried up to 6 times when a failure may pass by itself, with 2s to 2m between; it may take 30m at a time and be silent for 10m.

Where it goes round, and how often in one run at most:

- `plan` → `clarify` → `plan`: at most 5 times.
- `plan` → `plan` after a failure: at most 2 times.
- `plan` → `unplanned` → `plan` after a failure: at most 10 times.
- `unplanned` → `plan` → `unplanned`: at most 10 times.
- `track` → `escalate` → `monitor` → `track`: at most 2000 times.
- `track` → `monitor` → `track`: at most 4000 times.
- `escalate` → `monitor` → `track` → `escalate` after a failure: at most 2000 times.

Who is asked, and when:

- At `clarify`, a person (ambiguous specification), after `plan`: “The issue can be read in more than one way. ‹state.plan.questions.join(' ')›” The answer has `comment`. Reminded after 1d.
- At `unplanned`, a person (model answers unusable), after `plan` failed: “There is no usable plan: ‹state.problem›. `retry` asks the manager's model again, with your comment as advice; `stop` ends the run.” Choices: `retry` or `stop`. Reminded after 1d.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- The items of `assign`, up to 4 at once.
- At most 8 steps of a run in all.

What it may cost:

- At most 25.00 US dollars and 8000000 model tokens, with all runs that it starts. Before it goes beyond, a person is asked.
- It fails after 20000 supersteps, or when a node is to run for more than the 5000th time.
"#);
}

#[tokio::test]
async fn the_developer_graph_is_told_in_words() {
    insta::assert_snapshot!(explained("dev").await.trim(), @r#"
Graph `dev`, version 1.0.0

It is given `repo`, `issue`, `plan`, `task`, perhaps `workspace`, perhaps `round`, perhaps `change`, perhaps `feedback`, perhaps `update` and perhaps `list`, and begins with `checkout`.
When nothing of it is left to do, it returns `outcome`, `change`, `list` and `reasons`.

What it does:

1. `checkout` runs `swarm/checkout`.
   - Then `setup`.
2. `setup` runs `swarm/setup`.
   - Then `baseline`.
3. `baseline` runs `swarm/checks`.
   - If `input.update && state.conflicts.size() == 0`: `verify`.
   - Otherwise `implement`.
4. `implement` runs `swarm/implement`.
   - If `output.ended == 'finished'`: `verify`.
   - Otherwise the end.
   - If it fails with `!(error.class in ['stopped', 'budget', 'cancelled'])`: `trouble`, at most 10 times.
   - It may take 6h at a time and be silent for 30m.
5. `verify` runs `swarm/checks`.
   - If `state.after.verdict == 'passed' || state.after.verdict == 'none'`: `inspect`.
   - Else, if `state.after.verdict == 'failed'`: `implement`, at most 2 times.
   - Otherwise `tests_failing`.
6. `tests_failing` asks a person (tests keep failing).
   - If `answer.choice == 'retry'`: `implement`, at most 10 times.
   - Otherwise the end.
7. `inspect` runs `swarm/inspect`.
   - If `state.inspection.verdict == 'allowed'`: `commit`.
   - Else, if `state.inspection.verdict == 'needs_person'`: `destructive`, at most 10 times.
   - Else, if `state.inspection.verdict == 'refused'`: `implement`, at most 2 times.
   - Otherwise `not_usable`.
8. `destructive` asks a person (destructive change).
   - If `answer.choice == 'allow'`: `commit`.
   - Else, if `answer.choice == 'revise'`: `implement`, at most 10 times.
   - Otherwise the end.
9. `not_usable` asks a person (decision needed).
   - If `answer.choice == 'retry'`: `implement`, at most 10 times.
   - Otherwise the end.
10. `trouble` asks a person (decision needed).
   - If `answer.choice == 'retry'`: `implement`, at most 10 times.
   - Otherwise the end.
11. `commit` runs `swarm/commit`.
   - Then `push`.
12. `push` runs `swarm/push`.
   - Then `open_pr`.
   - If it fails: `not_pushed`, at most 10 times.
13. `not_pushed` asks a person (decision needed).
   - If `answer.choice == 'retry'`: `push`, at most 10 times.
   - Otherwise the end.
14. `open_pr` runs `swarm/open_pr`.
   - Then the end.

Unless said otherwise, a step is tried up to 6 times when a failure may pass by itself, with 2s to 2m between; it may take 1h at a time and be silent for 30m.

Where it goes round, and how often in one run at most:

- `implement` → `trouble` → `implement` after a failure: at most 10 times.
- `verify` → `implement` → `verify`: at most 2 times.
- `tests_failing` → `implement` → `verify` → `tests_failing`: at most 10 times.
- `inspect` → `destructive` → `implement` → `verify` → `inspect`: at most 10 times.
- `inspect` → `implement` → `verify` → `inspect`: at most 2 times.
- `destructive` → `implement` → `verify` → `inspect` → `destructive`: at most 10 times.
- `not_usable` → `implement` → `verify` → `inspect` → `not_usable`: at most 10 times.
- `trouble` → `implement` → `trouble`: at most 10 times.
- `push` → `not_pushed` → `push` after a failure: at most 10 times.
- `not_pushed` → `push` → `not_pushed`: at most 10 times.

Who is asked, and when:

- At `tests_failing`, a person (tests keep failing), after `verify`: “The tests do not pass, and the developer's retries are used up: ‹state.after.problems.join('; ')›. `retry` lets the developer try again with your comment as advice, `stop` ends the task and keeps the workspace.” Choices: `retry` or `stop`. Reminded after 1d.
- At `destructive`, a person (destructive change), after `inspect`: “The change needs a person before it is pushed: ‹state.inspection.findings.join('; ')›. `allow` lets exactly this change pass, `revise` hands your comment to the developer, `stop` ends the task and keeps the workspace.” Choices: `allow`, `revise` or `stop`. Reminded after 1d.
- At `not_usable`, a person (decision needed), after `inspect`: “The developer made no change that can be used: ‹state.inspection.findings.join('; ')›. `retry` lets it try again with your comment as advice, `stop` ends the task and keeps the workspace.” Choices: `retry` or `stop`. Reminded after 1d.
- At `trouble`, a person (decision needed), after `implement` failed: “The developer cannot go on: ‹state.reasons.join('; ')›. `retry` tries again, `stop` ends the task and keeps the workspace.” Choices: `retry` or `stop`. Reminded after 1d.
- At `not_pushed`, a person (decision needed), after `push` failed: “The branch cannot be pushed: ‹state.reasons.join('; ')›. `retry` tries again once you have mended that, `stop` ends the task and keeps the workspace.” Choices: `retry` or `stop`. Reminded after 1d.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- Nothing: one step after the other.

What it may cost:

- It has no budget of its own; that of the run that started it holds.
- It fails after 500 supersteps, or when a node is to run for more than the 40th time.
"#);
}

#[tokio::test]
async fn the_reviewer_graph_is_told_in_words() {
    insta::assert_snapshot!(explained("reviewer").await.trim(), @r#"
Graph `reviewer`, version 1.0.0

It is given `repo`, `issue`, `task`, `change`, perhaps `list` and perhaps `round`, and begins with `checkout`.
When nothing of it is left to do, it returns `verdict`, `change` and `findings`.

What it does:

1. `checkout` runs `swarm/checkout`.
   - Then `setup`.
2. `setup` runs `swarm/setup`.
   - Then `checks`.
3. `checks` runs `swarm/checks`.
   - Then `review`.
4. `review` runs `swarm/review`.
   - Then `submit`.
   - If it fails with `error.class == 'invalid_review'`: `review` again, at most 2 times.
   - If it fails with `!(error.class in ['stopped', 'budget', 'cancelled'])`: `unusable`, at most 10 times.
5. `unusable` asks a person (model answers unusable).
   - If `answer.choice == 'retry'`: `review`, at most 10 times.
   - Otherwise `submit`.
6. `submit` runs `swarm/submit_review`.
   - Then the end.

Unless said otherwise, a step is tried up to 6 times when a failure may pass by itself, with 2s to 2m between; it may take 1h at a time and be silent for 30m.

Where it goes round, and how often in one run at most:

- `review` → `review` after a failure: at most 2 times.
- `review` → `unusable` → `review` after a failure: at most 10 times.
- `unusable` → `review` → `unusable`: at most 10 times.

Who is asked, and when:

- At `unusable`, a person (model answers unusable), after `review` failed: “There is no usable review: ‹state.problem›. `retry` asks the reviewer's model again; `stop` submits a review of tests and linters only.” Choices: `retry` or `stop`. Reminded after 1d.
- The code behind a node may ask more, and a person is asked about an effect that a crash left in doubt.

What runs at the same time:

- Nothing: one step after the other.

What it may cost:

- It has no budget of its own; that of the run that started it holds.
- It fails after 500 supersteps, or when a node is to run for more than the 25th time.
"#);
}

#[tokio::test]
async fn all_graphs_are_told_when_none_is_named() {
    let done = Bench::new().run(&["graph", "explain"]).await;
    for name in ["deliver", "dev", "manager", "ops", "reviewer"] {
        assert!(done.stdout.contains(&format!("Graph `{name}`, version ")), "{done:?}");
    }
}

#[tokio::test]
async fn a_code_is_told_by_its_page_and_a_failed_check_says_so() {
    let bench = Bench::new();
    bench.write(
        "wrong.yaml",
        "dsl: 1\ngraph: { name: wrong, version: 1.0.0 }\nentry: no\nnodes: { a: { wait: { timeout: 1s }, next: $end } }\n",
    );
    let checked = bench.run(&["graph", "check", "wrong.yaml"]).await;
    assert!(
        checked.stdout.ends_with("such as `swarm-host graph explain unknown-node`\n"),
        "{checked:?}"
    );
    assert!(explained("unknown-node").await.starts_with("# unknown-node\n"));
}

#[tokio::test]
async fn neither_a_code_nor_a_graph_is_refused_with_what_there_is() {
    let done = Bench::new().run(&["graph", "explain", "nothing"]).await;
    assert_eq!(done.code, 2, "{done:?}");
    insta::assert_snapshot!(done.stderr.trim(), @"error: no graph named `nothing`, and no such file; known: deliver, dev, manager, ops, reviewer");
}

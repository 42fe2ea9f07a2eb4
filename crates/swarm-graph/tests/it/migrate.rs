//! Moving live runs to another version of their graph: nothing that was asked, begun or paid for
//! is lost, and whatever has no place is refused with its remedy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm_core::id::{BlockId, ChannelName, NodeName, WorkerId};
use swarm_core::port::store::Store;
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;
use swarm_graph::archive::ForkOptions;
use swarm_graph::diff;
use swarm_graph::engine::{Control, Driven};
use swarm_graph::expr::Expr;
use swarm_graph::graph::Graph;
use swarm_graph::migrate::{Mapping, Migration, Obstacle};
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{Death, MortalStore, VirtualClock};

use crate::rig::{Rig, World, graph, graph_named, id, output, registry};

const ASKS: &str = r#"
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: ask }
  ask:
    gate: { ask: "Go on?", answer: Choice }
    set: { log: "${{ [answer.choice] }}" }
    routes: [ { when: "${{ answer.choice == 'again' }}", to: ask, max: 2 }, { to: last } ]
  last: { uses: test/deed, with: { name: last }, next: $end }
"#;

/// A world, and a rig for each version of the graph on one store.
struct Versions {
    world: World,
    store: Arc<dyn Store>,
    clock: VirtualClock,
}

impl Versions {
    fn new(store: Arc<dyn Store>) -> Self {
        let clock = VirtualClock::at(Timestamp(1_800_000_000_000));
        Self { world: World::default(), store, clock }
    }

    fn memory() -> Self {
        Self::new(Arc::new(MemoryStore::new()))
    }

    fn graph(&self, text: &str) -> Graph {
        graph(text, &registry(&self.world))
    }

    fn rig(&self, text: &str) -> Rig {
        self.rig_on(self.store.clone(), text)
    }

    fn rig_on(&self, store: Arc<dyn Store>, text: &str) -> Rig {
        let registry = registry(&self.world);
        let child = "entry: deed\nnodes:\n  deed: { uses: test/deed, with: { name: \"${{ input.name }}\" }, next: gate }\n  gate: { gate: { ask: \"Child?\", answer: Choice }, next: $end }\n";
        let graphs = vec![graph(text, &registry), graph_named("child", child, &registry)];
        Rig::on_clock(store, graphs, registry, self.clock)
    }

    /// Starts a run of this version and works until it rests.
    async fn begun(text: &str) -> Self {
        let versions = Self::memory();
        versions.begin(text).await;
        versions
    }

    async fn begin(&self, text: &str) {
        let rig = self.rig(text);
        rig.start("r", "main", json!({})).await.unwrap();
        rig.work().await.unwrap();
    }

    async fn migrate(&self, text: &str, mapping: &Mapping) -> Migration {
        migrate(&self.rig(text), text, mapping).await.unwrap()
    }

    async fn obstacles(&self, text: &str, mapping: &Mapping) -> String {
        match self.migrate(text, mapping).await {
            Migration::Refused(obstacles) => said(&obstacles),
            other => panic!("{other:?}"),
        }
    }
}

async fn migrate(rig: &Rig, text: &str, mapping: &Mapping) -> Result<Migration, String> {
    let to = graph(text, rig.engine.library().registry());
    let worker = WorkerId::new("mover").unwrap();
    rig.engine.migrate(&id("r"), &to, mapping, &worker, "ada").await.map_err(|e| e.to_string())
}

fn said(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|one| format!("{} ({})\n", one.what, one.remedy)).collect()
}

fn rename(pairs: &[(&str, &str)]) -> Mapping {
    let name = |text: &str| NodeName::new(text).unwrap();
    let rename = pairs.iter().map(|(from, to)| (name(from), name(to))).collect();
    Mapping { rename, ..Mapping::default() }
}

fn channel(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

/// The graph with its question under another name.
fn renamed() -> String {
    ASKS.replace("ask:\n", "confirm:\n")
        .replace("next: ask", "next: confirm")
        .replace("to: ask", "to: confirm")
}

async fn answer(rig: &Rig, block: &str, choice: &str) {
    rig.answer(&BlockId::new(block).unwrap(), json!({ "choice": choice })).await;
}

async fn a_renamed_question_keeps_its_answer(store: Arc<dyn Store>) {
    let versions = Versions::new(store);
    versions.begin(ASKS).await;
    let old = versions.rig(ASKS).run("r").await.start.graph_hash;
    let new = renamed();
    let moved = versions.migrate(&new, &rename(&[("ask", "confirm")])).await;
    assert_eq!(
        moved,
        Migration::Moved(vec![
            "it waits for an answer in `ask`, which becomes `confirm`; step `ask#1` keeps its id"
                .to_owned()
        ])
    );
    let rig = versions.rig(&new);
    answer(&rig, "r.ask#1", "again").await;
    rig.work().await.unwrap();
    answer(&rig, "r.confirm#2", "on").await;
    rig.work().await.unwrap();
    let run = rig.run("r").await;
    assert_eq!(output(&run)["log"], json!(["start 42 true", "again", "on", "last 42 true"]));
    assert_eq!(run.start.graph_hash, *versions.graph(&new).hash());
    let events = versions.store.events(&id("r"), 0, 0).await.unwrap();
    let moved = events.iter().find(|event| event.kind.as_str() == "run.migrated").unwrap();
    assert_eq!(
        moved.data,
        json!({ "from": old, "to": run.start.graph_hash, "by": "ada", "seq": 3 }).into()
    );
    assert_eq!(versions.world.effects().into_values().collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_question_keeps_its_answer_in_memory() {
    a_renamed_question_keeps_its_answer(Arc::new(MemoryStore::new())).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_renamed_question_keeps_its_answer_in_sqlite() {
    use swarm_graph::store::sqlite::{Options, SqliteStore};
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("runs"), Options::default()).await.unwrap();
    a_renamed_question_keeps_its_answer(Arc::new(store)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_before_the_move_is_heard_after_it() {
    let versions = Versions::begun(ASKS).await;
    answer(&versions.rig(ASKS), "r.ask#1", "on").await;
    let new = renamed();
    let moved = versions.migrate(&new, &rename(&[("ask", "confirm")])).await;
    assert!(matches!(moved, Migration::Moved(_)), "{moved:?}");
    let rig = versions.rig(&new);
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["start 42 true", "on", "last 42 true"]));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_used_again_does_not_find_the_old_answer() {
    let versions = Versions::begun(ASKS).await;
    let new = renamed().replace("to: last }", "to: ask }")
        + "  ask: { gate: { ask: \"Another?\", answer: Choice }, next: last }\n";
    versions.migrate(&new, &rename(&[("ask", "confirm")])).await;
    let rig = versions.rig(&new);
    answer(&rig, "r.ask#1", "on").await;
    rig.work().await.unwrap();
    let open: Vec<String> =
        rig.open_blocks().await.iter().map(|block| block.id.to_string()).collect();
    assert_eq!(open, ["r.ask#2"]);
}

#[tokio::test(start_paused = true)]
async fn the_items_of_a_renamed_loop_go_on_where_they_were() {
    let old = r#"
entry: each
nodes:
  each:
    foreach: { in: "${{ ['x', 'y', 'z'] }}", as: item, max_parallel: 2 }
    run: { graph: child, input: { name: "${{ item }}" } }
    set: {}
    next: $end
"#;
    let versions = Versions::begun(old).await;
    let new = old.replace("each:\n    for", "all:\n    for").replace("entry: each", "entry: all");
    versions.migrate(&new, &rename(&[("each", "all")])).await;
    let rig = versions.rig(&new);
    for block in ["r.each#1/0.gate#1", "r.each#1/1.gate#1", "r.each#1/2.gate#1"] {
        rig.work().await.unwrap();
        answer(&rig, block, "on").await;
    }
    rig.work().await.unwrap();
    assert_eq!(rig.run("r").await.status, RunStatus::Succeeded);
    assert_eq!(versions.world.effects().into_values().collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_no_place_is_refused_with_the_remedy_and_left_alone() {
    let versions = Versions::begun(ASKS).await;
    let before = versions.rig(ASKS).run("r").await;
    insta::assert_snapshot!(versions.obstacles(&renamed(), &Mapping::default()).await, @"it waits for an answer in `ask`, which is gone (`--rename ask=confirm`, if that is what it became)");
    let gone = ASKS.replace("next: ask", "next: last");
    let gone = format!(
        "{}{}",
        &gone[..gone.find("  ask:\n").unwrap()],
        &gone[gone.find("  last:").unwrap()..]
    );
    insta::assert_snapshot!(versions.obstacles(&gone, &Mapping::default()).await, @"it waits for an answer in `ask`, which is gone (`--rename ask=NODE`, or let the run go on until it has left that node, or keep the node as it was)");
    let other = ASKS.replace("answer: Choice }", "choices: [ again, on ] }");
    insta::assert_snapshot!(versions.obstacles(&other, &Mapping::default()).await, @"question `r.ask#1` takes another answer than `ask` does now (let the run go on until it has left that node, or keep the node as it was)");
    let kind = ASKS
        .replace("gate: { ask: \"Go on?\", answer: Choice }", "wait: { signal: x }")
        .replace("answer.choice", "signal.name");
    insta::assert_snapshot!(versions.obstacles(&kind, &Mapping::default()).await, @"it asks in `ask`, which asks a person in the old version and waits for `x` in the new one (let the run go on until it has left that node, or keep the node as it was)");
    let wrong = rename(&[("ask", "last"), ("nobody", "confirm")]);
    insta::assert_snapshot!(versions.obstacles(&renamed(), &wrong).await, @r#"
both `last` and `ask` would become `last` (give each a node of its own)
the old version has no node `nobody` (rename another node)
it asks in `ask`, which asks a person in the old version and runs `test/deed` in the new one (let the run go on until it has left that node, or keep the node as it was)
"#);
    assert_eq!(versions.rig(ASKS).run("r").await, before);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_does_not_fit_is_refused_until_it_is_mapped() {
    let versions = Versions::begun(ASKS).await;
    let texts = "    log: { reducer: append, schema: { type: array, items: { type: string } }, default: [] }\n";
    let world = registry(&versions.world);
    let loaded = |channels: &str| {
        let text = format!(
            "dsl: 1\ngraph: {{ name: main, version: 2.0.0 }}\nstate:\n  channels:\n{channels}    n: {{ reducer: sum, schema: {{ type: integer }}, default: 0 }}\n{}",
            ASKS.replace("set: { log: \"${{ [answer.choice] }}\" }", "set: {}")
                .replace(
                    "uses: test/deed, with: { name: start }",
                    "uses: test/deed, with: { name: start }, set: {}"
                )
                .replace("with: { name: last }", "with: { name: last }, set: {}")
        );
        swarm_graph::check::load_text(&text, &world).unwrap_or_else(|defects| panic!("{defects}"))
    };
    let rig = versions.rig(ASKS);
    let worker = WorkerId::new("mover").unwrap();
    let try_it = async |to: &Graph, mapping: &Mapping| {
        rig.engine.migrate(&id("r"), to, mapping, &worker, "ada").await.unwrap()
    };
    let without = loaded("");
    let Migration::Refused(obstacles) = try_it(&without, &Mapping::default()).await else {
        panic!()
    };
    insta::assert_snapshot!(said(&obstacles), @r#"
channel `log` is gone, and holds ["start 42 true"] (`--drop-channel log`, after `--set CHANNEL=state.log` if it is to live on)
"#);
    let retyped = loaded(&texts.replace("type: string", "type: integer"));
    let Migration::Refused(obstacles) = try_it(&retyped, &Mapping::default()).await else {
        panic!()
    };
    insta::assert_snapshot!(said(&obstacles), @r#"
channel `log` does not fit its type: /0: "start 42 true" is not of type "integer" (`--set log=…` with an expression over the old `state`)
"#);
    let mut mapping = Mapping::default();
    mapping.drop.insert(channel("log"));
    mapping.set.insert(channel("n"), Expr::parse("state.log.size() + 6").unwrap());
    insta::assert_snapshot!(format!("{:?}", try_it(&without, &mapping).await), @r#"
Moved(["channel `n` becomes 7", "channel `log` is dropped"])
"#);
    let rig = {
        let registry = registry(&versions.world);
        Rig::on_clock(versions.store.clone(), vec![loaded("")], registry, versions.clock)
    };
    answer(&rig, "r.ask#1", "on").await;
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await), json!({ "n": 7 }));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_not_begun_is_moved_too() {
    let versions = Versions::memory();
    versions.rig(ASKS).start("r", "main", json!({})).await.unwrap();
    let new = renamed();
    assert_eq!(versions.migrate(&new, &Mapping::default()).await, Migration::Moved(Vec::new()));
    let rig = versions.rig(&new);
    rig.work().await.unwrap();
    assert_eq!(rig.open_blocks().await[0].id.as_str(), "r.confirm#1");
    assert_eq!(versions.migrate(&new, &Mapping::default()).await, Migration::Settled);
}

#[tokio::test(start_paused = true)]
async fn a_move_that_dies_at_any_write_loses_nothing() {
    let undisturbed = moved_with(Death::Never).await;
    assert_eq!(undisturbed.0["log"], json!(["start 42 true", "on", "last 42 true"]));
    let writes = undisturbed.2;
    assert!(writes >= 3, "a move writes the version, the claim and the commit, not {writes} times");
    for nth in 1..=writes {
        for death in [Death::Before(nth), Death::After(nth)] {
            let died = moved_with(death).await;
            assert_eq!((&died.0, &died.1), (&undisturbed.0, &undisturbed.1), "{death:?}");
        }
    }
}

/// Moves with a store that dies, then an heir moves again and a person answers. The output, the
/// effects, and how many writes the first one made.
async fn moved_with(death: Death) -> (Value, BTreeMap<String, u32>, u64) {
    let versions = Versions::begun(ASKS).await;
    let new = renamed();
    let mapping = rename(&[("ask", "confirm")]);
    let mortal = Arc::new(MortalStore::new(versions.store.clone(), death));
    let first = migrate(&versions.rig_on(mortal.clone(), &new), &new, &mapping).await;
    assert_eq!(first.is_err(), death != Death::Never, "{first:?}");
    let rig = versions.rig(&new);
    let mut last = None;
    for _ in 0..5 {
        last = Some(migrate(&rig, &new, &mapping).await.unwrap());
        if last != Some(Migration::Busy) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    assert!(matches!(last, Some(Migration::Moved(_) | Migration::Settled)), "{last:?}");
    answer(&rig, "r.ask#1", "on").await;
    rig.work().await.unwrap();
    let run = rig.run("r").await;
    assert_eq!(run.start.graph_hash, *versions.graph(&new).hash());
    (output(&run), versions.world.effects(), mortal.writes())
}

#[tokio::test(start_paused = true)]
async fn of_two_moves_at_once_one_moves() {
    let versions = Versions::begun(ASKS).await;
    let new = renamed();
    let mapping = rename(&[("ask", "confirm")]);
    let (one, two) =
        tokio::join!(versions.migrate(&new, &mapping), versions.migrate(&new, &mapping));
    let moved = [&one, &two].iter().filter(|done| matches!(done, Migration::Moved(_))).count();
    assert_eq!(moved, 1, "{one:?} {two:?}");
    let rig = versions.rig(&new);
    let events = rig.events("r").await;
    assert_eq!(events.iter().filter(|event| *event == "run.migrated").count(), 1);
    answer(&rig, "r.ask#1", "on").await;
    rig.work().await.unwrap();
    assert_eq!(rig.run("r").await.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_somebody_works_on_is_not_moved_and_one_that_lost_it_writes_no_more() {
    let versions = Versions::begun(ASKS).await;
    let rig = versions.rig(ASKS);
    answer(&rig, "r.ask#1", "on").await;
    let claim = rig.engine.claim(&id("r"), &WorkerId::new("w").unwrap()).await.unwrap().unwrap();
    let new = renamed();
    let mapping = rename(&[("ask", "confirm")]);
    assert_eq!(versions.migrate(&new, &mapping).await, Migration::Busy);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(matches!(versions.migrate(&new, &mapping).await, Migration::Moved(_)));
    let late = rig.engine.drive(claim, Control::default()).await.unwrap();
    assert_eq!(late, Driven::Lost);
    let rig = versions.rig(&new);
    rig.work().await.unwrap();
    assert_eq!(output(&rig.run("r").await)["log"], json!(["start 42 true", "on", "last 42 true"]));
}

#[tokio::test(start_paused = true)]
async fn prospects_name_the_runs_that_a_version_would_break_and_change_nothing() {
    let versions = Versions::begun(ASKS).await;
    let new = renamed();
    let rig = versions.rig(&new);
    rig.start("fresh", "main", json!({})).await.unwrap();
    let before = rig.run("r").await;
    let to = versions.graph(&new);
    let prospects = rig.engine.prospects(&to, &Mapping::default()).await.unwrap();
    assert_eq!(prospects.len(), 1);
    assert_eq!(prospects[0].run, before);
    assert!(prospects[0].result.is_err());
    let mapped = rig.engine.prospects(&to, &rename(&[("ask", "confirm")])).await.unwrap();
    assert!(mapped[0].result.is_ok());
    assert_eq!(rig.run("r").await, before);
}

#[test]
fn what_changed_between_two_versions_is_told_with_what_it_could_break() {
    let world = World::default();
    let registry = registry(&world);
    let old = graph(ASKS, &registry);
    let new = renamed()
        .replace("answer: Choice }", "choices: [ again, on ] }")
        .replace("next: $end", "next: tail")
        + "  tail: { wait: { timeout: 1s }, next: $end }\nlimits: { supersteps: 9 }\n";
    let new = graph(&new, &registry);
    let told: String = diff::diff(&old, &new)
        .iter()
        .map(|change| match &change.breaks {
            Some(why) => format!("! {}: {why}\n", change.what),
            None => format!("  {}\n", change.what),
        })
        .collect();
    insta::assert_snapshot!(told, @r#"
! the limits changed: a run that has used more than a lower limit is refused
  node `start` leads on in another way
! node `ask` was renamed to `confirm`, most likely: a run that stands in it needs `--rename ask=confirm`
! node `confirm` takes another answer: an open question of it keeps its old choices, so such a run is refused
  node `confirm` leads on in another way
  node `last` leads on in another way
  node `tail` is new
"#);
    assert_eq!(diff::diff(&old, &old), []);
}

const RACES: &str = r#"
entry: start
nodes:
  start: { uses: test/deed, with: { name: start }, next: [ ask, tell ] }
  ask: { gate: { ask: "Go on?", answer: Choice }, next: first }
  tell: { wait: { signal: go }, next: first }
  first: { when_any: [ ask, tell ], uses: test/deed, with: { name: last }, next: $end }
"#;

/// The race with a third line that may win it.
fn wider() -> String {
    RACES
        .replace("[ ask, tell ] }\n", "[ ask, tell, late ] }\n")
        .replace("when_any: [ ask, tell ]", "when_any: [ ask, tell, late ]")
        + "  late: { wait: { timeout: 1h }, next: first }\n"
}

#[tokio::test(start_paused = true)]
async fn lines_that_race_are_only_moved_to_the_same_race() {
    let versions = Versions::begun(RACES).await;
    let joined = RACES.replace("when_any", "when_all");
    insta::assert_snapshot!(versions.obstacles(&joined, &Mapping::default()).await, @"`ask`, `tell` are under way, and the race `first` is run by others now (let the run pass the race first)");
    // A line that has not begun is no rival of those that have.
    let moved = versions.migrate(&wider(), &rename(&[])).await;
    assert!(matches!(moved, Migration::Moved(_)), "{moved:?}");
    let named = wider().replace("tell", "hear");
    let moved = versions.migrate(&named, &rename(&[("tell", "hear")])).await;
    assert!(matches!(moved, Migration::Moved(_)), "{moved:?}");
    let rig = versions.rig(&named);
    answer(&rig, "r.ask#1", "on").await;
    rig.work().await.unwrap();
    assert_eq!(rig.run("r").await.status, RunStatus::Succeeded);
    let told = diff::diff(&versions.graph(RACES), &versions.graph(&wider()));
    let told: Vec<_> = told.iter().filter(|one| one.breaks.is_some()).map(|c| &*c.what).collect();
    assert_eq!(told, ["the race `first` is run by other nodes"]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_in_the_mailbox_must_be_one_that_the_new_version_takes() {
    let typed = |ty: &str| format!("signals: {{ later: {{ schema: {{ type: {ty} }} }} }}\n{ASKS}");
    let versions = Versions::begun(ASKS).await;
    let rig = versions.rig(ASKS);
    rig.engine.signal(&id("r"), None, "later", json!(7)).await.unwrap();
    let none = format!("signals: {{ other: {{ schema: {{}} }} }}\n{ASKS}");
    insta::assert_snapshot!(versions.obstacles(&none, &Mapping::default()).await, @"its mailbox holds signal `later`, which the new version does not know (take the signal in the new version, too)");
    insta::assert_snapshot!(versions.obstacles(&typed("string"), &Mapping::default()).await, @r#"its mailbox holds signal `later`, whose payload does not fit: 7 is not of type "string" (take the signal in the new version, too)"#);
    let moved = versions.migrate(&typed("integer"), &Mapping::default()).await;
    assert!(matches!(moved, Migration::Moved(_)), "{moved:?}");
    let of = |old: &str, new: &str| -> Vec<String> {
        let changes = diff::diff(&versions.graph(old), &versions.graph(new));
        changes
            .into_iter()
            .map(|change| {
                format!("{}{}", if change.breaks.is_some() { "! " } else { "" }, change.what)
            })
            .collect()
    };
    assert_eq!(of(ASKS, &none), ["! only the signals that are declared are taken now"]);
    assert_eq!(of(&none, ASKS), ["signals of any name are taken now"]);
    assert_eq!(
        of(&typed("string"), &typed("integer")),
        ["! signal `later` carries something else"]
    );
    assert_eq!(of(&none, &typed("string")), ["! signal `other` is gone", "signal `later` is new"]);
}

#[tokio::test(start_paused = true)]
async fn a_fork_from_before_a_move_goes_on_on_the_version_before() {
    let versions = Versions::begun(ASKS).await;
    let moved = versions.migrate(&renamed(), &rename(&[("ask", "confirm")])).await;
    assert!(matches!(moved, Migration::Moved(_)), "{moved:?}");
    let rig = versions.rig(&renamed());
    answer(&rig, "r.ask#1", "on").await;
    rig.work().await.unwrap();
    for (seq, fork, of) in [(1, "before", ASKS), (3, "after", &*renamed())] {
        assert!(rig.engine.fork(&id("r"), seq, id(fork), ForkOptions::default()).await.unwrap());
        assert_eq!(rig.run(fork).await.start.graph_hash, *versions.graph(of).hash(), "{fork}");
    }
    rig.work().await.unwrap();
    answer(&rig, "before.ask#1", "on").await;
    answer(&rig, "after.ask#1", "on").await;
    rig.work().await.unwrap();
    for fork in ["before", "after"] {
        assert_eq!(output(&rig.run(fork).await)["log"], output(&rig.run("r").await)["log"]);
    }
}

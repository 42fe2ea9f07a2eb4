//! `kill -9` at any moment, then the same command again, ends in the same result.
//!
//! A campaign lets one run die again and again, at moments that a seed chooses: when the model's
//! server gets a request, when it has answered one, when a line of events was printed. Nothing
//! waits for a fixed time. Afterwards the world holds one of everything, and every turn that was
//! asked for again was one whose answer a kill kept from being stored.
//!
//! `SWARM_KILLS=200 SWARM_SEED=7` makes it longer or repeats it.

#![expect(clippy::print_stderr, reason = "a seed and what it led to, for whom a campaign fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use swarm_tools::model::testkit::{ScriptedServer, Step, WireRequest};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, Done, PYTHON, finish, git, mend_python, plan, review};

/// When a life ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Moment {
    /// The server has got this life's n-th request; it is never answered.
    Asked(usize),
    /// The server answers this life's n-th request.
    Answered(usize),
    /// This many lines that no life before had printed are out.
    Printed(usize),
}

/// A small generator of numbers; the same seed, the same numbers.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound).expect("it is small")
    }

    fn moment(&mut self) -> Moment {
        match self.below(3) {
            0 => Moment::Asked(self.below(2)),
            1 => Moment::Answered(self.below(2)),
            _ => Moment::Printed(1 + self.below(25)),
        }
    }
}

/// What the server does for the life that is on.
#[derive(Default)]
struct Watch {
    moment: Option<Moment>,
    /// Requests of this life.
    seen: usize,
    /// Ends with the life, so that a request that is held is let go.
    over: CancellationToken,
    tell: Option<UnboundedSender<()>>,
}

impl Watch {
    /// The step for the next request, held or told of as the moment wants.
    fn step(&mut self, step: Step) -> Step {
        let nth = self.seen;
        self.seen += 1;
        let tell = || self.tell.as_ref().map(|tell| tell.send(()));
        match self.moment {
            Some(Moment::Asked(wanted)) if wanted == nth => {
                tell();
                step.until(&self.over)
            }
            Some(Moment::Answered(wanted)) if wanted == nth => {
                tell();
                step
            }
            Some(_) | None => step,
        }
    }
}

/// One run, its server and its repository, over all lives of its process.
struct Campaign {
    bench: Bench,
    server: ScriptedServer,
    watch: Arc<Mutex<Watch>>,
    repository: String,
    printed: usize,
    /// How many requests there had been when a life began.
    begun: Vec<usize>,
}

impl Campaign {
    async fn new() -> Self {
        let bench = Bench::new();
        let watch: Arc<Mutex<Watch>> = Arc::default();
        let (shared, mend) = (Arc::clone(&watch), mend_python());
        let script = move |request: &WireRequest| {
            let step = match request.model() {
                "manager" => plan(),
                "reviewer" => review(),
                _ => mend(request),
            };
            shared.lock().expect("no test panics in it").step(step)
        };
        let server = ScriptedServer::start(Box::new(script)).await;
        // A restart that waited for the lease of its own dead would wait for ten minutes.
        bench.ask_with(&server, "worker: { lease: 600s }\n");
        bench.write("issue.md", "# add() subtracts\n\nadd(2, 3) must be 5.\n");
        let repository = bench.repository("app", PYTHON).display().to_string();
        Self { bench, server, watch, repository, printed: 0, begun: Vec::new() }
    }

    fn command(&self) -> tokio::process::Command {
        self.bench.command(&["run", "--repo", &self.repository, "--issue", "issue.md", "--json"])
    }

    /// Lives until the moment comes, and is killed then; `true` if it ended by itself before.
    async fn die(&mut self, moment: Moment) -> bool {
        self.begun.push(self.server.requests().len());
        let (tell, mut told) = unbounded_channel();
        let over = CancellationToken::new();
        let watch = Watch { moment: Some(moment), seen: 0, over: over.clone(), tell: Some(tell) };
        *self.watch.lock().expect("no test panics in it") = watch;
        let mut child = begin(self.command());
        let has_ended = self.live(&mut child, moment, &mut told).await;
        kill(child).await;
        over.cancel();
        has_ended
    }

    async fn live(
        &mut self,
        child: &mut Child,
        moment: Moment,
        told: &mut UnboundedReceiver<()>,
    ) -> bool {
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut count = 0;
        loop {
            tokio::select! {
                line = lines.next_line() => {
                    if line.expect("it is text").is_none() {
                        return true;
                    }
                    count += 1;
                    let fresh = count.max(self.printed) - self.printed;
                    if matches!(moment, Moment::Printed(wanted) if fresh >= wanted) {
                        self.printed = count;
                        return false;
                    }
                }
                Some(()) = told.recv() => {
                    self.printed = self.printed.max(count);
                    return false;
                }
            }
        }
    }

    /// Lives to its end.
    async fn end(&mut self) -> Done {
        self.begun.push(self.server.requests().len());
        *self.watch.lock().expect("no test panics in it") = Watch::default();
        finish(self.command().spawn().expect("it starts")).await
    }

    /// Approves, if that is what is asked.
    async fn approve(&self) -> bool {
        let open = self.bench.run(&["blocks", "list", "--json"]).await.json();
        let open = open.as_array().cloned().unwrap_or_default();
        assert!(open.len() <= 1, "one question at a time: {open:?}");
        let Some(question) = open.first() else { return false };
        assert_eq!(question["ask"]["reason"], json!("approval"), "{question:#}");
        let run = question["run"].as_str().expect("a run");
        let id = question["id"].as_str().expect("an id");
        let answered = self.bench.run(&["answer", id, "--choice", "approve"]).await;
        assert_eq!(answered.code, 0, "{run}: {answered:?}");
        true
    }

    /// How often each turn was asked for, by model, conversation and number.
    fn asked(&self) -> BTreeMap<(String, usize), usize> {
        let mut asked = BTreeMap::new();
        for request in self.server.requests() {
            *asked.entry(turn_of(&request)).or_default() += 1;
        }
        asked
    }

    /// How often each turn may have been asked for: once, and once more for each life whose last
    /// request it was, since only that one's answer can be without a place in the store.
    fn allowed(&self) -> BTreeMap<(String, usize), usize> {
        let requests = self.server.requests();
        let mut allowed: BTreeMap<_, _> =
            requests.iter().map(|request| (turn_of(request), 1)).collect();
        for life in self.begun.windows(2) {
            if life[0] < life[1] {
                *allowed.entry(turn_of(&requests[life[1] - 1])).or_default() += 1;
            }
        }
        allowed
    }

    /// The world holds one of everything.
    fn is_done_once(&self, done: &Done) {
        let last = done.last();
        assert_eq!((done.code, &last["outcome"]), (0, &json!("merged")), "{done:?}");
        let repository = Path::new(&self.repository);
        let branch = last["branch"].as_str().expect("a branch");
        let branches = git(repository, &["branch", "--format=%(refname:short)"]);
        assert_eq!(branches.lines().collect::<Vec<_>>(), [branch, "main"]);
        assert_eq!(git(repository, &["rev-list", "--count", "--merges", "main"]), "1");
        assert_eq!(git(repository, &["rev-list", "--count", &format!("main^1..{branch}")]), "1");
        assert_eq!(git(repository, &["diff", "--name-only", "main^1", "main"]), "sums.py");
        assert_eq!(last["merge_sha"], json!(git(repository, &["rev-parse", "main"])));
        let events: Vec<Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let of = |kind: &str| {
            events.iter().filter(|event| event["kind"] == json!(kind)).collect::<Vec<_>>()
        };
        let numbers = |kind: &str, key: &str| {
            let mut found: Vec<u64> =
                of(kind).iter().filter_map(|event| event["data"][key].as_u64()).collect();
            found.dedup();
            found
        };
        assert_eq!(numbers("review.submitted", "review").len(), 1, "one review");
        assert_eq!(numbers("review.submitted", "pr"), [last["pr"].as_u64().expect("a number")]);

        let asked = self.asked();
        assert_eq!(asked.len(), 6, "a plan, four turns, a review: {asked:?}");
        let allowed = self.allowed();
        let paid_twice: Vec<_> =
            asked.iter().filter(|(turn, count)| allowed[*turn] < **count).collect();
        assert_eq!(paid_twice, [], "of {asked:?}");
    }
}

/// Starts it in a group of its own, so that all of it can be killed.
fn begin(mut command: tokio::process::Command) -> Child {
    command.process_group(0).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Kills all of its group; `kill -9` of what has ended already is none.
async fn kill(mut child: Child) {
    if let Ok(None) = child.try_wait() {
        let group = format!("-{}", child.id().expect("it was not waited for"));
        let killed = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        assert!(killed.expect("kill is installed").success());
    }
    child.wait().await.expect("it is gone");
}

/// Which turn a request asks for: each role has one conversation here.
fn turn_of(request: &WireRequest) -> (String, usize) {
    (request.model().to_owned(), request.turn())
}

/// Dies at these moments, then lives on to the merge.
async fn campaign(moments: impl IntoIterator<Item = Moment>) {
    let mut campaign = Campaign::new().await;
    for moment in moments {
        let has_ended = campaign.die(moment).await;
        eprintln!("{moment:?}: {}", if has_ended { "ended before" } else { "killed" });
        if has_ended && !campaign.approve().await {
            break;
        }
    }
    let mut done = campaign.end().await;
    if done.code == 3 {
        assert!(campaign.approve().await, "{done:?}");
        done = campaign.end().await;
    }
    campaign.is_done_once(&done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_again_and_again_ends_in_the_same_result() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("SWARM_SEED").unwrap_or(20_261_123);
    let kills = number("SWARM_KILLS").unwrap_or(8);
    eprintln!("SWARM_SEED={seed} SWARM_KILLS={kills}");
    let mut chance = Chance(seed);
    // Eight kills a run: more would only find it at its end.
    for _ in 0..kills.div_ceil(8) {
        campaign((0..kills.min(8)).map(|_| chance.moment()).collect::<Vec<_>>()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_on_its_way_to_the_merge_merges_once() {
    let to_the_approval = Moment::Printed(1000);
    let on_the_way = [2, 1, 3, 1, 4, 6].map(Moment::Printed);
    campaign([to_the_approval].into_iter().chain(on_the_way)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_killed_again_and_again_ends_with_one_merge() {
    let bench = Bench::new();
    let demo = ["demo", "--yes", "--dir", "demo", "--json"];
    // Right after its start first, while its repository may be half made.
    for lines in [0, 5, 40, 70, 90] {
        let mut child = begin(bench.command(&demo));
        let mut printed = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        for _ in 0..lines {
            if printed.next_line().await.expect("it is text").is_none() {
                break;
            }
        }
        kill(child).await;
    }
    let done = bench.run(&demo).await;
    assert_eq!((done.code, &done.last()["outcome"]), (0, &json!("merged")), "{done:?}");
    let repository = bench.path().join("demo/tally.git");
    assert_eq!(git(&repository, &["rev-list", "--merges", "--count", "main"]), "1");
    assert_eq!(git(&repository, &["branch", "--list"]).lines().count(), 2, "main and one branch");
}

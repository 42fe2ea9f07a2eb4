//! What the tests of roles share: a real repository, the shipped graphs on a real engine, the
//! local forge, a sandbox, and models that say what the test wants.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::event::Event;
use swarm_core::gate;
use swarm_core::id::{QueueName, RunId, WorkerId};
use swarm_core::policy::ChangePolicy;
use swarm_core::port::clock::Clock;
use swarm_core::port::forge::{ForgeMerge, ForgeRead, PullRequest, RepoId, Sha};
use swarm_core::port::model::{
    self, ChatModel, ChatRequest, ChatTurn, Message, Stop, ToolCall, TurnListener, Usage,
};
use swarm_core::port::sandbox::{self, Level, Network, Sandbox};
use swarm_core::port::store::{RunFilter, Store};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::spend::{Spend, UsdMicros};
use swarm_core::time::Timestamp;
use swarm_graph::check;
use swarm_graph::engine::{Control, Engine, StartOptions};
use swarm_graph::library::Library;
use swarm_graph::registry::Registry;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::testkit::{SeededEntropy, VirtualClock};
use swarm_host::agent::Limits;
use swarm_host::defaults;
use swarm_host::parts::{Bot, Parts, RepoSettings, Repositories, register};
use swarm_tools::checks::{ChecksConfig, ConfiguredCheck};
use swarm_tools::forge::local::{Config, LocalForge, Member};
use swarm_tools::git::{Credentials, Git, Mirrors};
use swarm_tools::prompt::Prompts;
use swarm_tools::toolbox;
use swarm_tools::workspace::Workspaces;
use tempfile::TempDir;

/// What a model says in one turn.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// These calls.
    Calls(Vec<(&'static str, Value)>),
    /// This text.
    Text(String),
    /// This text, cut off.
    Cut(String),
    /// Nothing: the call fails.
    Fails(model::ErrorClass),
}

/// One call.
pub(crate) fn call(tool: &'static str, arguments: Value) -> Said {
    Said::Calls(vec![(tool, arguments)])
}

/// The call that ends the agent's work.
pub(crate) fn finish(title: &str) -> Said {
    call("finish", json!({ "summary": format!("{title}."), "commit_title": title }))
}

/// A plan with one task.
pub(crate) fn one_task() -> Said {
    let task = json!({
        "id": "t1", "title": "Fix the sum", "goal": "Make `sum.sh` right.",
        "acceptance": ["2 and 3 give 5"], "files": ["sum.sh"],
    });
    Said::Text(
        json!({ "summary": "Add.", "ambiguous": false, "questions": [], "tasks": [task] })
            .to_string(),
    )
}

/// A review without findings.
pub(crate) fn no_findings() -> Said {
    Said::Text(json!({ "summary": "It does what the task asks.", "findings": [] }).to_string())
}

type Script = Arc<dyn Fn(&ChatRequest) -> Said + Send + Sync>;

/// A model that says what a function of the request gives, and counts.
#[derive(Clone)]
pub(crate) struct ScriptedModel {
    script: Script,
    asked: Arc<Mutex<BTreeMap<(String, u32), u32>>>,
    requests: Arc<Mutex<Vec<ChatRequest>>>,
}

impl ScriptedModel {
    pub(crate) fn new(script: impl Fn(&ChatRequest) -> Said + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), asked: Arc::default(), requests: Arc::default() }
    }

    /// How often each turn of each conversation was asked for.
    pub(crate) fn asked(&self) -> BTreeMap<(String, u32), u32> {
        self.asked.lock().unwrap().clone()
    }

    /// All requests, in order.
    pub(crate) fn requests(&self) -> Vec<ChatRequest> {
        self.requests.lock().unwrap().clone()
    }
}

#[async_trait]
impl ChatModel for ScriptedModel {
    fn estimate(&self, _request: &ChatRequest) -> Spend {
        Spend { usd: UsdMicros(100), tokens: 100 }
    }

    async fn chat(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, model::Error> {
        let key = (request.conversation.clone(), request.turn());
        *self.asked.lock().unwrap().entry(key).or_default() += 1;
        self.requests.lock().unwrap().push(request.clone());
        let (text, calls, stop) = match (self.script)(request) {
            Said::Text(text) => (text, Vec::new(), Stop::End),
            Said::Cut(text) => (text, Vec::new(), Stop::Length),
            Said::Calls(calls) => (String::new(), calls, Stop::Tools),
            Said::Fails(class) => {
                return Err(model::Error {
                    class,
                    model: "test:scripted".to_owned(),
                    message: "as the test wants".to_owned(),
                    retry_after: None,
                });
            }
        };
        listener.text(&text);
        let tool_calls = calls.into_iter().enumerate().map(|(index, (name, arguments))| ToolCall {
            id: format!("c{}-{index}", request.turn()),
            name: name.to_owned(),
            arguments,
        });
        Ok(ChatTurn {
            text,
            tool_calls: tool_calls.collect(),
            thoughts: None,
            stop,
            usage: Usage { input: 50, cached: 0, output: 10 },
            usd: UsdMicros(60),
            model: "test:scripted".to_owned(),
        })
    }
}

/// The last result of a tool, or word of the host, that a request shows.
pub(crate) fn last(request: &ChatRequest) -> String {
    match request.messages.last() {
        Some(Message::User { text } | Message::Tool { text, .. }) => text.clone(),
        Some(Message::Assistant { .. }) | None => String::new(),
    }
}

/// A git repository, made with git itself.
pub(crate) struct Repo {
    pub(crate) path: PathBuf,
}

impl Repo {
    fn new(path: PathBuf, files: &[(&str, &str)]) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let repo = Self { path };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo.commit(files, "Begin");
        repo
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Commits files on the branch that is checked out.
    pub(crate) fn commit(&self, files: &[(&str, &str)], message: &str) -> Sha {
        self.commit_as("Ann", files, message)
    }

    pub(crate) fn commit_as(&self, name: &str, files: &[(&str, &str)], message: &str) -> Sha {
        for (path, text) in files {
            let path = self.path.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.git(&["add", "--all"]);
        let mail = name.to_lowercase();
        let (name, mail) = (format!("user.name={name}"), format!("user.email={mail}@example.org"));
        self.git(&["-c", &name, "-c", &mail, "commit", "--quiet", "--message", message]);
        self.head("main")
    }

    pub(crate) fn head(&self, branch: &str) -> Sha {
        Sha(self.git(&["rev-parse", branch]))
    }

    pub(crate) fn show(&self, what: &str) -> String {
        self.git(&["show", what])
    }

    pub(crate) fn branches(&self) -> Vec<String> {
        let text = self.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
        text.lines().map(str::to_owned).collect()
    }
}

/// A repository whose `sum.sh` is wrong and whose `test.sh` says so.
pub(crate) const WRONG_SUM: &[(&str, &str)] = &[
    ("sum.sh", "echo $(( $1 - $2 ))\n"),
    ("test.sh", "test \"$(sh sum.sh 2 3)\" = 5 || { echo 'sum is wrong'; exit 1; }\necho ok\n"),
    ("README.md", "# Sum\n"),
];

/// The edit that mends it.
pub(crate) fn mend() -> Said {
    call("write", json!({ "path": "sum.sh", "content": "echo $(( $1 + $2 ))\n" }))
}

/// How a rig differs from the usual one.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// The tests' commands; `None` detects them.
    pub(crate) tests: Option<Vec<Vec<&'static str>>>,
    pub(crate) limits: Limits,
    pub(crate) base: gate::BaseRule,
    /// While it is there and false, no sandbox is.
    pub(crate) door: Option<Arc<AtomicBool>>,
    /// An edit of the shipped graphs: path and text in, text out.
    pub(crate) edit: fn(&str, &str) -> String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            files: WRONG_SUM,
            tests: Some(vec![vec!["sh", "test.sh"]]),
            limits: Limits::default(),
            base: gate::BaseRule::Strict,
            door: None,
            edit: |_, text| text.to_owned(),
        }
    }
}

/// The shipped graphs on an engine, a repository, a forge.
pub(crate) struct Rig {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) repo: Repo,
    pub(crate) id: RepoId,
    pub(crate) forge: Arc<LocalForge>,
    pub(crate) model: ScriptedModel,
    pub(crate) engine: Engine,
    pub(crate) data: PathBuf,
    setup: Setup,
    /// Processes after the first.
    lives: Arc<AtomicU64>,
    dir: Arc<TempDir>,
}

/// When the first process starts.
const BEGIN: Timestamp = Timestamp(1_800_000_000_000);

const QUEUES: [&str; 5] = ["default", "manager", "dev", "reviewer", "ops"];

impl Rig {
    pub(crate) fn new(
        setup: Setup,
        script: impl Fn(&ChatRequest) -> Said + Send + Sync + 'static,
    ) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        let path = dir.path().canonicalize().unwrap();
        let repo = Repo::new(path.join("repo"), setup.files);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        Self::over(dir, repo, store, ScriptedModel::new(script), setup, BEGIN)
    }

    /// A new process, so to speak, on the same data: with a store in front of the old one.
    pub(crate) fn again(&self, store: Arc<dyn Store>) -> Self {
        let repo = Repo { path: self.repo.path.clone() };
        // Late enough for every lease of the process before to have ended.
        let hour = self.lives.fetch_add(1, Ordering::SeqCst) + 1;
        let now = BEGIN + Duration::from_secs(3600 * hour);
        let mut next =
            Self::over(self.dir.clone(), repo, store, self.model.clone(), self.setup.clone(), now);
        next.lives = self.lives.clone();
        next
    }

    fn over(
        dir: Arc<TempDir>,
        repo: Repo,
        store: Arc<dyn Store>,
        model: ScriptedModel,
        setup: Setup,
        now: Timestamp,
    ) -> Self {
        let data = dir.path().canonicalize().unwrap().join("data");
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::at(now));
        let mut config = Config::new("ann");
        config.members.push(Member {
            login: "bob".to_owned(),
            permission: swarm_core::port::forge::Permission::Read,
            emails: Vec::new(),
        });
        let forge =
            Arc::new(LocalForge::new(Arc::new(Shelf(store.clone())), clock.clone(), config));
        let parts = Arc::new(parts(&data, &forge, &model, &setup));
        let merger: Arc<dyn ForgeMerge> = forge.clone();
        let registry = register(Registry::new(), &parts, &merger);
        let library =
            graphs(&registry, setup.edit).into_iter().fold(Library::new(registry), Library::with);
        let entropy = Arc::new(SeededEntropy::new(7));
        let engine = Engine::new(store.clone(), clock, entropy, Arc::new(library));
        let id = RepoId(repo.path.display().to_string());
        Self { store, repo, id, forge, model, engine, data, setup, lives: Arc::default(), dir }
    }

    /// Starts the manager on a text.
    pub(crate) async fn start(&self, issue: &str) {
        let input = json!({ "repo": self.id, "issue": { "body": issue, "author": "ann" } });
        let options =
            StartOptions { queue: QueueName::new("manager").unwrap(), ..StartOptions::default() };
        // A store that dies here is started on again by the next process.
        let _ = self.engine.start(id("r"), "manager", input, options).await;
    }

    /// Works until nothing is claimable, or the store dies.
    pub(crate) async fn work(&self) {
        let worker = WorkerId::new("tester").unwrap();
        let queues = QUEUES.map(|name| QueueName::new(name).unwrap());
        while let Ok(Some(claim)) = self.engine.claim_next(&worker, &queues).await {
            if self.engine.drive(claim, Control::default()).await.is_err() {
                return;
            }
        }
    }

    /// Starts the manager on a text and works until all rests.
    pub(crate) async fn run(&self, issue: &str) {
        self.start(issue).await;
        self.work().await;
    }

    /// The only open question.
    pub(crate) async fn question(&self) -> Block {
        let mut open = self.store.blocks(None, Some(BlockStatus::Open)).await.unwrap();
        assert_eq!(open.len(), 1, "{open:#?}\n{}", self.troubles().await);
        open.remove(0)
    }

    /// Answers the only open question as `ann` and goes on working.
    pub(crate) async fn answer(&self, answer: Value) {
        self.answer_as("ann", "admin", answer).await;
    }

    pub(crate) async fn has_question(&self) -> bool {
        let open = self.store.blocks(None, Some(BlockStatus::Open)).await;
        open.is_ok_and(|open| !open.is_empty())
    }

    /// Answers the only open question as `ann`, if the store lives, and goes on working.
    pub(crate) async fn try_answer(&self, answer: Value) {
        let block = self.question().await.id;
        let by = Answerer {
            login: "ann".to_owned(),
            via: "cli".to_owned(),
            permission: "admin".to_owned(),
        };
        if self.engine.answer(&block, answer, by).await.is_ok() {
            self.work().await;
        }
    }

    pub(crate) async fn answer_as(&self, login: &str, permission: &str, answer: Value) {
        let block = self.question().await.id;
        let by = Answerer {
            login: login.to_owned(),
            via: "cli".to_owned(),
            permission: permission.to_owned(),
        };
        self.engine.answer(&block, answer, by).await.unwrap();
        self.work().await;
    }

    pub(crate) async fn record(&self) -> RunRecord {
        self.store.run(&id("r")).await.unwrap().unwrap()
    }

    /// The output of the manager, which must have ended well.
    pub(crate) async fn output(&self) -> Value {
        let run = self.record().await;
        assert_eq!(run.status, RunStatus::Succeeded, "{}", self.troubles().await);
        (**run.output.as_ref().unwrap()).clone()
    }

    /// Events of all runs of one kind.
    pub(crate) async fn events(&self, kind: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for run in self.store.runs(&RunFilter::default()).await.unwrap() {
            events.extend(self.store.events(&run.start.id, 0, 0).await.unwrap());
        }
        events.retain(|event| event.kind.as_str() == kind);
        events
    }

    /// What went wrong, for failing tests.
    pub(crate) async fn troubles(&self) -> String {
        let mut text = String::new();
        for run in self.store.runs(&RunFilter::default()).await.unwrap() {
            let id = &run.start.id;
            let _ = writeln!(text, "{id}: {:?} {:?}", run.status, run.failure);
            for event in self.store.events(id, 0, 0).await.unwrap() {
                if event.kind.as_str().ends_with("failed")
                    || event.kind.as_str().ends_with("caught")
                {
                    let _ = writeln!(text, "  {} {:?} {}", event.kind, event.step, event.data);
                }
            }
        }
        text
    }

    pub(crate) async fn pull(&self, number: u64) -> PullRequest {
        self.forge.pull_request(&self.id, number).await.unwrap()
    }
}

/// Records of a store that is only known as a store.
struct Shelf(Arc<dyn Store>);

#[async_trait]
impl swarm_core::port::records::Records for Shelf {
    async fn get(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<swarm_core::port::records::Record>, swarm_core::port::records::Error> {
        self.0.get(namespace, key).await
    }

    async fn put(
        &self,
        namespace: &str,
        key: &str,
        expected: u64,
        value: Value,
    ) -> Result<u64, swarm_core::port::records::Error> {
        self.0.put(namespace, key, expected, value).await
    }

    async fn list(
        &self,
        namespace: &str,
        prefix: &str,
    ) -> Result<Vec<swarm_core::port::records::Record>, swarm_core::port::records::Error> {
        self.0.list(namespace, prefix).await
    }
}

pub(crate) fn id(run: &str) -> RunId {
    RunId::new(run).unwrap()
}

/// Parts over a data directory.
pub(crate) fn parts(
    data: &Path,
    forge: &Arc<LocalForge>,
    model: &ScriptedModel,
    setup: &Setup,
) -> Parts {
    let model: Arc<dyn ChatModel> = Arc::new(model.clone());
    let roles = ["manager", "dev", "reviewer"];
    let tests = setup.tests.clone().map(|tests| {
        let check = |argv: Vec<&str>| ConfiguredCheck {
            name: None,
            argv: argv.into_iter().map(str::to_owned).collect(),
            dir: ".".to_owned(),
        };
        tests.into_iter().map(check).collect()
    });
    let settings = RepoSettings {
        checks: ChecksConfig { tests, linters: Some(Vec::new()), setup: Some(Vec::new()) },
        required_checks: None,
        setup_network: Network::None,
    };
    Parts {
        forge: forge.clone(),
        models: roles.into_iter().map(|role| (role.to_owned(), model.clone())).collect(),
        sandbox: walls(data, setup),
        check_limits: sandbox::Limits { wall_secs: 60, ..sandbox::Limits::default() },
        mirrors: Mirrors::new(data.join("mirrors"), Git::find(&path_variable()).unwrap()),
        credentials: Credentials::none(),
        workspaces: Workspaces::new(data.join("workspaces")),
        prompts: Prompts::embedded(defaults::PROMPTS.iter().copied()).unwrap(),
        bot: Bot::default(),
        change_policy: ChangePolicy::default(),
        gate_policy: gate::Policy { base: setup.base, ..gate::Policy::default() },
        limits: setup.limits.clone(),
        tool_limits: toolbox::Limits::default(),
        repositories: Repositories { listed: BTreeMap::new(), others: Some(settings) },
    }
}

fn path_variable() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

/// The strongest walls that stand here; none while the door is shut.
fn walls(data: &Path, setup: &Setup) -> Arc<dyn Sandbox> {
    let entry = env!("CARGO_BIN_EXE_swarm-host");
    let mut config = swarm_tools::sandbox::Config::new(entry, data, std::env::vars_os());
    config.minimum = Level::Landlock;
    let walls = swarm_tools::sandbox::detect(config);
    match &setup.door {
        None => walls,
        Some(door) => Arc::new(Door { door: door.clone(), walls }),
    }
}

/// A sandbox that is missing at first.
struct Door {
    door: Arc<AtomicBool>,
    walls: Arc<dyn Sandbox>,
}

#[async_trait]
impl Sandbox for Door {
    fn level(&self) -> Result<Level, sandbox::Error> {
        self.walls.level()
    }

    async fn run(&self, command: sandbox::Command) -> Result<sandbox::Finished, sandbox::Error> {
        if self.door.load(Ordering::SeqCst) {
            return self.walls.run(command).await;
        }
        let missing = vec!["no bubblewrap: install bubblewrap".to_owned()];
        Err(sandbox::Error::Unavailable { missing })
    }
}

/// The shipped graphs, edited and checked.
pub(crate) fn graphs(
    registry: &Registry,
    edit: fn(&str, &str) -> String,
) -> Vec<swarm_graph::graph::Graph> {
    let sources =
        defaults::GRAPHS.iter().fold(check::Memory::default(), |sources, (path, text)| {
            sources.with(*path, edit(path, text))
        });
    defaults::GRAPHS
        .iter()
        .filter(|(path, _)| *path != "policies.yaml")
        .map(|(path, _)| {
            check::load(&sources, path, registry).unwrap_or_else(|defects| panic!("{defects}"))
        })
        .collect()
}

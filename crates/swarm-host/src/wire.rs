//! The one place that chooses implementations.
//!
//! A custom host adds its node kinds and graphs to a [`HostBuilder`] and keeps everything else:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     swarm_host::start(|host| host.graphs_from("my-graphs"))
//! }
//! ```

mod graphs;
mod home;
mod models;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use swarm_core::id::{QueueName, RunId};
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::port::forge::{ForgeMerge, RepoId};
use swarm_core::port::records::Records;
use swarm_core::port::sandbox::Sandbox;
use swarm_core::run::Limit;
use swarm_core::spend::UsdMicros;
use swarm_graph::engine::{Engine, StartOptions};
use swarm_graph::node::Node;
use swarm_graph::registry::Registry;
use swarm_graph::store::memory::MemoryStore;
use swarm_graph::system::{SystemClock, SystemEntropy};
use swarm_tools::forge::local::{self, LocalForge};
use swarm_tools::git::{Credentials, Git, Mirrors};
use swarm_tools::prompt::Prompts;
use swarm_tools::sandbox;
use swarm_tools::toolbox;
use swarm_tools::workspace::Workspaces;

use crate::agent;
use crate::config::Settings;
use crate::defaults;
use crate::life::Life;
use crate::order::{Order, real};
use crate::parts::{self, Bot, Parts, RepoSettings, Repositories};
use crate::worker::worker_id;

pub use graphs::Layers;
pub use home::Home;
pub(crate) use home::{postgres_options, store_file};
pub use models::ModelSource;
pub(crate) use models::{http_client, live};

/// The graph that an issue is given to.
const FIRST_GRAPH: &str = "manager";

type Register = Box<dyn FnOnce(Registry, &Arc<Parts>) -> Registry + Send>;

/// Everything that a host can be given before it is put together.
pub struct HostBuilder {
    models: Option<ModelSource>,
    register: Vec<Register>,
    graphs: graphs::Given,
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder")
            .field("models", &self.models)
            .field("graphs", &self.graphs)
            .finish_non_exhaustive()
    }
}

impl Default for HostBuilder {
    fn default() -> Self {
        Self {
            models: Some(ModelSource::Configured),
            register: Vec::new(),
            graphs: graphs::Given::default(),
        }
    }
}

impl HostBuilder {
    /// With turns from this source instead of the configured models.
    #[must_use]
    pub fn models_from(mut self, source: ModelSource) -> Self {
        self.models = Some(source);
        self
    }

    /// Without models: it can start runs and read graphs, but nodes that ask a model fail.
    #[must_use]
    pub fn without_models(mut self) -> Self {
        self.models = None;
        self
    }

    /// With one more node kind; one of the same name as a built-in kind replaces it.
    #[must_use]
    pub fn node<N: Node>(
        self,
        build: impl Fn(N::Config) -> Result<N, String> + Send + Sync + 'static,
    ) -> Self {
        self.register(move |registry, _| registry.node::<N>(build))
    }

    /// With more node kinds, types and reducers; kinds may be built from the host's own parts.
    #[must_use]
    pub fn register(
        mut self,
        register: impl FnOnce(Registry, &Arc<Parts>) -> Registry + Send + 'static,
    ) -> Self {
        self.register.push(Box::new(register));
        self
    }

    /// With the graphs in a directory over the built-in ones, file by file. What the
    /// configuration names lies over them in turn.
    #[must_use]
    pub fn graphs_from(mut self, dir: impl Into<PathBuf>) -> Self {
        self.graphs.dirs.push(dir.into());
        self
    }

    /// With one more built-in graph, or another one in the place of the built-in one at `path`,
    /// such as `deliver.yaml`. Files in directories lie over it.
    #[must_use]
    pub fn graph(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.graphs.texts.push((path.into(), text.into()));
        self
    }

    /// Puts the host together.
    ///
    /// # Errors
    /// When a part cannot be had: the data directory, git, a model, a prompt, or a graph with all
    /// its defects.
    pub async fn build(self, settings: Settings) -> Result<Host> {
        let home = Home::open(&settings).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let models = match &self.models {
            Some(source) => models::models(&settings, source, &clock, &entropy)?,
            None => models::Models::new(),
        };
        let life = Life::begin(&settings.data_dir, worker_id(entropy.as_ref()));
        let assembled = self.assemble(&settings, home.records(), models, life.path());
        let (registry, parts, texts) = assembled?;
        let library = texts.load(registry)?;
        let queues = graphs::queues(&library);
        let lease = settings.values.worker.lease.0;
        let store = home.store().clone();
        let library = Arc::new(library);
        let engine = Engine::with_lease(store, clock, Arc::clone(&entropy), library, lease);
        home.wakes(&engine);
        Ok(Host { settings, engine, parts, life: Arc::new(life), queues })
    }

    /// What graphs are checked against, and the graphs' texts, without opening a data directory.
    ///
    /// # Errors
    /// When a part cannot be had: git, or a prompt.
    pub fn registry(self, settings: &Settings) -> Result<(Registry, Layers)> {
        let records = Arc::new(MemoryStore::new());
        let (registry, _, texts) = self.assemble(settings, records, models::Models::new(), None)?;
        Ok((registry, texts))
    }

    fn assemble(
        self,
        settings: &Settings,
        records: Arc<dyn Records>,
        models: models::Models,
        life: Option<PathBuf>,
    ) -> Result<(Registry, Arc<Parts>, Layers)> {
        let forge = LocalForge::new(records, Arc::new(SystemClock), forge_config(settings));
        let parts = Arc::new(parts(settings, forge.clone(), models, life)?);
        let merger: Arc<dyn ForgeMerge> = Arc::new(forge);
        let mut registry = parts::register(Registry::new(), &parts, &merger);
        for register in self.register {
            registry = register(registry, &parts);
        }
        let texts = Layers::of(settings, self.graphs);
        Ok((registry, parts, texts))
    }
}

/// A host, put together.
pub struct Host {
    settings: Settings,
    engine: Engine,
    parts: Arc<Parts>,
    life: Arc<Life>,
    queues: Vec<QueueName>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// A run that was asked for.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its id.
    pub id: RunId,
    /// Whether it was started now; else it was there already.
    pub is_new: bool,
}

impl Host {
    /// What is in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What node kinds are built from.
    #[must_use]
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// The life of this process as a worker.
    #[must_use]
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// The queues that the loaded graphs use.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueName> {
        self.queues.clone()
    }

    /// Starts the run of an order, or finds it; `new` starts another one in any case.
    ///
    /// # Errors
    /// When the graph `manager` is missing or takes no such input; the store's failure.
    pub async fn start(&self, order: &Order, new: bool, priority: i32) -> Result<Started> {
        let id = if new {
            order.new_run_id(self.engine.store().as_ref()).await?
        } else {
            order.run_id()
        };
        let budget = &self.settings.values.budget;
        let options = StartOptions {
            queue: QueueName::new("manager").expect("a word is a queue name"),
            priority,
            labels: [("repo", &order.repo.0), ("title", &order.title)]
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .into(),
            limit: Some(Limit {
                usd: Some(UsdMicros::from_dollars(budget.usd)),
                tokens: Some(budget.tokens),
            }),
        };
        let input = order.input();
        let is_new = self
            .engine
            .start(id.clone(), FIRST_GRAPH, input, options)
            .await
            .with_context(|| format!("cannot start run `{id}`"))?;
        Ok(Started { id, is_new })
    }
}

/// The people of the configuration, and the swarm itself.
fn forge_config(settings: &Settings) -> local::Config {
    let mut config = local::Config::new(settings.owner());
    for (login, permission) in &settings.values.people.permissions {
        if *login != settings.owner() {
            config.members.push(local::Member {
                login: login.clone(),
                permission: *permission,
                emails: Vec::new(),
            });
        }
    }
    config
}

/// How commands of repositories and models are walled in here.
pub(crate) fn sandbox_config(settings: &Settings) -> Result<sandbox::Config> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut config =
        sandbox::Config::new(program, &settings.data_dir, settings.environment().variables());
    config.minimum = settings.values.sandbox.minimum;
    config.read_only.clone_from(&settings.values.sandbox.read_only);
    config.host_network = settings
        .values
        .repositories
        .iter()
        .flatten()
        .any(|one| one.setup_network == swarm_core::port::sandbox::Network::Host);
    Ok(config)
}

/// The prompts: the configured directory over the built-in ones, file by file.
pub(crate) fn prompts(settings: &Settings) -> Result<Prompts> {
    let built_in = defaults::PROMPTS.iter().copied();
    let kept = settings.data_dir.join("prompts");
    let dir = settings.values.prompts.clone().or_else(|| kept.is_dir().then_some(kept));
    match dir {
        Some(dir) => Prompts::load_over(built_in, &dir)
            .with_context(|| format!("the prompts in {} cannot be used", dir.display())),
        None => Prompts::embedded(built_in).context("the built-in prompts cannot be used"),
    }
}

fn parts(
    settings: &Settings,
    forge: LocalForge,
    models: models::Models,
    life: Option<PathBuf>,
) -> Result<Parts> {
    let data = &settings.data_dir;
    let values = &settings.values;
    let path = settings.environment().get("PATH").unwrap_or_default();
    let git = Git::find(path.as_ref()).context("git is needed: apt-get install git")?;
    let sandbox: Arc<dyn Sandbox> =
        sandbox::detect(sandbox::Config { life, ..sandbox_config(settings)? });
    let limits = values.sandbox.limits.clone();
    Ok(Parts {
        forge: Arc::new(forge),
        models,
        sandbox,
        check_limits: limits.clone(),
        mirrors: Mirrors::new(data.join("mirrors"), git),
        credentials: Credentials::none(),
        workspaces: Workspaces::new(data.join("workspaces")),
        prompts: prompts(settings)?,
        bot: Bot::default(),
        change_policy: values.policy.change.clone(),
        gate_policy: values.policy.merge.clone(),
        limits: agent::Limits::default(),
        tool_limits: tool_limits(&limits),
        repositories: repositories(settings),
    })
}

/// What a model's commands may use up: as all commands, but it is not told more of an output than
/// it can read.
fn tool_limits(limits: &swarm_core::port::sandbox::Limits) -> toolbox::Limits {
    let usual = toolbox::Limits::default();
    let output_bytes = limits.output_bytes.min(usual.shell.output_bytes);
    let shell = swarm_core::port::sandbox::Limits { output_bytes, ..limits.clone() };
    toolbox::Limits { shell, ..usual }
}

fn repositories(settings: &Settings) -> Repositories {
    let Some(listed) = &settings.values.repositories else {
        let others = Some(RepoSettings::default());
        return Repositories { listed: std::collections::BTreeMap::new(), others };
    };
    let listed = listed.iter().map(|one| {
        let id = RepoId(real(&one.path).to_string_lossy().into_owned());
        let settings = RepoSettings {
            checks: one.checks.clone(),
            required_checks: one.required_checks.clone(),
            setup_network: one.setup_network,
        };
        (id, settings)
    });
    Repositories { listed: listed.collect(), others: None }
}

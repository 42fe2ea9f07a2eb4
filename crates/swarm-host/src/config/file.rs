//! What `swarm.yaml` may hold, with the value of each key that is left out.
//!
//! The JSON schema is generated from these types; the text behind `///` is what editors show.
//! Plain structs only: flattened or untagged types would lose the places of mistakes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::gate;
use swarm_core::policy::ChangePolicy;
use swarm_core::port::forge::Permission;
use swarm_core::port::sandbox::{Level, Limits, Network};
use swarm_tools::checks::ChecksConfig;

use super::value::{Address, Span, Variable};

/// The configuration of one host. Everything may be left out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Which model answers which role.
    pub models: Models,
    /// What one issue may cost; above it a person is asked.
    pub budget: Budget,
    /// The repositories that may be worked on. When left out, any that a command names.
    pub repositories: Option<Vec<Repository>>,
    /// The walls around every command that a repository or a model causes.
    pub sandbox: Sandbox,
    /// What needs a person, and what a merge needs.
    pub policy: Policy,
    /// Who may do what in repositories on this machine.
    pub people: People,
    /// A directory with graphs that replace or join the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graphs: Option<PathBuf>,
    /// A directory with prompts that replace the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
    /// Where runs are kept: in the data directory, or in PostgreSQL.
    pub store: Store,
    /// How this process works on runs.
    pub worker: Worker,
    /// How long histories of runs are kept.
    pub retention: Retention,
}

/// Which model answers which role.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// The model of every role that has none of its own.
    pub default: Model,
    /// Models of single roles. What is left out is taken from `default`.
    pub roles: Roles,
}

/// Models of single roles.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// Plans.
    pub manager: Model,
    /// Implements.
    pub dev: Model,
    /// Reviews.
    pub reviewer: Model,
}

impl Roles {
    /// The model of a role.
    #[must_use]
    pub fn get(&self, role: Role) -> &Model {
        match role {
            Role::Manager => &self.manager,
            Role::Dev => &self.dev,
            Role::Reviewer => &self.reviewer,
        }
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, role: Role) -> &mut Model {
        match role {
            Role::Manager => &mut self.manager,
            Role::Dev => &mut self.dev,
            Role::Reviewer => &mut self.reviewer,
        }
    }
}

/// A role that asks models.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Plans.
    Manager,
    /// Implements.
    Dev,
    /// Reviews.
    Reviewer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Manager, Self::Dev, Self::Reviewer];

    /// The word as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Dev => "dev",
            Self::Reviewer => "reviewer",
        }
    }
}

/// Which wire format a model's server speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// OpenAI's chat completions; also spoken by Ollama, vLLM, OpenRouter and many others.
    Openai,
    /// Anthropic's messages.
    Anthropic,
}

impl Provider {
    /// The word as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// A model and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Which wire format its server speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Its name at the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The server's address, such as `http://localhost:11434/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<Address>,
    /// The environment variable that holds the key. The key itself is never written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<Variable>,
    /// A file that holds the key and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// What it costs. Without it, budgets in dollars cannot bind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// How long to wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// How often to ask again after a failure that may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// The most tokens it can answer with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256))]
    pub tokens_max: Option<u32>,
    /// Models to ask instead, in this order, when it cannot answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Fallback>,
}

/// A model to ask instead.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Which wire format its server speaks.
    pub provider: Provider,
    /// Its name at the provider.
    pub name: String,
    /// The server's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<Address>,
    /// The environment variable that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<Variable>,
    /// A file that holds the key and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

/// Dollars for a million tokens.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens read.
    #[schemars(range(min = 0))]
    pub input: f64,
    /// Tokens read that the provider had cached; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cached: Option<f64>,
    /// Tokens read that the provider wrote to its cache; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cache_write: Option<f64>,
    /// Tokens written, reasoning included.
    #[schemars(range(min = 0))]
    pub output: f64,
}

/// How long to wait for a model.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From the request until the answer begins.
    pub header: Span,
    /// From one piece of the answer to the next.
    pub read: Span,
    /// From the request until the answer is whole.
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Span(Duration::from_secs(120)),
            read: Span(Duration::from_secs(180)),
            total: Span(Duration::from_secs(20 * 60)),
        }
    }
}

/// How often to ask again after a failure that may pass.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Attempts in all, the first included.
    #[schemars(range(min = 1, max = 20))]
    pub attempts_max: u32,
    /// The wait before the second attempt; it doubles each time.
    pub initial: Span,
    /// The longest wait, unless the provider asks for a longer one.
    pub max: Span,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            initial: Span(Duration::from_secs(1)),
            max: Span(Duration::from_secs(60)),
        }
    }
}

/// What one issue may cost, with all runs that it causes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Dollars.
    #[schemars(range(min = 0))]
    pub usd: f64,
    /// Model tokens, in and out.
    pub tokens: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { usd: 10.0, tokens: 4_000_000 }
    }
}

/// What needs a person, and what a merge needs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What a change may do unseen; above it a person is asked.
    pub change: ChangePolicy,
    /// What a merge needs.
    pub merge: gate::Policy,
}

/// A repository that may be worked on, and what is special about it.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// The repository on this machine.
    pub path: PathBuf,
    /// Tests, linters and set-up, where they shall not be detected.
    #[serde(default)]
    pub checks: ChecksConfig,
    /// Checks that must pass before a merge; when left out, those that the reviewer sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_checks: Option<Vec<String>>,
    /// What the set-up step may reach. Nothing else ever has a network.
    #[serde(default)]
    pub setup_network: Network,
}

/// The walls around every command that a repository or a model causes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// The weakest walls that will do. Without any of this strength no command is run.
    pub minimum: Level,
    /// More directories that commands may read, such as toolchains outside of PATH.
    pub read_only: Vec<PathBuf>,
    /// What one command may use up.
    pub limits: Limits,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { minimum: Level::Landlock, read_only: Vec::new(), limits: Limits::default() }
    }
}

/// Who may do what in repositories on this machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct People {
    /// The login of whoever uses the command line; else the name of the user account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What others may do, by login. Approving a change needs `write`.
    pub permissions: BTreeMap<String, Permission>,
}

/// Where runs are kept. Without a URL of PostgreSQL in the environment or a file, a file in the
/// data directory is the store.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The environment variable that holds the URL, such as `postgres://user@host:5432/name`. The
    /// URL itself is never written here, for it may hold a password.
    pub url_env: Variable,
    /// A file that holds the URL and nothing else. The variable is over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// The PostgreSQL schema that holds the tables; each swarm has one of its own.
    pub schema: String,
    /// How many connections this process opens at most.
    #[schemars(range(min = 2, max = 500))]
    pub connections: u32,
    /// Whether an older schema is brought up to date by whoever opens it; else only by `db migrate`.
    pub migrate: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url_env: Variable("DATABASE_URL".to_owned()),
            url_file: None,
            schema: "swarm".to_owned(),
            connections: 10,
            migrate: true,
        }
    }
}

/// How this process works on runs.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// How many runs to work on at once.
    #[schemars(range(min = 1, max = 256))]
    pub slots: u32,
    /// How long a run stays with a worker that no longer reports.
    pub lease: Span,
    /// How often to look for runs that nobody announced.
    pub poll: Span,
    /// How long running nodes may go on after SIGTERM before they are handed back.
    pub grace: Span,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            slots: 4,
            lease: Span(Duration::from_secs(10)),
            poll: Span(Duration::from_secs(1)),
            grace: Span(Duration::from_secs(20)),
        }
    }
}

/// How long histories of runs are kept. Whatever it says, a run can go on from where it is.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Checkpoints of runs that have not ended. When left out, all.
    pub live: Keep,
    /// Checkpoints of runs that have ended: after a week only the last one, unless said otherwise.
    pub ended: Keep,
    /// How long after its end a run is removed, with all below it; `null` is never.
    pub remove_after: Option<Span>,
    /// How often to look for what is to go.
    pub every: Span,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            live: Keep::default(),
            ended: Keep { last: None, max_age: Some(Span(Duration::from_secs(7 * DAY))) },
            remove_after: Some(Span(Duration::from_secs(90 * DAY))),
            every: Span(Duration::from_secs(60 * 60)),
        }
    }
}

/// How many checkpoints of a run are kept. The last one always is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Only so many, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub last: Option<u64>,
    /// Only those not older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

//! What node kinds are built from: ports, policies, and what is known of each repository.
//!
//! Whoever holds [`Parts`] cannot merge: the merging credential is handed to
//! [`register`] beside them and goes to one node kind only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::diff::Diff;
use swarm_core::failure::Failure;
use swarm_core::gate;
use swarm_core::policy::ChangePolicy;
use swarm_core::port::forge::{
    self, Actor, ForgeMerge, ForgeWrite, PullRequest, RepoId, RequiredCheck, Sha,
};
use swarm_core::port::model::ChatModel;
use swarm_core::port::sandbox::{self, Network, Sandbox};
use swarm_graph::node::NodeError;
use swarm_graph::registry::Registry;
use swarm_tools::checks::ChecksConfig;
use swarm_tools::git::{Credentials, Mirror, Mirrors, Person};
use swarm_tools::prompt::Prompts;
use swarm_tools::toolbox;
use swarm_tools::workspace::Workspaces;

use crate::handover::Issue;
use crate::{agent, dev, handover, manager, ops, reviewer};

/// The names of the statuses that our reviewer sets, and that a merge requires unless the
/// configuration names others.
pub mod status {
    /// The repository's tests.
    pub const TESTS: &str = "swarm/tests";
    /// The repository's linters, on changed lines.
    pub const LINT: &str = "swarm/lint";
    /// The model's review.
    pub const REVIEW: &str = "swarm/review";
}

/// Who the swarm is on a forge and in commits.
#[derive(Clone, Debug)]
pub struct Bot {
    /// Its login.
    pub login: String,
    /// Its mail address in commits.
    pub email: String,
}

impl Default for Bot {
    fn default() -> Self {
        Self { login: "devinswarm[bot]".to_owned(), email: "bot@devinswarm.invalid".to_owned() }
    }
}

impl Bot {
    /// As an actor on a forge.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { login: self.login.clone(), is_bot: true }
    }

    /// As author and committer.
    #[must_use]
    pub fn person(&self) -> Person {
        Person { name: self.login.clone(), email: self.email.clone() }
    }
}

/// What is special about a repository.
#[derive(Clone, Debug, Default)]
pub struct RepoSettings {
    /// Tests, linters and set-up, where they shall not be detected.
    pub checks: ChecksConfig,
    /// Checks that must pass before a merge; `None`: those that our reviewer sets.
    pub required_checks: Option<Vec<String>>,
    /// What the set-up step may reach.
    pub setup_network: Network,
}

/// Which repositories may be worked on.
#[derive(Clone, Debug)]
pub struct Repositories {
    /// Those that the configuration names.
    pub listed: BTreeMap<RepoId, RepoSettings>,
    /// What holds for every other one; `None`: no other one may be worked on.
    pub others: Option<RepoSettings>,
}

/// What node kinds are built from.
pub struct Parts {
    /// The forge, without the right to merge.
    pub forge: Arc<dyn ForgeWrite>,
    /// The models by role: `manager`, `dev`, `reviewer`.
    pub models: BTreeMap<String, Arc<dyn ChatModel>>,
    /// Where commands of repositories and models run.
    pub sandbox: Arc<dyn Sandbox>,
    /// What a command of the repository's checks may use up.
    pub check_limits: sandbox::Limits,
    /// Mirrors of repositories.
    pub mirrors: Mirrors,
    /// What git needs to reach origins.
    pub credentials: Credentials,
    /// Working trees.
    pub workspaces: Workspaces,
    /// Prompts by name, such as `dev/implement.md`.
    pub prompts: Prompts,
    /// Who the swarm is.
    pub bot: Bot,
    /// What needs a person, judged on the diff.
    pub change_policy: ChangePolicy,
    /// What a merge demands beside required checks, which are set per repository.
    pub gate_policy: gate::Policy,
    /// What bounds a conversation, unless a node's `config` says otherwise.
    pub limits: agent::Limits,
    /// What bounds a tool call.
    pub tool_limits: toolbox::Limits,
    /// Which repositories may be worked on.
    pub repositories: Repositories,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("bot", &self.bot).finish_non_exhaustive()
    }
}

/// What a planner sees of a repository, at the head of its base branch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Overview {
    /// Paths of files, in order.
    pub files: Vec<String>,
    /// How many more there are.
    pub files_cut: usize,
    /// The README.
    pub readme: Option<String>,
    /// `AGENTS.md`.
    pub instructions: Option<String>,
}

/// The most files of an overview.
const OVERVIEW_FILES_MAX: usize = 1500;

impl Parts {
    /// The model of a role.
    ///
    /// # Errors
    /// A fatal failure of class `no_model` that names the roles there are.
    pub fn model(&self, role: &str) -> Result<Arc<dyn ChatModel>, Failure> {
        self.models.get(role).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("no model is configured for role `{role}`; configured: {known}");
            Failure::fatal("no_model", message)
        })
    }

    /// A prompt, rendered.
    ///
    /// # Errors
    /// A fatal failure of class `prompt`: it is missing, or names what it is not given.
    pub fn prompt(&self, name: &str, words: &Value) -> Result<String, Failure> {
        self.prompts
            .render(name, words)
            .map_err(|error| Failure::fatal("prompt", error.to_string()))
    }

    /// What is special about a repository.
    ///
    /// # Errors
    /// A fatal failure of class `repository_not_allowed`.
    pub fn settings(&self, repo: &RepoId) -> Result<&RepoSettings, Failure> {
        let listed = &self.repositories.listed;
        listed.get(repo).or(self.repositories.others.as_ref()).ok_or_else(|| {
            let message = format!(
                "repository `{repo}` is not one that may be worked on: add it to `repositories` in swarm.yaml"
            );
            Failure::fatal("repository_not_allowed", message)
        })
    }

    /// What a merge into a repository demands.
    ///
    /// # Errors
    /// As for [`settings`](Self::settings).
    pub fn gate_policy(&self, repo: &RepoId) -> Result<gate::Policy, Failure> {
        let ours = [status::TESTS, status::LINT, status::REVIEW];
        let names = match &self.settings(repo)?.required_checks {
            Some(names) => names.clone(),
            None => ours.map(str::to_owned).to_vec(),
        };
        let required = names.into_iter().map(|name| RequiredCheck {
            // Anyone with write permission can set any status: ours are believed from us alone.
            source: ours.contains(&name.as_str()).then(|| self.bot.login.clone()),
            name,
        });
        let mut policy = self.gate_policy.clone();
        policy.required_checks.extend(required);
        Ok(policy)
    }

    /// The mirror of a repository, brought up to date.
    ///
    /// # Errors
    /// What forge and git say.
    pub async fn mirror(&self, repo: &RepoId) -> Result<Mirror, Failure> {
        self.settings(repo)?;
        let facts = self.forge.repo(repo).await.map_err(forge_failure)?;
        Ok(self.mirrors.mirror(&facts.clone_url, &self.credentials).await?)
    }

    /// The mirror of a repository as it was fetched last.
    ///
    /// # Errors
    /// What forge and git say.
    pub async fn mirror_as_is(&self, repo: &RepoId) -> Result<Mirror, Failure> {
        self.settings(repo)?;
        let facts = self.forge.repo(repo).await.map_err(forge_failure)?;
        Ok(self.mirrors.open(&facts.clone_url).await?)
    }

    /// What a pull request changes, from where it left its base.
    ///
    /// # Errors
    /// What forge and git say.
    pub async fn diff_of_pull(&self, repo: &RepoId, pull: &PullRequest) -> Result<Diff, Failure> {
        let mut mirror = self.mirror_as_is(repo).await?;
        if !mirror.has_commit(&pull.head_sha).await? || !mirror.has_commit(&pull.base_sha).await? {
            mirror = self.mirror(repo).await?;
        }
        let fork = mirror.merge_base(&pull.base_sha, &pull.head_sha).await?;
        let fork = fork.unwrap_or_else(|| pull.base_sha.clone());
        Ok(mirror.diff(&fork, &pull.head_sha).await?)
    }

    /// What a planner sees of the issue's repository.
    ///
    /// # Errors
    /// What forge and git say.
    pub async fn overview(&self, issue: &Issue) -> Result<Overview, NodeError> {
        let mirror = self.mirror(&issue.repo).await?;
        let base = mirror.branch(&issue.base_branch).await.map_err(Failure::from)?;
        let mut files = mirror.files(&base).await.map_err(Failure::from)?;
        let files_cut = files.len().saturating_sub(OVERVIEW_FILES_MAX);
        files.truncate(OVERVIEW_FILES_MAX);
        let readme = files.iter().find(|path| {
            let name = path.to_ascii_lowercase();
            name == "readme" || name.starts_with("readme.")
        });
        let readme = match readme {
            Some(path) => text_at(&mirror, &base, path, 8_000).await?,
            None => None,
        };
        let instructions = instructions(&mirror, &base).await?;
        Ok(Overview { files, files_cut, readme, instructions })
    }
}

/// What the repository tells its contributors, as it stands in a commit that people made.
///
/// # Errors
/// What git says.
pub async fn instructions(mirror: &Mirror, base: &Sha) -> Result<Option<String>, Failure> {
    text_at(mirror, base, "AGENTS.md", 16_000).await
}

/// The beginning of a text file in a commit.
async fn text_at(
    mirror: &Mirror,
    commit: &Sha,
    path: &str,
    chars: usize,
) -> Result<Option<String>, Failure> {
    let bytes = match mirror.read_file(commit, path).await {
        Ok(bytes) => bytes,
        Err(swarm_tools::git::Error::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(bytes.map(|bytes| agent::clip(&String::from_utf8_lossy(&bytes), chars)))
}

/// A forge's refusal as a node's failure: what may pass by itself may be retried.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
pub fn forge_failure(error: forge::Error) -> Failure {
    let message = error.to_string();
    match error {
        forge::Error::NotFound { .. } => Failure::fatal("not_found", message),
        forge::Error::HeadMoved { .. } => Failure::fatal("head_moved", message),
        forge::Error::BaseMoved { .. } => Failure::fatal("base_moved", message),
        forge::Error::NotMergeable(_) => Failure::fatal("not_mergeable", message),
        forge::Error::Refused(_) => Failure::fatal("refused", message),
        forge::Error::Denied(_) => Failure::fatal("denied", message),
        forge::Error::RateLimited { retry_after } => {
            Failure::retryable("rate_limit", message).after(retry_after)
        }
        forge::Error::Unreachable(_) => Failure::retryable("io", message),
    }
}

/// Adds every node kind, type and answer of the shipped graphs.
#[must_use]
pub fn register(registry: Registry, parts: &Arc<Parts>, merger: &Arc<dyn ForgeMerge>) -> Registry {
    let registry = handover::register(registry);
    let registry = manager::register(registry, parts);
    let registry = dev::register(registry, parts);
    let registry = reviewer::register(registry, parts);
    ops::register(registry, parts, merger)
}

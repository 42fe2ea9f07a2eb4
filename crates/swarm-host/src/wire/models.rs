//! Which models answer: real ones, recorded ones, or a recording.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::port::model::ChatModel;
use swarm_tools::model::config::{Retries, Timeouts};
use swarm_tools::model::{
    FallbackModel, ModelConfig, ModelName, Price, Provider, RecordingModel, RemoteModel,
    ReplayModel,
};

use crate::command::Usage;
use crate::config::{self, ModelChoice, Role, Settings};

/// Where turns come from.
#[derive(Clone, Debug, Default)]
pub enum ModelSource {
    /// The configured models.
    #[default]
    Configured,
    /// The configured models, every turn written to this file.
    Recorded(PathBuf),
    /// The recording in this file.
    Replayed(PathBuf),
    /// A recording that is part of the program.
    BuiltIn {
        /// What it is called in errors.
        name: &'static str,
        /// Its text.
        text: &'static str,
    },
}

impl ModelSource {
    /// What `--record` and `--replay` say; they exclude each other.
    #[must_use]
    pub fn of(flags: &crate::cli::Models) -> Self {
        match (&flags.record, &flags.replay) {
            (_, Some(file)) => Self::Replayed(file.clone()),
            (Some(file), None) => Self::Recorded(file.clone()),
            (None, None) => Self::Configured,
        }
    }
}

/// The model of each role by the role's name.
pub(crate) type Models = BTreeMap<String, Arc<dyn ChatModel>>;

/// The models of all roles.
///
/// # Errors
/// [`Usage`] when a role has no model; a recording that cannot be read or written.
pub(crate) fn models(
    settings: &Settings,
    source: &ModelSource,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Models> {
    if let Some(replay) = replay(source)? {
        return Ok(Role::ALL.map(|role| (role.as_str().to_owned(), Arc::clone(&replay))).into());
    }
    let http = http_client()?;
    let mut models = Models::new();
    for role in Role::ALL {
        let Some(choice) = settings.model(role) else { bail!(no_model(role)) };
        let mut model = live(&choice, &http, clock, entropy)?;
        if let ModelSource::Recorded(file) = source {
            model = Arc::new(
                RecordingModel::open(model, file)
                    .with_context(|| format!("cannot write the recording {}", file.display()))?,
            );
        }
        models.insert(role.as_str().to_owned(), model);
    }
    Ok(models)
}

fn no_model(role: Role) -> Usage {
    Usage(format!(
        "no model is configured for role `{}`; name one with --model PROVIDER:NAME (such as \
         openai:NAME with OPENAI_API_KEY, and OPENAI_BASE_URL for any other server that speaks its \
         format; or anthropic:NAME with ANTHROPIC_API_KEY), or as models.default in swarm.yaml",
        role.as_str()
    ))
}

fn replay(source: &ModelSource) -> Result<Option<Arc<dyn ChatModel>>> {
    let unreadable = |file: &Path| format!("cannot replay {}", file.display());
    Ok(match source {
        ModelSource::Configured | ModelSource::Recorded(_) => None,
        ModelSource::Replayed(file) => {
            Some(Arc::new(ReplayModel::open(file).with_context(|| unreadable(file))?))
        }
        ModelSource::BuiltIn { name, text } => Some(Arc::new(
            ReplayModel::from_text(*name, text).with_context(|| unreadable(Path::new(name)))?,
        )),
    })
}

/// The model with its fallbacks.
///
/// # Errors
/// When its address cannot be used.
pub(crate) fn live(
    choice: &ModelChoice,
    http: &reqwest::Client,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<dyn ChatModel>> {
    let remote = |choice: &ModelChoice| -> Result<Arc<dyn ChatModel>> {
        let (clock, entropy) = (Arc::clone(clock), Arc::clone(entropy));
        Ok(Arc::new(RemoteModel::new(config_of(choice), http.clone(), clock, entropy)?))
    };
    let first = remote(choice)?;
    if choice.fallbacks.is_empty() {
        return Ok(first);
    }
    let rest = choice.fallbacks.iter().map(remote).collect::<Result<_>>()?;
    Ok(Arc::new(FallbackModel::new(first, rest)))
}

/// One client for all models. It follows no redirect: a key goes where it was configured to go.
///
/// # Errors
/// When the machine's certificates cannot be read.
pub(crate) fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("devinswarm/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("cannot set up HTTP")
}

fn config_of(choice: &ModelChoice) -> ModelConfig {
    let provider = match choice.provider {
        config::Provider::Openai => Provider::OpenAi,
        config::Provider::Anthropic => Provider::Anthropic,
    };
    let (timeouts, retries) = (choice.timeouts, choice.retries);
    ModelConfig {
        base_url: choice.base_url.clone(),
        key: choice.key.clone(),
        price: choice.price.map(|price| Price {
            input: price.input,
            cached: price.cached,
            cache_write: price.cache_write,
            output: price.output,
        }),
        timeouts: Timeouts {
            header: timeouts.header.0,
            read: timeouts.read.0,
            total: timeouts.total.0,
        },
        retries: Retries {
            attempts_max: retries.attempts_max,
            initial: retries.initial.0,
            max: retries.max.0,
        },
        tokens_max: choice.tokens_max,
        ..ModelConfig::new(ModelName { provider, name: choice.name.clone() })
    }
}

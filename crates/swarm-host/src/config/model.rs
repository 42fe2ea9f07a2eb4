//! Which model answers a role, with its key, once file, environment and flags are laid over
//! each other.
//!
//! A model that names its own key is an account of its own: the conventional variables leave it
//! alone, so that a key only ever goes where it was made for.

use std::path::Path;

use secrecy::SecretString;
use url::Url;

use super::check::nearest;
use super::environment::Environment;
use super::file::{Fallback, Model, Models, Price, Provider, Retries, Role, Roles, Timeouts};
use super::value::Address;

/// A model that a role may ask, ready to be called.
#[derive(Clone, Debug)]
pub struct ModelChoice {
    /// Which wire format its server speaks.
    pub provider: Provider,
    /// Its name at the provider.
    pub name: String,
    /// The server's address; `None` is the provider's own.
    pub base_url: Option<Url>,
    /// The key, if there is one.
    pub key: Option<SecretString>,
    /// Where the key comes from, or where it was looked for.
    pub key_from: String,
    /// What it costs.
    pub price: Option<Price>,
    /// The most tokens it can answer with.
    pub tokens_max: Option<u32>,
    /// How long to wait for it.
    pub timeouts: Timeouts,
    /// How often to ask again.
    pub retries: Retries,
    /// Models to ask instead, in this order.
    pub fallbacks: Vec<Self>,
}

impl ModelChoice {
    /// `provider:name`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}:{}", self.provider.as_str(), self.name)
    }
}

impl Provider {
    /// The conventional variable with the key.
    #[must_use]
    pub fn key_variable(self) -> &'static str {
        match self {
            Self::Openai => "OPENAI_API_KEY",
            Self::Anthropic => "ANTHROPIC_API_KEY",
        }
    }

    /// The conventional variable with the server's address.
    #[must_use]
    pub fn address_variable(self) -> &'static str {
        match self {
            Self::Openai => "OPENAI_BASE_URL",
            Self::Anthropic => "ANTHROPIC_BASE_URL",
        }
    }

    /// Where a key is made.
    #[must_use]
    pub fn console(self) -> &'static str {
        match self {
            Self::Openai => "https://platform.openai.com/api-keys",
            Self::Anthropic => "https://console.anthropic.com/settings/keys",
        }
    }
}

/// Reads `PROVIDER:NAME`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse(text: &str) -> Result<(Provider, String), String> {
    let Some((provider, name)) = text.split_once(':').filter(|(_, name)| !name.is_empty()) else {
        return Err(format!("`{text}` is no model; write PROVIDER:NAME, such as openai:NAME"));
    };
    let provider = match provider {
        "openai" => Provider::Openai,
        "anthropic" => Provider::Anthropic,
        other => {
            let perhaps = nearest(other, ["openai", "anthropic"])
                .map(|nearest| format!(", perhaps `{nearest}`"))
                .unwrap_or_default();
            return Err(format!(
                "no provider named `{other}`{perhaps}; known: anthropic, openai (any server that \
                 speaks OpenAI's format, by OPENAI_BASE_URL or models.default.base_url)"
            ));
        }
    };
    Ok((provider, name.to_owned()))
}

/// Makes `provider:name` the model of every role. Of the default, only what belongs to the same
/// provider is kept, and the price only when it is the same model.
pub(super) fn override_all(models: &mut Models, provider: Provider, name: String) {
    models.roles = Roles::default();
    let default = &mut models.default;
    if default.provider != Some(provider) {
        *default =
            Model { timeouts: default.timeouts, retries: default.retries, ..Model::default() };
    } else if default.name.as_deref() != Some(&name) {
        default.price = None;
    }
    default.provider = Some(provider);
    default.name = Some(name);
}

/// Lays the conventional address variables over every model without a key of its own. Returns
/// the paths of what was changed with the variable that did it.
pub(super) fn lay_addresses(
    models: &mut Models,
    environment: &Environment,
) -> Result<Vec<(String, &'static str)>, String> {
    let mut changed = Vec::new();
    let default_provider = models.default.provider;
    for role in std::iter::once(None).chain(Role::ALL.map(Some)) {
        let model = role.map_or(&mut models.default, |role| models.roles.get_mut(role));
        let provider = model.provider.or(default_provider).unwrap_or(Provider::Openai);
        let owns_key = model.key_env.is_some() || model.key_file.is_some();
        let inherits = role.is_some() && model.provider.is_none() && model.base_url.is_none();
        let variable = provider.address_variable();
        let Some(text) = environment.get(variable).filter(|_| !owns_key && !inherits) else {
            continue;
        };
        let address = Address::try_from(text.to_owned())
            .map_err(|message| format!("{variable}: {message}"))?;
        model.base_url = Some(address);
        let place = role.map_or("default".to_owned(), |role| format!("roles.{}", role.as_str()));
        changed.push((format!("models.{place}.base_url"), variable));
    }
    Ok(changed)
}

/// The model of a role; `None` when neither it nor the default names one.
pub(super) fn choose(
    models: &Models,
    role: Role,
    environment: &Environment,
    base: &Path,
) -> Option<ModelChoice> {
    let default = &models.default;
    let own = models.roles.get(role);
    let provider = own.provider.or(default.provider)?;
    let name = own.name.clone().or_else(|| default.name.clone())?;
    let same_server = default.provider == Some(provider) && own.base_url.is_none();
    let same_model = same_server && default.name.as_deref() == Some(&name);
    let inherited = |wanted: bool| if wanted { default.clone() } else { Model::default() };
    let server = inherited(same_server);
    let owns_key = own.key_env.is_some() || own.key_file.is_some();
    let account = if owns_key { own.clone() } else { server.clone() };
    let key_env = account.key_env.map(|variable| variable.0);
    let (key, key_from) =
        key(provider, key_env.as_deref(), account.key_file.as_deref(), environment, base);
    let timeouts = own.timeouts.or(default.timeouts).unwrap_or_default();
    let retries = own.retries.or(default.retries).unwrap_or_default();
    let fallbacks = if own.fallbacks.is_empty() { &default.fallbacks } else { &own.fallbacks };
    let fallbacks = fallbacks.iter().map(|fallback| ModelChoice {
        timeouts,
        retries,
        ..fall_back(fallback, environment, base)
    });
    let same = inherited(same_model);
    Some(ModelChoice {
        provider,
        name,
        base_url: own.base_url.clone().or(server.base_url).map(|address| address.0),
        key,
        key_from,
        price: own.price.or(same.price),
        tokens_max: own.tokens_max.or(same.tokens_max),
        timeouts,
        retries,
        fallbacks: fallbacks.collect(),
    })
}

fn fall_back(fallback: &Fallback, environment: &Environment, base: &Path) -> ModelChoice {
    let key_env = fallback.key_env.as_ref().map(|variable| variable.0.as_str());
    let (key, key_from) =
        key(fallback.provider, key_env, fallback.key_file.as_deref(), environment, base);
    ModelChoice {
        provider: fallback.provider,
        name: fallback.name.clone(),
        base_url: fallback.base_url.clone().map(|address| address.0),
        key,
        key_from,
        price: fallback.price,
        tokens_max: None,
        timeouts: Timeouts::default(),
        retries: Retries::default(),
        fallbacks: Vec::new(),
    }
}

/// The key and where it comes from. A file is read now, so a key that was put there while a run
/// waited is found by the next process.
fn key(
    provider: Provider,
    variable: Option<&str>,
    file: Option<&Path>,
    environment: &Environment,
    base: &Path,
) -> (Option<SecretString>, String) {
    if let Some(file) = file {
        let file = base.join(file);
        let from = format!("file {}", file.display());
        return match std::fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => {
                (Some(SecretString::from(text.trim().to_owned())), from)
            }
            Ok(_) => (None, format!("{from}, which is empty")),
            Err(error) => (None, format!("{from}, which cannot be read: {error}")),
        };
    }
    let variable = variable.unwrap_or_else(|| provider.key_variable());
    (environment.secret(variable), format!("variable {variable}"))
}

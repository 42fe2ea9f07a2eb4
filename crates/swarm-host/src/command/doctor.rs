//! `doctor`: what is there, what is missing, and what a person must do about it, in the words of
//! an escalation.
//!
//! It never gives up at the first trouble: what can still be looked at is looked at.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use swarm_core::escalation::{Reason, Request, request_line};
use swarm_core::port::clock::{Clock, Entropy};
use swarm_core::port::model::{ChatModel, ChatRequest, ErrorClass, Message, TurnListener};
use swarm_core::port::sandbox::Level;
use swarm_graph::system::{SystemClock, SystemEntropy};
use swarm_tools::git::Git;
use swarm_tools::sandbox;

use super::out::Out;
use crate::cli;
use crate::config::{self, Environment, ModelChoice, Overrides, Role, Settings};
use crate::progress::clean;
use crate::wire::{self, Home, HostBuilder, ModelSource};

/// Programs that checks of repositories commonly need; none is required by the swarm itself.
const TOOLCHAINS: [&str; 8] = ["cargo", "rustc", "python3", "pytest", "node", "npm", "go", "make"];

/// How long a model may take for a word.
const ONLINE_MAX: Duration = Duration::from_secs(60);

/// How something stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is there and works.
    Good,
    /// It is not there, and work can go on without it.
    Absent,
    /// Work cannot be done without it.
    Missing,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    state: State,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    need: Option<Request>,
}

impl Finding {
    fn good(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Good, says: says.into(), reason: None, need: None }
    }

    fn absent(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self { state: State::Absent, ..Self::good(what, says) }
    }

    fn missing(what: &str, says: impl Into<String>, reason: Reason, need: Request) -> Self {
        let missing = Self::good(what, says);
        Self { state: State::Missing, reason: Some(reason), need: Some(need), ..missing }
    }

    /// Something on the machine that a person must mend.
    fn broken(what: &str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::missing(what, says, Reason::Decision, Request::Text { question: mend.into() })
    }
}

/// Runs the command. The exit code is 1 when something is missing that work needs.
///
/// # Errors
/// When standard output is closed.
pub async fn run(
    environment: &Environment,
    overrides: &Overrides,
    builder: HostBuilder,
    out: Out,
    given: &cli::Doctor,
) -> Result<ExitCode> {
    let mut findings = vec![git(environment)];
    match config::load(environment, overrides) {
        Ok(settings) => {
            findings.push(configuration(&settings));
            findings.push(data_dir(&settings).await);
            findings.extend(sandboxes(&settings));
            findings.push(graphs(builder, &settings));
            findings.extend(models(&settings, given).await);
        }
        Err(error) => {
            let mend = "mend the configuration; `swarm-host config schema` says what it may hold";
            findings.push(Finding::broken("configuration", error.to_string(), mend));
        }
    }
    findings.extend(toolchains(environment));
    let is_well = findings.iter().all(|finding| finding.state != State::Missing);
    out.print(&findings, || text(&findings))?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(findings: &[Finding]) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .map(|finding| {
            let mark = match finding.state {
                State::Good => "✓",
                State::Absent => "-",
                State::Missing => "✗",
            };
            format!("{mark} {:<18} {}", finding.what, finding.says.replace('\n', "\n  "))
        })
        .collect();
    let mut needs: Vec<(Reason, &Request)> =
        findings.iter().filter_map(|one| Some((one.reason?, one.need.as_ref()?))).collect();
    // Three roles without a model need one thing.
    needs.dedup();
    lines.push(String::new());
    let Some((first, _)) = needs.first() else {
        lines.push("Everything that work needs is there.".to_owned());
        return lines.join("\n");
    };
    let title = if needs.iter().all(|(reason, _)| reason == first) {
        first.title()
    } else {
        "Several things are missing"
    };
    lines.push(format!("> **🛑 Escalation: {title}**"));
    lines.push("> **What I need from you:**".to_owned());
    for (index, (_, need)) in needs.iter().enumerate() {
        lines.push(format!("> {}) {}", index + 1, request_line(need)));
    }
    lines.push("> Then run `swarm-host doctor` again.".to_owned());
    lines.join("\n")
}

fn git(environment: &Environment) -> Finding {
    match Git::find(environment.get("PATH").unwrap_or_default().as_ref()) {
        Ok(git) => Finding::good("git", git.program().display().to_string()),
        Err(error) => Finding::broken("git", error.to_string(), "apt-get install git"),
    }
}

fn configuration(settings: &Settings) -> Finding {
    match (&settings.file, &settings.passed_over) {
        (Some(file), _) => Finding::good("configuration", file.display().to_string()),
        (None, Some(why)) => Finding::absent("configuration", why),
        (None, None) => {
            Finding::absent("configuration", "no swarm.yaml; everything has its built-in value")
        }
    }
}

async fn data_dir(settings: &Settings) -> Finding {
    let dir = settings.data_dir.display();
    match Home::open(settings).await {
        Ok(_) => Finding::good("data directory", dir.to_string()),
        Err(error) => Finding::broken(
            "data directory",
            format!("{error:#}"),
            format!("make {dir} writable, or name another directory with --data-dir"),
        ),
    }
}

/// Each level as it was tried here; the strongest one that works is used.
fn sandboxes(settings: &Settings) -> Vec<Finding> {
    let config = match wire::sandbox_config(settings) {
        Ok(config) => config,
        Err(error) => {
            return vec![Finding::broken("sandbox", format!("{error:#}"), "run it from its file")];
        }
    };
    let minimum = config.minimum;
    let found = sandbox::report(&config);
    let works = |level: Level| {
        level >= minimum && found.iter().any(|one| one.level == level && one.verdict.is_ok())
    };
    let is_enough = works(Level::Bubblewrap) || works(Level::Landlock);
    let name = |level: Level| match level {
        Level::Bubblewrap => "sandbox bubblewrap",
        Level::Landlock => "sandbox landlock",
    };
    let mut findings: Vec<Finding> = found
        .iter()
        .map(|one| match &one.verdict {
            Ok(gives) if one.level < minimum => Finding::absent(
                name(one.level),
                format!("{gives}; weaker than sandbox.minimum allows"),
            ),
            Ok(gives) => Finding::good(name(one.level), gives),
            Err(missing) => Finding::absent(name(one.level), missing),
        })
        .collect();
    if !is_enough {
        let question = "install bubblewrap (apt-get install bubblewrap), or run a kernel with \
                        Landlock; without a sandbox nothing is run";
        let need = Request::Text { question: question.to_owned() };
        let says = "no sandbox that is strong enough works here";
        findings.push(Finding::missing("sandbox", says, Reason::SandboxUnavailable, need));
    }
    findings
}

fn graphs(builder: HostBuilder, settings: &Settings) -> Finding {
    let loaded = builder
        .without_models()
        .registry(settings)
        .and_then(|(registry, texts)| texts.load(registry));
    match loaded {
        Ok(library) => Finding::good("graphs", library.names().join(", ")),
        Err(error) => Finding::broken(
            "graphs",
            format!("{error:#}"),
            "mend the graphs or prompts; `swarm-host graph check` names every defect",
        ),
    }
}

async fn models(settings: &Settings, given: &cli::Doctor) -> Vec<Finding> {
    if let ModelSource::Replayed(file) = ModelSource::of(&given.models) {
        return vec![recording(&file)];
    }
    let mut findings = Vec::new();
    for role in Role::ALL {
        let what = format!("model {}", role.as_str());
        findings.push(match settings.model(role) {
            None => no_model(&what),
            Some(choice) if given.online => online(&what, &choice).await,
            Some(choice) => configured(&what, &choice),
        });
    }
    findings
}

fn recording(file: &Path) -> Finding {
    match swarm_tools::model::ReplayModel::open(file) {
        Ok(_) => Finding::good("models", format!("replayed from {}", file.display())),
        Err(error) => Finding::broken("models", error.to_string(), "name a readable recording"),
    }
}

fn no_model(what: &str) -> Finding {
    let question = "name a model: --model PROVIDER:NAME, SWARM_MODEL, or models.default in \
                    swarm.yaml";
    let need = Request::Text { question: question.to_owned() };
    Finding::missing(what, "none is named", Reason::Decision, need)
}

fn configured(what: &str, choice: &ModelChoice) -> Finding {
    let at = choice.base_url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
    let id = choice.id();
    if choice.key.is_some() {
        return Finding::good(what, format!("{id}{at}, key from {}", choice.key_from));
    }
    if choice.base_url.is_some() {
        return Finding::good(
            what,
            format!("{id}{at}, without a key (none in {})", choice.key_from),
        );
    }
    no_key(what, choice, format!("{id}: no key in {}", choice.key_from))
}

fn no_key(what: &str, choice: &ModelChoice, says: String) -> Finding {
    let name = choice.key_from.strip_prefix("variable ").unwrap_or(&choice.key_from);
    let need = Request::Secret {
        name: name.to_owned(),
        create_at: choice.provider.console().to_owned(),
        scopes: vec!["model requests (chat)".to_owned()],
        paste_into: format!(
            "{}, or another place that models.default.key_env or key_file in swarm.yaml names",
            choice.key_from
        ),
    };
    Finding::missing(what, says, Reason::MissingSecret, need)
}

struct Silent;

impl TurnListener for Silent {
    fn text(&self, _: &str) {}
    fn retrying(&self, _: u32, _: Duration, _: &swarm_core::port::model::Error) {}
}

/// Asks the model for a word.
async fn online(what: &str, choice: &ModelChoice) -> Finding {
    let id = choice.id();
    let model = match model(choice) {
        Ok(model) => model,
        Err(error) => {
            return Finding::broken(what, format!("{id}: {error:#}"), "mend the model's base_url");
        }
    };
    let request = ChatRequest {
        system: "You answer with one word.".to_owned(),
        messages: vec![Message::User { text: "Say: ready".to_owned() }],
        tools: Vec::new(),
        answer_schema: None,
        tokens_max: 256,
        role: "doctor".to_owned(),
        conversation: "doctor".to_owned(),
    };
    let answered = tokio::time::timeout(ONLINE_MAX, model.chat(&request, &Silent)).await;
    match answered {
        Ok(Ok(turn)) => {
            let tokens = turn.usage.input + turn.usage.output;
            Finding::good(what, format!("{id} answers ({tokens} tokens, {})", turn.usd))
        }
        Ok(Err(error)) => match error.class {
            ErrorClass::Auth | ErrorClass::Quota => no_key(what, choice, clean(&error.to_string())),
            _ => unreachable_model(what, choice, clean(&error.to_string())),
        },
        Err(_) => unreachable_model(what, choice, format!("{id}: no answer in {ONLINE_MAX:?}")),
    }
}

fn unreachable_model(what: &str, choice: &ModelChoice, says: String) -> Finding {
    let mend = format!(
        "check that `{}` is served at the address that swarm.yaml or {} gives",
        choice.id(),
        choice.provider.address_variable()
    );
    Finding::broken(what, says, mend)
}

/// The model by itself: a fallback that answers would hide that it does not.
fn model(choice: &ModelChoice) -> Result<Arc<dyn ChatModel>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let mut alone = ModelChoice { fallbacks: Vec::new(), ..choice.clone() };
    alone.retries.attempts_max = 1;
    wire::live(&alone, &wire::http_client()?, &clock, &entropy)
}

fn toolchains(environment: &Environment) -> Vec<Finding> {
    let path = environment.path();
    let find = |name: &str| path.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    TOOLCHAINS
        .iter()
        .map(|&name| match find(name) {
            Some(file) => Finding::good(name, file.display().to_string()),
            None => Finding::absent(name, "not in PATH; only repositories that use it need it"),
        })
        .collect()
}

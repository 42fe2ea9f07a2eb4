//! What is in force: the file, the environment over it, flags over both.
//!
//! `./swarm.yaml` is not read when it lies in the repository that is worked on: whoever can
//! change the repository could otherwise choose where keys are sent. `--config` reads it anyway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use swarm_core::port::forge::Permission;
use thiserror::Error;

use crate::command::out::quoted;

use super::check;
use super::defect::{Defect, Defects};
use super::environment::Environment;
use super::file::{File, Role};
use super::model::{self, ModelChoice};
use super::semantics;
use super::tree::Node;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum Error {
    /// The file that was named cannot be read.
    #[error("cannot read configuration file {}, named by {by}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What named it.
        by: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Defects(Box<Defects>),
    /// Nothing says where to keep anything.
    #[error(
        "no home directory is known; say where to keep everything with --data-dir or SWARM_DATA_DIR"
    )]
    NoHome,
    /// A flag or a variable holds something that cannot be meant.
    #[error("{from}: {message}")]
    Bad {
        /// The flag or variable.
        from: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

/// What flags say, over everything else.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--model`
    pub model: Option<String>,
    /// `--slots`
    pub slots: Option<u32>,
    /// Read no file at all.
    pub without_file: bool,
    /// The repository that is worked on, whose own `swarm.yaml` is not to be trusted.
    pub repo: Option<PathBuf>,
}

/// One value that is in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// Its path of keys.
    pub key: String,
    /// The value; of a secret only whether there is one.
    pub value: String,
    /// Where it comes from.
    pub source: String,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// A file that was passed over, with why.
    pub passed_over: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// All values, paths absolute.
    pub values: File,
    environment: Environment,
    tree: Option<Node>,
    sources: BTreeMap<String, String>,
    /// Whether only the data directory may be the store: what reads no file reads no URL either.
    is_alone: bool,
}

/// Reads and checks the configuration.
///
/// # Errors
/// [`enum@Error`], of a wrong file with all its defects at once.
pub fn load(environment: &Environment, overrides: &Overrides) -> Result<Settings, Error> {
    let mut sources = BTreeMap::new();
    let data_dir = data_dir(environment, overrides, &mut sources)?;
    let found = find(environment, overrides, &data_dir)?;
    let (mut values, tree) = match &found.file {
        Some((path, text)) => {
            let (values, tree) = read(path, text)?;
            (values, Some(tree))
        }
        None => (File::default(), None),
    };
    lay_over(&mut values, environment, overrides, &mut sources)?;
    Ok(Settings {
        file: found.file.map(|(path, _)| path),
        passed_over: found.passed_over,
        data_dir,
        values,
        environment: environment.clone(),
        tree,
        sources,
        is_alone: overrides.without_file,
    })
}

/// The JSON schema of the file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    schema["title"] = "swarm.yaml".into();
    schema
}

impl Settings {
    /// The model of a role; `None` when none is named.
    #[must_use]
    pub fn model(&self, role: Role) -> Option<ModelChoice> {
        let base = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        model::choose(&self.values.models, role, &self.environment, base)
    }

    /// The URL of the PostgreSQL database that is the store, with where it comes from; `None`: a
    /// file in the data directory is.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for a file that is named and cannot be read, [`Error::Bad`] for a URL
    /// of another kind. The URL is never repeated: it may hold a password.
    pub fn database(&self) -> Result<Option<(SecretString, String)>, Error> {
        if self.is_alone {
            return Ok(None);
        }
        let store = &self.values.store;
        let (url, from) = match (self.environment.secret(&store.url_env.0), &store.url_file) {
            (Some(url), _) => (url, format!("variable {}", store.url_env.0)),
            (None, Some(path)) => {
                let base = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
                let path = base.join(path);
                let text = std::fs::read_to_string(&path).map_err(|source| Error::Unreadable {
                    path: path.clone(),
                    by: "store.url_file",
                    source,
                })?;
                (SecretString::from(text.trim().to_owned()), path.display().to_string())
            }
            (None, None) => return Ok(None),
        };
        let text = url.expose_secret();
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(Error::Bad {
                from: "the store's URL",
                message: format!(
                    "{from} holds none of PostgreSQL, such as `postgres://user@host:5432/name`; if \
                     it is meant for another program, name another variable as `store.url_env`"
                ),
            });
        }
        Ok(Some((url, from)))
    }

    /// Who uses the command line.
    #[must_use]
    pub fn owner(&self) -> String {
        let account = || self.environment.get("USER").or_else(|| self.environment.get("LOGNAME"));
        self.values
            .people
            .owner
            .clone()
            .or_else(|| account().filter(|name| semantics::is_login(name)).map(str::to_owned))
            .unwrap_or_else(|| "owner".to_owned())
    }

    /// What someone may do in repositories on this machine. The owner may do everything.
    #[must_use]
    pub fn permission(&self, login: &str) -> Permission {
        if login == self.owner() {
            return Permission::Admin;
        }
        self.values.people.permissions.get(login).copied().unwrap_or(Permission::None)
    }

    /// The flags that lead another command to the same data directory, with a space before them.
    #[must_use]
    pub fn flags(&self) -> String {
        if self.source("data_dir", &[]) == "--data-dir" {
            format!(" --data-dir {}", quoted(&self.data_dir.to_string_lossy()))
        } else {
            String::new()
        }
    }

    /// The environment that all this was read from.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Every value in force with where it comes from. Of secrets only whether they are there.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let mut shown = vec![Shown {
            key: "data_dir".to_owned(),
            value: self.data_dir.display().to_string(),
            source: self.source("data_dir", &[]),
        }];
        let values = serde_json::to_value(&self.values).unwrap_or_default();
        self.show_value(&values, &mut Vec::new(), &mut shown);
        let store = match self.database() {
            Ok(None) => ("a file in the data directory".to_owned(), "built in".to_owned()),
            Ok(Some((_, from))) => ("PostgreSQL".to_owned(), from),
            Err(error) => (error.to_string(), "-".to_owned()),
        };
        shown.push(Shown { key: "store".to_owned(), value: store.0, source: store.1 });
        for role in Role::ALL {
            let Some(choice) = self.model(role) else { continue };
            let state = if choice.key.is_some() { "set" } else { "not set" };
            shown.push(Shown {
                key: format!("models.{}.key", role.as_str()),
                value: format!("{state} ({})", choice.id()),
                source: choice.key_from,
            });
        }
        shown
    }

    fn show_value(&self, value: &Value, path: &mut Vec<String>, shown: &mut Vec<Shown>) {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    path.push(key.clone());
                    self.show_value(value, path, shown);
                    path.pop();
                }
            }
            Value::Object(_) | Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                let key = path.join(".");
                let value = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let source = self.source(&key, path);
                shown.push(Shown { key, value, source });
            }
        }
    }

    fn source(&self, key: &str, path: &[String]) -> String {
        if let Some(source) = self.sources.get(key) {
            return source.clone();
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let node = self.tree.as_ref().filter(|_| !path.is_empty()).and_then(|tree| tree.at(&path));
        match (node, &self.file) {
            (Some(node), Some(file)) => format!("{}:{}", file.display(), node.place.line),
            _ => "built in".to_owned(),
        }
    }
}

fn data_dir(
    environment: &Environment,
    overrides: &Overrides,
    sources: &mut BTreeMap<String, String>,
) -> Result<PathBuf, Error> {
    let (dir, source) = if let Some(dir) = &overrides.data_dir {
        (dir.clone(), "--data-dir")
    } else if let Some(dir) = environment.get("SWARM_DATA_DIR") {
        (PathBuf::from(dir), "variable SWARM_DATA_DIR")
    } else if let Some(state) = environment.get("XDG_STATE_HOME").filter(|dir| dir.starts_with('/'))
    {
        (Path::new(state).join("devinswarm"), "variable XDG_STATE_HOME")
    } else if let Some(home) = environment.get("HOME") {
        (Path::new(home).join(".local/state/devinswarm"), "variable HOME")
    } else {
        return Err(Error::NoHome);
    };
    sources.insert("data_dir".to_owned(), source.to_owned());
    Ok(environment.current_dir().join(dir))
}

struct Found {
    file: Option<(PathBuf, String)>,
    passed_over: Option<String>,
}

fn find(environment: &Environment, overrides: &Overrides, data_dir: &Path) -> Result<Found, Error> {
    if overrides.without_file {
        return Ok(Found { file: None, passed_over: None });
    }
    let here = environment.current_dir();
    let named = match (&overrides.config, environment.get("SWARM_CONFIG")) {
        (Some(path), _) => Some((path.clone(), "--config")),
        (None, Some(path)) => Some((PathBuf::from(path), "SWARM_CONFIG")),
        (None, None) => None,
    };
    if let Some((path, by)) = named {
        let path = here.join(path);
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Found { file: Some((path, text)), passed_over: None }),
            Err(source) => Err(Error::Unreadable { path, by, source }),
        };
    }
    let mut passed_over = None;
    for path in [here.join("swarm.yaml"), data_dir.join("swarm.yaml")] {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::Unreadable { path, by: "the usual place", source }),
        };
        if overrides.repo.as_deref().is_some_and(|repo| lies_in(&path, &here.join(repo))) {
            passed_over = Some(format!(
                "{} is part of the repository that is worked on, so it is not read; if you trust \
                 it, name it with --config",
                path.display()
            ));
            continue;
        }
        return Ok(Found { file: Some((path, text)), passed_over });
    }
    Ok(Found { file: None, passed_over })
}

fn lies_in(path: &Path, dir: &Path) -> bool {
    match (path.canonicalize(), dir.canonicalize()) {
        (Ok(path), Ok(dir)) => path.starts_with(dir),
        _ => false,
    }
}

fn read(path: &Path, text: &str) -> Result<(File, Node), Error> {
    let refuse = |defects: Vec<Defect>| {
        Error::Defects(Box::new(Defects { file: path.to_owned(), text: text.to_owned(), defects }))
    };
    let one =
        |place, message| refuse(vec![Defect { place, path: String::new(), message, help: None }]);
    let tree = Node::read(text).map_err(|unreadable| one(unreadable.place, unreadable.why))?;
    let mut defects = check::check(&tree, &schema());
    let decoded = serde_json::from_value::<File>(tree.to_value());
    let base = path.parent().unwrap_or(Path::new("."));
    match decoded {
        Ok(mut values) => {
            defects.extend(semantics::check(&mut values, &tree, base));
            defects.sort();
            if defects.is_empty() { Ok((values, tree)) } else { Err(refuse(defects)) }
        }
        Err(error) if defects.is_empty() => Err(one(tree.place, error.to_string())),
        Err(_) => Err(refuse(defects)),
    }
}

fn lay_over(
    values: &mut File,
    environment: &Environment,
    overrides: &Overrides,
    sources: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let model = overrides
        .model
        .as_deref()
        .map(|text| (text, "--model"))
        .or_else(|| environment.get("SWARM_MODEL").map(|text| (text, "SWARM_MODEL")));
    if let Some((text, from)) = model {
        let (provider, name) =
            model::parse(text).map_err(|message| Error::Bad { from, message })?;
        model::override_all(&mut values.models, provider, name);
        for key in ["models.default.provider", "models.default.name"] {
            sources.insert(key.to_owned(), from.to_owned());
        }
    }
    let changed = model::lay_addresses(&mut values.models, environment)
        .map_err(|message| Error::Bad { from: "environment", message })?;
    for (path, variable) in changed {
        sources.insert(path, format!("variable {variable}"));
    }
    if let Some(slots) = overrides.slots {
        values.worker.slots = slots;
        sources.insert("worker.slots".to_owned(), "--slots".to_owned());
    }
    Ok(())
}

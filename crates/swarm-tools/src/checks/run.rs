//! Running one check behind the sandbox's walls, and reading what it left.

use std::path::{Path, PathBuf};

use swarm_core::port::sandbox::{self, Command, Exit, Finished, Network, Sandbox};

use super::said::Said;
use super::{Cause, Check, Counts, Kind, Outcome, Report, Way};
use crate::toolbox::shell::quiet_env;
use crate::toolbox::tree::{Found, Tree};

/// The longest that a probe may take, in seconds.
const PROBE_SECS: u64 = 60;

/// How checks are run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// What one check may use up.
    pub limits: sandbox::Limits,
    /// What a set-up may reach, by policy. Tests and linters never have the network.
    pub setup_network: Network,
    /// Which package caches are shared, such as the repository's name.
    pub cache: String,
}

impl Default for Options {
    /// The sandbox's limits with room for long outputs, and no network.
    fn default() -> Self {
        Self {
            limits: sandbox::Limits { output_bytes: 2 << 20, ..sandbox::Limits::default() },
            setup_network: Network::None,
            cache: sandbox::SHARED_CACHE.to_owned(),
        }
    }
}

/// Runs a check in `workspace`. Whatever goes wrong is an outcome of the report.
pub async fn run(
    check: &Check,
    sandbox: &dyn Sandbox,
    workspace: &Path,
    options: &Options,
) -> Report {
    let runner = Runner { check, sandbox, workspace, options };
    let litter = runner.absent_leaves().await;
    let report = runner.run().await;
    runner.clear(litter).await;
    report
}

struct Runner<'a> {
    check: &'a Check,
    sandbox: &'a dyn Sandbox,
    workspace: &'a Path,
    options: &'a Options,
}

impl Runner<'_> {
    async fn run(&self) -> Report {
        let first = Way { argv: self.check.argv.clone(), probe: self.check.probe.clone() };
        for way in std::iter::once(&first).chain(&self.check.fallbacks) {
            match self.is_open(way).await {
                Ok(true) => return self.run_way(&way.argv).await,
                Ok(false) => {}
                Err(outcome) => return self.report(outcome),
            }
        }
        let outcome = self.missing(format!("{} not available in the sandbox", self.wanted()));
        self.report(outcome)
    }

    /// The programs of all ways, for saying that none is there.
    fn wanted(&self) -> String {
        let mut names = Vec::new();
        let ways =
            std::iter::once(&self.check.argv).chain(self.check.fallbacks.iter().map(|w| &w.argv));
        for argv in ways {
            let module = argv.iter().skip_while(|word| *word != "-m").nth(1);
            let name = match module.or(argv.first()) {
                Some(shell) if shell == "sh" => &self.check.name,
                Some(name) => name,
                None => continue,
            };
            let name = format!("`{name}`");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let verb = if names.len() == 1 { "is" } else { "are" };
        format!("{} {verb}", names.join(" and "))
    }

    async fn is_open(&self, way: &Way) -> Result<bool, Outcome> {
        let argv = match way.probe.as_slice() {
            [] => {
                let program = way.argv.first().cloned().unwrap_or_default();
                let line = "command -v -- \"$1\" >/dev/null".to_owned();
                vec!["sh".to_owned(), "-c".to_owned(), line, "sh".to_owned(), program]
            }
            probe => probe.to_vec(),
        };
        let mut command = self.command(&argv, Network::None);
        command.limits.wall_secs = command.limits.wall_secs.min(PROBE_SECS);
        self.sandbox.run(command).await.map(|done| done.succeeded()).map_err(|error| broken(&error))
    }

    fn command(&self, argv: &[String], network: Network) -> Command {
        let mut env = quiet_env();
        if network == Network::None {
            // Package managers that know they have no network fail at once, not after retries.
            for (name, value) in [
                ("CARGO_NET_OFFLINE", "true"),
                ("npm_config_offline", "true"),
                ("PIP_RETRIES", "0"),
                ("GOPROXY", "off"),
                ("GOTOOLCHAIN", "local"),
            ] {
                env.insert(name.to_owned(), value.to_owned());
            }
        }
        let dir = match self.check.dir.as_str() {
            "." => PathBuf::new(),
            dir => PathBuf::from(dir),
        };
        Command {
            dir,
            env,
            network,
            limits: self.options.limits.clone(),
            cache: self.options.cache.clone(),
            ..Command::new(self.workspace, argv.iter().cloned())
        }
    }

    async fn run_way(&self, argv: &[String]) -> Report {
        let network = match self.check.kind {
            Kind::Setup => self.options.setup_network,
            Kind::Test | Kind::Lint => Network::None,
        };
        let mut report = match self.sandbox.run(self.command(argv, network)).await {
            Ok(finished) => self.read(finished).await,
            Err(error) => self.report(broken(&error)),
        };
        report.command = shown(argv);
        report
    }

    fn report(&self, outcome: Outcome) -> Report {
        Report {
            name: self.check.name.clone(),
            kind: self.check.kind,
            command: String::new(),
            exit: None,
            outcome,
            counts: None,
            failures: Vec::new(),
            findings: Vec::new(),
            tail: String::new(),
            is_cut: false,
            wall_ms: 0,
        }
    }

    async fn read(&self, finished: Finished) -> Report {
        let kind = self.check.kind;
        let (exit, wall) = (finished.exit, finished.wall);
        // Outputs are long: they are read away from the async threads.
        let said = tokio::task::spawn_blocking(move || Said::read(kind, &finished)).await;
        let Ok(said) = said else {
            let why = "its output could not be read".to_owned();
            return self.report(Outcome::Broken { cause: Cause::SandboxFailed, why });
        };
        let mut report = Report {
            exit: Some(exit),
            counts: said.counts,
            failures: said.failures,
            findings: said.findings,
            tail: said.tail,
            is_cut: said.is_cut,
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            ..self.report(self.outcome(exit, said.no_tests, said.counts))
        };
        let canonical = self.workspace.canonicalize().unwrap_or_default();
        let roots = [self.workspace, canonical.as_path()];
        for failure in &mut report.failures {
            failure.file = failure.file.take().map(|path| self.rooted(&roots, &path));
        }
        for finding in &mut report.findings {
            finding.path = self.rooted(&roots, &finding.path);
        }
        report
    }

    /// What an exit means. `no_tests` is set when the output says that no test ran, and tells
    /// whether it says so in words, as those runners do that end with an error for it.
    fn outcome(&self, exit: Exit, no_tests: Option<bool>, counts: Option<Counts>) -> Outcome {
        let broken = |cause| Outcome::Broken { cause, why: exit.to_string() };
        match exit {
            Exit::Code(0) if no_tests.is_some() => Outcome::NoTests,
            Exit::Code(0) => Outcome::Passed,
            Exit::Code(_) if no_tests == Some(true) => Outcome::NoTests,
            // A shell's way to say that a script names a program which is not there.
            Exit::Code(126 | 127) if counts.is_none() => self
                .missing(format!("{exit}: a program that it runs is not available in the sandbox")),
            Exit::Code(_) => Outcome::Failed,
            Exit::TimedOut => broken(Cause::TimedOut),
            Exit::Signal(_) | Exit::Exceeded(_) => broken(Cause::Killed),
            Exit::Cancelled => broken(Cause::Cancelled),
        }
    }

    /// That a tool is missing: nobody misses a linter, but tests that cannot run say nothing.
    fn missing(&self, why: String) -> Outcome {
        match self.check.kind {
            Kind::Lint => Outcome::Skipped { why },
            Kind::Test | Kind::Setup => Outcome::Broken {
                cause: Cause::MissingTool,
                why: format!("{why}: install it on the host, in a directory of PATH"),
            },
        }
    }

    /// A path as a tool printed it, from the root of the workspace.
    fn rooted(&self, roots: &[&Path], path: &str) -> String {
        let path = path.trim_start_matches("file://");
        if Path::new(path).is_absolute() {
            let inside = roots.iter().find_map(|root| Path::new(path).strip_prefix(root).ok());
            return inside.map_or_else(|| path.to_owned(), |rest| rest.display().to_string());
        }
        let path = path.trim_start_matches("./");
        match self.check.dir.as_str() {
            "." => path.to_owned(),
            dir => format!("{dir}/{path}"),
        }
    }

    /// The leaves that are not there before the run.
    async fn absent_leaves(&self) -> Vec<String> {
        let dir = self.check.dir.clone();
        let leaves = self.check.leaves.clone();
        self.in_tree(move |tree| {
            let paths = leaves.iter().map(|leaf| format!("{dir}/{leaf}"));
            paths.filter(|path| is_nothing(tree, path)).collect()
        })
        .await
    }

    /// Takes away the files among `litter`, and marks the directories that the check leaves as
    /// ignored: what a check makes is never a part of the change.
    async fn clear(&self, litter: Vec<String>) {
        let dir = self.check.dir.clone();
        let leaves = self.check.leaves.clone();
        self.in_tree(move |tree| {
            for path in litter {
                if let Ok(place) = tree.place(&path)
                    && matches!(place.found, Found::Entry(_))
                {
                    let _ = place.remove();
                }
            }
            for leaf in leaves {
                let path = format!("{dir}/{leaf}");
                let mark = format!("{path}/.gitignore");
                if tree.directory(&path).is_ok()
                    && is_nothing(tree, &mark)
                    && let Ok(place) = tree.place(&mark)
                {
                    let _ = place.write(b"*\n", 0o644);
                }
            }
            Vec::new()
        })
        .await;
    }

    async fn in_tree(
        &self,
        work: impl FnOnce(&Tree) -> Vec<String> + Send + 'static,
    ) -> Vec<String> {
        let workspace = self.workspace.to_owned();
        let work = move || Tree::open(&workspace, &[]).map(|tree| work(&tree)).unwrap_or_default();
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }
}

fn is_nothing(tree: &Tree, path: &str) -> bool {
    tree.place(path).is_ok_and(|place| matches!(place.found, Found::Nothing(_)))
}

fn broken(error: &sandbox::Error) -> Outcome {
    let cause = match error {
        sandbox::Error::Unavailable { .. } => Cause::SandboxUnavailable,
        sandbox::Error::Invalid(_) => Cause::Invalid,
        sandbox::Error::Io(_) => Cause::SandboxFailed,
    };
    let why = match error {
        sandbox::Error::Io(source) => format!("{error}: {source}"),
        sandbox::Error::Unavailable { .. } | sandbox::Error::Invalid(_) => error.to_string(),
    };
    Outcome::Broken { cause, why }
}

/// Words of a command as one line for people.
fn shown(argv: &[String]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:@+,".contains(c);
    let words = argv.iter().map(|word| match !word.is_empty() && word.chars().all(is_plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let argv = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(shown(&argv), r"sh -c 'echo '\''a b'\''' ''");
    }
}

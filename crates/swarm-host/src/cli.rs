//! Argument types: what may be typed, and nothing of what is then done.
//!
//! Flags that several commands share are global and live in [`Shared`]. Text behind `///` is the
//! help that people read; it is checked by a snapshot, so change both together.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0  merged, or done
  1  failed, stopped or cancelled
  2  wrong usage or configuration
  3  waiting for a person";

/// What `start --help` says below the flags.
const START_HELP: &str = "\
The input must fit the graph's `input`. The same graph and input again find the same run.

  swarm-host start tidy --input '{ \"depth\": 2 }' --label team=web
  swarm-host start tidy --input @order.json --new";

/// What `run --help` says below the flags.
pub const RUN_HELP: &str = "\
With --repo and --issue one issue is worked on and followed live, then the program exits; the same
command again attaches to the same run, live or finished, instead of starting a second one. Without
them the program works on queued runs until SIGTERM. SIGINT leaves the run, which then goes on with
the same command.

With --json each event is one line of JSON, and the last line is
  {\"run\", \"outcome\", \"pr\", \"branch\", \"merge_sha\", \"cost\", \"reasons\"}
where outcome is merged, done, waiting, running, stopped, failed or cancelled; cost is
{\"usd\", \"tokens\"}; pr, branch and merge_sha are null until there is one; reasons says why it waits,
was stopped or failed.

Environment (over swarm.yaml; flags are over both):
  OPENAI_API_KEY, OPENAI_BASE_URL        key and address for `openai:NAME` models; the address may
                                         be any server that speaks the same format
  ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL  the same for `anthropic:NAME` models
  SWARM_MODEL                            PROVIDER:NAME, as --model
  SWARM_DATA_DIR, SWARM_CONFIG           as --data-dir, --config
  DATABASE_URL                           keep runs in PostgreSQL, such as postgres://user@host/name
  RUST_LOG                               what is logged, such as `swarm_host=debug`
  NO_COLOR                               any value: no colours

Exit codes:
  0  merged, or done
  1  failed, stopped or cancelled
  2  wrong usage or configuration
  3  waiting for a person
  130  left by SIGINT";

/// Turns issues into reviewed, human-approved, merged changes.
#[derive(Debug, Parser)]
#[command(name = "swarm-host", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub shared: Shared,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Everywhere")]
pub struct Shared {
    /// The configuration file; else ./swarm.yaml, else swarm.yaml in the data directory
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: $XDG_STATE_HOME/devinswarm or ~/.local/state/devinswarm]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Write JSON for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch an issue of a small repository become a merged change, without any account
    Demo(Demo),
    /// Work on one issue and follow it live, or serve queued runs until SIGTERM
    #[command(after_long_help = RUN_HELP)]
    Run(Run),
    /// Queue an issue and return at once
    Submit(Submit),
    /// Queue a run of any graph and return at once
    #[command(after_long_help = START_HELP)]
    Start(Start),
    /// Look at runs
    #[command(subcommand)]
    Runs(Runs),
    /// Look at questions to people
    #[command(subcommand)]
    Blocks(Blocks),
    /// Answer a question
    Answer(Answer),
    /// Approve a change, bound to the commit that was shown
    Approve(Approve),
    /// Stop a run and its children; what it made is kept
    Cancel(Cancel),
    /// Check and show graphs
    #[command(subcommand)]
    Graph(Graph),
    /// Look after the store: its schema, and moving it
    #[command(subcommand)]
    Db(Db),
    /// Check and show the configuration
    #[command(subcommand)]
    Config(Config),
    /// Say what is there and what is missing
    Doctor(Doctor),
    /// Write a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `demo`
#[derive(Args, Debug)]
pub struct Demo {
    /// Give the approval instead of asking for it
    #[arg(long)]
    pub yes: bool,
    /// Where to put the demo; a demo that waits there goes on [default: a new temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Which models answer.
#[derive(Args, Clone, Debug, Default)]
pub struct Models {
    /// The model of every role, such as openai:NAME or anthropic:NAME
    #[arg(long, value_name = "PROVIDER:NAME")]
    pub model: Option<String>,
    /// Write every model turn to this file, to be replayed later
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Answer from a recording instead of a model
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
}

/// `run`
#[derive(Args, Debug)]
pub struct Run {
    /// A git repository on this machine
    #[arg(long, value_name = "PATH", requires = "issue")]
    pub repo: Option<PathBuf>,
    /// A file with the issue, or its text; `-` reads standard input
    #[arg(long, value_name = "FILE|TEXT", requires = "repo")]
    pub issue: Option<String>,
    /// Start a new run even if there is one for this repository and issue
    #[arg(long, requires = "issue")]
    pub new: bool,
    /// Which models answer.
    #[command(flatten)]
    pub models: Models,
    /// How many runs to work on at once [default: worker.slots of the configuration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: Option<u32>,
}

impl Run {
    /// The one issue to work on; `None` is to serve.
    #[must_use]
    pub fn work(&self) -> Option<Work> {
        let (repo, issue) = (self.repo.clone()?, self.issue.clone()?);
        Some(Work { repo, issue, new: self.new })
    }
}

/// A repository and an issue.
#[derive(Args, Clone, Debug)]
pub struct Work {
    /// A git repository on this machine
    #[arg(long, value_name = "PATH")]
    pub repo: PathBuf,
    /// A file with the issue, or its text; `-` reads standard input
    #[arg(long, value_name = "FILE|TEXT")]
    pub issue: String,
    /// Start a new run even if there is one for this repository and issue
    #[arg(long)]
    pub new: bool,
}

/// `submit`
#[derive(Args, Debug)]
pub struct Submit {
    /// What to work on.
    #[command(flatten)]
    pub what: Work,
    /// Higher is claimed first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
}

/// `start`
#[derive(Args, Debug)]
pub struct Start {
    /// The name of the graph
    pub graph: String,
    /// Its input as JSON; `@FILE` reads a file, `@-` standard input
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
    pub input: String,
    /// A label for people and filters; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// The id of the run; else it is made of the graph and the input
    #[arg(long, value_name = "RUN")]
    pub id: Option<String>,
    /// Start a new run even if there is one of this graph and input
    #[arg(long, conflicts_with = "id")]
    pub new: bool,
    /// The queue whose workers may take it
    #[arg(long, default_value = "default")]
    pub queue: String,
    /// Higher is claimed first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
}

/// `runs`
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// List runs, newest first
    List {
        /// Child runs as well
        #[arg(long)]
        all: bool,
        /// Only runs in this status; may be repeated
        #[arg(long, value_enum)]
        status: Vec<Status>,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show one run with its children, steps, questions and cost
    Show {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Print the events of a run and its children
    Events {
        /// The run's id, or the beginning of it
        run: String,
        /// Go on until the run ends or waits for a person
        #[arg(long)]
        follow: bool,
    },
    /// List the checkpoints of a run, newest first
    Checkpoints {
        /// The run's id, or the beginning of it
        run: String,
        /// Only where this node is due, at work or waiting
        #[arg(long, value_name = "NODE")]
        active: Option<String>,
        /// Only where a step of this node has just ended
        #[arg(long, value_name = "NODE")]
        ended: Option<String>,
        /// Only those before this one
        #[arg(long, value_name = "SEQ")]
        before: Option<u64>,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Plan a run again from what was recorded, and say where it comes out differently
    Replay {
        /// The run's id, or the beginning of it
        run: String,
        /// Over the graph as it would be loaded now, not the version that the run is pinned to
        #[arg(long)]
        now: bool,
    },
    /// Start a new run where another one was; its questions are asked anew
    Fork {
        /// The run's id, or the beginning of it
        run: String,
        /// The checkpoint to begin from
        #[arg(long, value_name = "SEQ")]
        at: u64,
        /// The new run's id; without it, that of the old one with `@SEQ`
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// Change the state of a run that nobody works on
    Edit {
        /// The run's id, or the beginning of it
        run: String,
        /// The checkpoint that you have looked at; it must be the last one
        #[arg(long, value_name = "SEQ")]
        at: u64,
        /// An update for a channel, which its reducer takes; may be repeated
        #[arg(long, value_name = "CHANNEL=JSON", required = true)]
        set: Vec<String>,
        /// Who edits [default: the owner in the configuration]
        #[arg(long = "as", value_name = "LOGIN")]
        login: Option<String>,
    },
    /// Copy a run with its whole history; nobody works on the copy
    Copy {
        /// The run's id, or the beginning of it
        run: String,
        /// The copy's id
        id: String,
        /// Let workers go on with the copy
        #[arg(long)]
        claimable: bool,
    },
    /// Delete a run that has ended, with all below it
    Delete {
        /// The run's whole id
        run: String,
        /// Cancel it first if it has not ended
        #[arg(long)]
        force: bool,
        /// Who cancels [default: the owner in the configuration]
        #[arg(long = "as", value_name = "LOGIN")]
        login: Option<String>,
    },
    /// Remove what `retention` in the configuration does not keep, now
    Prune,
}

/// A run's status, as typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Status {
    /// Can be claimed now
    Ready,
    /// At work
    Running,
    /// Parked on an answer, a signal, a child or a timer
    Waiting,
    /// Reached its end
    Succeeded,
    /// Failed
    Failed,
    /// Cancelled
    Cancelled,
}

/// `blocks`
#[derive(Debug, Subcommand)]
pub enum Blocks {
    /// List open questions, oldest first
    List {
        /// Answered and withdrawn ones as well
        #[arg(long)]
        all: bool,
        /// Only of this run and its children
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
    },
    /// Show one question, what it needs and how to answer
    Show {
        /// The question's id, or the beginning of it
        block: String,
    },
}

/// `answer`
#[derive(Args, Debug)]
pub struct Answer {
    /// The question's id, or the beginning of it
    pub block: String,
    /// One of the question's choices
    #[arg(long, group = "given", value_name = "CHOICE")]
    pub choice: Option<String>,
    /// A remark beside the choice
    #[arg(long, requires = "choice", value_name = "TEXT")]
    pub comment: Option<String>,
    /// The whole answer, as the question's schema wants it
    #[arg(long, group = "given", value_name = "JSON")]
    pub value: Option<String>,
    /// Free text, for a question that wants some
    #[arg(long, group = "given", value_name = "TEXT")]
    pub text: Option<String>,
    /// Who answers [default: the owner in the configuration]
    #[arg(long = "as", value_name = "LOGIN")]
    pub login: Option<String>,
}

/// `approve`
#[derive(Args, Debug)]
pub struct Approve {
    /// A run, a pull request's number, or a question
    pub target: String,
    /// A remark beside the approval
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Who approves [default: the owner in the configuration]
    #[arg(long = "as", value_name = "LOGIN")]
    pub login: Option<String>,
}

/// `cancel`
#[derive(Args, Debug)]
pub struct Cancel {
    /// The run's id, or the beginning of it
    pub run: String,
    /// Who cancels [default: the owner in the configuration]
    #[arg(long = "as", value_name = "LOGIN")]
    pub login: Option<String>,
}

/// `db`
#[derive(Debug, Subcommand)]
pub enum Db {
    /// Say where runs are kept, and which version the schema has
    Status,
    /// Bring the schema up to date; safe while others do the same
    Migrate,
    /// Write the whole store as lines of JSON, for `db import` of a store of any kind
    Export {
        /// The file; `-` is standard output
        #[arg(default_value = "-")]
        file: String,
        /// Even while runs are worked on: what is done since is missing in the dump
        #[arg(long)]
        force: bool,
    },
    /// Fill an empty store with what `db export` has written
    Import {
        /// The file; `-` is standard input
        #[arg(default_value = "-")]
        file: String,
    },
}

/// `graph`
#[derive(Debug, Subcommand)]
pub enum Graph {
    /// Check graphs and name every defect at once
    Check {
        /// Graph files [default: every graph that the host would load]
        files: Vec<PathBuf>,
    },
    /// Draw a graph
    Show {
        /// A graph's name, or its file
        graph: String,
        /// The form of the drawing
        #[arg(long, value_enum, default_value_t = Drawing::Mermaid)]
        format: Drawing,
    },
    /// Tell in words what a graph does, or what a defect's code means
    Explain {
        /// A graph's name, its file, or the code of a defect [default: every graph that the host
        /// would load]
        what: Option<String>,
    },
    /// Tell what changed between two versions of a graph; `!` marks what could break a live run
    Diff {
        /// The old version: a graph's name, or its file
        old: String,
        /// The new version
        new: String,
        /// Name the live runs that could not be moved to the new version, and why
        #[arg(long)]
        live: bool,
    },
    /// Move live runs to another version of their graph; without --apply only say what would happen
    Migrate(Migrate),
    /// Print the JSON schema of graph files
    Schema,
}

/// `graph migrate`
#[derive(Args, Debug)]
pub struct Migrate {
    /// The version to move to: a graph's name, or its file
    pub graph: String,
    /// A node's new name; may be repeated
    #[arg(long, value_name = "OLD=NEW")]
    pub rename: Vec<String>,
    /// A channel whose value may be lost; may be repeated
    #[arg(long, value_name = "CHANNEL")]
    pub drop_channel: Vec<String>,
    /// A channel's value, an expression over the old `state`; may be repeated
    #[arg(long, value_name = "CHANNEL=EXPRESSION")]
    pub set: Vec<String>,
    /// Only this run; may be repeated
    #[arg(long = "run", value_name = "RUN")]
    pub runs: Vec<String>,
    /// Move them
    #[arg(long)]
    pub apply: bool,
    /// Who moves them [default: the owner in the configuration]
    #[arg(long = "as", value_name = "LOGIN")]
    pub login: Option<String>,
}

/// The form of a drawn graph.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Drawing {
    /// Mermaid, as Markdown renders it
    Mermaid,
    /// Graphviz
    Dot,
    /// A picture
    Svg,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check the configuration file and name every defect at once
    Check,
    /// Print the JSON schema of swarm.yaml
    Schema,
    /// Print what is in force and where each value comes from; secrets are not shown
    Show,
}

/// `doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// Also ask each configured model a question of a few tokens
    #[arg(long)]
    pub online: bool,
    /// Which models answer.
    #[command(flatten)]
    pub models: Models,
}

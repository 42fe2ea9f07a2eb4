//! The text of a graph file, mirrored field by field; no meaning.
//!
//! What a newcomer gets wrong: nothing here is checked beyond keys and types. A name in a spec
//! may name nothing; [`crate::check`] finds out. Every field is an `Option`, because a spec with
//! mistakes is still read to its end; what must be there is marked `required` and noted.

pub(crate) mod read;
pub(crate) mod yaml;

use swarm_core::escalation::Reason;

use self::read::{
    Entries, ExprText, Fields, Object, OneOrMany, Raw, Read, Record, Time, key, record, words,
};
use self::yaml::{Span, Spanned, Yaml};
use crate::defect::report::Report;
use crate::defect::{Code, suggest};
use crate::graph::{Durability, OnError, OnExceed};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// The version of the format that this program reads.
pub(crate) const DSL: u32 = 1;

record! {
    /// A graph: nodes, the ways between them, and the state they share.
    struct GraphSpec("a graph") {
        /// The version of this format: 1.
        required dsl: Spanned<u32>,
        /// The name and version of the graph.
        required graph: HeadSpec,
        /// Files whose policies can be used as `NAME.policy`.
        optional imports: Vec<ImportSpec>,
        /// What a run is started with.
        optional input: DeclaredSpec,
        /// What a run returns.
        optional output: OutputSpec,
        /// The data of a run.
        optional state: StateSpec,
        /// The signals that a run takes, by name, each with the type of its payload; without this
        /// key, any signal with any payload.
        optional signals: Entries<DeclaredSpec>,
        /// Named policies of this graph.
        optional policies: PoliciesSpec,
        /// What holds for nodes and runs that say nothing themselves.
        optional defaults: DefaultsSpec,
        /// The bounds of a run.
        optional limits: LimitsSpec,
        /// When the place of a run is stored: after every superstep (`sync`, as without this
        /// key), or only when it must be (`exit`): after a crash, more is run again.
        optional durability: DurabilityWord,
        /// The node where a run begins.
        required entry: Spanned<String>,
        /// The nodes, by name.
        required nodes: Spanned<Entries<NodeSpec>>,
        /// Graphs that nodes run inline, in full; others are found beside this file.
        optional graphs: Vec<GraphSpec>,
    }

    /// A file of policies for several graphs.
    struct PolicyFileSpec("a file of policies") {
        /// The version of this format: 1.
        required dsl: Spanned<u32>,
        /// The policies.
        required policies: PoliciesSpec,
    }

    /// The name and version of a graph.
    struct HeadSpec("`graph`") {
        /// The name: a letter, then letters, digits, `_` or `-`.
        required name: Spanned<String>,
        /// The version, such as `1.0.0`.
        required version: Spanned<String>,
    }

    /// An import of policies.
    struct ImportSpec("an import") {
        /// The file, relative to this one, beside it or below.
        required path: Spanned<String>,
        /// The name in front of its policies.
        required r#as: Spanned<String>,
    }

    /// A type: one that is registered, or a JSON schema.
    struct DeclaredSpec("a declaration") {
        /// The name of a registered type.
        optional r#type: Spanned<String>,
        /// A JSON schema.
        optional schema: Raw,
    }

    /// What a run returns.
    struct OutputSpec("`output`") {
        /// The name of a registered type.
        optional r#type: Spanned<String>,
        /// A JSON schema.
        optional schema: Raw,
        /// The value, with expressions over `state` and `input`; without it, the whole state.
        optional value: Raw,
    }

    /// The data of a run.
    struct StateSpec("`state`") {
        /// The name of a registered type; each of its fields is a channel.
        optional r#type: Spanned<String>,
        /// A JSON schema of an object; each of its properties is a channel.
        optional schema: Raw,
        /// How channels take updates, and channels beyond those of the type.
        optional channels: Entries<ChannelSpec>,
    }

    /// A channel of the state.
    struct ChannelSpec("a channel") {
        /// How it takes an update: `replace` (without this key), `append`, `merge`,
        /// `merge_by_key`, `sum`, `max`, or a registered one.
        optional reducer: Spanned<String>,
        /// With `merge_by_key`: the field that identifies an item.
        optional key: Spanned<String>,
        /// The JSON schema of its value, if the state's type does not have it.
        optional schema: Raw,
        /// Its value when a run begins.
        optional default: Raw,
    }

    /// Named policies.
    struct PoliciesSpec("`policies`") {
        /// How failed steps are tried again.
        optional retry: Entries<RetrySpec>,
        /// What a run may cost.
        optional budget: Entries<BudgetSpec>,
    }

    /// How a failed step is tried again.
    struct RetrySpec("a retry policy") {
        /// Attempts in all, the first included.
        required max_attempts: Spanned<u32>,
        /// How long to wait between attempts.
        optional backoff: BackoffSpec,
        /// Which failures are tried again, as a condition over `error`; without it, those that
        /// say so themselves.
        optional when: Spanned<ExprText>,
    }

    /// How long to wait between attempts.
    struct BackoffSpec("`backoff`") {
        /// The wait before the second attempt; 1s without this key.
        optional initial: Spanned<Time>,
        /// By what the wait grows each time; 2 without this key.
        optional factor: Spanned<f64>,
        /// The longest wait; 5m without this key.
        optional max: Spanned<Time>,
        /// Whether the wait is drawn at random up to its full length; true without this key.
        optional jitter: bool,
    }

    /// What a run may cost, with all its children.
    struct BudgetSpec("a budget") {
        /// Money, in US dollars.
        optional usd: Spanned<f64>,
        /// Model tokens, in and out.
        optional tokens: Spanned<u64>,
        /// Time from start to end.
        optional wall: Spanned<Time>,
        /// What happens when it is used up: `escalate` (without this key) or `fail`.
        optional on_exceed: OnExceedWord,
    }

    /// What holds for nodes and runs that say nothing themselves.
    struct DefaultsSpec("`defaults`") {
        /// The name of a retry policy.
        optional retry: Spanned<String>,
        /// How long an attempt may take.
        optional timeout: TimeoutSpec,
        /// The name of a budget policy.
        optional budget: Spanned<String>,
    }

    /// How long an attempt may take.
    struct TimeoutSpec("`timeout`") {
        /// In all.
        optional run: Time,
        /// Without a sign of life.
        optional idle: Time,
    }

    /// The bounds of a run.
    struct LimitsSpec("`limits`") {
        /// Supersteps in all; 500 without this key.
        optional supersteps: Spanned<u32>,
        /// Activations of one node; 25 without this key.
        optional visits_per_node: Spanned<u32>,
        /// Steps at once; 8 without this key.
        optional concurrency: Spanned<u32>,
        /// Pools that all runs of a process share, each with how many attempts may be at work in
        /// it at once.
        optional pools: Entries<Spanned<u32>>,
    }

    /// A node: exactly one of `uses`, `run`, `wait`, `gate`, and exactly one of `next`, `routes`.
    struct NodeSpec("a node") {
        /// A registered node kind, such as `swarm/plan`.
        optional uses: Spanned<String>,
        /// A run of another graph.
        optional run: RunSpec,
        /// A signal or a timer.
        optional wait: WaitSpec,
        /// A question to a person.
        optional gate: GateSpec,
        /// With `uses`: the configuration of the kind; no expressions.
        optional config: Raw,
        /// With `uses`: the input of the kind, with expressions.
        optional with: Raw,
        /// What is written to the state, by channel; without it, each field of the output that
        /// is a channel.
        optional set: Entries<Raw>,
        /// Where the run goes on: a node, several at once, or `$end`.
        optional next: OneOrMany<Spanned<String>>,
        /// Where the run goes on: the first route that holds.
        optional routes: Vec<RouteSpec>,
        /// Once per item of a list.
        optional foreach: ForeachSpec,
        /// Where the run goes on after a failure: the first that holds.
        optional catch: Vec<CatchSpec>,
        /// The name of a retry policy, or `none`.
        optional retry: Spanned<String>,
        /// How long an attempt may take.
        optional timeout: TimeoutSpec,
        /// A join: it runs once all these nodes have led here.
        optional when_all: Vec<Spanned<String>>,
        /// A race: it runs once the first of these nodes has ended well; the others, and what
        /// leads to them, are called off.
        optional when_any: Vec<Spanned<String>>,
        /// How many of its activations, items of a loop included, may have begun and not ended.
        optional concurrency: Spanned<u32>,
        /// With `uses`: the pool of `limits.pools` in which its attempts take a place.
        optional pool: Spanned<String>,
        /// With `uses`: its output is kept, and taken by later runs instead of running it.
        optional cache: CacheSpec,
        /// Whether it begins only when nothing else of its graph is left to do.
        optional defer: bool,
    }

    /// How long an output is kept, and under what.
    struct CacheSpec("`cache`") {
        /// How long.
        required ttl: Time,
        /// What it is kept under, with expressions; without this key, the node's input.
        optional key: Raw,
    }

    /// A run of another graph: a child run, or inside this one.
    struct RunSpec("`run`") {
        /// The name of the graph.
        required graph: Spanned<String>,
        /// Whether it runs inside this run: its steps are steps of this run, its state is its own.
        optional inline: bool,
        /// The queue whose workers may take it; without it, that of this run.
        optional queue: Spanned<String>,
        /// Its input, with expressions.
        optional input: Raw,
        /// Whether this run goes on without waiting for its end.
        optional detach: bool,
        /// Labels for people and filters, with expressions.
        optional labels: Entries<Raw>,
    }

    /// A signal or a timer, whichever comes first.
    struct WaitSpec("`wait`") {
        /// The signal's name; a trailing `*` stands for any ending.
        optional signal: Spanned<String>,
        /// When to stop waiting.
        optional timeout: Time,
    }

    /// A question to a person; exactly one of `answer`, `schema`, `choices`.
    struct GateSpec("`gate`") {
        /// Why a person is needed; `decision` without this key.
        optional reason: ReasonWord,
        /// The question, with expressions.
        required ask: Raw,
        /// The answer: the name of a registered type.
        optional answer: Spanned<String>,
        /// The answer: a JSON schema.
        optional schema: Raw,
        /// The answer: `choice` is one of these, `comment` is free.
        optional choices: Spanned<Vec<String>>,
        /// What the person is asked to bring, with expressions.
        optional requested_input: Vec<Raw>,
        /// Facts that help to decide, with expressions.
        optional context: Raw,
        /// After how long to remind, again and again.
        optional remind: Time,
        /// After how long it is too late for an answer: the node then fails with class
        /// `expired`, for a `catch`.
        optional expires: Time,
    }

    /// Once per item of a list.
    struct ForeachSpec("`foreach`") {
        /// The list.
        required r#in: Spanned<ExprText>,
        /// The name of the item in expressions.
        required r#as: Spanned<String>,
        /// How many at once; without it, as many as the graph's concurrency.
        optional max_parallel: Spanned<u32>,
        /// What a failed item means: `fail` (without this key), `collect` or `ignore`.
        optional on_error: OnErrorWord,
    }

    /// A way on that is taken when its condition holds.
    struct RouteSpec("a route") {
        /// The condition; a route without it always holds.
        optional when: Spanned<ExprText>,
        /// A node, several at once, or `$end`.
        required to: OneOrMany<Spanned<String>>,
        /// How often it may be taken in a run; then it no longer holds.
        optional max: Spanned<u32>,
    }

    /// A way on after a failure.
    struct CatchSpec("a catch") {
        /// The condition over `error`; a catch without it always holds.
        optional when: Spanned<ExprText>,
        /// A node, several at once, or `$end`.
        required to: OneOrMany<Spanned<String>>,
        /// How often it may be taken in a run; then it no longer holds.
        optional max: Spanned<u32>,
        /// What is written to the state, by channel.
        optional set: Entries<Raw>,
    }
}

words! {
    /// What a failed item of a `foreach` means.
    enum OnErrorWord for OnError {
        "fail" => OnError::Fail,
        "collect" => OnError::Collect,
        "ignore" => OnError::Ignore,
    }

    /// What happens when a budget is used up.
    enum OnExceedWord for OnExceed {
        "escalate" => OnExceed::Escalate,
        "fail" => OnExceed::Fail,
    }

    /// When the place of a run is stored.
    enum DurabilityWord for Durability {
        "sync" => Durability::Sync,
        "exit" => Durability::Exit,
    }

    /// Why a person is needed.
    enum ReasonWord for Reason {
        "missing_secret" => Reason::MissingSecret,
        "destructive_change" => Reason::DestructiveChange,
        "tests_failing" => Reason::TestsFailing,
        "ambiguous_spec" => Reason::AmbiguousSpec,
        "budget" => Reason::Budget,
        "sandbox_unavailable" => Reason::SandboxUnavailable,
        "effect_in_doubt" => Reason::EffectInDoubt,
        "model_unusable" => Reason::ModelUnusable,
        "approval" => Reason::Approval,
        "decision" => Reason::Decision,
    }
}

//! What LangGraph's published checkpointer suite asks of a store, and which of our clauses asks
//! the same.
//!
//! Its words in ours: a thread is a run, a checkpoint namespace is a child run (a run of its own),
//! pending writes are steps that ended after the last checkpoint, metadata is what a record, a
//! cursor and a list say. Names are those of `libs/checkpoint-conformance`, without their prefix.

use super::CLAUSES;

/// One behaviour of that suite.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// The capability that it belongs to.
    pub capability: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What asks the same here.
    pub here: Here,
}

/// Where a behaviour is asked for here.
#[derive(Clone, Copy, Debug)]
pub enum Here {
    /// By this clause.
    Clause(&'static str),
    /// Nowhere, for this reason.
    Nowhere(&'static str),
}

use Here::{Clause as C, Nowhere as N};

const READ: Here = C("a_checkpoint_is_read_back_at_every_number");
const WHOLE: Here = C("a_commit_is_there_whole");
const STEPS: Here = C("steps_after_the_last_checkpoint_come_back_with_the_claim");
const LIST: Here = C("every_combination_of_checkpoint_filters_lists_what_fits");
const SAYS: Here = C("a_listed_checkpoint_says_what_it_holds");
const RUNS: Here = C("every_combination_of_run_filters_lists_what_fits");
const UNKNOWN: Here = C("an_unknown_run_reads_as_empty");
const DELETE: Here = C("a_deleted_run_is_gone_with_all_below_it");
const COPY: Here = C("a_copy_reads_as_its_source_did");
const LEFT: Here = C("checkpoints_that_are_left_read_as_before");
const GIVEN: Here = C("pruning_touches_only_what_it_was_given");
const NO_VERSIONS: Here =
    N("channels have no versions: a delta is stored with the checkpoint that brought it");
const NO_CONFIG: Here = N("there is no config object: a call names a run and a number");
const NO_NAMESPACE: Here =
    N("there are no namespaces in a run: what is nested is a child run with an id of its own");

macro_rules! behaviours {
    ($($capability:literal: $($name:literal $here:expr),* ;)*) => {
        /// All 89.
        pub const LANGGRAPH: &[Behaviour] = &[
            $($(Behaviour { capability: $capability, name: $name, here: $here },)*)*
        ];
    };
}

behaviours! {
    "put": "returns_config" NO_CONFIG, "roundtrip" READ,
        "preserves_channel_values" C("odd_values_survive"),
        "preserves_channel_versions" NO_VERSIONS, "preserves_versions_seen" NO_VERSIONS,
        "preserves_versions_seen_values" NO_VERSIONS, "preserves_metadata" SAYS,
        "preserves_run_id" WHOLE, "root_namespace" NO_NAMESPACE,
        "child_namespace" C("a_child_is_started_once"), "default_namespace" NO_NAMESPACE,
        "multiple_checkpoints_same_thread" READ,
        "multiple_threads_isolated" C("a_fork_and_its_source_go_their_own_ways"),
        "parent_config" C("a_fork_begins_where_its_source_was"),
        "incremental_channel_update" READ, "new_channel_added" LEFT,
        "channel_removed" N("a channel of a graph never goes away; it may be set to null");
    "put_writes": "basic" STEPS, "multiple_writes_same_task" WHOLE, "multiple_tasks" STEPS,
        "preserves_task_id" STEPS, "preserves_channel_and_value" STEPS,
        "task_path" N("a step's id says its place: node, visit, item"),
        "idempotent" C("a_step_written_twice_is_kept_as_first_written"),
        "special_channels" WHOLE, "across_namespaces" C("a_child_is_started_once"),
        "cleared_on_next_checkpoint" STEPS;
    "get_tuple": "nonexistent_returns_none" UNKNOWN, "nonexistent_checkpoint_id" UNKNOWN,
        "latest_when_no_checkpoint_id" READ, "specific_checkpoint_id" READ,
        "config_structure" NO_CONFIG, "checkpoint_fields" READ, "metadata" SAYS,
        "parent_config" C("a_fork_begins_where_its_source_was"), "pending_writes" STEPS,
        "respects_namespace" NO_NAMESPACE;
    "list": "all" RUNS, "by_thread" LIST, "by_namespace" RUNS, "multiple_namespaces" RUNS,
        "ordering" LIST, "metadata_filter_single_key" LIST, "metadata_filter_step" LIST,
        "metadata_filter_multiple_keys" LIST, "metadata_filter_no_match" LIST,
        "metadata_custom_keys" RUNS, "before" LIST, "limit" LIST,
        "limit_plus_before" LIST, "combined_thread_and_filter" LIST, "empty_result" LIST,
        "includes_pending_writes" STEPS;
    "delete_thread": "removes_checkpoints" DELETE, "removes_writes" DELETE,
        "removes_all_namespaces" DELETE, "preserves_other_threads" DELETE,
        "nonexistent_noop" DELETE;
    "delete_for_runs": "single" DELETE, "multiple" DELETE, "preserves_other_runs" DELETE,
        "removes_writes" DELETE, "across_namespaces" DELETE,
        "empty_list_noop" N("one run is deleted by a call"), "nonexistent_noop" DELETE;
    "copy_thread": "basic" COPY, "all_checkpoints" COPY, "preserves_metadata" COPY,
        "preserves_namespaces" N("a copy is of one run; runs below it are not copied"),
        "preserves_writes" COPY, "preserves_ordering" COPY, "source_unchanged" COPY,
        "nonexistent_source" COPY;
    "prune": "keep_latest_single_thread" LEFT, "keep_latest_multiple_threads" GIVEN,
        "keep_latest_across_namespaces" GIVEN,
        "keep_latest_preserves_writes"
            C("pruning_leaves_the_journal_and_questions_of_what_goes_on"),
        "delete_all" C("ended_runs_are_removed_by_whole_trees"),
        "preserves_other_threads" GIVEN, "empty_list_noop" GIVEN, "nonexistent_noop" GIVEN;
    "delta_channel_history": "returns_writes_oldest_first" READ,
        "seed_is_nearest_snapshot" READ, "excludes_target_pending_writes" STEPS,
        "multi_channel" READ, "empty_channels_returns_empty" READ,
        "walk_to_root_no_seed" C("many_merges_add_up_to_the_same_value"),
        "migration_plain_value_as_seed" LEFT, "seed_ancestor_own_writes_are_replayed" LEFT;
}

/// How many of the behaviours a clause of ours asks for, and how many do not apply.
#[must_use]
pub fn counts() -> (usize, usize) {
    let nowhere =
        LANGGRAPH.iter().filter(|behaviour| matches!(behaviour.here, Here::Nowhere(_))).count();
    (LANGGRAPH.len() - nowhere, nowhere)
}

/// Clauses that a behaviour names and that are not there.
#[must_use]
pub fn dangling() -> Vec<&'static str> {
    let is_missing = |name: &&'static str| CLAUSES.iter().all(|clause| clause.name != *name);
    let named = LANGGRAPH.iter().filter_map(|behaviour| match behaviour.here {
        Here::Clause(name) => Some(name),
        Here::Nowhere(_) => None,
    });
    named.filter(is_missing).collect()
}

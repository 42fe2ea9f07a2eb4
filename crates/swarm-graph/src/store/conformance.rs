//! What every store must do, as clauses that run against any backend.
//!
//! Give [`check`] a way to make fresh [`Ground`], and it runs each clause on its own store and
//! says how many of how many held. A clause is a plain public function, so that a failing one can
//! be run alone. A clause may not apply (a store in memory does not survive a restart); the
//! report counts those too, so that a suite that silently skips is seen.

mod atomic;
mod checkpoints;
mod commits;
mod endings;
mod fencing;
mod fixture;
mod forks;
mod history;
mod journal;
mod leases;
mod listing;
pub mod peers;
mod pruning;
mod questions;
mod records;
mod signals;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use swarm_core::id::RunId;
use swarm_core::port::store::Store;

pub use self::atomic::*;
pub use self::checkpoints::*;
pub use self::commits::*;
pub use self::endings::*;
pub use self::fencing::*;
pub use self::fixture::everything;
pub use self::forks::*;
pub use self::history::*;
pub use self::journal::*;
pub use self::leases::*;
pub use self::listing::*;
pub use self::pruning::*;
pub use self::questions::*;
pub use self::records::*;
pub use self::signals::*;

/// An empty store to try a clause on.
#[async_trait]
pub trait Ground: Send {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the store and opens it again, as a restart does; `false` if it forgets by design.
    async fn reopen(&mut self) -> bool;

    /// Pretends that the last checkpoint of a run was written in this format.
    async fn set_checkpoint_format(&self, run: &RunId, format: u16);

    /// Lets the statement of this number, from 1 and counted from now on, fail once; 0 lets none
    /// fail. `false` if the backend knows no statements.
    fn fail_at(&self, _statement: u64) -> bool {
        false
    }
}

/// Whether a clause was tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It holds.
    Held,
    /// It holds for each of so many combinations of arguments.
    HeldFor(usize),
    /// It says nothing about this backend.
    DoesNotApply,
}

/// What a clause returns; it panics where the store does what it must not.
pub type Outcome = Result<Verdict, Box<dyn std::error::Error + Send + Sync>>;

/// One thing that a store must do.
#[derive(Clone, Copy)]
pub struct Clause {
    /// What holds.
    pub name: &'static str,
    /// Tries it.
    pub run: for<'g> fn(&'g mut dyn Ground) -> BoxFuture<'g, Outcome>,
}

impl fmt::Debug for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! clauses {
    ($($name:ident),* $(,)?) => {
        /// Every clause.
        pub const CLAUSES: &[Clause] =
            &[$(Clause { name: stringify!($name), run: |ground| Box::pin($name(ground)) }),*];
    };
}

clauses! {
    a_run_is_claimed_by_one_worker_at_a_time,
    the_most_urgent_and_then_the_oldest_run_is_claimed_first,
    a_claim_takes_only_from_its_queues,
    an_expired_lease_is_free_at_the_moment_it_ends,
    a_renewed_lease_keeps_others_out,
    an_expired_lease_that_nobody_took_is_still_renewed,
    a_waiting_run_is_claimable_once_its_timer_is_due,
    of_many_claimers_each_run_has_one_winner,
    a_clock_that_steps_back_frees_no_lease_and_breaks_no_order,
    claiming_an_unknown_run_is_an_error,
    an_idle_run_is_claimed_even_while_it_waits,
    a_run_that_ended_is_never_claimed,
    a_stale_epoch_is_refused_by_every_write,
    a_claim_that_let_go_writes_no_more,
    creating_a_run_twice_creates_it_once,
    a_run_whose_parent_is_unknown_is_refused,
    a_run_is_created_and_claimed_at_once,
    the_first_checkpoint_comes_with_the_next,
    a_commit_is_there_whole,
    a_commit_with_an_invalid_part_leaves_nothing,
    a_write_that_fails_at_any_statement_leaves_nothing,
    a_child_is_started_once,
    steps_after_the_last_checkpoint_come_back_with_the_claim,
    a_step_written_twice_is_kept_as_first_written,
    events_are_numbered_without_gaps,
    a_released_run_is_claimable_at_once,
    a_limit_is_set_by_a_commit_and_raised_by_a_person,
    a_checkpoint_is_read_back_at_every_number,
    many_merges_add_up_to_the_same_value,
    a_large_value_survives,
    odd_values_survive,
    a_checkpoint_of_a_newer_format_is_refused_and_passed_over,
    a_signal_wakes_a_waiting_run,
    an_unseen_signal_keeps_a_run_from_parking,
    a_seen_signal_stays_and_does_not_wake,
    a_keyed_signal_is_sent_once,
    a_taken_signal_is_gone_and_only_its_own_run_takes_it,
    a_signal_to_a_run_that_ended_is_dropped,
    a_commit_sends_to_a_run_to_ancestors_and_to_live_children,
    an_awaiting_parent_hears_that_its_child_ended,
    all_ancestors_hear_that_a_run_finished,
    the_end_withdraws_questions_and_frees_reservations,
    ancestors_hear_of_a_question_and_of_its_answer,
    an_answer_wakes_its_run,
    of_many_different_answers_exactly_one_wins,
    the_same_answer_by_the_same_person_changes_nothing,
    an_answer_that_cannot_be_taken_says_why,
    a_block_that_exists_is_left_as_it_is,
    blocks_are_listed_by_run_and_status,
    a_worker_keeps_its_slot_while_its_question_is_open,
    an_intent_is_written_once,
    a_result_is_written_once_and_needs_no_intent,
    a_reservation_respects_every_limit_above_it,
    of_many_reservations_only_those_that_fit_succeed,
    spend_is_booked_up_the_tree,
    runs_are_listed_newest_first_with_filters,
    events_are_read_from_a_number_on,
    an_unknown_run_reads_as_empty,
    a_graph_is_kept_under_its_hash,
    a_record_is_written_by_whoever_read_its_last_version,
    records_are_listed_by_prefix_in_order,
    of_many_writers_of_a_record_one_wins,
    what_was_acknowledged_is_there_after_a_restart,
    a_step_without_its_checkpoint_survives_a_restart,
    every_combination_of_checkpoint_filters_lists_what_fits,
    every_combination_of_run_filters_lists_what_fits,
    a_listed_checkpoint_says_what_it_holds,
    a_fork_begins_where_its_source_was,
    a_fork_that_leads_nowhere_is_refused,
    a_fork_takes_the_journal_as_it_was_at_its_checkpoint,
    a_fork_and_its_source_go_their_own_ways,
    an_edit_is_one_checkpoint_with_its_author,
    an_edit_is_refused_while_claimed_or_ended_or_moved_on,
    steps_that_ended_before_an_edit_come_back_with_the_claim,
    a_copy_reads_as_its_source_did,
    a_copy_is_claimed_only_if_that_was_asked_for,
    a_copy_is_whole_while_its_source_is_written,
    checkpoints_that_are_left_read_as_before,
    pruning_touches_only_what_it_was_given,
    checkpoints_go_by_age_and_the_last_one_stays,
    pruning_leaves_the_journal_and_questions_of_what_goes_on,
    pruning_breaks_no_fork,
    ended_runs_are_removed_by_whole_trees,
    a_graph_text_goes_a_day_after_its_last_run,
    a_deleted_run_is_gone_with_all_below_it,
    a_run_is_not_deleted_while_it_or_one_above_is_live,
}

/// How many combinations of arguments the clauses about lists try.
pub const COMBINATIONS: usize = 3 * 4 * 4 * 4 * 4 * 4 + 3 * 3 * 3 * 2 * 3 * 3 * 3;

/// How a whole suite went.
#[derive(Debug, Default)]
pub struct Report {
    /// Clauses that hold.
    pub held: Vec<&'static str>,
    /// Combinations of list arguments that were tried and hold.
    pub combinations: usize,
    /// Clauses that say nothing about this backend.
    pub does_not_apply: Vec<&'static str>,
    /// Clauses that do not hold, and what was seen.
    pub broken: Vec<(&'static str, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (restated, nowhere) = peers::counts();
        write!(
            f,
            "held {} of {} clauses, {} list combinations of {COMBINATIONS}, {} not applicable; \
             of LangGraph's {} behaviours {restated} are asked for, {nowhere} not applicable",
            self.held.len(),
            CLAUSES.len(),
            self.combinations,
            self.does_not_apply.len(),
            peers::LANGGRAPH.len(),
        )?;
        if !self.does_not_apply.is_empty() {
            write!(f, "; not for this backend: {}", self.does_not_apply.join(", "))?;
        }
        for (name, what) in &self.broken {
            write!(f, "\nbroken: {name}: {what}")?;
        }
        Ok(())
    }
}

/// Runs every clause, each on ground of its own.
pub async fn check<F, Fut>(fresh: F) -> Report
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn Ground>>,
{
    let mut report = Report::default();
    for clause in CLAUSES {
        let mut ground = fresh().await;
        let run = clause.run;
        let task = tokio::spawn(async move { run(&mut *ground).await });
        match task.await {
            Ok(Ok(Verdict::Held)) => report.held.push(clause.name),
            Ok(Ok(Verdict::HeldFor(count))) => {
                report.held.push(clause.name);
                report.combinations += count;
            }
            Ok(Ok(Verdict::DoesNotApply)) => report.does_not_apply.push(clause.name),
            Ok(Err(error)) => report.broken.push((clause.name, format!("{error:?}"))),
            Err(panic) => report.broken.push((clause.name, panic_text(panic))),
        }
    }
    report
}

fn panic_text(panic: tokio::task::JoinError) -> String {
    let Ok(panic) = panic.try_into_panic() else { return "was cancelled".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic
            .downcast::<&str>()
            .map_or_else(|_| "panicked without words".to_owned(), |text| (*text).to_owned()),
    }
}

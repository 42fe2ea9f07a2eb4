//! What every store decides in the same way about forks, edits, copies and pruning.

use std::collections::BTreeSet;

use serde_json::json;
use swarm_core::checkpoint::{ChannelDelta, Cursor};
use swarm_core::event::{EventKind, NewEvent};
use swarm_core::id::{BlockId, RunId};
use swarm_core::port::store::{Edit, EditError, Error, Fork, Keep, Result};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::invalid;

/// Refuses a checkpoint that leads nowhere.
pub(in crate::store) fn check_fork(
    fork: &Fork,
    status: RunStatus,
    last: Option<u64>,
    cursor: &Cursor,
) -> Result<()> {
    if cursor.active.is_empty() {
        let why = format!("nothing is left to do at checkpoint {}: take an earlier one", fork.seq);
        return Err(invalid("fork", &fork.from, why));
    }
    if status == RunStatus::Failed && last == Some(fork.seq) {
        let why = format!("the run failed at checkpoint {}: take an earlier one", fork.seq);
        return Err(invalid("fork", &fork.from, why));
    }
    Ok(())
}

/// Refuses a fork of a checkpoint that is not there.
pub(in crate::store) fn no_checkpoint(run: &RunId, seq: u64) -> Error {
    Error::NotFound { what: "checkpoint", id: format!("{seq}` of run `{run}") }
}

/// The first event of a fork.
pub(in crate::store) fn forked(fork: &Fork) -> NewEvent {
    let data = json!({ "run": fork.from, "seq": fork.seq });
    NewEvent::run(EventKind::RUN_FORKED, data)
}

/// The first event of a copy that is its own.
pub(in crate::store) fn copied(from: &RunId) -> NewEvent {
    NewEvent::run(EventKind::RUN_COPIED, json!({ "run": from }))
}

/// What is told of an edit.
pub(in crate::store) fn edited(edit: &Edit, seq: u64) -> NewEvent {
    let channels: Vec<&str> = edit.deltas.iter().map(|delta| delta.channel.as_str()).collect();
    let data = json!({ "by": edit.by, "seq": seq, "channels": channels });
    NewEvent::run(EventKind::STATE_EDITED, data)
}

/// Refuses an edit of a run that somebody works on, that has ended, or that has moved on; else
/// the number of the next checkpoint.
pub(in crate::store) fn check_edit(
    edit: &Edit,
    record: &RunRecord,
    found: Option<u64>,
) -> std::result::Result<u64, EditError> {
    let run = edit.run.clone();
    match record.status {
        RunStatus::Ready | RunStatus::Waiting => {}
        RunStatus::Running => {
            return Err(EditError::Claimed { run, by: record.lease_owner.clone() });
        }
        status @ (RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled) => {
            return Err(EditError::Ended { run, status });
        }
    }
    if found != Some(edit.expected) {
        return Err(EditError::Moved { run, expected: edit.expected, found });
    }
    check_deltas(&edit.run, &edit.deltas)?;
    Ok(edit.expected + 1)
}

/// Refuses a channel that is written twice.
pub(in crate::store) fn check_deltas(run: &RunId, deltas: &[ChannelDelta]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match deltas.iter().find(|delta| !seen.insert(delta.channel.as_str())) {
        None => Ok(()),
        Some(delta) => {
            let why = format!("channel `{}` is written twice", delta.channel);
            Err(invalid("checkpoint", run, why))
        }
    }
}

/// Refuses a claimable copy of a run that has ended.
pub(in crate::store) fn check_copy(from: &RunId, status: RunStatus, claimable: bool) -> Result<()> {
    if claimable && status.is_final() {
        let why = format!("it has {}, so nobody can go on with a copy: fork it", status.as_str());
        return Err(invalid("copy", from, why));
    }
    Ok(())
}

/// The id of a question in a copy of its run.
pub(in crate::store) fn copied_block(block: &BlockId, from: &RunId, to: &RunId) -> Result<BlockId> {
    let own = block.as_str().strip_prefix(from.as_str()).and_then(|rest| rest.strip_prefix('.'));
    BlockId::new(format!("{to}.{}", own.unwrap_or(block.as_str())))
        .map_err(|error| invalid("copy", from, error.to_string()))
}

/// When a journal entry was written, told by the number of the checkpoint before; -1 for none.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Written {
    pub(in crate::store) begun_after: i64,
    /// `None` while there is only the intent.
    pub(in crate::store) finished_after: Option<i64>,
}

/// What a fork takes of a journal entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum Taken {
    Nothing,
    Intent,
    Result,
}

impl Written {
    /// What was there of the entry when checkpoint `seq` was written. An intent that reserves
    /// money stands for a call that is simply made again.
    pub(in crate::store) fn before(self, seq: i64, reserved: Spend) -> Taken {
        if self.finished_after.is_some_and(|after| after < seq) {
            Taken::Result
        } else if self.begun_after < seq && reserved == Spend::default() {
            Taken::Intent
        } else {
            Taken::Nothing
        }
    }
}

/// The number of the first checkpoint that is kept, of those there are, oldest first.
pub(in crate::store) fn first_kept(
    keep: Keep,
    now: Timestamp,
    checkpoints: impl IntoIterator<Item = (u64, Timestamp)>,
    last: u64,
) -> u64 {
    let by_count = keep.last.map_or(0, |count| (last + 1).saturating_sub(count.max(1)));
    let oldest = cut_off(now, keep.max_age);
    let young = |&(_, at): &(u64, Timestamp)| oldest.is_none_or(|oldest| at >= oldest);
    let by_age = checkpoints.into_iter().find(young).map_or(last, |(seq, _)| seq);
    by_count.max(by_age).min(last)
}

/// The moment from which on a thing is not older than `age`.
pub(in crate::store) fn cut_off(
    now: Timestamp,
    age: Option<std::time::Duration>,
) -> Option<Timestamp> {
    let age = i64::try_from(age?.as_millis()).unwrap_or(i64::MAX);
    Some(Timestamp(now.as_millis().saturating_sub(age)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_checkpoint_is_kept_whatever_the_retention_says() {
        let all = || (3..=7).map(|seq| (seq, Timestamp(i64::try_from(seq).unwrap() * 1000)));
        let first = |last, secs: Option<u64>| {
            let keep = Keep { last, max_age: secs.map(Duration::from_secs) };
            first_kept(keep, Timestamp(10_000), all(), 7)
        };
        assert_eq!(first(None, None), 3);
        assert_eq!((first(Some(0), None), first(Some(1), None), first(Some(3), None)), (7, 7, 5));
        assert_eq!(first(Some(99), None), 3);
        assert_eq!((first(None, Some(5)), first(None, Some(1)), first(None, Some(99))), (5, 7, 3));
        assert_eq!((first(Some(2), Some(5)), first(Some(4), Some(4))), (6, 6));
    }

    #[test]
    fn a_fork_takes_what_the_journal_held_when_its_checkpoint_was_written() {
        let written = |begun_after, finished_after| Written { begun_after, finished_after };
        let free = Spend::default();
        let paid = Spend { tokens: 1, ..free };
        assert_eq!(written(-1, Some(-1)).before(0, free), Taken::Result);
        assert_eq!(written(2, Some(3)).before(4, paid), Taken::Result);
        assert_eq!(written(2, Some(4)).before(4, free), Taken::Intent);
        assert_eq!(written(2, None).before(4, free), Taken::Intent);
        assert_eq!(written(2, None).before(4, paid), Taken::Nothing);
        assert_eq!(written(4, Some(4)).before(4, free), Taken::Nothing);
    }
}

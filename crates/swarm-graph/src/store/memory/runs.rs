//! The runs of a store in memory, and the indexes by which the next one to claim is found.
//!
//! A run keeps its number when others are removed. Whoever changes the status, the lease or the
//! timer of a run calls [`Runs::changed`] after it: no index looks at a run by itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Index, IndexMut};

use swarm_core::id::{QueueName, RunId};
use swarm_core::run::RunStatus;
use swarm_core::time::Timestamp;

use super::run::Run;

/// Priority, then age: the order of claims.
type Urgency = (Reverse<i32>, usize);

/// Where a run is in the indexes.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Ready(QueueName, Urgency),
    /// The end of its lease, or the beginning of its timer; `None` is now.
    Timed(Option<Timestamp>),
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    /// In the order of their creation; `None` where one was removed.
    all: Vec<Option<(Box<Run>, Option<Place>)>>,
    by_id: HashMap<RunId, usize>,
    ready: BTreeMap<QueueName, BTreeSet<Urgency>>,
    /// Leased and timed runs, by the moment at which they become claimable.
    timed: BTreeSet<(Option<Timestamp>, usize)>,
}

impl Index<usize> for Runs {
    type Output = Run;

    fn index(&self, at: usize) -> &Run {
        &self.all[at].as_ref().expect("a number of a run that was removed is not kept").0
    }
}

impl IndexMut<usize> for Runs {
    fn index_mut(&mut self, at: usize) -> &mut Run {
        &mut self.all[at].as_mut().expect("a number of a run that was removed is not kept").0
    }
}

impl Runs {
    pub(super) fn find(&self, run: &RunId) -> Option<usize> {
        self.by_id.get(run).copied()
    }

    /// Whether the run of this number was not removed.
    pub(super) fn has(&self, at: usize) -> bool {
        self.all[at].is_some()
    }

    /// Adds a run that is not there yet; returns its number.
    pub(super) fn add(&mut self, run: Run) -> usize {
        let at = self.all.len();
        self.by_id.insert(run.record.start.id.clone(), at);
        if let Some(parent) = run.parent {
            self[parent].children.push(at);
        }
        self.all.push(Some((Box::new(run), None)));
        self.changed(at);
        at
    }

    /// Removes a run without runs below it.
    pub(super) fn remove(&mut self, at: usize) -> Run {
        self.place(at, None);
        let (run, _) = self.all[at].take().expect("removed once");
        self.by_id.remove(&run.record.start.id);
        if let Some(parent) = run.parent {
            self[parent].children.retain(|&child| child != at);
        }
        *run
    }

    /// The numbers of all runs below this bound, newest first.
    pub(super) fn newest_first(&self, below: Option<usize>) -> impl Iterator<Item = usize> {
        let below = below.unwrap_or(self.all.len());
        (0..below).rev().filter(|&at| self.all[at].is_some())
    }

    /// Puts a run where its status, lease and timer say.
    pub(super) fn changed(&mut self, at: usize) {
        let record = &self[at].record;
        let urgency = (Reverse(record.start.priority), at);
        let place = match record.status {
            RunStatus::Ready => Some(Place::Ready(record.start.queue.clone(), urgency)),
            RunStatus::Running => Some(Place::Timed(record.lease_until)),
            RunStatus::Waiting => record.wake_at.map(|wake_at| Place::Timed(Some(wake_at))),
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => None,
        };
        self.place(at, place);
    }

    fn place(&mut self, at: usize, place: Option<Place>) {
        let Some((_, there)) = &mut self.all[at] else { return };
        if *there == place {
            return;
        }
        match std::mem::replace(there, place.clone()) {
            Some(Place::Ready(queue, urgency)) => {
                if let Some(ready) = self.ready.get_mut(&queue) {
                    ready.remove(&urgency);
                }
            }
            Some(Place::Timed(moment)) => {
                self.timed.remove(&(moment, at));
            }
            None => {}
        }
        match place {
            Some(Place::Ready(queue, urgency)) => {
                self.ready.entry(queue).or_default().insert(urgency);
            }
            Some(Place::Timed(moment)) => {
                self.timed.insert((moment, at));
            }
            None => {}
        }
    }

    /// The most urgent run of these queues that can be claimed now and whose format we know.
    pub(super) fn next(&self, queues: &[QueueName], now: Timestamp) -> Option<usize> {
        let is_known = |at: &usize| self[*at].check_format().is_ok();
        let ready = queues.iter().filter_map(|queue| {
            self.ready.get(queue)?.iter().copied().find(|(_, at)| is_known(at))
        });
        let timed = self
            .timed
            .iter()
            .take_while(|(moment, _)| moment.is_none_or(|moment| moment <= now))
            .map(|&(_, at)| (Reverse(self[at].record.start.priority), at))
            .filter(|(_, at)| queues.contains(&self[*at].record.start.queue) && is_known(at));
        ready.chain(timed).min().map(|(_, at)| at)
    }
}

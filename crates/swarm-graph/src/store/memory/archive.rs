//! Forks, edits, copies, deletions and pruning in memory.
//!
//! As everywhere here, all that can be refused is refused before anything is changed.

use std::collections::HashSet;

use async_trait::async_trait;
use swarm_core::checkpoint::{Change, ChannelDelta, Cursor};
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::id::{GraphHash, RunId, StepId};
use swarm_core::port::store::{
    Archive, CheckpointWrite, CopyRun, DeleteError, Edit, EditError, Fork, GRAPH_GRACE, Pruned,
    Result, Retention,
};
use swarm_core::run::{NewRun, Origin, RunStatus};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::super::rules::{self, Shape, Taken};
use super::run::{Delta, Journaled, Run};
use super::{Inner, MemoryStore};

#[async_trait]
impl Archive for MemoryStore {
    async fn fork(&self, fork: Fork, at: Timestamp) -> Result<bool> {
        self.lock().fork(&fork, at)
    }

    async fn edit(&self, edit: Edit, at: Timestamp) -> std::result::Result<u64, EditError> {
        self.lock().edit(edit, at)
    }

    async fn copy_run(&self, copy: CopyRun, at: Timestamp) -> Result<bool> {
        self.lock().copy_run(&copy, at)
    }

    async fn delete_run(&self, run: &RunId) -> std::result::Result<u64, DeleteError> {
        self.lock().delete(run)
    }

    async fn prune(
        &self,
        retention: &Retention,
        only: Option<&[RunId]>,
        now: Timestamp,
    ) -> Result<Pruned> {
        Ok(self.lock().prune(retention, only, now))
    }
}

impl Inner {
    fn fork(&mut self, fork: &Fork, now: Timestamp) -> Result<bool> {
        let from = &self.runs[self.find(&fork.from)?];
        if self.runs.find(&fork.id).is_some() {
            return Ok(false);
        }
        let first = from
            .checkpoint(Some(fork.seq))?
            .ok_or_else(|| rules::no_checkpoint(&fork.from, fork.seq))?;
        rules::check_fork(fork, from.record.status, from.seq(), &first.cursor)?;
        let start = NewRun {
            id: fork.id.clone(),
            graph_hash: fork.graph.clone().unwrap_or_else(|| from.record.start.graph_hash.clone()),
            parent: None,
            queue: fork.queue.clone(),
            priority: fork.priority,
            labels: fork.labels.clone(),
            limit: fork.limit,
            ..from.record.start.clone()
        };
        let mut run = Run::new(start, None, now);
        run.record.forked_from = Some(Origin { run: fork.from.clone(), seq: fork.seq });
        run.entries = from.entries_at(fork.seq, &first.cursor);
        let deltas = first.state.0.iter().map(|(channel, value)| ChannelDelta {
            channel: channel.clone(),
            change: Change::Full(value.clone()),
        });
        let deltas: Vec<ChannelDelta> = deltas.collect();
        let shapes: Vec<Shape> = first.state.0.values().map(|value| Shape::of(value)).collect();
        let write = CheckpointWrite { seq: 0, cursor: first.cursor.begun_anew(), deltas };
        run.put_checkpoint(write, &shapes, now, None);
        run.tell(vec![rules::forked(fork)], now);
        self.runs.add(run);
        Ok(true)
    }

    fn edit(&mut self, edit: Edit, now: Timestamp) -> std::result::Result<u64, EditError> {
        let at = self.find(&edit.run)?;
        let run = &mut self.runs[at];
        let seq = rules::check_edit(&edit, &run.record, run.seq())?;
        run.check_format()?;
        let shapes = run.shapes(&edit.deltas)?;
        let event = rules::edited(&edit, seq);
        run.write_same_place(edit.deltas, &shapes, Some(edit.by), now);
        run.tell(vec![event], now);
        run.record.updated_at = now;
        Ok(seq)
    }

    fn copy_run(&mut self, copy: &CopyRun, now: Timestamp) -> Result<bool> {
        let from = &self.runs[self.find(&copy.from)?];
        if self.runs.find(&copy.id).is_some() {
            return Ok(false);
        }
        let status = from.record.status;
        rules::check_copy(&copy.from, status, copy.claimable)?;
        from.check_format()?;
        let blocks = self.copied_blocks(from, copy)?;
        let mut run = from.clone();
        let record = &mut run.record;
        record.start.id = copy.id.clone();
        record.start.parent = None;
        record.reserved = Spend::default();
        record.reserved_by = None;
        (record.lease_owner, record.lease_until, record.wake_at) = (None, None, None);
        record.updated_at = now;
        if copy.claimable {
            record.status = RunStatus::Ready;
        } else if !status.is_final() {
            record.status = RunStatus::Cancelled;
            record.ended_at = Some(now);
        }
        (run.parent, run.children) = (None, Vec::new());
        run.signals.clear();
        run.signal_keys.clear();
        run.entries.retain(|_, Journaled { entry, .. }| {
            entry.result.is_some() || entry.reserved == Spend::default()
        });
        for event in &mut run.events {
            event.run = copy.id.clone();
        }
        if copy.claimable && !run.checkpoints.is_empty() {
            run.write_same_place(Vec::new(), &[], None, now);
            if let Some(last) = run.checkpoints.last_mut() {
                last.cursor = last.cursor.begun_anew();
            }
        }
        run.tell(vec![rules::copied(&copy.from)], now);
        run.asked = blocks.iter().map(|block| block.id.clone()).collect();
        self.blocks.extend(blocks.into_iter().map(|block| (block.id.clone(), block)));
        self.runs.add(run);
        Ok(true)
    }

    /// The questions of a copy.
    fn copied_blocks(&self, from: &Run, copy: &CopyRun) -> Result<Vec<Block>> {
        let active = from.checkpoints.last().map(|last| steps_of(&last.cursor)).unwrap_or_default();
        let mut blocks = Vec::new();
        for id in &from.asked {
            let mut block = self.blocks[id].clone();
            if copy.claimable && active.contains(&block.step) {
                continue;
            }
            block.id = rules::copied_block(id, &copy.from, &copy.id)?;
            block.run = copy.id.clone();
            if self.blocks.contains_key(&block.id) {
                return Err(rules::foreign_block(&block));
            }
            if block.status == BlockStatus::Open {
                block.status = BlockStatus::Withdrawn;
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// A run and all below it, oldest first.
    fn tree(&self, at: usize) -> Vec<usize> {
        let mut tree = vec![at];
        let mut next = 0;
        while let Some(&at) = tree.get(next) {
            tree.extend(&self.runs[at].children);
            next += 1;
        }
        tree.sort_unstable();
        tree
    }

    fn delete(&mut self, run: &RunId) -> std::result::Result<u64, DeleteError> {
        let Some(at) = self.runs.find(run) else { return Ok(0) };
        let tree = self.tree(at);
        let record = |at: usize| &self.runs[at].record;
        if let Some(&live) = tree.iter().find(|&&at| !record(at).status.is_final()) {
            let (run, status) = (record(live).start.id.clone(), record(live).status);
            return Err(DeleteError::Live { run, status });
        }
        if let Some(above) = self.lineage(at).skip(1).find(|&at| !record(at).status.is_final()) {
            let (run, by) = (run.clone(), record(above).start.id.clone());
            return Err(DeleteError::Needed { run, by });
        }
        Ok(self.remove(&tree))
    }

    fn remove(&mut self, tree: &[usize]) -> u64 {
        for &at in tree.iter().rev() {
            for block in self.runs.remove(at).asked {
                self.blocks.shift_remove(&block);
            }
        }
        tree.len() as u64
    }

    fn prune(&mut self, retention: &Retention, only: Option<&[RunId]>, now: Timestamp) -> Pruned {
        let mut pruned = Pruned::default();
        let mut runs: Vec<usize> = match only {
            Some(only) => only.iter().filter_map(|run| self.runs.find(run)).collect(),
            None => self.runs.newest_first(None).collect(),
        };
        if let Some(oldest) = rules::cut_off(now, retention.remove_after) {
            runs.retain(|&at| {
                let has_parent = self.runs[at].parent.is_some();
                let tree = if has_parent { Vec::new() } else { self.tree(at) };
                let is_over = |at: &usize| {
                    self.runs[*at].record.ended_at.is_some_and(|ended_at| ended_at <= oldest)
                };
                let goes = !tree.is_empty() && tree.iter().all(is_over);
                if goes {
                    pruned.runs += self.remove(&tree);
                }
                !goes
            });
        }
        runs.sort_unstable();
        runs.dedup();
        for at in runs {
            // It may have gone with the run above it.
            if self.runs.has(at) {
                let run = &mut self.runs[at];
                let is_over = run.record.status.is_final();
                let keep = if is_over { retention.ended } else { retention.live };
                pruned.checkpoints += run.prune(keep, now);
            }
        }
        if only.is_none() {
            pruned.graphs = self.prune_graphs(now);
        }
        pruned
    }

    fn prune_graphs(&mut self, now: Timestamp) -> u64 {
        let needed: HashSet<GraphHash> = self
            .runs
            .newest_first(None)
            .map(|at| self.runs[at].record.start.graph_hash.clone())
            .collect();
        let before = self.graphs.len();
        self.graphs.retain(|hash, kept| {
            if needed.contains(hash) {
                kept.unneeded_since = None;
                return true;
            }
            let since = *kept.unneeded_since.get_or_insert(now);
            since + GRAPH_GRACE > now
        });
        (before - self.graphs.len()) as u64
    }
}

fn steps_of(cursor: &Cursor) -> HashSet<StepId> {
    cursor.active.iter().map(|activation| activation.step.clone()).collect()
}

impl Run {
    /// What the journal held of the steps of this cursor when it was stored as `seq`.
    fn entries_at(
        &self,
        seq: u64,
        cursor: &Cursor,
    ) -> indexmap::IndexMap<(StepId, String), Journaled> {
        let active = steps_of(cursor);
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let mut entries = indexmap::IndexMap::new();
        for (place, journaled) in self.entries.iter().filter(|(place, _)| active.contains(&place.0))
        {
            let taken = journaled.written.before(seq, journaled.entry.reserved);
            let mut journaled = journaled.clone();
            journaled.written.begun_after = -1;
            match taken {
                Taken::Nothing => continue,
                Taken::Intent => {
                    journaled.entry.result = None;
                    journaled.written.finished_after = None;
                }
                Taken::Result => journaled.written.finished_after = Some(-1),
            }
            entries.insert(place.clone(), journaled);
        }
        entries
    }

    /// One more checkpoint at the same place. Steps that ended since the last one are still to
    /// be taken by a claim, so it is not this checkpoint that covers them.
    fn write_same_place(
        &mut self,
        deltas: Vec<ChannelDelta>,
        shapes: &[Shape],
        by: Option<String>,
        now: Timestamp,
    ) {
        let seq = self.next_seq();
        for (covered_by, _) in &mut self.steps {
            *covered_by += u64::from(*covered_by == seq);
        }
        let cursor = self.checkpoints.last().map(|last| last.cursor.clone()).unwrap_or_default();
        self.put_checkpoint(CheckpointWrite { seq, cursor, deltas }, shapes, now, by);
    }

    /// Removes the checkpoints that are not kept; returns how many.
    fn prune(&mut self, keep: swarm_core::port::store::Keep, now: Timestamp) -> u64 {
        let Some(last) = self.seq() else { return 0 };
        let numbered = (self.first_seq..).zip(self.checkpoints.iter().map(|stored| stored.at));
        let first = rules::first_kept(keep, now, numbered, last);
        let count = first.saturating_sub(self.first_seq);
        if count == 0 {
            return 0;
        }
        self.checkpoints.drain(..usize::try_from(count).unwrap_or(usize::MAX));
        self.first_seq = first;
        for deltas in self.channels.values_mut() {
            let upto = deltas.partition_point(|delta| delta.seq <= first);
            let is_full = |delta: &Delta| matches!(delta.change, Change::Full(_));
            let base = deltas[..upto].iter().rposition(is_full).unwrap_or(0);
            deltas.drain(..base);
        }
        let over: HashSet<&StepId> = self
            .steps
            .iter()
            .filter(|(covered_by, _)| *covered_by <= first)
            .map(|(_, step)| &step.step)
            .collect();
        self.entries.retain(|(step, _), _| !over.contains(step));
        count
    }
}

//! Commits and signals in memory.
//!
//! [`Inner::check`] finds everything that can be wrong, [`Inner::apply`] can then no longer fail.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::checkpoint::{Change, ChannelDelta, FORMAT, StepRecord};
use swarm_core::escalation::{Block, BlockStatus};
use swarm_core::event::Event;
use swarm_core::id::{ChannelName, RunId, WorkerId};
use swarm_core::port::store::{
    CheckpointWrite, Claim, Commit, Commits, Committed, Outgoing, Recipient, Release, Result,
    Signal, SignalKind,
};
use swarm_core::run::{Limit, NewRun, RunStatus};
use swarm_core::spend::Spend;
use swarm_core::time::Timestamp;

use super::super::rules::{self, Shape};
use super::run::{Delta, Run, Stored};
use super::{Inner, MemoryStore};

#[async_trait]
impl Commits for MemoryStore {
    async fn create_run(&self, run: NewRun, at: Timestamp) -> Result<bool> {
        self.lock().create(run, at)
    }

    async fn create_claimed(
        &self,
        run: NewRun,
        worker: &WorkerId,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Claim>> {
        let mut inner = self.lock();
        let id = run.id.clone();
        if !inner.create(run, now)? {
            return Ok(None);
        }
        let at = inner.find(&id)?;
        inner.claim(at, worker, now, ttl).map(Some)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        let mut inner = self.lock();
        let at = inner.fenced(&commit.run, commit.epoch)?;
        let shapes = inner.check(at, &commit)?;
        Ok(inner.apply(at, commit, &shapes))
    }

    async fn raise_limit(&self, run: &RunId, limit: Limit, at: Timestamp) -> Result<Limit> {
        let mut inner = self.lock();
        let of = inner.find(run)?;
        let record = &mut inner.runs[of].record;
        record.start.limit = rules::raised(record.start.limit, limit);
        record.updated_at = at;
        Ok(record.start.limit)
    }

    async fn signals(&self, run: &RunId) -> Result<Vec<Signal>> {
        let inner = self.lock();
        let Ok(at) = inner.find(run) else { return Ok(Vec::new()) };
        Ok(inner.runs[at].signals.values().cloned().collect())
    }

    async fn signal(
        &self,
        run: &RunId,
        key: Option<&str>,
        kind: SignalKind,
        at: Timestamp,
    ) -> Result<bool> {
        let mut inner = self.lock();
        let to = inner.find(run)?;
        let record = &mut inner.runs[to];
        if record.record.status.is_final()
            || key.is_some_and(|key| !record.signal_keys.insert(key.to_owned()))
        {
            return Ok(false);
        }
        inner.send(to, kind, at);
        Ok(true)
    }
}

impl Inner {
    /// Refuses a commit that cannot be applied whole; returns the shapes that its deltas leave.
    fn check(&self, at: usize, commit: &Commit) -> Result<Shapes> {
        rules::check_commit(commit)?;
        let shapes = self.runs[at].check_checkpoints(commit)?;
        for block in &commit.blocks {
            if self.blocks.get(&block.id).is_some_and(|there| there.run != block.run) {
                return Err(rules::foreign_block(block));
            }
        }
        let mut known = HashSet::new();
        for child in &commit.children {
            if let Some(parent) = &child.parent
                && self.runs.find(&parent.run).is_none()
                && !known.contains(&parent.run)
            {
                return Err(rules::no_parent(&parent.run));
            }
            known.insert(&child.id);
        }
        for outgoing in &commit.outgoing {
            if let Recipient::Run(run) = &outgoing.to
                && !known.contains(run)
            {
                self.find(run)?;
            }
        }
        Ok(shapes)
    }

    fn apply(&mut self, at: usize, commit: Commit, shapes: &Shapes) -> Committed {
        let Commit { at: now, blocks, withdrawn, children, outgoing, release, .. } = commit;
        let keeps_or_frees = !blocks.is_empty() || !withdrawn.is_empty() || release.is_some();
        let run = &mut self.runs[at];
        run.record.updated_at = now;
        if let Some(first) = commit.first {
            run.put_checkpoint(first, &shapes.first, now, None);
        }
        run.put_steps(commit.steps, commit.checkpoint.as_ref());
        if let Some(checkpoint) = commit.checkpoint {
            run.put_checkpoint(checkpoint, &shapes.next, now, None);
        }
        for id in &commit.taken {
            run.signals.remove(id);
        }
        if let Some(limit) = commit.limit {
            run.record.start.limit = limit;
        }
        if let Some(graph) = commit.graph {
            run.record.start.graph_hash = graph;
        }
        let events: Vec<Event> = run.tell(commit.events, now);

        let new_blocks = self.put_blocks(at, blocks);
        for id in &withdrawn {
            self.withdraw(at, |block| block.id == *id);
        }
        let mut woken = Woken::default();
        for child in children {
            let id = child.id.clone();
            if self.create(child, now).expect("parents were checked") {
                woken.add(id);
            }
        }
        for Outgoing { to, kind } in outgoing {
            for to in self.recipients(at, &to) {
                if self.send(to, kind.clone(), now) {
                    woken.add(self.id(to));
                }
            }
        }
        for block in &new_blocks {
            let kind = rules::blocked(&self.runs[at].record.start, block);
            woken.all(self.send_up(at, &kind, now).into_iter().map(|to| self.id(to)));
        }
        if keeps_or_frees {
            let open = self.has_open_blocks(at);
            let record = &mut self.runs[at].record;
            record.reserved_by = record.lease_owner.clone().filter(|_| open);
        }
        if let Some(release) = release {
            self.release(at, release, now, &mut woken);
        }
        Committed { events, woken: woken.0 }
    }

    fn put_blocks(&mut self, at: usize, blocks: Vec<Block>) -> Vec<Block> {
        let mut new = Vec::new();
        for block in blocks {
            if !self.blocks.contains_key(&block.id) {
                self.blocks.insert(block.id.clone(), block.clone());
                self.runs[at].asked.push(block.id.clone());
                new.push(block);
            }
        }
        new
    }

    pub(super) fn withdraw(&mut self, at: usize, which: impl Fn(&Block) -> bool) {
        for id in &self.runs[at].asked {
            let Some(block) = self.blocks.get_mut(id) else { continue };
            if block.status == BlockStatus::Open && which(block) {
                block.status = BlockStatus::Withdrawn;
            }
        }
    }

    fn recipients(&self, from: usize, to: &Recipient) -> Vec<usize> {
        match to {
            Recipient::Run(run) => self.find(run).into_iter().collect(),
            Recipient::Ancestors => self.lineage(from).skip(1).collect(),
            Recipient::Children => self.runs[from].children.clone(),
        }
    }

    fn release(&mut self, at: usize, release: Release, now: Timestamp, woken: &mut Woken) {
        let record = &mut self.runs[at].record;
        record.lease_owner = None;
        record.lease_until = None;
        match release {
            Release::Ready => {
                record.status = RunStatus::Ready;
                woken.add(self.id(at));
            }
            Release::Waiting { wake_at, seen } => {
                record.status = RunStatus::Waiting;
                record.wake_at = wake_at;
                let is_unseen = self.runs[at].signals.keys().any(|&id| id > seen);
                if is_unseen && self.wake(at, now) {
                    woken.add(self.id(at));
                }
            }
            Release::Ended { status, output, failure } => {
                record.status = status;
                record.reserved_by = None;
                record.ended_at = Some(now);
                record.output = output;
                record.failure = failure;
                self.end(at, now, woken);
            }
        }
        self.runs.changed(at);
    }

    /// What the end of a run means to others.
    fn end(&mut self, at: usize, now: Timestamp, woken: &mut Woken) {
        let record = self.runs[at].record.clone();
        let start = &record.start;
        self.withdraw(at, |_| true);
        let left: Spend = self.runs[at]
            .entries
            .values()
            .filter(|journaled| journaled.entry.result.is_none())
            .map(|journaled| journaled.entry.reserved)
            .sum();
        self.book(at, left, Spend::default());
        if let (Some(parent), true) =
            (self.runs[at].parent, start.parent.as_ref().is_some_and(|parent| parent.awaited))
        {
            let ended = SignalKind::ChildEnded {
                run: start.id.clone(),
                status: record.status,
                output: record.output.clone(),
                failure: record.failure.clone(),
            };
            if self.send(parent, ended, now) {
                woken.add(self.id(parent));
            }
        }
        if start.parent.is_some() {
            let (output, failure) = (record.output.as_ref(), record.failure.as_ref());
            let finished = rules::finished(start, record.status, output, failure);
            woken.all(self.send_up(at, &finished, now).into_iter().map(|to| self.id(to)));
        }
    }

    fn id(&self, at: usize) -> RunId {
        self.runs[at].record.start.id.clone()
    }
}

/// The shapes that the deltas of a commit's checkpoints leave.
#[derive(Default)]
struct Shapes {
    first: Vec<Shape>,
    next: Vec<Shape>,
}

impl Run {
    fn check_checkpoints(&self, commit: &Commit) -> Result<Shapes> {
        let run = &self.record.start.id;
        let mut shapes = Shapes::default();
        let (mut last, mut before) = (self.seq(), &[][..]);
        if let Some(first) = &commit.first {
            rules::check_seq(run, last, first.seq)?;
            shapes.first = self.shapes(&first.deltas)?;
            (last, before) = (Some(first.seq), &first.deltas);
        }
        if let Some(next) = &commit.checkpoint {
            rules::check_seq(run, last, next.seq)?;
            let shape_of = |channel: &ChannelName| {
                let at = before.iter().position(|delta: &ChannelDelta| delta.channel == *channel);
                at.map_or_else(|| self.shape(channel), |at| shapes.first[at])
            };
            let after = |delta: &ChannelDelta| shape_of(&delta.channel).after(run, delta);
            shapes.next = next.deltas.iter().map(after).collect::<Result<_>>()?;
        }
        Ok(shapes)
    }

    /// The shapes that deltas leave.
    pub(super) fn shapes(&self, deltas: &[ChannelDelta]) -> Result<Vec<Shape>> {
        let run = &self.record.start.id;
        deltas.iter().map(|delta| self.shape(&delta.channel).after(run, delta)).collect()
    }

    /// The shape of a channel.
    fn shape(&self, channel: &ChannelName) -> Shape {
        let last = self.channels.get(channel).and_then(|deltas| deltas.last());
        last.map_or(Shape::Null, |last| last.shape)
    }

    fn put_steps(&mut self, steps: Vec<StepRecord>, checkpoint: Option<&CheckpointWrite>) {
        let covered_by = match checkpoint {
            Some(checkpoint) => checkpoint.seq,
            None => self.next_seq(),
        };
        for step in steps {
            if self.known_steps.insert((step.step.clone(), step.attempt)) {
                self.steps.push((covered_by, step));
            }
        }
    }

    pub(super) fn put_checkpoint(
        &mut self,
        checkpoint: CheckpointWrite,
        shapes: &[Shape],
        at: Timestamp,
        edited_by: Option<String>,
    ) {
        let CheckpointWrite { seq, cursor, deltas } = checkpoint;
        self.checkpoints.push(Stored { format: FORMAT, at, edited_by, cursor });
        for (delta, &shape) in deltas.into_iter().zip(shapes) {
            let deltas = self.channels.entry(delta.channel).or_default();
            deltas.push(Delta { seq, change: delta.change, shape });
            fold_merges(deltas);
        }
    }
}

/// Bounds what a read must put together: too many merges in a row become one full value.
fn fold_merges(deltas: &mut [Delta]) {
    let merges =
        deltas.iter().rev().take_while(|delta| matches!(delta.change, Change::Merge(_))).count();
    if merges <= rules::MERGES_MAX as usize {
        return;
    }
    let from = deltas.len().saturating_sub(merges + 1);
    let from = if matches!(deltas[from].change, Change::Append(_)) { from + 1 } else { from };
    let sum = rules::fold(deltas[from..].iter().map(|delta| delta.change.clone()));
    if let (Some(sum), Some(last)) = (sum, deltas.last_mut()) {
        last.change = Change::Full(sum);
    }
}

/// Runs that became claimable, each once.
#[derive(Default)]
struct Woken(Vec<RunId>);

impl Woken {
    fn add(&mut self, run: RunId) {
        if !self.0.contains(&run) {
            self.0.push(run);
        }
    }

    fn all(&mut self, runs: impl Iterator<Item = RunId>) {
        runs.for_each(|run| self.add(run));
    }
}

//! Questions and history in memory.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::checkpoint::{Checkpoint, StepRecord};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::event::Event;
use swarm_core::id::{BlockId, NodeName, RunId};
use swarm_core::port::store::{
    AnswerError, CheckpointFilter, CheckpointInfo, History, Questions, Result, RunFilter,
    SignalKind,
};
use swarm_core::run::RunRecord;
use swarm_core::time::Timestamp;

use super::super::rules;
use super::MemoryStore;
use super::run::{Delta, Run};

#[async_trait]
impl Questions for MemoryStore {
    async fn answer(
        &self,
        block: &BlockId,
        value: Arc<Value>,
        by: Answerer,
        at: Timestamp,
    ) -> std::result::Result<Block, AnswerError> {
        let mut inner = self.lock();
        let found =
            inner.blocks.get_mut(block).ok_or_else(|| AnswerError::Unknown(block.clone()))?;
        if !rules::takes_answer(found, &value, &by)? {
            return Ok(found.clone());
        }
        found.status = BlockStatus::Answered;
        found.answer = Some((*value).clone());
        found.answered_by = Some(by);
        found.answered_at = Some(at);
        let found = found.clone();
        let of = inner.find(&found.run)?;
        inner.send(of, SignalKind::Answered { block: block.clone(), value }, at);
        let answered = rules::answered(&inner.runs[of].record.start, &found);
        inner.send_up(of, &answered, at);
        Ok(found)
    }

    async fn block(&self, block: &BlockId) -> Result<Option<Block>> {
        Ok(self.lock().blocks.get(block).cloned())
    }

    async fn blocks(&self, run: Option<&RunId>, status: Option<BlockStatus>) -> Result<Vec<Block>> {
        let inner = self.lock();
        let wanted = |block: &&Block| {
            run.is_none_or(|run| block.run == *run)
                && status.is_none_or(|status| block.status == status)
        };
        Ok(inner.blocks.values().filter(wanted).cloned().collect())
    }
}

#[async_trait]
impl History for MemoryStore {
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>> {
        let inner = self.lock();
        Ok(inner.find(run).ok().map(|at| inner.runs[at].record.clone()))
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let inner = self.lock();
        let before = filter.before.as_ref().map(|before| inner.find(before)).transpose()?;
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        Ok(inner
            .runs
            .newest_first(before)
            .map(|at| &inner.runs[at].record)
            .filter(|record| matches(filter, record))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn events(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        let inner = self.lock();
        let Ok(at) = inner.find(run) else { return Ok(Vec::new()) };
        let limit = if limit == 0 { usize::MAX } else { limit };
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(inner.runs[at].events.iter().skip(after).take(limit).cloned().collect())
    }

    async fn checkpoint(&self, run: &RunId, seq: Option<u64>) -> Result<Option<Checkpoint>> {
        let inner = self.lock();
        let Ok(at) = inner.find(run) else { return Ok(None) };
        inner.runs[at].checkpoint(seq)
    }

    async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> Result<Vec<CheckpointInfo>> {
        let inner = self.lock();
        let Ok(at) = inner.find(run) else { return Ok(Vec::new()) };
        let run = &inner.runs[at];
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let seqs = (run.first_seq..run.next_seq()).rev();
        seqs.filter(|&seq| run.lists(filter, seq)).take(limit).map(|seq| run.info(seq)).collect()
    }

    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>> {
        let inner = self.lock();
        let Ok(at) = inner.find(run) else { return Ok(Vec::new()) };
        Ok(inner.runs[at].steps.iter().map(|(_, step)| step.clone()).collect())
    }
}

fn matches(filter: &RunFilter, record: &RunRecord) -> bool {
    let start = &record.start;
    let parent = start.parent.as_ref().map(|parent| &parent.run);
    (filter.status.is_empty() || filter.status.contains(&record.status))
        && filter.graph.as_ref().is_none_or(|graph| start.graph == *graph)
        && filter.parent.as_ref().is_none_or(|wanted| parent == Some(wanted))
        && !(filter.only_roots && parent.is_some())
        && filter.labels.iter().all(|(key, value)| start.labels.get(key) == Some(value))
}

impl Run {
    /// Whether a list holds the checkpoint of this number, which is there.
    fn lists(&self, filter: &CheckpointFilter, seq: u64) -> bool {
        let Some(stored) = self.stored(seq) else { return false };
        let active = |node: &NodeName| {
            stored.cursor.active.iter().any(|activation| activation.node == *node)
        };
        filter.before.is_none_or(|before| seq < before)
            && filter.since.is_none_or(|since| stored.at >= since)
            && filter.until.is_none_or(|until| stored.at < until)
            && filter.active.as_ref().is_none_or(active)
            && filter.ended.as_ref().is_none_or(|node| self.has_ended(node, seq))
    }

    /// Whether a step of this node ended between the checkpoint before and this one.
    fn has_ended(&self, node: &NodeName, seq: u64) -> bool {
        let mut steps = self.steps.iter();
        if steps.any(|(covered_by, step)| *covered_by == seq && step.node == *node) {
            return true;
        }
        let before = seq.checked_sub(1).and_then(|before| self.stored(before));
        let (Some(before), Some(here)) = (before, self.stored(seq)) else { return false };
        before.cursor.active.iter().any(|activation| {
            activation.node == *node
                && !here.cursor.active.iter().any(|other| other.step == activation.step)
        })
    }

    fn info(&self, seq: u64) -> Result<CheckpointInfo> {
        let stored = self.stored(seq).expect("the caller lists what is there");
        rules::check_format(&self.record.start.id, stored.format)?;
        let wrote = |deltas: &[Delta]| deltas.binary_search_by_key(&seq, |delta| delta.seq).is_ok();
        let changed = self.channels.iter().filter(|(_, deltas)| wrote(deltas));
        Ok(CheckpointInfo {
            seq,
            at: stored.at,
            edited_by: stored.edited_by.clone(),
            supersteps: stored.cursor.supersteps,
            active: stored.cursor.places(),
            changed: changed.map(|(channel, _)| channel.clone()).collect(),
        })
    }
}

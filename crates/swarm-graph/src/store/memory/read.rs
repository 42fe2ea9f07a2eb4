//! Questions and history in memory.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::checkpoint::{Checkpoint, StepRecord};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::event::Event;
use swarm_core::id::{BlockId, RunId};
use swarm_core::port::store::{AnswerError, History, Questions, Result, RunFilter, SignalKind};
use swarm_core::run::RunRecord;
use swarm_core::time::Timestamp;

use super::super::rules;
use super::MemoryStore;

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
        let end = match &filter.before {
            Some(before) => inner.find(before)?,
            None => inner.runs.len(),
        };
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        Ok(inner.runs[..end]
            .iter()
            .rev()
            .map(|run| &run.record)
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

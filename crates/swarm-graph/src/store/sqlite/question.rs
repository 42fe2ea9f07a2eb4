//! Questions: one answer each, by compare-and-set.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::params;
use serde_json::Value;
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::id::{BlockId, RunId};
use swarm_core::port::store::{AnswerError, Questions, Result, SignalKind};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::row::{self, block_status, select_blocks};
use super::signal::{self, Woken};
use super::tx::{Query, Tx};
use super::{Done, SqliteStore, commit};

#[async_trait]
impl Questions for SqliteStore {
    async fn answer(
        &self,
        block: &BlockId,
        value: Arc<Value>,
        by: Answerer,
        at: Timestamp,
    ) -> std::result::Result<Block, AnswerError> {
        let block = block.clone();
        self.write(move |tx| answer(tx, &block, &value, by, at)).await?
    }

    async fn block(&self, block: &BlockId) -> Result<Option<Block>> {
        let block = block.clone();
        self.read(move |tx| {
            tx.find(select_blocks!("WHERE b.id = ?1"), [block.as_str()], |row| Ok(row::block(row)?))
        })
        .await
    }

    async fn blocks(&self, run: Option<&RunId>, status: Option<BlockStatus>) -> Result<Vec<Block>> {
        let mut query = Query::new(select_blocks!("WHERE TRUE"));
        if let Some(run) = run {
            query.push(" AND r.id = ").bind(run.as_str().to_owned());
        }
        match status {
            // Spelled out, so that the index of open blocks serves it.
            Some(BlockStatus::Open) => {
                query.push(" AND b.status = 'open'");
            }
            Some(status) => {
                query.push(" AND b.status = ").bind(block_status(status).to_owned());
            }
            None => {}
        }
        query.push(" ORDER BY b.n");
        self.read(move |tx| query.all(tx, |row| Ok(row::block(row)?))).await
    }
}

/// Closes an open block. A refusal is a value here: it has written nothing to be undone.
fn answer(
    tx: &Tx<'_>,
    id: &BlockId,
    value: &Arc<Value>,
    by: Answerer,
    at: Timestamp,
) -> Done<std::result::Result<Block, AnswerError>> {
    let found = tx.find(select_blocks!("WHERE b.id = ?1"), [id.as_str()], |row| {
        Ok((row::column::<i64>(row, "run_seq")?, row::block(row)?))
    })?;
    let Some((run, mut block)) = found else { return Ok(Err(AnswerError::Unknown(id.clone()))) };
    match rules::takes_answer(&block, value, &by) {
        Ok(true) => {}
        Ok(false) => return Ok(Ok(block)),
        Err(refusal) => return Ok(Err(refusal)),
    }
    tx.execute(
        "UPDATE blocks SET status = 'answered', answer = ?2, answered_by = ?3, answered_at = ?4 \
         WHERE id = ?1 AND status = 'open'",
        params![id.as_str(), row::text(value)?, row::text(&by)?, at.as_millis()],
    )?;
    block.status = BlockStatus::Answered;
    block.answer = Some((**value).clone());
    block.answered_by = Some(by);
    block.answered_at = Some(at);
    let mut woken = Woken::default();
    let answered = SignalKind::Answered { block: id.clone(), value: Arc::clone(value) };
    signal::send(tx, &[run], &answered, at, &mut woken)?;
    let ancestors = signal::ancestors(tx, run)?;
    if !ancestors.is_empty() {
        let record = commit::record(tx, run)?;
        let heard = rules::answered(&record.start, &block);
        signal::send(tx, &ancestors, &heard, at, &mut woken)?;
    }
    Ok(Ok(block))
}

/// Withdraws those of these blocks that are open and of this run.
pub(super) fn withdraw(tx: &Tx<'_>, run: i64, blocks: &[BlockId]) -> Done<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    tx.execute(
        "UPDATE blocks SET status = 'withdrawn' WHERE run = ?1 AND status = 'open' \
         AND id IN (SELECT value FROM json_each(?2))",
        params![run, row::text(&blocks)?],
    )?;
    Ok(())
}

/// Withdraws all open blocks of a run.
pub(super) fn withdraw_all(tx: &Tx<'_>, run: i64) -> Done<()> {
    tx.execute(
        "UPDATE blocks SET status = 'withdrawn' WHERE run = ?1 AND status = 'open'",
        params![run],
    )?;
    Ok(())
}

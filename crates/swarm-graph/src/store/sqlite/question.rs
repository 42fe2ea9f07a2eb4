//! Questions: one answer each, by compare-and-set.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::id::{BlockId, RunId};
use swarm_core::port::store::{AnswerError, Questions, Result, SignalKind};
use swarm_core::time::Timestamp;

use super::super::rules;
use super::row::{self, backend, block_status, select_blocks};
use super::signal::{self, Woken};
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
        self.write(move |tx| Box::pin(async move { answer(tx, &block, &value, by, at).await }))
            .await?
    }

    async fn block(&self, block: &BlockId) -> Result<Option<Block>> {
        sqlx::query(select_blocks!("WHERE b.id = ?1"))
            .bind(block.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(backend)?
            .map(|found| row::block(&found))
            .transpose()
    }

    async fn blocks(&self, run: Option<&RunId>, status: Option<BlockStatus>) -> Result<Vec<Block>> {
        let mut query = QueryBuilder::<Sqlite>::new(select_blocks!("WHERE TRUE"));
        if let Some(run) = run {
            query.push(" AND r.id = ").push_bind(run.as_str());
        }
        match status {
            // Spelled out, so that the index of open blocks serves it.
            Some(BlockStatus::Open) => {
                query.push(" AND b.status = 'open'");
            }
            Some(status) => {
                query.push(" AND b.status = ").push_bind(block_status(status));
            }
            None => {}
        }
        let found =
            query.push(" ORDER BY b.n").build().fetch_all(&self.readers).await.map_err(backend)?;
        found.iter().map(row::block).collect()
    }
}

/// Closes an open block. A refusal is a value here: it has written nothing to be undone.
async fn answer(
    tx: &mut SqliteConnection,
    id: &BlockId,
    value: &Arc<Value>,
    by: Answerer,
    at: Timestamp,
) -> Done<std::result::Result<Block, AnswerError>> {
    let found = sqlx::query(select_blocks!("WHERE b.id = ?1"))
        .bind(id.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(found) = found else { return Ok(Err(AnswerError::Unknown(id.clone()))) };
    let run: i64 = row::column(&found, "run_seq")?;
    let mut block = row::block(&found)?;
    match rules::takes_answer(&block, value, &by) {
        Ok(true) => {}
        Ok(false) => return Ok(Ok(block)),
        Err(refusal) => return Ok(Err(refusal)),
    }
    sqlx::query(
        "UPDATE blocks SET status = 'answered', answer = ?2, answered_by = ?3, answered_at = ?4 \
         WHERE id = ?1 AND status = 'open'",
    )
    .bind(id.as_str())
    .bind(row::text(value)?)
    .bind(row::text(&by)?)
    .bind(at.as_millis())
    .execute(&mut *tx)
    .await?;
    block.status = BlockStatus::Answered;
    block.answer = Some((**value).clone());
    block.answered_by = Some(by);
    block.answered_at = Some(at);
    let mut woken = Woken::default();
    let answered = SignalKind::Answered { block: id.clone(), value: Arc::clone(value) };
    signal::send(tx, &[run], &answered, at, &mut woken).await?;
    let ancestors = signal::ancestors(tx, run).await?;
    if !ancestors.is_empty() {
        let record = commit::record(tx, run).await?;
        let heard = rules::answered(&record.start, &block);
        signal::send(tx, &ancestors, &heard, at, &mut woken).await?;
    }
    Ok(Ok(block))
}

/// Withdraws those of these blocks that are open and of this run.
pub(super) async fn withdraw(tx: &mut SqliteConnection, run: i64, blocks: &[BlockId]) -> Done<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE blocks SET status = 'withdrawn' WHERE run = ?1 AND status = 'open' \
         AND id IN (SELECT value FROM json_each(?2))",
    )
    .bind(run)
    .bind(row::text(&blocks)?)
    .execute(tx)
    .await?;
    Ok(())
}

/// Withdraws all open blocks of a run.
pub(super) async fn withdraw_all(tx: &mut SqliteConnection, run: i64) -> Done<()> {
    sqlx::query("UPDATE blocks SET status = 'withdrawn' WHERE run = ?1 AND status = 'open'")
        .bind(run)
        .execute(tx)
        .await?;
    Ok(())
}

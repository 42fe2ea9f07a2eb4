//! Questions: one answer each, by compare-and-set.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use swarm_core::escalation::{Answerer, Block, BlockStatus};
use swarm_core::id::{BlockId, RunId};
use swarm_core::port::store::{AnswerError, Questions, Result, SignalKind};
use swarm_core::time::Timestamp;

use super::call::Again;
use super::row::{self, block_status, select_blocks};
use super::{PostgresStore, args};
use crate::store::rules;

#[async_trait]
impl Questions for PostgresStore {
    async fn answer(
        &self,
        block: &BlockId,
        value: Arc<Value>,
        by: Answerer,
        at: Timestamp,
    ) -> std::result::Result<Block, AnswerError> {
        loop {
            let found = self.block(block).await?;
            let mut found = found.ok_or_else(|| AnswerError::Unknown(block.clone()))?;
            if !rules::takes_answer(&found, &value, &by)? {
                return Ok(found);
            }
            found.status = BlockStatus::Answered;
            found.answer = Some((*value).clone());
            found.answered_by = Some(by.clone());
            found.answered_at = Some(at);
            if self.close_block(&found, &value, &by, at).await? {
                self.0.bell.ring();
                return Ok(found);
            }
            // Somebody was faster, or this was the second try after a lost answer: look again.
        }
    }

    async fn block(&self, block: &BlockId) -> Result<Option<Block>> {
        let sql = select_blocks!("WHERE b.id = $1");
        let rows = self.pool().rows(Again::Read, sql, |_| args!(block.as_str())).await?;
        rows.first().map(row::block).transpose()
    }

    async fn blocks(&self, run: Option<&RunId>, status: Option<BlockStatus>) -> Result<Vec<Block>> {
        let status = status.map(block_status);
        // Written apart, so that each has its index.
        let sql = match (run, status) {
            (Some(_), _) => {
                select_blocks!(
                    "WHERE r.id = $1 AND ($2::text IS NULL OR b.status = $2) ORDER BY b.n"
                )
            }
            (None, Some("open")) => {
                select_blocks!(
                    "WHERE b.status = 'open' AND $1::text IS NULL AND $2::text IS NOT NULL ORDER BY b.n"
                )
            }
            (None, _) => {
                select_blocks!(
                    "WHERE $1::text IS NULL AND ($2::text IS NULL OR b.status = $2) ORDER BY b.n"
                )
            }
        };
        let run = run.map(RunId::as_str);
        let rows = self.pool().rows(Again::Read, sql, |_| args!(run, status)).await?;
        rows.iter().map(row::block).collect()
    }
}

impl PostgresStore {
    /// Answers a block that is open; `false` if it is not any more.
    async fn close_block(
        &self,
        block: &Block,
        value: &Arc<Value>,
        by: &Answerer,
        at: Timestamp,
    ) -> Result<bool> {
        let start = self.start_of(&block.run).await?.ok_or_else(|| row::no_run(&block.run))?;
        let answered =
            row::text(&SignalKind::Answered { block: block.id.clone(), value: value.clone() })?;
        let heard = row::text(&rules::answered(&start, block))?;
        let (value, by) = (row::text(value)?, row::text(by)?);
        let sql = "SELECT answer_block($1, $2, $3, $4, $5, $6)";
        let rows = self
            .pool()
            .rows(Again::Same, sql, |_| {
                args!(
                    block.id.as_str(),
                    value.as_str(),
                    by.as_str(),
                    at.as_millis(),
                    answered.as_str(),
                    heard.as_str()
                )
            })
            .await?;
        Ok(row::scalar(&rows)?.unwrap_or(false))
    }
}

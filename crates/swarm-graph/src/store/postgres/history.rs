//! What people and tools read, and the graph texts.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, SqlSafeStr as _};
use swarm_core::checkpoint::{Checkpoint, Cursor, StepRecord};
use swarm_core::event::Event;
use swarm_core::id::{GraphHash, RunId};
use swarm_core::port::store::{
    CheckpointFilter, CheckpointInfo, GraphText, Graphs, History, Result, RunFilter,
};
use swarm_core::run::{RunRecord, RunStatus};
use swarm_core::time::Timestamp;

use super::call::Again;
use super::row::{self, column, int, uint};
use super::{PostgresStore, args};
use crate::store::rules;

#[async_trait]
impl History for PostgresStore {
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>> {
        self.find_run(run).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let before = match &filter.before {
            None => None,
            Some(run) => {
                let sql = "SELECT seq FROM runs WHERE id = $1";
                let rows = self.pool().rows(Again::Read, sql, |_| args!(run.as_str())).await?;
                Some(row::scalar::<i64>(&rows)?.ok_or_else(|| row::no_run(run))?)
            }
        };
        let status: Vec<&str> = filter.status.iter().copied().map(RunStatus::as_str).collect();
        let labels = filter.labels.iter().map(|(key, value)| row::label(key, value));
        let labels = labels.collect::<Result<Vec<_>>>()?;
        let graph = filter.graph.as_ref().map(|graph| graph.as_str());
        let parent = filter.parent.as_ref().map(RunId::as_str);
        let limit = (filter.limit > 0).then(|| int(filter.limit as u64));
        // What is asked for is spelled out, so that an index may serve it; nothing of it is data.
        let mut sql = "SELECT * FROM whole_runs w WHERE TRUE".to_owned();
        let mut ask = |wanted: bool, condition: &str, unwanted: &str| {
            sql.push_str(if wanted { condition } else { unwanted });
        };
        ask(before.is_some(), " AND w.seq < $1", " AND $1::bigint IS NULL");
        ask(!status.is_empty(), " AND w.status = ANY ($2)", " AND $2::text[] IS NOT NULL");
        ask(graph.is_some(), " AND w.graph = $3", " AND $3::text IS NULL");
        ask(
            parent.is_some(),
            " AND w.parent_seq = (SELECT seq FROM runs WHERE id = $4)",
            " AND $4::text IS NULL",
        );
        ask(filter.only_roots, " AND w.parent_seq IS NULL", "");
        ask(!labels.is_empty(), " AND w.labels @> $5", " AND $5::text[] IS NOT NULL");
        sql.push_str(" ORDER BY w.seq DESC LIMIT $6");
        let sql = AssertSqlSafe(sql).into_sql_str();
        let rows = self
            .pool()
            .rows(Again::Read, sql, |_| args!(before, &status, graph, parent, &labels, limit))
            .await?;
        rows.iter().map(row::run).collect()
    }

    async fn events(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        let limit = (limit > 0).then(|| int(limit as u64));
        let sql = "SELECT e.seq, e.at, e.kind, e.step, e.data \
                   FROM runs r JOIN events e ON e.run = r.seq \
                   WHERE r.id = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3";
        let rows =
            self.pool().rows(Again::Read, sql, |_| args!(run.as_str(), int(after), limit)).await?;
        rows.iter().map(|found| row::event(run, found)).collect()
    }

    async fn checkpoint(&self, run: &RunId, seq: Option<u64>) -> Result<Option<Checkpoint>> {
        let seq = seq.map(int);
        let sql = "SELECT coalesce($2, r.checkpoint_seq) AS seq, k.* FROM runs r \
                   CROSS JOIN LATERAL read_checkpoint(r.seq, coalesce($2, r.checkpoint_seq)) k \
                   WHERE r.id = $1";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(run.as_str(), seq)).await?;
        let Some(found) = rows.first() else { return Ok(None) };
        row::checkpoint(run, column(found, "seq")?, found)
    }

    async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> Result<Vec<CheckpointInfo>> {
        // A node's name as JSON: what a cursor says is taken as it stands, not unescaped, for
        // what else is in it may hold characters that PostgreSQL's text does not.
        let quoted = |name: &swarm_core::id::NodeName| row::text(name.as_str());
        let active = filter.active.as_ref().map(quoted).transpose()?;
        let ended = filter.ended.as_ref().map(quoted).transpose()?;
        let ended_name = filter.ended.as_ref().map(|name| name.as_str());
        let limit = (filter.limit > 0).then(|| int(filter.limit as u64));
        let rows = self
            .pool()
            .rows(Again::Read, CHECKPOINTS, |_| {
                args!(
                    run.as_str(),
                    filter.before.map(int),
                    filter.since.map(Timestamp::as_millis),
                    filter.until.map(Timestamp::as_millis),
                    active.as_deref(),
                    ended.as_deref(),
                    ended_name,
                    limit,
                )
            })
            .await?;
        rows.iter().map(|found| info(run, found)).collect()
    }

    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>> {
        let sql = "SELECT s.step, s.node, s.seq, s.attempt, s.ending, s.started_at, s.ended_at \
                   FROM runs r JOIN steps s ON s.run = r.seq WHERE r.id = $1 ORDER BY s.n";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(run.as_str())).await?;
        rows.iter().map(|found| row::step(run, found)).collect()
    }
}

/// Checkpoints of run $1, as [`CheckpointFilter`] says.
const CHECKPOINTS: &str = "WITH RECURSIVE of (run) AS MATERIALIZED ( \
        SELECT seq FROM runs WHERE id = $1), \
    channels (channel) AS ( \
        (SELECT d.channel FROM of JOIN channel_deltas d ON d.run = of.run \
         ORDER BY d.channel LIMIT 1) \
        UNION ALL \
        SELECT (SELECT d.channel FROM of JOIN channel_deltas d ON d.run = of.run \
                WHERE d.channel > channels.channel ORDER BY d.channel LIMIT 1) \
        FROM channels WHERE channels.channel IS NOT NULL) \
    SELECT c.seq, c.at, c.format, c.edited_by, c.cursor, ( \
        SELECT array_agg(channels.channel ORDER BY channels.channel) FROM channels \
        WHERE EXISTS (SELECT 1 FROM channel_deltas d WHERE d.run = c.run \
            AND d.channel = channels.channel AND d.seq = c.seq)) AS changed \
    FROM of JOIN checkpoints c ON c.run = of.run \
    WHERE ($2::bigint IS NULL OR c.seq < $2) \
    AND ($3::bigint IS NULL OR c.at >= $3) \
    AND ($4::bigint IS NULL OR c.at < $4) \
    AND ($5::text IS NULL OR EXISTS ( \
        SELECT 1 FROM json_array_elements(c.cursor::json -> 'active') a \
        WHERE (a -> 'node')::text = $5)) \
    AND ($6::text IS NULL OR c.seq IN ( \
            SELECT s.covered_by FROM steps s WHERE s.run = c.run AND s.node = $7) \
        OR EXISTS ( \
            SELECT 1 FROM checkpoints b, json_array_elements(b.cursor::json -> 'active') a \
            WHERE b.run = c.run AND b.seq = c.seq - 1 AND (a -> 'node')::text = $6 \
            AND (a -> 'step')::text NOT IN ( \
                SELECT (h -> 'step')::text \
                FROM json_array_elements(c.cursor::json -> 'active') h))) \
    ORDER BY c.seq DESC LIMIT $8";

/// Reads a row of a list of checkpoints.
fn info(run: &RunId, row: &PgRow) -> Result<CheckpointInfo> {
    let format: i32 = column(row, "format")?;
    rules::check_format(run, u16::try_from(format).unwrap_or(u16::MAX))?;
    let cursor: Cursor = row::json("checkpoint", run.as_str(), column(row, "cursor")?)?;
    let changed: Option<Vec<String>> = column(row, "changed")?;
    let changed = changed.unwrap_or_default();
    Ok(CheckpointInfo {
        seq: uint(column(row, "seq")?),
        at: Timestamp(column(row, "at")?),
        edited_by: column(row, "edited_by")?,
        supersteps: cursor.supersteps,
        active: cursor.places(),
        changed: changed.iter().map(|name| row::id("channel name", name)).collect::<Result<_>>()?,
    })
}

impl PostgresStore {
    pub(super) async fn find_run(&self, run: &RunId) -> Result<Option<RunRecord>> {
        let sql = "SELECT * FROM whole_runs WHERE id = $1";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(run.as_str())).await?;
        rows.first().map(row::run).transpose()
    }
}

#[async_trait]
impl Graphs for PostgresStore {
    async fn put_graph(&self, graph: GraphText) -> Result<()> {
        let sql = "INSERT INTO graphs (hash, name, version, text) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (hash) DO UPDATE SET unneeded_since = NULL";
        self.pool()
            .rows(Again::Same, sql, |_| {
                args!(
                    &*graph.hash.0,
                    graph.name.as_str(),
                    graph.version.as_str(),
                    graph.text.as_str()
                )
            })
            .await?;
        Ok(())
    }

    async fn graph(&self, hash: &GraphHash) -> Result<Option<GraphText>> {
        let sql = "SELECT name, version, text FROM graphs WHERE hash = $1";
        let rows = self.pool().rows(Again::Read, sql, |_| args!(&*hash.0)).await?;
        let Some(found) = rows.first() else { return Ok(None) };
        Ok(Some(GraphText {
            hash: hash.clone(),
            name: row::id("graph name", column(found, "name")?)?,
            version: column(found, "version")?,
            text: column(found, "text")?,
        }))
    }
}

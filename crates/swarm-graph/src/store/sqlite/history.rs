//! What people and tools read, and the graph texts.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Sqlite};
use swarm_core::checkpoint::{Checkpoint, Cursor, StepRecord};
use swarm_core::event::Event;
use swarm_core::id::{GraphHash, RunId};
use swarm_core::port::store::{
    CheckpointFilter, CheckpointInfo, GraphText, Graphs, History, Result, RunFilter,
};
use swarm_core::run::RunRecord;
use swarm_core::time::Timestamp;

use super::super::rules;
use super::claim::no_run;
use super::row::{self, backend, column, int, select_runs, uint};
use super::{SqliteStore, checkpoint};

#[async_trait]
impl History for SqliteStore {
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>> {
        sqlx::query(select_runs!("WHERE r.id = ?1"))
            .bind(run.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(backend)?
            .map(|found| Ok(row::run(&found)?.record))
            .transpose()
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let mut query = QueryBuilder::<Sqlite>::new(select_runs!("WHERE TRUE"));
        if let Some(before) = &filter.before {
            let (seq, _) = self.find(before).await?.ok_or_else(|| no_run(before))?;
            query.push(" AND r.seq < ").push_bind(seq);
        }
        if !filter.status.is_empty() {
            let mut statuses = query.push(" AND r.status IN (").separated(", ");
            for status in &filter.status {
                statuses.push_bind(status.as_str());
            }
            query.push(")");
        }
        if let Some(graph) = &filter.graph {
            query.push(" AND r.graph = ").push_bind(graph.as_str());
        }
        if let Some(parent) = &filter.parent {
            query.push(" AND p.id = ").push_bind(parent.as_str());
        }
        if filter.only_roots {
            query.push(" AND r.parent IS NULL");
        }
        for (key, value) in &filter.labels {
            query.push(" AND EXISTS (SELECT 1 FROM json_each(r.labels) WHERE key = ");
            query.push_bind(key).push(" AND value = ").push_bind(value).push(")");
        }
        query.push(" ORDER BY r.seq DESC");
        if filter.limit > 0 {
            query.push(" LIMIT ").push_bind(int(filter.limit as u64));
        }
        let found = query.build().fetch_all(&self.readers).await.map_err(backend)?;
        found.iter().map(|found| Ok(row::run(found)?.record)).collect()
    }

    async fn events(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        let found = sqlx::query(
            "SELECT e.seq, e.at, e.kind, e.step, e.data FROM runs r JOIN events e ON e.run = r.seq \
             WHERE r.id = ?1 AND e.seq > ?2 ORDER BY e.seq LIMIT ?3",
        )
        .bind(run.as_str())
        .bind(int(after))
        .bind(if limit == 0 { -1 } else { int(limit as u64) })
        .fetch_all(&self.readers)
        .await
        .map_err(backend)?;
        found.iter().map(|found| row::event(run, found)).collect()
    }

    async fn checkpoint(&self, run: &RunId, seq: Option<u64>) -> Result<Option<Checkpoint>> {
        let Some((run_seq, last)) = self.find(run).await? else { return Ok(None) };
        let Some(seq) = seq.map(int).or(last) else { return Ok(None) };
        let mut reader = self.readers.acquire().await.map_err(backend)?;
        checkpoint::read(&mut reader, run, run_seq, seq).await
    }

    async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> Result<Vec<CheckpointInfo>> {
        // Hops from channel to channel by the primary key, once for all checkpoints.
        let mut query = QueryBuilder::<Sqlite>::new(
            "WITH RECURSIVE of (run) AS MATERIALIZED (SELECT seq FROM runs WHERE id = ",
        );
        query.push_bind(run.as_str()).push(
            "), channels (channel) AS MATERIALIZED ( \
               SELECT min(d.channel) FROM of JOIN channel_deltas d ON d.run = of.run \
               UNION ALL \
               SELECT (SELECT min(d.channel) FROM of JOIN channel_deltas d ON d.run = of.run \
                       WHERE d.channel > channels.channel) \
               FROM channels WHERE channels.channel IS NOT NULL) \
             SELECT c.seq, c.at, c.format, c.edited_by, c.cursor, ( \
               SELECT json_group_array(channels.channel) FROM channels WHERE EXISTS ( \
                 SELECT 1 FROM channel_deltas d WHERE d.run = c.run \
                 AND d.channel = channels.channel AND d.seq = c.seq)) AS changed \
             FROM of JOIN checkpoints c ON c.run = of.run WHERE TRUE",
        );
        if let Some(before) = filter.before {
            query.push(" AND c.seq < ").push_bind(int(before));
        }
        if let Some(since) = filter.since {
            query.push(" AND c.at >= ").push_bind(since.as_millis());
        }
        if let Some(until) = filter.until {
            query.push(" AND c.at < ").push_bind(until.as_millis());
        }
        if let Some(node) = &filter.active {
            query.push(" AND EXISTS (SELECT 1 FROM json_each(c.cursor, '$.active') a WHERE a.value ->> 'node' = ");
            query.push_bind(node.as_str()).push(")");
        }
        if let Some(node) = &filter.ended {
            query.push(" AND (c.seq IN (SELECT s.covered_by FROM of JOIN steps s ON s.run = of.run WHERE s.node = ");
            query.push_bind(node.as_str()).push(
                ") OR EXISTS ( \
                   SELECT 1 FROM checkpoints b, json_each(b.cursor, '$.active') a \
                   WHERE b.run = c.run AND b.seq = c.seq - 1 AND a.value ->> 'node' = ",
            );
            query.push_bind(node.as_str()).push(
                " AND a.value ->> 'step' NOT IN ( \
                   SELECT h.value ->> 'step' FROM json_each(c.cursor, '$.active') h)))",
            );
        }
        query.push(" ORDER BY c.seq DESC");
        if filter.limit > 0 {
            query.push(" LIMIT ").push_bind(int(filter.limit as u64));
        }
        let found = query.build().fetch_all(&self.readers).await.map_err(backend)?;
        found.iter().map(|found| info(run, found)).collect()
    }

    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>> {
        let Some((run_seq, _)) = self.find(run).await? else { return Ok(Vec::new()) };
        let mut reader = self.readers.acquire().await.map_err(backend)?;
        steps(&mut reader, run, run_seq, 0).await
    }
}

/// Reads a row of a list of checkpoints.
fn info(run: &RunId, row: &SqliteRow) -> Result<CheckpointInfo> {
    rules::check_format(run, column(row, "format")?)?;
    let cursor: Cursor = row::json("checkpoint", run.as_str(), column(row, "cursor")?)?;
    Ok(CheckpointInfo {
        seq: uint(column(row, "seq")?),
        at: Timestamp(column(row, "at")?),
        edited_by: column(row, "edited_by")?,
        supersteps: cursor.supersteps,
        active: cursor.places(),
        changed: row::json("checkpoint", run.as_str(), column(row, "changed")?)?,
    })
}

impl SqliteStore {
    /// The number of a run, and of its last checkpoint.
    async fn find(&self, run: &RunId) -> Result<Option<(i64, Option<i64>)>> {
        sqlx::query_as("SELECT seq, checkpoint_seq FROM runs WHERE id = ?1")
            .bind(run.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(backend)
    }
}

type StepRow = (String, String, i64, u32, String, i64, i64);

/// The steps of a run that the checkpoint `covered_from` or a later one covers, oldest first.
pub(super) async fn steps(
    reader: &mut SqliteConnection,
    run: &RunId,
    run_seq: i64,
    covered_from: i64,
) -> Result<Vec<StepRecord>> {
    let rows: Vec<StepRow> = sqlx::query_as(
        "SELECT step, node, seq, attempt, ending, started_at, ended_at FROM steps \
         WHERE run = ?1 AND covered_by >= ?2 ORDER BY n",
    )
    .bind(run_seq)
    .bind(covered_from)
    .fetch_all(reader)
    .await
    .map_err(backend)?;
    rows.into_iter()
        .map(|(step, node, seq, attempt, ending, started_at, ended_at)| {
            Ok(StepRecord {
                step: row::id("step id", &step)?,
                node: row::id("node name", &node)?,
                seq: uint(seq),
                attempt,
                ending: row::json("step", run.as_str(), &ending)?,
                started_at: Timestamp(started_at),
                ended_at: Timestamp(ended_at),
            })
        })
        .collect()
}

#[async_trait]
impl Graphs for SqliteStore {
    async fn put_graph(&self, graph: GraphText) -> Result<()> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO graphs (hash, name, version, text) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (hash) DO UPDATE SET unneeded_since = NULL",
                )
                .bind(&*graph.hash.0)
                .bind(graph.name.as_str())
                .bind(&graph.version)
                .bind(&graph.text)
                .execute(tx)
                .await?;
                Ok(())
            })
        })
        .await
    }

    async fn graph(&self, hash: &GraphHash) -> Result<Option<GraphText>> {
        let found: Option<(String, String, String)> =
            sqlx::query_as("SELECT name, version, text FROM graphs WHERE hash = ?1")
                .bind(&*hash.0)
                .fetch_optional(&self.readers)
                .await
                .map_err(backend)?;
        found
            .map(|(name, version, text)| {
                let name = row::id("graph name", &name)?;
                Ok(GraphText { hash: hash.clone(), name, version, text })
            })
            .transpose()
    }
}

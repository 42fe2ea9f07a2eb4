//! What people and tools read, and the graph texts.

use async_trait::async_trait;
use rusqlite::{Row, params};
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
use super::row::{self, column, int, select_runs, uint};
use super::tx::{Query, Tx, tuple};
use super::{Done, SqliteStore, checkpoint};

#[async_trait]
impl History for SqliteStore {
    async fn run(&self, run: &RunId) -> Result<Option<RunRecord>> {
        let run = run.clone();
        self.read(move |tx| {
            tx.find(
                select_runs!("WHERE r.id = ?1"),
                [run.as_str()],
                |row| Ok(row::run(row)?.record),
            )
        })
        .await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let filter = filter.clone();
        self.read(move |tx| {
            let mut query = Query::new(select_runs!("WHERE TRUE"));
            if let Some(before) = &filter.before {
                let (seq, _) = find(tx, before)?.ok_or_else(|| no_run(before))?;
                query.push(" AND r.seq < ").bind(seq);
            }
            if !filter.status.is_empty() {
                query.push(" AND r.status IN (");
                for (n, status) in filter.status.iter().enumerate() {
                    query.push(if n == 0 { "" } else { ", " }).bind(status.as_str().to_owned());
                }
                query.push(")");
            }
            if let Some(graph) = &filter.graph {
                query.push(" AND r.graph = ").bind(graph.as_str().to_owned());
            }
            if let Some(parent) = &filter.parent {
                query.push(" AND p.id = ").bind(parent.as_str().to_owned());
            }
            if filter.only_roots {
                query.push(" AND r.parent IS NULL");
            }
            for (key, value) in &filter.labels {
                query.push(" AND EXISTS (SELECT 1 FROM json_each(r.labels) WHERE key = ");
                query.bind(key.clone()).push(" AND value = ").bind(value.clone()).push(")");
            }
            query.push(" ORDER BY r.seq DESC");
            if filter.limit > 0 {
                query.push(" LIMIT ").bind(int(filter.limit as u64));
            }
            query.all(tx, |row| Ok(row::run(row)?.record))
        })
        .await
    }

    async fn events(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        let run = run.clone();
        let limit = if limit == 0 { -1 } else { int(limit as u64) };
        self.read(move |tx| {
            tx.all(
                "SELECT e.seq, e.at, e.kind, e.step, e.data \
                 FROM runs r JOIN events e ON e.run = r.seq \
                 WHERE r.id = ?1 AND e.seq > ?2 ORDER BY e.seq LIMIT ?3",
                (run.as_str(), int(after), limit),
                |row| Ok(row::event(&run, row)?),
            )
        })
        .await
    }

    async fn checkpoint(&self, run: &RunId, seq: Option<u64>) -> Result<Option<Checkpoint>> {
        let run = run.clone();
        self.read(move |tx| {
            let Some((run_seq, last)) = find(tx, &run)? else { return Ok(None) };
            let Some(seq) = seq.map(int).or(last) else { return Ok(None) };
            checkpoint::read(tx, &run, run_seq, seq)
        })
        .await
    }

    async fn checkpoints(
        &self,
        run: &RunId,
        filter: &CheckpointFilter,
    ) -> Result<Vec<CheckpointInfo>> {
        let (run, filter) = (run.clone(), filter.clone());
        self.read(move |tx| checkpoints(tx, &run, &filter)).await
    }

    async fn steps(&self, run: &RunId) -> Result<Vec<StepRecord>> {
        let run = run.clone();
        self.read(move |tx| {
            let Some((run_seq, _)) = find(tx, &run)? else { return Ok(Vec::new()) };
            steps(tx, &run, run_seq, 0)
        })
        .await
    }
}

/// Lists checkpoints: hops from channel to channel by the primary key, once for all of them.
fn checkpoints(tx: &Tx<'_>, run: &RunId, filter: &CheckpointFilter) -> Done<Vec<CheckpointInfo>> {
    let mut query =
        Query::new("WITH RECURSIVE of (run) AS MATERIALIZED (SELECT seq FROM runs WHERE id = ");
    query.bind(run.as_str().to_owned()).push(
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
        query.push(" AND c.seq < ").bind(int(before));
    }
    if let Some(since) = filter.since {
        query.push(" AND c.at >= ").bind(since.as_millis());
    }
    if let Some(until) = filter.until {
        query.push(" AND c.at < ").bind(until.as_millis());
    }
    if let Some(node) = &filter.active {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(c.cursor, '$.active') a WHERE a.value ->> 'node' = ");
        query.bind(node.as_str().to_owned()).push(")");
    }
    if let Some(node) = &filter.ended {
        query.push(" AND (c.seq IN (SELECT s.covered_by FROM of JOIN steps s ON s.run = of.run WHERE s.node = ");
        query.bind(node.as_str().to_owned()).push(
            ") OR EXISTS ( \
                   SELECT 1 FROM checkpoints b, json_each(b.cursor, '$.active') a \
                   WHERE b.run = c.run AND b.seq = c.seq - 1 AND a.value ->> 'node' = ",
        );
        query.bind(node.as_str().to_owned()).push(
            " AND a.value ->> 'step' NOT IN ( \
                   SELECT h.value ->> 'step' FROM json_each(c.cursor, '$.active') h)))",
        );
    }
    query.push(" ORDER BY c.seq DESC");
    if filter.limit > 0 {
        query.push(" LIMIT ").bind(int(filter.limit as u64));
    }
    query.all(tx, |row| Ok(info(run, row)?))
}

/// Reads a row of a list of checkpoints.
fn info(run: &RunId, row: &Row<'_>) -> Result<CheckpointInfo> {
    rules::check_format(run, column(row, "format")?)?;
    let cursor: Cursor = row::json("checkpoint", run.as_str(), row::word(row, "cursor")?)?;
    Ok(CheckpointInfo {
        seq: uint(column(row, "seq")?),
        at: Timestamp(column(row, "at")?),
        edited_by: column(row, "edited_by")?,
        supersteps: cursor.supersteps,
        active: cursor.places(),
        changed: row::json("checkpoint", run.as_str(), row::word(row, "changed")?)?,
    })
}

/// The number of a run, and of its last checkpoint.
fn find(tx: &Tx<'_>, run: &RunId) -> Done<Option<(i64, Option<i64>)>> {
    tx.find("SELECT seq, checkpoint_seq FROM runs WHERE id = ?1", [run.as_str()], tuple)
}

type StepRow = (String, String, i64, u32, String, i64, i64);

/// The steps of a run that the checkpoint `covered_from` or a later one covers, oldest first.
pub(super) fn steps(
    reader: &Tx<'_>,
    run: &RunId,
    run_seq: i64,
    covered_from: i64,
) -> Done<Vec<StepRecord>> {
    let rows: Vec<StepRow> = reader.all(
        "SELECT step, node, seq, attempt, ending, started_at, ended_at FROM steps \
         WHERE run = ?1 AND covered_by >= ?2 ORDER BY n",
        params![run_seq, covered_from],
        tuple,
    )?;
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
            tx.execute(
                "INSERT INTO graphs (hash, name, version, text) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (hash) DO UPDATE SET unneeded_since = NULL",
                params![&*graph.hash.0, graph.name.as_str(), &graph.version, &graph.text],
            )?;
            Ok(())
        })
        .await
    }

    async fn graph(&self, hash: &GraphHash) -> Result<Option<GraphText>> {
        let hash = hash.clone();
        self.read(move |tx| {
            tx.find("SELECT name, version, text FROM graphs WHERE hash = ?1", [&*hash.0], |row| {
                let name = row::id("graph name", row::word(row, 0)?)?;
                let (version, text) = (row.get(1)?, row.get(2)?);
                Ok(GraphText { hash: hash.clone(), name, version, text })
            })
        })
        .await
    }
}

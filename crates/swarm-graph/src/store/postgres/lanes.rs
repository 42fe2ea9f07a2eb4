//! Lanes: the commits of many runs, written together.
//!
//! A transaction costs the same round trip and the same sync to disk for one commit as for fifty.
//! A commit that finds a lane free goes at once; those that come while all lanes are busy wait and
//! go together. Two commits of one run never travel at the same time. A caller that stops waiting
//! does not stop its commit.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use sqlx::Row as _;
use swarm_core::event::{Event, NewEvent};
use swarm_core::id::{ChannelName, RunId};
use swarm_core::port::store::{CheckpointWrite, Commit, Committed, Error, Result};
use swarm_core::run::{Epoch, NewRun};
use swarm_core::time::Timestamp;
use tokio::sync::oneshot;

use super::call::{Again, refusal};
use super::lists::Lists;
use super::row::{self, uint};
use super::{Fault, Inner};
use crate::store::rules;

/// A commit that waits for a lane.
pub(super) struct Waiting {
    pub(super) commit: Commit,
    /// Its mark: the same in every try.
    pub(super) token: i64,
    pub(super) start: Option<Arc<NewRun>>,
    reply: oneshot::Sender<Result<Committed>>,
}

#[derive(Debug)]
pub(super) struct Lanes {
    count: usize,
    batch_max: usize,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    waiting: VecDeque<Waiting>,
    busy: usize,
    /// Runs whose commits are on their way.
    sent: HashSet<RunId>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("waiting", &self.waiting.len())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl Lanes {
    pub(super) fn new(count: usize, batch_max: usize) -> Self {
        Self { count, batch_max, desk: Mutex::default() }
    }

    /// The next commits to go together; `None` gives the lane up.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut desk = self.desk.lock().expect("no panic while locked");
        let mut batch = Vec::new();
        let mut passed = VecDeque::new();
        while batch.len() < self.batch_max {
            let Some(one) = desk.waiting.pop_front() else { break };
            if desk.sent.insert(one.commit.run.clone()) {
                batch.push(one);
            } else {
                passed.push_back(one);
            }
        }
        passed.append(&mut desk.waiting);
        desk.waiting = passed;
        if batch.is_empty() {
            desk.busy -= 1;
            return None;
        }
        Some(batch)
    }

    fn arrived<'r>(&self, runs: impl Iterator<Item = &'r RunId>) {
        let mut desk = self.desk.lock().expect("no panic while locked");
        for run in runs {
            desk.sent.remove(run);
        }
    }
}

/// Sends a commit with the next lane, and waits until it is durable.
pub(super) async fn write(
    inner: &Arc<Inner>,
    commit: Commit,
    token: i64,
    start: Option<Arc<NewRun>>,
) -> Result<Committed> {
    let (reply, answer) = oneshot::channel();
    let opens = {
        let mut desk = inner.lanes.desk.lock().expect("no panic while locked");
        desk.waiting.push_back(Waiting { commit, token, start, reply });
        let opens = desk.busy < inner.lanes.count;
        desk.busy += usize::from(opens);
        opens
    };
    if opens {
        tokio::spawn(serve(inner.clone()));
    }
    answer.await.unwrap_or_else(|_| Err(Error::Unknown("the lane ended before it answered".into())))
}

async fn serve(inner: Arc<Inner>) {
    while let Some(batch) = inner.lanes.next() {
        let runs: Vec<RunId> = batch.iter().map(|one| one.commit.run.clone()).collect();
        let answers = send(&inner, &batch).await;
        inner.lanes.arrived(runs.iter());
        for (one, answer) in batch.into_iter().zip(answers) {
            // Nobody waits for it any more: it is done all the same.
            let _ = one.reply.send(answer);
        }
    }
}

/// Sends some commits together; if the server refuses the whole of them, one by one.
async fn send(inner: &Inner, batch: &[Waiting]) -> Vec<Result<Committed>> {
    match send_together(inner, batch).await {
        Ok(answers) => answers,
        Err(fault) if batch.len() == 1 => vec![Err(refused(&batch[0], fault))],
        Err(Fault::Sql(_)) => {
            let mut answers = Vec::with_capacity(batch.len());
            for one in batch {
                let answer = match send_together(inner, std::slice::from_ref(one)).await {
                    Ok(answer) => answer.into_iter().next().unwrap_or_else(|| Err(silence())),
                    Err(fault) => Err(refused(one, fault)),
                };
                answers.push(answer);
            }
            answers
        }
        Err(Fault::Store(error)) => {
            let error = Arc::new(error);
            let unknown = matches!(*error, Error::Unknown(_));
            let each = |_: &Waiting| {
                let error = Box::new(Arc::clone(&error));
                Err(if unknown { Error::Unknown(error) } else { Error::Backend(error) })
            };
            batch.iter().map(each).collect()
        }
    }
}

fn refused(one: &Waiting, fault: Fault) -> Error {
    refusal(fault, &one.commit.run, one.commit.epoch)
}

fn silence() -> Error {
    Error::Backend("the database said nothing of the commit".into())
}

/// What was said of one commit.
#[derive(Default)]
struct Said {
    ended: Option<Result<u64>>,
    woken: Vec<RunId>,
    /// Channels to be folded, and at which checkpoint.
    folds: Vec<(i64, String)>,
}

async fn send_together(
    inner: &Inner,
    batch: &[Waiting],
) -> std::result::Result<Vec<Result<Committed>>, Fault> {
    let mut lists = Lists::default();
    // Where the deltas of each commit begin.
    let mut deltas = Vec::with_capacity(batch.len());
    for one in batch {
        deltas.push(lists.deltas());
        lists.add(&one.commit, one.token, one.start.as_deref())?;
    }
    let rows = inner.pool.ask(Again::Same, Lists::SQL, |_| lists.args()).await?;
    let mut said: Vec<Said> = batch.iter().map(|_| Said::default()).collect();
    for row in &rows {
        let (ix, what): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
        let number: i64 = row.try_get(2)?;
        let text: Option<&str> = row.try_get(3)?;
        let text = text.unwrap_or_default();
        let n = usize::try_from(ix - 1).unwrap_or(usize::MAX);
        let (Some(one), Some(said)) = (batch.get(n), said.get_mut(n)) else { continue };
        match what {
            0 | 9 => said.ended = Some(Ok(uint(number))),
            7 => {
                let run: RunId = row::id("run id", text)?;
                if !said.woken.contains(&run) {
                    said.woken.push(run);
                }
            }
            8 => said.folds.push((number, text.to_owned())),
            _ => {
                let delta = usize::try_from(number).unwrap_or(0).saturating_sub(deltas[n] + 1);
                said.ended = Some(Err(why(&one.commit, what, number, delta, text)));
            }
        }
    }
    let mut answers = Vec::with_capacity(batch.len());
    for (one, said) in batch.iter().zip(said) {
        for (seq, channel) in &said.folds {
            fold(inner, &one.commit.run, *seq, channel).await;
        }
        let run = &one.commit.run;
        let ended = said.ended.unwrap_or_else(|| Err(row::no_run(run)));
        answers.push(ended.map(|last| Committed {
            events: number_events(run, last, &one.commit.events, one.commit.at),
            woken: said.woken,
        }));
    }
    Ok(answers)
}

/// A refusal in words; `what` as `write_commits` says it, and which of its deltas.
fn why(commit: &Commit, what: i32, number: i64, delta: usize, text: &str) -> Error {
    let run = &commit.run;
    match what {
        1 => Error::Fenced { run: run.clone(), ours: commit.epoch, found: Epoch(uint(number)) },
        2 => refused_seq(commit, uint(number)),
        3 => {
            let of = |write: &Option<CheckpointWrite>| {
                write.as_ref().map_or_else(Vec::new, |write| write.deltas.clone())
            };
            let deltas = [of(&commit.first), of(&commit.checkpoint)].concat();
            match (deltas.get(delta), row::shape(run, text)) {
                (Some(delta), Ok(held)) => held.after(run, delta).err().unwrap_or_else(silence),
                (_, Err(error)) => error,
                (None, Ok(_)) => silence(),
            }
        }
        4 => match row::id("block id", text) {
            Ok(block) => rules::block_taken(&block),
            Err(error) => error,
        },
        5 => Error::NotFound { what: "parent run", id: text.to_owned() },
        6 => Error::NotFound { what: "run", id: text.to_owned() },
        _ => silence(),
    }
}

/// Checkpoints that do not follow what is stored; `next` is what follows, counting the first one
/// of the commit.
fn refused_seq(commit: &Commit, next: u64) -> Error {
    let run = &commit.run;
    let stored = if commit.first.is_some() { next - 1 } else { next };
    let mut last = stored.checked_sub(1);
    for write in commit.first.iter().chain(&commit.checkpoint) {
        if let Err(refusal) = rules::check_seq(run, last, write.seq) {
            return refusal;
        }
        last = Some(write.seq);
    }
    silence()
}

/// Events with their numbers, after the `last` one.
pub(super) fn number_events(
    run: &RunId,
    last: u64,
    events: &[NewEvent],
    at: Timestamp,
) -> Vec<Event> {
    let numbered = (last + 1..).zip(events).map(|(seq, event)| {
        let NewEvent { kind, step, data } = event.clone();
        Event { run: run.clone(), seq, at, kind, step, data }
    });
    numbered.collect()
}

/// Puts a full value in the place of a merge that has too many before it. A failure costs the
/// next reader some time, and is tried again with the next merge.
async fn fold(inner: &Inner, run: &RunId, seq: i64, channel: &str) {
    if let Err(error) = try_fold(inner, run, seq, channel).await {
        tracing::warn!(run_id = %run, channel, %error, "Merges were not folded.");
    }
}

async fn try_fold(inner: &Inner, run: &RunId, seq: i64, channel: &str) -> Result<()> {
    let sql = "SELECT d.change, d.value FROM runs r \
        JOIN channel_deltas h ON h.run = r.seq AND h.channel = $2 AND h.seq = $3 \
        JOIN channel_deltas d ON d.run = r.seq AND d.channel = $2 \
            AND d.seq >= h.base AND d.seq <= $3 \
        WHERE r.id = $1 ORDER BY d.seq";
    let rows =
        inner.pool.rows(Again::Read, sql, |_| super::args!(run.as_str(), channel, seq)).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        changes.push(row::change(run, row::column(row, "change")?, row::column(row, "value")?)?);
    }
    let name: ChannelName = row::id("channel name", channel)?;
    let value = row::text(&rules::rebuild(run, &name, changes)?)?;
    let sql = "UPDATE channel_deltas d SET change = 'full', base = d.seq, merges = 0, value = $4 \
        FROM runs r WHERE r.id = $1 AND d.run = r.seq AND d.channel = $2 AND d.seq = $3 \
        AND d.change = 'merge'";
    inner
        .pool
        .rows(Again::Same, sql, |_| super::args!(run.as_str(), channel, seq, value.as_str()))
        .await?;
    Ok(())
}

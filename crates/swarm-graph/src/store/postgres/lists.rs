//! Commits as the parallel lists that `write_commits` takes.
//!
//! Names follow the function's: `c` the commits, `d` channel deltas, `s` steps, `b` blocks asked,
//! `w` withdrawn, `t` signals taken, `k` children (kids), `o` outgoing signals, `e` events.

use sqlx::Arguments as _;
use sqlx::postgres::PgArguments;
use swarm_core::checkpoint::{Change, ChannelDelta, FORMAT};
use swarm_core::port::store::{Commit, Outgoing, Recipient, Release, Result, SignalKind};
use swarm_core::run::NewRun;
use swarm_core::time::Timestamp;

use super::row::{self, int, limits};
use crate::store::rules::{self, MERGES_MAX, Shape};

/// Declares lists, how they are filled row by row, and how they are bound, in one order.
macro_rules! lists {
    ($($part:ident: $row:ident { $($field:ident: $kind:ty),* $(,)? })*) => {
        $(
            #[derive(Default)]
            struct $part { $($field: Vec<$kind>),* }

            /// One row of its lists.
            struct $row { $($field: $kind),* }

            impl $part {
                fn push(&mut self, row: $row) {
                    $(self.$field.push(row.$field);)*
                }

                fn bind(
                    &self,
                    args: &mut PgArguments,
                ) -> std::result::Result<(), sqlx::error::BoxDynError> {
                    $(args.add(&self.$field)?;)*
                    Ok(())
                }
            }
        )*
    };
}

lists! {
    Commits: CommitRow {
        run: String, epoch: i64, token: i64, at: i64, first: Option<String>, seq: i64,
        cursor: Option<String>, events: i32, graph: Option<String>, limit: bool, limit_usd: Option<i64>,
        limit_tokens: Option<i64>, asks: bool, above: bool, below: bool, release: i32,
        status: Option<&'static str>, wake: Option<i64>, seen: i64, output: Option<String>,
        failure: Option<String>,
    }
    Deltas: DeltaRow {
        ix: i32, seq: i64, channel: String, change: &'static str, shape: &'static str,
        base: i64, merges: i32, held: &'static str, value: String,
    }
    Steps: StepRow {
        ix: i32, step: String, attempt: i64, node: String, seq: i64, started: i64, ended: i64,
        ending: String,
    }
    Blocks: BlockRow {
        ix: i32, id: String, step: String, ask: String, asked: i64, remind: Option<i64>,
    }
    Withdrawn: WithdrawnRow { ix: i32, id: String }
    Taken: TakenRow { ix: i32, id: i64 }
    Kids: KidRow {
        ix: i32, id: String, graph: String, hash: String, queue: String, priority: i32,
        labels: String, parent: Option<String>, parent_step: Option<String>,
        awaits: Option<bool>, limit_usd: Option<i64>, limit_tokens: Option<i64>, input: String,
    }
    Sent: SentRow { ix: i32, to: i32, run: Option<String>, only_if: Option<String>, kind: String }
    Events: EventRow { ix: i32, no: i32, kind: String, step: Option<String>, data: String }
}

/// Whom a signal goes to.
const TO_RUN: i32 = 0;
const TO_ANCESTORS: i32 = 1;
const TO_CHILDREN: i32 = 2;
const TO_PARENT: i32 = 3;

/// How a run is let go.
const STAYS: i32 = 0;
const READY: i32 = 1;
const WAITS: i32 = 2;
const ENDED: i32 = 3;

/// Some commits, ready to be sent.
#[derive(Default)]
pub(super) struct Lists {
    commits: Commits,
    deltas: Deltas,
    steps: Steps,
    blocks: Blocks,
    withdrawn: Withdrawn,
    taken: Taken,
    kids: Kids,
    sent: Sent,
    events: Events,
}

/// What a change builds on.
#[derive(Clone, Copy)]
struct Head {
    base: i64,
    merges: i32,
    shape: Shape,
}

impl Head {
    /// What is stored, if anything.
    const STORED: Self = Self { base: -2, merges: 0, shape: Shape::Null };
    /// Nothing.
    const NONE: Self = Self { base: -1, merges: 0, shape: Shape::Null };

    /// The first change of a channel, at checkpoint 0 of the same commit.
    fn after_first(delta: &ChannelDelta) -> Self {
        let (_, value) = row::change_parts(&delta.change);
        let merges = i32::from(matches!(delta.change, Change::Merge(_)));
        Self { base: 0, merges, shape: Shape::of(value) }
    }
}

fn millis(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_millis)
}

impl Lists {
    /// The call. `write_commits` is told the format, the bound of merges, and the lists.
    pub(super) const SQL: &'static str = "SELECT ix, what, num, txt FROM write_commits(\
        $1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23,$24,\
        $25,$26,$27,$28,$29,$30,$31,$32,$33,$34,$35,$36,$37,$38,$39,$40,$41,$42,$43,$44,$45,$46,\
        $47,$48,$49,$50,$51,$52,$53,$54,$55,$56,$57,$58,$59,$60,$61,$62,$63,$64,$65,$66,$67,$68,\
        $69,$70,$71,$72,$73)";

    /// How many commits there are.
    pub(super) fn len(&self) -> usize {
        self.commits.run.len()
    }

    /// How many deltas there are.
    pub(super) fn deltas(&self) -> usize {
        self.deltas.ix.len()
    }

    pub(super) fn args(&self) -> std::result::Result<PgArguments, sqlx::error::BoxDynError> {
        let mut args = PgArguments::default();
        args.add(i32::from(FORMAT))?;
        args.add(i32::try_from(MERGES_MAX)?)?;
        self.commits.bind(&mut args)?;
        self.deltas.bind(&mut args)?;
        self.steps.bind(&mut args)?;
        self.blocks.bind(&mut args)?;
        self.withdrawn.bind(&mut args)?;
        self.taken.bind(&mut args)?;
        self.kids.bind(&mut args)?;
        self.sent.bind(&mut args)?;
        self.events.bind(&mut args)?;
        Ok(args)
    }

    /// Adds a commit under this mark. `start` is what its run was started with; needed where it
    /// asks or ends.
    pub(super) fn add(
        &mut self,
        commit: &Commit,
        token: i64,
        start: Option<&NewRun>,
    ) -> Result<()> {
        let ix = i32::try_from(self.len() + 1).unwrap_or(i32::MAX);
        let sent_before = self.sent.ix.len();
        self.add_outgoing(ix, &commit.outgoing)?;
        self.add_heard(ix, commit, start)?;
        let to = &self.sent.to[sent_before..];
        let above = to.iter().any(|to| matches!(*to, TO_ANCESTORS | TO_PARENT));
        let below = to.contains(&TO_CHILDREN);
        self.add_deltas(ix, commit)?;
        self.add_steps(ix, commit)?;
        self.add_questions(ix, commit)?;
        for id in &commit.taken {
            self.taken.push(TakenRow { ix, id: int(*id) });
        }
        for child in &commit.children {
            self.add_child(ix, child)?;
        }
        for (no, event) in (1..).zip(&commit.events) {
            let step = event.step.as_ref().map(ToString::to_string);
            let kind = event.kind.as_str().to_owned();
            self.events.push(EventRow { ix, no, kind, step, data: row::text(&event.data)? });
        }
        let (limit_usd, limit_tokens) = commit.limit.map(limits).unwrap_or_default();
        let checkpoint = commit.checkpoint.as_ref();
        let mut head = CommitRow {
            run: commit.run.to_string(),
            epoch: int(commit.epoch.0),
            token,
            at: commit.at.as_millis(),
            first: commit.first.as_ref().map(|first| row::text(&first.cursor)).transpose()?,
            seq: checkpoint.map_or(-1, |checkpoint| int(checkpoint.seq)),
            cursor: checkpoint.map(|checkpoint| row::text(&checkpoint.cursor)).transpose()?,
            events: i32::try_from(commit.events.len()).unwrap_or(i32::MAX),
            graph: commit.graph.as_ref().map(|hash| hash.0.to_string()),
            limit: commit.limit.is_some(),
            limit_usd,
            limit_tokens,
            asks: !commit.blocks.is_empty() || !commit.withdrawn.is_empty(),
            above,
            below,
            release: STAYS,
            status: None,
            wake: None,
            seen: 0,
            output: None,
            failure: None,
        };
        match &commit.release {
            None => {}
            Some(Release::Ready) => head.release = READY,
            Some(Release::Waiting { wake_at, seen }) => {
                head.release = WAITS;
                head.wake = millis(*wake_at);
                head.seen = int(*seen);
            }
            Some(Release::Ended { status, output, failure }) => {
                head.release = ENDED;
                head.status = Some(status.as_str());
                head.output = output.as_ref().map(row::text).transpose()?;
                head.failure = failure.as_ref().map(row::text).transpose()?;
            }
        }
        self.commits.push(head);
        Ok(())
    }

    fn add_deltas(&mut self, ix: i32, commit: &Commit) -> Result<()> {
        let first = commit.first.as_ref().map_or(&[][..], |first| &first.deltas);
        for delta in first {
            self.add_delta(ix, 0, delta, Head::NONE)?;
        }
        let Some(checkpoint) = &commit.checkpoint else { return Ok(()) };
        for delta in &checkpoint.deltas {
            let head = if commit.first.is_some() {
                let before = first.iter().find(|before| before.channel == delta.channel);
                before.map_or(Head::NONE, Head::after_first)
            } else {
                Head::STORED
            };
            self.add_delta(ix, int(checkpoint.seq), delta, head)?;
        }
        Ok(())
    }

    fn add_delta(&mut self, ix: i32, seq: i64, delta: &ChannelDelta, head: Head) -> Result<()> {
        let (change, value) = row::change_parts(&delta.change);
        let Head { base, merges, shape: held } = head;
        self.deltas.push(DeltaRow {
            ix,
            seq,
            channel: delta.channel.to_string(),
            change,
            shape: row::shape_text(Shape::of(value)),
            base,
            merges,
            held: row::shape_text(held),
            value: row::text(value)?,
        });
        Ok(())
    }

    fn add_steps(&mut self, ix: i32, commit: &Commit) -> Result<()> {
        for step in &commit.steps {
            self.steps.push(StepRow {
                ix,
                step: step.step.to_string(),
                attempt: i64::from(step.attempt),
                node: step.node.to_string(),
                seq: int(step.seq),
                started: step.started_at.as_millis(),
                ended: step.ended_at.as_millis(),
                ending: row::text(&step.ending)?,
            });
        }
        Ok(())
    }

    fn add_questions(&mut self, ix: i32, commit: &Commit) -> Result<()> {
        for block in &commit.blocks {
            self.blocks.push(BlockRow {
                ix,
                id: block.id.to_string(),
                step: block.step.to_string(),
                ask: row::text(&block.ask)?,
                asked: block.asked_at.as_millis(),
                remind: millis(block.remind_at),
            });
        }
        for id in &commit.withdrawn {
            self.withdrawn.push(WithdrawnRow { ix, id: id.to_string() });
        }
        Ok(())
    }

    fn add_child(&mut self, ix: i32, child: &NewRun) -> Result<()> {
        let (limit_usd, limit_tokens) = limits(child.limit);
        let parent = child.parent.as_ref();
        self.kids.push(KidRow {
            ix,
            id: child.id.to_string(),
            graph: child.graph.to_string(),
            hash: child.graph_hash.0.to_string(),
            queue: child.queue.to_string(),
            priority: child.priority,
            labels: row::text(&row::labels(&child.labels)?)?,
            parent: parent.map(|parent| parent.run.to_string()),
            parent_step: parent.map(|parent| parent.step.to_string()),
            awaits: parent.map(|parent| parent.awaited),
            limit_usd,
            limit_tokens,
            input: row::text(&child.input)?,
        });
        Ok(())
    }

    fn add_outgoing(&mut self, ix: i32, outgoing: &[Outgoing]) -> Result<()> {
        for Outgoing { to, kind } in outgoing {
            let (to, run) = match to {
                Recipient::Run(run) => (TO_RUN, Some(run.to_string())),
                Recipient::Ancestors => (TO_ANCESTORS, None),
                Recipient::Children => (TO_CHILDREN, None),
            };
            self.sent.push(SentRow { ix, to, run, only_if: None, kind: row::text(kind)? });
        }
        Ok(())
    }

    /// What those above hear without having been written to.
    fn add_heard(&mut self, ix: i32, commit: &Commit, start: Option<&NewRun>) -> Result<()> {
        let Some((start, parent)) =
            start.and_then(|start| start.parent.as_ref().map(|parent| (start, parent)))
        else {
            return Ok(());
        };
        for block in &commit.blocks {
            let kind = row::text(&rules::blocked(start, block))?;
            let only_if = Some(block.id.to_string());
            self.sent.push(SentRow { ix, to: TO_ANCESTORS, run: None, only_if, kind });
        }
        if let Some(Release::Ended { status, output, failure }) = &commit.release {
            if parent.awaited {
                let ended = SignalKind::ChildEnded {
                    run: start.id.clone(),
                    status: *status,
                    output: output.clone(),
                    failure: failure.clone(),
                };
                let kind = row::text(&ended)?;
                self.sent.push(SentRow { ix, to: TO_PARENT, run: None, only_if: None, kind });
            }
            let finished = rules::finished(start, *status, output.as_ref(), failure.as_ref());
            let kind = row::text(&finished)?;
            self.sent.push(SentRow { ix, to: TO_ANCESTORS, run: None, only_if: None, kind });
        }
        Ok(())
    }
}

/// Whether anyone but the run itself may hear of this commit without being named in it.
pub(super) fn is_heard_above(commit: &Commit) -> bool {
    !commit.blocks.is_empty() || matches!(commit.release, Some(Release::Ended { .. }))
}

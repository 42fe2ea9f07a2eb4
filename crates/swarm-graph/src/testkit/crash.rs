//! Crash points: the instructions of the engine after which something may be half done.
//!
//! A point is registered when the program is built: `crash_point!` refuses a name that is not in
//! [`CRASH_POINTS`], and a test of this crate walks that list and fails when one is never
//! reached. Without the feature `testkit` a point is nothing at all.
//!
//! What a newcomer gets wrong: the plan belongs to the thread. Live a [`Life`] on a runtime of
//! one thread, and drop that runtime afterwards, as a process takes all its tasks with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

/// Every crash point.
pub const CRASH_POINTS: &[&str] = &[
    "start:graph-kept",
    "start:created",
    "run:created",
    "claim:claimed",
    "drive:first-stored",
    "held:before-commit",
    "held:after-commit",
    "drive:signals-read",
    "step:ended",
    "early:before-commit",
    "early:after-commit",
    "superstep:before-commit",
    "superstep:after-commit",
    "child:graph-kept",
    "memo:computed",
    "memo:stored",
    "spend:reserved",
    "spend:spent",
    "spend:booked",
    "effect:intended",
    "effect:acted",
    "effect:stored",
    "ask:asked",
    "answer:checked",
    "answer:stored",
    "signal:stored",
    "sqlite:before-begin",
    "sqlite:begun",
    "sqlite:statement",
    "sqlite:before-commit",
    "sqlite:committed",
];

/// Whether a crash point of this name is registered.
#[must_use]
pub const fn is_crash_point(name: &str) -> bool {
    let mut index = 0;
    while index < CRASH_POINTS.len() {
        if is_same(CRASH_POINTS[index].as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut index = 0;
    while index < a.len() && index < b.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    a.len() == b.len()
}

/// How a process lived.
#[derive(Debug)]
pub struct Life<T> {
    /// What it returned; `None` when it crashed before.
    pub ended: Option<T>,
    /// How often each crash point was reached.
    pub hits: BTreeMap<&'static str, u32>,
}

#[derive(Debug, Default)]
struct Plan {
    crash: Option<(String, u32)>,
    hits: BTreeMap<&'static str, u32>,
    has_crashed: bool,
    waker: Option<Waker>,
}

thread_local! {
    static LIFE: RefCell<Option<LifeHandle>> = const { RefCell::new(None) };
}

/// Runs a process until it returns, or until it reaches the crash point `crash.0` for the
/// `crash.1`-th time (from 1), on this thread: there it stops for ever.
pub async fn live<F: Future>(process: F, crash: Option<(&str, u32)>) -> Life<F::Output> {
    let crash = crash.map(|(point, hit)| (point.to_owned(), hit));
    let plan = Plan { crash, ..Plan::default() };
    let life = LifeHandle(Arc::new(Mutex::new(plan)));
    LIFE.set(Some(life.clone()));
    let mut process = pin!(process);
    let ended = std::future::poll_fn(|cx| {
        let has_crashed = {
            let mut plan = life.plan();
            plan.waker = Some(cx.waker().clone());
            plan.has_crashed
        };
        if has_crashed {
            return Poll::Ready(None);
        }
        let polled = process.as_mut().poll(cx).map(Some);
        if life.has_crashed() { Poll::Ready(None) } else { polled }
    })
    .await;
    LIFE.take();
    let hits = std::mem::take(&mut life.plan().hits);
    Life { ended, hits }
}

/// A life that goes on in another thread, too.
#[derive(Clone, Debug)]
pub(crate) struct LifeHandle(Arc<Mutex<Plan>>);

impl LifeHandle {
    /// Whether it has reached the point where it stops.
    pub(crate) fn has_crashed(&self) -> bool {
        self.plan().has_crashed
    }

    /// Passes a crash point; `true` if the process stops there, or has stopped.
    pub(crate) fn reach(&self, point: &'static str) -> bool {
        let mut plan = self.plan();
        if plan.has_crashed {
            return true;
        }
        let hits = plan.hits.entry(point).or_default();
        *hits += 1;
        let hits = *hits;
        plan.has_crashed =
            plan.crash.as_ref().is_some_and(|(name, hit)| name == point && *hit == hits);
        if let (true, Some(waker)) = (plan.has_crashed, plan.waker.take()) {
            waker.wake();
        }
        plan.has_crashed
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().expect("nothing panics while it holds the plan")
    }
}

/// The life that this thread lives.
pub(crate) fn life() -> Option<LifeHandle> {
    LIFE.with_borrow(Clone::clone)
}

/// Passes a crash point, or stops there for ever.
pub(crate) async fn reach(point: &'static str) {
    if life().is_some_and(|life| life.reach(point)) {
        std::future::pending::<()>().await;
    }
}

//! The outside world of a test, counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What happened outside, counted: what fakes of your services write to. A clone is the same
/// world, and a world outlives the processes that act in it.
///
/// What a newcomer gets wrong: an *effect* must happen as often as it does without a crash, a
/// *call* (a model's answer, a look at a page) may happen once more, for a process may die after
/// the call and before its result is stored.
#[derive(Clone, Debug, Default)]
pub struct World(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    effects: BTreeMap<String, u32>,
    calls: BTreeMap<String, u32>,
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts an effect; returns how often it has happened, this time included.
    pub fn effect(&self, what: impl Into<String>) -> u32 {
        add(&mut self.counts().effects, what.into())
    }

    /// Counts a call; returns how often it was made, this time included.
    pub fn call(&self, what: impl Into<String>) -> u32 {
        add(&mut self.counts().calls, what.into())
    }

    /// How often this effect or call happened.
    #[must_use]
    pub fn count(&self, what: &str) -> u32 {
        let counts = self.counts();
        [&counts.effects, &counts.calls].iter().filter_map(|all| all.get(what)).sum()
    }

    /// Whether this effect or call happened: what a probe asks.
    #[must_use]
    pub fn has(&self, what: &str) -> bool {
        self.count(what) > 0
    }

    /// All effects, and how often each happened.
    #[must_use]
    pub fn effects(&self) -> BTreeMap<String, u32> {
        self.counts().effects.clone()
    }

    /// All calls, and how often each was made.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u32> {
        self.counts().calls.clone()
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().expect("no panic while locked")
    }
}

fn add(counts: &mut BTreeMap<String, u32>, what: String) -> u32 {
    let count = counts.entry(what).or_default();
    *count += 1;
    *count
}

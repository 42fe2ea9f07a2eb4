//! Random programs, structured: what the plain interpreter walks and the engine gets as YAML.
//!
//! A program is a tree of statements, not a graph: that is why a few lines can say what it must
//! come to. [`super::yaml`] flattens it to nodes and ways.

use swarm_core::port::clock::Entropy as _;
use swarm_graph::testkit::SeededEntropy;

/// Numbers from a seed.
pub(super) struct Dice(SeededEntropy);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// In `0..below`.
    pub(super) fn roll(&self, below: u64) -> u64 {
        self.0.next_u64() % below.max(1)
    }

    pub(super) fn small(&self, low: u32, high: u32) -> u32 {
        low + u32::try_from(self.roll(u64::from(high - low) + 1)).unwrap()
    }

    pub(super) fn one_in(&self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

/// Graphs by level: the first is run by the test, each runs only those behind it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) graphs: Vec<Sub>,
}

/// One graph.
#[derive(Clone, Debug)]
pub(super) struct Sub {
    pub(super) name: String,
    pub(super) body: Vec<Stmt>,
    pub(super) counters: u32,
    pub(super) concurrency: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Stmt {
    Work(Work),
    /// By whether counter (or the input) is even: the node decides, then one of two ways.
    If {
        at: Work,
        counter: Option<u32>,
        then: Vec<Self>,
        other: Vec<Self>,
    },
    /// The body, then a node that counts and leads back.
    Loop {
        body: Vec<Self>,
        tick: String,
        counter: u32,
        bound: Bound,
    },
    /// A node that leads to all branches, which lead to a join.
    Par {
        fork: Work,
        branches: Vec<(Vec<Self>, Work)>,
        join: Work,
    },
    Each(Each),
    Gate {
        node: String,
        then: Vec<Self>,
        other: Vec<Self>,
    },
    Wait {
        node: String,
        what: Wait,
    },
    Child {
        node: String,
        graph: usize,
        caught: Option<Caught>,
    },
}

/// What ends a loop.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// The condition, each time it is entered.
    Count(u32),
    /// The `max` of the way back, which counts over the whole run.
    Max(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    Signal,
    Timer {
        secs: u32,
    },
    /// A signal that never comes, and a moment.
    Silence {
        secs: u32,
    },
}

/// A step of the kind `sim/work`.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) node: String,
    pub(super) acts: Vec<Act>,
    pub(super) add: u32,
    /// How many attempts fail.
    pub(super) fails: u32,
    pub(super) how: Fault,
    pub(super) retry: Option<Retry>,
    pub(super) caught: Option<Caught>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    Memo,
    Spend(u32),
    Effect,
    Ask,
    Sleep(u32),
    Emit,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    Retryable,
    Fatal,
    Panic,
    /// It sleeps longer than its timeout.
    Timeout,
}

impl Fault {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Retryable => "io",
            Self::Fatal => "odd",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Retry {
    /// Three attempts, of failures that say so themselves.
    Plain,
    /// Two attempts, of `odd` failures alone.
    Odd,
}

/// What a failure leads to.
#[derive(Clone, Debug)]
pub(super) struct Caught {
    pub(super) by: Vec<Stmt>,
    /// How often in a run.
    pub(super) max: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Each {
    pub(super) node: String,
    pub(super) items: u32,
    pub(super) parallel: u32,
    pub(super) on_error: OnError,
    pub(super) what: EachOf,
    pub(super) caught: Option<Caught>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OnError {
    Fail,
    Collect,
    Ignore,
}

#[derive(Clone, Debug)]
pub(super) enum EachOf {
    /// Work; these items fail.
    Work {
        acts: Vec<Act>,
        failing: Vec<u32>,
    },
    Child {
        graph: usize,
    },
    Gate,
}

/// Makes a program. Its size shrinks with each refusal of the caller, named by `shrink`.
pub(super) fn generate(seed: u64, shrink: u32) -> Program {
    let dice = Dice::new(seed.wrapping_mul(31).wrapping_add(u64::from(shrink)));
    let levels = usize::try_from(dice.small(1, 3)).unwrap();
    // Mostly small: what goes wrong seldom needs many nodes.
    let nodes_max = dice.small(3, dice.small(4, 20)) / (shrink + 1).min(6);
    let graphs = (0..levels)
        .map(|level| {
            let left = if level == 0 { nodes_max.max(3) } else { (nodes_max / 2).max(2) };
            let mut maker = Maker { dice: &dice, left, nodes: 0, counters: 0, level, levels };
            let mut body = maker.block(0, None);
            if body.is_empty() {
                body.push(Stmt::Work(maker.work(true)));
            }
            Sub {
                name: format!("g{level}"),
                body,
                counters: maker.counters,
                concurrency: dice.small(1, 6),
            }
        })
        .collect();
    Program { graphs }
}

struct Maker<'d> {
    dice: &'d Dice,
    left: u32,
    nodes: u32,
    counters: u32,
    level: usize,
    levels: usize,
}

impl Maker<'_> {
    fn name(&mut self, word: &str) -> String {
        self.nodes += 1;
        self.left = self.left.saturating_sub(1);
        format!("{word}{}", self.nodes)
    }

    fn block(&mut self, depth: u32, counter: Option<u32>) -> Vec<Stmt> {
        let wanted = self.dice.small(1, if depth == 0 { 6 } else { 2 });
        let mut stmts = Vec::new();
        for _ in 0..wanted {
            if self.left < 2 {
                break;
            }
            stmts.push(self.stmt(depth, counter));
        }
        stmts
    }

    fn stmt(&mut self, depth: u32, counter: Option<u32>) -> Stmt {
        let is_deep = depth >= 3 || self.left < 6;
        match self.dice.roll(if is_deep { 9 } else { 14 }) {
            0..=2 => Stmt::Work(self.work(false)),
            3 | 4 => Stmt::Each(self.each(depth)),
            5 => Stmt::Wait { node: self.name("wait"), what: self.wait() },
            6 | 7 if self.level + 1 < self.levels => Stmt::Child {
                node: self.name("child"),
                graph: self.level + 1,
                caught: self.caught(depth),
            },
            6..=8 => {
                let node = self.name("gate");
                let is_plain = is_deep || self.dice.one_in(2);
                let then = if is_plain { Vec::new() } else { self.block(depth + 1, counter) };
                let other = if is_plain { Vec::new() } else { self.block(depth + 1, counter) };
                Stmt::Gate { node, then, other }
            }
            9 => {
                let at = self.work(true);
                let then = self.block(depth + 1, counter);
                let other = self.block(depth + 1, counter);
                Stmt::If { at, counter, then, other }
            }
            10 | 11 => {
                let counter = self.counters;
                self.counters += 1;
                let mut body = self.block(depth + 1, Some(counter));
                if body.is_empty() {
                    body.push(Stmt::Work(self.work(false)));
                }
                let tick = self.name("tick");
                let bound = match self.dice.roll(3) {
                    0 => Bound::Max(self.dice.small(1, 3)),
                    _ => Bound::Count(self.dice.small(1, 3)),
                };
                Stmt::Loop { body, tick, counter, bound }
            }
            _ => {
                let fork = self.work(true);
                let branches = (0..self.dice.small(2, 4))
                    .map(|_| {
                        let body = if self.dice.one_in(3) {
                            Vec::new()
                        } else {
                            self.block(depth + 1, counter)
                        };
                        (body, self.work(true))
                    })
                    .collect();
                Stmt::Par { fork, branches, join: self.work(true) }
            }
        }
    }

    fn wait(&self) -> Wait {
        match self.dice.roll(4) {
            0 => Wait::Timer { secs: self.dice.small(1, 30) },
            1 => Wait::Silence { secs: self.dice.small(1, 30) },
            _ => Wait::Signal,
        }
    }

    /// A step of work; one that `must` not fail keeps the shape of what is around it.
    fn work(&mut self, must: bool) -> Work {
        let acts = self.acts();
        let (mut fails, mut how, mut retry) = (0, Fault::Retryable, None);
        if self.dice.one_in(3) {
            retry = Some(if self.dice.one_in(3) { Retry::Odd } else { Retry::Plain });
        }
        if self.dice.one_in(3) {
            how = match self.dice.roll(6) {
                0 => Fault::Fatal,
                1 => Fault::Panic,
                2 => Fault::Timeout,
                _ => Fault::Retryable,
            };
            if must {
                retry = Some(if how == Fault::Fatal { Retry::Odd } else { Retry::Plain });
                fails = if how == Fault::Panic { 0 } else { 1 };
            } else {
                fails = self.dice.small(1, 3);
                if fails < 3 && how == Fault::Retryable && !self.dice.one_in(4) {
                    retry = Some(Retry::Plain);
                }
            }
        }
        let node = self.name("work");
        let add = self.dice.small(0, 9);
        let mut work = Work { node, acts, add, fails, how, retry, caught: None };
        let may_end_it = self.dice.one_in(5);
        if !must && super::plain::exhausts(&work) && !may_end_it {
            work.caught = Some(Caught { by: Vec::new(), max: None });
            let depth = 3;
            work.caught = self.caught(depth).or(work.caught);
        }
        work
    }

    fn acts(&self) -> Vec<Act> {
        (0..self.dice.roll(4))
            .map(|_| match self.dice.roll(9) {
                0 | 1 => Act::Memo,
                2 => Act::Spend(self.dice.small(1, 50)),
                3..=5 => Act::Effect,
                6 => Act::Ask,
                7 => Act::Sleep(self.dice.small(1, 4000)),
                _ => Act::Emit,
            })
            .collect()
    }

    fn caught(&mut self, depth: u32) -> Option<Caught> {
        if self.dice.one_in(3) {
            return None;
        }
        let by = if self.left > 1 && depth < 3 { self.block(depth + 1, None) } else { Vec::new() };
        let max = self.dice.one_in(5).then(|| self.dice.small(1, 2));
        Some(Caught { by, max })
    }

    fn each(&mut self, depth: u32) -> Each {
        let items = self.dice.small(0, 4);
        let on_error = match self.dice.roll(3) {
            0 => OnError::Fail,
            1 => OnError::Collect,
            _ => OnError::Ignore,
        };
        let what = match self.dice.roll(4) {
            0 if self.level + 1 < self.levels => EachOf::Child { graph: self.level + 1 },
            1 => EachOf::Gate,
            _ => {
                let failing = (0..items).filter(|_| self.dice.one_in(5)).collect();
                EachOf::Work { acts: self.acts(), failing }
            }
        };
        let node = self.name("each");
        let caught = self.caught(depth);
        Each { node, items, parallel: self.dice.small(1, 4), on_error, what, caught }
    }
}

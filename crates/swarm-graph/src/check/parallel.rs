//! Which nodes may be at work at the same time.
//!
//! A run is tokens on nodes: a way with several targets makes several of one, a join waits until
//! it holds a token from each node that it waits for and makes one of them, a race takes one token
//! and removes those of its other lines. All pairs of places
//! that two tokens may hold at once are found by letting one of the two move at a time.
//!
//! Conservative: a pair that is not here is never together; a pair that is here may be.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

use super::race::RaceDraft;
use crate::graph::Topology;

/// A set of places by their numbers.
#[derive(Clone, Debug, Default)]
struct Places(Vec<u64>);

impl Places {
    fn one(place: usize) -> Self {
        let mut places = Self(vec![0; place / 64 + 1]);
        places.0[place / 64] = 1 << (place % 64);
        places
    }

    fn contains(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn add(&mut self, others: &Self) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&others.0) {
            *word |= more;
        }
    }

    fn without(mut self, others: &Self) -> Self {
        for (word, less) in self.0.iter_mut().zip(&others.0) {
            *word &= !less;
        }
        self
    }

    fn common(&self, others: &Self) -> Self {
        Self(self.0.iter().zip(&others.0).map(|(a, b)| a & b).collect())
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |word: u64| (0..64).filter(move |bit| word & (1 << bit) != 0);
        self.0.iter().enumerate().flat_map(move |(at, word)| bits(*word).map(move |b| at * 64 + b))
    }
}

/// The pairs of places that two tokens may hold at once.
#[derive(Clone, Debug)]
pub(crate) struct Together {
    with: Vec<Places>,
    waits: BTreeMap<(usize, usize), usize>,
}

impl Together {
    /// Follows every two tokens.
    pub(super) fn of(topology: &Topology, races: &[RaceDraft]) -> Self {
        let map = Map::of(topology, races);
        let mut search = Search::over(&map);
        for (first, second) in &map.forks {
            search.meet(*first, &Places::one(*second));
        }
        loop {
            search.move_tokens();
            if !search.fire_joins() {
                break;
            }
        }
        Self { with: search.with, waits: map.waits }
    }

    /// Whether two nodes may be at work at the same time; one with itself: whether it may run
    /// twice.
    pub(crate) fn may_be(&self, first: usize, second: usize) -> bool {
        self.with.get(first).is_some_and(|with| with.contains(second))
    }

    /// Whether a join may hold what comes from these two nodes at the same time.
    pub(super) fn may_both_wait(&self, join: usize, first: usize, second: usize) -> bool {
        match (self.waits.get(&(first, join)), self.waits.get(&(second, join))) {
            (Some(first), Some(second)) => self.may_be(*first, *second),
            (None, _) | (_, None) => false,
        }
    }
}

/// The places of tokens: the nodes, and behind them the waits at joins.
struct Map {
    /// Where a token on each place may go next.
    next: Vec<BTreeSet<usize>>,
    /// Every two places that one token is followed by.
    forks: BTreeSet<(usize, usize)>,
    /// The wait for a token from a node at a join.
    waits: BTreeMap<(usize, usize), usize>,
    /// The joins, each with its waits.
    joins: Vec<(usize, Vec<usize>)>,
    /// The places whose tokens are gone once a token is on a race.
    gone: BTreeMap<usize, Places>,
}

impl Map {
    fn of(topology: &Topology, races: &[RaceDraft]) -> Self {
        let is_join = |node: NodeIndex| topology[node].is_some_and(|spot| spot.is_join);
        let mut waits = BTreeMap::new();
        let mut joins: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut next = vec![BTreeSet::new(); topology.node_count()];
        let mut targets: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for edge in topology.edge_references() {
            let (from, to) = (edge.source().index(), edge.target().index());
            if topology[edge.target()].is_none() {
                continue;
            }
            let place = if is_join(edge.target()) {
                let number = topology.node_count() + waits.len();
                *waits.entry((from, to)).or_insert_with(|| {
                    joins.entry(to).or_default().push(number);
                    number
                })
            } else {
                to
            };
            next[from].insert(place);
            targets.entry(&edge.weight().place).or_default().insert(place);
        }
        next.resize(topology.node_count() + waits.len(), BTreeSet::new());
        let forks = targets
            .into_values()
            .flat_map(|targets| {
                let pairs = |first: usize| {
                    let seconds = targets.range(first + 1..);
                    seconds.map(move |second| (first, *second)).collect::<Vec<_>>()
                };
                targets.iter().flat_map(|first| pairs(*first)).collect::<Vec<_>>()
            })
            .collect();
        let gone = races
            .iter()
            .map(|race| {
                let behind = waits.iter().filter(|((_, join), _)| race.field.contains(join));
                let mut gone = Places::default();
                for place in race.field.iter().chain(behind.map(|(_, wait)| wait)) {
                    gone.add(&Places::one(*place));
                }
                (race.node, gone)
            })
            .collect();
        Self { next, forks, waits, joins: joins.into_iter().collect(), gone }
    }
}

struct Search<'m> {
    map: &'m Map,
    with: Vec<Places>,
    /// What came to each place's companions since its token was last moved.
    fresh: Vec<Places>,
    due: Vec<usize>,
}

impl<'m> Search<'m> {
    fn over(map: &'m Map) -> Self {
        let none = vec![Places::default(); map.next.len()];
        Self { map, with: none.clone(), fresh: none, due: Vec::new() }
    }

    /// Two tokens may be on `place` and on each of `others` at once. Whether that is new.
    fn meet(&mut self, place: usize, others: &Places) -> bool {
        let new = others.clone().without(&self.with[place]);
        if new.is_empty() {
            return false;
        }
        let own = Places::one(place);
        for other in new.iter() {
            self.note(other, &own);
        }
        self.note(place, &new);
        true
    }

    fn note(&mut self, place: usize, others: &Places) {
        self.with[place].add(others);
        if self.fresh[place].is_empty() {
            self.due.push(place);
        }
        self.fresh[place].add(others);
    }

    fn move_tokens(&mut self) {
        while let Some(place) = self.due.pop() {
            let others = std::mem::take(&mut self.fresh[place]);
            for next in &self.map.next[place] {
                match self.map.gone.get(next) {
                    Some(gone) => self.meet(*next, &others.clone().without(gone)),
                    None => self.meet(*next, &others),
                };
            }
        }
    }

    /// A join goes on beside whatever may be there during each of its waits.
    fn fire_joins(&mut self) -> bool {
        let map = self.map;
        let mut is_new = false;
        for (join, waits) in &map.joins {
            let Some((first, rest)) = waits.split_first() else { continue };
            let beside = rest
                .iter()
                .fold(self.with[*first].clone(), |all, wait| all.common(&self.with[*wait]));
            let own = waits.iter().fold(Places::default(), |mut own, wait| {
                own.add(&Places::one(*wait));
                own
            });
            is_new |= self.meet(*join, &beside.without(&own));
        }
        is_new
    }
}

//! The states that files may have after a loss of power.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::change::Change;
use super::contents::{Contents, Tracked};
use super::record::{Log, Op, Source};
use crate::conformance::model::Random;

/// Limits for the number of states that are tried at each point.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Up to this number of changes (or sectors of changes) that are not durable, every subset of
    /// them is tried.
    pub exhaustive: u32,
    /// Above that number: the number of random states that are tried besides the special ones.
    pub samples: usize,
    /// The seed of the random states.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { exhaustive: 8, samples: 48, seed: 0x5EED }
    }
}

/// One state after a loss of power.
#[derive(Clone, Debug)]
pub struct State {
    /// The number of events that happened before the loss of power: see
    /// [`super::Recorder::position`].
    pub position: usize,
    /// Number of the state in the order of the iterator.
    pub number: usize,
    seed: u64,
    files: Vec<(String, Contents)>,
    /// The changes that were not durable, each with the number of its sectors.
    fates: Arc<Vec<(Op, usize)>>,
    choice: Vec<Keep>,
}

impl State {
    /// Writes the files into `folder`, under their original names, and returns their paths in the
    /// order of [`super::Recorder::attach`].
    ///
    ///
    /// # Errors
    /// The error of the system.
    pub fn write(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let write = |(name, contents): &(String, Contents)| {
            let path = folder.join(name);
            // The check of an earlier state may have left a file there.
            let _ = std::fs::remove_file(&path);
            contents.write(&OpenOptions::new().write(true).create_new(true).open(&path)?)?;
            Ok(path)
        };
        self.files.iter().map(write).collect()
    }
}

/// Prints the subset of changes in the state, so that a failure can be understood and repeated.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "state {} (seed {:#x}): power lost after {} events",
            self.number, self.seed, self.position
        )?;
        for ((op, sectors), keep) in self.fates.iter().zip(&self.choice) {
            let fate = match keep {
                Keep::All => "kept",
                Keep::None => "lost",
                _ => "torn",
            };
            write!(f, "  {fate} #{} file {} {:?} {:?}", op.issued, op.file, op.source, op.change)?;
            if fate == "torn" {
                let kept: String =
                    (0..*sectors).map(|at| if keep.has(at) { '1' } else { '0' }).take(80).collect();
                write!(f, " sectors {kept}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The part of one change that reached the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keep {
    All,
    None,
    /// The first sectors, of this number.
    First(usize),
    /// All but the first sectors, of this number.
    Behind(usize),
    /// Some of the sectors, selected by the number.
    Scattered(u64),
    /// The sectors with a set bit.
    Bits(u64),
}

impl Keep {
    /// Returns whether the sector with this ordinal is kept.
    fn has(&self, ordinal: usize) -> bool {
        match *self {
            Self::All => true,
            Self::None => false,
            Self::First(count) => ordinal < count,
            Self::Behind(count) => ordinal >= count,
            Self::Scattered(seed) => {
                seed.wrapping_add(ordinal as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40 & 1 != 0
            }
            Self::Bits(bits) => bits >> ordinal & 1 != 0,
        }
    }

    /// Returns whether any sector is kept, so that the file has the length for it.
    fn has_any(&self) -> bool {
        !matches!(self, Self::None | Self::Bits(0))
    }
}

/// A change that is not durable, and those of its sectors that are not durable.
#[derive(Debug)]
struct Pending {
    op: usize,
    sectors: Vec<u64>,
}

/// The iterator of [`Log::states`].
#[derive(Debug)]
pub struct States<'a> {
    log: &'a Log,
    limits: Limits,
    files: Vec<Tracked>,
    /// Issues and completions that have not been processed, by number.
    events: VecDeque<(usize, Event)>,
    random: Random,
    pending: Vec<Pending>,
    fates: Arc<Vec<(Op, usize)>>,
    choices: VecDeque<Vec<Keep>>,
    /// The event that follows when the choices are used up.
    next: Option<Event>,
    position: usize,
    number: usize,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Issue(usize),
    Complete(usize),
}

impl Log {
    /// Returns the states that the files may be in after a loss of power.
    ///
    /// Between two events that make changes durable, the set of changes that may be lost only
    /// grows, and so does the set of contents that the disk may show. So the states at the end of
    /// each such stretch include all earlier ones.
    pub fn states(&self, limits: &Limits) -> States<'_> {
        let mut events: Vec<(usize, Event)> = Vec::new();
        for (index, op) in self.ops.iter().enumerate() {
            events.push((op.issued, Event::Issue(index)));
            events.extend(op.completed.map(|event| (event, Event::Complete(index))));
        }
        events.sort_unstable_by_key(|&(number, _)| number);
        States {
            log: self,
            limits: *limits,
            files: self.files.iter().map(|(_, begin)| Tracked::new(begin.clone())).collect(),
            events: events.into(),
            random: Random(limits.seed | 1),
            pending: Vec::new(),
            fates: Arc::default(),
            choices: VecDeque::new(),
            next: None,
            position: 0,
            number: 0,
            finished: false,
        }
    }
}

impl States<'_> {
    /// Advances to the next point at which a change becomes durable, or to the end.
    fn advance(&mut self) {
        if let Some(event) = self.next.take() {
            self.settle(event);
        }
        while let Some((number, event)) = self.events.pop_front() {
            match event {
                Event::Issue(index) => {
                    let op = &self.log.ops[index];
                    self.files[op.file].change(index, &op.change);
                }
                Event::Complete(index) => {
                    let file = self.log.ops[index].file;
                    if self.files[file].is_pending(|op| self.becomes_durable(op, index)) {
                        self.next = Some(event);
                        self.position = number;
                        return self.choose();
                    }
                    self.settle(event);
                }
            }
        }
        self.finished = true;
        self.position = self.log.events;
        self.choose();
    }

    /// Returns whether change `op` is durable once change `by` of the same file has completed.
    fn becomes_durable(&self, op: usize, by: usize) -> bool {
        let barrier = &self.log.ops[by];
        match barrier.change {
            Change::Sync => self.log.ops[op].completed.is_some_and(|event| event < barrier.issued),
            Change::Write { durable, .. } => durable && op == by,
            Change::Zero { .. } | Change::Length(_) => false,
        }
    }

    fn settle(&mut self, event: Event) {
        let Event::Complete(by) = event else { return };
        let op = &self.log.ops[by];
        let mut file =
            std::mem::replace(&mut self.files[op.file], Tracked::new(Contents::default()));
        file.settle(|op| self.becomes_durable(op, by));
        if let Change::Write { offset, bytes, durable: true } = &op.change {
            file.reach(offset + bytes.len() as u64);
        }
        self.files[op.file] = file;
    }

    /// Lists the subsets of the pending changes that are tried.
    fn choose(&mut self) {
        let mut pending: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for file in &self.files {
            for (&sector, versions) in &file.versions {
                versions.iter().for_each(|&(op, _)| pending.entry(op).or_default().push(sector));
            }
            for &(op, _) in &file.lengths {
                pending.entry(op).or_default();
            }
        }
        self.pending = pending.into_iter().map(|(op, sectors)| Pending { op, sectors }).collect();
        let fate = |pending: &Pending| (self.log.ops[pending.op].clone(), pending.sectors.len());
        self.fates = Arc::new(self.pending.iter().map(fate).collect());
        let count = self.pending.len();
        let units: usize = self.pending.iter().map(|pending| pending.sectors.len().max(1)).sum();
        if units <= self.limits.exhaustive as usize {
            self.every_sector(units);
        } else if count <= self.limits.exhaustive as usize {
            self.every_change(count);
            self.torn();
        } else {
            self.special(count);
            self.sample(count);
            self.torn();
        }
    }

    fn every_sector(&mut self, units: usize) {
        for bits in 0_u64..1 << units {
            let mut left = bits;
            let choice = self.pending.iter().map(|pending| {
                let count = pending.sectors.len().max(1);
                let own = left & ((1 << count) - 1);
                left >>= count;
                match own {
                    0 => Keep::None,
                    _ if own.count_ones() as usize == count => Keep::All,
                    _ => Keep::Bits(own),
                }
            });
            self.choices.push_back(choice.collect());
        }
    }

    fn every_change(&mut self, count: usize) {
        let keep = |is_kept| if is_kept { Keep::All } else { Keep::None };
        for bits in 0_u64..1 << count {
            self.choices.push_back((0..count).map(|at| keep(bits >> at & 1 != 0)).collect());
        }
    }

    /// Adds the special states: each change alone, each one missing, all up to each one (and so all
    /// and none), and the changes of one part of the image alone.
    fn special(&mut self, count: usize) {
        let mut add = |keeps: &dyn Fn(usize) -> bool| {
            let keep = |at| if keeps(at) { Keep::All } else { Keep::None };
            self.choices.push_back((0..count).map(keep).collect());
        };
        let is_data = |at: usize| self.log.ops[self.pending[at].op].source == Source::Data;
        add(&is_data);
        add(&|at| !is_data(at));
        for one in 0..count {
            add(&|at| at == one);
            add(&|at| at != one);
            add(&|at| at < one);
        }
        add(&|_| true);
    }

    fn sample(&mut self, count: usize) {
        for _ in 0..self.limits.samples {
            // Some states lose most changes, and some lose few.
            let kept = 10 + self.random.below(80);
            let mut keep = || match self.random.below(100) {
                part if part < kept => Keep::All,
                part if part < kept + 5 => Keep::Scattered(self.random.below(1 << 40)),
                _ => Keep::None,
            };
            let choice = (0..count).map(|_| keep()).collect();
            self.choices.push_back(choice);
        }
    }

    /// Adds states with one torn change and all or none of the others.
    fn torn(&mut self) {
        let large: Vec<usize> =
            (0..self.pending.len()).filter(|&at| self.pending[at].sectors.len() > 1).collect();
        let most = (self.limits.samples / 6).max(1);
        for turn in 0..large.len().min(most) {
            // Every position is tried if there are few.
            let at = if large.len() <= most {
                turn
            } else {
                self.random.below(large.len() as u64) as usize
            };
            let at = large[at];
            let half = self.pending[at].sectors.len() / 2;
            let seed = self.random.below(1 << 40);
            for torn in [Keep::First(half), Keep::Behind(half), Keep::Scattered(seed)] {
                for others in [Keep::All, Keep::None] {
                    let mut choice = vec![others; self.pending.len()];
                    choice[at] = torn.clone();
                    self.choices.push_back(choice);
                }
            }
        }
    }

    fn compose(&self, choice: Vec<Keep>) -> State {
        let keeps = |op: usize, sector: Option<u64>| {
            let Ok(at) = self.pending.binary_search_by_key(&op, |pending| pending.op) else {
                return false;
            };
            match sector {
                None => choice[at].has_any(),
                Some(sector) => {
                    let ordinal = self.pending[at].sectors.binary_search(&sector);
                    ordinal.is_ok_and(|ordinal| choice[at].has(ordinal))
                }
            }
        };
        let files = self.log.files.iter().zip(&self.files);
        State {
            position: self.position,
            number: self.number,
            seed: self.limits.seed,
            files: files.map(|((name, _), file)| (name.clone(), file.after(keeps))).collect(),
            fates: Arc::clone(&self.fates),
            choice,
        }
    }
}

impl Iterator for States<'_> {
    type Item = State;

    fn next(&mut self) -> Option<State> {
        loop {
            if let Some(choice) = self.choices.pop_front() {
                let state = self.compose(choice);
                self.number += 1;
                return Some(state);
            }
            if self.finished {
                return None;
            }
            self.advance();
        }
    }
}

//! Breadth first through all states that a model can reach.
//!
//! Whole states are kept, not only their hashes, so that no collision can hide one. Each state remembers where it was
//! reached from first: the trace that leads to a broken promise is a shortest one.

use std::fmt::Display;
use std::hash::{Hash, Hasher};

use hashbrown::HashTable;

/// Something with states and steps between them.
pub(crate) trait Model {
    /// All there is at one moment.
    type State: Clone + Eq + Hash;
    /// What happens.
    type Step: Copy + Display;

    /// Where it begins.
    fn first(&self) -> Self::State;

    /// Everything that can happen next.
    fn steps(&self, state: &Self::State, found: &mut Vec<(Self::Step, Self::State)>);

    /// What is wrong with a state, if anything is.
    fn broken_promise(&self, state: &Self::State) -> Option<String>;
}

/// What a search found.
pub(crate) struct Outcome {
    /// Different states that were reached.
    pub(crate) states: usize,
    /// Steps that were tried.
    pub(crate) steps: u64,
    /// Length of the longest shortest way.
    pub(crate) depth: usize,
    /// How a promise is broken: the steps, then what is wrong.
    pub(crate) loss: Option<Vec<String>>,
}

/// FxHash's multiplication: states are many, and short.
#[derive(Default)]
struct QuickHasher(u64);

impl QuickHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        // The upper bits are the good ones; the table uses both ends.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }
}

fn hash(state: &impl Hash) -> u64 {
    let mut hasher = QuickHasher::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Goes through all states, or up to the first one that breaks a promise.
///
/// # Panics
/// If there are more than `states_max` states: what is not exhausted proves nothing.
pub(crate) fn search<M: Model>(model: &M, states_max: usize) -> Outcome {
    let mut states = vec![model.first()];
    let mut origins: Vec<u32> = vec![0];
    let mut known: HashTable<u32> = HashTable::new();
    known.insert_unique(hash(&states[0]), 0, |_| unreachable!("it has room"));
    let mut found = Vec::new();
    let mut steps = 0;
    let (mut depth, mut level_end) = (0, 1);
    let mut next = 0;
    while next < states.len() {
        if next == level_end {
            (depth, level_end) = (depth + 1, states.len());
        }
        found.clear();
        model.steps(&states[next], &mut found);
        steps += found.len() as u64;
        for (_, state) in found.drain(..) {
            let key = hash(&state);
            if known.find(key, |at| states[*at as usize] == state).is_some() {
                continue;
            }
            let number = states.len() as u32;
            known.insert_unique(key, number, |at| hash(&states[*at as usize]));
            let broken = model.broken_promise(&state);
            states.push(state);
            origins.push(next as u32);
            if let Some(broken) = broken {
                let mut loss = trace(model, &states, &origins, number as usize);
                loss.push(broken);
                return Outcome { states: states.len(), steps, depth: depth + 1, loss: Some(loss) };
            }
        }
        assert!(states.len() <= states_max, "more than {states_max} states");
        next += 1;
    }
    Outcome { states: states.len(), steps, depth, loss: None }
}

/// The steps that lead to a state.
fn trace<M: Model>(model: &M, states: &[M::State], origins: &[u32], mut at: usize) -> Vec<String> {
    let mut way = Vec::new();
    while at != 0 {
        let origin = origins[at] as usize;
        let mut found = Vec::new();
        model.steps(&states[origin], &mut found);
        let step = found.iter().find(|(_, state)| *state == states[at]);
        way.push(step.map_or_else(|| "?".to_owned(), |(step, _)| step.to_string()));
        at = origin;
    }
    way.reverse();
    way
}

//! Chance that can be had again.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// What follows from this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }

    /// True so many times in a million.
    pub fn happens(&mut self, per_million: u64) -> bool {
        per_million > 0 && self.draw() % 1_000_000 < per_million
    }

    /// A number from `least` to `most`; each order of magnitude between them is as likely as any other.
    pub fn spread(&mut self, least: u64, most: u64) -> u64 {
        let least = least.max(1);
        let doublings = (most / least).max(1).ilog2() as usize;
        let from = least << self.below(doublings + 1);
        let to = from.saturating_mul(2).min(most).max(from);
        from + self.draw() % (to - from + 1)
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.draw().to_le_bytes()[..piece.len()]);
        }
    }
}

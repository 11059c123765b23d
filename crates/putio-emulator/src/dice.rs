//! Chance that a seed decides.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough for choosing.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Dice that depend on all three numbers and nothing else.
    pub(crate) fn of(seed: u64, stream: u64, number: u64) -> Self {
        let mut dice = Self::new(seed);
        dice.state = dice.next().wrapping_add(stream);
        dice.state = dice.next().wrapping_add(number);
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and 1, never 1.
    pub(crate) fn share(&mut self) -> f64 {
        // 53 bits are what the fraction of a double holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `count`, which is not 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A secret that nobody can guess, of characters that need no escaping anywhere.
pub(crate) fn random_word() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 18];
    getrandom::fill(&mut bytes)?;
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_decides_the_same_and_shares_are_even() {
        let mut one = Dice::of(1, 2, 3);
        let mut other = Dice::of(1, 2, 3);
        assert_eq!(one.next(), other.next());
        assert_ne!(Dice::of(1, 2, 4).next(), Dice::of(1, 3, 3).next());
        let hits = (0..10_000).filter(|number| Dice::of(7, 0, *number).share() < 0.3).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
    }
}

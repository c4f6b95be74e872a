//! Chance that repeats itself: equal seeds give equal runs of choices.

/// A stream of choices (`SplitMix64`, which is small and good enough for choices).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for a part of a run, whatever the other parts draw.
    pub(crate) fn of(seed: u64, part: u64) -> Self {
        Self(Self(seed ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).roll())
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Both ends are possible.
    pub(crate) fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.roll() % (max - min + 1)
    }

    pub(crate) fn happens(&mut self, per_cent: u64) -> bool {
        self.roll() % 100 < per_cent
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let last = u64::try_from(choices.len() - 1).unwrap();
        choices[usize::try_from(self.between(0, last)).unwrap()]
    }
}

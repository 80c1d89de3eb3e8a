//! Chance from a seed: the same everywhere.

/// Numbers that look random.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Whether something is so that is so once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number that may be counted with.
    pub fn number(&mut self, end: u64) -> i64 {
        i64::try_from(self.below(end)).unwrap_or_default()
    }

    /// One of some.
    pub fn one_of(&mut self, from: &[&'static str]) -> &'static str {
        let most = u64::try_from(from.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(self.below(most)).unwrap_or_default();
        from.get(index).copied().unwrap_or_default()
    }

    /// A place in history that has come to `now`: often a recent one, now and then one of the
    /// first, or one that is not there yet.
    pub fn place(&mut self, now: i64) -> i64 {
        match self.below(8) {
            0 => self.number(8),
            1 => now + self.number(4),
            2 => self.number(u64::try_from(now).unwrap_or_default() + 1),
            _ => (now - self.number(30)).max(0),
        }
    }
}

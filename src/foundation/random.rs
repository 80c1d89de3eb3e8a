//! Chance, passed in rather than reached for: the same numbers for the same seed, everywhere.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers (`SplitMix64`, Steele et al. 2014). Not for secrets.
///
/// It is our own so that no crate version changes what a seed tells.
#[derive(Debug)]
pub struct Random(AtomicU64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// Makes a source that always tells the same numbers for the same seed.
    pub const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Makes a source seeded by the operating system.
    ///
    /// # Panics
    ///
    /// Where the kernel has no random numbers to give, which a Linux since 3.17 always has.
    pub fn from_system() -> Self {
        let mut seed = [0_u8; 8];
        let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        assert_eq!(got.ok(), Some(seed.len()), "the kernel gives random numbers");
        Self::seeded(u64::from_le_bytes(seed))
    }

    /// Returns the next number.
    pub fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`; zero if `limit` is zero.
    pub fn below(&self, limit: u64) -> u64 {
        self.next_u64().checked_rem(limit).unwrap_or_default()
    }

    /// Returns a number from `low` up to and including `high`, which is not below `low`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns true once in `n`.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Makes a source of its own for one user, so that one user's draws do not shift another's.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::seeded(self.next_u64())
    }

    /// Returns `count` random bytes as lowercase hex.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
    pub fn hex(&self, count: usize) -> String {
        let digit = |_| char::from(b"0123456789abcdef"[usize::from(self.next_u64() as u8 & 15)]);
        (0..count * 2).map(digit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_tells_the_same_numbers() {
        // The first outputs of SplitMix64 for seed 0, from its authors' reference.
        let random = Random::seeded(0);
        assert_eq!(random.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let random = Random::seeded(7);
        assert!((0..1000).all(|_| (3..=9).contains(&random.between(3, 9))));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn the_system_gives_different_seeds() {
        assert_ne!(Random::from_system().next_u64(), Random::from_system().next_u64());
    }
}

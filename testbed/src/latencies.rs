//! How long many operations took, and what most of them took at most.

use crate::error::LabError;

/// How long operations took, in order.
#[derive(Debug, Default, Clone)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// Takes times in microseconds, in any order.
    #[must_use]
    pub fn new(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        Self(micros)
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What so many of a thousand took at most, in milliseconds.
    pub fn per_mille(&self, part: usize) -> Result<f64, LabError> {
        let at = (self.0.len() * part).div_ceil(1000).saturating_sub(1);
        let micros = self.0.get(at).ok_or_else(|| LabError::Missing("no answer".to_owned()))?;
        Ok(f64::from(*micros) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let latencies = Latencies::new((1..=1000).rev().collect());
        assert!((latencies.per_mille(500).unwrap() - 0.5).abs() < f64::EPSILON);
        assert!((latencies.per_mille(990).unwrap() - 0.99).abs() < f64::EPSILON);
        let one = Latencies::new(vec![7000]);
        assert!((one.per_mille(990).unwrap() - 7.0).abs() < f64::EPSILON);
        assert!(Latencies::default().per_mille(500).is_err());
    }
}

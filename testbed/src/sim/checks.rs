//! What must be true of the whole history of client calls: there is one order of them, true to
//! time, in which every answer is right. Each key is a register of its own.
//!
//! Source: Herlihy and Wing 1990; the search is the one of Wing and Gong 1993, remembering what it
//! has tried. Values are unique and answers tell the value before, which keeps it short.

use std::collections::{BTreeMap, BTreeSet};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A read that is not stale.
    Read {
        /// The key.
        key: String,
    },
    /// A write.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: u64,
    },
    /// A write if the key is as expected.
    Swap {
        /// The key.
        key: String,
        /// What it is to have; `None`: it is not to be there.
        expected: Option<u64>,
        /// The value.
        value: u64,
    },
}

/// What was there before, as far as the answer told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// This.
    Known(Option<u64>),
    /// Some value.
    Something,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was written, and what was there before.
    Wrote(Before),
    /// It was not as expected, and what was there.
    Differs(Before),
    /// The value that was read.
    Value(Option<u64>),
    /// Nothing was done.
    Refused,
    /// It may have been done.
    Unknown,
}

/// One call. Times are places in the order in which everything happened.
#[derive(Debug, Clone)]
pub struct Operation {
    /// What was asked.
    pub ask: Ask,
    /// What was told.
    pub answer: Answer,
    /// When it was asked.
    pub start: u64,
    /// When it was told.
    pub end: Option<u64>,
}

impl Before {
    fn fits(self, value: Option<u64>) -> bool {
        match self {
            Self::Known(known) => known == value,
            Self::Something => value.is_some(),
        }
    }
}

/// An answer that cannot be right at this place in the order.
struct DoesNotFit;

impl Operation {
    fn key(&self) -> &str {
        match &self.ask {
            Ask::Read { key } | Ask::Put { key, .. } | Ask::Swap { key, .. } => key,
        }
    }

    /// The value after this operation, if its answer fits the value before it.
    fn step(&self, before: Option<u64>) -> Result<Option<u64>, DoesNotFit> {
        let (after, done) = match &self.ask {
            Ask::Read { .. } => (before, true),
            Ask::Put { value, .. } => (Some(*value), true),
            Ask::Swap { expected, value, .. } if *expected == before => (Some(*value), true),
            Ask::Swap { .. } => (before, false),
        };
        let fits = match &self.answer {
            Answer::Unknown => true,
            Answer::Value(value) => *value == before,
            Answer::Wrote(told) => done && told.fits(before),
            Answer::Differs(told) => !done && told.fits(before),
            Answer::Refused => false,
        };
        if fits { Ok(after) } else { Err(DoesNotFit) }
    }

    /// The value this operation was told, or expects: what the one before it must have left.
    fn sees(&self) -> Option<u64> {
        match (&self.answer, &self.ask) {
            (
                Answer::Value(value)
                | Answer::Wrote(Before::Known(value))
                | Answer::Differs(Before::Known(value)),
                _,
            ) => *value,
            (_, Ask::Swap { expected, .. }) => *expected,
            _ => None,
        }
    }

    /// The value this operation writes.
    fn writes(&self) -> Option<u64> {
        match &self.ask {
            Ask::Put { value, .. } | Ask::Swap { value, .. } => Some(*value),
            Ask::Read { .. } => None,
        }
    }

    fn had_no_effect(&self) -> bool {
        let unknown_read = self.answer == Answer::Unknown && matches!(self.ask, Ask::Read { .. });
        unknown_read || self.answer == Answer::Refused
    }
}

/// Tells whether the calls have a valid order.
pub fn linearizable(history: &[Operation]) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history.iter().filter(|operation| !operation.had_no_effect()) {
        keys.entry(operation.key()).or_default().push(operation);
    }
    for (key, mut operations) in keys {
        // A write of unknown fate whose value nobody saw makes no difference, unless somebody
        // was told that there was something.
        let told_of_something = operations.iter().any(|operation| {
            matches!(
                operation.answer,
                Answer::Wrote(Before::Something) | Answer::Differs(Before::Something)
            )
        });
        let seen: BTreeSet<u64> = operations.iter().filter_map(|one| one.sees()).collect();
        operations.retain(|operation| {
            operation.answer != Answer::Unknown
                || told_of_something
                || operation.writes().is_some_and(|value| seen.contains(&value))
        });
        if !search(&operations) {
            return Err(format!("the calls on {key:?} have no valid order"));
        }
    }
    Ok(())
}

fn search(operations: &[&Operation]) -> bool {
    let end = |operation: &Operation| {
        operation.end.filter(|_| operation.answer != Answer::Unknown).unwrap_or(u64::MAX)
    };
    let mut tried = BTreeSet::new();
    let mut todo = vec![(vec![0_u64; operations.len().div_ceil(64)], None)];
    while let Some((done, value)) = todo.pop() {
        let open = |at: &usize| (done[at / 64] >> (at % 64)) & 1 == 0;
        let first_end = (0..operations.len()).filter(open).map(|at| end(operations[at])).min();
        let Some(first_end) = first_end.filter(|end| *end != u64::MAX) else {
            return true; // only calls that may never have happened are left
        };
        let possible = (0..operations.len()).filter(open);
        for at in possible.filter(|at| operations[*at].start < first_end) {
            let Ok(after) = operations[at].step(value) else { continue };
            let mut next = done.clone();
            next[at / 64] |= 1 << (at % 64);
            if tried.insert((next.clone(), after)) {
                todo.push((next, after));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(start: u64, end: u64, value: u64, answer: Answer) -> Operation {
        let ask = Ask::Put { key: "k".into(), value };
        Operation { ask, answer, start, end: Some(end) }
    }

    fn wrote(before: Option<u64>) -> Answer {
        Answer::Wrote(Before::Known(before))
    }

    fn read(start: u64, end: u64, value: Option<u64>) -> Operation {
        let ask = Ask::Read { key: "k".into() };
        Operation { ask, answer: Answer::Value(value), start, end: Some(end) }
    }

    #[test]
    fn a_read_beside_a_write_may_see_either() {
        let write = put(1, 4, 7, wrote(None));
        assert!(linearizable(&[write.clone(), read(2, 3, None)]).is_ok());
        assert!(linearizable(&[write, read(2, 3, Some(7))]).is_ok());
    }

    #[test]
    fn a_read_after_a_write_must_see_it() {
        let write = put(1, 2, 7, wrote(None));
        assert!(linearizable(&[write, read(3, 4, None)]).is_err());
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
        let late = put(1, 2, 7, Answer::Unknown);
        let other = put(3, 4, 8, wrote(None));
        assert!(linearizable(&[late.clone(), read(5, 6, None)]).is_ok());
        assert!(linearizable(&[late.clone(), other.clone(), read(5, 6, Some(8))]).is_ok());
        assert!(linearizable(&[late.clone(), other, read(5, 6, Some(7))]).is_ok());
        let other = put(3, 4, 8, wrote(Some(7)));
        let twice = [late, read(1, 2, Some(7)), other, read(5, 6, Some(8)), read(7, 8, Some(7))];
        assert!(linearizable(&twice).is_err());
    }

    #[test]
    fn a_refused_creation_says_that_something_was_there() {
        let ask = Ask::Swap { key: "k".into(), expected: None, value: 9 };
        let refused = |start, end| Operation {
            ask: ask.clone(),
            answer: Answer::Differs(Before::Something),
            start,
            end: Some(end),
        };
        assert!(linearizable(&[refused(1, 2)]).is_err());
        assert!(linearizable(&[put(1, 2, 7, Answer::Unknown), refused(3, 4)]).is_ok());
    }
}

//! The keys that a request is about.

/// What a request gives as the end of its range when it has none.
const OPEN_END: &[u8] = b"\0";

/// A key, or the keys from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRange<B> {
    /// One key.
    One(B),
    /// The keys from `from` on and before `to`; none if `to` is not after `from`.
    Span {
        /// The first key.
        from: B,
        /// The first key that is not in the range any more.
        to: B,
    },
    /// All keys from one on.
    From(B),
}

impl<'a> KeyRange<&'a [u8]> {
    /// Reads the pair that is on the wire: without an end it is one key, with an end of a zero byte
    /// all keys from there on.
    pub fn from_wire(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            OPEN_END => Self::From(key),
            to => Self::Span { from: key, to },
        }
    }

    /// All keys there are.
    pub const ALL: KeyRange<&'static [u8]> = KeyRange::From(b"");
}

impl<B: AsRef<[u8]>> KeyRange<B> {
    /// Returns the first key that can be in the range.
    pub fn start(&self) -> &[u8] {
        match self {
            Self::One(key) | Self::From(key) | Self::Span { from: key, .. } => key.as_ref(),
        }
    }

    /// Tells whether a key that is not before the start is in the range.
    pub(crate) fn reaches(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key == one.as_ref(),
            Self::Span { to, .. } => key < to.as_ref(),
            Self::From(_) => true,
        }
    }

    /// Tells whether a key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start() <= key && self.reaches(key)
    }

    /// Tells whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Span { from, to } if to.as_ref() <= from.as_ref())
    }

    /// Returns the same range of bytes that are owned elsewhere.
    pub fn as_slices(&self) -> KeyRange<&[u8]> {
        match self {
            Self::One(key) => KeyRange::One(key.as_ref()),
            Self::Span { from, to } => KeyRange::Span { from: from.as_ref(), to: to.as_ref() },
            Self::From(key) => KeyRange::From(key.as_ref()),
        }
    }

    /// Returns the range with bytes of its own.
    pub fn to_owned(&self) -> KeyRange<Box<[u8]>> {
        match self.as_slices() {
            KeyRange::One(key) => KeyRange::One(key.into()),
            KeyRange::Span { from, to } => KeyRange::Span { from: from.into(), to: to.into() },
            KeyRange::From(key) => KeyRange::From(key.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_kind_of_range_it_is() {
        assert!(KeyRange::from_wire(b"b", b"").contains(b"b"));
        assert!(!KeyRange::from_wire(b"b", b"").contains(b"ba"));
        let prefix = KeyRange::from_wire(b"b", b"c");
        assert!(prefix.contains(b"b") && prefix.contains(b"b\xff") && !prefix.contains(b"c"));
        let open = KeyRange::from_wire(b"b", b"\0");
        assert!(open.contains(b"\xff") && !open.contains(b"a"));
        assert!(KeyRange::from_wire(b"\0", b"\0").contains(b"\0"));
        let backwards = KeyRange::from_wire(b"b", b"a");
        assert!(backwards.is_empty() && !backwards.contains(b"b") && !backwards.contains(b"a"));
    }
}

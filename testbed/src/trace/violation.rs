//! Promises that a store can break, each with what was seen.

use crate::trace::history::{Event, Version};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A watch went past an event.
    #[error(
        "{watch} was not told of revision {revision}, and was told of {then}: an event is lost"
    )]
    Lost {
        /// Whose watch.
        watch: String,
        /// Of the event.
        revision: i64,
        /// What came instead.
        then: i64,
    },
    /// An event came again.
    #[error("{watch} was told of revision {revision} twice")]
    Doubled {
        /// Whose watch.
        watch: String,
        /// Of the event.
        revision: i64,
    },
    /// An event came after a later one.
    #[error("{watch} was told of revision {revision} after {after}")]
    OutOfOrder {
        /// Whose watch.
        watch: String,
        /// Of the event.
        revision: i64,
        /// Of the one before it.
        after: i64,
    },
    /// A bookmark was there before its events.
    #[error("{watch} had a bookmark at {bookmark} before it was told of revision {revision}")]
    BookmarkAhead {
        /// Whose watch.
        watch: String,
        /// Of the bookmark.
        bookmark: i64,
        /// Of the event.
        revision: i64,
    },
    /// A bookmark said less than was told already.
    #[error("{watch} had a bookmark at {bookmark} after it was told of {after}")]
    BookmarkBack {
        /// Whose watch.
        watch: String,
        /// Of the bookmark.
        bookmark: i64,
        /// Of what it knew already.
        after: i64,
    },
    /// An event is about a key that was not asked for.
    #[error("{watch} was told of `{key}`, which it does not watch")]
    Foreign {
        /// Whose watch.
        watch: String,
        /// The key.
        key: String,
    },
    /// The former value in an event is not what the watch was told last.
    #[error("{watch}: before {event:?} the key was {was:?}")]
    WrongBefore {
        /// Whose watch.
        watch: String,
        /// What it was told.
        event: Box<Event>,
        /// What it knew.
        was: Box<Option<Version>>,
    },
    /// The numbers in an event do not follow from those before it.
    #[error("{watch}: the numbers do not follow in {event:?}")]
    WrongNumbers {
        /// Whose watch.
        watch: String,
        /// What it was told.
        event: Box<Event>,
    },
    /// Two watches were told different things.
    #[error("{watch} was told {event:?} where another was told {other:?}")]
    Differs {
        /// Whose watch.
        watch: String,
        /// What it was told.
        event: Box<Event>,
        /// What the other was told.
        other: Box<Event>,
    },
    /// An event is not what was written.
    #[error("revision {revision} was acknowledged for {written}, and is {event:?}")]
    NotWhatWasWritten {
        /// The revision.
        revision: i64,
        /// What was written.
        written: String,
        /// What watches were told.
        event: Box<Event>,
    },
    /// Two writes were acknowledged at one revision.
    #[error("revision {revision} was acknowledged for {written}, and for {other}")]
    SameRevision {
        /// The revision.
        revision: i64,
        /// What was written.
        written: String,
        /// What else was.
        other: String,
    },
    /// A read does not have what was there before it began.
    #[error("a read of {what} is of revision {revision}, and {floor} was known before it began")]
    Stale {
        /// What was read.
        what: String,
        /// Of the answer.
        revision: i64,
        /// What it had to have.
        floor: i64,
    },
    /// A read does not agree with what watches were told.
    #[error("a read of {what} at revision {revision} found {found}, and watches say {expected}")]
    WrongRead {
        /// What was read.
        what: String,
        /// Of the answer.
        revision: i64,
        /// What it said.
        found: String,
        /// What watches say.
        expected: String,
    },
    /// A change was refused though the key had the revision that it had to have.
    #[error("a change of `{key}` on {base} was refused at revision {revision}, where it has that")]
    NoConflict {
        /// The key.
        key: String,
        /// The revision that it had to have.
        base: i64,
        /// Of the answer.
        revision: i64,
    },
    /// A page of a listing contradicts itself or the one before it.
    #[error("a page of {prefix}: {why}")]
    WrongPage {
        /// What was listed.
        prefix: String,
        /// What is wrong.
        why: String,
    },
    /// Two compactors won the same round.
    #[error("two compactors won the round after version {version}")]
    TwoCompactors {
        /// The version that both compared with.
        version: i64,
    },
    /// A watch did not come as far as the store.
    #[error("{watch} has come to revision {reached}, and the store is at {revision}")]
    Behind {
        /// Whose watch.
        watch: String,
        /// How far it came.
        reached: i64,
        /// How far it should.
        revision: i64,
    },
    /// A read could not be compared with what watches were told.
    #[error("no watch came to revision {revision}, at which {what} was read")]
    Unchecked {
        /// What was read.
        what: String,
        /// Of the answer.
        revision: i64,
    },
    /// A watch ended, and not because it was asked to.
    #[error("{watch} ended: {why}")]
    Ended {
        /// Whose watch.
        watch: String,
        /// What it was told.
        why: String,
    },
    /// A request failed.
    #[error("{what} failed: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// The answer.
        why: String,
    },
}

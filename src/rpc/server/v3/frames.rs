//! Answers of a watch stream as they go over the wire: many messages of gRPC in one piece of bytes.
//!
//! ```text
//!  0 │ length u32 │ 0a header │ 10 watch │ 38 part │ 5a event 5a event …
//!                   └───────┘              └───────────────────────────┘
//!                       the same for all watches that stand at one place
//! ```
//! What watches of one range are told differs in nothing but their ids. It is encoded once, from the
//! versions as the store keeps them, and copied for each of them.

use axum::body::Bytes;
use prost::Message as _;

use crate::rpc::server::v3::MESSAGE_BYTES_MAX;
use crate::rpc::server::v3::whole::HEAD_BYTES;
use crate::store::mvcc::wire::{put_field, put_varint, varint_bytes};
use crate::store::mvcc::{Version, View, events};
use crate::wire::etcd::v3::etcdserverpb as pb;

/// About how many bytes of messages are made at a time.
pub(super) const BURST_BYTES: usize = 256 << 10;
/// Most bytes of events in one part of an answer that may come in parts, which leaves room for what
/// is around them.
const PART_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

// Fields of a `WatchResponse`, with their wire types.
const WATCH_ID: u8 = 2 << 3;
const FRAGMENT: u8 = 7 << 3;
const EVENTS: u8 = 11 << 3 | 2;

/// Messages that are made and not sent.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// How long they were when they were taken last: about as long they become again.
    taken: usize,
}

/// How a watch wants to be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct How {
    /// With what was there before.
    pub(super) prev_kv: bool,
    /// In parts, where that would be long.
    pub(super) in_parts: bool,
}

/// What watches are told that stand at one place, without their ids: answers, of which one follows
/// the other, and all but the last say that there is more.
#[derive(Debug, Default)]
pub(super) struct Told {
    header: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

impl Told {
    /// Encodes what was written, as `view` tells it, in which it was found.
    pub(super) fn new(
        view: &View,
        header: &pb::ResponseHeader,
        written: &[Version],
        how: How,
    ) -> Self {
        if written.is_empty() {
            return Self::default();
        }
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut length = 0;
        let mut encoded = Vec::new();
        for version in written {
            encoded.clear();
            let before = if how.prev_kv { view.before(version) } else { None };
            events::encode(version, before, &mut encoded);
            if parts.is_empty() || (how.in_parts && length + encoded.len() > PART_BYTES_MAX) {
                parts.push(Vec::new());
                length = 0;
            }
            length += encoded.len();
            if let Some(part) = parts.last_mut() {
                put_field(part, EVENTS, &[&encoded]);
            }
        }
        let last = parts.len().saturating_sub(1);
        for part in &mut parts[..last] {
            part.splice(..0, [FRAGMENT, 1]).for_each(drop);
        }
        let answer = pb::WatchResponse { header: Some(*header), ..pb::WatchResponse::default() };
        Self { header: answer.encode_to_vec(), parts }
    }

    /// Tells whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Frames {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an answer.
    pub(super) fn answer(&mut self, answer: &pb::WatchResponse) {
        let length = answer.encoded_len();
        self.head(length);
        answer.encode_raw(&mut self.bytes);
    }

    /// Adds what a watch is told.
    pub(super) fn tell(&mut self, id: i64, told: &Told) {
        // As in every encoding of protobuf, nothing is said of a number that is zero.
        let id_bytes = if id == 0 { 0 } else { 1 + varint_bytes(id.cast_unsigned()) };
        for part in &told.parts {
            self.head(told.header.len() + id_bytes + part.len());
            self.bytes.extend_from_slice(&told.header);
            if id != 0 {
                self.bytes.push(WATCH_ID);
                put_varint(&mut self.bytes, id.cast_unsigned());
            }
            self.bytes.extend_from_slice(part);
        }
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> Bytes {
        self.taken = self.bytes.len().min(BURST_BYTES);
        std::mem::take(&mut self.bytes).into()
    }

    /// Begins a message of so many bytes, for which there is room then.
    fn head(&mut self, length: usize) {
        if self.bytes.is_empty() {
            self.bytes.reserve(self.taken.max(HEAD_BYTES + length));
        } else {
            self.bytes.reserve(HEAD_BYTES + length);
        }
        // Nothing that a store may keep is longer.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.push(0);
        self.bytes.extend_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::keys_v3::answer::key_value;
    use crate::store::mvcc::events::FollowBudget;
    use crate::store::mvcc::{DeleteRange, EventFilter, KeyRange, Op, Put, Store};
    use crate::wire::etcd::v3::mvccpb;

    /// Reads what was made.
    pub(in crate::rpc::server::v3) fn read(frames: &mut Frames) -> Vec<pb::WatchResponse> {
        messages(&frames.take())
            .map(|message| pb::WatchResponse::decode(message).unwrap())
            .collect()
    }

    fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let (head, after) = rest.split_first_chunk::<HEAD_BYTES>()?;
            assert_eq!(head[0], 0, "nothing is compressed");
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let (message, after) = after.split_at(usize::try_from(length).unwrap());
            rest = after;
            Some(message)
        })
    }

    fn shown(view: &View, version: &Version, prev_kv: bool) -> mvccpb::Event {
        use mvccpb::event::EventType;
        let deleted = version.is_tombstone();
        mvccpb::Event {
            r#type: (if deleted { EventType::Delete } else { EventType::Put }).into(),
            kv: Some(key_value(version)),
            prev_kv: view.before(version).filter(|_| prev_kv).map(key_value),
        }
    }

    fn header() -> pb::ResponseHeader {
        pb::ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision: 300, raft_term: 2 }
    }

    /// A put, one over it, a delete, and a put of nothing after it.
    fn written() -> (View, Vec<Version>) {
        let mut store = Store::default();
        let put = |value| Op::Put(Put { key: b"a", value, ..Put::default() });
        let delete = Op::DeleteRange(DeleteRange { range: KeyRange::One(b"a"), prev_kv: false });
        for op in [put(b"1"), put(&[b'x'; 200]), delete, put(b"")] {
            store.op(&op).unwrap();
        }
        let all = FollowBudget { scanned_max: 100, bytes_max: 1 << 20 };
        let view = store.view();
        let followed = view.follow(1, &KeyRange::ALL, EventFilter::default(), all);
        (view, followed.unwrap().events)
    }

    #[test]
    fn what_is_told_is_what_the_message_would_be() {
        let (view, written) = written();
        assert_eq!(written.len(), 4);
        for (id, prev_kv) in [(0, false), (1, true), (300, true), (-5, false), (i64::MAX, true)] {
            let mut frames = Frames::default();
            let how = How { prev_kv, in_parts: true };
            frames.tell(id, &Told::new(&view, &header(), &written, how));
            let message = pb::WatchResponse {
                header: Some(header()),
                watch_id: id,
                events: written.iter().map(|version| shown(&view, version, prev_kv)).collect(),
                ..pb::WatchResponse::default()
            };
            let bytes = frames.take();
            assert_eq!(messages(&bytes).collect::<Vec<_>>(), [message.encode_to_vec()], "{id}");
        }
    }

    #[test]
    fn nothing_is_said_where_there_is_nothing_to_tell() {
        let mut frames = Frames::default();
        let told = Told::new(&View::default(), &header(), &[], How::default());
        frames.tell(1, &told);
        assert!(told.is_empty() && frames.len() == 0);
    }

    #[test]
    fn answers_follow_each_other() {
        let mut frames = Frames::default();
        let created = pb::WatchResponse { created: true, watch_id: 3, ..Default::default() };
        frames.answer(&created);
        let (view, written) = written();
        frames.tell(3, &Told::new(&view, &header(), &written, How::default()));
        frames.answer(&pb::WatchResponse::default());
        let answers = read(&mut frames);
        assert_eq!(answers[0], created);
        assert_eq!((answers[1].watch_id, answers[1].events.len()), (3, 4));
        assert_eq!(answers[2..], [pb::WatchResponse::default()]);
        assert_eq!(frames.len(), 0);
    }
}

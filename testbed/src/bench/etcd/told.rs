//! Reads what watchers are told, for a client that is to be no slower than the servers it measures.
//!
//! An answer is looked at where it lies: nothing is copied and no message is made of it. All that
//! makes it right is looked at all the same.

use bytes::{Buf as _, BufMut as _};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What an answer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The watch that it is about.
    pub(super) watch: i64,
    /// Whether it says that the watch is there.
    pub(super) created: bool,
    /// Whether it says that there is none.
    pub(super) canceled: bool,
    /// The revision of its first event.
    pub(super) first: i64,
    /// How many events it has: of that revision and of those that follow it, one of each.
    pub(super) events: i64,
}

/// What each event of a put has to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put {
    /// What its key begins with.
    pub(super) prefix: &'static [u8],
    /// How long its value is.
    pub(super) value_bytes: usize,
}

/// Sends requests as they are, and reads answers that are about such puts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told(pub(super) Put);

impl Codec for Told {
    type Encode = &'static [u8];
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Told {
    type Item = &'static [u8];
    type Error = Status;

    fn encode(&mut self, item: Self::Item, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(item);
        Ok(())
    }
}

impl Decoder for Told {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let message = from.chunk();
        // The library keeps a message in one piece.
        let whole = message.len() == from.remaining();
        let answer = if whole { answer(message, self.0) } else { None };
        from.advance(from.remaining());
        let strange = || Status::data_loss("an answer that is not what it should be");
        answer.map(Some).ok_or_else(strange)
    }
}

/// Reads an answer; `None` if it is not as it should be.
fn answer(message: &[u8], put: Put) -> Option<Answer> {
    let mut answer = Answer::default();
    for field in fields(message) {
        match field? {
            (2, Value::Number(id)) => answer.watch = id.cast_signed(),
            (3, Value::Number(yes)) => answer.created = yes != 0,
            (4, Value::Number(yes)) => answer.canceled = yes != 0,
            (11, Value::Bytes(event)) => {
                let revision = event_of(event, put)?;
                if answer.events == 0 {
                    answer.first = revision;
                }
                if revision != answer.first + answer.events {
                    return None;
                }
                answer.events += 1;
            }
            _ => {}
        }
    }
    Some(answer)
}

/// Reads an event, and returns its revision; `None` if it is not of such a put.
fn event_of(event: &[u8], put: Put) -> Option<i64> {
    let mut revision = None;
    for field in fields(event) {
        match field? {
            (1, Value::Number(kind)) if kind != 0 => return None,
            (2, Value::Bytes(kv)) => {
                let (mut key, mut value): (&[u8], usize) = (&[], 0);
                for field in fields(kv) {
                    match field? {
                        (1, Value::Bytes(bytes)) => key = bytes,
                        (3, Value::Number(number)) => revision = Some(number.cast_signed()),
                        (5, Value::Bytes(bytes)) => value = bytes.len(),
                        _ => {}
                    }
                }
                if !key.starts_with(put.prefix) || value != put.value_bytes {
                    return None;
                }
            }
            _ => {}
        }
    }
    revision
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of a message: their numbers with what they hold. `None` if it is none, or has
/// what no message of etcd has; then it is the last.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = number(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(number(rest)?),
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

/// Takes a number off the front.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Put = Put { prefix: b"w", value_bytes: 2 };

    fn event(key: &[u8], revision: u8, value: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let kv = [
            &[0x0a, length(key)],
            key,
            &[0x10, 2, 0x18, revision, 0x20, 1, 0x2a, length(value)],
            value,
        ]
        .concat();
        [&[0x12, length(&kv)], &kv[..]].concat()
    }

    fn told(events: &[Vec<u8>]) -> Option<Answer> {
        // A header, and a number of two bytes for the watch.
        let mut message = vec![0x0a, 2, 0x18, 9, 0x10, 0xac, 0x02];
        for event in events {
            message.extend_from_slice(&[0x5a, u8::try_from(event.len()).unwrap()]);
            message.extend_from_slice(event);
        }
        answer(&message, PUT)
    }

    #[test]
    fn answers_are_read() {
        let two = Answer { watch: 300, first: 8, events: 2, ..Answer::default() };
        assert_eq!(told(&[event(b"w1", 8, b"xx"), event(b"w2", 9, b"xx")]), Some(two));
        let created = Answer { created: true, ..Answer::default() };
        assert_eq!(answer(&[0x0a, 0, 0x18, 1], PUT), Some(created));
        let refused = Answer { canceled: true, watch: -1, ..created };
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(
            answer(&[&[0x10], &minus_one[..], &[0x18, 1, 0x20, 1]].concat(), PUT),
            Some(refused)
        );
    }

    #[test]
    fn what_is_not_as_it_should_be_is_found() {
        let good = || event(b"w1", 8, b"xx");
        assert!(told(&[good()]).is_some());
        for wrong in [
            vec![event(b"v1", 8, b"xx")],
            vec![event(b"w1", 8, b"x")],
            vec![good(), good()],
            vec![good(), event(b"w1", 10, b"xx")],
            vec![[&[0x08, 1], &good()[..]].concat()],
            vec![good()[..6].to_vec()],
        ] {
            assert_eq!(told(&wrong), None, "{wrong:?}");
        }
        assert_eq!(answer(&[0x0d, 0, 0, 0, 0], PUT), None);
    }
}

//! Making a store of the chunks of a checkpoint. Nothing in them is believed.

use crate::store::mvcc::checkpoint::{self, CHUNK_HEADER_BYTES, Kind};
use crate::store::mvcc::lease::{Lease, Leases};
use crate::store::mvcc::record::Record;
use crate::store::mvcc::revision::{FIRST, NEVER_COMPACTED};
use crate::store::mvcc::sequence::Sequence;
use crate::store::mvcc::store::Store;
use crate::store::mvcc::tree::{Entry as _, Tree};
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;
use crate::store::mvcc::wire;

/// Longest body that is read: the largest request and a full chunk, many times over. It guards the
/// memory of who reads a damaged length.
pub const BODY_BYTES_MAX: usize = 256 << 20;

/// A checkpoint that cannot be used. It must be taken anew, from a log or another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A chunk is shorter or longer than it says.
    #[error("chunk {chunk} of the checkpoint is not as long as it says")]
    Length {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// A chunk is not what was written.
    #[error("chunk {chunk} of the checkpoint fails its checksum")]
    Checksum {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// Another program, or another version of this one, wrote it.
    #[error("the checkpoint has the format {found}, and this program reads format {format}",
        format = checkpoint::FORMAT)]
    Format {
        /// Its format.
        found: u32,
    },
    /// A chunk holds something that cannot be there.
    #[error("chunk {chunk} of the checkpoint is wrong: {what}")]
    Content {
        /// Which chunk, from 0.
        chunk: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Chunks are missing at the end.
    #[error("the checkpoint ends after chunk {chunks}, before its end")]
    Incomplete {
        /// How many chunks there were.
        chunks: usize,
    },
}

/// A store in the making.
#[derive(Debug, Default)]
pub struct Restore {
    chunks: usize,
    /// What the last chunk held.
    stage: Option<Kind>,
    view: View,
    leases: Vec<Lease>,
    records: Vec<Record>,
    events: Vec<Version>,
    versions: u64,
    scratch: Vec<u8>,
}

/// Returns how many bytes a chunk has that begins with this header.
pub fn chunk_bytes(header: [u8; CHUNK_HEADER_BYTES]) -> Option<usize> {
    let [_, a, b, c, d, ..] = header;
    let body = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    (body <= BODY_BYTES_MAX).then_some(CHUNK_HEADER_BYTES + body)
}

impl Restore {
    /// Takes the next chunk.
    pub fn chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        let length = RestoreError::Length { chunk: self.chunks };
        let header = *chunk.first_chunk::<CHUNK_HEADER_BYTES>().ok_or(length)?;
        if chunk_bytes(header) != Some(chunk.len()) {
            return Err(length);
        }
        let (head, body) = chunk.split_at(CHUNK_HEADER_BYTES);
        let (kind_and_length, crc) = head.split_at(CHUNK_HEADER_BYTES - 4);
        if checkpoint::checksum(kind_and_length, body).to_le_bytes() != crc {
            return Err(RestoreError::Checksum { chunk: self.chunks });
        }
        let kind = Kind::from_byte(head[0]).ok_or_else(|| self.wrong("its kind is unknown"))?;
        if !self.may_follow(kind) {
            return Err(self.wrong("it does not belong after the one before it"));
        }
        match kind {
            Kind::Head => self.take_head(body)?,
            Kind::Leases => self.take_leases(body)?,
            Kind::Keys => self.take_keys(body)?,
            Kind::End => self.take_end(body)?,
        }
        self.stage = Some(kind);
        self.chunks += 1;
        Ok(())
    }

    /// Makes the store of what was read.
    pub fn finish(mut self) -> Result<Store, RestoreError> {
        if self.stage != Some(Kind::End) {
            return Err(RestoreError::Incomplete { chunks: self.chunks });
        }
        self.events.sort_unstable_by_key(Version::revision);
        if self.events.windows(2).any(|pair| pair[0].revision() == pair[1].revision()) {
            return Err(self.wrong("two versions have one revision"));
        }
        let leases = self.attach()?;
        let mut view = self.view;
        view.leases = leases;
        view.keys = Tree::from_sorted(self.records);
        view.log = Sequence::from_vec(self.events);
        Ok(Store::from_view(view))
    }

    fn may_follow(&self, kind: Kind) -> bool {
        match self.stage {
            None => kind == Kind::Head,
            Some(stage) => {
                kind > stage || (kind == stage && matches!(kind, Kind::Leases | Kind::Keys))
            }
        }
    }

    fn wrong(&self, what: &'static str) -> RestoreError {
        RestoreError::Content { chunk: self.chunks, what }
    }

    fn take_head(&mut self, mut body: &[u8]) -> Result<(), RestoreError> {
        let magic = take(&mut body).ok_or_else(|| self.wrong("the head is too short"))?;
        if magic != *checkpoint::MAGIC {
            return Err(self.wrong("it is no checkpoint of keys"));
        }
        let found = take(&mut body).map(u32::from_le_bytes);
        let found = found.ok_or_else(|| self.wrong("the head is too short"))?;
        if found != checkpoint::FORMAT {
            return Err(RestoreError::Format { found });
        }
        let numbers = (take_number(&mut body), take_number(&mut body), body.is_empty());
        let (Some(revision), Some(compacted), true) = numbers else {
            return Err(self.wrong("the head is not as long as it should be"));
        };
        if revision < FIRST || compacted < NEVER_COMPACTED || compacted > revision {
            return Err(self.wrong("the revisions cannot be"));
        }
        self.view.revision = revision;
        self.view.compact_revision = compacted;
        Ok(())
    }

    fn take_leases(&mut self, mut body: &[u8]) -> Result<(), RestoreError> {
        while !body.is_empty() {
            let mut number = || take_number(&mut body);
            let (Some(id), Some(ttl), Some(remaining)) = (number(), number(), number()) else {
                return Err(self.wrong("a lease is cut off"));
            };
            if id == 0 || self.leases.last().is_some_and(|last| last.id >= id) {
                return Err(self.wrong("the leases are not in order"));
            }
            self.leases.push(Lease { id, ttl, remaining });
        }
        Ok(())
    }

    fn take_keys(&mut self, mut body: &[u8]) -> Result<(), RestoreError> {
        while !body.is_empty() {
            let sub = wire::take_varint(&mut body).and_then(|sub| u32::try_from(sub).ok());
            let len = wire::take_varint(&mut body).and_then(|len| usize::try_from(len).ok());
            let parts = len.and_then(|len| body.split_at_checked(len));
            let (Some(sub), Some((encoded, rest))) = (sub, parts) else {
                return Err(self.wrong("a version is cut off"));
            };
            body = rest;
            let version = Version::from_encoded(encoded, sub, &mut self.scratch);
            let version = version.ok_or_else(|| self.wrong("a version is not a KeyValue"))?;
            self.take_version(version)?;
        }
        Ok(())
    }

    fn take_version(&mut self, version: Version) -> Result<(), RestoreError> {
        let main = version.main();
        if main > self.view.revision {
            return Err(self.wrong("a version is newer than the store"));
        }
        if version.is_tombstone() && main < self.view.compact_revision {
            return Err(self.wrong("a tombstone is compacted already"));
        }
        let usage = &mut self.view.usage;
        usage.total_bytes += version.bytes();
        usage.live_bytes += if version.is_tombstone() { 0 } else { version.bytes() };
        self.versions += 1;
        match self.records.last_mut() {
            Some(record) if record.key() == version.key() => {
                if record.head().revision() >= version.revision() {
                    return Err(self.wrong("the versions of a key are not in order"));
                }
                self.view.usage.live_bytes -= record.live().map_or(0, Version::bytes);
                record.push(version.clone());
            }
            Some(record) if record.key() > version.key() => {
                return Err(self.wrong("the keys are not in order"));
            }
            _ => self.records.push(Record::new(version.clone())),
        }
        if main >= self.view.compact_revision {
            self.events.push(version);
        }
        Ok(())
    }

    fn take_end(&self, mut body: &[u8]) -> Result<(), RestoreError> {
        let leases = take(&mut body).map(u64::from_le_bytes);
        let versions = take(&mut body).map(u64::from_le_bytes);
        let counts = (Some(self.leases.len() as u64), Some(self.versions));
        if (leases, versions) != counts || !body.is_empty() {
            return Err(self.wrong("there are not as many leases and versions as were written"));
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<Leases, RestoreError> {
        let live = self.records.iter().filter_map(Record::live);
        let attached: Vec<(i64, &[u8])> = live
            .map(|version| (version.fields().lease, version.key()))
            .filter(|(lease, _)| *lease != 0)
            .collect();
        let known = |id| self.leases.binary_search_by_key(&id, |lease| lease.id).is_ok();
        if attached.iter().any(|(id, _)| !known(*id)) {
            return Err(self.wrong("a key is attached to a lease that is not there"));
        }
        Ok(Leases::from_parts(&self.leases, attached))
    }
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*taken)
}

fn take_number(body: &mut &[u8]) -> Option<i64> {
    take(body).map(i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mvcc::checkpoint::Checkpoint;
    use crate::store::mvcc::txn::{Op, Put};

    fn chunks() -> Vec<Vec<u8>> {
        let mut store = Store::default();
        store.lease_grant(-5, 10).unwrap();
        store.lease_grant(7, 10).unwrap();
        for number in 0..500_u32 {
            let key = number.to_be_bytes();
            let lease = if number % 2 == 0 { 7 } else { 0 };
            let put = Put { key: &key, value: &[1; 300], lease, ..Put::default() };
            store.op(&Op::Put(put)).unwrap();
        }
        Checkpoint::new(store.view()).collect()
    }

    fn restore(chunks: &[Vec<u8>]) -> Result<Store, RestoreError> {
        let mut restore = Restore::default();
        chunks.iter().try_for_each(|chunk| restore.chunk(chunk))?;
        restore.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let chunks = chunks();
        assert!(chunks.len() > 5, "{} chunks", chunks.len());
        let view = restore(&chunks).unwrap().view();
        assert_eq!(view.revision(), 501);
        assert_eq!(view.keys_count(), 500);
        assert_eq!(view.lease_keys(7).count(), 250);
        assert_eq!(view.leases().map(|lease| lease.id).collect::<Vec<_>>(), [-5, 7]);
        assert_eq!(Checkpoint::new(view).collect::<Vec<_>>(), chunks);
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let chunks = chunks();
        for (at, chunk) in chunks.iter().enumerate() {
            for byte in (0..chunk.len()).step_by(if chunk.len() > 1000 { 997 } else { 1 }) {
                let mut damaged = chunks.clone();
                damaged[at][byte] ^= 0x10;
                let error = restore(&damaged).unwrap_err();
                let expected =
                    [RestoreError::Checksum { chunk: at }, RestoreError::Length { chunk: at }];
                assert!(expected.contains(&error), "{error}");
            }
        }
    }

    #[test]
    fn a_chunk_that_is_missing_or_comes_twice_is_found() {
        let chunks = chunks();
        for at in 0..chunks.len() {
            let mut without = chunks.clone();
            without.remove(at);
            assert!(restore(&without).is_err(), "without {at}");
            let mut twice = chunks.clone();
            twice.insert(at, chunks[at].clone());
            assert!(restore(&twice).is_err(), "twice {at}");
        }
        let cut = restore(&chunks[..3]).unwrap_err();
        assert_eq!(cut, RestoreError::Incomplete { chunks: 3 });
        let short = restore(&[chunks[0][..20].to_vec()]).unwrap_err();
        assert_eq!(short, RestoreError::Length { chunk: 0 });
    }
}

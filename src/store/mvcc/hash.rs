//! The hash over the keys that members compare: etcd's `HashKV`, byte for byte.
//!
//! CRC-32C over `key`, then for each version in the order of revisions: its revision as
//! `main _ sub` (8 bytes each, big-endian), a `t` if it is a tombstone, and its `KeyValue`.
//! Versions that a compaction has dropped or will drop are left out, so that it does not matter how
//! far a member has come with it.

use crate::store::mvcc::error::MvccError;
use crate::store::mvcc::record::Record;
use crate::store::mvcc::revision::Revision;
use crate::store::mvcc::version::Version;
use crate::store::mvcc::view::View;

/// The name of etcd's bucket for keys, which the hash begins with.
const BUCKET: &[u8] = b"key";

/// What stands after the revision of a tombstone.
const TOMBSTONE_MARK: &[u8] = b"t";

/// A hash over the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysHash {
    /// The hash.
    pub hash: u32,
    /// Up to which revision.
    pub hash_revision: i64,
    /// The revision of the last compaction then.
    pub compact_revision: i64,
}

impl View {
    /// Hashes the keys up to a revision, 0 for the newest.
    pub fn hash_keys(&self, revision: i64) -> Result<KeysHash, MvccError> {
        self.readable(revision)?;
        let revision = if revision <= 0 { self.revision } else { revision };
        let compacted = self.compact_revision;
        let any_seen = self.keys.iter().any(|record| record.live_at(revision).is_some());
        let mut versions: Vec<(Revision, &Version)> = Vec::new();
        for record in self.keys.iter() {
            let kept = kept(record, compacted, revision, any_seen);
            let later = record.versions().filter(|version| version.main() > compacted);
            let later = later.take_while(|version| version.main() <= revision);
            versions
                .extend(kept.into_iter().chain(later).map(|version| (version.revision(), version)));
        }
        versions.sort_unstable_by_key(|(revision, _)| *revision);
        let hash = versions.iter().fold(crc32c::crc32c(BUCKET), append);
        Ok(KeysHash { hash, hash_revision: revision, compact_revision: compacted })
    }
}

/// Returns the version from before the compaction that counts: the one that readers at `revision`
/// see. Where they see nothing of any key, etcd leaves out none that the compaction has kept.
fn kept(record: &Record, compacted: i64, revision: i64, any_seen: bool) -> Option<&Version> {
    let version = record.live_at(compacted)?;
    let seen = || record.at(revision).is_some_and(|seen| seen.main() == version.main());
    (!any_seen || seen()).then_some(version)
}

fn append(crc: u32, (revision, version): &(Revision, &Version)) -> u32 {
    let crc = crc32c::crc32c_append(crc, &revision.to_bytes());
    if version.is_tombstone() {
        let crc = crc32c::crc32c_append(crc, TOMBSTONE_MARK);
        return crc32c::crc32c_append(crc, version.encoded_key());
    }
    crc32c::crc32c_append(crc, version.encoded())
}

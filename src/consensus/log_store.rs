//! The log, the vote and the committed position: records in [`crate::store::wal`], and their image
//! in memory.
//!
//! **Not here:** who writes and syncs; that is [`super::log_writer`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::consensus::figures::Figures;
use crate::consensus::grown::Grown;
use crate::consensus::log_writer::{JOBS_MAX, Job, Waiting, Writer, WriterKind};
use crate::consensus::mistakes::{Mistake, Mistakes};
use crate::consensus::types::{Entry, LogId, TypeConfig, Vote};
use crate::foundation::tasks::Tasks;
use crate::platform::disk::Disk;
use crate::store::wal::{self, Sizes, Wal, WalError};

/// Entries behind the last one that are kept ready to be read; older ones are decoded when asked for.
const READY: u64 = 64;

/// A record, with its entry as `E`: whole, or as [`Kept`].
///
/// The bytes of a record with an [`Entry`] begin with those of the same record with its [`LogId`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record<E = Entry> {
    Vote(Vote),
    Entry(E),
    /// Entries after this one are gone.
    Truncate(Option<LogId>),
    /// Entries up to this one are in a checkpoint.
    Purge(LogId),
    Committed(Option<LogId>),
    /// What older segments said, at the beginning of a new one.
    State(State),
}

/// What must outlive the segments that said it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl<E> Record<E> {
    fn with<T>(self, entry: impl FnOnce(E) -> T) -> Record<T> {
        match self {
            Self::Vote(vote) => Record::Vote(vote),
            Self::Entry(kept) => Record::Entry(entry(kept)),
            Self::Truncate(last) => Record::Truncate(last),
            Self::Purge(upto) => Record::Purge(upto),
            Self::Committed(committed) => Record::Committed(committed),
            Self::State(state) => Record::State(state),
        }
    }
}

/// An entry as the log has it in memory.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its place.
    pub id: LogId,
    /// The bytes of its record.
    pub body: Bytes,
    /// Itself, while it is one of the last.
    ready: Option<Entry>,
}

impl Kept {
    /// Returns it decoded. What was written always decodes; an error is a bug.
    pub fn entry(self) -> io::Result<Entry> {
        if let Some(entry) = self.ready {
            return Ok(entry);
        }
        let record = postcard::from_bytes(&self.body).map_err(io::Error::other)?;
        let Record::Entry(entry) = record else {
            return Err(io::Error::other("what was kept as an entry is another record"));
        };
        Ok(entry)
    }
}

/// The image of the log in memory; entries are readable here before they are synced.
#[derive(Debug, Default)]
pub struct View {
    /// Entries by their index.
    pub entries: BTreeMap<u64, Kept>,
    /// Counts the changes of `entries`.
    pub version: u64,
    state: State,
    /// Whether what is agreed on is to be written with what is written next.
    unmarked: bool,
}

impl View {
    fn apply(&mut self, record: Record<Kept>) {
        match record {
            Record::Vote(vote) => self.state.vote = Some(vote),
            Record::Entry(kept) => {
                let index = kept.id.index;
                self.entries.insert(index, kept);
                let old = index.checked_sub(READY).and_then(|old| self.entries.get_mut(&old));
                if let Some(old) = old {
                    old.ready = None;
                }
            }
            Record::Truncate(last) => {
                self.entries.split_off(&last.map_or(0, |id| id.index + 1));
            }
            Record::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.state.purged = Some(upto);
            }
            Record::Committed(committed) => self.state.committed = committed,
            Record::State(state) => self.state = state,
        }
        self.version += 1;
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, kept)| kept.id).or(self.state.purged)
    }
}

/// Returns the bytes of a record, in memory that has no room for more: they are kept for long.
pub(super) fn encode(record: &Record) -> Bytes {
    let bytes = postcard::to_stdvec(record).expect("plain data always encodes");
    Bytes::from(bytes.into_boxed_slice())
}

/// Reads a record, but of an entry only its place.
fn head(body: &[u8]) -> Result<Record<LogId>, postcard::Error> {
    postcard::take_from_bytes(body).map(|(head, _)| head)
}

/// Tells which log index a record's bytes carry.
fn index_of(body: &[u8]) -> Option<u64> {
    match head(body) {
        Ok(Record::Entry(id)) => Some(id.index),
        _ => None,
    }
}

/// How to open a log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Where the writer runs.
    pub writer: WriterKind,
    /// How large segments are.
    pub sizes: Sizes,
    /// The mistake to make, if any.
    pub mistakes: Mistakes,
    /// After how many bytes of records it has grown.
    pub grown_bytes: u64,
    /// The index up to which a checkpoint has the entries.
    pub covered: u64,
}

/// The log store; clones share the same log.
#[derive(Debug, Clone)]
pub struct LogStore {
    view: Arc<Mutex<View>>,
    jobs: mpsc::Sender<Job>,
    mistakes: Mistakes,
    grown: Arc<Grown>,
}

impl LogStore {
    /// Recovers the log in `folder` and starts its writer, which ends with the last clone.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: LogOptions,
        figures: Arc<Figures>,
        tasks: &Tasks,
    ) -> Result<Self, WalError> {
        let keep_torn_tail = options.mistakes.makes(Mistake::KeepTornTail);
        let wal_options = wal::Options { sizes: options.sizes, keep_torn_tail };
        let (mut wal, bodies) = Wal::open(disk.clone(), folder, wal_options, index_of)?;
        let mut view = View::default();
        // What the newest checkpoint does not cover counts towards the next one.
        let mut bytes = 0;
        for body in bodies {
            let record = head(&body).map_err(|source| WalError::Disk {
                what: "understand a record of",
                path: folder.to_owned(),
                source: io::Error::other(source),
            })?;
            if let Record::Entry(id) = &record
                && id.index > options.covered
            {
                bytes += body.len() as u64;
            }
            view.apply(record.with(|id| Kept { id, body, ready: None }));
        }
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let state = view.state.clone();
        // Recovery may go on in a new segment whose first record a crash took: without the state
        // there, the vote would go with the older segments.
        let first = wal::Record { body: encode(&Record::State(state.clone())), last_index: None };
        wal.write(std::slice::from_ref(&first), &first.body)?;
        wal.sync()?;
        let mistakes = options.mistakes;
        let writer = Writer { wal, disk, state, mistakes, figures, jobs: queue };
        writer.start(options.writer, tasks).map_err(|source| WalError::Disk {
            what: "start the writer of",
            path: folder.to_owned(),
            source,
        })?;
        let view = Arc::new(Mutex::new(view));
        let grown = Grown::new(options.grown_bytes);
        grown.by(bytes);
        Ok(Self { view, jobs, mistakes: options.mistakes, grown: Arc::new(grown) })
    }

    /// Returns the image in memory, locked.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the index of the last entry, if there is any.
    pub fn last_index(&self) -> Option<u64> {
        self.view().last().map(|id| id.index)
    }

    /// Returns once the records that no checkpoint covers take as many bytes as the options say, or
    /// some and nothing was written for half a second: those recovered and those written since the last
    /// [`LogStore::reset_bytes_written`]. Some are an eighth, but not less than a quarter of the `whole`
    /// bytes that each checkpoint writes, however little has changed.
    pub async fn has_grown(&self, whole: u64) {
        self.grown.weigh(whole);
        self.grown.enough().await;
    }

    /// Returns the last index behind which the entries take at least `bytes`; 0 if none is.
    pub fn index_before_last(&self, bytes: usize) -> u64 {
        let view = self.view();
        let mut passed = 0;
        let reached = view.entries.iter().rev().find(|(_, kept)| {
            passed += kept.body.len();
            passed >= bytes
        });
        reached.map_or(0, |(index, _)| index.saturating_sub(1))
    }

    /// Returns once nothing more is written, since that failed.
    pub async fn stopped(&self) {
        self.jobs.closed().await;
    }

    /// Starts to count bytes anew.
    pub fn reset_bytes_written(&self) {
        self.grown.reset();
    }

    /// Waits until all that was given to the log before this call is safe.
    pub async fn settle(&self) -> io::Result<()> {
        self.write(Vec::new()).await
    }

    /// Writes records, and waits until they are safe.
    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.submit(records, Waiting::Caller(done)).await?;
        wait.await.map_err(io::Error::other)?
    }

    async fn submit(&self, records: Vec<Record>, waiting: Waiting) -> io::Result<()> {
        // The place in the queue is taken first, so that the image and the queue keep one order.
        let stopped = |_| io::Error::other("the log's writer has stopped");
        let place = self.jobs.reserve().await.map_err(stopped)?;
        let encoded = records.iter().map(|record| {
            let last_index =
                if let Record::Entry(entry) = record { Some(entry.index()) } else { None };
            wal::Record { body: encode(record), last_index }
        });
        let mut encoded: Vec<_> = encoded.collect();
        let bytes = encoded.iter().map(|record| record.body.len() as u64).sum();
        self.grown.by(bytes);
        let purged = |record: &Record| {
            if let Record::Purge(upto) = record { Some(upto.index) } else { None }
        };
        let purge = records.iter().find_map(purged);
        let mut view = self.view();
        for (record, wal::Record { body, .. }) in records.into_iter().zip(&encoded) {
            let kept =
                |entry: Entry| Kept { id: entry.log_id(), body: body.clone(), ready: Some(entry) };
            view.apply(record.with(kept));
        }
        if std::mem::take(&mut view.unmarked) {
            let mark = encode(&Record::Committed(view.state.committed));
            // In front: a segment that begins behind a record repeats what was said before this job,
            // and must not take that record back.
            encoded.insert(0, wal::Record { body: mark, last_index: None });
        }
        place.send(Job { records: encoded, state: view.state.clone(), purge, waiting });
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // A range that is empty the wrong way round would panic in the map.
        let start = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index + 1,
            Bound::Unbounded => 0,
        };
        let wanted: Vec<_> = {
            let view = self.view();
            let wanted = view.entries.range(start..).take_while(|(index, _)| range.contains(index));
            wanted.map(|(_, kept)| kept.clone()).collect()
        };
        wanted.into_iter().map(Kept::entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.view().state.vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let view = self.view();
        Ok(LogState { last_purged_log_id: view.state.purged, last_log_id: view.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if self.mistakes.makes(Mistake::ForgetVote) {
            self.view().state.vote = Some(*vote);
            return Ok(());
        }
        self.write(vec![Record::Vote(*vote)]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Written with the next entries, or when the member stops. Who lost it learns it again from
        // the leader, or alone has all of its log agreed on: it only spares a restart that wait.
        let mut view = self.view();
        view.apply(Record::Committed(committed));
        view.unmarked = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // Never ahead of the log: its record is behind those of the entries it speaks of, and
        // recovery stops at the first record that was lost. It must not be lowered to the last
        // entry "to be safe": what is there may be a leftover that was never committed.
        Ok(self.view().state.committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(Record::Entry).collect();
        self.submit(records, Waiting::Raft(flushed)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.submit(vec![Record::Truncate(last)], Waiting::Nobody).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.submit(vec![Record::Purge(upto)], Waiting::Nobody).await?;
        tracing::info!(upto = upto.index, "log shortened: a checkpoint has what it said");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::clock::Timestamp;
    use crate::foundation::random::Random;
    use crate::platform::disk::MemoryDisk;
    use crate::store::Batch;

    const SIZES: Sizes = Sizes { first_bytes: 512, segment_bytes: 512 };

    fn open(disk: &MemoryDisk) -> (LogStore, Tasks) {
        let tasks = Tasks::default();
        let options = LogOptions {
            writer: WriterKind::Task,
            sizes: SIZES,
            mistakes: Mistakes::default(),
            covered: 0,
            grown_bytes: u64::MAX,
        };
        let (disk, figures) = (Arc::new(disk.clone()), Arc::new(Figures::new(Timestamp::EPOCH)));
        let store = LogStore::open(disk, Path::new("/wal"), options, figures, &tasks);
        (store.unwrap(), tasks)
    }

    fn id(index: u64) -> LogId {
        LogId::new(openraft::type_config::alias::CommittedLeaderIdOf::<TypeConfig>::new(1), index)
    }

    fn entry(index: u64) -> Record {
        Record::Entry(Entry::new_blank(id(index)))
    }

    #[test]
    fn the_head_of_an_entry_is_read_without_the_rest() {
        let body = encode(&entry(70_000));
        assert!(matches!(head(&body), Ok(Record::Entry(found)) if found == id(70_000)));
        assert_eq!(index_of(&body), Some(70_000));
        assert_eq!(index_of(&encode(&Record::Truncate(Some(id(3))))), None);
        assert!(head(&body[..2]).is_err(), "half a place is none");
    }

    #[tokio::test(start_paused = true)]
    async fn entries_read_the_same_when_they_are_new_when_they_are_old_and_after_a_restart() {
        let disk = MemoryDisk::new(Random::seeded(1), 0);
        let (mut store, tasks) = open(&disk);
        let last = READY * 2;
        let made = |index| Entry::new_normal(id(index), Batch::default());
        for index in 1..=last {
            store.write(vec![Record::Entry(made(index))]).await.unwrap();
        }
        assert!(store.view().entries[&last].ready.is_some());
        assert!(store.view().entries[&1].ready.is_none());
        let wanted: Vec<_> = (1..=last).map(made).collect();
        assert_eq!(store.try_get_log_entries(1..=last).await.unwrap(), wanted);
        drop((store, tasks));
        let (mut store, _tasks) = open(&disk);
        assert_eq!(store.try_get_log_entries(1..=last).await.unwrap(), wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_until_the_log_settles_finds_in_it_after_a_crash_what_was_given_to_it() {
        for seed in 0..20 {
            let disk = MemoryDisk::new(Random::seeded(seed), 50);
            let (store, tasks) = open(&disk);
            for index in 1..=5 {
                store.submit(vec![entry(index)], Waiting::Nobody).await.unwrap();
            }
            store.settle().await.unwrap();
            disk.crash();
            drop((store, tasks));
            let (store, _tasks) = open(&disk);
            assert_eq!(store.view().last(), Some(id(5)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_stays_gone_wherever_a_segment_ends() {
        for count in 2..60 {
            let disk = MemoryDisk::new(Random::seeded(count), 0);
            let (mut store, _tasks) = open(&disk);
            for index in 1..=count {
                store.write(vec![entry(index)]).await.unwrap();
            }
            store.save_committed(Some(id(count))).await.unwrap();
            store.purge(id(count - 1)).await.unwrap();
            store.settle().await.unwrap();
            drop(store);
            let (mut store, _tasks) = open(&disk);
            let found = store.get_log_state().await.unwrap().last_purged_log_id;
            assert_eq!(found, Some(id(count - 1)), "of {count} entries");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_entries_are_found_by_what_they_take() {
        let disk = MemoryDisk::new(Random::seeded(1), 0);
        let (store, _tasks) = open(&disk);
        assert_eq!(store.index_before_last(1), 0, "nothing is there");
        for index in 1..=9 {
            store.write(vec![entry(index)]).await.unwrap();
        }
        let one = store.view().entries[&1].body.len();
        assert_eq!(store.index_before_last(one), 8);
        assert_eq!(store.index_before_last(one + 1), 7);
        assert_eq!(store.index_before_last(one * 9), 0);
        assert_eq!(store.index_before_last(one * 100), 0, "there is less");
    }

    #[tokio::test(start_paused = true)]
    async fn a_vote_outlives_its_segment_wherever_the_disk_stopped() {
        for room in 0..1_500 {
            // With none, the segment in which recovery goes on stays the last one.
            for more in [0, 60] {
                let disk = MemoryDisk::new(Random::seeded(room), 0);
                let (store, _tasks) = open(&disk);
                let vote = Vote::new(7, 1);
                store.write(vec![Record::Vote(vote)]).await.unwrap();
                disk.set_room(room);
                let mut index = 1;
                while index < 60 && store.write(vec![entry(index)]).await.is_ok() {
                    index += 1;
                }
                disk.set_room(u64::MAX);
                drop(store);
                let (store, _tasks) = open(&disk);
                for index in index..index + more {
                    store.write(vec![entry(index)]).await.unwrap();
                }
                store.write(vec![Record::Purge(id(index + more))]).await.unwrap();
                drop(store);
                let (mut store, _tasks) = open(&disk);
                let found = store.read_vote().await.unwrap();
                assert_eq!(found, Some(vote), "with room for {room} bytes, then {more} entries");
            }
        }
    }
}

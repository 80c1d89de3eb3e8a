//! What the log promises, on a disk that loses power.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::foundation::random::Random;
use crate::platform::disk::{Disk as _, DiskError, MemoryDisk};
use crate::store::wal::{Options, Record, Sizes, SpareMaker, Wal, WalError, frame};

const FOLDER: &str = "/member/wal";
const SMALL: Sizes = Sizes { first_bytes: 512, segment_bytes: 1024 };

fn disk(seed: u64) -> Arc<MemoryDisk> {
    Arc::new(MemoryDisk::new(Random::seeded(seed), 0))
}

fn open(disk: &Arc<MemoryDisk>) -> Result<(Wal, Vec<String>), WalError> {
    let options = Options { sizes: SMALL, keep_torn_tail: false };
    let (wal, bodies) = Wal::open(disk.clone(), Path::new(FOLDER), options, index)?;
    let words = bodies.into_iter().map(|body| String::from_utf8(body.into()).unwrap());
    Ok((wal, words.filter(|word| word != "state").collect()))
}

/// `7:xxx` carries index 7.
fn index(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.split_once(':')?.0.parse().ok()
}

fn write(wal: &mut Wal, words: &[String]) {
    let record =
        |word: &String| Record { body: word.clone().into(), last_index: index(word.as_bytes()) };
    wal.write(&words.iter().map(record).collect::<Vec<_>>(), b"state").unwrap();
}

fn words(range: std::ops::Range<u64>) -> Vec<String> {
    range
        .map(|index| format!("{index}:{}", "x".repeat(usize::try_from(index * 7 % 90).unwrap())))
        .collect()
}

#[test]
fn what_another_life_of_a_file_left_is_not_read_over_and_over() {
    let (old, number) = (7, 8);
    let mut image = frame::header_bytes(number);
    frame::write(&mut image, number, frame::HEADER_BYTES, frame::HEADER_BYTES, b"new");
    let end = image.len() as u64;
    // Each other eight bytes of it look like the length of a megabyte.
    let body = [&(1_u32 << 20).to_le_bytes()[..], b"valuevaluexx"].concat().repeat(1 << 18);
    frame::write(&mut image, old, end, frame::HEADER_BYTES, &body);
    let mut found = Vec::new();
    let scanned = frame::scan(&image, number, |body| found.push(body.to_vec()));
    assert_eq!(scanned, frame::Scan { end, closed: false, damaged: false });
    assert_eq!(found, [b"new"]);
}

/// Writes words until a spare is needed; returns what makes it, and how many words there are.
fn until_a_spare_is_needed(wal: &mut Wal) -> (SpareMaker, u64) {
    let mut count = 0;
    loop {
        write(wal, &words(count..count + 1));
        count += 1;
        if let Some(maker) = wal.needs_spare() {
            return (maker, count);
        }
    }
}

#[test]
fn a_spare_segment_is_made_ahead_and_used() {
    let disk = disk(1);
    let (mut wal, _) = open(&disk).unwrap();
    assert!(wal.needs_spare().is_none(), "there is time");
    let (maker, mut next) = until_a_spare_is_needed(&mut wal);
    let spare = maker.make().unwrap();
    wal.add_spare(spare.clone());
    assert!(wal.needs_spare().is_none(), "there is one");
    let segments = wal.segments();
    while wal.segments() == segments {
        write(&mut wal, &words(next..next + 1));
        next += 1;
    }
    wal.sync().unwrap();
    assert!(!disk.list(Path::new(FOLDER)).unwrap().contains(&spare), "it is a segment now");
    drop(wal);
    let (_wal, found) = open(&disk).unwrap();
    assert_eq!(found, words(0..next));
}

#[test]
fn a_spare_segment_that_was_not_finished_leaves_nothing_and_takes_no_room() {
    for operations in 0..8 {
        for crashed in [false, true] {
            let disk = disk(operations);
            let (mut wal, _) = open(&disk).unwrap();
            let (maker, next) = until_a_spare_is_needed(&mut wal);
            wal.sync().unwrap();
            disk.fail_after(operations, DiskError::Full);
            let made = maker.make().is_ok();
            disk.heal();
            drop(wal);
            if crashed {
                disk.crash();
            }
            let (_wal, found) = open(&disk).unwrap();
            assert_eq!(found, words(0..next), "{operations} operations, crashed: {crashed}");
            let names = disk.list(Path::new(FOLDER)).unwrap();
            assert!(names.iter().all(|name| !name.ends_with("spare.tmp")), "{names:?}");
            let spares = names.iter().filter(|name| name.to_string_lossy().contains("spare-made"));
            assert!(crashed || spares.count() == usize::from(made), "{names:?}");
        }
    }
}

#[test]
fn what_was_written_is_read_back_over_many_segments() {
    let disk = disk(1);
    let (mut wal, found) = open(&disk).unwrap();
    assert_eq!(found, [""; 0]);
    for start in (0..60).step_by(6) {
        write(&mut wal, &words(start..start + 6));
        wal.sync().unwrap();
    }
    assert!(wal.segments() > 3);
    drop(wal);
    let (mut wal, found) = open(&disk).unwrap();
    assert_eq!(found, words(0..60));
    wal.drop_upto(40).unwrap();
    write(&mut wal, &words(60..61));
    wal.sync().unwrap();
    drop(wal);
    let (wal, found) = open(&disk).unwrap();
    let expected = words(0..61);
    assert!(expected.ends_with(&found) && found.len() < 40 && found.len() >= 20, "{found:?}");
    assert!(wal.segments() < 8);
}

#[test]
fn a_damaged_record_that_was_safe_is_never_passed_over() {
    // The last record has none behind it that could tell that it was safe.
    for offset in [30, 60, 150] {
        let disk = disk(1);
        let (mut wal, _) = open(&disk).unwrap();
        for start in 0..6 {
            write(&mut wal, &words(start..start + 1));
            wal.sync().unwrap();
        }
        drop(wal);
        let file = disk.open(&Path::new(FOLDER).join("0000000000000001.wal")).unwrap();
        let mut byte = [0];
        file.read_at(offset, &mut byte).unwrap();
        file.write_at(offset, &[byte[0] ^ 1]).unwrap();
        let refused = open(&disk).unwrap_err();
        assert!(matches!(refused, WalError::Corrupt { .. }), "byte {offset}: {refused}");
    }
}

#[test]
fn another_format_is_refused_by_its_number() {
    let disk = disk(1);
    drop(open(&disk).unwrap());
    let file = disk.open(&Path::new(FOLDER).join("0000000000000001.wal")).unwrap();
    let mut header = b"CBXWAL\r\n".to_vec();
    header.extend_from_slice(&9_u32.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&9_u32.to_le_bytes()), &1_u64.to_le_bytes());
    header.extend_from_slice(&crc.to_le_bytes());
    header.extend_from_slice(&1_u64.to_le_bytes());
    file.write_at(0, &header).unwrap();
    let refused = open(&disk).unwrap_err().to_string();
    assert!(refused.contains("has format version 9"), "{refused}");
}

#[test]
fn a_missing_segment_is_named() {
    let disk = disk(1);
    let (mut wal, _) = open(&disk).unwrap();
    for start in (0..60).step_by(6) {
        write(&mut wal, &words(start..start + 6));
        wal.sync().unwrap();
    }
    drop(wal);
    disk.remove(&Path::new(FOLDER).join("0000000000000003.wal")).unwrap();
    assert!(matches!(open(&disk).unwrap_err(), WalError::Gap { missing: 3, .. }));
}

#[test]
fn a_full_disk_is_an_error_and_what_was_safe_stays() {
    let disk = disk(1);
    let (mut wal, _) = open(&disk).unwrap();
    write(&mut wal, &words(0..3));
    wal.sync().unwrap();
    disk.set_room(10);
    let record = Record { body: vec![b'y'; 100].into(), last_index: None };
    let full = wal.write(&[record], b"state").unwrap_err();
    assert_eq!(full.to_string(), "cannot write the log at `/member/wal/0000000000000001.wal`");
    disk.set_room(u64::MAX);
    drop(wal);
    assert_eq!(open(&disk).unwrap().1, words(0..3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_crash_loses_nothing_that_was_synced_and_leaves_no_hole(
        seed in any::<u64>(),
        groups in proptest::collection::vec((1_u64..5, any::<bool>()), 1..30),
        lives in 1_usize..4,
    ) {
        let disk = disk(seed);
        let mut safe = Vec::new();
        for _ in 0..lives {
            let (mut wal, found) = open(&disk).unwrap();
            prop_assert!(found.starts_with(&safe), "{safe:?} is not the start of {found:?}");
            let mut all = found;
            let expected = words(0..all.len() as u64);
            prop_assert_eq!(&all, &expected);
            for (count, sync) in &groups {
                let next = words(all.len() as u64..all.len() as u64 + count);
                write(&mut wal, &next);
                all.extend(next);
                if *sync {
                    wal.sync().unwrap();
                    safe.clone_from(&all);
                }
            }
            drop(wal);
            disk.crash();
        }
    }
}

#[test]
fn what_was_found_after_the_disk_failed_outlives_the_next_crash() {
    for (seed, operations) in (0..4).flat_map(|seed| (0..60).map(move |count| (seed, count))) {
        let disk = disk(seed);
        let (mut wal, _) = open(&disk).unwrap();
        write(&mut wal, &words(0..3));
        wal.sync().unwrap();
        disk.fail_after(operations, DiskError::Broken);
        let mut refused = false;
        for word in words(3..90) {
            let record = Record { last_index: index(word.as_bytes()), body: word.into() };
            let written = wal.write(&[record], b"state");
            refused = written.and_then(|()| wal.sync()).is_err();
            if refused {
                break;
            }
        }
        assert!(refused);
        drop(wal);
        disk.heal();
        let (wal, found) = open(&disk).unwrap();
        drop(wal);
        disk.crash();
        let (_wal, left) = open(&disk).unwrap();
        assert_eq!(left, found, "seed {seed}, {operations} operations");
    }
}

#[test]
fn values_that_look_like_heads_of_long_records_do_not_keep_a_torn_log_from_being_read() {
    for length in [9 << 10, (16_u64 << 20) + 5] {
        // So far behind that what was safe may be where the lengths say.
        let mut image = frame::header_bytes(1);
        let first = vec![b'x'; usize::try_from(length).unwrap()];
        frame::write(&mut image, 1, frame::HEADER_BYTES, frame::HEADER_BYTES, &first);
        let end = image.len() as u64;
        // Each eight of its first bytes are a length, and where something would have been safe.
        let mut body = length.to_le_bytes().repeat(1 << 15);
        body.resize(body.len() + first.len() + 1, 0);
        frame::write(&mut image, 1, end, frame::HEADER_BYTES, &body);
        let last = usize::try_from(end).unwrap() + frame::HEAD_BYTES + body.len() - 1;
        image[last] = 1;
        let tail = image.len() as u64;
        let scanned = frame::scan(&image, 1, |_| ());
        assert_eq!(scanned, frame::Scan { end, closed: false, damaged: false });
        // A long record that was written when the torn one was safe is found behind all of them.
        frame::write(&mut image, 1, tail, tail, &body);
        assert!(frame::scan(&image, 1, |_| ()).damaged);
        image[last + usize::try_from(tail - end).unwrap()] = 1;
        assert!(!frame::scan(&image, 1, |_| ()).damaged, "nor is that one whole");
    }
}

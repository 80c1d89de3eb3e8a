//! Checkpoints on a disk that loses, tears and refuses.

use std::path::Path;

use super::manifest::{HEADER_BYTES, framed};
use super::*;
use crate::foundation::random::Random;
use crate::platform::disk::{DiskError, MemoryDisk};
use crate::store::keys_v3::Change;
use crate::store::mvcc::saved::{Saved, Sizes};
use crate::store::{Batch, Command};
use crate::wire::etcd::v3::etcdserverpb::request_op::Request;
use crate::wire::etcd::v3::etcdserverpb::{PutRequest, RequestOp};

const FOLDER: &str = "/member/checkpoint";

/// So small that a few puts make several blocks and parts.
const SIZES: Sizes = Sizes { block_bytes: 100, part_bytes: 2_000, part_versions: 40, enough: 1 };

fn folder() -> &'static Path {
    Path::new(FOLDER)
}

fn apply(checkpoint: &mut Checkpoint, change: Change) {
    let commands = vec![Command::V3(change)];
    checkpoint.machine.apply(&Batch { commands: commands.into(), ..Batch::default() });
}

/// Goes on with puts of this round.
fn put_some(checkpoint: &mut Checkpoint, round: u8) {
    checkpoint.position = vec![round];
    for number in 0..30 {
        let (key, value) = (vec![number % (round + 7)], vec![round; 40]);
        let put = PutRequest { key, value, ..PutRequest::default() };
        apply(checkpoint, Change::Op(RequestOp { request: Some(Request::RequestPut(put)) }));
    }
}

fn saving(checkpoint: &Checkpoint, index: u64) -> Saving {
    Saving::with_sizes(folder(), path_of(folder(), index), checkpoint.clone(), SIZES)
}

/// Saves a checkpoint, which from then on refers to what is saved.
fn save(disk: &MemoryDisk, checkpoint: &mut Checkpoint, index: u64) -> Result<(), CheckpointError> {
    let mut saving = saving(checkpoint, index);
    while saving.step(disk, &[])? == Step::More {}
    let keys = &mut checkpoint.machine.keys_v3;
    keys.adopt(saving.finish().saved().clone());
    while keys.settle_step(7) {}
    Ok(())
}

fn read(disk: &MemoryDisk) -> Checkpoint {
    open(disk, folder()).unwrap().expect("there is always one").0
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list(folder()).unwrap();
    names.iter().map(|name| name.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_or_the_new_checkpoint_whole() {
    for (seed, steps) in (0..40).flat_map(|seed| (0..9).map(move |steps| (seed, steps))) {
        let disk = MemoryDisk::new(Random::seeded(seed), 0);
        let mut checkpoint = Checkpoint::default();
        put_some(&mut checkpoint, 1);
        save(&disk, &mut checkpoint, 1).unwrap();
        let old = checkpoint.clone();
        put_some(&mut checkpoint, 2);
        let mut saving = saving(&checkpoint, 2);
        let mut done = Step::More;
        for _ in 0..steps {
            if done == Step::More {
                done = saving.step(&disk, &[]).unwrap();
            }
        }
        disk.crash();
        let expected = if done == Step::Done { &checkpoint } else { &old };
        let found = read(&disk);
        assert_eq!(&found, expected, "seed {seed}, {steps} steps");
        // And it goes on from there.
        let mut found = found;
        put_some(&mut found, 3);
        save(&disk, &mut found, 3).unwrap();
        assert_eq!(read(&disk), found, "seed {seed}, {steps} steps");
    }
}

#[test]
fn what_was_read_is_there_after_a_crash_however_saving_it_ended() {
    for (seed, operations) in (0..8).flat_map(|seed| (0..40).map(move |count| (seed, count))) {
        let disk = MemoryDisk::new(Random::seeded(seed), 0);
        let mut checkpoint = Checkpoint::default();
        put_some(&mut checkpoint, 1);
        save(&disk, &mut checkpoint, 1).unwrap();
        let old = checkpoint.clone();
        put_some(&mut checkpoint, 2);
        disk.fail_after(operations, DiskError::Broken);
        let saved = save(&disk, &mut checkpoint, 2).is_ok();
        disk.heal();
        let found = read(&disk);
        assert!(found == checkpoint || (found == old && !saved), "seed {seed}, {operations}");
        disk.crash();
        assert_eq!(read(&disk), found, "seed {seed}, {operations} operations, saved: {saved}");
    }
}

#[test]
fn each_checkpoint_has_what_is_new_and_stays_equal_to_what_it_was_made_of() {
    let disk = MemoryDisk::new(Random::seeded(1), 0);
    let mut checkpoint = Checkpoint::default();
    let grant = |id| Change::LeaseGrant { id, ttl: 10 };
    for round in 1..40 {
        put_some(&mut checkpoint, round);
        apply(&mut checkpoint, grant(i64::from(round)));
        if round % 5 == 0 {
            let revision = checkpoint.machine.keys_v3.view().revision() - 20;
            apply(&mut checkpoint, Change::Compact { revision });
        }
        if round % 2 == 0 {
            while checkpoint.machine.keys_v3.compact_step(10) {}
        }
        save(&disk, &mut checkpoint, u64::from(round)).unwrap();
        assert_eq!(read(&disk), checkpoint, "round {round}");
        let names = names(&disk);
        assert!(names.len() <= 8, "{names:?}");
        let manifests = names.iter().filter(|name| name.contains(MANIFEST));
        assert_eq!(manifests.count(), 1, "{names:?}");
    }
    // The checkpoint of what nothing was added to keeps its parts.
    let before = names(&disk);
    save(&disk, &mut checkpoint, 39).unwrap();
    assert_eq!(names(&disk), before);
}

/// Sends a checkpoint in pieces, beginning at what is there, until `pieces` were sent; returns how many
/// bytes that took, and the checkpoint if all of it arrived.
fn send(
    stored: &Stored,
    receiving: &mut Receiving,
    (disk, own): (&MemoryDisk, &Saved),
    pieces: usize,
) -> (usize, Option<Stored>) {
    let parts = &stored.saved().parts;
    let entries: Vec<_> = parts.iter().map(|part| PartEntry::of(part)).collect();
    let held = receiving.offer(disk, folder(), own, &entries).unwrap().unwrap();
    let (mut left, mut sent) = (pieces, 0);
    for ((part, entry), held) in parts.iter().zip(&entries).zip(held) {
        let mut upto = usize::try_from(held).unwrap();
        while upto < part.file().len() && left > 0 {
            let piece = &part.file()[upto..part.file().len().min(upto + 300)];
            let now = receiving.piece(folder(), entry, upto as u64, piece).unwrap().unwrap();
            assert_eq!(now, (upto + piece.len()) as u64);
            // One that comes twice is not written twice.
            let again = receiving.piece(folder(), entry, upto as u64, piece).unwrap();
            assert_eq!(again, Some(now));
            (upto, left, sent) = (upto + piece.len(), left - 1, sent + piece.len());
        }
    }
    (sent, receiving.finish(disk, folder(), stored.manifest()).unwrap())
}

fn take(disk: &MemoryDisk, received: &Stored, index: u64) {
    let mut saving = Saving::take(folder(), path_of(folder(), index), received).unwrap();
    while saving.step(disk, &[]).unwrap() == Step::More {}
}

#[test]
fn what_was_sent_is_what_arrives_and_goes_on_where_it_ended() {
    let (disk, other) =
        (MemoryDisk::new(Random::seeded(1), 0), MemoryDisk::new(Random::seeded(2), 0));
    let mut checkpoint = Checkpoint::default();
    let mut receiving = Receiving::default();
    // More than a part is full with: it stays as it is.
    put_some(&mut checkpoint, 1);
    put_some(&mut checkpoint, 1);
    save(&disk, &mut checkpoint, 1).unwrap();
    let (_, stored) = open(&disk, folder()).unwrap().unwrap();
    let all: usize = stored.saved().parts.iter().map(|part| part.file().len()).sum();
    let (begun, nothing) = send(&stored, &mut receiving, (&other, &Saved::default()), 3);
    assert!(nothing.is_none() && begun < all);
    let (rest, received) = send(&stored, &mut receiving, (&other, &Saved::default()), usize::MAX);
    assert_eq!(begun + rest, all, "nothing is sent twice");
    take(&other, &received.unwrap(), 1);
    assert_eq!(read(&other), checkpoint);
    // Of the next one only what is new has to be sent.
    for _ in 0..5 {
        put_some(&mut checkpoint, 2);
    }
    save(&disk, &mut checkpoint, 2).unwrap();
    let (_, stored) = open(&disk, folder()).unwrap().unwrap();
    let (_, own) = open(&other, folder()).unwrap().unwrap();
    let (sent, received) = send(&stored, &mut receiving, (&other, own.saved()), usize::MAX);
    let all: usize = stored.saved().parts.iter().map(|part| part.file().len()).sum();
    let same = stored.saved().parts.iter().any(|part| {
        own.saved().parts.iter().any(|own| PartEntry::of(own).is_same(&PartEntry::of(part)))
    });
    assert!(same && sent < all, "{sent} of {all} bytes");
    take(&other, &received.unwrap(), 2);
    assert_eq!(read(&other), checkpoint);
    assert!(names(&other).iter().all(|name| !name.contains(INCOMING)), "{:?}", names(&other));
}

#[test]
fn what_is_received_and_not_installed_yet_is_not_taken_away_by_the_next_offer() {
    let (disk, other) =
        (MemoryDisk::new(Random::seeded(1), 0), MemoryDisk::new(Random::seeded(2), 0));
    let (mut checkpoint, mut receiving) = (Checkpoint::default(), Receiving::default());
    put_some(&mut checkpoint, 1);
    save(&disk, &mut checkpoint, 1).unwrap();
    let (_, stored) = open(&disk, folder()).unwrap().unwrap();
    let own = Saved::default();
    let (_, received) = send(&stored, &mut receiving, (&other, &own), usize::MAX);
    let received = received.unwrap();
    assert_eq!(receiving.offer(&other, folder(), &own, &[]).unwrap(), None);
    take(&other, &received, 1);
    assert_eq!(read(&other), checkpoint);
    drop(received);
    assert_eq!(receiving.offer(&other, folder(), &own, &[]).unwrap(), Some(Vec::new()));
}

#[test]
fn a_checkpoint_whose_files_are_gone_is_not_saved() {
    let (disk, other) =
        (MemoryDisk::new(Random::seeded(1), 0), MemoryDisk::new(Random::seeded(2), 0));
    let (mut checkpoint, mut receiving) = (Checkpoint::default(), Receiving::default());
    put_some(&mut checkpoint, 1);
    save(&disk, &mut checkpoint, 1).unwrap();
    let (_, stored) = open(&disk, folder()).unwrap().unwrap();
    let (_, received) = send(&stored, &mut receiving, (&other, &Saved::default()), usize::MAX);
    for file in ending_with(&other, folder(), INCOMING).unwrap() {
        other.remove(&file).unwrap();
    }
    let mut saving = Saving::take(folder(), path_of(folder(), 1), &received.unwrap()).unwrap();
    let refused = saving.step(&other, &[]).unwrap_err();
    assert!(matches!(refused, CheckpointError::Disk { .. }), "{refused}");
    assert!(open(&other, folder()).unwrap().is_none());
}

#[test]
fn a_crash_while_a_checkpoint_is_received_leaves_the_old_one_whole() {
    for (seed, steps) in (0..20).flat_map(|seed| (0..4).map(move |steps| (seed, steps))) {
        let (disk, other) =
            (MemoryDisk::new(Random::seeded(1), 0), MemoryDisk::new(Random::seeded(seed), 0));
        let (mut old, mut new) = (Checkpoint::default(), Checkpoint::default());
        put_some(&mut old, 1);
        save(&other, &mut old, 1).unwrap();
        put_some(&mut new, 2);
        save(&disk, &mut new, 2).unwrap();
        let (_, stored) = open(&disk, folder()).unwrap().unwrap();
        let (_, own) = open(&other, folder()).unwrap().unwrap();
        let mut receiving = Receiving::default();
        let (_, received) = send(&stored, &mut receiving, (&other, own.saved()), usize::MAX);
        let mut saving = Saving::take(folder(), path_of(folder(), 2), &received.unwrap()).unwrap();
        let mut done = Step::More;
        for _ in 0..steps {
            if done == Step::More {
                done = saving.step(&other, &[]).unwrap();
            }
        }
        other.crash();
        let expected = if done == Step::Done { &new } else { &old };
        assert_eq!(&read(&other), expected, "seed {seed}, {steps} steps");
        assert!(names(&other).iter().all(|name| !name.contains(INCOMING)));
    }
}

#[test]
fn all_keys_are_in_it() {
    let mut checkpoint = Checkpoint { position: vec![1], ..Checkpoint::default() };
    apply(&mut checkpoint, Change::LeaseGrant { id: 7, ttl: 10 });
    let publish = Command::Publish { member: 1, name: "a".into(), client_urls: Vec::new() };
    checkpoint.machine.apply(&Batch { commands: [publish].into(), ..Batch::default() });
    let disk = MemoryDisk::new(Random::seeded(1), 0);
    save(&disk, &mut checkpoint, 1).unwrap();
    let found = read(&disk);
    assert_eq!(found, checkpoint);
    assert_eq!(found.machine.keys_v3.view().lease(7).map(|lease| lease.ttl), Some(10));
}

/// Writes a checkpoint as an earlier version did.
fn write_old(disk: &MemoryDisk, checkpoint: &Checkpoint, format: u32) {
    let mut body = postcard::to_stdvec(checkpoint).unwrap();
    let start = body.len();
    checkpoint.machine.keys_v3.encode(&mut body);
    if format == old::FORMAT_WITHOUT_ALARMS {
        // No alarms are one zero before the chunks.
        assert_eq!(body.remove(start), 0);
    }
    disk.create_folder(folder()).unwrap();
    let file = disk.open(&path_of(folder(), 1)).unwrap();
    file.write_at(0, &framed(format, &body)).unwrap();
    file.sync().unwrap();
    disk.sync_folder(folder()).unwrap();
}

#[test]
fn one_of_an_earlier_format_is_read_and_written_anew() {
    for format in [old::FORMAT_WITHOUT_ALARMS, 3] {
        let mut checkpoint = Checkpoint::default();
        put_some(&mut checkpoint, 1);
        apply(&mut checkpoint, Change::LeaseGrant { id: 7, ttl: 10 });
        let disk = MemoryDisk::new(Random::seeded(1), 0);
        write_old(&disk, &checkpoint, format);
        assert_eq!(read(&disk), checkpoint, "format {format}");
        assert_eq!(names(&disk), ["0000000000000001.ckpt", "0000000000000001.part"]);
        assert_eq!(read(&disk), checkpoint, "format {format}, written anew");
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let disk = MemoryDisk::new(Random::seeded(1), 0);
    let mut checkpoint = Checkpoint::default();
    put_some(&mut checkpoint, 1);
    save(&disk, &mut checkpoint, 1).unwrap();
    for path in disk.list(folder()).unwrap() {
        let file = disk.open(&path).unwrap();
        for at in 0..file.len().unwrap() {
            let mut byte = [0];
            file.read_at(at, &mut byte).unwrap();
            file.write_at(at, &[byte[0] ^ 0x10]).unwrap();
            let zeros = path.extension().unwrap() == "part" && (12..16).contains(&at);
            assert!(open(&disk, folder()).is_err() || zeros, "byte {at} of {}", path.display());
            file.write_at(at, &byte).unwrap();
        }
    }
    assert_eq!(read(&disk), checkpoint);
}

#[test]
fn what_cannot_be_read_is_refused_in_a_sentence() {
    let disk = MemoryDisk::new(Random::seeded(1), 0);
    let mut checkpoint = Checkpoint::default();
    put_some(&mut checkpoint, 1);
    save(&disk, &mut checkpoint, 1).unwrap();
    let said = |disk: &MemoryDisk| {
        let error = open(disk, folder()).unwrap_err();
        crate::foundation::exit::chain(&error).replace("/member/checkpoint/", "")
    };
    let manifest = disk.open(&path_of(folder(), 1)).unwrap();
    manifest.write_at(8, &[9]).unwrap();
    insta::assert_snapshot!(said(&disk), @"`0000000000000001.ckpt` has format version 9, and this program reads only 2 to 4; start the version of corebox that wrote it");
    manifest.write_at(8, &[4]).unwrap();
    manifest.write_at(HEADER_BYTES as u64, &[99]).unwrap();
    insta::assert_snapshot!(said(&disk), @"the checkpoint `0000000000000001.ckpt` is damaged; remove this member's data and add it to the cluster again, or restore a copy");
    save(&disk, &mut checkpoint, 2).unwrap();
    let part = part_path(folder(), 1);
    disk.open(&part).unwrap().write_at(8, &[9]).unwrap();
    insta::assert_snapshot!(said(&disk), @"the parts that the checkpoint `0000000000000002.ckpt` names cannot be read: part 0000000000000001 has format version 9, and this program reads only 1; start the version of corebox that wrote it");
    disk.open(&part).unwrap().write_at(8, &[1]).unwrap();
    disk.open(&part).unwrap().write_at(40, b"XX").unwrap();
    insta::assert_snapshot!(said(&disk), @"the parts that the checkpoint `0000000000000002.ckpt` names cannot be read: part 0000000000000001 is damaged: a block fails its checksum; remove this member's data and add it to the cluster again, or restore a copy");
    disk.remove(&part).unwrap();
    insta::assert_snapshot!(said(&disk), @"cannot read a part of the checkpoint `0000000000000001.part`: entity not found");
}

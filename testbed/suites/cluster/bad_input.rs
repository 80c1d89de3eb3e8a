//! What stops a member: one clear sentence that names the thing and says what to do, and exit 1.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use testbed::etcd::{Member, START, Site};
use testbed::process::{Lifetime, Program, Running};

const SHORTLY: Duration = Duration::from_secs(10);

/// Checks that a member refuses to run, with one sentence that has all of these parts.
fn refuses(member: &Member, parts: &[&str]) {
    let (code, said) = member.refused().unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not said: {said}");
    }
}

/// A member that ran, wrote a few keys and is down.
fn used(site: &Site) -> Member {
    let mut member = super::alone(site);
    for number in 0..5 {
        member.set("/n", &number.to_string()).unwrap();
    }
    member.kill();
    member
}

fn log(member: &Member) -> PathBuf {
    member.data.join("member/wal/0000000000000001.wal")
}

#[test]
fn one_data_directory_is_for_one_process() {
    let site = super::site("two");
    let member = super::alone(&site);
    let mut second = Member::new(&site, "second").unwrap();
    second.data.clone_from(&member.data);
    refuses(&second, &["another process uses", &member.data.to_string_lossy(), "--data-dir"]);
    member.set("/still", "here").unwrap();
}

#[test]
fn an_address_in_use_is_named() {
    let site = super::site("in-use");
    let member = super::alone(&site);
    let mut second = Member::new(&site, "second").unwrap();
    second.client = member.client;
    let listed = second.listed();
    let second = second.flag("initial-cluster", listed);
    let address = member.client.to_string();
    refuses(&second, &["cannot listen at", &address, "choose another port"]);
}

#[test]
fn the_data_of_another_cluster_is_not_used() {
    let site = super::site("token");
    let member = used(&site).flag("initial-cluster-token", "other");
    let data = member.data.display().to_string();
    refuses(&member, &[&data, "`etcd-cluster`", "`other`", "give it another --data-dir"]);
}

#[test]
fn a_member_with_another_token_names_the_one_that_refused_it() {
    let site = super::site("stranger");
    let mut members = site.cluster(&["a", "b", "c"]).unwrap();
    let stranger = members.pop().unwrap().flag("initial-cluster-token", "other");
    for member in &mut members {
        member.start().unwrap();
    }
    for member in &mut members {
        member.healthy().unwrap();
    }
    let (code, said) = stranger.refused().unwrap();
    assert_eq!(code, Some(1), "{said}");
    let urls = members.iter().map(|member| format!("http://{}", member.peer));
    assert!(urls.into_iter().any(|url| said.contains(&url)), "{said}");
    assert!(said.contains("--initial-cluster-token"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    members[0].set("/still", "here").unwrap();
}

#[test]
fn an_identity_of_a_later_version_is_not_read() {
    let site = super::site("identity");
    let member = used(&site);
    let path = member.data.join("member/identity");
    let text = fs::read_to_string(&path).unwrap();
    let later = text.replace("\"format\": 1", "\"format\": 99");
    assert_ne!(later, text);
    fs::write(&path, later).unwrap();
    refuses(&member, &[&path.to_string_lossy(), "format version 99", "start the version"]);
}

#[test]
fn a_log_of_a_later_version_is_not_read() {
    let site = super::site("log-version");
    let member = used(&site);
    let path = log(&member);
    let mut bytes = fs::read(&path).unwrap();
    // The header: 8 bytes of magic, the format, a checksum over it and the number, the number.
    let format = 2_u32.to_le_bytes();
    let checksum = crc32c::crc32c(&[&format[..], &bytes[16..24]].concat());
    bytes[8..12].copy_from_slice(&format);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    refuses(&member, &[&path.to_string_lossy(), "format version 2", "start the version"]);
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
}

#[test]
fn a_log_that_is_damaged_where_it_was_safe_is_not_used() {
    let site = super::site("damaged");
    let member = used(&site);
    let path = log(&member);
    let mut bytes = fs::read(&path).unwrap();
    // The body of the first record, which begins behind the header's 24 bytes with a head of 16.
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    refuses(&member, &[&path.to_string_lossy(), "is damaged at byte 24", "restore a copy"]);
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
}

/// The checkpoints that a member has made.
fn checkpoints(member: &Member) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(member.data.join("member/checkpoint")) else { return Vec::new() };
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "ckpt")).collect()
}

#[test]
fn a_checkpoint_is_made_and_read_again_and_a_damaged_one_is_not_used() {
    let site = super::site("checkpoint");
    let mut member = super::alone(&site);
    // One is made at 64 MiB of log.
    let padding = "x".repeat(1_000_000);
    let value = |number: usize| format!("{number}{padding}");
    for number in 0..70 {
        member.set(&format!("/w/{}", number % 4), &value(number)).unwrap();
    }
    let made = testbed::wait::until("a checkpoint", START, || {
        checkpoints(&member).pop().ok_or("there is none")
    });
    member.kill();
    member.start_healthy().unwrap();
    for number in 66..70 {
        let key = format!("/w/{}", number % 4);
        assert!(member.value(&key).unwrap() == value(number), "{key} is not what was written");
    }
    member.kill();
    let path = checkpoints(&member).pop().unwrap();
    assert_eq!(made.unwrap(), path, "it was not made anew");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    refuses(&member, &[&path.to_string_lossy(), "is damaged", "restore a copy"]);
}

/// A mount namespace with a small disk at `dir`; it goes with what is returned.
fn small_disk(site: &Site, dir: &str) -> (Running, Vec<String>) {
    let mounted = site.dir.join("mounted");
    let script = format!(
        "mount -t tmpfs -o size=6m none {dir} && touch {} && exec sleep infinity",
        mounted.display()
    );
    let mut keeper = Program::line("unshare --user --map-root-user --mount sh -c")
        .arg(script)
        .start(Lifetime::Owned, &site.dir.join("mount.log"))
        .unwrap();
    testbed::wait::until("the small disk", SHORTLY, || {
        keeper.check().map_err(|error| error.to_string())?;
        if mounted.exists() { Ok(()) } else { Err("not mounted".to_owned()) }
    })
    .unwrap();
    let id = keeper.id().to_string();
    let words = ["nsenter", "--user", "--mount", "--preserve-credentials", "-t", &id, "--"];
    (keeper, words.map(str::to_owned).to_vec())
}

#[test]
fn a_full_disk_ends_it_and_with_room_every_acknowledged_write_is_there() {
    let site = super::site("full");
    let mut member = site.cluster(&["one"]).unwrap().pop().unwrap();
    fs::create_dir_all(&member.data).unwrap();
    let dir = member.data.display().to_string();
    let (_keeper, within) = small_disk(&site, &dir);
    member = member.within(&within);
    member.start_healthy().unwrap();
    let value = "x".repeat(100_000);
    // The first segment of the log holds 4 MiB, and the next has no room.
    let acknowledged =
        (0..100).take_while(|number| member.set(&format!("/w/{number}"), &value).is_ok()).count();
    assert!((10..60).contains(&acknowledged), "{acknowledged} writes");
    assert_eq!(member.ended(SHORTLY).unwrap().code(), Some(1));
    let said = member.sentences().unwrap().join("\n");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in ["the log at", "member/wal", "No space left on device", "start it again"] {
        assert!(said.contains(part), "`{part}` is not said: {said}");
    }
    assert!(!said.contains("LogId"), "the library's words are none of ours: {said}");
    let (first, rest) = within.split_first().unwrap();
    let remount = Program::new(first).args(rest).args(["mount", "-o", "remount,size=160m"]);
    remount.arg(&dir).run(SHORTLY).unwrap();
    member.start_healthy().unwrap();
    let read = member.json("/v2/keys/w?quorum=true").unwrap();
    let found: Vec<_> = read["node"]["nodes"].as_array().unwrap().iter().collect();
    assert!(found.len() >= acknowledged, "{} of {acknowledged} writes are there", found.len());
    for number in 0..acknowledged {
        assert_eq!(member.value(&format!("/w/{number}")).unwrap(), value);
    }
}

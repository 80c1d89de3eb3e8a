//! Clients that do wrong: each is told so in clear words, or held up; the member serves all others,
//! and its memory stays small.

use std::time::Duration;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use testbed::etcd::{ANSWER, Member, START};
use testbed::etcd_v3::{self, Client, put};
use testbed::faults::bad;
use testbed::faults::held::{self, Held};
use testbed::progress::say;
use testbed::{proc, wait};

use super::v3::until;

/// What a member's memory may grow by, whatever clients do.
const GROWTH_MIB_MAX: f64 = 256.0;
/// Connections that say nothing, or half a word.
const IDLE: usize = 10_000;
/// Descriptors that this process needs beside those.
const OTHER_DESCRIPTORS: usize = 100;
/// Connections on which byte comes after byte.
const SLOW: usize = 1_000;
/// Watches of everything whose clients never read.
const DEAF: usize = 16;
/// How many values of how many bytes they do not read: kept for each of them, it would be more than
/// memory may grow by. It is little beside, since the store itself keeps it too.
const UNREAD: usize = 320;
const UNREAD_BYTES: usize = 64 << 10;

/// What a member's memory has grown by while something was done to it, in MiB.
struct Growth {
    id: u32,
    before: f64,
}

impl Growth {
    fn of(member: &Member) -> Self {
        let id = member.id().unwrap();
        Self { id, before: proc::memory(id).unwrap() }
    }

    #[track_caller]
    fn is_small(&self) {
        let grown = proc::memory(self.id).unwrap() - self.before;
        say(&format!("its memory grew by {grown:.1} MiB"));
        assert!(grown <= GROWTH_MIB_MAX, "its memory grew by {grown:.1} MiB");
    }
}

/// Puts and reads a key, and looks whether the member is well.
async fn serves(member: &Member) {
    let client = Client::new(member.client);
    client.put("served", "yes").await.unwrap();
    assert_eq!(client.get("served").await.unwrap(), "yes");
    assert_eq!(member.get("/health").unwrap().status, 200);
}

/// Waits until a member has so many descriptors open.
async fn has_open(member: &Member, count: usize) {
    let folder = format!("/proc/{}/fd", member.id().unwrap());
    until("all connections to be accepted", || async {
        let open = std::fs::read_dir(&folder).unwrap().count();
        if open > count { Ok(()) } else { Err(format!("{open} descriptors")) }
    })
    .await;
}

#[test]
fn bad_requests_are_refused_in_clear_words_and_leave_nothing_behind() {
    const ROUNDS: usize = 5;
    let site = super::site("bad-requests");
    let member = super::alone(&site);
    etcd_v3::run(async {
        serves(&member).await;
        let growth = Growth::of(&member);
        let mut wrong = Vec::new();
        for bad in std::iter::repeat_n(bad::all(), ROUNDS).flatten() {
            match bad.ask(member.client, member.peer).await {
                Ok(answer) if answer == bad.refusal => {}
                other => wrong.push(format!("{:?}: {}: {other:?}", bad.kind, bad.what)),
            }
        }
        assert_eq!(wrong, [""; 0]);
        serves(&member).await;
        growth.is_small();
        assert_eq!(member.get("/v2/keys/bad").unwrap().status, 404, "nothing of it was done");
    })
    .unwrap();
}

#[test]
fn ten_thousand_connections_that_say_nothing_disturb_nobody() {
    let site = super::site("idle-many");
    held::allow_descriptors(IDLE + OTHER_DESCRIPTORS).unwrap();
    let member = super::alone(&site);
    etcd_v3::run(async {
        let growth = Growth::of(&member);
        let mut idle = held::idle(member.client, IDLE).await.unwrap();
        has_open(&member, IDLE).await;
        serves(&member).await;
        growth.is_small();
        assert_eq!(idle.count(), IDLE);
    })
    .unwrap();
}

#[test]
fn who_sends_byte_by_byte_holds_up_nobody_else() {
    let site = super::site("slow");
    let member = super::alone(&site);
    etcd_v3::run(async {
        let growth = Growth::of(&member);
        let mut slow = held::slow(member.client, SLOW);
        has_open(&member, SLOW).await;
        serves(&member).await;
        growth.is_small();
        assert_eq!(slow.count(), SLOW);
    })
    .unwrap();
}

/// A put of so many bytes.
fn large(key: u8, bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: vec![key], value: vec![b'x'; bytes], ..put() }
}

#[test]
fn who_watches_everything_and_never_reads_fills_no_memory() {
    let site = super::site("deaf");
    let member = super::alone(&site);
    etcd_v3::run(async {
        serves(&member).await;
        let growth = Growth::of(&member);
        let mut deaf: Held = held::never_reading(member.client, DEAF).await.unwrap();
        has_open(&member, DEAF).await;
        let client = Client::new(member.client);
        for key in (b'a'..=b'd').cycle().take(UNREAD) {
            client.put_with(large(key, UNREAD_BYTES)).await.unwrap();
        }
        let value = "x".repeat(UNREAD_BYTES);
        for number in 0..UNREAD / 4 {
            member.set(&format!("/much/{}", number % 4), &value).unwrap();
        }
        serves(&member).await;
        growth.is_small();
        assert_eq!(deaf.count(), DEAF);
    })
    .unwrap();
}

#[test]
fn a_member_that_may_have_few_descriptors_says_so_and_keeps_some_for_itself() {
    const DESCRIPTORS: usize = 100;
    let site = super::site("descriptors");
    let limited = ["prlimit".to_owned(), format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")];
    let mut member = site.cluster(&["one"]).unwrap().pop().unwrap().within(&limited);
    member.start_healthy().unwrap();
    let said = member.said().unwrap();
    assert!(said.contains("there may be only so many connections of clients at a time"), "{said}");
    etcd_v3::run(async {
        let client = Client::new(member.client);
        client.put("before", "1").await.unwrap();
        let idle = held::idle(member.client, 2 * DESCRIPTORS).await.unwrap();
        wait::until("it to say that there is no room", ANSWER, || {
            let said = member.said().unwrap();
            let full = said.contains("there are as many connections as there may be");
            if full { Ok(()) } else { Err(said) }
        })
        .unwrap();
        // More than a segment of the log holds: the next one needs a descriptor.
        for key in b'a'..=b'h' {
            client.put_with(large(key, 1 << 20)).await.unwrap();
        }
        drop(idle);
        until("it to serve the next", || async {
            let answer = tokio::time::timeout(Duration::from_secs(1), async {
                Client::new(member.client).get("before").await
            });
            answer.await.map_err(|late| late.to_string())?.map_err(|status| status.to_string())
        })
        .await;
        assert!(!member.said().unwrap().contains("cannot accept"));
    })
    .unwrap();
    member.terminate().unwrap();
    assert_eq!(member.ended(START).unwrap().code(), Some(0));
}

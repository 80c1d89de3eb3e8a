//! The v3 API of real members: through each of them, across deaths and restarts.

use std::time::{Duration, Instant};

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::watch_request::RequestUnion;
use testbed::etcd::{Member, START};
use testbed::etcd_v3::{Client, end_of, put, revision, run};
use tonic::Code;

const NAMES: &[&str] = &["a", "b", "c"];

pub(super) fn all(prefix: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: prefix.into(), range_end: end_of(prefix), ..Default::default() }
}

fn follow(prefix: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: prefix.into(),
        range_end: end_of(prefix),
        start_revision,
        ..Default::default()
    }
}

/// Tries again until it is so: for what becomes so by itself.
pub(super) async fn until<T, W: Future<Output = Result<T, String>>>(
    what: &str,
    look: impl Fn() -> W,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(start.elapsed() < START, "{what}: last seen {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Which of the members leads, once all that are asked agree.
pub(super) async fn leader(clients: &[&Client]) -> u64 {
    leader_after(clients, 0).await
}

/// Which of the members leads after another, once all that are asked agree.
async fn leader_after(clients: &[&Client], before: u64) -> u64 {
    until("the members to agree on a leader", || async {
        let mut said = Vec::new();
        for client in clients {
            let status = client.maintenance.clone().status(pb::StatusRequest {}).await;
            said.push(status.map_err(|error| error.to_string())?.into_inner().leader);
        }
        let agreed =
            ![0, before].contains(&said[0]) && said.iter().all(|leader| *leader == said[0]);
        agreed.then_some(said[0]).ok_or_else(|| format!("{said:x?}"))
    })
    .await
}

pub(super) async fn id(client: &Client) -> u64 {
    let status = client.maintenance.clone().status(pb::StatusRequest {}).await.unwrap();
    status.into_inner().header.unwrap().member_id
}

async fn hash(client: &Client) -> (u32, i64) {
    let hash = client.maintenance.clone().hash_kv(pb::HashKvRequest { revision: 0 }).await;
    let hash = hash.unwrap().into_inner();
    (hash.hash, hash.hash_revision)
}

pub(super) fn clients(members: &[Member]) -> Vec<Client> {
    members.iter().map(|member| Client::new(member.client)).collect()
}

#[test]
fn a_write_through_each_member_is_read_and_watched_through_all() {
    let site = super::site("v3-each");
    let members = super::started(&site, NAMES);
    run(async {
        let clients = clients(&members);
        let mut streams = Vec::new();
        for client in &clients {
            streams.push(client.watch(follow("k/", 0)).await.unwrap());
        }
        for (at, writer) in clients.iter().enumerate() {
            let written = writer.put(&format!("k/{at}"), "v").await.unwrap();
            assert_eq!(written, i64::try_from(at).unwrap() + 2);
            for reader in &clients {
                let read = reader.kv.clone().range(all("k/")).await.unwrap().into_inner();
                assert_eq!(read.count, i64::try_from(at).unwrap() + 1);
                assert_eq!(revision(read.header.as_ref()), written);
            }
        }
        let expected = [(true, "k/0", 2), (true, "k/1", 3), (true, "k/2", 4)];
        let expected = expected.map(|(put, key, revision)| (put, key.to_owned(), revision));
        for stream in &mut streams {
            assert_eq!(stream.events(3).await.unwrap(), expected);
        }
        let first = hash(&clients[0]).await;
        for client in &clients[1..] {
            assert_eq!(hash(client).await, first);
        }
    })
    .unwrap();
}

#[test]
fn a_watch_and_a_lease_go_on_when_the_leader_is_killed() {
    let site = super::site("v3-kill");
    let mut members = super::started(&site, NAMES);
    run(async {
        let clients = clients(&members);
        let leads = leader(&clients.iter().collect::<Vec<_>>()).await;
        let mut ids = Vec::new();
        for client in &clients {
            ids.push(id(client).await);
        }
        let gone = ids.iter().position(|id| *id == leads).unwrap();
        let rest: Vec<&Client> =
            clients.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, one)| one).collect();
        let grant = pb::LeaseGrantRequest { ttl: 5, id: 77 };
        let granted = rest[0].lease.clone().lease_grant(grant).await.unwrap().into_inner();
        assert_eq!((granted.id, granted.ttl), (77, 5));
        let key = pb::PutRequest { key: "k/leased".into(), lease: 77, ..put() };
        rest[1].put_with(key).await.unwrap();
        let mut stream = rest[0].watch(follow("k/", 1)).await.unwrap();
        for number in 0..10 {
            clients[gone].put("k/before", &number.to_string()).await.unwrap();
        }
        members[gone].kill();
        leader_after(&rest, leads).await;
        for number in 0..10 {
            rest[1].put("k/after", &number.to_string()).await.unwrap();
        }
        // 2: the lease's key; then ten and ten, each once and in order.
        let events = stream.events(21).await.unwrap();
        let revisions: Vec<i64> = events.iter().map(|(_, _, revision)| *revision).collect();
        assert_eq!(revisions, (2..23).collect::<Vec<_>>());
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(pb::LeaseKeepAliveRequest { id: 77 });
        }
        let alive = rest[0].lease.clone();
        let kept = alive.clone().lease_keep_alive(futures_util::stream::iter(requests)).await;
        let mut kept = kept.unwrap().into_inner();
        for _ in 0..3 {
            assert_eq!(kept.message().await.unwrap().map(|kept| kept.ttl), Some(5));
        }
        // Now nobody renews it: the key goes, and the watch says so.
        assert_eq!(stream.events(1).await.unwrap(), [(false, "k/leased".to_owned(), 23)]);
        let ask = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
        let left = alive.clone().lease_time_to_live(ask).await.unwrap().into_inner();
        assert_eq!(left.ttl, -1);
        let none = pb::LeaseLeasesRequest {};
        assert_eq!(alive.clone().lease_leases(none).await.unwrap().into_inner().leases, []);
    })
    .unwrap();
}

#[test]
fn a_lease_lives_as_long_as_it_is_renewed_through_any_member() {
    let site = super::site("v3-renewed");
    let members = super::started(&site, NAMES);
    run(async {
        let clients = clients(&members);
        let grant = pb::LeaseGrantRequest { ttl: 1, id: 0 };
        let granted = clients[0].lease.clone().lease_grant(grant).await.unwrap().into_inner();
        assert_eq!(granted.ttl, 2, "one and a half election timeouts");
        let key = pb::PutRequest { key: "leased".into(), lease: granted.id, ..put() };
        clients[0].put_with(key).await.unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            for client in &clients {
                let request = pb::LeaseKeepAliveRequest { id: granted.id };
                let once = futures_util::stream::iter([request]);
                let kept = client.lease.clone().lease_keep_alive(once).await.unwrap();
                let kept = kept.into_inner().message().await.unwrap().unwrap();
                assert_eq!((kept.id, kept.ttl), (granted.id, 2));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let ask = pb::LeaseTimeToLiveRequest { id: granted.id, keys: true };
        let left = clients[1].lease.clone().lease_time_to_live(ask).await.unwrap().into_inner();
        assert_eq!((left.granted_ttl, left.keys), (2, vec![b"leased".to_vec()]));
        assert!(left.ttl >= 0, "{}", left.ttl);
        let revoke = pb::LeaseRevokeRequest { id: granted.id };
        clients[2].lease.clone().lease_revoke(revoke).await.unwrap();
        assert_eq!(clients[0].get("leased").await.unwrap(), "");
    })
    .unwrap();
}

#[test]
fn keys_leases_and_history_outlive_a_restart() {
    let site = super::site("v3-restart");
    let mut member = super::alone(&site);
    let check = |client: Client| async move {
        let read = client.kv.clone().range(all("k")).await.unwrap().into_inner();
        assert_eq!((read.count, revision(read.header.as_ref())), (1, 12));
        assert_eq!((read.kvs[0].version, read.kvs[0].lease), (10, 7));
        let past = pb::RangeRequest { revision: 8, ..all("k") };
        let past = client.kv.clone().range(past).await.unwrap().into_inner();
        assert_eq!(past.kvs[0].value, b"6");
        let gone = pb::RangeRequest { revision: 4, ..all("k") };
        let gone = client.kv.clone().range(gone).await.unwrap_err();
        assert_eq!(gone.code(), Code::OutOfRange);
        let ask = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
        let left = client.lease.clone().lease_time_to_live(ask).await.unwrap().into_inner();
        assert_eq!((left.granted_ttl, left.keys), (600, vec![b"k".to_vec()]));
        hash(&client).await
    };
    let before = run(async {
        let client = Client::new(member.client);
        let grant = pb::LeaseGrantRequest { ttl: 600, id: 7 };
        client.lease.clone().lease_grant(grant).await.unwrap();
        for number in 0..10 {
            let value = number.to_string().into_bytes();
            let request = pb::PutRequest { key: "k".into(), value, lease: 7, ..put() };
            client.put_with(request).await.unwrap();
        }
        client.put("other", "1").await.unwrap();
        let compact = pb::CompactionRequest { revision: 5, physical: true };
        client.kv.clone().compact(compact).await.unwrap();
        check(client).await
    })
    .unwrap();
    member.kill();
    member.start_healthy().unwrap();
    let after = run(async { check(Client::new(member.client)).await }).unwrap();
    assert_eq!(after, before);
}

#[test]
fn a_member_that_starts_from_a_checkpoint_has_all_keys() {
    let site = super::site("v3-checkpoint");
    let mut member = super::alone(&site);
    let folder = member.data.join("member/checkpoint");
    let saved = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    let before = run(async {
        let client = Client::new(member.client);
        let grant = pb::LeaseGrantRequest { ttl: 600, id: 7 };
        client.lease.clone().lease_grant(grant).await.unwrap();
        let request = pb::PutRequest { key: "leased".into(), lease: 7, ..put() };
        client.put_with(request).await.unwrap();
        let large = "x".repeat(1 << 20);
        let mut number = 0;
        while saved() == 0 {
            client.put(&format!("large/{}", number % 8), &large).await.unwrap();
            number += 1;
            assert!(number < 200, "no checkpoint after {number} MiB");
        }
        client.put("last", "1").await.unwrap();
        hash(&client).await
    })
    .unwrap();
    member.set("/v2", "too").unwrap();
    member.kill();
    member.start_healthy().unwrap();
    run(async {
        let client = Client::new(member.client);
        assert_eq!(hash(&client).await, before);
        assert_eq!(client.get("last").await.unwrap(), "1");
        let ask = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
        let left = client.lease.clone().lease_time_to_live(ask).await.unwrap().into_inner();
        assert_eq!(left.keys, [b"leased".to_vec()]);
    })
    .unwrap();
    assert_eq!(member.value("/v2").unwrap(), "too");
}

#[test]
fn many_watches_live_on_one_stream() {
    let site = super::site("v3-stream");
    let member = super::alone(&site);
    run(async {
        let client = Client::new(member.client);
        client.put("a", "1").await.unwrap();
        let mut stream = client.stream().await.unwrap();
        for key in ["a", "b"] {
            let create = pb::WatchCreateRequest { prev_kv: true, ..follow(key, 2) };
            stream.ask(RequestUnion::CreateRequest(create)).await;
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let answer = stream.next().await.unwrap();
            seen.push((answer.watch_id, answer.created, answer.events.len()));
        }
        seen.sort_unstable();
        assert_eq!(seen, [(0, false, 1), (0, true, 0), (1, true, 0)]);
        stream.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
        let progress = stream.next().await.unwrap();
        assert_eq!((progress.watch_id, revision(progress.header.as_ref())), (-1, 2));
        client.put("a", "2").await.unwrap();
        let told = stream.next().await.unwrap();
        let event = &told.events[0];
        assert_eq!(
            (told.watch_id, event.prev_kv.as_ref().unwrap().value.as_slice()),
            (0, &b"1"[..])
        );
        stream.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
        let canceled = stream.next().await.unwrap();
        assert!(canceled.canceled && canceled.watch_id == 0, "{canceled:?}");
        client.put("a", "3").await.unwrap();
        client.put("b", "1").await.unwrap();
        let told = stream.next().await.unwrap();
        assert_eq!((told.watch_id, told.events.len()), (1, 1));
        let compact = pb::CompactionRequest { revision: 4, physical: false };
        client.kv.clone().compact(compact).await.unwrap();
        stream.ask(RequestUnion::CreateRequest(follow("a", 2))).await;
        let created = stream.next().await.unwrap();
        assert!(created.created && !created.canceled);
        let lost = stream.next().await.unwrap();
        assert_eq!((lost.canceled, lost.compact_revision), (true, 4));
    })
    .unwrap();
}

#[test]
fn leadership_is_moved_and_both_apis_answer_on_one_port() {
    let site = super::site("v3-move");
    let members = super::started(&site, NAMES);
    run(async {
        let clients = clients(&members);
        let every: Vec<&Client> = clients.iter().collect();
        let leads = leader(&every).await;
        for client in &clients {
            let own = id(client).await;
            let target = pb::MoveLeaderRequest { target_id: own };
            let mut maintenance = client.maintenance.clone();
            if own == leads {
                let nobody = pb::MoveLeaderRequest { target_id: 5 };
                let refused = maintenance.move_leader(nobody).await.unwrap_err();
                assert_eq!(refused.message(), "etcdserver: bad leader transferee");
                continue;
            }
            let refused = maintenance.move_leader(target).await.unwrap_err();
            assert_eq!(refused.message(), "etcdserver: not leader");
        }
        let mut from = None;
        let mut to = None;
        for client in &clients {
            if id(client).await == leads { from = Some(client) } else { to = Some(client) }
        }
        let target_id = id(to.unwrap()).await;
        let moved = pb::MoveLeaderRequest { target_id };
        from.unwrap().maintenance.clone().move_leader(moved).await.unwrap();
        assert_eq!(leader_after(&every, leads).await, target_id);
        // A member says its name once it has a leader to say it to.
        until("all names to be known", || async {
            let list = pb::MemberListRequest { linearizable: true };
            let list = clients[0].cluster.clone().member_list(list).await;
            let list = list.map_err(|error| error.to_string())?.into_inner();
            let mut names: Vec<_> = list.members.into_iter().map(|member| member.name).collect();
            names.sort();
            if names == NAMES { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
        clients[0].put("same", "v3").await.unwrap();
        assert_eq!(clients[1].get("same").await.unwrap(), "v3");
    })
    .unwrap();
    members[0].set("/same", "v2").unwrap();
    assert_eq!(members[1].value("/same").unwrap(), "v2");
}

#[test]
fn without_a_majority_a_local_read_is_answered_and_all_else_is_refused_in_time() {
    let site = super::site("v3-minority");
    let mut members = super::started_quick(&site, NAMES);
    run(async { Client::new(members[0].client).put("here", "1").await.unwrap() }).unwrap();
    members[1].kill();
    members[2].kill();
    run(async {
        let client = Client::new(members[0].client);
        let local = pb::RangeRequest { serializable: true, ..all("here") };
        let local = client.kv.clone().range(local).await.unwrap().into_inner();
        assert_eq!(local.kvs[0].value, b"1");
        for refused in [client.put("here", "2").await.unwrap_err(), {
            client.kv.clone().range(all("here")).await.unwrap_err()
        }] {
            assert_eq!(refused.code(), Code::Unavailable);
            assert_eq!(refused.message(), "etcdserver: request timed out");
        }
        let mut demanding = tonic::Request::new(all("here"));
        demanding.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let refused = client.kv.clone().range(demanding).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: no leader");
    })
    .unwrap();
}

#[test]
fn a_streamed_range_is_one_moment_in_parts() {
    let site = super::site("v3-range-stream");
    let member = super::alone(&site);
    run(async {
        let client = Client::new(member.client);
        let large = "x".repeat(300 << 10);
        for number in 0..6 {
            client.put(&format!("k/{number}"), &large).await.unwrap();
        }
        let mut parts = client.kv.clone().range_stream(all("k/")).await.unwrap().into_inner();
        let first = parts.message().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!((first.kvs.len(), first.header, first.count), (2, None, 0));
        client.put("k/2", "later").await.unwrap();
        let mut keys: Vec<_> = first.kvs.into_iter().map(|kv| kv.mod_revision).collect();
        let last = loop {
            let part = parts.message().await.unwrap().unwrap().range_response.unwrap();
            keys.extend(part.kvs.iter().map(|kv| kv.mod_revision));
            if part.header.is_some() {
                break part;
            }
        };
        assert_eq!(keys, [2, 3, 4, 5, 6, 7]);
        assert_eq!((last.count, last.more, revision(last.header.as_ref())), (6, false, 7));
        assert_eq!(parts.message().await.unwrap(), None);
        let some = pb::RangeRequest { limit: 2, keys_only: true, ..all("k/") };
        let mut parts = client.kv.clone().range_stream(some).await.unwrap().into_inner();
        let only = parts.message().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!((only.kvs.len(), only.count, only.more), (2, 6, true));
        assert_eq!(only.kvs[0].value, b"");
        let sorted = pb::RangeRequest { sort_order: 2, ..all("k/") };
        let refused = client.kv.clone().range_stream(sorted).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert_eq!(
            refused.message(),
            "corebox: a streamed range is in the order of its keys, without filters; use Range",
        );
        let past = pb::RangeRequest { revision: 100, ..all("k/") };
        let refused = client.kv.clone().range_stream(past).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
    })
    .unwrap();
}

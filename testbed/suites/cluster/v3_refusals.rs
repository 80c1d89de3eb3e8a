//! Bad requests to the v3 API: the code and the exact text that clients match.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::request_op::Request;
use testbed::etcd::ANSWER;
use testbed::etcd_v3::{Client, put, run};
use testbed::http::Request as HttpRequest;
use tonic::{Code, Status};

const TXN_OPS_MAX: usize = 128;

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("it was done");
    (status.code(), status.message().to_owned())
}

fn said(code: Code, text: &str) -> (Code, String) {
    (code, format!("etcdserver: {text}"))
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put_op(key: &str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest { key: key.into(), ..put() }))
}

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() }
}

#[test]
fn puts_are_refused_in_the_words_of_etcd() {
    let site = super::site("v3-bad-put");
    let member = super::alone(&site);
    let named = || pb::PutRequest { key: "k".into(), ..put() };
    let value = || b"v".to_vec();
    run(async {
        let client = Client::new(member.client);
        for (request, code, text) in [
            (put(), Code::InvalidArgument, "key is not provided"),
            (
                pb::PutRequest { ignore_value: true, value: value(), ..named() },
                Code::InvalidArgument,
                "value is provided",
            ),
            (
                pb::PutRequest { ignore_lease: true, lease: 5, ..named() },
                Code::InvalidArgument,
                "lease is provided",
            ),
            (
                pb::PutRequest { ignore_value: true, ..named() },
                Code::InvalidArgument,
                "key not found",
            ),
            (pb::PutRequest { lease: 5, ..named() }, Code::NotFound, "requested lease not found"),
            (
                pb::PutRequest { value: vec![0; 1_600_000], ..named() },
                Code::InvalidArgument,
                "request is too large",
            ),
        ] {
            assert_eq!(refused(client.put_with(request).await), said(code, text));
        }
        let huge = pb::PutRequest { value: vec![0; 3_000_000], ..named() };
        let (code, text) = refused(client.put_with(huge).await);
        assert_eq!(code, Code::ResourceExhausted, "{text}");
        assert_eq!(text, "received message larger than max (3000008 vs. 2097152)");
        assert_eq!(client.put("k", "v").await.unwrap(), 2, "nothing of it was done");
    })
    .unwrap();
}

#[test]
fn reads_and_deletes_are_refused_in_the_words_of_etcd() {
    let site = super::site("v3-bad-range");
    let member = super::alone(&site);
    run(async {
        let client = Client::new(member.client);
        for number in 0..5 {
            client.put("k", &number.to_string()).await.unwrap();
        }
        let mut kv = client.kv.clone();
        let compact = |revision| pb::CompactionRequest { revision, physical: false };
        kv.compact(compact(4)).await.unwrap();
        let compacted = (Code::OutOfRange, "mvcc: required revision has been compacted");
        let future = (Code::OutOfRange, "mvcc: required revision is a future revision");
        for (request, (code, text)) in [
            (range(""), (Code::InvalidArgument, "key is not provided")),
            (
                pb::RangeRequest { sort_order: 9, ..range("k") },
                (Code::InvalidArgument, "invalid sort option"),
            ),
            (pb::RangeRequest { revision: 3, ..range("k") }, compacted),
            (pb::RangeRequest { revision: 100, ..range("k") }, future),
        ] {
            assert_eq!(refused(kv.range(request).await), said(code, text));
        }
        for (revision, (code, text)) in [(4, compacted), (-7, compacted), (100, future)] {
            assert_eq!(refused(kv.compact(compact(revision)).await), said(code, text));
        }
        let nothing = pb::DeleteRangeRequest::default();
        let (code, text) = (Code::InvalidArgument, "key is not provided");
        assert_eq!(refused(kv.delete_range(nothing).await), said(code, text));
    })
    .unwrap();
}

#[test]
fn transactions_are_refused_in_the_words_of_etcd() {
    let site = super::site("v3-bad-txn");
    let member = super::alone(&site);
    let success = |success| pb::TxnRequest { success, ..pb::TxnRequest::default() };
    let future = pb::RangeRequest { revision: 100, ..range("k") };
    run(async {
        let client = Client::new(member.client);
        for (request, code, text) in [
            (
                success(vec![put_op("a"), put_op("a")]),
                Code::InvalidArgument,
                "duplicate key given in txn request",
            ),
            (
                success(vec![op(Request::RequestRange(range("a"))); TXN_OPS_MAX + 1]),
                Code::InvalidArgument,
                "too many operations in txn request",
            ),
            (success(vec![put_op("")]), Code::InvalidArgument, "key is not provided"),
            (success(vec![pb::RequestOp::default()]), Code::InvalidArgument, "key not found"),
            (
                success(vec![put_op("a"), op(Request::RequestRange(future))]),
                Code::OutOfRange,
                "mvcc: required revision is a future revision",
            ),
        ] {
            assert_eq!(refused(client.kv.clone().txn(request).await), said(code, text));
        }
        assert_eq!(client.get("a").await.unwrap(), "", "nothing of it was done");
    })
    .unwrap();
}

#[test]
fn leases_are_refused_in_the_words_of_etcd() {
    let site = super::site("v3-bad-lease");
    let member = super::alone(&site);
    run(async {
        let client = Client::new(member.client);
        let mut lease = client.lease.clone();
        let grant = |ttl, id| pb::LeaseGrantRequest { ttl, id };
        lease.lease_grant(grant(60, -3)).await.unwrap();
        assert_eq!(
            refused(lease.lease_grant(grant(60, -3)).await),
            said(Code::FailedPrecondition, "lease already exists"),
        );
        assert_eq!(
            refused(lease.lease_grant(grant(9_000_000_001, 0)).await),
            said(Code::OutOfRange, "too large lease TTL"),
        );
        assert_eq!(
            refused(lease.lease_revoke(pb::LeaseRevokeRequest { id: 1234 }).await),
            said(Code::NotFound, "requested lease not found"),
        );
        let unknown = futures_util::stream::iter([pb::LeaseKeepAliveRequest { id: 1234 }]);
        let kept = lease.lease_keep_alive(unknown).await.unwrap().into_inner().message().await;
        assert_eq!(kept.unwrap().map(|kept| kept.ttl), Some(0));
        let ask = pb::LeaseTimeToLiveRequest { id: 1234, keys: false };
        assert_eq!(lease.lease_time_to_live(ask).await.unwrap().into_inner().ttl, -1);
    })
    .unwrap();
}

#[test]
fn leadership_is_not_moved_by_who_has_none_or_to_who_cannot_take_it() {
    let site = super::site("v3-bad-move");
    let members = super::started(&site, &["a", "b", "c"]);
    run(async {
        let clients = super::v3::clients(&members);
        let leads = super::v3::leader(&clients.iter().collect::<Vec<_>>()).await;
        for client in &clients {
            let own = super::v3::id(client).await;
            let (text, target_id) =
                if own == leads { ("bad leader transferee", 1) } else { ("not leader", own) };
            let moved = pb::MoveLeaderRequest { target_id };
            let refused = refused(client.maintenance.clone().move_leader(moved).await);
            assert_eq!(refused, said(Code::FailedPrecondition, text));
        }
    })
    .unwrap();
}

#[test]
fn headers_are_refused_in_the_words_of_etcd() {
    let site = super::site("v3-bad-header");
    let member = super::alone(&site);
    let version = |bytes: &[u8]| {
        let mut head = b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\nGrpc-Metadata-Client-Api-Version: ".to_vec();
        head.extend_from_slice(bytes);
        head.extend_from_slice(b"\r\nConnection: close\r\n\r\n{\"key\":\"Zm9v\"}");
        let mut stream = TcpStream::connect(member.client).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        stream.write_all(&head).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let refused = version(b"3.\xff");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("etcdserver: invalid client api version"), "{refused}");
    assert!(version(b"3.5").starts_with("HTTP/1.1 200 "));
}

/// Methods that come later, by the gateway's paths, and what they say.
const LATER: &[(&str, &[&str])] = &[
    ("changing the members", &["cluster/member/add", "cluster/member/remove"]),
    ("changing the members", &["cluster/member/update", "cluster/member/promote"]),
    ("a snapshot in the format of etcd", &["maintenance/snapshot"]),
    ("a downgrade of a running cluster", &["maintenance/downgrade"]),
    ("having users and roles", &["auth/enable", "auth/disable"]),
    ("having users and roles", &["auth/user/add", "auth/user/get", "auth/user/list"]),
    ("having users and roles", &["auth/user/delete", "auth/user/changepw"]),
    ("having users and roles", &["auth/user/grant", "auth/user/revoke"]),
    ("having users and roles", &["auth/role/add", "auth/role/get", "auth/role/list"]),
    ("having users and roles", &["auth/role/delete", "auth/role/grant", "auth/role/revoke"]),
    ("an election held by the server", &["election/campaign", "election/proclaim"]),
    ("an election held by the server", &["election/leader", "election/observe"]),
    ("an election held by the server", &["election/resign"]),
    ("a lock kept by the server", &["lock/lock", "lock/unlock"]),
];

#[test]
fn every_method_that_comes_later_names_what_is_missing() {
    let site = super::site("v3-later");
    let member = super::alone(&site);
    for (what, paths) in LATER {
        for path in *paths {
            let path = format!("/v3/{path}");
            let body = Some(("application/json", "{}"));
            let answer = member.ask(&HttpRequest { method: "POST", path: &path, body }).unwrap();
            assert_eq!(answer.status, 501, "{path}: {}", answer.body);
            let text = format!("\"code\":12,\"message\":\"corebox: {what} is not there yet\"");
            assert!(answer.body.contains(&text), "{path}: {}", answer.body);
        }
    }
}

#[test]
fn what_is_not_there_says_so() {
    let site = super::site("v3-not-there");
    let member = super::alone(&site);
    run(async {
        let client = Client::new(member.client);
        let add = pb::MemberAddRequest::default();
        let (code, text) = refused(client.cluster.clone().member_add(add).await);
        assert_eq!(code, Code::Unimplemented);
        assert_eq!(text, "corebox: changing the members is not there yet");
        let snapshot = client.maintenance.clone().snapshot(pb::SnapshotRequest {}).await;
        let (code, text) = refused(snapshot.map(drop));
        assert_eq!(code, Code::Unimplemented);
        assert_eq!(text, "corebox: a snapshot in the format of etcd is not there yet");
    })
    .unwrap();
}

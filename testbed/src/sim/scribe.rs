//! Changes the v3 keys through a member, in all the ways there are.
//!
//! What the changes do is not looked at here: the invariants see to it that all members have the
//! same keys, leases and history at the same place of the log, however they came there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corebox::consensus::{LeaseAsk, Member};
use corebox::foundation::random::Random;
use corebox::store::Command;
use corebox::store::keys_v3::Change;
use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::request_op::Request;

/// How long a change or a question may take.
const DEADLINE: Duration = Duration::from_millis(900);
/// Most milliseconds between two of them.
const THINK_MS_MAX: u64 = 300;
/// How many leases there may be.
const LEASES: u64 = 3;

/// Works until told to stop.
pub async fn work(member: Member, random: Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(random.between(1, THINK_MS_MAX))).await;
        let lease = random.between(1, LEASES).cast_signed();
        if random.one_in(6) {
            // Whether it is there does not matter, nor whether anyone answers.
            member.lease(LeaseAsk::Renew(lease), DEADLINE).await.ok();
            continue;
        }
        let revision = member.read(|machine| machine.keys_v3.view().revision());
        let change = change(&random, lease, revision);
        member.propose(vec![Command::V3(change)], DEADLINE).await.ok();
    }
}

fn change(random: &Random, lease: i64, revision: i64) -> Change {
    let key = format!("k{}", random.below(4)).into_bytes();
    match random.below(10) {
        0 => Change::LeaseGrant { id: lease, ttl: 1 },
        1 => Change::LeaseRevoke { id: lease },
        2 => Change::Compact { revision: revision - random.below(5).cast_signed() },
        3 => op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key,
            range_end: if random.one_in(2) { b"\0".into() } else { Vec::new() },
            prev_kv: true,
        })),
        4 => op(Request::RequestTxn(pb::TxnRequest {
            success: vec![put(key, random, 0), put(b"both".into(), random, 0)],
            ..pb::TxnRequest::default()
        })),
        5 => Change::Op(put(key, random, lease)),
        _ => Change::Op(put(key, random, 0)),
    }
}

fn op(request: Request) -> Change {
    Change::Op(pb::RequestOp { request: Some(request) })
}

fn put(key: Vec<u8>, random: &Random, lease: i64) -> pb::RequestOp {
    let value = random.hex(8).into_bytes();
    let put = pb::PutRequest { key, value, lease, ..pb::PutRequest::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

//! Operations on keys over gRPC, with clients made of the product's own definitions.

use std::net::SocketAddrV4;

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use corebox::wire::etcd::v3::etcdserverpb::kv_client::KvClient;
use corebox::wire::etcd::v3::etcdserverpb::request_op;
use testbed::error::LabError;
use testbed::etcd_v3;
use tonic::Status;
use tonic::transport::Channel;

use crate::bench::etcd::load::{self, Client};
use crate::bench::etcd::rows::{LISTED, Op, READ, VALUE_BYTES};
use crate::bench::etcd::servers::refused;

/// Connections of 64 clients; of a thousand a tenth have one.
const CONNECTIONS: usize = 10;
/// Clients that fill a store.
const FILLERS: usize = 500;
/// Spreads numbers over keys: the golden ratio's digits, times a number, wrapped.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A client that does one kind of operation.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Keys {
    kv: KvClient<Channel>,
    op: Op,
    value: Vec<u8>,
}

/// Makes clients that share connections.
pub(in crate::bench) fn clients(address: SocketAddrV4, op: Op, count: usize) -> Vec<Keys> {
    let connections = (count / 10).max(CONNECTIONS).min(count);
    let connect = |_| etcd_v3::Client::new(address).kv;
    let connections: Vec<_> = (0..connections).map(connect).collect();
    let value = vec![b'x'; VALUE_BYTES];
    let of = |kv: &KvClient<_>| Keys { kv: kv.clone(), op, value: value.clone() };
    connections.iter().cycle().take(count).map(of).collect()
}

/// Puts so many keys as `number`s from 0 on, and returns the revision after them.
pub(super) async fn fill(address: SocketAddrV4, op: Op, count: u64) -> Result<i64, LabError> {
    let fillers = FILLERS.min(usize::try_from(count).unwrap_or(FILLERS));
    load::times(clients(address, op, fillers), count).await?;
    let last = etcd_v3::Client::new(address).put("the last", "").await;
    last.map_err(|status| refused(address, &status))
}

impl Keys {
    async fn get(&mut self, number: u64) -> Result<bool, Status> {
        let key = key((number.wrapping_mul(SPREAD) >> 20) % READ);
        let asked = pb::RangeRequest { key, ..pb::RangeRequest::default() };
        let answer = self.kv.range(asked).await?.into_inner();
        Ok(answer.kvs.first().is_some_and(|kv| kv.value.len() == VALUE_BYTES))
    }

    async fn list(&mut self) -> Result<bool, Status> {
        let (key, range_end) = (key(0), key(LISTED));
        let asked = pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() };
        let answer = self.kv.range(asked).await?.into_inner();
        Ok(u64::try_from(answer.kvs.len()) == Ok(LISTED))
    }

    fn put(&self, key: Vec<u8>) -> pb::PutRequest {
        pb::PutRequest { key, value: self.value.clone(), ..pb::PutRequest::default() }
    }

    async fn txn(&mut self, number: u64) -> Result<bool, Status> {
        let is_new = pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key(number),
            target_union: Some(TargetUnion::CreateRevision(0)),
            range_end: Vec::new(),
        };
        let put = request_op::Request::RequestPut(self.put(key(number)));
        let asked = pb::TxnRequest {
            compare: vec![is_new],
            success: vec![pb::RequestOp { request: Some(put) }],
            failure: Vec::new(),
        };
        Ok(self.kv.txn(asked).await?.into_inner().succeeded)
    }
}

impl Client for Keys {
    async fn once(&mut self, number: u64) -> Result<(), String> {
        let good = match self.op {
            Op::Put { keys } => {
                let asked = self.put(key(number % keys));
                self.kv.put(asked).await.map(|_| true)
            }
            Op::Get => self.get(number).await,
            Op::List => self.list().await,
            Op::Txn => self.txn(number).await,
            Op::PutV2 | Op::GetV2 => Err(Status::internal("not an operation of v3")),
        };
        match good {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{:?} number {number}: not what was put", self.op)),
            Err(status) => Err(status.to_string()),
        }
    }
}

/// Eight bytes that sort as the number does.
fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

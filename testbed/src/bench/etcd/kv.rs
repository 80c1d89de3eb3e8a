//! Operations on keys over gRPC, with messages made of the product's own definitions.

use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;
use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use corebox::wire::etcd::v3::etcdserverpb::request_op;
use http::Uri;
use prost::Message;
use testbed::error::LabError;
use testbed::etcd_v3;

use crate::bench::etcd::load::{self, Client};
use crate::bench::etcd::rows::{LISTED, Op, READ, VALUE_BYTES};
use crate::bench::etcd::servers::refused;
use crate::bench::etcd::unary::{Line, method};

/// Connections of 64 clients; of a thousand a tenth have one.
const CONNECTIONS: usize = 10;
/// Clients that fill a store.
const FILLERS: usize = 500;
/// Spreads numbers over keys: the golden ratio's digits, times a number, wrapped.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A client that does one kind of operation.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Keys {
    line: Line,
    methods: Arc<Methods>,
    op: Op,
    value: Vec<u8>,
}

/// Where the methods are.
#[derive(Debug)]
struct Methods {
    put: Uri,
    range: Uri,
    txn: Uri,
}

/// A `RangeResponse` of which only the number of keys is of interest: they are not copied.
#[derive(Clone, PartialEq, Message)]
struct Listing {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    kvs: Vec<Bytes>,
    #[prost(int64, tag = "4")]
    count: i64,
}

/// Makes clients that share connections.
pub(in crate::bench) fn clients(address: SocketAddrV4, op: Op, count: usize) -> Vec<Keys> {
    let connections = (count / 10).max(CONNECTIONS).min(count);
    let connections: Vec<_> = (0..connections).map(|_| Line::new(address)).collect();
    let methods = Arc::new(Methods {
        put: method(address, "/etcdserverpb.KV/Put"),
        range: method(address, "/etcdserverpb.KV/Range"),
        txn: method(address, "/etcdserverpb.KV/Txn"),
    });
    let value = vec![b'x'; VALUE_BYTES];
    let of = |line: &Line| {
        let (line, methods, value) = (line.clone(), methods.clone(), value.clone());
        Keys { line, methods, op, value }
    };
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
    async fn get(&self, number: u64) -> Result<bool, String> {
        let key = key((number.wrapping_mul(SPREAD) >> 20) % READ);
        let asked = pb::RangeRequest { key, ..pb::RangeRequest::default() };
        let answer: pb::RangeResponse = self.call(&self.methods.range, &asked).await?;
        Ok(answer.kvs.first().is_some_and(|kv| kv.value.len() == VALUE_BYTES))
    }

    async fn list(&self) -> Result<bool, String> {
        let (key, range_end) = (key(0), key(LISTED));
        let asked = pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() };
        let answer: Listing = self.call(&self.methods.range, &asked).await?;
        let whole = answer.kvs.iter().all(|kv| kv.len() > VALUE_BYTES);
        Ok(whole && [answer.kvs.len() as u64, answer.count.cast_unsigned()] == [LISTED; 2])
    }

    async fn put(&self, number: u64) -> Result<bool, String> {
        let answer: pb::PutResponse = self.call(&self.methods.put, &self.request(number)).await?;
        Ok(answer.header.is_some_and(|header| header.revision > 1))
    }

    fn request(&self, number: u64) -> pb::PutRequest {
        let (key, value) = (key(number), self.value.clone());
        pb::PutRequest { key, value, ..pb::PutRequest::default() }
    }

    async fn txn(&self, number: u64) -> Result<bool, String> {
        let is_new = pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key(number),
            target_union: Some(TargetUnion::CreateRevision(0)),
            range_end: Vec::new(),
        };
        let put = request_op::Request::RequestPut(self.request(number));
        let asked = pb::TxnRequest {
            compare: vec![is_new],
            success: vec![pb::RequestOp { request: Some(put) }],
            failure: Vec::new(),
        };
        let answer: pb::TxnResponse = self.call(&self.methods.txn, &asked).await?;
        Ok(answer.succeeded)
    }

    async fn call<A: Message + Default>(
        &self,
        method: &Uri,
        asked: &impl Message,
    ) -> Result<A, String> {
        let answer = self.line.call(method, asked).await?;
        A::decode(answer).map_err(|error| error.to_string())
    }
}

impl Client for Keys {
    async fn once(&mut self, number: u64) -> Result<(), String> {
        let good = match self.op {
            Op::Put { keys } => self.put(number % keys).await?,
            Op::Get => self.get(number).await?,
            Op::List => self.list().await?,
            Op::Txn => self.txn(number).await?,
            Op::PutV2 | Op::GetV2 => return Err("not an operation of v3".to_owned()),
        };
        if good { Ok(()) } else { Err(format!("{:?} number {number}: not what was put", self.op)) }
    }
}

/// Eight bytes that sort as the number does.
fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

//! Reading and writing keys.

use std::time::Duration;

use bytes::Buf as _;
use futures_util::stream;
use http_body_util::BodyExt as _;
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

use crate::foundation::limits::{RANGE_PART_BYTES, REQUEST_BYTES_MAX, TXN_OPS_MAX};
use crate::rpc::server::v3::listed::Listed;
use crate::rpc::server::v3::whole::HEAD_BYTES;
use crate::rpc::server::v3::{Answers, Service, errors};
use crate::store::keys_v3::{Answer, Change, answer, request};
use crate::store::mvcc::{KeyRange, Listing, MvccError, Part, Parts, Range, RangeResult, View};
use crate::store::{Command, Outcome};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::kv_server::Kv;
use crate::wire::etcd::v3::etcdserverpb::request_op::Request as Op;
use crate::wire::etcd::v3::etcdserverpb::response_op::Response as OpAnswer;

/// How long memory may take to be freed after a compaction: steps between which batches are applied,
/// so a million revisions take seconds. Who asked for it and is gone is not waited for.
const SWEEP: Duration = Duration::from_mins(10);

#[tonic::async_trait]
impl Kv for Service {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let body = self.read_range(&request.into_inner()).await?.collect().await?;
        let mut encoded = body.to_bytes();
        encoded.advance(HEAD_BYTES);
        let answer = pb::RangeResponse::decode(encoded);
        answer.map(Response::new).map_err(|_| errors::no_answer())
    }

    type RangeStreamStream = Answers<pb::RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let asked = request.into_inner();
        let range = request::range(&asked).map_err(|refused| errors::of_store(&refused))?;
        if !range.is_plain() {
            let text = "a streamed range is in the order of its keys, without filters; use Range";
            return Err(errors::said(Code::Unimplemented, text));
        }
        if !asked.serializable {
            self.confirmed().await?;
        }
        self.check_agreed()?;
        let parts = Parts::new(self.view(), &range);
        let parts = parts.map_err(|error| errors::of_store(&error.into()))?;
        let (service, keys_only) = (self.clone(), asked.keys_only);
        let answers = stream::unfold(Some(parts), move |parts| {
            let next = parts.map(|parts| service.next_part(parts, keys_only));
            async move { next }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let done = self.write(Op::RequestPut(request.into_inner())).await?;
        let OpAnswer::ResponsePut(mut answer) = done else { return Err(errors::no_answer()) };
        answer.header = self.full(answer.header);
        Ok(Response::new(answer))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let done = self.write(Op::RequestDeleteRange(request.into_inner())).await?;
        let OpAnswer::ResponseDeleteRange(mut answer) = done else {
            return Err(errors::no_answer());
        };
        answer.header = self.full(answer.header);
        Ok(Response::new(answer))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let asked = request.into_inner();
        if let Some(read) = self.read_txn(&asked).await? {
            return Ok(Response::new(read));
        }
        let done = self.write(Op::RequestTxn(asked)).await?;
        let OpAnswer::ResponseTxn(mut answer) = done else { return Err(errors::no_answer()) };
        answer.header = self.full(answer.header);
        Ok(Response::new(answer))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let asked = request.into_inner();
        let change = Change::Compact { revision: asked.revision };
        let Answer::Done { revision } = self.change(change).await? else {
            return Err(errors::no_answer());
        };
        if asked.physical {
            self.swept(asked.revision).await?;
        }
        Ok(Response::new(pb::CompactionResponse { header: self.header(revision) }))
    }
}

/// An answer, unless it is longer than gRPC can say.
type Framed = Result<Listed, Status>;

/// The next message of a streamed range, and what is left of it.
type NextPart = (Result<pb::RangeStreamResponse, Status>, Option<Parts>);

impl Service {
    /// Reads a range; returns a `RangeResponse` as gRPC has it. The store keeps each key as the wire
    /// has it, so no message is made of what may be megabytes.
    pub(super) async fn read_range(&self, asked: &pb::RangeRequest) -> Result<Listed, Status> {
        let range = request::range(asked).map_err(|refused| errors::of_store(&refused))?;
        if !asked.serializable {
            self.confirmed().await?;
        }
        self.check_agreed()?;
        // One key is read where it is; many are read of a view, which holds nobody up.
        let read = if matches!(range.range, KeyRange::One(_)) {
            self.member.read(|machine| self.encode_range(machine.keys_v3.now(), &range))
        } else if range.is_listed() {
            self.list_range(self.view(), &range)
        } else {
            self.encode_range(&self.view(), &range)
        };
        read.unwrap_or_else(|error| Err(errors::of_store(&error.into())))
    }

    /// Reads a range of a view, and encodes it.
    fn encode_range(&self, view: &View, range: &Range<'_>) -> Result<Framed, MvccError> {
        let read = view.range(range)?;
        let counted = answer::counted(read.count, read.more);
        let mut framed =
            self.begun(view.revision(), read.encoded_kvs_len() + counted.encoded_len());
        read.encode_kvs(&mut framed);
        counted.encode_raw(&mut framed);
        let length = framed.len() - HEAD_BYTES;
        Ok(set_length(&mut framed, length).map(|()| Listed::whole(framed)))
    }

    /// Begins to read a range of a view, which is encoded while it is sent.
    fn list_range(&self, view: View, range: &Range<'_>) -> Result<Framed, MvccError> {
        let revision = view.revision();
        let listing = Listing::new(view, range)?;
        let tail = answer::counted(listing.count(), listing.more()).encode_to_vec();
        let mut head = self.begun(revision, 0);
        let length = head.len() - HEAD_BYTES + listing.bytes_left() + tail.len();
        Ok(set_length(&mut head, length).map(|()| {
            let listed = Listed::new(head, listing, tail);
            self.readers.add(&listed);
            listed
        }))
    }

    /// Begins a `RangeResponse`: with room for gRPC's own head, its header, and room for more.
    fn begun(&self, revision: i64, room: usize) -> Vec<u8> {
        let header = pb::RangeResponse { header: self.header(revision), ..Default::default() };
        let mut begun = Vec::with_capacity(HEAD_BYTES + header.encoded_len() + room);
        begun.resize(HEAD_BYTES, 0);
        header.encode_raw(&mut begun);
        begun
    }

    /// Reads on in a range. The last message says what is about all of them, so that they may be
    /// merged into one answer.
    fn next_part(&self, mut parts: Parts, keys_only: bool) -> NextPart {
        let Part { kvs, is_last } = parts.next_part(RANGE_PART_BYTES);
        let (count, more) = (parts.count(), parts.more());
        let result = RangeResult { kvs, count, more, keys_only };
        let mut answer = answer::range(parts.revision(), &result);
        if is_last {
            answer.header = self.full(answer.header);
        } else {
            answer = pb::RangeResponse { kvs: answer.kvs, ..pb::RangeResponse::default() };
        }
        let answer = pb::RangeStreamResponse { range_response: Some(answer) };
        (Ok(answer), (!is_last).then_some(parts))
    }

    /// Has a change made through the log.
    pub(super) async fn change(&self, change: Change) -> Result<Answer, Status> {
        self.admit(&change).await?;
        let proposed = self.member.propose(vec![Command::V3(change)], self.deadline).await;
        let mut outcomes = proposed.map_err(|error| errors::of_proposal(&error))?;
        match outcomes.pop() {
            Some(Outcome::V3(Ok(answer))) => Ok(answer),
            Some(Outcome::V3(Err(refused))) => Err(errors::of_store(&refused)),
            Some(Outcome::Event(_) | Outcome::Refused(_) | Outcome::Done) | None => {
                Err(errors::no_answer())
            }
        }
    }

    /// Checks an operation, and has it done through the log.
    async fn write(&self, asked: Op) -> Result<OpAnswer, Status> {
        let op = pb::RequestOp { request: Some(asked) };
        let checked = request::op(&op).and_then(|op| Ok(op.check(TXN_OPS_MAX)?));
        checked.map_err(|refused| errors::of_store(&refused))?;
        if op.encoded_len() > REQUEST_BYTES_MAX {
            return Err(errors::request_too_large());
        }
        match self.change(Change::Op(op)).await? {
            Answer::Op(pb::ResponseOp { response: Some(response) }) => Ok(response),
            Answer::Op(_) | Answer::Done { .. } | Answer::Alarms(_) => Err(errors::no_answer()),
        }
    }

    /// Answers a transaction that cannot write without the log; `None` if it could.
    async fn read_txn(&self, asked: &pb::TxnRequest) -> Result<Option<pb::TxnResponse>, Status> {
        let of_store = |refused| errors::of_store(&refused);
        {
            let txn = request::txn(asked).map_err(of_store)?;
            if !txn.is_read_only() {
                return Ok(None);
            }
            let checked = crate::store::mvcc::check_txn(&txn, TXN_OPS_MAX);
            checked.map_err(|error| of_store(error.into()))?;
        }
        if !is_serializable(asked) {
            self.confirmed().await?;
        }
        self.check_agreed()?;
        let read = read_txn(&self.view(), asked).map_err(of_store)?;
        Ok(read.map(|mut answer| {
            answer.header = self.full(answer.header);
            answer
        }))
    }

    /// Adds who answers to a header with a revision.
    fn full(&self, header: Option<pb::ResponseHeader>) -> Option<pb::ResponseHeader> {
        self.header(header.map_or(0, |header| header.revision))
    }

    /// Waits until memory is freed after a compaction.
    async fn swept(&self, revision: i64) -> Result<(), Status> {
        let mut progress = self.member.progress();
        let swept = progress.wait_for(|progress| progress.swept >= revision);
        match tokio::time::timeout(SWEEP, swept).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(errors::stopped()),
            Err(_) => Err(errors::timed_out()),
        }
    }
}

/// Says in gRPC's head of a message how long it is.
fn set_length(framed: &mut [u8], length: usize) -> Result<(), Status> {
    let length = u32::try_from(length);
    let length = length.map_err(|_| Status::out_of_range("the answer has over 4 GiB"))?;
    framed[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn read_txn(
    view: &View,
    asked: &pb::TxnRequest,
) -> Result<Option<pb::TxnResponse>, request::Refused> {
    let txn = request::txn(asked)?;
    Ok(view.read_txn(&txn).transpose()?.map(answer::txn))
}

/// Tells whether a transaction that only reads may be answered by any member by itself.
fn is_serializable(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Op::RequestRange(range)) => range.serializable,
        Some(Op::RequestTxn(txn)) => is_serializable(txn),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) | None => false,
    })
}

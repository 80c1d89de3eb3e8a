//! What is refused, in the words and with the codes that clients of etcd match.
//!
//! Source: the specification B.10.

use axum::response::Response;
use http::HeaderValue;
use tonic::{Code, Status};

use crate::consensus::proposer::ProposeError;
use crate::rpc::server::v3::MESSAGE_BYTES_MAX;
use crate::store::keys_v3::Refused;
use crate::store::mvcc::MvccError;

/// Makes a status of a text behind `etcdserver: `.
pub fn refused(code: Code, text: &str) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

/// The cluster did not answer in time.
pub fn timed_out() -> Status {
    refused(Code::Unavailable, "request timed out")
}

/// There is no leader.
pub fn no_leader() -> Status {
    refused(Code::Unavailable, "no leader")
}

/// The server stops.
pub fn stopped() -> Status {
    refused(Code::Unavailable, "server stopped")
}

/// The request is longer than a request may be.
pub fn request_too_large() -> Status {
    refused(Code::InvalidArgument, "request is too large")
}

/// The client says in no text which version of the API it speaks.
pub fn bad_client_version() -> Status {
    refused(Code::InvalidArgument, "invalid client api version")
}

/// Makes a status in words of our own, which no client matches.
pub fn said(code: Code, text: &str) -> Status {
    Status::new(code, format!("corebox: {text}"))
}

/// This member serves no such thing yet.
pub fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("corebox: {what} is not there yet"))
}

/// The log answered with something else than was asked for.
pub fn no_answer() -> Status {
    Status::internal("corebox: the log gave no answer to the request")
}

/// Shows what the store refuses.
pub fn of_store(why: &Refused) -> Status {
    match why {
        Refused::NoOperation => refused(Code::InvalidArgument, "key not found"),
        Refused::UnknownSort => refused(Code::InvalidArgument, "invalid sort option"),
        Refused::UnknownCompare => refused(Code::InvalidArgument, "invalid compare option"),
        Refused::Engine(error) => of_engine(*error),
        Refused::NoSpace => refused(Code::ResourceExhausted, "mvcc: database space exceeded"),
        Refused::Corrupt => refused(Code::DataLoss, "corrupt cluster"),
    }
}

fn of_engine(error: MvccError) -> Status {
    let (code, text) = match error {
        MvccError::Compacted { .. } => (Code::OutOfRange, COMPACTED),
        MvccError::FutureRevision { .. } => {
            (Code::OutOfRange, "mvcc: required revision is a future revision")
        }
        MvccError::KeyNotProvided => (Code::InvalidArgument, "key is not provided"),
        MvccError::KeyNotFound => (Code::InvalidArgument, "key not found"),
        MvccError::ValueProvided => (Code::InvalidArgument, "value is provided"),
        MvccError::LeaseProvided => (Code::InvalidArgument, "lease is provided"),
        MvccError::TooManyOps { .. } => {
            (Code::InvalidArgument, "too many operations in txn request")
        }
        MvccError::DuplicateKey => (Code::InvalidArgument, "duplicate key given in txn request"),
        MvccError::LeaseNotFound { .. } => (Code::NotFound, "requested lease not found"),
        MvccError::LeaseExists { .. } => (Code::FailedPrecondition, "lease already exists"),
        MvccError::LeaseTtlTooLarge { .. } => (Code::OutOfRange, "too large lease TTL"),
    };
    refused(code, text)
}

/// What a watch is told too, without the `etcdserver: `.
pub const COMPACTED: &str = "mvcc: required revision has been compacted";

/// Shows why the log took nothing, or may not have.
pub fn of_proposal(error: &ProposeError) -> Status {
    match error {
        ProposeError::NoLeader | ProposeError::NotLeader | ProposeError::Unknown { .. } => {
            timed_out()
        }
        ProposeError::Overloaded => refused(Code::ResourceExhausted, "too many requests"),
        ProposeError::Stopping => stopped(),
    }
}

/// Says of a message that was not even read what a client of etcd knows: the library's own code
/// for it is that of a revision that is out of range.
pub fn too_large(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let number = |code: Code| HeaderValue::from(i32::from(code));
    if headers.get("grpc-status").is_none_or(|status| *status != number(Code::OutOfRange)) {
        return response;
    }
    let said = headers.get("grpc-message").and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said = percent_encoding::percent_decode_str(said).decode_utf8_lossy();
    let found = said
        .split_once("length too large: found ")
        .and_then(|(_, rest)| rest.split_once(' ').map(|(length, _)| length.to_owned()));
    let Some(length) = found else { return response };
    let text = format!("received message larger than max ({length} vs. {MESSAGE_BYTES_MAX})");
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.insert("grpc-status", number(Code::ResourceExhausted));
        headers.insert("grpc-message", text);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: &Status, code: Code, text: &str) {
        assert_eq!((said.code(), said.message()), (code, format!("etcdserver: {text}").as_str()));
    }

    #[test]
    fn what_the_store_refuses_is_said_in_the_words_of_etcd() {
        for (refused, code, text) in [
            (Refused::NoOperation, Code::InvalidArgument, "key not found"),
            (Refused::UnknownSort, Code::InvalidArgument, "invalid sort option"),
            (Refused::NoSpace, Code::ResourceExhausted, "mvcc: database space exceeded"),
            (Refused::Corrupt, Code::DataLoss, "corrupt cluster"),
        ] {
            check(&of_store(&refused), code, text);
        }
        let too_large = MvccError::LeaseTtlTooLarge { ttl: 2, ttl_max: 1 };
        for (refused, code, text) in [
            (MvccError::KeyNotProvided, Code::InvalidArgument, "key is not provided"),
            (MvccError::KeyNotFound, Code::InvalidArgument, "key not found"),
            (MvccError::ValueProvided, Code::InvalidArgument, "value is provided"),
            (MvccError::LeaseProvided, Code::InvalidArgument, "lease is provided"),
            (
                MvccError::TooManyOps { ops_max: 1 },
                Code::InvalidArgument,
                "too many operations in txn request",
            ),
            (MvccError::DuplicateKey, Code::InvalidArgument, "duplicate key given in txn request"),
            (
                MvccError::Compacted { compact_revision: 1 },
                Code::OutOfRange,
                "mvcc: required revision has been compacted",
            ),
            (
                MvccError::FutureRevision { current: 1 },
                Code::OutOfRange,
                "mvcc: required revision is a future revision",
            ),
            (too_large, Code::OutOfRange, "too large lease TTL"),
            (MvccError::LeaseNotFound { id: 1 }, Code::NotFound, "requested lease not found"),
            (MvccError::LeaseExists { id: 1 }, Code::FailedPrecondition, "lease already exists"),
        ] {
            check(&of_store(&refused.into()), code, text);
        }
    }

    #[test]
    fn what_the_log_refuses_is_said_in_the_words_of_etcd() {
        let unknown = ProposeError::Unknown { why: "silence".to_owned() };
        for (error, code, text) in [
            (ProposeError::Overloaded, Code::ResourceExhausted, "too many requests"),
            (ProposeError::Stopping, Code::Unavailable, "server stopped"),
            (ProposeError::NoLeader, Code::Unavailable, "request timed out"),
            (ProposeError::NotLeader, Code::Unavailable, "request timed out"),
            (unknown, Code::Unavailable, "request timed out"),
        ] {
            check(&of_proposal(&error), code, text);
        }
        check(&no_leader(), Code::Unavailable, "no leader");
        check(&request_too_large(), Code::InvalidArgument, "request is too large");
        check(&bad_client_version(), Code::InvalidArgument, "invalid client api version");
    }
}

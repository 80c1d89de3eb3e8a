//! Messages as JSON, by the rules of proto3 as etcd's gateway keeps them: fields by the names of the
//! definitions (or in camel case, when they are read), bytes in base64, numbers of 64 bits as texts,
//! values of enums by their names, and nothing that is zero.
//!
//! It goes from JSON to the encoding and back, by tables that `build.rs` makes of the definitions: no
//! code for any one message.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{decode_varint, encode_varint};
use serde_json::Value;

/// A method of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Its path, such as `/etcdserverpb.KV/Range`.
    pub path: &'static str,
    /// The message it takes.
    pub input: &'static str,
    /// The message it answers with.
    pub output: &'static str,
    /// Whether it takes many.
    pub many_requests: bool,
    /// Whether it answers with many.
    pub many_answers: bool,
}

/// Finds a method by its path.
pub fn method(path: &str) -> Option<&'static Method> {
    let found = METHODS.binary_search_by(|method| method.path.cmp(path)).ok()?;
    METHODS.get(found)
}

struct Message {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    number: u64,
    name: &'static str,
    camel: &'static str,
    kind: Kind,
    many: bool,
}

enum Kind {
    Bytes,
    Text,
    Flag,
    Int64,
    Uint64,
    Uint32,
    Enum(&'static str),
    Message(&'static str),
}

struct Enum {
    name: &'static str,
    values: &'static [(i32, &'static str)],
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// JSON that is not the message it should be, or the other way round.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON.
    #[error("the body is not JSON")]
    Syntax {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has something else than it can hold.
    #[error("`{field}` is not {wanted}")]
    Field {
        /// The field, or the message.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The encoding of a message is not that of this message.
    #[error("a message cannot be shown: its encoding is broken")]
    Encoding,
    /// There is no such message.
    #[error("there is no message `{name}`")]
    Unknown {
        /// Its name.
        name: &'static str,
    },
}

/// How bytes are written. Read they are in both alphabets, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const VARINT: u64 = 0;
const LENGTH: u64 = 2;

/// Reads a message from JSON; returns its encoding. Fields that it does not have are not looked at.
pub fn read(message: &'static str, json: &[u8]) -> Result<Vec<u8>, JsonError> {
    let value = serde_json::from_slice(json).map_err(|source| JsonError::Syntax { source })?;
    let mut out = Vec::new();
    put_message(&mut out, message, &value)?;
    Ok(out)
}

/// Writes a message, as the library encodes it, as JSON.
pub fn write(message: &'static str, encoded: &[u8]) -> Result<String, JsonError> {
    let mut out = String::new();
    show_message(&mut out, message, encoded)?;
    Ok(out)
}

fn find(name: &'static str) -> Result<&'static Message, JsonError> {
    let found = MESSAGES.binary_search_by(|message| message.name.cmp(name)).ok();
    found.and_then(|at| MESSAGES.get(at)).ok_or(JsonError::Unknown { name })
}

fn names_of(name: &str) -> &'static [(i32, &'static str)] {
    let found = ENUMS.binary_search_by(|one| one.name.cmp(name)).ok();
    found.and_then(|at| ENUMS.get(at)).map_or(&[], |one| one.values)
}

fn put_message(out: &mut Vec<u8>, name: &'static str, value: &Value) -> Result<(), JsonError> {
    let message = find(name)?;
    if value.is_null() {
        return Ok(());
    }
    let wrong = || JsonError::Field { field: message.name, wanted: "an object" };
    for (name, value) in value.as_object().ok_or_else(wrong)? {
        let named = |field: &&Field| field.name == *name || field.camel == *name;
        let Some(field) = message.fields.iter().find(named) else { continue };
        if value.is_null() {
            continue;
        }
        if !field.many {
            put(out, field, value)?;
            continue;
        }
        let wrong = || JsonError::Field { field: field.name, wanted: "a list" };
        for value in value.as_array().ok_or_else(wrong)? {
            put(out, field, value)?;
        }
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, field: &Field, value: &Value) -> Result<(), JsonError> {
    let wrong = |wanted| JsonError::Field { field: field.name, wanted };
    let mut number = |number: u64| {
        encode_varint(field.number << 3 | VARINT, out);
        encode_varint(number, out);
    };
    match field.kind {
        Kind::Flag => number(value.as_bool().ok_or_else(|| wrong("true or false"))?.into()),
        Kind::Int64 => {
            let parsed = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            number(parsed.ok_or_else(|| wrong("a number of 64 bits"))?.cast_unsigned());
        }
        Kind::Uint64 => number(unsigned(value).ok_or_else(|| wrong("a number from 0 on"))?),
        Kind::Uint32 => {
            let parsed = unsigned(value).and_then(|number| u32::try_from(number).ok());
            number(parsed.ok_or_else(|| wrong("a number of 32 bits"))?.into());
        }
        Kind::Enum(kind) => {
            let named = |name: &str| {
                names_of(kind).iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
            };
            let numbered = || i32::try_from(value.as_i64()?).ok();
            let parsed = value.as_str().and_then(named).or_else(numbered);
            let parsed = parsed.ok_or_else(|| wrong("one of the names it can have"))?;
            number(i64::from(parsed).cast_unsigned());
        }
        Kind::Text => {
            let text = value.as_str().ok_or_else(|| wrong("a text"))?;
            put_bytes(out, field, text.as_bytes());
        }
        Kind::Bytes => {
            let bytes = value.as_str().and_then(decoded).ok_or_else(|| wrong("in base64"))?;
            put_bytes(out, field, &bytes);
        }
        Kind::Message(name) => {
            let mut inner = Vec::new();
            put_message(&mut inner, name, value)?;
            put_bytes(out, field, &inner);
        }
    }
    Ok(())
}

fn unsigned(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    if text.contains(['-', '_']) {
        BASE64.decode(text.replace('-', "+").replace('_', "/")).ok()
    } else {
        BASE64.decode(text).ok()
    }
}

fn put_bytes(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    encode_varint(field.number << 3 | LENGTH, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn show_message(out: &mut String, name: &'static str, mut rest: &[u8]) -> Result<(), JsonError> {
    let message = find(name)?;
    out.push('{');
    // The list that the last element was in: they stand together.
    let mut list = None;
    let mut first = true;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let number = tag >> 3;
        let found = match tag & 7 {
            VARINT => Found::Number(varint(&mut rest)?),
            LENGTH => Found::Bytes(take(&mut rest)?),
            _ => return Err(JsonError::Encoding),
        };
        let Some(field) = message.fields.iter().find(|field| field.number == number) else {
            continue;
        };
        if list.is_some() && list != Some(number) {
            out.push(']');
            list = None;
        }
        if !first {
            out.push(',');
        }
        first = false;
        if list.is_none() {
            push(out, format_args!("\"{}\":", field.name));
            if field.many {
                out.push('[');
                list = Some(number);
            }
        }
        show(out, field, &found)?;
    }
    out.push_str(if list.is_some() { "]}" } else { "}" });
    Ok(())
}

/// One value on the wire.
enum Found<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn show(out: &mut String, field: &Field, found: &Found<'_>) -> Result<(), JsonError> {
    match (&field.kind, found) {
        (Kind::Flag, Found::Number(number)) => {
            out.push_str(if *number == 0 { "false" } else { "true" });
        }
        (Kind::Int64, Found::Number(number)) => {
            push(out, format_args!("\"{}\"", number.cast_signed()));
        }
        (Kind::Uint64, Found::Number(number)) => push(out, format_args!("\"{number}\"")),
        (Kind::Uint32, Found::Number(number)) => push(out, format_args!("{number}")),
        (Kind::Enum(name), Found::Number(number)) => {
            let known = |(value, _): &&(i32, &str)| i64::from(*value) == number.cast_signed();
            match names_of(name).iter().find(known) {
                Some((_, name)) => push(out, format_args!("\"{name}\"")),
                None => push(out, format_args!("{}", number.cast_signed())),
            }
        }
        (Kind::Text, Found::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Encoding)?;
            push(out, format_args!("{}", Value::from(text)));
        }
        (Kind::Bytes, Found::Bytes(bytes)) => {
            out.push('"');
            BASE64.encode_string(bytes, out);
            out.push('"');
        }
        (Kind::Message(name), Found::Bytes(bytes)) => show_message(out, name, bytes)?,
        _ => return Err(JsonError::Encoding),
    }
    Ok(())
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a text takes all that is written to it");
}

fn varint(rest: &mut &[u8]) -> Result<u64, JsonError> {
    decode_varint(rest).map_err(|_| JsonError::Encoding)
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], JsonError> {
    let length = usize::try_from(varint(rest)?).map_err(|_| JsonError::Encoding)?;
    let (taken, after) = rest.split_at_checked(length).ok_or(JsonError::Encoding)?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::exit::chain;
    use crate::wire::etcd::v3::etcdserverpb as pb;
    use crate::wire::etcd::v3::etcdserverpb::compare::TargetUnion;
    use crate::wire::etcd::v3::etcdserverpb::request_op::Request;
    use crate::wire::etcd::v3::mvccpb::KeyValue;
    use prost::Message as _;

    #[test]
    fn a_request_is_read_by_both_names_of_its_fields() {
        let json = br#"{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"2"}],
            "success":[{"requestPut":{"key":"Zm9v","value":"YmFy","prev_kv":true}}], "more": 1}"#;
        let read = read(".etcdserverpb.TxnRequest", json).unwrap();
        let read = pb::TxnRequest::decode(read.as_slice()).unwrap();
        let compare = pb::Compare {
            target: pb::compare::CompareTarget::Create.into(),
            key: b"foo".into(),
            target_union: Some(TargetUnion::CreateRevision(2)),
            ..pb::Compare::default()
        };
        let put = pb::PutRequest {
            key: b"foo".into(),
            value: b"bar".into(),
            prev_kv: true,
            ..pb::PutRequest::default()
        };
        let success = vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }];
        let expected = pb::TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        assert_eq!(read, expected);
    }

    #[test]
    fn numbers_names_and_bytes_are_read_in_each_of_their_forms() {
        for json in [
            r#"{"ID":"-3","TTL":"60"}"#,
            r#"{"ID":-3,"TTL":60,"other":{"ID":1}}"#,
            r#"{"ID":-3,"TTL":60,"TTL":60}"#,
        ] {
            let read = read(".etcdserverpb.LeaseGrantRequest", json.as_bytes()).unwrap();
            let read = pb::LeaseGrantRequest::decode(read.as_slice()).unwrap();
            assert_eq!((read.id, read.ttl), (-3, 60), "{json}");
        }
        for json in [r#"{"key":"+/8="}"#, r#"{"key":"-_8="}"#, r#"{"key":"-_8"}"#] {
            let read = read(".etcdserverpb.RangeRequest", json.as_bytes()).unwrap();
            let read = pb::RangeRequest::decode(read.as_slice()).unwrap();
            assert_eq!(read.key, [0xfb, 0xff], "{json}");
        }
        for json in [r#"{"filters":["NODELETE","NOPUT"]}"#, r#"{"filters":[1,0],"key":null}"#] {
            let read = read(".etcdserverpb.WatchCreateRequest", json.as_bytes()).unwrap();
            let read = pb::WatchCreateRequest::decode(read.as_slice()).unwrap();
            assert_eq!(read.filters, [1, 0], "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, text) in [
            (r#"{"key":"#, "the body is not JSON: EOF while parsing a value at line 1 column 7"),
            (r#"{"key":"%"}"#, "`key` is not in base64"),
            (r#"{"limit":"many"}"#, "`limit` is not a number of 64 bits"),
            (r#"{"sort_order":"UP"}"#, "`sort_order` is not one of the names it can have"),
            (r#"{"serializable":"yes"}"#, "`serializable` is not true or false"),
            ("[]", "`.etcdserverpb.RangeRequest` is not an object"),
        ] {
            let wrong = read(".etcdserverpb.RangeRequest", json.as_bytes()).unwrap_err();
            assert_eq!(chain(&wrong), text);
        }
        let wrong = read(".etcdserverpb.TxnRequest", br#"{"success":{}}"#).unwrap_err();
        assert_eq!(wrong.to_string(), "`success` is not a list");
    }

    #[test]
    fn an_answer_is_shown_as_it_was_recorded() {
        let header = pb::ResponseHeader {
            cluster_id: 12_101_053_776_118_486_841,
            member_id: 15_985_099_378_392_235_387,
            revision: 2,
            raft_term: 2,
        };
        let kv = |key: &[u8]| KeyValue {
            key: key.into(),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: b"bar".into(),
            lease: 0,
        };
        let kvs = vec![kv(b"foo"), kv(b"\"")];
        let answer = pb::RangeResponse { header: Some(header), kvs, more: true, count: 3 };
        let shown = write(".etcdserverpb.RangeResponse", &answer.encode_to_vec()).unwrap();
        let expected = concat!(
            r#"{"header":{"cluster_id":"12101053776118486841","#,
            r#""member_id":"15985099378392235387","revision":"2","raft_term":"2"},"#,
            r#""kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","#,
            r#""value":"YmFy"},{"key":"Ig==","create_revision":"2","mod_revision":"2","#,
            r#""version":"1","value":"YmFy"}],"more":true,"count":"3"}"#,
        );
        assert_eq!(shown, expected);
        let alarm = pb::AlarmMember { member_id: 1, alarm: 1 };
        let answer = pb::AlarmResponse { header: None, alarms: vec![alarm] };
        let shown = write(".etcdserverpb.AlarmResponse", &answer.encode_to_vec()).unwrap();
        assert_eq!(shown, r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}"#);
        assert_eq!(write(".etcdserverpb.PutResponse", b"").unwrap(), "{}");
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let member = pb::Member {
            id: u64::MAX,
            name: "\u{e4}\"\n".into(),
            peer_ur_ls: vec!["http://a:1".into(), "http://b:2".into()],
            client_ur_ls: vec!["http://c:3".into()],
            is_learner: true,
        };
        let encoded = member.encode_to_vec();
        let shown = write(".etcdserverpb.Member", &encoded).unwrap();
        let read = read(".etcdserverpb.Member", shown.as_bytes()).unwrap();
        assert_eq!(pb::Member::decode(read.as_slice()).unwrap(), member);
        assert!(write(".etcdserverpb.Member", &encoded[..encoded.len() - 3]).is_err());
    }

    #[test]
    fn methods_are_found_by_their_paths() {
        let watch = method("/etcdserverpb.Watch/Watch").unwrap();
        assert!(watch.many_requests && watch.many_answers);
        assert_eq!(watch.input, ".etcdserverpb.WatchRequest");
        assert_eq!(method("/etcdserverpb.KV/Nothing"), None);
    }
}

//! What is answered about keys: reads, writes, transactions, watches.

use prost::Message as _;

use crate::cli::etcdctl::v3::show::json::{self, Object};
use crate::cli::etcdctl::v3::show::{Answer, Fields, Simple, headed, header};
use crate::wire::etcd::v3::etcdserverpb as pb;
use crate::wire::etcd::v3::etcdserverpb::response_op::Response;
use crate::wire::etcd::v3::mvccpb::event::EventType;
use crate::wire::etcd::v3::mvccpb::{Event, KeyValue};

fn key_value(kv: &KeyValue) -> Object {
    Object::default()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
}

fn key_value_text(kv: &KeyValue) -> String {
    key_value(kv).end()
}

impl Answer for pb::RangeResponse {
    fn simple(&self, to: &mut Simple) {
        self.kvs.iter().for_each(|kv| to.key_value(kv));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        self.kvs.iter().for_each(|kv| to.key_value("", kv));
        to.value("More", self.more);
        to.value("Count", self.count);
    }

    fn json(&self) -> String {
        headed(self.header.as_ref())
            .list("kvs", &self.kvs, key_value_text)
            .yes("more", self.more)
            .number("count", self.count)
            .end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for pb::PutResponse {
    fn simple(&self, to: &mut Simple) {
        to.line("OK");
        self.prev_kv.iter().for_each(|kv| to.key_value(kv));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        self.prev_kv.iter().for_each(|kv| to.key_value("Prev", kv));
    }

    fn json(&self) -> String {
        headed(self.header.as_ref()).object("prev_kv", self.prev_kv.as_ref().map(key_value)).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for pb::DeleteRangeResponse {
    fn simple(&self, to: &mut Simple) {
        to.line(self.deleted.to_string());
        self.prev_kvs.iter().for_each(|kv| to.key_value(kv));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        to.value("Deleted", self.deleted);
        self.prev_kvs.iter().for_each(|kv| to.key_value("Prev", kv));
    }

    fn json(&self) -> String {
        headed(self.header.as_ref())
            .number("deleted", self.deleted)
            .list("prev_kvs", &self.prev_kvs, key_value_text)
            .end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for pb::TxnResponse {
    fn simple(&self, to: &mut Simple) {
        to.line(if self.succeeded { "SUCCESS" } else { "FAILURE" });
        for response in self.responses.iter().filter_map(|one| one.response.as_ref()) {
            to.line("");
            match response {
                Response::ResponseRange(got) => got.simple(to),
                Response::ResponsePut(put) => put.simple(to),
                Response::ResponseDeleteRange(deleted) => deleted.simple(to),
                Response::ResponseTxn(done) => done.simple(to),
            }
        }
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        to.value("Succeeded", self.succeeded);
        for response in self.responses.iter().filter_map(|one| one.response.as_ref()) {
            match response {
                Response::ResponseRange(got) => got.fields(to),
                Response::ResponsePut(put) => put.fields(to),
                Response::ResponseDeleteRange(deleted) => deleted.fields(to),
                Response::ResponseTxn(done) => done.fields(to),
            }
        }
    }

    fn json(&self) -> String {
        headed(self.header.as_ref())
            .yes("succeeded", self.succeeded)
            .list("responses", &self.responses, response)
            .end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// Makes the JSON of one answer of a transaction, as the original's library nests it.
fn response(op: &pb::ResponseOp) -> String {
    let Some(response) = &op.response else { return r#"{"Response":null}"#.to_owned() };
    let (name, json) = match response {
        Response::ResponseRange(got) => ("response_range", got.json()),
        Response::ResponsePut(put) => ("response_put", put.json()),
        Response::ResponseDeleteRange(deleted) => ("response_delete_range", deleted.json()),
        Response::ResponseTxn(done) => ("response_txn", done.json()),
    };
    Object::default().object("Response", Some(Object::default().raw(name, json))).end()
}

impl Answer for pb::WatchResponse {
    fn simple(&self, to: &mut Simple) {
        for event in &self.events {
            to.line(event.r#type().as_str_name());
            event.prev_kv.iter().for_each(|kv| to.key_value(kv));
            event.kv.iter().for_each(|kv| to.key_value(kv));
        }
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        for event in &self.events {
            to.value("Type", event.r#type().as_str_name());
            event.prev_kv.iter().for_each(|kv| to.key_value("Prev", kv));
            event.kv.iter().for_each(|kv| to.key_value("", kv));
        }
    }

    fn json(&self) -> String {
        Object::default()
            .raw("Header", header(self.header.as_ref()).unwrap_or_default().end())
            .raw("Events", json::list(&self.events, event))
            .raw("CompactRevision", self.compact_revision)
            .raw("Canceled", self.canceled)
            .raw("Created", self.created)
            .end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

fn event(event: &Event) -> String {
    let kind = i32::from(event.r#type() == EventType::Delete);
    Object::default()
        .number("type", kind)
        .object("kv", event.kv.as_ref().map(key_value))
        .object("prev_kv", event.prev_kv.as_ref().map(key_value))
        .end()
}

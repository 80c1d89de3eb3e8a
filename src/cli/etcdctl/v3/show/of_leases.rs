//! What is answered about leases.

use prost::Message as _;

use crate::cli::etcdctl::v3::show::json::{self, Object};
use crate::cli::etcdctl::v3::show::{Answer, Fields, Simple, headed, header};
use crate::wire::etcd::v3::etcdserverpb as pb;

/// Begins JSON in which the header's fields stand beside the others.
fn beside(answered: Option<&pb::ResponseHeader>) -> Object {
    header(answered).unwrap_or_default()
}

impl Answer for pb::LeaseGrantResponse {
    fn simple(&self, to: &mut Simple) {
        to.line(format!("lease {:016x} granted with TTL({}s)", self.id, self.ttl));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        to.value("ID", self.id);
        to.value("TTL", self.ttl);
    }

    fn json(&self) -> String {
        beside(self.header.as_ref())
            .raw("ID", self.id)
            .raw("TTL", self.ttl)
            .text_always("Error", &self.error)
            .end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// A lease that has been ended.
#[derive(Debug)]
pub(in crate::cli::etcdctl::v3) struct Revoked {
    /// Which.
    pub(in crate::cli::etcdctl::v3) id: i64,
    /// What the store said.
    pub(in crate::cli::etcdctl::v3) answer: pb::LeaseRevokeResponse,
}

impl Answer for Revoked {
    fn simple(&self, to: &mut Simple) {
        to.line(format!("lease {:016x} revoked", self.id));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.answer.header.as_ref());
    }

    fn json(&self) -> String {
        headed(self.answer.header.as_ref()).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.answer.encode_to_vec())
    }
}

impl Answer for pb::LeaseKeepAliveResponse {
    fn simple(&self, to: &mut Simple) {
        to.line(format!("lease {:016x} keepalived with TTL({})", self.id, self.ttl));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        to.value("ID", self.id);
        to.value("TTL", self.ttl);
    }

    fn json(&self) -> String {
        beside(self.header.as_ref()).raw("ID", self.id).raw("TTL", self.ttl).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for pb::LeaseTimeToLiveResponse {
    fn simple(&self, to: &mut Simple) {
        let id = format!("{:016x}", self.id);
        if self.granted_ttl == 0 && self.ttl == -1 {
            return to.line(format!("lease {id} already expired"));
        }
        let keys: Vec<_> = self.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        let keys = if keys.is_empty() {
            String::new()
        } else {
            format!(", attached keys([{}])", keys.join(" "))
        };
        to.line(format!(
            "lease {id} granted with TTL({}s), remaining({}s){keys}",
            self.granted_ttl, self.ttl
        ));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        to.value("ID", self.id);
        to.value("TTL", self.ttl);
        to.value("GrantedTTL", self.granted_ttl);
        self.keys.iter().for_each(|key| to.text("Key", key));
    }

    fn json(&self) -> String {
        let keys = if self.keys.is_empty() {
            "null".to_owned()
        } else {
            json::list(&self.keys, |key| json::bytes(key))
        };
        beside(self.header.as_ref())
            .raw("id", self.id)
            .raw("ttl", self.ttl)
            .raw("granted-ttl", self.granted_ttl)
            .raw("keys", keys)
            .end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Answer for pb::LeaseLeasesResponse {
    fn simple(&self, to: &mut Simple) {
        to.line(format!("found {} leases", self.leases.len()));
        self.leases.iter().for_each(|lease| to.line(format!("{:016x}", lease.id)));
    }

    fn fields(&self, to: &mut Fields) {
        to.header(self.header.as_ref());
        self.leases.iter().for_each(|lease| to.value("ID", lease.id));
    }

    fn json(&self) -> String {
        let lease = |lease: &pb::LeaseStatus| Object::default().raw("id", lease.id).end();
        beside(self.header.as_ref()).raw("leases", json::list(&self.leases, lease)).end()
    }

    fn message(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

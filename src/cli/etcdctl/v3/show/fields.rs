//! A line for each field: `"Name" : value`.

use std::fmt::{Display, Write as _};

use crate::cli::etcdctl::v3::go_text::quoted;
use crate::wire::etcd::v3::etcdserverpb::ResponseHeader;
use crate::wire::etcd::v3::mvccpb::KeyValue;

/// Lines of fields.
#[derive(Debug, Default)]
pub(in crate::cli::etcdctl::v3) struct Fields(String);

impl Fields {
    pub(super) fn value(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "\"{name}\" : {value}");
    }

    pub(super) fn text(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.value(name, quoted(value.as_ref()));
    }

    /// Writes an empty line.
    pub(super) fn gap(&mut self) {
        self.0.push('\n');
    }

    pub(super) fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.value("ClusterID", header.cluster_id);
        self.value("MemberID", header.member_id);
        self.value("Revision", header.revision);
        self.value("RaftTerm", header.raft_term);
    }

    /// Writes a key's fields, their names behind `prefix`.
    pub(super) fn key_value(&mut self, prefix: &str, kv: &KeyValue) {
        self.text(&format!("{prefix}Key"), &kv.key);
        self.value(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.value(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.value(&format!("{prefix}Version"), kv.version);
        self.text(&format!("{prefix}Value"), &kv.value);
        self.value(&format!("{prefix}Lease"), kv.lease);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

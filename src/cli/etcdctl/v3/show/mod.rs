//! How answers are written: for people, as fields, as JSON, as messages, as a table.
//!
//! Each answer says what it has to say once for each format; what it does not have in a format is
//! refused.

use crate::cli::etcdctl::v3::show::fields::Fields;
use crate::cli::etcdctl::v3::show::json::Object;
use crate::cli::etcdctl::v3::{Failed, Step};
use crate::wire::etcd::v3::etcdserverpb::ResponseHeader;
use crate::wire::etcd::v3::mvccpb::KeyValue;

mod fields;
mod json;
mod of_cluster;
mod of_keys;
mod of_leases;
mod table;

pub(super) use of_cluster::{Hashes, Health, Healths, Moved, Statuses};
pub(super) use of_leases::Revoked;

/// In which form answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people and simple scripts.
    Simple,
    /// A line for each field.
    Fields,
    /// JSON.
    Json,
    /// The message as it came.
    Protobuf,
    /// A table.
    Table,
}

impl Format {
    /// Reads the word for it.
    pub(super) fn parse(text: &str) -> Step<Self> {
        Ok(match text {
            "simple" => Self::Simple,
            "fields" => Self::Fields,
            "json" => Self::Json,
            "protobuf" => Self::Protobuf,
            "table" => Self::Table,
            _ => return Err(Failed::feature("unsupported output format")),
        })
    }
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Show {
    /// In which form.
    pub(super) format: Format,
    /// Whether bytes are written as hex.
    pub(super) hex: bool,
    /// Whether keys are left out.
    pub(super) value_only: bool,
}

/// What was answered, as it is shown.
pub(super) trait Answer {
    /// Writes it for people.
    fn simple(&self, to: &mut Simple);
    /// Writes a line for each field.
    fn fields(&self, to: &mut Fields);
    /// Returns it as JSON.
    fn json(&self) -> String;
    /// Returns the message that it is, if it is one.
    fn message(&self) -> Option<Vec<u8>> {
        None
    }
    /// Returns a table's head and rows, if it is one.
    fn table(&self) -> Option<(&'static [&'static str], Vec<Vec<String>>)> {
        None
    }
}

impl Show {
    /// Tells whether people are meant to read it.
    pub(super) fn is_simple(self) -> bool {
        self.format == Format::Simple
    }

    /// Writes an answer.
    pub(super) fn render(self, answer: &impl Answer) -> Step<Vec<u8>> {
        let unsupported =
            |name: &str| Failed::feature(format_args!("{name} not supported as output format"));
        match self.format {
            Format::Simple => {
                let mut text = Simple { bytes: Vec::new(), show: self };
                answer.simple(&mut text);
                Ok(text.bytes)
            }
            Format::Fields => {
                let mut fields = Fields::default();
                answer.fields(&mut fields);
                Ok(fields.into_text().into_bytes())
            }
            Format::Json => Ok((answer.json() + "\n").into_bytes()),
            Format::Protobuf => answer.message().ok_or_else(|| unsupported("protobuf")),
            Format::Table => {
                let (head, rows) = answer.table().ok_or_else(|| unsupported("table"))?;
                Ok(table::drawn(head, &rows).into_bytes())
            }
        }
    }
}

/// What people read.
#[derive(Debug)]
pub(super) struct Simple {
    bytes: Vec<u8>,
    show: Show,
}

impl Simple {
    fn line(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.extend(text.as_ref());
        self.bytes.push(b'\n');
    }

    /// Writes a row of a table without its lines.
    fn row(&mut self, cells: &[String]) {
        self.line(cells.join(", "));
    }

    fn key_value(&mut self, kv: &KeyValue) {
        if !self.show.value_only {
            self.shown(&kv.key);
        }
        self.shown(&kv.value);
    }

    fn shown(&mut self, bytes: &[u8]) {
        if self.show.hex {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            self.line(hex.concat());
        } else {
            self.line(bytes);
        }
    }
}

/// Makes a header's JSON; nothing where there is none.
fn header(header: Option<&ResponseHeader>) -> Option<Object> {
    header.map(|header| {
        Object::default()
            .number("cluster_id", header.cluster_id)
            .number("member_id", header.member_id)
            .number("revision", header.revision)
            .number("raft_term", header.raft_term)
    })
}

/// Begins the JSON of an answer with its header.
fn headed(answered: Option<&ResponseHeader>) -> Object {
    Object::default().object("header", header(answered))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::etcd::v3::etcdserverpb as pb;

    pub(super) fn shown(format: Format, answer: &impl Answer) -> String {
        let show = Show { format, hex: false, value_only: false };
        String::from_utf8(show.render(answer).unwrap()).unwrap()
    }

    #[test]
    fn bytes_are_shown_as_hex_if_asked_for() {
        let kv = KeyValue { key: "a".into(), value: vec![0, 255], ..Default::default() };
        let got = pb::RangeResponse { kvs: vec![kv], ..Default::default() };
        let show = Show { format: Format::Simple, hex: true, value_only: false };
        assert_eq!(show.render(&got).unwrap(), b"\\x61\n\\x00\\xff\n");
        let show = Show { hex: false, value_only: true, ..show };
        assert_eq!(show.render(&got).unwrap(), b"\0\xff\n");
    }

    #[test]
    fn what_has_no_table_says_so() {
        let show = Show { format: Format::Table, hex: false, value_only: false };
        let refused = show.render(&pb::PutResponse::default()).unwrap_err();
        assert_eq!(refused, Failed::new(4, "table not supported as output format"));
        assert_eq!(Format::parse("xml").unwrap_err().exit.code(), 4);
    }

    #[test]
    fn a_message_is_written_as_it_came() {
        let put = pb::PutResponse {
            header: Some(ResponseHeader { revision: 3, ..Default::default() }),
            prev_kv: None,
        };
        let show = Show { format: Format::Protobuf, hex: false, value_only: false };
        assert_eq!(pb::PutResponse::decode(show.render(&put).unwrap().as_slice()).unwrap(), put);
    }
}

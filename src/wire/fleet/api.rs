//! fleet's HTTP API v1: entities, pages, errors. Field names are compatible.
//!
//! Ours beyond the original: `GET /fleet/v1/placement/{unit}` tells for every machine whether
//! the unit could run there, and if not why.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};

use crate::wire::fleet::registry::JobState;
use crate::wire::fleet::unit_file::UnitOption;

/// The path that all resources are below.
pub const PREFIX: &str = "/fleet/v1";

/// Where they were before 1.0; the same resources.
pub const PREFIX_LEGACY: &str = "/v1-alpha";

/// The unix socket of the API on every machine.
pub const SOCKET: &str = "/run/fleet.sock";

/// How many items a page has unless the configuration says otherwise.
pub const PAGE_ITEMS: u16 = 100;

/// What the API answers with 503 while the daemon has no store.
pub const NO_STORE: &str = "fleet server unable to communicate with etcd";

/// A unit: what it is, what it shall be, what it is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<UnitOption>,
    /// What it shall be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<JobState>,
    /// What it is; nothing for a global unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_state: Option<JobState>,
    /// Where it is to run.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
}

/// What systemd says of a unit on one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// The unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its hash there, 40 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The machine.
    #[serde(rename = "machineID", skip_serializing_if = "String::is_empty")]
    pub machine_id: String,
    /// `loaded`, `not-found`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_load_state: String,
    /// `active`, `inactive`, `failed`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_active_state: String,
    /// `running`, `dead`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub systemd_sub_state: String,
}

/// A machine of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// Its id.
    pub id: String,
    /// Its public address.
    #[serde(rename = "primaryIP", skip_serializing_if = "String::is_empty")]
    pub primary_ip: String,
    /// What is known about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A page of units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitPage {
    /// The units, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
    /// The token of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A page of states.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatePage {
    /// The states, by unit and machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<UnitState>,
    /// The token of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A page of machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachinePage {
    /// The machines, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// The token of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The body of an answer that is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// What went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiError {
    /// The HTTP status.
    pub code: u16,
    /// What happened, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a unit could run, and where not and why not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The unit.
    pub unit: String,
    /// Every machine, by id.
    pub machines: Vec<MachineVerdict>,
}

/// Whether one machine could run the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineVerdict {
    /// The machine.
    #[serde(rename = "machineID")]
    pub machine_id: String,
    /// Its public address.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// Whether it could.
    pub ok: bool,
    /// Why not, or what speaks for it.
    pub reason: String,
}

/// One change of a machine's metadata, as `PATCH /machines` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataPatch {
    /// `add`, `replace` or `remove`.
    #[serde(default)]
    pub op: String,
    /// `/<machine>/metadata/<key>`.
    #[serde(default)]
    pub path: String,
    /// The value, plain or as `{"value": …}`; both are in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<PatchValue>,
}

/// A value in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PatchValue {
    /// As fleet's documents have it.
    Plain(String),
    /// As fleet's code has it.
    Wrapped {
        /// The value.
        value: String,
    },
}

/// What a valid [`MetadataPatch`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataChange {
    /// The machine.
    pub machine: String,
    /// The metadata's key.
    pub key: String,
    /// Its new value; `None` takes it away.
    pub value: Option<String>,
}

/// A change of metadata that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPatch {
    /// The operation is unknown.
    #[error("invalid op: `{0}` is none of add, replace, remove")]
    Op(String),
    /// The path leads nowhere.
    #[error("invalid path: `{0}`; write `/<machine id>/metadata/<key>`")]
    Path(String),
    /// There is nothing to write.
    #[error("missing value for `{0}`")]
    Value(String),
}

impl MetadataPatch {
    /// Checks the operation, its path and its value.
    pub fn check(&self) -> Result<MetadataChange, BadPatch> {
        if !["add", "replace", "remove"].contains(&self.op.as_str()) {
            return Err(BadPatch::Op(self.op.clone()));
        }
        let parts: Vec<&str> = self.path.split('/').collect();
        let ["", machine, "metadata", key] = parts[..] else {
            return Err(BadPatch::Path(self.path.clone()));
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let good = |part: &str| !part.is_empty() && part.chars().all(valid);
        if !good(machine) || !good(key) {
            return Err(BadPatch::Path(self.path.clone()));
        }
        let value = match &self.value {
            _ if self.op == "remove" => None,
            Some(PatchValue::Plain(value) | PatchValue::Wrapped { value }) if !value.is_empty() => {
                Some(value.clone())
            }
            _ => return Err(BadPatch::Value(self.path.clone())),
        };
        Ok(MetadataChange { machine: machine.to_owned(), key: key.to_owned(), value })
    }
}

/// Which page comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// Items a page.
    pub limit: u16,
    /// The page, the first is 0.
    pub page: u16,
}

/// A text is no token of a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for nextPageToken: `{0}`; take it from the page before")]
pub struct BadToken(String);

impl PageToken {
    /// Writes the token.
    pub fn encode(self) -> String {
        let ([a, b], [c, d]) = (self.limit.to_le_bytes(), self.page.to_le_bytes());
        URL_SAFE.encode([a, b, c, d])
    }

    /// Reads a token.
    pub fn decode(text: &str) -> Result<Self, BadToken> {
        let bad = || BadToken(text.to_owned());
        let bytes = URL_SAFE.decode(text).map_err(|_| bad())?;
        let [a, b, c, d] = <[u8; 4]>::try_from(bytes).map_err(|_| bad())?;
        Ok(Self { limit: u16::from_le_bytes([a, b]), page: u16::from_le_bytes([c, d]) })
    }

    /// Reads the token of a server whose pages have `limit` items.
    pub fn accept(text: &str, limit: u16) -> Result<Self, BadToken> {
        let token = Self::decode(text)?;
        if token.limit == limit && token.page > 0 { Ok(token) } else { Err(BadToken(text.into())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_tokens_are_met() {
        assert_eq!(PageToken { limit: 19, page: 11_852 }.encode(), "EwBMLg==");
        assert_eq!(PageToken { limit: 12_482, page: 0 }.encode(), "wjAAAA==");
    }

    #[test]
    fn a_token_of_another_server_is_refused() {
        let token = PageToken { limit: 100, page: 1 }.encode();
        assert!(PageToken::accept(&token, 100).is_ok());
        assert!(PageToken::accept(&token, 50).is_err());
        assert!(PageToken::accept(&PageToken { limit: 100, page: 0 }.encode(), 100).is_err());
        for bad in ["", "EwBMLg", "EwBM", "!!!!!!==", "EwBMLgAA"] {
            assert!(PageToken::accept(bad, 100).is_err(), "{bad}");
        }
    }

    #[test]
    fn entities_are_written_as_fleet_writes_them() {
        let unit = Unit {
            name: "a.service".into(),
            options: vec![UnitOption::new("Service", "ExecStart", "/a")],
            desired_state: Some(JobState::Launched),
            current_state: Some(JobState::Inactive),
            machine_id: "m1".into(),
        };
        assert_eq!(
            serde_json::to_string(&unit).unwrap(),
            r#"{"name":"a.service","options":[{"section":"Service","name":"ExecStart","value":"/a"}],"desiredState":"launched","currentState":"inactive","machineID":"m1"}"#,
        );
        assert_eq!(serde_json::to_string(&UnitPage::default()).unwrap(), "{}");
        let error = ErrorBody { error: ApiError { code: 404, message: String::new() } };
        assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":{"code":404}}"#);
        let machine: Machine =
            serde_json::from_str(r#"{"id":"m1","primaryIP":"1.2.3.4"}"#).unwrap();
        assert_eq!(machine.primary_ip, "1.2.3.4");
    }

    fn patch(text: &str) -> Result<MetadataChange, String> {
        let patch: MetadataPatch = serde_json::from_str(text).unwrap();
        patch.check().map_err(|error| error.to_string())
    }

    #[test]
    fn both_forms_of_a_value_are_taken() {
        for value in [r#""b""#, r#"{"value":"b"}"#] {
            let text = format!(r#"{{"op":"add","path":"/m1/metadata/a.b","value":{value}}}"#);
            let change = patch(&text).unwrap();
            assert_eq!((change.machine.as_str(), change.key.as_str()), ("m1", "a.b"));
            assert_eq!(change.value.as_deref(), Some("b"));
        }
        let removed = patch(r#"{"op":"remove","path":"/m1/metadata/a"}"#).unwrap();
        assert_eq!(removed.value, None);
    }

    #[test]
    fn a_bad_patch_says_what_is_wrong() {
        for (text, begins) in [
            (r#"{"op":"move","path":"/m1/metadata/a"}"#, "invalid op"),
            (r#"{"op":"add","path":"/m1/meta/a","value":"b"}"#, "invalid path"),
            (r#"{"op":"add","path":"/m1/metadata/a/b","value":"b"}"#, "invalid path"),
            (r#"{"op":"add","path":"/m1/metadata/ä","value":"b"}"#, "invalid path"),
            (r#"{"op":"add","path":"/m1/metadata/a"}"#, "missing value"),
        ] {
            assert!(patch(text).unwrap_err().starts_with(begins), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_back(limit: u16, page: u16) {
            let token = PageToken { limit, page };
            prop_assert_eq!(PageToken::decode(&token.encode()), Ok(token));
        }
    }
}

//! What a source says about the machine besides user-data.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::substitute::Addresses;

/// Facts about this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its name; empty if the source has none.
    pub hostname: String,
    /// Keys for `core`, in the order of their names.
    pub ssh_keys: Vec<String>,
    /// Its addresses.
    pub addresses: Addresses,
}

/// A `meta_data.json` is none.
#[derive(Debug, thiserror::Error)]
#[error("the metadata of the config drive is not what OpenStack writes")]
pub struct BadMetadata {
    #[source]
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct ConfigDrive {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    public_keys: Option<BTreeMap<String, String>>,
}

impl Metadata {
    /// Reads `openstack/latest/meta_data.json`; an empty one says nothing.
    pub fn from_config_drive(json: &[u8]) -> Result<Self, BadMetadata> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let drive: ConfigDrive =
            serde_json::from_slice(json).map_err(|source| BadMetadata { source })?;
        let keys = drive.public_keys.unwrap_or_default().into_values();
        Ok(Self {
            hostname: drive.hostname.unwrap_or_default(),
            ssh_keys: keys.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect(),
            addresses: Addresses::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_drive_has_a_name_and_keys_and_much_else() {
        let json = br#"{"uuid": "x", "hostname": "host", "network_config":
            {"content_path": "path"}, "public_keys": {"2": "key2\n", "1": "key1"}}"#;
        let metadata = Metadata::from_config_drive(json).unwrap();
        assert_eq!(metadata.hostname, "host");
        assert_eq!(metadata.ssh_keys, ["key1", "key2"]);
        assert_eq!(metadata.addresses, Addresses::default());
    }

    #[test]
    fn a_config_drive_may_say_nothing() {
        for json in ["", "{}", r#"{"ignore": "me", "hostname": null, "public_keys": null}"#] {
            assert_eq!(Metadata::from_config_drive(json.as_bytes()).unwrap(), Metadata::default());
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for json in ["{", "[1]", r#"{"public_keys": "bad"}"#] {
            assert!(Metadata::from_config_drive(json.as_bytes()).is_err(), "{json}");
        }
    }
}

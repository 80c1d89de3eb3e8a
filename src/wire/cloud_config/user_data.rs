//! What kind of thing user-data is.

use super::content;
use crate::foundation::limits::CLOUD_CONFIG_BYTES_MAX;

/// The kinds, each with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserData {
    /// Nothing.
    Empty,
    /// A script for a shell, or whatever its first line names.
    Script(String),
    /// A cloud-config.
    CloudConfig(String),
    /// A config for Ignition, which is another program.
    Ignition,
    /// Something else.
    Unrecognized(Unrecognized),
}

/// User-data is of no known kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognized {
    /// Several parts in one.
    #[error(
        "Unrecognized user-data format: multipart user-data is not supported, give one \
         `#cloud-config` or one `#!` script"
    )]
    Multipart,
    /// Anything else.
    #[error(
        "Unrecognized user-data format: its first line must be `#cloud-config` or begin with `#!`"
    )]
    Other,
}

/// User-data is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoText {
    /// More than we read.
    #[error("user-data is more than {CLOUD_CONFIG_BYTES_MAX} bytes; fetch large files from a unit")]
    TooLong,
    /// It begins as gzip and does not go on as it.
    #[error("user-data is torn gzip, or unpacks to more than {CLOUD_CONFIG_BYTES_MAX} bytes")]
    Gzip,
    /// Not UTF-8.
    #[error("user-data is not UTF-8 text: byte {at} fits no letter")]
    Utf8 {
        /// The first byte that does not fit.
        at: usize,
    },
}

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Returns the text of user-data, unpacked if it is gzip.
pub fn text(bytes: Vec<u8>) -> Result<String, NoText> {
    if bytes.len() > CLOUD_CONFIG_BYTES_MAX {
        return Err(NoText::TooLong);
    }
    let plain = if bytes.starts_with(&GZIP) {
        content::gunzip(&bytes, CLOUD_CONFIG_BYTES_MAX as u64).ok_or(NoText::Gzip)?
    } else {
        bytes
    };
    String::from_utf8(plain).map_err(|error| NoText::Utf8 { at: error.utf8_error().valid_up_to() })
}

/// Tells what kind a text is.
pub fn kind(text: String) -> UserData {
    let first = text.lines().next().unwrap_or_default();
    if text.is_empty() {
        UserData::Empty
    } else if first.starts_with("#!") {
        UserData::Script(text)
    } else if first.trim_end() == "#cloud-config" {
        UserData::CloudConfig(text)
    } else if is_ignition(&text) {
        UserData::Ignition
    } else if is_multipart(first) {
        UserData::Unrecognized(Unrecognized::Multipart)
    } else {
        UserData::Unrecognized(Unrecognized::Other)
    }
}

fn is_ignition(text: &str) -> bool {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else { return false };
    json.get("ignitionVersion").is_some_and(serde_json::Value::is_i64)
        || json.pointer("/ignition/version").is_some_and(serde_json::Value::is_string)
}

fn is_multipart(first: &str) -> bool {
    let first = first.to_ascii_lowercase();
    first.starts_with("content-type:") || first.starts_with("mime-version:")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn kind_of(text: &str) -> &'static str {
        match kind(text.to_owned()) {
            UserData::Empty => "empty",
            UserData::Script(_) => "script",
            UserData::CloudConfig(_) => "cloud-config",
            UserData::Ignition => "ignition",
            UserData::Unrecognized(Unrecognized::Multipart) => "multipart",
            UserData::Unrecognized(Unrecognized::Other) => "other",
        }
    }

    #[test]
    fn the_first_line_tells_the_kind() {
        for (text, expected) in [
            ("", "empty"),
            ("#!/bin/bash\necho hi\n", "script"),
            ("#!", "script"),
            ("#cloud-config", "cloud-config"),
            ("#cloud-config\n", "cloud-config"),
            ("#cloud-config\r\nhostname: a\r\n", "cloud-config"),
            ("#cloud-config  \t \n", "cloud-config"),
            ("#cloud-config foo\n", "other"),
            (" #cloud-config\n", "other"),
            ("# cloud-config\n", "other"),
            ("\n#cloud-config\n", "other"),
            ("{\"ignitionVersion\": 1}", "ignition"),
            ("{\"ignition\": {\"version\": \"2.0.0\"}}", "ignition"),
            ("{\"ignition\": {\"version\": 2}}", "other"),
            ("{}", "other"),
            ("Content-Type: multipart/mixed; boundary=\"x\"\n", "multipart"),
        ] {
            assert_eq!(kind_of(text), expected, "{text:?}");
        }
    }

    #[test]
    fn gzip_is_unpacked_whatever_it_holds() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"#cloud-config\n").unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(text(packed.clone()).unwrap(), "#cloud-config\n");
        assert_eq!(text(packed[..9].to_vec()), Err(NoText::Gzip));
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        assert_eq!(text(vec![b'a'; CLOUD_CONFIG_BYTES_MAX]).unwrap().len(), CLOUD_CONFIG_BYTES_MAX);
        assert_eq!(text(vec![b'a'; CLOUD_CONFIG_BYTES_MAX + 1]), Err(NoText::TooLong));
        assert_eq!(text(b"#!/bin/sh\n\xff".to_vec()), Err(NoText::Utf8 { at: 10 }));
    }
}

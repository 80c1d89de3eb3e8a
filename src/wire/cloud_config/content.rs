//! What a file's `content` is once its `encoding` is undone.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;

/// Longest file that a cloud-config may unpack to, in bytes: it is held in memory.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// A content is not what its encoding says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("content cannot be decoded as \"{encoding}\"")]
pub struct Undecodable {
    /// The encoding asked for.
    pub encoding: String,
}

/// Undoes an encoding: the empty one, `b64`, `base64`, `gz`, `gzip` or `gz+base64` in all its
/// spellings.
pub fn decode(content: Vec<u8>, encoding: &str) -> Result<Vec<u8>, Undecodable> {
    let decoded = match encoding {
        "" => Some(content),
        "b64" | "base64" => from_base64(&content),
        "gz" | "gzip" => gunzip(&content, FILE_BYTES_MAX),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => {
            from_base64(&content).and_then(|packed| gunzip(&packed, FILE_BYTES_MAX))
        }
        _ => None,
    };
    decoded.ok_or_else(|| Undecodable { encoding: encoding.to_owned() })
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let letters: Vec<u8> =
        text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(letters).ok()
}

/// Unpacks gzip; `None` if it is none, is torn, or is more than `bytes_max`.
pub fn gunzip(packed: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(packed).take(bytes_max + 1).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 <= bytes_max).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_encoding_is_undone() {
        let plain = b"hello world".to_vec();
        let packed = gzip(&plain);
        let letters = STANDARD.encode(&plain).into_bytes();
        let both = STANDARD.encode(&packed).into_bytes();
        for (encoding, content) in [
            ("", &plain),
            ("b64", &letters),
            ("base64", &letters),
            ("gz", &packed),
            ("gzip", &packed),
            ("gz+b64", &both),
            ("gz+base64", &both),
            ("gzip+b64", &both),
            ("gzip+base64", &both),
        ] {
            assert_eq!(decode(content.clone(), encoding).as_ref(), Ok(&plain), "{encoding}");
        }
    }

    #[test]
    fn what_is_not_what_it_says_is_refused() {
        for (content, encoding) in [
            (&b"@&*#%invalid data*@&^#*&"[..], "base64"),
            (b"@&*#%invalid data*@&^#*&", "gzip"),
            (b"aGVsbG8gd29ybGQ=", "gzip+base64"),
            (b"hello world", "custom"),
            (b"hello world", "Base64"),
        ] {
            let refused = decode(content.to_vec(), encoding).unwrap_err().to_string();
            assert_eq!(refused, format!("content cannot be decoded as \"{encoding}\""));
        }
    }

    #[test]
    fn what_unpacks_to_more_than_allowed_is_refused() {
        let packed = gzip(&[0; 1000]);
        assert_eq!(gunzip(&packed, 1000).unwrap().len(), 1000);
        assert_eq!(gunzip(&packed, 999), None);
        assert_eq!(gunzip(&packed[..packed.len() - 9], 1000), None);
    }
}

//! `/etc/machine-id`: made on the first boot, before systemd looks.
//!
//! A systemd that finds none takes every unit of the image for new and applies its presets, which
//! here enable nothing: three seconds of an emulated first boot. Format: machine-id(5).

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

const NAME: &str = "machine-id";
const NEW_NAME: &str = ".machine-id.new";
const RANDOM: &str = "/dev/urandom";
const HEX_DIGITS: usize = 32;

/// Gives the machine an id where `etc` holds none. A crash meanwhile leaves none or a whole one.
/// Returns whether it was given now.
pub(crate) fn ensure(etc: &Path) -> io::Result<bool> {
    let path = etc.join(NAME);
    let present = fs::read_to_string(&path).unwrap_or_default();
    if is_valid(present.trim_end()) {
        return Ok(false);
    }
    let mut random = [0; 16];
    File::open(RANDOM)?.read_exact(&mut random)?;
    let new = etc.join(NEW_NAME);
    let mut file = File::create(&new)?;
    writeln!(file, "{:032x}", as_version_4(u128::from_be_bytes(random)))?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(etc)?.sync_all()?;
    Ok(true)
}

fn is_valid(id: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    id.len() == HEX_DIGITS && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0')
}

/// Marks random bits as a random UUID (RFC 9562, section 5.4), as systemd's own ids are.
fn as_version_4(random: u128) -> u128 {
    let version = 0xf_u128 << 76;
    let variant = 0b11_u128 << 62;
    (random & !version & !variant) | (0x4 << 76) | (0b10 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_given_once() {
        let etc = tempfile::tempdir().unwrap();
        assert!(ensure(etc.path()).unwrap());
        let id = fs::read_to_string(etc.path().join(NAME)).unwrap();
        assert!(is_valid(id.trim_end()), "{id}");
        assert!(!ensure(etc.path()).unwrap());
        assert_eq!(fs::read_to_string(etc.path().join(NAME)).unwrap(), id);
    }

    #[test]
    fn what_is_no_id_is_replaced() {
        for bad in ["", "uninitialized\n", "00000000000000000000000000000000\n", "12ab\n"] {
            let etc = tempfile::tempdir().unwrap();
            fs::write(etc.path().join(NAME), bad).unwrap();
            assert!(ensure(etc.path()).unwrap(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        assert_eq!(as_version_4(0), 0x0000_0000_0000_4000_8000_0000_0000_0000);
        assert_eq!(as_version_4(u128::MAX), 0xffff_ffff_ffff_4fff_bfff_ffff_ffff_ffff);
    }
}

//! The config drive: a small vfat disk labelled `config-2`, as clouds attach it.
//!
//! Made without mounting anything, so that it needs no rights.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::error::LabError;
use crate::process::Program;

const QUICK: Duration = Duration::from_secs(20);
/// The drive's size: a cloud-config is a few kilobytes.
const SIZE: u64 = 4 << 20;

/// Writes the drive of a machine.
pub(super) fn write(
    path: &Path,
    hostname: &str,
    user_data: &str,
    key: &str,
) -> Result<(), LabError> {
    let failed = || LabError::file("write", path);
    fs::File::create(path).and_then(|file| file.set_len(SIZE)).map_err(failed())?;
    Program::line("mkfs.vfat -n config-2").arg(path).run(QUICK)?;
    let meta_data = json!({
        "uuid": format!("00000000-0000-4000-8000-{:012x}", hostname.len()),
        "hostname": hostname,
        "name": hostname,
        "public_keys": { "lab": key },
    });
    Program::line("mmd -i").arg(path).args(["::/openstack", "::/openstack/latest"]).run(QUICK)?;
    put(path, "user_data", user_data)?;
    put(path, "meta_data.json", &meta_data.to_string())
}

fn put(drive: &Path, name: &str, text: &str) -> Result<(), LabError> {
    let target = format!("::/openstack/latest/{name}");
    Program::line("mcopy -i").arg(drive).args(["-", &target]).input(text).run(QUICK).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_holds_what_a_cloud_would_give() {
        let path = std::env::temp_dir().join(format!("config-{}.img", std::process::id()));
        write(&path, "node1", "#cloud-config\n", "ssh-ed25519 AAAA lab").unwrap();
        let read = |name: &str| {
            let source = format!("::/openstack/latest/{name}");
            Program::line("mcopy -i").arg(&path).args([&source, "-"]).run(QUICK).unwrap()
        };
        assert_eq!(read("user_data"), "#cloud-config\n");
        assert!(read("meta_data.json").contains("\"lab\":\"ssh-ed25519 AAAA lab\""));
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.windows(11).any(|window| window == b"config-2   "));
        fs::remove_file(path).unwrap();
    }
}

//! The image's `/usr` as a folder, unpacked once for each image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::error::LabError;
use crate::process::Program;

/// A few hundred MiB from a busy disk.
const UNPACK: Duration = Duration::from_mins(5);
/// Where it is kept, beside the labs: the name of a lab never begins so.
const CACHE: &str = "usr-";
/// How it is unpacked: all of it is root's, since a change of owner takes the set-user-id bit from
/// `sudo`. The name of the cache says it, so that one made otherwise is not used.
const OWNED: (&str, [&str; 2]) = ("root-", ["--no-preserve-owner", "--preserve-perms"]);

/// Returns the folder that holds the content of the image's `/usr`.
pub(super) fn unpacked() -> Result<PathBuf, LabError> {
    let image = crate::vm::image_folder()?;
    let root = crate::lab::root();
    let ready = root.join(format!("{CACHE}{}{}", OWNED.0, root_hash(&image)?));
    if ready.exists() {
        return Ok(ready);
    }
    // A lab that was left running may stand on an older one.
    if crate::lab::labs().len() <= 1 {
        forget_older(&root);
    }
    // Nothing but a finished folder ever has the final name.
    let half = root.join(format!("{CACHE}half-{}", std::process::id()));
    let mut extract = std::ffi::OsString::from("--extract=");
    extract.push(&half);
    Program::new("fsck.erofs")
        .args(OWNED.1)
        .arg(extract)
        .arg(image.join("usr.erofs"))
        .run(UNPACK)?;
    fs::rename(&half, &ready).map_err(LabError::file("rename", &half))?;
    Ok(ready)
}

fn root_hash(image: &Path) -> Result<String, LabError> {
    let path = image.join("manifest.json");
    let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    let manifest: Value = serde_json::from_str(&text).unwrap_or_default();
    manifest["root_hash"].as_str().map(str::to_owned).ok_or_else(|| {
        LabError::Missing(format!("{} names no root_hash: build the image anew", path.display()))
    })
}

fn forget_older(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(CACHE) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

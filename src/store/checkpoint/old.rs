//! What earlier versions wrote: everything in one file, with the v3 keys as chunks at its end.

use std::path::Path;

use crate::store::checkpoint::{Checkpoint, CheckpointError};
use crate::store::keys_v3::KeysV3;

/// The oldest version of the format that is read: there were no alarms.
pub(super) const FORMAT_WITHOUT_ALARMS: u32 = 2;

/// Decodes the body of one; `path` is for the message.
pub(super) fn decode(format: u32, body: &[u8], path: &Path) -> Result<Checkpoint, CheckpointError> {
    let corrupt = |_| CheckpointError::Corrupt { path: path.to_owned() };
    let (mut checkpoint, keys): (Checkpoint, _) =
        postcard::take_from_bytes(body).map_err(corrupt)?;
    let restored = match format {
        FORMAT_WITHOUT_ALARMS => KeysV3::restore_without_alarms(keys),
        _ => KeysV3::restore(keys),
    };
    let wrong = |source| CheckpointError::Keys { path: path.to_owned(), source };
    checkpoint.machine.keys_v3 = restored.map_err(wrong)?;
    Ok(checkpoint)
}

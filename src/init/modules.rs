//! Loading the modules that the image's builder put into the initrd, in its order.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use rustix::system::finit_module;

use crate::Refusal;
use crate::read;

const FOLDER: &str = "/modules";
const ORDER: &str = "/modules/order";
const NO_PARAMETERS: &CStr = c"";

/// Loads every module. One that does not load is said and passed over: a machine has one kind of
/// disk, and what is really missing is missed by the next step, by name.
pub(crate) fn load_all(say: &dyn Fn(&str)) -> Result<(), Refusal> {
    for name in read(ORDER)?.lines() {
        let path = Path::new(FOLDER).join(name);
        let file = File::open(&path).map_err(|source| Refusal::Read { path, source })?;
        if let Err(errno) = finit_module(&file, NO_PARAMETERS, 0) {
            say(&format!("module {name} did not load: {errno}"));
        }
    }
    // They are in the kernel now; their files would stay in memory for ever.
    fs::remove_dir_all(FOLDER).ok();
    Ok(())
}

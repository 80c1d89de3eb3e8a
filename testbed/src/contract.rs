//! The contract of all service managers, held to the systemd of the machine that this runs on.

use std::path::Path;

use corebox::foundation::tasks::Tasks;
use corebox::platform::systemd::{DbusSystemd, contract};
use testbed::error::LabError;

/// Tries all of it, with unit files in `folder`; panics where systemd or our client breaks it.
pub(crate) fn systemd(folder: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(folder).map_err(LabError::file("make", folder))?;
    let failed = |source| LabError::Ask { whom: "the kernel for a runtime".to_owned(), source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let tasks = Tasks::default();
        contract(&DbusSystemd::system(&tasks), folder).await;
    });
    Ok(())
}

//! The initrd: our init and the modules it loads. Not compressed: it is small beside the kernel,
//! and an update can reuse what did not change.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cpio::Archive;
use crate::files::{self, FileError};

const WANTED: &str = include_str!("../modules.list");

/// The initrd could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// A file.
    #[error("cannot collect the initrd")]
    File(#[from] FileError),
    /// A module of `modules.list` is not in the kernel's package.
    #[error("modules.list names `{0}`, which this kernel does not have as a module")]
    NoModule(String),
}

/// Makes the initrd from our init and the modules in `modules`, the kernel's folder of them.
pub fn make(init: &[u8], modules: &Path) -> Result<Vec<u8>, InitrdError> {
    let dependencies = files::read_text(&modules.join("modules.dep"))?;
    let builtin = files::read_text(&modules.join("modules.builtin"))?;
    let order = load_order(&lines(WANTED), &dependencies, &builtin)?;
    let mut archive = Archive::default();
    for folder in ["dev", "modules", "proc", "sys", "sysroot"] {
        archive.folder(folder);
    }
    archive.console("dev/console");
    archive.program("init", init);
    let mut names = String::new();
    for path in &order {
        let name = path.rsplit('/').next().unwrap_or(path);
        names.push_str(name);
        names.push('\n');
        archive.file(&format!("modules/{name}"), &files::read(&modules.join(path))?);
    }
    archive.file("modules/order", names.as_bytes());
    Ok(archive.finish())
}

/// Returns the lines of a list of ours, without comments.
pub fn lines(list: &str) -> Vec<&str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Returns the files of the wanted modules, each after those it needs, without those that are built
/// into the kernel.
fn load_order<'a>(
    wanted: &[&str],
    dependencies: &'a str,
    builtin: &str,
) -> Result<Vec<&'a str>, InitrdError> {
    let needs: BTreeMap<&str, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (name(path), (path, needs.split_ascii_whitespace().collect())))
        .collect();
    let mut order = Vec::new();
    let is_module = |module: &&&str| !builtin.lines().any(|path| name(path) == **module);
    for module in wanted.iter().filter(is_module) {
        let (path, needed) =
            needs.get(module).ok_or_else(|| InitrdError::NoModule((*module).to_owned()))?;
        // The list is transitive, and what must come first stands last.
        for path in needed.iter().rev().chain([path]) {
            if !order.contains(path) {
                order.push(*path);
            }
        }
    }
    Ok(order)
}

fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
        k/dm-verity.ko: k/dm-bufio.ko k/dm-mod.ko\n\
        k/dm-bufio.ko: k/dm-mod.ko\n\
        k/dm-mod.ko:\n\
        k/erofs.ko: k/crc.ko\n\
        k/crc.ko:\n";
    const BUILTIN: &str = "k/ext4.ko\n";

    #[test]
    fn a_module_is_loaded_once_and_after_what_it_needs_unless_it_is_built_in() {
        let order =
            load_order(&["dm-bufio", "dm-verity", "ext4", "erofs"], DEPENDENCIES, BUILTIN).unwrap();
        assert_eq!(
            order,
            ["k/dm-mod.ko", "k/dm-bufio.ko", "k/dm-verity.ko", "k/crc.ko", "k/erofs.ko"]
        );
    }

    #[test]
    fn a_module_the_kernel_lacks_is_named() {
        let refused = load_order(&["ahci"], DEPENDENCIES, BUILTIN).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "modules.list names `ahci`, which this kernel does not have as a module"
        );
    }

    #[test]
    fn comments_are_not_modules() {
        assert_eq!(lines("# one\n\ntwo\n  three \n"), ["two", "three"]);
        assert!(lines(WANTED).contains(&"dm-verity"));
    }
}

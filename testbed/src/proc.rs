//! What the kernel says of a process: its memory and its processor time.

use std::fs;
use std::path::Path;

use crate::error::LabError;

/// The kernel's unit of processor time in `/proc`: a hundredth of a second for every program.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process so far, in seconds.
pub fn cpu(id: u32) -> Result<f64, LabError> {
    Ok(read(id, "stat", ticks)? / TICKS_PER_SECOND)
}

/// Anonymous and shared memory of a process, in MiB: what no file stands behind.
pub fn memory(id: u32) -> Result<f64, LabError> {
    let both = |text: &str| Some(kibibytes(text, "RssAnon:")? + kibibytes(text, "RssShmem:")?);
    Ok(read(id, "status", both)? / 1024.0)
}

/// All memory of a process, in MiB.
pub fn resident(id: u32) -> Result<f64, LabError> {
    Ok(read(id, "status", |text| kibibytes(text, "VmRSS:"))? / 1024.0)
}

fn read(id: u32, file: &str, read: impl Fn(&str) -> Option<f64>) -> Result<f64, LabError> {
    let path = Path::new("/proc").join(id.to_string()).join(file);
    let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    read(&text).ok_or_else(|| LabError::Missing(format!("no figure in {}", path.display())))
}

/// Time in user mode and in the kernel: the 14th and 15th field, where the 2nd is a name in
/// brackets that may have anything in it.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let (user, kernel) = (fields.next()?, fields.next()?);
    Some(user.parse::<f64>().ok()? + kernel.parse::<f64>().ok()?)
}

/// A figure of `/proc/PID/status`.
fn kibibytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 0 0 20 0 5 0 100 0 0";
        assert_eq!(ticks(stat), Some(43.0));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn memory_is_told_by_its_kind() {
        let status = "VmRSS:\t 9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n";
        assert_eq!(kibibytes(status, "RssAnon:"), Some(2048.0));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(9000.0));
        assert_eq!(kibibytes(status, "RssShmem:"), None);
        assert_eq!(kibibytes("RssAnon: 1 MB\n", "RssAnon:"), None);
    }

    #[test]
    fn this_process_has_memory_and_took_time() {
        let own = std::process::id();
        assert!(memory(own).unwrap() > 0.1 && resident(own).unwrap() >= memory(own).unwrap());
        assert!(cpu(own).unwrap() >= 0.0);
    }
}

//! QEMU's own control channel: its buttons.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::LabError;

const QUICK: Duration = Duration::from_secs(20);

/// Tells the machine behind `socket` to do something, and returns what it answered.
pub(super) fn tell(socket: &Path, command: &str) -> Result<Value, LabError> {
    let whom = format!("{} ({command})", socket.display());
    let failed = |source| LabError::Ask { whom: whom.clone(), source };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(QUICK)).map_err(failed)?;
    let mut lines = BufReader::new(stream.try_clone().map_err(failed)?).lines();
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{}", json!({ "execute": command })).map_err(failed)?;
    }
    let mut answers = 0;
    loop {
        let Some(line) = lines.next() else {
            return Err(LabError::Answer { whom, what: "nothing".to_owned() });
        };
        let line: Value = serde_json::from_str(&line.map_err(failed)?).unwrap_or_default();
        if let Some(error) = line.get("error") {
            return Err(LabError::Answer { whom, what: error.to_string() });
        }
        // The greeting and events come in between.
        if let Some(answer) = line.get("return") {
            answers += 1;
            if answers == 2 {
                return Ok(answer.clone());
            }
        }
    }
}

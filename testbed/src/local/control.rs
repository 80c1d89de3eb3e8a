//! Orders to the process of a local cluster: one line over a unix socket, one line back.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{LabError, chain};

/// How long either side may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest line, in bytes: an error with a path in it is the longest.
const LINE_BYTES_MAX: u64 = 4096;
/// What is answered where all went well.
const DONE: &str = "done";

/// What a cluster can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Take a node's power away.
    Halt(u8),
    /// Give it back.
    Start(u8),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halt(number) => write!(f, "halt {number}"),
            Self::Start(number) => write!(f, "start {number}"),
        }
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("`{line}` is no order");
        let (verb, number) = line.trim().split_once(' ').ok_or_else(wrong)?;
        let number = number.parse().map_err(|_| wrong())?;
        match verb {
            "halt" => Ok(Self::Halt(number)),
            "start" => Ok(Self::Start(number)),
            _ => Err(wrong()),
        }
    }
}

/// Gives an order, and waits until it is carried out.
pub fn give(socket: &Path, order: Order) -> Result<(), LabError> {
    let whom = format!("the cluster's process at {}", socket.display());
    let failed = |source| LabError::Ask { whom: whom.clone(), source };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    writeln!(stream, "{order}").and_then(|()| stream.shutdown(Shutdown::Write)).map_err(failed)?;
    let mut answer = String::new();
    stream.take(LINE_BYTES_MAX).read_to_string(&mut answer).map_err(failed)?;
    match answer.trim() {
        DONE => Ok(()),
        said => Err(LabError::Missing(said.to_owned())),
    }
}

/// Takes orders, one after the other, for as long as the process lives.
pub fn take(listener: &UnixListener, mut obey: impl FnMut(Order) -> Result<(), LabError>) {
    for stream in listener.incoming() {
        match stream.and_then(|stream| read(&stream).map(|line| (stream, line))) {
            Ok((mut stream, line)) => {
                let done = line.parse().map_err(LabError::Missing).and_then(&mut obey);
                let answer = done.map_or_else(|error| chain(&error), |()| DONE.to_owned());
                // Who asked may have gone.
                writeln!(stream, "{answer}").ok();
            }
            Err(error) => tracing::warn!(%error, "an order was not understood"),
        }
    }
}

fn read(stream: &UnixStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        for order in [Order::Halt(3), Order::Start(16)] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        assert!("halt".parse::<Order>().is_err());
        assert!("explode 3".parse::<Order>().is_err());
    }

    #[test]
    fn who_gives_an_order_hears_what_came_of_it() {
        let path = std::env::temp_dir().join(format!("control-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        // Ends with the test's process: it waits for orders as long as that lives.
        std::thread::spawn(move || {
            take(&listener, |order| match order {
                Order::Halt(1) => Ok(()),
                Order::Halt(_) | Order::Start(_) => {
                    Err(LabError::Missing("no such node".to_owned()))
                }
            });
        });
        give(&path, Order::Halt(1)).unwrap();
        let refused = give(&path, Order::Halt(2)).unwrap_err();
        assert_eq!(refused.to_string(), "no such node");
        std::fs::remove_file(path).unwrap();
    }
}

//! The discovery service of a lab: the applet that ships, on the lab's own address.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::error::LabError;
use crate::http;
use crate::lab::Lab;
use crate::net::Net;
use crate::process::{Program, Running};
use crate::wait;

/// The port that cloud-configs of the lab name.
const PORT: u16 = 8087;
/// How long it may take to start, on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// A running discovery service.
#[derive(Debug)]
pub struct Discovery {
    running: Running,
}

impl Discovery {
    /// Starts it.
    pub fn start(lab: &Lab) -> Result<Self, LabError> {
        let data = lab.folder("discovery")?;
        let running = Program::new(crate::binary())
            .args(["discovery", "--addr", &format!("0.0.0.0:{PORT}")])
            .args(["--public-url", &format!("http://{}:{PORT}", Net::host())])
            .arg("--data-dir")
            .arg(&data)
            .inside(lab.id())
            .start(lab.lifetime(), &lab.dir().join("discovery.log"))?;
        Ok(Self { running })
    }

    /// Asks for the URL of a new cluster of `size` members.
    pub fn new_cluster(&mut self, net: &Net, size: usize) -> Result<String, LabError> {
        let server = SocketAddrV4::new(Net::host(), PORT);
        let path = format!("/new?size={size}");
        let url = wait::until("a discovery URL", START, || {
            self.running.check().map_err(|error| error.to_string())?;
            let answer = http::get(net, server, &path, START)
                .map_err(|error| crate::error::chain(&error))?;
            if answer.status == 200 {
                Ok(answer.body.trim().to_owned())
            } else {
                Err(answer.unexpected().to_string())
            }
        })?;
        Ok(url)
    }
}

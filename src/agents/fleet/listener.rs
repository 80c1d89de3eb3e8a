//! Connections of the network seam, served by axum.

use std::io;
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;

use crate::platform::net::{Address, Incoming, Io};

/// How long to wait after a connection could not be taken: the limit on files, most of the time.
const PAUSE: Duration = Duration::from_millis(500);

struct Listener(Box<dyn Incoming>);

impl axum::serve::Listener for Listener {
    type Io = Box<dyn Io>;
    type Addr = Address;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((io, from)) => return (io, from.map_or_else(|| self.0.local(), Address::Tcp)),
                Err(error) => {
                    tracing::warn!(why = %error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.0.local())
    }
}

/// Serves `router` on `incoming` until told to stop.
pub async fn serve(incoming: Box<dyn Incoming>, router: Router, stop: CancellationToken) {
    let at = incoming.local();
    tracing::info!(%at, "serving");
    let serving = axum::serve(Listener(incoming), router);
    let ended = serving.with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = ended {
        tracing::error!(%at, why = %error, "serving ended");
    }
}

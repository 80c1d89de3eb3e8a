//! The body of a request, read whole: with a limit and a deadline.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::foundation::limits::REQUEST_BYTES_MAX;

/// How long a client may take to send a body: etcd's longest, on a line of 50 kB/s.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It is too long.
    #[error("http: request body too large; at most {REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    /// It did not come in time.
    #[error("the body did not come within {} seconds", DEADLINE.as_secs())]
    Late,
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

/// Reads a body.
pub(super) async fn read(body: Body) -> Result<Bytes, BodyError> {
    let read = Limited::new(body, REQUEST_BYTES_MAX).collect();
    match tokio::time::timeout(DEADLINE, read).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(error)) => Err(BodyError::Broken(error.to_string())),
        Err(_) => Err(BodyError::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_long_or_too_slow_is_not_waited_for() {
        let long = Body::from(vec![0; REQUEST_BYTES_MAX + 1]);
        assert!(matches!(read(long).await, Err(BodyError::TooLarge)));
        let stuck = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let began = tokio::time::Instant::now();
        assert!(matches!(read(Body::from_stream(stuck)).await, Err(BodyError::Late)));
        assert_eq!(began.elapsed(), DEADLINE);
        assert_eq!(read(Body::from("value=1")).await.unwrap(), "value=1");
    }
}

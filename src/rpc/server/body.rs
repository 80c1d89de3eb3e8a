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
    #[error("http: request body too large; at most {bytes_max} bytes")]
    TooLarge {
        /// The most bytes it may have.
        bytes_max: usize,
    },
    /// It did not come in time.
    #[error("the body did not come within {} seconds", deadline.as_secs())]
    Late {
        /// How long it could take.
        deadline: Duration,
    },
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

/// Reads a body of the v2 API.
pub(super) async fn read(body: Body) -> Result<Bytes, BodyError> {
    read_within(body, REQUEST_BYTES_MAX, DEADLINE).await
}

/// Reads a body of at most `bytes_max` bytes that comes within `deadline`.
pub(super) async fn read_within(
    body: Body,
    bytes_max: usize,
    deadline: Duration,
) -> Result<Bytes, BodyError> {
    let read = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(deadline, read).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { bytes_max }),
        Ok(Err(error)) => Err(BodyError::Broken(error.to_string())),
        Err(_) => Err(BodyError::Late { deadline }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_long_or_too_slow_is_not_waited_for() {
        let long = Body::from(vec![0; REQUEST_BYTES_MAX + 1]);
        assert!(matches!(
            read(long).await,
            Err(BodyError::TooLarge { bytes_max: REQUEST_BYTES_MAX })
        ));
        let stuck = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let began = tokio::time::Instant::now();
        assert!(matches!(
            read(Body::from_stream(stuck)).await,
            Err(BodyError::Late { deadline: DEADLINE })
        ));
        assert_eq!(began.elapsed(), DEADLINE);
        assert_eq!(read(Body::from("value=1")).await.unwrap(), "value=1");
    }
}

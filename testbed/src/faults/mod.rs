//! What a client may do wrong, by mistake or on purpose, to a member that serves others meanwhile.
//!
//! ```text
//!   bad:   requests that are refused, each with the words it is refused with
//!   held:  connections that are kept: silent, slow, or never read
//!     raw: bytes on a connection, and what comes back
//! ```

pub mod bad;
pub mod held;
mod raw;

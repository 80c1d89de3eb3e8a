//! fleet's formats: unit files, their names and wishes, the registry's keys, the HTTP API.
//!
//! ```text
//!   unit_file ─▶ requirements ─▶ (the engine decides)     names, glob: used by all
//!       │
//!       ├─▶ registry: what lies under `/_coreos.com/fleet/` in the store
//!       └─▶ api: what `fleetctl` and others see over HTTP
//! ```
//! Source: fleet 1.0.0 as seen from outside; what is marked "compatible" is exact.
//!
//! **Not here:** decisions and I/O; `agents::fleet` has them.

pub mod api;
pub mod glob;
pub mod names;
pub mod registry;
pub mod requirements;
pub mod unit_file;

pub use names::UnitName;
pub use registry::{JobState, Key, Registry};
pub use requirements::Requirements;
pub use unit_file::{UnitFile, UnitHash, UnitOption};

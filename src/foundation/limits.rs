//! Everything has a limit, and each limit is here, with its unit and its reason.

use std::time::Duration;

/// Longest body of a client's HTTP request, in bytes: etcd's own `max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// Longest answer that a client of ours reads into memory, in bytes: a listing of a full store.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Longest frame between members, in bytes: a checkpoint in one piece is the largest.
pub const PEER_FRAME_BYTES_MAX: usize = 512 << 20;

/// Longest batch of commands in one log entry, in bytes: keeps one sync and one message short.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Commands that wait for the proposer before more are refused: a second's worth at full speed.
pub const PROPOSALS_MAX: usize = 16_384;

/// Events that the v2 API remembers for `waitIndex`: clients rely on exactly this number.
pub const V2_HISTORY_EVENTS: usize = 1_000;

/// Connections that one listener serves at a time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Longest cloud-config, in bytes: clouds allow 16 to 64 KiB, config drives more.
pub const CLOUD_CONFIG_BYTES_MAX: usize = 1 << 20;

/// Longest unit file, in bytes: the registry's values stay far below the store's request limit.
pub const UNIT_FILE_BYTES_MAX: usize = 256 << 10;

/// How long a daemon may take to stop after SIGTERM before the rest is abandoned.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long a connect to another machine may take.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

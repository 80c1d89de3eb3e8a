//! Everything has a limit, and each limit is here, with its unit and its reason.

use std::time::Duration;

/// Longest body of a client's HTTP request, in bytes: etcd's own `max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// Longest head of an HTTP request, in bytes, and what a connection may buffer: nine times what
/// other servers allow, since a value may stand in the query.
pub const HEAD_BYTES_MAX: usize = 72 << 10;

/// Longest answer that a client of ours reads into memory, in bytes: a listing of a full store.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Longest frame between members, in bytes: the v2 keys, which a checkpoint's manifest has whole, are
/// the largest.
pub const PEER_FRAME_BYTES_MAX: usize = 512 << 20;

/// Longest batch of commands in one log entry, in bytes: keeps one sync and one message short.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Commands that wait for the proposer before more are refused: a second's worth at full speed.
pub const PROPOSALS_MAX: usize = 16_384;

/// Bytes that the v3 keys may take where no other quota is set: etcd's own default.
pub const QUOTA_BYTES: u64 = 2 << 30;

/// Largest quota for the v3 keys, in bytes, that is accepted without a warning: as in etcd, since
/// their index is in memory, and a new member has to be sent all of them.
pub const QUOTA_BYTES_SUGGESTED_MAX: u64 = 8 << 30;

/// Leases that one batch revokes: as many as etcd revokes in a second.
pub const LEASES_REVOKED_MAX: usize = 1_000;

/// Operations in each list of a v3 transaction, and conditions: etcd's own `max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;

/// What a gRPC message may have beyond [`REQUEST_BYTES_MAX`], in bytes, before it is not even read:
/// as etcd, so that a request that is a little too large is refused in words of the API.
pub const GRPC_OVERHEAD_BYTES_MAX: usize = 512 << 10;

/// Longest v3 message as JSON, in bytes: base64 makes the longest of gRPC a third longer, and names
/// come on top.
pub const GATEWAY_BYTES_MAX: usize = 2 * (REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES_MAX);

/// Bytes of keys in one message of a streamed range: what is in memory of it at a time.
pub const RANGE_PART_BYTES: u64 = 512 << 10;

/// Bytes of answers that are kept for those who read them slowly, of all together; one answer alone may
/// be longer.
pub const SLOW_ANSWERS_BYTES_MAX: usize = 128 << 20;

/// Watches on one stream: each is a few hundred bytes.
pub const WATCHES_MAX: usize = 65_536;

/// Bytes of events in one answer of a watch before the next watch has its turn.
pub const WATCH_BYTES_MAX: u64 = 1 << 20;

/// Events that are looked at for one watch before the next has its turn.
pub const WATCH_EVENTS_MAX: usize = 10_000;

/// Streams of one HTTP/2 connection: a client with a thousand watches has a few.
pub const HTTP2_STREAMS_MAX: u32 = 16_384;

/// Events of which one step of a compaction frees memory: a fraction of a millisecond.
pub const COMPACT_EVENTS_MAX: usize = 500;

/// Versions that one step after a checkpoint lets go of: well below a millisecond.
pub const SETTLE_VERSIONS_MAX: usize = 100;

/// Events that the v2 API remembers for `waitIndex`: clients rely on exactly this number.
pub const V2_HISTORY_EVENTS: usize = 1_000;

/// Connections that one listener serves at a time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Descriptors of a process that connections of clients leave free: for the log, checkpoints and the
/// other members.
pub const DESCRIPTORS_KEPT: u64 = 256;

/// Longest cloud-config, in bytes: clouds allow 16 to 64 KiB, config drives more.
pub const CLOUD_CONFIG_BYTES_MAX: usize = 1 << 20;

/// Longest unit file, in bytes: the registry's values stay far below the store's request limit.
pub const UNIT_FILE_BYTES_MAX: usize = 256 << 10;

/// How long a daemon may take to stop after SIGTERM before the rest is abandoned.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long a connect to another machine may take.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

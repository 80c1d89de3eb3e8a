//! Layer 6: the daemons and their HTTP servers. They do not know each other: they meet through
//! `rpc::client` and `wire`, as they would on two machines.

pub mod discovery;
pub mod environment;
pub mod etcd;
pub mod fleet;
pub mod provision;
pub mod ssh_keys;

//! Turns the protocol's definitions into Rust, with a compiler that is a crate: no `protoc`.

use std::error::Error;

/// Where the definitions are.
const PROTOS: &str = "src/wire/etcd/v3";

/// What the log carries, and what is in it: `Eq` is left out of what has a list of messages.
const COMPARED: [&str; 6] = [
    "RangeResponse",
    "DeleteRangeResponse",
    "RequestOp",
    "ResponseOp",
    "TxnRequest",
    "TxnResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let definitions = protox::compile(["rpc.proto", "election.proto", "lock.proto"], [PROTOS])?;
    let mut builder = tonic_prost_build::configure().build_transport(false);
    for name in COMPARED {
        builder = builder.type_attribute(format!(".etcdserverpb.{name}"), "#[derive(Eq)]");
    }
    builder.compile_fds(definitions)?;
    Ok(())
}

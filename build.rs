//! Turns the protocol's definitions into Rust, with a compiler that is a crate: no `protoc`.

use std::error::Error;

/// Where the definitions are.
const PROTOS: &str = "src/wire/etcd/v3";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let definitions = protox::compile(["rpc.proto", "election.proto", "lock.proto"], [PROTOS])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(definitions)?;
    Ok(())
}

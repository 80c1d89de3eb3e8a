//! The clients of others, as their registries give them: each runs a script of `testbed/clients`
//! against a member, and the script says what was expected where it is not what came.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::etcd::Member;
use testbed::process::Program;

/// How long a script may take; all take less than 15 s, most of that for what time has to end.
const SCRIPT: Duration = Duration::from_secs(90);

/// Where `cargo xtask` installs the clients.
fn installed(shelf: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients").join(shelf);
    let none = format!("{}: nothing is there; run `cargo xtask test cluster`", folder.display());
    assert!(folder.is_dir(), "{none}");
    folder
}

/// Runs a script with the member's host and port as its arguments.
fn script(program: Program, name: &str, member: &Member) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name);
    steps(program.arg(path), name, member);
}

/// Runs a program with the member's host and port as its arguments, all of its steps to the last.
fn steps(program: Program, name: &str, member: &Member) {
    let (host, port) = (member.client.ip().to_string(), member.client.port().to_string());
    let said = program.args([host, port]).run(SCRIPT).unwrap_or_else(|error| {
        panic!("{name}: {}", testbed::error::chain(&error));
    });
    assert!(said.ends_with("\nend\n"), "{name} left early: {said}");
}

fn python(name: &str, member: &Member) {
    // `-B`: nothing is written beside the scripts.
    let program = Program::new("/usr/bin/python3").arg("-B");
    script(program.env("PYTHONPATH", installed("pypi")), name, member);
}

#[test]
fn etcd3_of_pypi_works_with_a_member() {
    let site = super::site("client-etcd3");
    python("pypi_etcd3.py", &super::alone(&site));
}

#[test]
fn etcd3gw_of_pypi_works_with_a_member() {
    let site = super::site("client-etcd3gw");
    python("pypi_etcd3gw.py", &super::alone(&site));
}

#[test]
fn python_etcd_of_pypi_works_with_a_member() {
    let site = super::site("client-python-etcd");
    python("pypi_python_etcd.py", &super::alone(&site));
}

#[test]
fn etcd3_of_npm_works_with_a_member() {
    let site = super::site("client-npm");
    let member = super::alone(&site);
    let packages = installed("npm").join("node_modules");
    script(Program::new("/usr/bin/node").env("NODE_PATH", packages), "npm_etcd3.cjs", &member);
}

#[test]
fn etcd_client_of_crates_works_with_a_member() {
    let site = super::site("client-crates");
    let name = "crates_etcd_client";
    let program = Program::new(installed("crates").join("bin").join(name));
    steps(program, name, &super::alone(&site));
}

//! The names under which `/usr/bin` offers the one program.

/// Names of 2015's programs and of today's, each a symlink to `corebox`.
///
/// The applet table is the truth; this list says which of its names the image's units and people
/// call, and is checked against it by a test once all of them are there.
pub const LINKS: &[&str] = &[
    "coreos-cloudinit",
    "coreos-setup-environment",
    "update-ssh-keys",
    "etcd",
    "etcd2",
    "etcdctl",
    "discovery",
    "fleetd",
    "fleetctl",
];
